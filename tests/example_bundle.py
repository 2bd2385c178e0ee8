"""The example of the specification: a small bundle in docs/spec/example, and the page that takes it apart.

    python tests/example_bundle.py            write the page from the bundle that is there
    python tests/example_bundle.py --record   record the bundle anew first, when the format changed

The page's words are in `example_page.md.jinja`; whatever it shows is computed from the bundle's own bytes.
"""

from __future__ import annotations

import argparse
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

import gradseal
from bundles import known
from gradseal.precede.log import read_log
from gradseal.program.order import Order
from gradseal.program.program import Program
from gradseal.program.randomness import derive, words
from gradseal.program.samples import SampleSchema
from gradseal.proof.bundle import open_bundle
from gradseal.proof.entries import decode_losses, state_root
from gradseal.proof.files import CHECKPOINT, WEIGHTS, blob_path, opening_path
from gradseal.proof.manifest import DeclaredSeed, Manifest
from gradseal.proof.merkle import leaf_hash, node_hash
from gradseal.store.files import FsspecFiles

SPECIFICATION = Path(__file__).parents[1] / "docs" / "spec"
BUNDLE = SPECIFICATION / "example"
PAGE = SPECIFICATION / "example.md"
TEMPLATE = Path(__file__).with_name("example_page.md.jinja")
KEY = gradseal.SigningKey(name="example.com/owner", seed=bytes(range(32)))
_WIDTH = 16

Values = dict[str, Any]


def record(path: Path) -> None:
    """Three steps of linear regression on four samples, in two segments."""
    torch.set_num_threads(1)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [2.0, -1.0]])
    y = torch.tensor([[0.5], [-0.5], [0.0], [1.5]])

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return functional.mse_loss(model(batch[0]), batch[1])

    with gradseal.initialise():
        model = nn.Linear(2, 1)
    with gradseal.record(
        path,
        model,
        torch.optim.SGD(model.parameters(), lr=0.125, momentum=0.5),
        loss=loss,
        data=TensorDataset(x, y),
        batch_size=2,
        steps=3,
        every=2,
        key=KEY,
        seed=1,
        progress=False,
    ) as run:
        for batch in run:
            run.step(batch)


def page(path: Path) -> str:
    """The page of the bundle at `path`."""
    template = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
    ).from_string(TEMPLATE.read_text(encoding="utf-8"))
    rendered = template.render(**_Example(path).values())
    # Macros leave lines that are empty one too many.
    while "\n\n\n" in rendered:
        rendered = rendered.replace("\n\n\n", "\n\n")
    return rendered.strip() + "\n"


