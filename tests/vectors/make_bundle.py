"""Vectors of docs/spec/bundle.md: `bundle.json`."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

import torch

from gradseal.program.memory import from_bytes, weights_file
from gradseal.program.randomness import run_seed
from gradseal.program.release import Release
from gradseal.program.tensors import TensorSpec
from gradseal.proof import canonical, entries, files, manifest, note

Vectors = dict[str, Any]

_DECLARED = b"\x07" * 32


def bundle_objects() -> Vectors:
    """docs/spec/bundle.md, sections 1, 3, 4, 5 and 7."""
    owner = note.SigningKey(name="example.com/owner", seed=bytes(32)).verification_key
    other = note.SigningKey(name="example.com/other", seed=b"\x01" * 32).verification_key
    made = _manifest(owner)
    longer = replace(made.plan, steps=8)
    digests = [sha256(bytes([i])).digest() for i in range(3)]
    losses = (0.5, -0.0, float("inf"), float("nan"))
    return {
        "about": (
            "manifest: entry 0, its digest (leaf hash) and the log's origin. seed: manifests, each with the "
            "run's seed and the log's origin that follow from its bytes. segments: the steps of each segment "
            "of `manifest`'s plan. entries: further entries, as bytes and as JSON. states: tensor digests, "
            "the root over them, the opening, and the seal of that root for each of two keys. losses: a blob "
            "and the floats' bits. paths: of the blob with a digest and of the opening of a seal. release: a "
            "release map for a state of this layout, the state's tensors, and the released file. invalid: "
            "`manifests` must be refused as entry 0, `entries` as any later entry, `losses` as those of "
            "`steps` steps, `releases` as a release map for that layout, and `weights` as that run's file."
        ),
        "manifest": {
            "bytes": made.encode().hex(),
            "json": json.loads(made.encode()),
            "digest": made.digest().hex(),
            "origin": made.origin,
        },
        "seed": [_seed(own) for own in (made, replace(made, plan=longer), _manifest(other))],
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
                "opening": b"".join(digests[:count]).hex(),
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
        "release": _release(),
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
            "releases": _invalid_releases(),
            "weights": _invalid_weights(),
        },
    }


def _seed(made: manifest.Manifest) -> Vectors:
    return {
        "manifest": made.encode().hex(),
        "run_seed": run_seed(_DECLARED, made.digest()).hex(),
        "origin": made.origin,
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
            seed=manifest.DeclaredSeed(value=_DECLARED),
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


_LAYOUT = (
    TensorSpec(name="parameters/w", dtype="float32", shape=(2, 1)),
    TensorSpec(name="buffers/n", dtype="int64", shape=()),
    TensorSpec(name="optimizer/w/momentum_buffer", dtype="float32", shape=(2, 1)),
)
_STATE = (bytes.fromhex("0000803f000000c0"), (3).to_bytes(8, "little"), bytes(8))
_MAP = Release(tensors={"w": "parameters/w", "tied": "parameters/w", "n": "buffers/n"})


def _release() -> Vectors:
    return {
        "layout": [spec.to_json() for spec in _LAYOUT],
        "state": [data.hex() for data in _STATE],
        "map": _MAP.encode().decode(),
        "weights": _weights().hex(),
    }


def _weights() -> bytes:
    state = {
        spec.name: from_bytes(data, spec.dtype, spec.shape, torch.device("cpu"), where=spec.name)
        for spec, data in zip(_LAYOUT, _STATE, strict=True)
    }
    return weights_file({name: state[behind] for name, behind in _MAP.tensors.items()})


def _invalid_releases() -> list[Vectors]:
    good = _MAP.encode().decode()
    two = '"tied":"parameters/w","w":"parameters/w"'
    changes = (
        ("another format", "release-v1", "release-v999"),
        ("a tensor that the state does not have", '"w":"parameters/w"', '"w":"parameters/v"'),
        ("a number for a tensor", '"w":"parameters/w"', '"w":0'),
        ("an unknown field", '"format":', '"a":1,"format":'),
        (
            "keys out of order",
            two,
            '"w":"parameters/w","tied":"parameters/w"',
        ),
        ("a list", '{"n":"buffers/n",' + two + "}", "[]"),
        ("metadata for a tensor", '{"n":', '{"__metadata__":'),
    )
    return [{"reason": reason, "text": _changed(good, old, new)} for reason, old, new in changes]


def _invalid_weights() -> list[Vectors]:
    good = _weights()
    size = int.from_bytes(good[:8], "little")
    header, tensors = json.loads(good[8 : 8 + size]), good[8 + size :]

    def file(header: object, tensors: bytes = tensors) -> bytes:
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + tensors

    def spaced(before: bytes, after: bytes) -> bytes:
        text = before + json.dumps(header).encode() + after
        return len(text).to_bytes(8, "little") + text + tensors

    last = max(header, key=lambda name: header[name]["data_offsets"])
    offsets = [at + 1 for at in header[last]["data_offsets"]]
    moved = header | {last: header[last] | {"data_offsets": offsets}}
    without = {name: part for name, part in header.items() if name != "n"}
    twice = file(header).replace(b'"tied":', b'"w":   ', 1)
    more = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    cases = (
        ("a bit of a tensor", good[:-1] + bytes([good[-1] ^ 1])),
        ("cut off", good[:-1]),
        ("a byte too many", good + b"\x00"),
        ("a header longer than the file", (1 << 40).to_bytes(8, "little") + good[8:]),
        ("a header that is no JSON", good[:8] + b"!" + good[9:]),
        ("a key twice", twice),
        ("metadata", file({"__metadata__": {"format": "pt"}, **header})),
        ("metadata without content", file({"__metadata__": {}, **header})),
        ("metadata of nothing", file({"__metadata__": None, **header})),
        ("a field too many", file(header | {"w": header["w"] | {"more": 1}})),
        ("a space before the header", spaced(b" ", b"")),
        ("a line end after the header", spaced(b"", b"\n")),
        ("a gap before a tensor", file(moved, tensors + b"\x00")),
        ("two tensors of the same bytes", file(header | {"tied": header["w"]}, tensors[:-8])),
        ("a tensor too few", file(without)),
        (
            "a tensor too many",
            file(header | {"more": more}),
        ),
        ("another element type", file(header | {"w": header["w"] | {"dtype": "I32"}})),
        ("another shape", file(header | {"w": header["w"] | {"shape": [1, 2]}})),
    )
    return [{"reason": reason, "bytes": data.hex()} for reason, data in cases]


def _changed(good: str, old: str, new: str) -> str:
    if good.count(old) != 1:
        raise AssertionError(f"{old} is not there once")
    return good.replace(old, new)
