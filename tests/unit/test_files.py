"""Files on a real file system and in fsspec's memory."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import CorruptBlob, MalformedBundle, MissingFile, StoreError
from gradseal.proof.files import Files, blob_path, check_blob, opening_path
from gradseal.store.files import FsspecFiles
from memory_files import MemoryFiles


@pytest.fixture(params=["local", "memory", "test"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "test":
        return MemoryFiles()
    if request.param == "memory":
        return FsspecFiles(f"memory://{secrets.token_hex(8)}")
    return FsspecFiles(str(tmp_path / "deep" / "bundle"))


def test_files_are_written_replaced_and_deleted(files: Files) -> None:
    assert not files.exists("a/b")
    for path in ("a/b", "checkpoint", "blobs/00/" + "0" * 64):
        for data in (b"one", b"", b"two" * 1000):
            files.write(path, data)
            assert files.read(path, len(data)) == data
            assert files.read(path, 1 << 40) == data
        assert files.exists(path)
        files.delete(path)
        files.delete(path)
        assert not files.exists(path)
        with pytest.raises(MissingFile) as caught:
            files.read(path, 10)
        assert caught.value.where == path


def test_reading_is_bounded(files: Files) -> None:
    files.write("a", b"12345")
    assert files.read("a", 5) == b"12345"
    for limit in (0, 4):
        with pytest.raises(MalformedBundle) as caught:
            files.read("a", limit)
        assert caught.value.where == "a"
    large = os.urandom((1 << 20) + 7)
    files.write("large", large)
    assert files.read("large", len(large)) == large
    with pytest.raises(MalformedBundle):
        files.read("large", len(large) - 1)


def test_a_digest_is_that_of_what_is_read(files: Files) -> None:
    for size in (0, 5, 1 << 20, (1 << 20) + 7):
        data = os.urandom(size)
        files.write("a", data)
        for limit in (size, 1 << 40):
            assert files.digest("a", limit) == (hashlib.sha256(data).digest(), size)
        if size:
            with pytest.raises(MalformedBundle) as caught:
                files.digest("a", size - 1)
            assert caught.value.where == "a"
    with pytest.raises(MissingFile):
        files.digest("b", 10)


def test_a_blob_is_checked_without_being_kept(files: Files) -> None:
    digest = hashlib.sha256(b"data").digest()
    files.write(blob_path(digest), b"data")
    assert check_blob(files, digest, 4) == 4
    files.write(blob_path(digest), b"date")
    with pytest.raises(CorruptBlob):
        check_blob(files, digest, 4)


def test_a_file_that_is_too_large_is_refused_before_it_is_read(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb") as file:
        file.truncate(1 << 40)
    files = FsspecFiles(str(tmp_path))
    for act in (files.read, files.digest):
        with pytest.raises(MalformedBundle):
            act("a", 1 << 38)


def test_a_directory_in_the_place_of_a_file(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path))
    (tmp_path / "checkpoint").mkdir()
    for act in (
        lambda: files.read("checkpoint", 10),
        lambda: files.write("checkpoint", b"a"),
        lambda: files.delete("checkpoint"),
    ):
        with pytest.raises(StoreError) as caught:
            act()
        assert caught.value.where == "checkpoint"
    assert list(tmp_path.iterdir()) == [tmp_path / "checkpoint"]


def test_a_file_in_the_place_of_a_directory(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path))
    files.write("blobs", b"a file")
    with pytest.raises(MissingFile):
        files.read("blobs/00/00", 10)
    assert not files.exists("blobs/00/00")
    files.delete("blobs/00/00")
    with pytest.raises(StoreError):
        files.write("blobs/00/00", b"a")


def test_a_pipe_or_device_in_the_place_of_a_file_does_not_stop_a_reader(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for path in ("pipe", "zeros"):
        with pytest.raises(StoreError, match="not a regular file") as caught:
            files.read(path, 10)
        assert caught.value.where == path


def test_links_are_read_and_never_written_through(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path / "bundle"))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "outside").write_bytes(b"outside")
    (tmp_path / "bundle" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "bundle" / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "bundle" / "circle").symlink_to("circle")
    assert files.read("link", 10) == b"outside"
    with pytest.raises(MissingFile):
        files.read("dangling", 10)
    with pytest.raises(StoreError):
        files.read("circle", 10)
    files.write("link", b"inside")
    files.delete("dangling")
    assert (tmp_path / "outside").read_bytes() == b"outside"
    assert files.read("link", 10) == b"inside"
    assert not (tmp_path / "none").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path))
    files.write("a", b"a")
    (tmp_path / "a").chmod(0)
    with pytest.raises(StoreError, match="PermissionError"):
        files.read("a", 10)


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    files = FsspecFiles(str(tmp_path))
    files.write("a", b"old")

    def fail(*_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(os, name, fail)
        with pytest.raises(StoreError, match="no space left") as caught:
            files.write("a", b"new")
        assert caught.value.where == "a"
    assert files.read("a", 10) == b"old"
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_what_a_crash_leaves_staged_is_no_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FsspecFiles(str(tmp_path))
    with monkeypatch.context() as patch:  # a crash: neither the rename nor the tidying up
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("crash")))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(StoreError):
            files.write("checkpoint", b"half")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".checkpoint.")
    assert not files.exists("checkpoint")
    with pytest.raises(MissingFile):
        files.read("checkpoint", 10)
    files.write("checkpoint", b"whole")
    assert files.read("checkpoint", 10) == b"whole"


def test_the_file_and_its_directories_are_flushed_before_a_write_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    original = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    FsspecFiles(str(tmp_path / "new")).write("blobs/aa", b"a")
    new = tmp_path / "new"
    assert flushed[:2] == [str(tmp_path), str(new)]
    assert flushed[2].startswith(str(new / "blobs" / ".aa."))
    assert flushed[3:] == [str(new / "blobs")]


def test_emptiness(tmp_path: Path) -> None:
    assert FsspecFiles(str(tmp_path)).is_empty()
    assert FsspecFiles(str(tmp_path / "none")).is_empty()
    files = FsspecFiles(str(tmp_path))
    files.write("a", b"")
    assert not files.is_empty()
    assert not FsspecFiles(str(tmp_path / "a")).is_empty()
    memory = FsspecFiles(f"memory://{secrets.token_hex(8)}")
    assert memory.is_empty()
    memory.write("a/b", b"a")
    assert not memory.is_empty()


def test_all_files_are_listed_wherever_they_are(tmp_path: Path) -> None:
    for files in (FsspecFiles(str(tmp_path)), FsspecFiles(f"memory://{secrets.token_hex(8)}")):
        assert list(files.paths()) == []
        for path in ("a", "b/c", "b/d/e", "b/.staged"):
            files.write(path, b"")
        assert sorted(files.paths()) == ["a", "b/.staged", "b/c", "b/d/e"]
    assert list(FsspecFiles(str(tmp_path / "a")).paths()) == [""]
    assert list(FsspecFiles(str(tmp_path / "a" / "below")).paths()) == []


@pytest.mark.parametrize("failing", ["", "/a"])
def test_what_cannot_be_listed_is_not_empty(monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    files = FsspecFiles(f"memory://{secrets.token_hex(8)}")
    files.write("a/b", b"")
    whole = MemoryFileSystem.ls

    def ls(self: MemoryFileSystem, path: str, detail: bool = True, **options: object) -> object:
        if path == files.root + failing:
            raise OSError("the network is away")
        return whole(self, path, detail, **options)

    monkeypatch.setattr(MemoryFileSystem, "ls", ls)
    with pytest.raises(StoreError, match="the network is away"):
        files.is_empty()


def test_what_cannot_be_looked_for_is_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As most file systems of fsspec have it, which take any error for an absence."""
    files = FsspecFiles(f"memory://{secrets.token_hex(8)}")

    def info(self: MemoryFileSystem, path: str, **options: object) -> object:
        raise OSError("the network is away")

    monkeypatch.setattr(MemoryFileSystem, "info", info)
    monkeypatch.setattr(MemoryFileSystem, "exists", AbstractFileSystem.exists)
    with pytest.raises(StoreError, match="the network is away"):
        files.exists("a/b")


def test_storage_that_is_not_known() -> None:
    with pytest.raises(StoreError) as caught:
        FsspecFiles("nowhere://bundle")
    assert caught.value.where == "nowhere://bundle"


@given(st.binary(min_size=32, max_size=32))
def test_paths_by_digest_stay_below_the_root(digest: bytes) -> None:
    for path in (blob_path(digest), opening_path(digest)):
        assert set(path) <= set("0123456789abcdefblobsopenings/")
        assert os.path.normpath(path) == path
        assert not path.startswith("/")
