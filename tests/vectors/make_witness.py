"""Vectors of docs/spec/witness.md: `witness.json`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from gradseal.proof.cosignature import MAX_TIMESTAMP, CosigningKey
from gradseal.proof.merkle import EMPTY_ROOT, Tree
from gradseal.proof.note import Note, NoteSignature, SigningKey, encode_base64
from gradseal.proof.submission import Submission
from vectors.cosigned_log import (
    FORK,
    ORIGIN,
    OWNER,
    TIME,
    TREE,
    WITNESSES,
    changed,
    checkpoint,
    decimal,
    signed,
    with_lines,
)
from vectors.make_receipt import bad_policies, bad_receipts, policies, receipts

Vectors = dict[str, Any]

WITNESS, OTHER = WITNESSES["X1"], WITNESSES["X2"]
TWIN = CosigningKey(name=WITNESS.name, seed=OTHER.seed)

# A checkpoint of a public log that public witnesses cosigned in 2026, and the keys that four of them publish.
PUBLISHED_CHECKPOINT = """\
arche2025h1.staging.ct.transparency.dev
1432088532
U7WM79jrzyhGZ5/GUBTpM7NzwdyfFx61t3RovgcC4Ro=

— arche2025h1.staging.ct.transparency.dev zTM8sQAAAZ5W0WdjBAMARjBEAiBjW5IQf9pvsYLfQFX6hoGREPMHbdQ3urbllzalApkptQIgIpwtEroeW2BXaHAI4kJXFbon5Ch9MNL5zRNZ55lvGt0=
— arche2025h1.staging.ct.transparency.dev ui8GwCF1+kWqZrxGdhj4aX3gcw7XUlXQQabg/27lefwhUkzbC3NygNI75MdhL1bfTW9g8Ei59RA23oHP7Ry1k3ZFWwQ=
— transparency.dev/DEV:witness-little-garden 2AQqhwAAAABqEiEgzgFIqqhbUoDwjMWE6UP8nd8/KYTzwZ2rhIgcqoXHAwVkjZr4AscylP3v7sEodkRAErumC2q44vdgJY096st5BQ==
— witness1.smartit.nu/witness1 pIyCDwAAAABqEiEghIp82KWebrw7/oHQwlTAm3g2RKS4+eebl8eO0WH+/iEcxZ75W3u5hNI7TOQtmJbqmNWVuE0tgh0XwzdZsDsUAQ==
— remora.n621.de 2net5wAAAABqEiEgPlfF3V06o0Y+fHM+J5J9s27wgxxcOVSpZ/2g/KSiXCg9DEZI+aVCIobWX9sXTynk5XeU/zZ0WBxtqB0DrAWfBw==
— witness.stagemole.eu Z/euoAAAAABqEiEgw0i+7g2ENfDAWHmtRzCfKTHSDwYDJA2NmKeGi9Y8FtEyOUvVr+AJmIY/2TUFucgKi7lI7cUiOvKFYe/TmN9DAg==
"""  # noqa: E501 - as it was published
PUBLISHED_KEYS = (
    "transparency.dev/DEV:witness-little-garden+d8042a87+BCtusOxINQNUTN5Oj8HObRkh2yHf/MwYaGX4CPdiVEPM",
    "witness1.smartit.nu/witness1+a48c820f+BPSFWg9G6KPiO7QPryYO5Xq4oYJJ+kAvLKLSimDhoxMO",
    "remora.n621.de+da77ade7+BOvN63jn/bLvkieywe8R6UYAtVtNbZpXh34x7onlmtw2",
    "witness.stagemole.eu+67f7aea0+BEqSG3yu9YrmcM3BHvQYTxwFj3uSWakQepafafpUqklv",
)
PUBLISHED_TIME = 0x6A122120


def witnesses() -> Vectors:
    """docs/spec/witness.md, sections 1, 2, 4 and 5."""
    return {
        "about": (
            "Times, sizes and indexes are decimal strings, times in seconds of Unix time. keys: `key` is "
            "the verification key of `signing_key`. lines: what `signing_key` adds at `time` to a note of "
            "this `text`. cosigned: `key` cosigned the note `bytes` at `time`; null if it did not. "
            "submissions: `bytes` is read into the parts. answers: what a witness that cosigned `latest` "
            "last (null: nothing) answers to `bytes` at `now`, the log's signature being verified: the "
            "status, with 200 the time that it states, with 409 the size. policies: the policy `bytes`, and "
            "for cosignatures of `times`, by the policy's names, whether they are enough, and the time of "
            "the quorum, null if it shows none. receipts: what `bytes` shows under `policy` of the entry "
            "whose leaf hash is `leaf`: whether it is included, the log's key, when each witness cosigned, "
            "whether these are enough, the time of the quorum, and whether the receipt holds. invalid: must "
            "be refused when read."
        ),
        "keys": [{"signing_key": k.encode(), "key": str(k.verification_key)} for k in WITNESSES.values()],
        "lines": [_line(time) for time in (0, 1, TIME, MAX_TIMESTAMP)] + [_line(TIME, "more", "lines")],
        "cosigned": [*_published(), *_cosigned()],
        "submissions": [_submission(old, size) for old, size in ((0, 0), (0, 7), (3, 7), (7, 7), (6, 20))],
        "answers": _answers(),
        "policies": policies(),
        "receipts": receipts(),
        "invalid": {
            "keys": _bad_keys(),
            "submissions": _bad_submissions(),
            "policies": bad_policies(),
            "receipts": bad_receipts(),
        },
    }


def _line(time: int, *more: str) -> Vectors:
    text = checkpoint(5, *more).text()
    line = WITNESS.cosign(text, time).line()
    return {"signing_key": WITNESS.encode(), "text": text, "time": str(time), "line": line}


def _published() -> list[Vectors]:
    note = PUBLISHED_CHECKPOINT.encode()
    return [
        {"source": f"public witness {key.split('+')[0]}", "bytes": note.hex(), "key": key, "time": time}
        for key, time in ((key, str(PUBLISHED_TIME)) for key in PUBLISHED_KEYS)
    ] + [
        {
            "reason": "a public witness, but another size",
            "bytes": note.replace(b"1432088532", b"1432088533").hex(),
            "key": PUBLISHED_KEYS[0],
            "time": None,
        }
    ]


def _cosigned() -> list[Vectors]:
    """Of one witness; the note first, then what is added to it, then the time that counts."""
    note, later = signed(checkpoint(5)), signed(checkpoint(5, "more"))
    true, twin = WITNESS.cosign(note.text, TIME), TWIN.cosign(note.text, TIME)
    seal = true.signature[8:]
    plain = SigningKey(name=WITNESS.name, seed=WITNESS.seed)
    plain_seal = plain.sign(note.text.encode())
    plain_line = replace(true, key_id=plain.verification_key.id, signature=plain_seal)

    def says(time: int, signature: bytes = seal) -> NoteSignature:
        return replace(true, signature=time.to_bytes(8, "big") + signature)

    other_root = signed(checkpoint(7, tree=FORK))
    cases: list[tuple[str, Note, list[NoteSignature], int | None]] = [
        ("one line", note, [true], TIME),
        ("a time of zero, which counts as any other", note, [WITNESS.cosign(note.text, 0)], 0),
        ("the latest time", note, [WITNESS.cosign(note.text, MAX_TIMESTAMP)], MAX_TIMESTAMP),
        ("two lines: the earliest", note, [WITNESS.cosign(note.text, TIME + 9), true], TIME),
        ("beside another key of the name", note, [TWIN.cosign(note.text, 1), true], TIME),
        ("beside another witness", note, [OTHER.cosign(note.text, 1), true], TIME),
        ("no line", note, [], None),
        ("another witness", note, [OTHER.cosign(note.text, TIME)], None),
        ("another key of the name", note, [twin], None),
        (
            "another key under this one's id",
            note,
            [says(TIME, TWIN.cosign(note.text, TIME).signature[8:])],
            None,
        ),
        ("another time than was signed", note, [says(TIME - 1)], None),
        ("zero instead of the time that was signed", note, [says(0)], None),
        ("a time beyond the limit", note, [says(2**63)], None),
        ("the largest time that eight bytes hold", note, [says(2**64 - 1)], None),
        ("another size", note, [WITNESS.cosign(checkpoint(4).text(), TIME)], None),
        ("another root", other_root, [WITNESS.cosign(checkpoint(7).text(), TIME)], None),
        ("a further line that was not signed", later, [true], None),
        ("a further line that was signed and is not there", note, [WITNESS.cosign(later.text, TIME)], None),
        ("a byte too few", note, [says(TIME, seal[:-1])], None),
        ("a byte too many", note, [says(TIME, seal + b"\0")], None),
        ("no time", note, [replace(true, signature=seal)], None),
        ("a plain signature after a time", note, [says(TIME, plain_seal)], None),
        ("a plain signature by the same seed", note, [plain_line], None),
        ("a false line beside the true one", note, [true, says(1)], None),
    ]
    key = str(WITNESS.verification_key)
    return [
        {
            "reason": reason,
            "bytes": with_lines(text, *lines).encode().hex(),
            "key": key,
            "time": decimal(time),
        }
        for reason, text, lines, time in cases
    ]


def _submitted(old: int, size: int, tree: Tree = TREE) -> Submission:
    stated = checkpoint(size, tree=tree)
    proof = tree.consistency_proof(old, size) if 0 < old < size else []
    return Submission(old=old, proof=tuple(proof), note=signed(stated), checkpoint=stated)


def _submission(old: int, size: int) -> Vectors:
    made = _submitted(old, size)
    return {
        "bytes": made.encode().hex(),
        "old": str(old),
        "proof": [node.hex() for node in made.proof],
        "note": made.note.encode().hex(),
        "origin": ORIGIN,
        "size": str(size),
        "root": made.checkpoint.root.hex(),
    }


def _answers() -> list[Vectors]:
    seven = {"size": "7", "root": TREE.root(7).hex(), "time": str(TIME)}
    empty = {"size": "0", "root": EMPTY_ROOT.hex(), "time": str(TIME)}
    first, again, grown, spare = _submitted(0, 7), _submitted(7, 7), _submitted(7, 20), bytes(32)
    untrue = replace(checkpoint(0), root=bytes(32))
    nothing = Submission(old=0, proof=(), note=signed(untrue), checkpoint=untrue)
    # What was cosigned last, the submission, the clock relative to TIME, the status, and the time or size.
    cases: list[tuple[str, Vectors | None, Submission, int, int, int | None]] = [
        ("the first", None, first, 0, 200, TIME),
        ("the log grew", seven, grown, 5, 200, TIME + 5),
        ("the same again", seven, again, 5, 200, TIME + 5),
        ("no entries", None, _submitted(0, 0), 0, 200, TIME),
        ("no entries, and then some", empty, first, 0, 200, TIME),
        ("a clock ten seconds behind", seven, grown, -10, 200, TIME),
        ("a clock eleven seconds behind", seven, grown, -11, 503, None),
        ("an old size above the new", seven, replace(again, old=8), 0, 400, None),
        ("from a size cosigned before", seven, _submitted(3, 7), 0, 409, 7),
        ("a smaller size", seven, _submitted(3, 6), 0, 409, 7),
        ("from a size that was not cosigned", None, _submitted(3, 7), 0, 409, 0),
        ("another root of the same size", seven, _submitted(7, 7, FORK), 0, 409, 7),
        ("another history", seven, _submitted(7, 20, FORK), 0, 422, None),
        ("the proof from another size", seven, replace(grown, proof=_submitted(6, 20).proof), 0, 422, None),
        ("no proof", seven, replace(grown, proof=()), 0, 422, None),
        ("a hash too few", seven, replace(grown, proof=grown.proof[:-1]), 0, 422, None),
        ("a hash too many", seven, replace(grown, proof=(*grown.proof, spare)), 0, 422, None),
        ("a proof from no entries", None, replace(first, proof=(spare,)), 0, 422, None),
        ("a proof for the same size", seven, replace(again, proof=(spare,)), 0, 422, None),
        ("no entries, but not their root", None, nothing, 0, 422, None),
    ]
    names = {200: "time", 409: "size"}
    return [
        {"reason": reason, "latest": latest, "bytes": asked.encode().hex(), "now": str(TIME + seconds)}
        | {"status": status}
        | ({names[status]: str(number)} if status in names else {})
        for reason, latest, asked, seconds, status, number in cases
    ]


def _bad_keys() -> list[Vectors]:
    key = str(WITNESS.verification_key)
    name, identifier, public = key.split("+", 2)
    cases = {
        "empty": "",
        "no name": f"+{identifier}+{public}",
        "a space in the name": f"x1 example+{identifier}+{public}",
        "another name": f"x2.example+{identifier}+{public}",
        "another hash": f"{name}+00000000+{public}",
        "upper-case hash": f"{name}+{identifier.upper()}+{public}",
        "another key under the hash": f"{name}+{identifier}+{str(OTHER.verification_key).split('+', 2)[2]}",
        "a log's key": str(OWNER.verification_key),
        "a byte missing": f"{name}+{identifier}+{encode_base64(bytes([4]) + bytes(31))}",
        "base64 without its end": key[:-1],
        "a newline at the end": f"{key}\n",
        "a signing key": WITNESS.encode(),
    }
    return [{"reason": reason, "key": text} for reason, text in cases.items()]


def _bad_submissions() -> list[Vectors]:
    made = _submitted(3, 7)
    good, first = made.encode(), encode_base64(made.proof[0]).encode()
    changes = {
        "no old size": (b"old 3\n", b""),
        "no number": (b"old 3\n", b"old\n"),
        "a leading zero": (b"old 3\n", b"old 03\n"),
        "a plus sign": (b"old 3\n", b"old +3\n"),
        "a minus sign": (b"old 3\n", b"old -3\n"),
        "an underscore": (b"old 3\n", b"old 1_0\n"),
        "a size of 2**63": (b"old 3\n", b"old 9223372036854775808\n"),
        "a space after the number": (b"old 3\n", b"old 3 \n"),
        "two spaces": (b"old 3\n", b"old  3\n"),
        "a carriage return": (b"old 3\n", b"old 3\r\n"),
        "upper case": (b"old 3\n", b"OLD 3\n"),
        "a hash of 31 bytes": (first, encode_base64(bytes(31)).encode()),
        "a hash without padding": (first, first[:-1]),
        "a hash with spare bits": (first, b"A" * 42 + b"B="),
        "a space before a hash": (first, b" " + first),
        "64 hashes": (first + b"\n", 61 * (b"A" * 43 + b"=\n")),
        "no empty line": (b"\n\n" + ORIGIN.encode(), b"\n" + ORIGIN.encode()),
        "two empty lines": (b"\n\n" + ORIGIN.encode(), b"\n\n\n" + ORIGIN.encode()),
        "a size that is not decimal": (b"\n7\n", b"\n0x7\n"),
        "no signature": (good[good.index("\n\N{EM DASH}".encode()) :], b"\n"),
    }
    return [
        {"reason": "empty", "bytes": ""},
        *changed(good, changes),
        {"reason": "a byte too many", "bytes": (good + b"\n").hex()},
    ]
