"""Writes the test vectors: JSON files that an implementation in any language can check itself against.

    python tests/vectors/make.py            write the files
    python tests/vectors/make.py --check    compare them with those on disk; exit 1 if one differs

One function makes one file. Every file says in `about` how to read its cases, and lists under `invalid` what
must be refused, with the reason for people. Bytes are hexadecimal. Nothing here is random, and the
keys are public: never use them. What others published is marked with its `source`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from gradseal.proof import canonical, entries, files, manifest, merkle, note, tiles
from gradseal.proof.checkpoint import Checkpoint

HERE = Path(__file__).parent

Vectors = dict[str, Any]

# RFC 8785 section 3.2.2 without its floats, and section 3.2.3.
_RFC_8785_LITERALS = (
    r'{"string":"\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}'
)
_RFC_8785_SORTING = r"""{
  "\u20ac": "Euro Sign",
  "\r": "Carriage Return",
  "\ufb33": "Hebrew Letter Dalet With Dagesh",
  "1": "One",
  "\ud83d\ude00": "Emoji: Grinning Face",
  "\u0080": "Control",
  "\u00f6": "Latin Small Letter O With Diaeresis"
}"""

# The leaves of Certificate Transparency's reference tests.
_CT_ENTRIES = (
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
)

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

# The example of C2SP tlog-checkpoint.
_C2SP_CHECKPOINT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def canonical_json() -> Vectors:
    """docs/spec/json.md."""
    return {
        "about": (
            "encode: `json`, read by any JSON parser, encodes to the bytes `canonical`, which decode to the "
            "same value. invalid: the bytes must be refused. floats and integers: `value` is written as "
            "`json`; floats are the bits of a binary64, and `value` names them. Depth is limited to 32."
        ),
        "encode": _canonical_encode(),
        "invalid": _canonical_invalid(),
        "floats": [
            {"value": "0.0", "json": "0000000000000000"},
            {"value": "-0.0", "json": "8000000000000000"},
            {"value": "1.0", "json": "3ff0000000000000"},
            {"value": "0.1", "json": "3fb999999999999a"},
            {"value": "5e-324", "json": "0000000000000001", "source": "RFC 8785 appendix B"},
            {"value": "-5e-324", "json": "8000000000000001", "source": "RFC 8785 appendix B"},
            {"value": "1.7976931348623157e+308", "json": "7fefffffffffffff", "source": "RFC 8785 appendix B"},
            {"value": "9007199254740992.0", "json": "4340000000000000", "source": "RFC 8785 appendix B"},
            {"value": "333333333.3333332", "json": "41b3de4355555553", "source": "RFC 8785 appendix B"},
            {"value": "inf", "json": "7ff0000000000000"},
            {"value": "-inf", "json": "fff0000000000000"},
            {"value": "nan", "json": "7ff8000000000000"},
            {"value": "nan", "json": "fff8000000000001"},
        ],
        "invalid_floats": [
            "",
            "3ff000000000000",
            "3ff00000000000000",
            "3FF0000000000000",
            "0x3ff00000000000",
            1,
        ],
        "integers": [
            {"value": str(n), "json": canonical.integer_to_json(n)}
            for m in (0, 1, 2**53 - 1, 2**53, 2**63 - 1, 2**63)
            for n in sorted({m, -m})
            if n < 2**63
        ],
        "invalid_integers": [
            {"json": "1", "reason": "a string where a number would do"},
            {"json": "9007199254740991", "reason": "a string where a number would do"},
            {"json": "09007199254740992", "reason": "leading zero"},
            {"json": "+9007199254740992", "reason": "plus sign"},
            {"json": "9_007_199_254_740_992", "reason": "underscores"},
            {"json": " 9007199254740992", "reason": "space"},
            {"json": "9223372036854775808", "reason": "beyond 64 bits"},
            {"json": "-9223372036854775809", "reason": "beyond 64 bits"},
            {"json": True, "reason": "a boolean"},
            {"json": None, "reason": "null"},
        ],
    }


def _canonical_encode() -> list[Vectors]:
    cases = [
        ("RFC 8785 section 3.2.2", _RFC_8785_LITERALS),
        ("RFC 8785 section 3.2.3", _RFC_8785_SORTING),
        ("", "null"),
        ("", '""'),
        ("", "[ ]"),
        ("", "{ }"),
        ("", "[9007199254740991, -9007199254740991, 0]"),
        ("", '{"b": [{"d": 1, "c": 2}], "a": {"": null}, "A": true, "aa": false}'),
        ("", r'"\u0000\u0001\b\t\n\u000b\f\r\u001f\u007f\u2028\ufeff"'),
        ("", "[" * 32 + "]" * 32),
    ]
    return [
        {"json": text, "canonical": canonical.encode(json.loads(text)).hex()} | _source(source)
        for source, text in cases
    ]


def _canonical_invalid() -> list[Vectors]:
    cases: list[tuple[str, bytes]] = [
        ("empty", b""),
        ("white space", b'{"a": 1}'),
        ("newline at the end", b"{}\n"),
        ("keys out of order", b'{"b":1,"a":2}'),
        ("keys in the order of code points, not of UTF-16", '{"\ufb33":1,"\U0001f600":2}'.encode()),
        ("the same key twice", b'{"a":1,"a":1}'),
        ("the same key twice, once escaped", rb'{"a":1,"\u0061":1}'),
        ("escaped where it need not be", rb'"\u0061"'),
        ("upper-case escape", rb'"\u001F"'),
        ("escape of a character that has a short one", rb'"\u000a"'),
        ("escaped solidus", rb'"\/"'),
        ("control character", b'"\x01"'),
        ("lone surrogate, escaped", rb'"\ud800"'),
        ("lone surrogate, encoded", b'"\xed\xa0\x80"'),
        ("not UTF-8", b'"\xff"'),
        ("overlong UTF-8", b'"\xc0\x80"'),
        ("byte order mark", b"\xef\xbb\xbfnull"),
        ("float", b"1.0"),
        ("float by exponent", b"1e2"),
        ("negative zero", b"-0"),
        ("leading zero", b"01"),
        ("plus sign", b"+1"),
        ("NaN", b"NaN"),
        ("Infinity", b"[-Infinity]"),
        ("integer beyond 2**53 - 1", b"9007199254740992"),
        ("integer below -(2**53 - 1)", b"-9007199254740992"),
        ("integer of a hundred digits", b"9" * 100),
        ("comma at the end", b"[1,]"),
        ("two values", b"{}{}"),
        ("cut short", b'{"a":'),
        ("deeper than 32 arrays", b"[" * 33 + b"]" * 33),
        ("deeper than 32 objects", b'{"":' * 33 + b"0" + b"}" * 33),
        ("only opening brackets", b"[" * 1000),
    ]
    return [{"reason": reason, "bytes": data.hex()} for reason, data in cases]


def merkle_tree() -> Vectors:
    """docs/spec/log.md, section 1."""
    tree = merkle.Tree(merkle.leaf_hash(bytes.fromhex(entry)) for entry in _CT_ENTRIES)
    longer = merkle.Tree(merkle.leaf_hash(bytes([i])) for i in range(70))
    inclusion = [_inclusion(tree, index, size) for size in range(1, 9) for index in range(size)]
    inclusion += [_inclusion(longer, index, 70) for index in (0, 31, 63, 64, 67, 68, 69)]
    consistency = [_consistency(tree, old, new) for new in range(9) for old in range(new + 1)]
    consistency += [_consistency(longer, old, 70) for old in (1, 32, 63, 64, 65, 68, 69)]
    return {
        "about": (
            "entries: the leaves; roots[n]: the root over the first n. longer: the same for the 70 entries "
            "that are the single bytes 00 to 45, by size. inclusion and consistency: proofs that must "
            "verify, and that a tree must produce. invalid: proofs that must not verify."
        ),
        "source": "entries and roots: the reference tests of Certificate Transparency (RFC 6962)",
        "entries": list(_CT_ENTRIES),
        "leaf_hashes": [tree.leaf(index).hex() for index in range(8)],
        "roots": [tree.root(size).hex() for size in range(9)],
        "longer": {str(size): longer.root(size).hex() for size in (9, 15, 16, 17, 31, 33, 63, 64, 65, 70)},
        "inclusion": inclusion,
        "consistency": consistency,
        "invalid": {
            "inclusion": _bad_inclusion(_inclusion(tree, 5, 7)),
            "consistency": _bad_consistency(_consistency(tree, 6, 8), _consistency(tree, 4, 8)),
        },
    }


def _inclusion(tree: merkle.Tree, index: int, size: int) -> Vectors:
    return {
        "leaf": tree.leaf(index).hex(),
        "index": index,
        "size": size,
        "root": tree.root(size).hex(),
        "proof": [node.hex() for node in tree.inclusion_proof(index, size)],
    }


def _consistency(tree: merkle.Tree, old: int, new: int) -> Vectors:
    return {
        "old": old,
        "new": new,
        "old_root": tree.root(old).hex(),
        "new_root": tree.root(new).hex(),
        "proof": [node.hex() for node in tree.consistency_proof(old, new)],
    }


def _bad_inclusion(good: Vectors) -> list[Vectors]:
    proof = good["proof"]
    return [
        {"reason": "another index"} | good | {"index": 4},
        {"reason": "index not below the size"} | good | {"index": 7},
        {"reason": "negative index"} | good | {"index": -1},
        {"reason": "a size that gives the leaf another path"} | good | {"size": 6},
        {"reason": "size zero"} | good | {"index": 0, "size": 0},
        {"reason": "another root"} | good | {"root": good["leaf"]},
        {"reason": "another leaf"} | good | {"leaf": good["root"]},
        {"reason": "a hash missing at the end"} | good | {"proof": proof[:-1]},
        {"reason": "a hash missing at the beginning"} | good | {"proof": proof[1:]},
        {"reason": "a spare hash at the end"} | good | {"proof": [*proof, proof[0]]},
        {"reason": "a spare hash at the beginning"} | good | {"proof": [proof[0], *proof]},
        {"reason": "hashes in another order"} | good | {"proof": proof[::-1]},
        {"reason": "a hash of 31 bytes"} | good | {"proof": [proof[0][2:], *proof[1:]]},
        {"reason": "no proof"} | good | {"proof": []},
    ]


def _bad_consistency(good: Vectors, complete: Vectors) -> list[Vectors]:
    proof = good["proof"]
    same = complete | {"new": complete["old"], "new_root": complete["old_root"]}
    return [
        {"reason": "another old size"} | good | {"old": 5},
        {"reason": "another new size"} | good | {"new": 9},
        {"reason": "sizes exchanged"} | good | {"old": 8, "new": 6},
        {"reason": "another old root"} | good | {"old_root": good["new_root"]},
        {"reason": "another new root"} | good | {"new_root": good["old_root"]},
        {"reason": "a hash missing at the end"} | good | {"proof": proof[:-1]},
        {"reason": "a spare hash at the end"} | good | {"proof": [*proof, proof[0]]},
        {"reason": "no proof"} | good | {"proof": []},
        {"reason": "the old root repeated in the proof"}
        | complete
        | {"proof": [complete["old_root"], *complete["proof"]]},
        {"reason": "equal sizes with a proof"} | same,
        {"reason": "equal sizes with different roots"} | same | {"proof": [], "new_root": good["new_root"]},
        {"reason": "empty tree with a proof"} | good | {"old": 0, "old_root": merkle.EMPTY_ROOT.hex()},
        {"reason": "empty tree with another root"} | good | {"old": 0, "proof": []},
        {"reason": "negative size"} | good | {"old": -1},
    ]


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
            "into the parts. invalid: must be refused."
        ),
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
            _checkpoint(Checkpoint.parse(_C2SP_CHECKPOINT, where="C2SP")) | _source("C2SP tlog-checkpoint"),
            _checkpoint(empty),
            _checkpoint(large),
        ],
        "invalid": {
            "keys": _bad_keys(),
            "notes": _bad_notes(),
            "checkpoints": _bad_checkpoints(),
        },
    }


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


def log_tiles() -> Vectors:
    """docs/spec/log.md, section 2."""
    tree = merkle.Tree(merkle.leaf_hash(i.to_bytes(4, "big")) for i in range(70_000))
    places = [(0, 0, 256), (0, 1, 44), (0, 273, 112), (1, 0, 256), (1, 1, 17), (2, 0, 1), (63, 1234067, 256)]
    contents = [b"", b"\x00", b"gradseal", bytes(range(256)) * 2]
    encoded = tiles.encode_entries(contents)
    return {
        "about": (
            "paths: of a tile, and of the bundle of entries of the same index and width. layouts: for a tree "
            "of `size`, the full tiles of each level and the width of the partial one (0 if none). tiles: "
            "SHA-256 of the content of tiles of the tree whose 70000 entries are their index in four bytes, "
            "most significant first. entries: a bundle's content and its entries. invalid: must be "
            "refused as a bundle of `count` entries."
        ),
        "source": "size 70000, size 256 and index 1234067 are the examples of C2SP tlog-tiles",
        "paths": [
            {
                "level": level,
                "index": index,
                "width": width,
                "tile": tiles.tile_path(level, index, width),
                "entries": tiles.entries_path(index, width),
            }
            for level, index, width in [*places, (0, 999, 1), (0, 1000, 255), (3, 1_000_000_000, 256)]
        ],
        "layouts": [_layout(size) for size in (0, 1, 255, 256, 257, 65535, 65536, 70_000)],
        "tiles": [
            {
                "level": tile.level,
                "index": tile.index,
                "width": tile.width,
                "sha256": sha256(tiles.tile_bytes(tree, tile.level, tile.index, tile.width)).hexdigest(),
            }
            for tile in tiles.tiles_for(70_000)
            if tile.index in (0, 1, 273)
        ],
        "root": tree.root().hex(),
        "entries": [
            {"bytes": "", "entries": []},
            {"bytes": encoded.hex(), "entries": [entry.hex() for entry in contents]},
        ],
        "invalid": [
            {"reason": "no bytes", "bytes": "", "count": 1},
            {"reason": "an entry too many", "bytes": encoded.hex(), "count": 3},
            {"reason": "an entry too few", "bytes": encoded.hex(), "count": 5},
            {"reason": "a byte missing", "bytes": encoded[:-1].hex(), "count": 4},
            {"reason": "a spare byte", "bytes": encoded.hex() + "00", "count": 4},
            {"reason": "half a length", "bytes": "00", "count": 1},
            {"reason": "a length beyond the end", "bytes": "ffff00", "count": 1},
        ],
    }


def _layout(size: int) -> Vectors:
    levels: list[dict[str, int]] = []
    for tile in tiles.tiles_for(size):
        if tile.level == len(levels):
            levels.append({"full": 0, "partial": 0})
        if tile.width == tiles.TILE_WIDTH:
            levels[tile.level]["full"] += 1
        else:
            levels[tile.level]["partial"] = tile.width
    return {"size": size, "levels": levels}


def _source(source: str) -> Vectors:
    return {"source": source} if source else {}


def bundle_entries() -> Vectors:
    """docs/spec/bundle.md, sections 1, 3, 4 and 5."""
    owner = note.SigningKey(name="example.com/owner", seed=bytes(32)).verification_key
    other = note.SigningKey(name="example.com/other", seed=b"\x01" * 32).verification_key
    made = _manifest(owner)
    digests = [sha256(bytes([i])).digest() for i in range(3)]
    losses = (0.5, -0.0, float("inf"), float("nan"))
    return {
        "about": (
            "manifest: entry 0, its digest (leaf hash) and the log's origin. segments: the steps of each "
            "segment of its plan. entries: further entries, as bytes and as JSON. states: tensor digests, "
            "the root over them, and the seal of that root for each of two keys. losses: a blob and the "
            "floats' bits. paths: of the blob with a digest and of the opening of a seal. invalid: "
            "`manifests` must be refused as entry 0, `entries` as any later entry, `losses` as those of "
            "`steps` steps."
        ),
        "manifest": {
            "bytes": made.encode().hex(),
            "json": json.loads(made.encode()),
            "digest": made.digest().hex(),
            "origin": made.origin,
        },
        "segments": [[s.start, len(s)] for s in map(made.plan.steps_of, range(made.plan.segments))],
        "entries": [
            {"bytes": entry.encode().hex(), "json": json.loads(entry.encode())}
            for entry in (
                entries.Initial(seal=bytes(32)),
                entries.Segment(index=1, first_step=3, steps=3, seal=b"\x01" * 32, losses=b"\x02" * 32),
                entries.Close(segments=3, weights=b"\x03" * 32),
            )
        ],
        "states": [
            {
                "digests": [d.hex() for d in digests[:count]],
                "root": entries.state_root(digests[:count]).hex(),
                "seals": [
                    {"key": str(key), "seal": entries.seal_of(key, entries.state_root(digests[:count])).hex()}
                    for key in (owner, other)
                ],
            }
            for count in range(4)
        ],
        "losses": {
            "bytes": entries.encode_losses(losses).hex(),
            "floats": [canonical.float_to_bits(x) for x in losses],
        },
        "paths": {
            "digest": digests[0].hex(),
            "blob": files.blob_path(digests[0]),
            "opening": files.opening_path(digests[0]),
        },
        "invalid": {
            "manifests": _invalid_manifests(made),
            "entries": _invalid_entries(made),
            "losses": [
                {"reason": reason, "bytes": data.hex(), "steps": 2}
                for reason, data in (
                    ("a loss too few", b'["3ff0000000000000"]'),
                    ("a loss too many", b"[" + b",".join([b'"3ff0000000000000"'] * 3) + b"]"),
                    ("an object", b"{}"),
                    ("a JSON number", b'["3ff0000000000000",1]'),
                    ("upper case", b'["3FF0000000000000","3ff0000000000000"]'),
                    ("white space", b'["3ff0000000000000", "3ff0000000000000"]'),
                )
            ],
        },
    }


def _manifest(owner: note.VerificationKey) -> manifest.Manifest:
    return manifest.Manifest(
        owner=owner,
        program=b"\x01" * 32,
        initialisation=b"\x02" * 32,
        data=manifest.Data(
            root=b"\x03" * 32,
            samples=10,
            schema=b"\x04" * 32,
            leaves=b"\x05" * 32,
            shards=b"\x06" * 32,
            shard_samples=4,
        ),
        plan=manifest.Plan(
            steps=7,
            every=3,
            batch_size=4,
            accumulate=2,
            drop_last=False,
            order="shuffled-v1",
            collation="stack-v1",
            seed=manifest.Seed(source="declared", value=b"\x07" * 32),
        ),
        arithmetic={"kind": "native"},
        release=b"\x08" * 32,
    )


def _invalid_manifests(made: manifest.Manifest) -> list[Vectors]:
    good = made.encode().decode()
    changes = [
        ("another kind", '"kind":"manifest"', '"kind":"segment"'),
        ("an unknown format", '"format":"gradseal/1"', '"format":"gradseal/999"'),
        ("an unknown order", "shuffled-v1", "shuffled-v999"),
        ("an unknown source of the seed", "declared", "guessed"),
        ("a missing field", '"drop_last":false,', ""),
        ("an unknown field", '"kind":', '"extra":1,"kind":'),
        ("a batch larger than the data", '"batch_size":4', '"batch_size":11'),
        ("no steps", '"steps":7', '"steps":0'),
        ("a segment over the limit", '"every":3', '"every":1048577'),
        ("segments over the limit", '"every":3,"order":"shuffled-v1"', '"every":1,"order":"shuffled-v1"'),
        ("no batches in a step", '"accumulate":2', '"accumulate":0'),
        ("batches in a step over the limit", '"accumulate":2', '"accumulate":65537'),
        ("a boolean as a number", '"drop_last":false', '"drop_last":0'),
        ("a float", '"every":3', '"every":3.0'),
        ("a key whose hash is not its own", "example.com/owner+", "example.com/owned+"),
        ("a digest in upper case", "08" * 32, "0A" * 32),
        ("a newline at the end", '"}', '"}\n'),
    ]
    cases = []
    for reason, old, new in changes:
        changed = new.join(good.rsplit(old, 1))
        if reason == "segments over the limit":
            changed = changed.replace('"steps":7', '"steps":16777217')
        if changed == good:
            raise AssertionError(f"{reason}: nothing was changed")
        cases.append({"reason": reason, "bytes": changed.encode().hex()})
    return cases


def _invalid_entries(made: manifest.Manifest) -> list[Vectors]:
    zeros = "00" * 32
    cases: list[tuple[str, bytes]] = [
        ("a second manifest", made.encode()),
        ("an unknown kind", canonical.encode({"kind": "unknown"})),
        ("no kind", canonical.encode({"seal": zeros})),
        ("no object", b"[]"),
        ("a short seal", canonical.encode({"kind": "initial", "seal": zeros[2:]})),
        ("an unknown field", canonical.encode({"kind": "initial", "seal": zeros, "more": 1})),
        ("a negative number", canonical.encode({"kind": "close", "segments": -1, "weights": zeros})),
        ("a missing field", canonical.encode({"kind": "close", "segments": 1})),
        ("keys out of order", b'{"weights":"%s","segments":1,"kind":"close"}' % zeros.encode()),
        (
            "no steps",
            canonical.encode(
                {
                    "kind": "segment",
                    "index": 0,
                    "first_step": 0,
                    "steps": 0,
                    "seal": zeros,
                    "losses": zeros,
                }
            ),
        ),
    ]
    return [{"reason": reason, "bytes": data.hex()} for reason, data in cases]


FILES: dict[str, Callable[[], Vectors]] = {
    "bundle.json": bundle_entries,
    "canonical.json": canonical_json,
    "merkle.json": merkle_tree,
    "note.json": signed_notes,
    "tiles.json": log_tiles,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or compare them with those on disk."""
    parser = argparse.ArgumentParser(description="Write the test vectors.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk; write nothing")
    check = parser.parse_args(arguments).check
    stale = []
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1) + "\n"
        path = HERE / name
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"differ from what make.py makes: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