class _Example:
    """The bundle, read; each method gives what a section of the page shows.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        bundle = open_bundle(FsspecFiles(str(path)))
        self._checkpoint, self._note = bundle.checkpoint, bundle.note
        self._entries = bundle.all_entries()
        self._manifest = Manifest.decode(self._entries[0])
        self._log = read_log(self._manifest, self._entries)
        self._seeds = known(self._log.seeds())
        self._seed = self._seeds.initial
        self._what: dict[str, str] = {CHECKPOINT: "the signed checkpoint", WEIGHTS: "the released weights"}
        self._program = Program.decode(self._blob(self._manifest.program, "the program"), where="program")

    def values(self) -> Values:
        """Everything; the files last, since the others say what they are."""
        shown = {
            **self._signed(),
            **self._logged(),
            **self._derived(),
            **self._data(),
            **self._documents(),
            **self._states(),
        }
        files = sorted(str(p.relative_to(self._path)) for p in self._path.rglob("*") if p.is_file())
        return shown | {
            "files": [
                {"name": _short(name), "size": len(self._read(name)), "what": self._what[name]}
                for name in files
            ]
        }

    def _signed(self) -> Values:
        owner, text = self._manifest.owner, self._note.text.encode()
        return {
            "note": self._read(CHECKPOINT).decode().rstrip(),
            "owner": owner,
            "public": owner.public.hex(),
            "key_id": owner.id.hex(),
            "signed": {"size": len(text), "digest": sha256(text).hexdigest()},
            "root": self._checkpoint.root.hex(),
        }

    def _logged(self) -> Values:
        size = len(self._entries)
        paths = {"entries_path": f"tile/entries/000.p/{size}", "tile_path": f"tile/0/000.p/{size}"}
        self._what |= {paths["entries_path"]: "the entries", paths["tile_path"]: "their leaf hashes"}
        data, entries, place = self._read(paths["entries_path"]), [], 0
        kinds = ("manifest", "initial", "segment 0", "segment 1", "close")
        for kind, entry in zip(kinds, self._entries, strict=True):
            length = data[place : place + 2].hex()
            shown = {"kind": kind, "place": place, "length": length, "size": len(entry)}
            entries.append(shown | {"text": entry.decode()})
            place += 2 + len(entry)
        leaves = [leaf_hash(entry) for entry in self._entries]
        left, right = node_hash(leaves[0], leaves[1]), node_hash(leaves[2], leaves[3])
        four = node_hash(left, right)
        nodes = {
            "H(L0, L1)": left,
            "H(L2, L3)": right,
            "H(H(L0, L1), H(L2, L3))": four,
            "root = H(that, L4)": node_hash(four, leaves[4]),
        }
        return paths | {
            "entries": entries,
            "leaves": [f"L{i} = {leaf.hex()}" for i, leaf in enumerate(leaves)],
            "nodes": [f"{name:<24} = {node.hex()}" for name, node in nodes.items()],
        }

    def _derived(self) -> Values:
        seed = self._manifest.plan.seed
        assert isinstance(seed, DeclaredSeed)
        derived = {
            "declared": seed.value,
            "run's seed": self._seed,
            "derive(seed, order, 0)": derive(self._seed, "order", 0),
            "generator, step 0, batch 0": derive(self._seed, "generator", 0, 0, size=8),
        } | {f"key of {s.name}": self._key(s.name) for s in self._program.layout[:2]}
        return {"seeds": [f"{name:<26}  {value.hex()}" for name, value in derived.items()]}

    def _data(self) -> Values:
        committed = self._manifest.data
        schema = self._blob(committed.schema, "the sample schema")
        leaves = self._blob(committed.leaves, "the samples' leaf hashes")
        shards = self._blob(committed.shards, "the digests of the shards")
        shard = self._blob(shards, "the one shard: all samples")
        size = SampleSchema.decode(schema, where="schema").size_bytes
        samples = [shard[i : i + size] for i in range(0, len(shard), size)]
        plan = self._manifest.plan
        order = Order(
            rule=plan.order,
            samples=committed.samples,
            batch_size=plan.batch_size,
            drop_last=plan.drop_last,
            seeds=self._seeds,
        )
        drawn = words(derive(self._seed, "order", 0), 0, committed.samples)
        taken = [", ".join(str(int(i)) for i in order.indices(n)) for n in range(plan.steps)]
        return {
            "schema": {"name": _short(committed.schema.hex()), "text": schema.decode()},
            "samples": {
                "size": size,
                "name": _short(shards.hex()),
                "rows": [f"sample {i}  {_in_words(data)}" for i, data in enumerate(samples)],
                "leaves": [leaves[i : i + 32].hex() for i in range(0, len(leaves), 32)],
                "root": committed.root.hex(),
            },
            "order": {
                "words": [f"w({i}) = {int(word):016x}" for i, word in enumerate(drawn)],
                "steps": "; ".join(f"step {n} takes samples {numbers}" for n, numbers in enumerate(taken)),
            },
        }

    def _documents(self) -> Values:
        digests = {
            "program": (self._manifest.program, "the program"),
            "graph": (self._program.graphs[2], "the graph for batches of two"),
            "initialisation": (self._manifest.initialisation, "the initialisation"),
            "release": (self._manifest.release, "the release map"),
        }
        shown = {
            name: {"name": _short(digest.hex()), "text": self._blob(digest, what).decode()}
            for name, (digest, what) in digests.items()
        }
        graph = shown["graph"]["text"].replace('"nodes":[', '\n"nodes":[\n')
        shown["graph"]["text"] = graph.replace('],["aten', '],\n["aten')
        return shown | {"weights": list(_dump(self._read(WEIGHTS)))}

    def _states(self) -> Values:
        names = ["state zero", *(f"the state after segment {s.index}" for s in self._log.segments)]
        states = [self._state(seal, name) for seal, name in zip(self._log.seals, names, strict=True)]
        losses = []
        for segment in self._log.segments:
            data = self._blob(segment.losses, f"the losses of segment {segment.index}")
            numbers = decode_losses(data, segment.steps, where="losses")
            told = " and ".join(f"{loss:.9g}" for loss in numbers)
            losses.append({"name": _short(segment.losses.hex()), "numbers": told, "text": data.decode()})
        return {"states": states, "losses": losses, "filled": list(self._filled())}

    def _state(self, seal: bytes, name: str) -> Values:
        opening = self._read(opening_path(seal))
        self._what[opening_path(seal)] = f"the opening of {name}"
        digests = [opening[i : i + 32] for i in range(0, len(opening), 32)]
        return {
            "name": name,
            "tensors": [
                f"{spec.name}\n    {_in_words(self._blob(digest, f'`{spec.name}` of {name}'))}"
                f"\n    {digest.hex()}"
                for spec, digest in zip(self._program.layout, digests, strict=True)
            ],
            "opening": _short(opening_path(seal)),
            "root": state_root(digests).hex(),
            "seal": seal.hex(),
        }

    def _filled(self) -> Iterator[Values]:
        """The tensors that are drawn, element by element."""
        opening = self._read(opening_path(self._log.seals[0]))
        for number, spec in enumerate(self._program.layout[:2]):
            data = self._read(blob_path(opening[32 * number : 32 * number + 32]))
            drawn = [int(word) for word in words(self._key(spec.name), 0, len(data) // 4)]
            rows = [
                f"w({i}) = {word:016x}   unit = {(word >> 11) * 2.0**-53:.17g}   "
                f"{_in_words(data[4 * i : 4 * i + 4])}"
                for i, word in enumerate(drawn)
            ]
            yield {"name": spec.name, "rows": rows}

    def _key(self, tensor: str) -> bytes:
        return derive(self._seed, "initialise", tensor, 0)

    def _read(self, path: str) -> bytes:
        return (self._path / path).read_bytes()

    def _blob(self, digest: bytes, what: str) -> bytes:
        """A blob's bytes; notes what it is, by the first that asks."""
        self._what.setdefault(blob_path(digest), what)
        return self._read(blob_path(digest))


def _short(name: str) -> str:
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last[:10]}…" if len(last) == 64 else name


def _in_words(data: bytes) -> str:
    """Bytes of binary32 numbers, four at a time, and the numbers."""
    numbers = ", ".join(f"{value:.9g}" for (value,) in struct.iter_unpack("<f", data))
    return f"{data.hex(' ', 4)}   {numbers}"


def _dump(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), _WIDTH):
        row = data[at : at + _WIDTH]
        text = "".join(chr(b) if 32 <= b < 127 else "." for b in row)
        yield f"{at:04x}  {row.hex(' '):<{3 * _WIDTH - 1}}  {text}".rstrip()


def main(arguments: Sequence[str]) -> int:
    """Writes the page, and with `--record` the bundle before."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="record the bundle anew")
    if parser.parse_args(arguments).record:
        with tempfile.TemporaryDirectory() as directory:
            record(Path(directory) / "bundle")
            shutil.rmtree(BUNDLE, ignore_errors=True)
            shutil.copytree(Path(directory) / "bundle", BUNDLE)
    PAGE.write_text(page(BUNDLE), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
