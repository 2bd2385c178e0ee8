"""Vectors of docs/spec/log.md, sections 3 to 5: `note.json`."""

from __future__ import annotations

from typing import Any

from gradseal.proof import merkle, note
from gradseal.proof.checkpoint import Checkpoint

Vectors = dict[str, Any]

# The example of Go's golang.org/x/mod/sumdb/note.
_GO_SIGNING_KEY = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
_GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
_GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
_GO_NOTE = (
    _GO_TEXT + "\n\N{EM DASH} PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

# The second signer in the tests of that package.
_GO_OTHER_KEY = "EnochRoot+af0cfe78+ATtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop"
_GO_BOTH = (
    _GO_NOTE + "\N{EM DASH} EnochRoot "
    "rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n"
)

# The example of C2SP signed-note, "Verifier keys".
_C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
_C2SP_TEXT = "This is an example message.\n"
_C2SP_NOTE = (
    _C2SP_TEXT + "\n\N{EM DASH} example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)

# A checkpoint of Go's checksum database, of September 2024, from the tests of sigsum-go, and the key that Go
# has built in.
_SUMDB_KEY = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
_SUMDB_TEXT = "go.sum database tree\n30055305\nmXfgRcJ0bG0j3CPdKwgGWtUzBUbX67saZGRmFuJGGsM=\n"
_SUMDB_NOTE = (
    _SUMDB_TEXT + "\n\N{EM DASH} sum.golang.org "
    "Az3grpgEild5qw7+5dtV13Kf1C2Xurm8q4fhdxvcsDHnqNTaxL2AFjBY+2TyGKevucFcAAlWFJJYle3EJlDCrQ+y3A8=\n"
)

# The example of C2SP tlog-checkpoint.
_C2SP_CHECKPOINT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def signed_notes() -> Vectors:
    """docs/spec/log.md, sections 3 to 5."""
    key = note.SigningKey(name="example.com/gradseal", seed=bytes(range(32)))
    both = note.sign_note("Two sign.\n\nOne note.\n", [note.SigningKey.parse(_GO_SIGNING_KEY), key])
    empty = Checkpoint(origin="example.com/log", size=0, root=merkle.EMPTY_ROOT)
    large = Checkpoint(origin="a log", size=2**63 - 1, root=bytes(range(32)), extensions=("kept", "as is"))
    return {
        "about": (
            "keys: `key` is the verification key of `signing_key`. notes: `bytes` opens, its text is `text`, "
            "it has this many `signatures`, each of `keys` verifies and each of `not_keys` does not; where "
            "`signing_keys` are given, signing `text` by them gives `bytes`. checkpoints: `text` parses "
            "into the parts. signatures: whether one is valid, for a public key and a message; some keys are "
            "of small order, or have a part of small order. invalid: must be refused."
        ),
        "signatures": _signatures(key),
        "keys": [
            {"signing_key": _GO_SIGNING_KEY, "key": _GO_KEY, "source": "golang.org/x/mod/sumdb/note"},
            {"signing_key": key.encode(), "key": str(key.verification_key)},
        ],
        "notes": [
            {
                "bytes": _GO_NOTE.encode().hex(),
                "text": _GO_TEXT,
                "signatures": 1,
                "signing_keys": [_GO_SIGNING_KEY],
                "keys": [_GO_KEY],
                "not_keys": [str(key.verification_key)],
                "source": "golang.org/x/mod/sumdb/note",
            },
            *_published(),
            {
                "bytes": both.hex(),
                "text": "Two sign.\n\nOne note.\n",
                "signatures": 2,
                "signing_keys": [_GO_SIGNING_KEY, key.encode()],
                "keys": [_GO_KEY, str(key.verification_key)],
                "not_keys": [],
            },
            {
                "bytes": _GO_NOTE.replace("answer", "question").encode().hex(),
                "text": _GO_TEXT.replace("answer", "question"),
                "signatures": 1,
                "keys": [],
                "not_keys": [_GO_KEY],
            },
        ],
        "checkpoints": [
            _checkpoint(Checkpoint.parse(_C2SP_CHECKPOINT, where="C2SP"))
            | {"source": "C2SP tlog-checkpoint"},
            _checkpoint(empty),
            _checkpoint(large),
        ],
        "invalid": {
            "keys": _bad_keys(),
            "notes": _bad_notes(),
            "checkpoints": _bad_checkpoints(),
        },
    }


def _published() -> list[Vectors]:
    """Notes that others signed, with keys that nobody here has."""
    cases = [
        ("golang.org/x/mod/sumdb/note, its tests", _GO_BOTH, _GO_TEXT, [_GO_KEY, _GO_OTHER_KEY], _C2SP_KEY),
        ("C2SP signed-note", _C2SP_NOTE, _C2SP_TEXT, [_C2SP_KEY], _GO_KEY),
        ("Go's checksum database", _SUMDB_NOTE, _SUMDB_TEXT, [_SUMDB_KEY], _C2SP_KEY),
        (
            "golang.org/x/mod/sumdb/note, one of two",
            _GO_BOTH.replace("rwz+eBzm", "rwz+eBzn"),
            _GO_TEXT,
            [_GO_KEY],
            _GO_OTHER_KEY,
        ),
    ]
    return [
        {
            "bytes": data.encode().hex(),
            "text": text,
            "signatures": data.count("\N{EM DASH}"),
            "keys": keys,
            "not_keys": [other],
            "source": source,
        }
        for source, data, text, keys, other in cases
    ]


# A key that is a point of large order plus one of order 2, and R of large order, from Python's integers.
_MIXED_KEY = "feaf9d07b868cc52786305312c376563c622b0386a10d105e3c1501b28d65f7e"
_MIXED_R = "205b0f537994e4754a69d556e021685ffabc6150ec47b726dbce0a7f6ee57dbd"
_MIXED_S = {
    3: "bb3d09094af2aaa5d08119b8749c9cd9017c3049a83684e8e115d0509b69e40d",
    5: "d064d10b8519028ddbe5e436112f6138fd40c341028e3e0ac6e28002ca96af08",
}
_ORDER = 2**252 + 27742317777372353535851937790883648493


def _signatures(key: note.SigningKey) -> list[Vectors]:
    public, honest = key.verification_key.public.hex(), key.sign(b"m").hex()
    one, zeros = _encoded(1), bytes(32).hex()
    higher = _encoded(int.from_bytes(bytes.fromhex(honest[64:]), "little") + _ORDER)
    cases = [
        ("honest", public, "6d", honest, True),
        ("another message", public, "6e", honest, False),
        ("S above the order", public, "6d", honest[:64] + higher, False),
        ("a byte too many", public, "6d", honest + "00", False),
        ("a byte too few", public, "6d", honest[:-2], False),
        ("the neutral element", one, "6d", one + zeros, True),
        ("the neutral element, S the order", one, "6d", one + _encoded(_ORDER), False),
        ("the neutral element, encoded with a sign", _encoded(1 + 2**255), "6d", one + zeros, True),
        ("the neutral element, encoded above the prime", _encoded(2**255 - 18), "6d", one + zeros, True),
        ("R encoded above the prime", one, "6d", _encoded(2**255 - 18) + zeros, False),
        ("a key that is no point", _encoded(2), "6d", one + zeros, False),
        ("only the cofactor would make it valid", _MIXED_KEY, "03", _MIXED_R + _MIXED_S[3], False),
        ("k modulo the order is even", _MIXED_KEY, "05", _MIXED_R + _MIXED_S[5], True),
    ]
    names = ("reason", "public", "message", "signature", "valid")
    return [dict(zip(names, case, strict=True)) for case in cases]


def _encoded(number: int) -> str:
    return number.to_bytes(32, "little").hex()


def _checkpoint(checkpoint: Checkpoint) -> Vectors:
    return {
        "text": checkpoint.text(),
        "origin": checkpoint.origin,
        "size": str(checkpoint.size),
        "root": checkpoint.root.hex(),
        "extensions": list(checkpoint.extensions),
    }


def _bad_keys() -> list[Vectors]:
    name, identifier, public = _GO_KEY.split("+", 2)
    cases = [
        ("empty", ""),
        ("no name", f"+{identifier}+{public}"),
        ("a space in the name", f"Peter Neumann+{identifier}+{public}"),
        ("another name", f"PeterNewman+{identifier}+{public}"),
        ("upper-case hash", f"{name}+{identifier.upper()}+{public}"),
        ("another hash", f"{name}+c74f20a4+{public}"),
        ("no hash", f"{name}+{public}"),
        ("another signature type", f"{name}+{identifier}+B{public[1:]}"),
        ("a byte missing", f"{name}+{identifier}+{note.encode_base64(bytes([1]) + bytes(31))}"),
        ("base64 without its end", f"{name}+{identifier}+{public[:-1]}"),
        ("a newline at the end", _GO_KEY + "\n"),
        ("a signing key", _GO_SIGNING_KEY),
    ]
    return [{"reason": reason, "key": key} for reason, key in cases]


def _bad_notes() -> list[Vectors]:
    text, line = _GO_TEXT, _GO_NOTE.removeprefix(_GO_TEXT + "\n")
    cases: list[tuple[str, bytes | str]] = [
        ("empty", ""),
        ("no signature", text + "\n"),
        ("no blank line", text + line),
        ("no text", "\n" + line),
        ("no newline at the end", _GO_NOTE[:-1]),
        ("a blank line at the end", _GO_NOTE + "\n"),
        ("a line after the signatures that is none", _GO_NOTE + "more\n"),
        ("carriage returns", _GO_NOTE.replace("\n", "\r\n")),
        ("a tab", _GO_NOTE.replace("think", "\tthink")),
        ("a zero byte", _GO_NOTE.replace("think", "\0")),
        ("not UTF-8", _GO_NOTE.encode().replace(b"think", b"\xff")),
        ("a hyphen for the dash", _GO_NOTE.replace("\N{EM DASH}", "-")),
        ("an en dash for the dash", _GO_NOTE.replace("\N{EM DASH}", "\N{EN DASH}")),
        ("two spaces", _GO_NOTE.replace("PeterNeumann ", "PeterNeumann  ")),
        ("a plus sign in the name", _GO_NOTE.replace("PeterNeumann", "Peter+Neumann")),
        ("a no-break space in the name", _GO_NOTE.replace("PeterNeumann", "Peter\N{NO-BREAK SPACE}Neumann")),
        ("a name of 256 characters", _GO_NOTE.replace("PeterNeumann", "n" * 256)),
        ("base64 without padding", _GO_NOTE.replace("=", "")),
        ("base64 with spare bits", _GO_NOTE.replace("nAM=", "nAN=")),
        ("base64 of the other alphabet", _GO_NOTE.replace("x08go/", "x08go_")),
        ("a key id without a signature", text + "\n\N{EM DASH} PeterNeumann x08gow==\n"),
        ("65 signatures", text + "\n" + 65 * line),
    ]
    return [
        {"reason": reason, "bytes": (data.encode() if isinstance(data, str) else data).hex()}
        for reason, data in cases
    ]


def _bad_checkpoints() -> list[Vectors]:
    good = _C2SP_CHECKPOINT
    root = good.split("\n")[2]
    sizes = {
        "a leading zero": "020852163",
        "a plus sign": "+20852163",
        "a minus sign": "-1",
        "an underscore": "20_852_163",
        "a space": " 20852163",
        "hexadecimal": "0x10",
        "no digits": "",
        "digits of another script": "\N{ARABIC-INDIC DIGIT TWO}",
        "a size of 2**63": str(2**63),
        "a size of thirty digits": "9" * 30,
    }
    cases = [
        ("empty", ""),
        ("no root", "\n".join(good.split("\n")[:2]) + "\n"),
        ("no newline at the end", good[:-1]),
        ("no origin", "\n" + good.split("\n", 1)[1]),
        ("an empty extension line", good + "\n"),
        ("a root of 31 bytes", good.replace(root, note.encode_base64(bytes(31)))),
        ("a root of 33 bytes", good.replace(root, note.encode_base64(bytes(33)))),
        ("a root without padding", good.replace("=", "")),
        ("a root with spare bits", good.replace("q2I=", "q2J=")),
        ("a hexadecimal root", good.replace(root, bytes(32).hex())),
        *((reason, good.replace("20852163", size)) for reason, size in sizes.items()),
    ]
    return [{"reason": reason, "text": text} for reason, text in cases]
