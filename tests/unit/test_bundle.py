"""Reading a bundle: what is altered, missing or too large is refused by the name of its file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import CorruptBlob, Error, MalformedBundle, MissingFile, StoreError
from gradseal.proof.bundle import MAX_ENTRIES, Bundle, open_bundle
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.files import blob_path, opening_path, read_blob, read_opening, read_sized
from gradseal.proof.merkle import Tree, leaf_hash
from gradseal.proof.note import MAX_NOTE_BYTES, sign_note
from gradseal.proof.tiles import encode_entries, entries_path, tile_bytes, tiles_for
from gradseal.proof.writer import BlobWriter, BundleWriter
from memory_files import MemoryFiles
from unit.test_manifest import KEY, example
from unit.test_writer import entry


def written(entries: int = 300) -> MemoryFiles:
    files = MemoryFiles()
    writer = BundleWriter(BlobWriter(files), KEY, example())
    while writer.size < entries:
        writer.append(entry(writer.size))
    writer.publish()
    return files


CONTENT = written().content
ENTRIES, TILE, TOP = "tile/entries/001.p/44", "tile/0/001.p/44", "tile/1/000.p/1"


def read_log(files: MemoryFiles) -> None:
    bundle = open_bundle(files)
    assert bundle.note.verified_by(KEY.verification_key)
    bundle.check_log(bundle.all_entries())


def refusal(path: str, data: bytes | None) -> Error:
    files = MemoryFiles()
    files.content = {**CONTENT}
    if data is None:
        del files.content[path]
    else:
        files.content[path] = data
    with pytest.raises((MalformedBundle, StoreError)) as caught:
        read_log(files)
    assert isinstance(caught.value, Error)
    return caught.value


def test_a_log_is_read() -> None:
    files = written()
    read_log(files)
    assert open_bundle(files).checkpoint.size == 300
    assert len(open_bundle(files).entries(1)) == 44


@pytest.mark.parametrize("path", [ENTRIES, TILE, TOP, "tile/0/000", "tile/entries/000"])
def test_a_missing_file_is_named(path: str) -> None:
    error = refusal(path, None)
    assert isinstance(error, MissingFile)
    assert error.where == path


@pytest.mark.parametrize("path", [TILE, TOP, "tile/0/000"])
def test_an_altered_tile_is_named(path: str) -> None:
    data = CONTENT[path]
    for changed in (data[:-1], data + b"\0", data * 2, b"", data[:-1] + bytes([data[-1] ^ 1])):
        error = refusal(path, changed)
        assert isinstance(error, CorruptBlob)
        assert error.where == path


def test_an_altered_entry_is_named_by_number() -> None:
    data = CONTENT[ENTRIES].replace(b'"index":260', b'"index":261')
    error = refusal(ENTRIES, data)
    assert isinstance(error, CorruptBlob)
    assert error.where == TILE
    assert error.message.startswith("entry 260 does not have the hash")


@pytest.mark.parametrize("change", [lambda d: d[:-1], lambda d: d + b"\0", lambda d: b"", lambda d: d * 40])
def test_a_file_of_entries_that_does_not_hold_them_is_named(change: object) -> None:
    assert callable(change)
    error = refusal(ENTRIES, change(CONTENT[ENTRIES]))
    assert isinstance(error, MalformedBundle)
    assert error.where == ENTRIES


def test_entries_and_tiles_altered_alike_do_not_have_the_signed_root() -> None:
    files = written()
    other = MemoryFiles()
    writer = BundleWriter(BlobWriter(other), KEY, example())
    while writer.size < 300:
        writer.append(entry(writer.size + 1))
    writer.publish()
    files.content = {**other.content, "checkpoint": files.content["checkpoint"]}
    with pytest.raises(CorruptBlob, match="do not have the root") as caught:
        read_log(files)
    assert caught.value.where == "checkpoint"


@given(st.sampled_from(sorted(CONTENT)), st.data())
def test_any_flipped_bit_is_noticed(path: str, data: st.DataObject) -> None:
    changed = bytearray(CONTENT[path])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    files = MemoryFiles()
    files.content = {**CONTENT, path: bytes(changed)}
    with pytest.raises((MalformedBundle, StoreError, AssertionError)):
        read_log(files)


class Logs:
    """Logs of any size up to one, as they would be written, without writing every size."""

    def __init__(self, largest: int) -> None:
        self.entries = [b"%d" % number for number in range(largest)]
        self.tree = Tree(map(leaf_hash, self.entries))

    def of(self, size: int) -> tuple[Bundle, MemoryFiles]:
        files = MemoryFiles()
        checkpoint = Checkpoint(origin="a", size=size, root=self.tree.root(size))
        files.content["checkpoint"] = sign_note(checkpoint.text(), [KEY])
        for tile in tiles_for(size):
            files.content[tile.path] = tile_bytes(self.tree, tile.level, tile.index, tile.width)
        for start in range(0, size, 256):
            held = self.entries[start : min(start + 256, size)]
            files.content[entries_path(start // 256, len(held))] = encode_entries(held)
        return open_bundle(files), files


LOGS = Logs(2 * 65536 + 700)


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 511, 512, 700])
def test_each_entry_is_proven_by_itself(size: int) -> None:
    bundle, _ = LOGS.of(size)
    assert [bundle.entry(index) for index in range(size)] == LOGS.entries[:size]


@pytest.mark.parametrize("size", [65535, 65536, 65537, 65536 + 256, 2 * 65536 + 700])
def test_entries_of_large_logs_are_proven(size: int) -> None:
    bundle, _ = LOGS.of(size)
    for index in {0, 1, 255, 256, 65535, 65536, size // 2, size - 1} & set(range(size)):
        assert bundle.entry(index) == LOGS.entries[index]


@pytest.mark.parametrize("index", [-1, 300, 2**63])
def test_there_is_no_entry_beyond_the_log(index: int) -> None:
    with pytest.raises(ValueError, match=f"no entry {index} in a log of 300"):
        LOGS.of(300)[0].entry(index)


def test_an_entry_is_proven_from_few_files() -> None:
    bundle, files = LOGS.of(2 * 65536 + 700)
    needed = {
        "tile/entries/100",
        "tile/0/100",
        "tile/1/000",
        "tile/0/514.p/188",
        "tile/1/002.p/2",
        "tile/2/000.p/2",
    }
    files.content = {path: files.content[path] for path in needed}
    assert bundle.entry(25601) == b"25601"


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("tile/entries/100", "tile/entries/100"),
        ("tile/0/100", "tile/0/100"),
        ("tile/1/000", "tile/1/000"),
        ("tile/0/514.p/188", "checkpoint"),
        ("tile/1/002.p/2", "checkpoint"),
        ("tile/2/000.p/2", "checkpoint"),
    ],
)
def test_no_altered_file_proves_an_entry(path: str, named: str) -> None:
    bundle, files = LOGS.of(2 * 65536 + 700)
    data = files.content[path]
    # In the file of entries, the others are not looked at.
    at = data.index(b"25601") if "entries" in path else len(data) // 2
    files.content[path] = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    with pytest.raises(CorruptBlob) as caught:
        bundle.entry(25601)
    assert caught.value.where == named
    for wrong in (data[:-1], data + b"\0", b""):
        files.content[path] = wrong
        with pytest.raises((CorruptBlob, MalformedBundle)) as refused:
            bundle.entry(25601)
        assert refused.value.where == path
    del files.content[path]
    with pytest.raises(MissingFile) as missing:
        bundle.entry(25601)
    assert missing.value.where == path


def test_an_entry_in_the_place_of_another_is_not_proven() -> None:
    bundle, files = LOGS.of(700)
    files.content["tile/entries/000"] = encode_entries(reversed(LOGS.entries[:256]))
    with pytest.raises(CorruptBlob, match="entry 7 does not have the hash"):
        bundle.entry(7)
    files.content["tile/0/000"] = files.content["tile/0/001"]
    files.content["tile/entries/000"] = files.content["tile/entries/001"]
    with pytest.raises(CorruptBlob) as caught:
        bundle.entry(7)
    assert caught.value.where == "tile/0/000"


@given(st.integers(1, 700), st.data())
def test_a_log_of_another_size_proves_no_entry(size: int, data: st.DataObject) -> None:
    bundle, files = LOGS.of(size)
    claimed = data.draw(st.integers(1, 700).filter(lambda other: other != size))
    other = Checkpoint(origin="a", size=claimed, root=bundle.checkpoint.root)
    files.content["checkpoint"] = sign_note(other.text(), [KEY])
    with pytest.raises((CorruptBlob, MalformedBundle, MissingFile)):
        open_bundle(files).entry(claimed - 1)


def test_no_checkpoint_is_no_bundle() -> None:
    error = refusal("checkpoint", None)
    assert isinstance(error, MalformedBundle)
    assert (error.message, error.where) == ("not a bundle: it has no checkpoint", "checkpoint")
    assert error.advice


@pytest.mark.parametrize("size", [0, MAX_ENTRIES + 1, 2**63 - 1])
def test_a_log_of_a_size_that_cannot_be_is_refused_before_it_is_read(size: int) -> None:
    note = sign_note(Checkpoint(origin="a", size=size, root=bytes(32)).text(), [KEY])
    error = refusal("checkpoint", note)
    assert error.message.startswith(f"a log of {size} entries")


@pytest.mark.parametrize("data", [b"", b"text\n", b"\xff" * 10, b"a" * (MAX_NOTE_BYTES + 1)])
def test_a_checkpoint_that_is_none_is_named(data: bytes) -> None:
    error = refusal("checkpoint", data)
    assert isinstance(error, MalformedBundle)
    assert error.where == "checkpoint"


@given(st.binary(max_size=200))
def test_no_bytes_of_a_checkpoint_break_the_reader(data: bytes) -> None:
    files = MemoryFiles()
    files.content["checkpoint"] = data
    with pytest.raises(MalformedBundle):
        open_bundle(files)


def test_blobs_are_hashed_again() -> None:
    files = MemoryFiles()
    digest = BlobWriter(files).put(b"abc")
    assert read_blob(files, digest, 3) == b"abc"
    with pytest.raises(MalformedBundle):
        read_blob(files, digest, 2)
    files.content[blob_path(digest)] = b"abd"
    with pytest.raises(CorruptBlob) as caught:
        read_blob(files, digest, 3)
    assert caught.value.where == blob_path(digest)
    with pytest.raises(MissingFile):
        read_blob(files, bytes(32), 3)


def test_openings_hold_one_digest_for_each_tensor() -> None:
    files = MemoryFiles()
    files.content[opening_path(bytes(32))] = b"a" * 32 + b"b" * 32
    assert read_opening(files, bytes(32), 2) == (b"a" * 32, b"b" * 32)
    for tensors in (0, 1, 3):
        with pytest.raises(CorruptBlob) as caught:
            read_opening(files, bytes(32), tensors)
        assert caught.value.where == opening_path(bytes(32))
    with pytest.raises(MissingFile):
        read_sized(files, "none", 2)
