"""Quorums and receipts, docs/spec/witness.md sections 4 and 5: a part of `witness.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.merkle import leaf_hash
from gradseal.proof.note import Note, SigningKey, encode_base64
from gradseal.proof.receipt import Receipt
from vectors.cosigned_log import (
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

Vectors = dict[str, Any]
Quorums = Sequence[tuple[str, Mapping[str, int], bool, int | None]]

_LINES = {name: f"witness {name} {key.verification_key}\n" for name, key in WITNESSES.items()}
_X1, _X2, _X3, _Y1, _Y2, _Y3 = _LINES.values()

# The groups of the example of C2SP tlog-policy.
_NESTED = (
    f"log {OWNER.verification_key}\n\n{_X1}{_X2}{_X3}group X-witnesses 2 X1 X2 X3\n\n"
    f"{_Y1}{_Y2}{_Y3}group Y-witnesses any Y1 Y2 Y3\n\n"
    "group X-and-Y all X-witnesses Y-witnesses\nquorum X-and-Y\n"
)

# A module's record in Go's checksum database: the receipt, the record and the key are those that
# transparency-dev/incubator publishes with its tool tlog-verify.
PUBLISHED_RECEIPT = """\
c2sp.org/tlog-proof@v1
index 43930254
Q2cuq1e21q4UC1RQ6wtmXmCxk2q3Wqz/yFvD12P2KSM=
VdgHwjNYSv9fZVxvYzn8kySGvrjqeCnzdJqJILieWf4=
ARfBpZjsj3LSP42V4xBVdCKbHVa4WXSbuFAa0rUSCVQ=
0VYgz0Vmgz6jOM8H6edZBWHtO6+R7tPvN4EOwwRRSws=
vq+ifloynXE+ORFC1wymQT0cpNIJA1tqg2mQpA55+kc=
SCRewH6vHE1/Vwkt5yEW8xT7il0WbWltXjFIVqlGtQQ=
p//fIG8jgZie4MMwjHF7quCIJ4hErr7U4at0HV34MZQ=
D3K5YdBlxQcklrgF8vSbDyT05J5/mA9lzuhhp72uSOk=
jeYlYyH9FhYGwu+ZJmfPr8GvSNdgrydwqmJgHsygoR0=
p6RFgfGhu8Uuy0LyyZdI4MrSPOZkMe+ycwWJFfr8zTI=
AMZsxrVKBPSe8nSNVVCTyTxWns0CiNbChG/FoiSJWuM=
e+rtSmK5Pd1K5LgFwj7VSo5XJXOcq7OOcqPVZn1hqeM=
expmv1e6XiGr5NMUjMRkSZijlcBx+fZcpqQmUnawhOY=
+Wuic0YARH84k80/Q+KJIbhRCldxG8npjLFiHMLtEpo=
NOMeJqlyUxFXUKYRI/1YqAF4WJBfXJr8UM/SlWGqxgY=
Lm6+TAlLb2lvUs/3unZ2t6RSmJw8RO+WuEuUbAw3QEc=
Jhh2EDG15gDBoLmLiF88lVTgd+uvx3L0xczb8Y3kSq8=
taenaiKqtYMXS3gDzIF3q8VZzqAXqftHqL9BC39njaw=
kZNKypGwEANnt1+msLINnqrIrwX+0MGZUTTKXTfbloI=
A4NJSymjVJ5dvGPaGC3Gj04x8qVRKYfh0pP24mwd6Yk=
KQq808D9W4NUgr4ip+rF/RCyAUERYKKCwKiiAJfaFOc=
I3EVN3zM2rDjs5Q06Zr5gxhg+ksnX2h77E75uL+h3aI=
7iNSYSDhMeRkeV7r9krKbKelNPiqDCJU1i6xAn/Fbuw=
MYqdo6zSjxaAn+29EEjNRbPYm0myB3bheu+HTZIAbVY=
S7olT9TPLXk+bbawbV3sAzWMmhcpWrtjbw++9ZTiyn8=
xJ20xXM4QItt5vxFOtolZ5l18p7ej1+RimNkgWmoRFM=

