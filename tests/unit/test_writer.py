"""The writer: tlog-tiles on disk, and nothing that a failure can make inconsistent."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle, MissingFile, RecordError, StoreError
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.entries import Close, Initial, Segment, entry_from_bytes, seal_of, state_root
from gradseal.proof.files import blob_path, opening_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.proof.merkle import Tree, verify_consistency
from gradseal.proof.note import SigningKey
from gradseal.proof.tiles import entries_path, tiles_for
from gradseal.proof.writer import BlobWriter, BundleWriter
from memory_files import MemoryFiles
from unit.test_manifest import KEY, example

STATE = [hashlib.sha256(bytes([i])).digest() for i in range(2)]


def begin(files: MemoryFiles) -> BundleWriter:
    return BundleWriter(BlobWriter(files), KEY, example())


def entry(index: int) -> Segment:
    return Segment(index=index, first_step=index, steps=1, seal=bytes(32), losses=bytes(32))


def log_paths(files: MemoryFiles) -> set[str]:
    return {path for path in files.content if not path.startswith(("blobs/", "openings/"))}


def expected_paths(size: int) -> set[str]:
    paths = {"checkpoint", *(tile.path for tile in tiles_for(size))}
    full, rest = divmod(size, 256)
    return paths | {entries_path(i) for i in range(full)} | ({entries_path(full, rest)} if rest else set())


def checked(files: MemoryFiles) -> Bundle:
    bundle = open_bundle(files)
    assert bundle.note.verified_by(KEY.verification_key)
    bundle.check_log(bundle.all_entries())
    return bundle


def test_a_log_published_after_each_entry_has_the_files_of_its_checkpoint_alone() -> None:
    files = MemoryFiles()
    writer = begin(files)
    tree = Tree()
    tree.append_entry(example().encode())
    old = writer.publish()
    for index in range(1, 600):
        assert writer.append(entry(index)) == index
        tree.append_entry(entry(index).encode())
        new = writer.publish()
        assert log_paths(files) == expected_paths(index + 1)
        if index % 37 == 0 or index in {255, 256, 511, 512}:
            bundle = checked(files)
            assert bundle.checkpoint == new
            assert verify_consistency(
                old=old.size,
                new=new.size,
                old_root=old.root,
                new_root=new.root,
                proof=tree.consistency_proof(old.size, new.size),
            )
            old = new
    raw = checked(files).all_entries()
    assert Manifest.decode(raw[0]) == example()
    assert [entry_from_bytes(data, where="") for data in raw[1:]] == [entry(i) for i in range(1, 600)]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=4))
def test_a_log_published_in_batches(batches: list[int]) -> None:
    files = MemoryFiles()
    writer = begin(files)
    for batch in batches:
        for _ in range(batch):
            writer.append(entry(writer.size))
        writer.publish()
        assert log_paths(files) == expected_paths(writer.size)
        assert checked(files).checkpoint.size == writer.size


def test_a_log_of_more_than_65536_entries() -> None:
    files = MemoryFiles()
    writer = begin(files)
    while writer.size < 65_530:
        writer.append(entry(writer.size))
    for _ in range(12):
        writer.append(entry(writer.size))
        writer.publish()
        assert log_paths(files) == expected_paths(writer.size)
    bundle = checked(files)
    assert bundle.checkpoint.size == 65_542
    assert files.exists("tile/1/000")
    assert files.exists("tile/2/000.p/1")
    assert [entry_from_bytes(data, where="") for data in bundle.entries(256)] == [
        entry(i) for i in range(65_536, 65_542)
    ]


def test_publishing_again_changes_nothing() -> None:
    files = MemoryFiles()
    writer = begin(files)
    writer.publish()
    before = dict(files.content)
    writer.publish()
    assert files.content == before


def write_a_run(files: MemoryFiles, publications: list[int]) -> None:
    """Records four states and closes; notes the size of each checkpoint once it is published."""
    blobs = BlobWriter(files)
    program = blobs.put(b"program")
    writer = BundleWriter(blobs, KEY, replace(example(), program=program))
    for index in range(-1, 4):
        tensors = [writer.put(f"{index} {name}".encode()) for name in "ab"]
        seal = writer.seal(tensors)
        if index < 0:
            writer.append(Initial(seal=seal))
        else:
            losses = writer.put(f"losses {index}".encode())
            writer.append(Segment(index=index, first_step=index, steps=1, seal=seal, losses=losses))
        publications.append(writer.publish().size)
    writer.append(Close(segments=4, weights=writer.release(b"weights")))
    publications.append(writer.publish().size)


def check_whole(files: MemoryFiles) -> int:
    """Everything that the checkpoint covers is there; returns its size, 0 without one."""
    try:
        bundle = checked(files)
    except MalformedBundle as e:
        assert "it has no checkpoint" in e.message
        return 0
    raw = bundle.all_entries()
    assert read_blob(files, Manifest.decode(raw[0]).program, 100) == b"program"
    for number, data in enumerate(raw[1:], start=1):
        found = entry_from_bytes(data, where=f"entry {number}")
        if isinstance(found, Close):
            assert hashlib.sha256(files.content["weights.safetensors"]).digest() == found.weights
            continue
        assert isinstance(found, Initial | Segment)
        digests = read_opening(files, found.seal, 2)
        assert seal_of(KEY.verification_key, state_root(digests)) == found.seal
        assert [read_blob(files, d, 100).decode() for d in digests] == [f"{number - 2} {c}" for c in "ab"]
        if isinstance(found, Segment):
            assert read_blob(files, found.losses, 100).decode() == f"losses {number - 2}"
    return bundle.checkpoint.size


@pytest.mark.parametrize("after", [False, True])
def test_a_failure_anywhere_leaves_the_older_or_the_newer_checkpoint_whole(after: bool) -> None:
    whole = MemoryFiles()
    sizes: list[int] = []
    write_a_run(whole, sizes)
    assert check_whole(whole) == 7
    for number in range(len(whole.journal)):
        files = MemoryFiles(fail_at=number, after=after)
        published: list[int] = []
        with pytest.raises(StoreError, match="the test's failure"):
            write_a_run(files, published)
        found = check_whole(files)
        last = published[-1] if published else 0
        assert found in {last, sizes[len(published)]}
        assert found >= last


@pytest.mark.parametrize("after", [False, True])
def test_after_a_failure_the_same_call_may_be_made_again(after: bool) -> None:
    whole = MemoryFiles()
    append_and_publish(whole)
    for number in range(len(whole.journal)):
        files = MemoryFiles(fail_at=number, after=after, once=True)
        append_and_publish(files)
        assert checked(files).checkpoint.size == 8
        assert files.content == whole.content


def append_and_publish(files: MemoryFiles) -> None:
    writer = begin(files)
    for index in range(1, 8):
        writer.append(entry(index))
        try:
            writer.publish()
        except StoreError:
            if index % 2 or index == 7:  # else the next publication covers what this one did not
                writer.publish()


def test_the_checkpoint_is_written_after_all_that_it_covers_and_before_anything_is_deleted() -> None:
    files = MemoryFiles()
    write_a_run(files, [])
    published = [i for i, act in enumerate(files.journal) if act == ("write", "checkpoint")]
    for begin_, end in zip([-1, *published], published, strict=False):
        acts = files.journal[begin_ + 1 : end]
        kinds = [path.split("/")[0] for act, path in acts if act == "write"]
        order = ["blobs", "openings", "weights.safetensors", "tile"]
        assert kinds.index("tile") == len(kinds) - kinds.count("tile")
        assert set(kinds) <= set(order)
        deletions = [i for i, (act, _) in enumerate(acts) if act == "delete"]
        assert deletions == list(range(len(deletions)))


def test_equal_blobs_are_written_once() -> None:
    files = MemoryFiles()
    writer = begin(files)
    assert writer.put(b"a") == writer.put(b"a") == hashlib.sha256(b"a").digest()
    assert files.journal == [("write", blob_path(hashlib.sha256(b"a").digest()))]
    failing = MemoryFiles(fail_at=0, once=True)
    blobs = BlobWriter(failing)
    with pytest.raises(StoreError):
        blobs.put(b"a")
    assert read_blob(failing, blobs.put(b"a"), 1) == b"a"


def test_a_seal_is_opened_beside_the_log() -> None:
    files = MemoryFiles()
    writer = begin(files)
    seal = writer.seal(STATE)
    assert seal == seal_of(KEY.verification_key, state_root(STATE))
    assert files.content == {opening_path(seal): b"".join(STATE)}


def test_another_owners_manifest_is_not_signed() -> None:
    other = SigningKey(name="example.com/other", seed=b"\1" * 32)
    with pytest.raises(RecordError, match="another owner") as caught:
        BundleWriter(BlobWriter(MemoryFiles()), other, example())
    assert caught.value.where == "manifest: owner"


def test_an_entry_too_long_is_refused_before_the_log_has_it() -> None:
    files = MemoryFiles()
    with pytest.raises(MalformedBundle, match="more than the 65535"):
        BundleWriter(BlobWriter(files), KEY, replace(example(), arithmetic={"kind": "x" * 66_000}))
    assert not files.journal
    with pytest.raises(MissingFile):
        files.read("checkpoint", 1)


def go_on(files: MemoryFiles) -> BundleWriter:
    """A writer of another process, which knows nothing but the files."""
    bundle = open_bundle(files)
    writer = BundleWriter(BlobWriter(files, resumed=True), KEY, example())
    writer.catch_up(bundle.checkpoint, bundle.all_entries())
    return writer


@pytest.mark.parametrize("stopped", [1, 2, 3, 255, 256, 257, 511, 512, 513])
def test_a_log_that_is_gone_on_with_is_the_one_written_at_once(stopped: int) -> None:
    whole, files = MemoryFiles(), MemoryFiles()
    for own in (whole, files):
        writer = begin(own)
        writer.publish()
        for index in range(1, 520):
            if own is files and writer.size == stopped:
                writer = go_on(files)
            writer.append(entry(index))
            writer.publish()
    assert files.content == whole.content


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("size", [3, 255, 256, 257])
def test_whatever_a_stop_left_is_gone_once_the_log_goes_on(size: int, after: bool) -> None:
    """Stopped at every write and deletion of one publication, before or after it took place."""
    whole = MemoryFiles()
    writer = begin(whole)
    for index in range(1, size + 1):
        writer.publish()
        writer.append(entry(index))
    writer.publish()
    for moment in range(20):
        files = MemoryFiles()
        writer = begin(files)
        for index in range(1, size):
            writer.publish()
            writer.append(entry(index))
        writer.publish()
        writer.append(entry(size))
        crashed = MemoryFiles(fail_at=moment, after=after)
        crashed.content = files.content
        writer._files = crashed
        try:
            writer.publish()
        except StoreError:
            again = go_on(files)
            if again.size == size:
                again.append(entry(size))
            again.publish()
        assert files.content == whole.content


def test_going_on_needs_the_entries_of_the_checkpoint() -> None:
    files = MemoryFiles()
    writer = begin(files)
    writer.append(entry(1))
    checkpoint = writer.publish()
    raw = open_bundle(files).all_entries()
    for entries in (raw[:1], [raw[0], entry(2).encode()], [*raw, entry(2).encode()]):
        with pytest.raises(RecordError, match="the entries are not those"):
            begin(MemoryFiles()).catch_up(checkpoint, entries)


def test_a_blob_from_before_is_neither_written_again_nor_discarded() -> None:
    files = MemoryFiles()
    digest = BlobWriter(files).put(b"old")
    files.journal.clear()
    blobs = BlobWriter(files, resumed=True)
    assert blobs.put(b"old") == digest
    assert files.journal == []
    new = blobs.put(b"new")
    blobs.discard()
    assert files.content == {blob_path(digest): b"old"}
    assert blobs.put(b"new") == new
    assert files.content[blob_path(new)] == b"new"


@pytest.mark.parametrize("damage", [b"", b"ol", b"olD", b"old and more"])
def test_a_blob_from_before_that_is_not_what_it_was_is_restored_and_stays(damage: bytes) -> None:
    files = MemoryFiles()
    digest = BlobWriter(files).put(b"old")
    files.content[blob_path(digest)] = damage
    blobs = BlobWriter(files, resumed=True)
    assert blobs.put(memoryview(b"old")) == digest
    blobs.discard()
    assert files.content == {blob_path(digest): b"old"}
