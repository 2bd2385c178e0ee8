"""Any change of a closed bundle is noticed, before anything is computed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, event, given, note, settings
from hypothesis import strategies as st
from torch import nn

from bundles import NoReplay, check, digits, files_of, record_run, statuses
from gradseal.errors import Error
from gradseal.proof.bundle import open_bundle
from gradseal.proof.files import blob_path, read_blob
from gradseal.proof.manifest import Manifest
from gradseal.proof.tiles import decode_entries, encode_entries, entries_path
from gradseal.store.files import FsspecFiles
from gradseal.verify.verdict import Outcome


class Scaled(nn.Module):
    """Small, and yet with every kind of tensor: parameters, a buffer, momentum, a given one, a constant."""

    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(4, 10)
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("scale", torch.tensor([0.5, 1.5, 0.25, 0.75]))
        self.shift = torch.tensor([0.1, 0.2, 0.3, 0.4])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classify(images[:, 0, 3:5, 3:5].flatten(1) * self.scale + self.shift)
        return scores


class Altered:
    """A closed bundle that is changed in place and mended again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.original = {name: (path / name).read_bytes() for name in files_of(path)}
        self.names = sorted(self.original)

    def verdict_of(self, changed: dict[str, bytes | None], policy: str = "full") -> str:
        """The outcome with these files replaced, or removed where None; `error` for an error of our own."""
        try:
            for name, data in changed.items():
                self._put(name, data)
            try:
                # That nothing is replayed shows that the change was seen without it.
                verdict = check(self.path, policy, executor=NoReplay())
            except Error:
                return "error"
            assert statuses(verdict)["integrity"] != "shown"
            return verdict.outcome.value
        finally:
            for name in changed:
                self._put(name, self.original.get(name))

    def _put(self, name: str, data: bytes | None) -> None:
        if data is None:
            (self.path / name).unlink(missing_ok=True)
        else:
            (self.path / name).write_bytes(data)

    def assert_noticed(self, changed: dict[str, bytes | None], policy: str = "full") -> str:
        outcome = self.verdict_of(changed, policy)
        if any(data is None for data in changed.values()):
            # What is absent contradicts nothing.
            assert outcome in ("inconclusive", "rejected", "error")
        elif "checkpoint" in changed:
            # Of another size, it asks for other files, which are not there.
            assert outcome in ("rejected", "error", "inconclusive")
        else:
            assert outcome == "rejected"
        return outcome


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Altered]:
    path = tmp_path_factory.mktemp("any-change") / "bundle"
    record_run(path, Scaled, steps=3, every=1, data=digits(8), batch_size=5)
    altered = Altered(path)
    yield altered
    assert {name: (path / name).read_bytes() for name in files_of(path)} == altered.original


@pytest.mark.parametrize("policy", ["quick", "full"])
def test_every_file_counts(bundle: Altered, policy: str) -> None:
    for name, data in bundle.original.items():
        changes = [bytes([data[0] ^ 1]) + data[1:], data[:-1], data + b"\0", None, b""]
        for changed in changes:
            bundle.assert_noticed({name: changed}, policy)


ONE_CHANGE = settings(
    max_examples=300,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@ONE_CHANGE
@given(data=st.data())
def test_any_change_is_noticed(bundle: Altered, data: st.DataObject) -> None:
    kind = data.draw(
        st.sampled_from(["flip", "drop", "swap", "truncate", "extend", "overwrite", "cut out", "repeat"])
    )
    name = data.draw(st.sampled_from(bundle.names))
    own = bundle.original[name]
    changed: dict[str, bytes | None]
    match kind:
        case "flip":
            changed = {name: _flipped(own, data.draw(st.integers(0, 8 * len(own) - 1)))}
        case "drop":
            changed = {name: None}
        case "swap":
            other = data.draw(st.sampled_from(bundle.names))
            changed = {name: bundle.original[other], other: own}
        case "truncate":
            changed = {name: own[: data.draw(st.integers(0, len(own) - 1))]}
        case "extend":
            changed = {name: own + data.draw(st.binary(min_size=1, max_size=100))}
        case "overwrite":
            changed = {name: bundle.original[data.draw(st.sampled_from(bundle.names))]}
        case _:
            first = data.draw(st.integers(0, len(own) - 1))
            last = data.draw(st.integers(first + 1, len(own)))
            middle = own[first:last] * 2 if kind == "repeat" else b""
            changed = {name: own[:first] + middle + own[last:]}
    changed = {n: d for n, d in changed.items() if d != bundle.original[n]}
    note(f"{kind}: {', '.join(changed)}")
    if changed:
        event(f"{kind}: {bundle.assert_noticed(changed)}")


def test_parts_that_stand_twice_are_noticed(bundle: Altered) -> None:
    opened = open_bundle(FsspecFiles(str(bundle.path)))
    manifest = Manifest.decode(opened.all_entries()[0])
    entries = entries_path(0, opened.checkpoint.size)
    shard = blob_path(read_blob(opened.files, manifest.data.shards, 1 << 20)[:32])
    size = len(bundle.original[shard]) // manifest.data.samples
    cut_hashes = partial(_cut, size=32)
    parts: dict[str, Callable[[bytes], list[bytes]]] = {
        entries: _entries,
        shard: partial(_cut, size=size),
        blob_path(manifest.data.leaves): cut_hashes,
        **{name: cut_hashes for name in bundle.names if name.startswith("openings/")},
    }
    for name, cut in parts.items():
        pieces = cut(bundle.original[name])
        join = encode_entries if cut is _entries else b"".join
        assert join(pieces) == bundle.original[name]
        for i in range(len(pieces)):
            once_more = [*pieces[: i + 1], *pieces[i:]]
            for twice in (once_more, once_more[:-1]):
                if join(twice) != bundle.original[name]:
                    bundle.assert_noticed({name: join(twice)})


def test_a_pipe_in_the_place_of_a_file_stops_nothing(bundle: Altered) -> None:
    for name in bundle.names:
        (bundle.path / name).unlink()
        os.mkfifo(bundle.path / name)
        try:
            assert bundle.verdict_of({}) in ("inconclusive", "error")
        finally:
            (bundle.path / name).unlink()
            (bundle.path / name).write_bytes(bundle.original[name])


def test_as_it_is_it_is_accepted_and_files_that_nothing_names_count_for_nothing(
    bundle: Altered, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle.path, copy)
    (copy / "README").write_text("hello")
    (copy / "blobs" / "00").mkdir(exist_ok=True)
    (copy / "blobs" / "00" / ("00" * 32)).write_bytes(b"junk")
    assert check(copy).outcome is Outcome.ACCEPTED


def _flipped(data: bytes, bit: int) -> bytes:
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def _entries(data: bytes) -> list[bytes]:
    return decode_entries(data, 6, where="entries")