go.sum database tree
58253265
lIyLAEe4zJUQAda6pFFg3yPOf7j1SgfMEDrpgoX39JU=

— sum.golang.org Az3grkvBHbFcpEFQ3BhGlktgB7pcswIW+ez91eWY6rNPtWfAey8bJO2rVoG2yO5zXvgiaikWVHqon+e14JhA+WXvpAY=
"""
PUBLISHED_ENTRY = """\
github.com/transparency-dev/tessera v1.0.0 h1:4OT1V9xJLa5NnYlFWWlCdZkCm18/o12rdd+bCTje7XE=
github.com/transparency-dev/tessera v1.0.0/go.mod h1:TLvfjlkbmsmKVEJUtzO2eb9Q2IBnK3EJ0dI4G0oxEOU=
"""
PUBLISHED_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"


def policies() -> list[Vectors]:
    """Policies, and what cosignatures of which times are enough for them."""
    nested: Quorums = [
        ("two of X and one of Y", {"X1": 10, "X3": 20, "Y2": 15}, True, 20),
        ("the one of Y came last", {"X1": 10, "X3": 20, "Y2": 99}, True, 99),
        ("more than enough: the second of X", {"X1": 30, "X2": 20, "X3": 10, "Y1": 5, "Y2": 6}, True, 20),
        ("times of zero", {"X1": 0, "X2": 0, "Y1": 0}, True, 0),
        ("one of X", {"X1": 10, "Y1": 15, "Y2": 16, "Y3": 17}, False, None),
        ("none of Y", {"X1": 10, "X2": 20, "X3": 30}, False, None),
        ("nobody", {}, False, None),
        ("the names of groups", {"X-witnesses": 1, "Y-witnesses": 1, "X-and-Y": 1}, False, None),
        ("a stranger", {"X1": 10, "Z1": 11, "Y1": 12}, False, None),
    ]
    one: Quorums = [("it", {"X1": 7, "X2": 5}, True, 7), ("another", {"X2": 5}, False, None)]
    both: Quorums = [("both", {"X1": 7, "X2": 5}, True, 7), ("one of them", {"X2": 5}, False, None)]
    none: Quorums = [("nobody", {}, True, None), ("a witness", {"X1": 7}, True, None)]
    deep = "".join(f"group g{n} any g{n - 1}\n" for n in range(1, 32))
    cases: list[tuple[str, bytes, Quorums]] = [
        ("the example of C2SP tlog-policy, with keys", _NESTED.encode(), nested),
        ("one witness", f"{_X1}{_X2}quorum X1\n".encode(), one),
        ("none", b"quorum none\n", none),
        ("none, with a witness", f"{_X1}quorum none\n".encode(), none),
        ("groups 32 deep", f"{_X1}{_X2}group g0 all X1\n{deep}quorum g31\n".encode(), one),
        (
            "blanks, comments, a URL, an octet that is no UTF-8, no last newline",
            f"\n \t# of two\n\t{_X1[:-1]} \thttps://x1.example/  \n{_X2}".encode()
            + b"group \xff 2  X1\tX2\nquorum \xff",
            both,
        ),
        ("names that are keywords", f"{_X1}{_X2}group group all X1 X2\nquorum group\n".encode(), both),
    ]
    return [
        {
            "reason": reason,
            "bytes": data.hex(),
            "cases": [
                {"reason": why, "times": _decimals(times), "enough": enough, "not_after": decimal(time)}
                for why, times, enough, time in quorums
            ],
        }
        for reason, data, quorums in cases
    ]


def bad_policies() -> list[Vectors]:
    """Policies that must be refused."""
    two = _X1 + _X2
    twin = CosigningKey(name="twin.example", seed=WITNESSES["X1"].seed).verification_key
    cases = {
        "empty": "",
        "no quorum": two,
        "two quorums": f"{two}quorum X1\nquorum X1\n",
        "a quorum of two": f"{two}quorum X1 X2\n",
        "a quorum that is not defined": f"{two}quorum X3\n",
        "a quorum before what it names": f"quorum X1\n{two}",
        "a member that is not defined": f"{two}group g any X3\nquorum g\n",
        "a member that is defined below": f"{_X1}group g any X1 X2\n{_X2}quorum g\n",
        "a group of itself": f"{two}group g any g\nquorum g\n",
        "none as a member": f"{two}group g any X1 none\nquorum g\n",
        "none as a witness": f"{_X1.replace(' X1 ', ' none ')}quorum none\n",
        "a member twice": f"{two}group g 2 X1 X1\nquorum g\n",
        "a member of two groups": f"{two}group g all X1 X2\ngroup h any X1\nquorum g\n",
        "a name twice": f"{_X1}{_X2.replace(' X2 ', ' X1 ')}quorum X1\n",
        "a group with the name of a witness": f"{two}group X1 any X2\nquorum X1\n",
        "one key under two names": f"{_X1}witness w {twin}\nquorum w\n",
        "one log twice": f"log {OWNER.verification_key}\nlog {OWNER.verification_key}\nquorum none\n",
        "no members": f"{two}group g 1\nquorum g\n",
        "a threshold of zero": f"{two}group g 0 X1 X2\nquorum g\n",
        "a threshold above the members": f"{two}group g 3 X1 X2\nquorum g\n",
        "a threshold with a leading zero": f"{two}group g 01 X1 X2\nquorum g\n",
        "a threshold in capitals": f"{two}group g ALL X1 X2\nquorum g\n",
        "an unknown line": f"{two}weight X1 2\nquorum X1\n",
        "a comment after a line": f"{two}quorum X1 # the first\n",
        "carriage returns": f"{two}quorum X1\n".replace("\n", "\r\n"),
        "a log's key for a witness": f"witness w {OWNER.verification_key}\nquorum w\n",
        "a witness's key for a log": f"log {WITNESSES['X1'].verification_key}\nquorum none\n",
    }
    return [{"reason": reason, "bytes": text.encode().hex()} for reason, text in cases.items()]


def receipts() -> list[Vectors]:
    """Receipts that can be read, and what they show; the first hold, of the others something is wrong."""
    good, three = _receipt(7, 20, "X1", "X3", "Y2"), _shows("X1", "X3", "Y2", not_after=2)
    missing = three | {"included": False, "holds": False}
    thief = signed(good.checkpoint, SigningKey(name=OWNER.name, seed=b"\x22" * 32))
    nineteen = replace(good.checkpoint, root=TREE.root(19))
    lines = good.note.signatures[1:]
    other_root = replace(good, note=with_lines(signed(nineteen), *lines), checkpoint=nineteen)
    stolen = replace(good, note=_cosigned(thief, "X1", "X3", "Y2"))
    everyone = tuple(WITNESSES)
    cases: list[tuple[str, Receipt, int, Vectors]] = [
        ("two of X and one of Y", good, 7, three),
        ("with extra data", replace(good, extra=b"extra information"), 7, three),
        ("the only entry", _receipt(0, 1, "X1", "X2", "Y1"), 0, _shows("X1", "X2", "Y1", not_after=2)),
        ("the last entry", _receipt(19, 20, *everyone), 19, _shows(*everyone, not_after=3)),
        ("another entry", good, 8, missing),
        ("another index", replace(good, index=6), 7, missing),
        ("an index not below the size", replace(good, index=20), 7, missing),
        ("a hash too few", replace(good, proof=good.proof[:-1]), 7, missing),
        ("a hash too many", replace(good, proof=(*good.proof, bytes(32))), 7, missing),
        ("hashes in another order", replace(good, proof=good.proof[::-1]), 7, missing),
        ("another root, cosignatures of the right one", other_root, 7, _shows() | {"included": False}),
        ("another key of the log's name", stolen, 7, three | {"signer": None, "holds": False}),
        ("one of X", _receipt(7, 20, "X1", "Y1", "Y2", "Y3"), 7, _shows("X1", "Y1", "Y2", "Y3")),
        ("none of Y", _receipt(7, 20, "X1", "X2", "X3"), 7, _shows("X1", "X2", "X3")),
        ("one of X twice", _receipt(7, 20, "X1", "X1"), 7, _shows("X1")),
        ("no cosignature", _receipt(7, 20), 7, _shows()),
    ]
    policy = _NESTED.encode().hex()
    return [
        {"reason": reason, "bytes": made.encode().hex(), "policy": policy}
        | {"leaf": leaf_hash(b"entry %d" % entry).hex()}
        | shown
        for reason, made, entry, shown in cases
    ] + [_published()]


def bad_receipts() -> list[Vectors]:
    """Bytes that are no receipt."""
    good = replace(_receipt(7, 20, "X1"), extra=b"extra information")
    data, first = good.encode(), encode_base64(good.proof[0]).encode()
    index, extra = b"index 7\n", f"extra {encode_base64(good.extra)}\n".encode()
    changes = {
        "another version": (b"@v1\n", b"@v2\n"),
        "carriage return": (b"@v1\n", b"@v1\r\n"),
        "no index": (index, b""),
        "an index that is no number": (index, b"index\n"),
        "a negative index": (index, b"index -7\n"),
        "an index with a leading zero": (index, b"index 07\n"),
        "an index of 2**63": (index, b"index 9223372036854775808\n"),
        "two indexes": (index, 2 * index),
        "the index before the extra data": (extra + index, index + extra),
        "extra data twice": (extra, 2 * extra),
        "empty extra data": (extra, b"extra \n"),
        "extra data that is no base64": (extra, b"extra !\n"),
        "a hash of 31 bytes": (first, encode_base64(bytes(31)).encode()),
        "a hash with spare bits": (first, b"A" * 42 + b"B="),
        "64 hashes": (first + b"\n", (65 - len(good.proof)) * (b"A" * 43 + b"=\n")),
        "no empty line before the checkpoint": (b"\n\nexample.com", b"\nexample.com"),
        "no signature": (data[data.index("\n\N{EM DASH}".encode()) :], b"\n"),
    }
    return [{"reason": "empty", "bytes": ""}, *changed(data, changes)]


def _receipt(index: int, size: int, *names: str) -> Receipt:
    """Cosigned by these witnesses, each a second after the one before."""
    stated = checkpoint(size)
    proof = tuple(TREE.inclusion_proof(index, size))
    return Receipt(index=index, proof=proof, note=_cosigned(signed(stated), *names), checkpoint=stated)


def _cosigned(note: Note, *names: str) -> Note:
    lines = (WITNESSES[name].cosign(note.text, TIME + n) for n, name in enumerate(names))
    return with_lines(note, *lines)


def _shows(*names: str, not_after: int | None = None) -> Vectors:
    """What is to be found in a receipt of the owner's: who cosigned, and when the quorum was complete."""
    return {
        "included": True,
        "signer": str(OWNER.verification_key),
        "times": _decimals({name: TIME + n for n, name in enumerate(names)}),
        "enough": not_after is not None,
        "not_after": decimal(None if not_after is None else TIME + not_after),
        "holds": not_after is not None,
    }


def _published() -> Vectors:
    """Included and signed; but the key's name is not the log's origin, so that no policy can believe it."""
    return {
        "reason": "of a log whose key has another name",
        "source": "Go's checksum database",
        "bytes": PUBLISHED_RECEIPT.encode().hex(),
        "policy": f"log {PUBLISHED_KEY}\nquorum none\n".encode().hex(),
        "leaf": leaf_hash(PUBLISHED_ENTRY.encode()).hex(),
        **{"included": True, "signer": None, "times": {}, "enough": True, "not_after": None, "holds": False},
    }


def _decimals(times: Mapping[str, int]) -> Vectors:
    return {name: str(time) for name, time in times.items()}
