"""Resuming: a recording that was killed ends at the same digest as one that was not."""

from __future__ import annotations

import multiprocessing
import random
import secrets
import shutil
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from bundles import KEY, OTHER_KEY, check, cross_entropy, digits, mlp, sgd, statuses
from gradseal.errors import CorruptBlob, RecordError, StoreError
from gradseal.program.initialise import initialise
from gradseal.proof.bundle import open_bundle
from gradseal.proof.entries import Initial, Segment, entry_from_bytes
from gradseal.proof.files import blob_path, opening_path, read_blob, read_opening
from gradseal.proof.manifest import Manifest
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.record.recorder import record
from gradseal.store.files import FsspecFiles
from interrupted import STEPS, count_writes, train, train_until

KILLS = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The uninterrupted run, and at how many moments a kill can hit its writing."""
    path = tmp_path_factory.mktemp("whole") / "bundle"
    moments: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        count_writes(patch.setattr, moments.append)
        train(path)
    return path, len(moments)


def killed(path: Path, moment: int, *, resume: bool = False, mode: str = "step") -> bool:
    """Whether a process that trains at `path` was killed at `moment`, rather than having ended before."""
    # A server that has trained once, so that a new process need not load and warm up all that it takes.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["interrupted_ready"])
    process = context.Process(
        target=train_until, args=(path, moment), kwargs={"resume": resume, "mode": mode}
    )
    with pytest.MonkeyPatch.context() as patch:
        # The server takes modules from there alone before Python 3.11.9.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def same_files(first: Path, second: Path) -> bool:
    """Whether two bundles have the same files, but for staged ones that a kill left behind."""

    def content(path: Path) -> dict[str, bytes]:
        return {
            str(p.relative_to(path)): p.read_bytes()
            for p in path.rglob("*")
            if p.is_file() and not p.name.startswith(".")
        }

    return content(first) == content(second)


@pytest.mark.parametrize("mode", ["step", "wrap"])
def test_killed_at_random_moments_and_resumed(whole: tuple[Path, int], tmp_path: Path, mode: str) -> None:
    path, moments = whole
    drawn = random.Random(3).sample(range(moments), KILLS)
    for moment in drawn[mode == "wrap" :: 2]:
        bundle = tmp_path / str(moment)
        assert killed(bundle, moment, mode=mode)
        train(bundle, resume=True, mode=mode)
        assert same_files(path, bundle), f"killed at moment {moment} of {moments}"


def test_killed_again_and_again(whole: tuple[Path, int], tmp_path: Path) -> None:
    path, moments = whole
    bundle = tmp_path / "bundle"
    assert killed(bundle, moments // 2)
    for moment in (3, 0, 40):
        killed(bundle, moment, resume=True)
    train(bundle, resume=True)
    assert same_files(path, bundle)
    assert statuses(check(bundle))["computation"] == "shown"


def test_an_error_of_the_users_is_an_interruption_too(whole: tuple[Path, int], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"

    def disturb(patch: pytest.MonkeyPatch) -> None:
        real = torch.optim.AdamW.step
        steps = iter(range(STEPS))

        def broken(self: Any, *args: Any) -> Any:
            if next(steps) == 5:
                raise KeyboardInterrupt
            return real(self, *args)

        patch.setattr(torch.optim.AdamW, "step", broken)

    with pytest.MonkeyPatch.context() as patch:
        disturb(patch)
        with pytest.raises(KeyboardInterrupt):
            train(bundle, mode="wrap")
    train(bundle, resume=True, mode="wrap")
    assert same_files(whole[0], bundle)


def test_the_seed_need_not_be_said_again(whole: tuple[Path, int], tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    assert killed(bundle, whole[1] - 20)
    train(bundle, resume=True, seed=None)
    assert same_files(whole[0], bundle)


def test_resuming_what_is_complete_trains_nothing(whole: tuple[Path, int], tmp_path: Path) -> None:
    bundle = shutil.copytree(whole[0], tmp_path / "bundle")
    model = train(bundle, resume=True)
    assert same_files(whole[0], bundle)
    fresh = train(tmp_path / "again")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name])


def test_resuming_where_nothing_is_begins(whole: tuple[Path, int], tmp_path: Path) -> None:
    train(tmp_path / "bundle", resume=True)
    assert same_files(whole[0], tmp_path / "bundle")


def test_given_weights_need_not_be_the_same_again(tmp_path: Path) -> None:
    """A model built outside `initialise` starts from other numbers in each process."""

    def run(path: Path, *, stop_after: int | None = None, resume: bool = False) -> None:
        torch.manual_seed(len(str(path)) + resume)
        model = mlp()
        with record(
            path,
            model,
            sgd(model),
            loss=cross_entropy,
            data=digits(),
            batch_size=16,
            steps=6,
            every=2,
            key=KEY,
            seed=5,
            resume=resume,
            progress=False,
        ) as recording:
            for number, batch in enumerate(recording):
                if number == stop_after:
                    raise KeyboardInterrupt
                recording.step(batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "bundle", stop_after=3)
    run(tmp_path / "bundle", resume=True)
    assert statuses(check(tmp_path / "bundle"))["computation"] == "shown"


OTHERWISE: dict[str, tuple[dict[str, Any], str]] = {
    "another length": ({"steps": 8}, "plan.steps"),
    "another batch": ({"batch_size": 20}, "plan.batch_size"),
    "another seed": ({"seed": 8}, "plan.seed.value"),
    "other data": ({"data": digits(41)}, "data.leaves"),
    "clipping": ({"clip": 1.0}, "program"),
}


@pytest.mark.parametrize(("options", "where"), OTHERWISE.values(), ids=OTHERWISE)
def test_another_run_is_refused(tmp_path: Path, options: dict[str, Any], where: str) -> None:
    begin(tmp_path / "b")
    before = sorted(p for p in (tmp_path / "b").rglob("*") if p.is_file())
    with pytest.raises(RecordError, match="another run") as caught:
        go_on(tmp_path / "b", **options)
    assert caught.value.where == where
    assert sorted(p for p in (tmp_path / "b").rglob("*") if p.is_file()) == before


def test_another_key_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "b")
    with pytest.raises(RecordError, match="not signed by the key"):
        go_on(tmp_path / "b", key=OTHER_KEY)


def test_a_last_state_that_was_altered_is_refused(tmp_path: Path) -> None:
    begin(tmp_path / "b")
    newest = max((p for p in (tmp_path / "b" / "openings").iterdir()), key=lambda p: p.stat().st_mtime_ns)
    newest.write_bytes(bytes(newest.stat().st_size))
    with pytest.raises(CorruptBlob, match="not what the log's seal stands for"):
        go_on(tmp_path / "b")


def test_a_shard_that_was_emptied_is_restored(tmp_path: Path) -> None:
    bundle = tmp_path / "b"
    begin(bundle)
    manifest = manifest_of(bundle)
    shards = read_blob(FsspecFiles(str(bundle)), manifest.data.shards, 32)
    (bundle / blob_path(shards)).write_bytes(b"")
    (bundle / blob_path(manifest.data.leaves)).unlink()
    go_on(bundle)
    found = statuses(check(bundle))
    assert (found["integrity"], found["computation"]) == ("shown", "shown")


def test_what_cannot_be_made_again_must_be_whole_before_more_is_signed(tmp_path: Path) -> None:
    begin(tmp_path / "b", weights=True)
    files = FsspecFiles(str(tmp_path / "b"))
    raw = open_bundle(files).all_entries()
    initial, first = (entry_from_bytes(data, where="") for data in raw[1:])
    assert isinstance(initial, Initial) and isinstance(first, Segment)
    given = read_opening(files, initial.seal, 8)[0]
    for path in (opening_path(initial.seal), blob_path(first.losses), blob_path(given)):
        bundle = shutil.copytree(tmp_path / "b", tmp_path / path.replace("/", "-"))
        content = (bundle / path).read_bytes()
        (bundle / path).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        before = (bundle / "checkpoint").read_bytes()
        with pytest.raises(CorruptBlob) as caught:
            go_on(bundle, weights=True)
        assert caught.value.where == path
        assert (bundle / "checkpoint").read_bytes() == before
    go_on(tmp_path / "b", weights=True)
    assert statuses(check(tmp_path / "b"))["computation"] == "shown"


def test_a_storage_that_fails_is_no_empty_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of fsspec's file systems say of whatever they cannot look at that it does not exist."""
    url = f"memory://{secrets.token_hex(8)}"
    begin(url)
    root = FsspecFiles(url).root
    before = {path: file.getvalue() for path, file in MemoryFileSystem.store.items() if path.startswith(root)}

    def fails(self: Any, path: str, **_: Any) -> Any:
        if path.endswith("/checkpoint"):
            raise OSError("the network is away")
        return info(self, path)

    info = MemoryFileSystem.info
    opened = MemoryFileSystem._open
    with monkeypatch.context() as patch:
        patch.setattr(MemoryFileSystem, "exists", AbstractFileSystem.exists)
        patch.setattr(MemoryFileSystem, "info", fails)
        patch.setattr(
            MemoryFileSystem,
            "_open",
            lambda self, path, mode="rb", **more: (
                fails(self, path)
                if mode == "rb" and path.endswith("/checkpoint")
                else opened(self, path, mode, **more)
            ),
        )
        with pytest.raises(StoreError, match="the network is away"):
            go_on(url)
    after = {path: file.getvalue() for path, file in MemoryFileSystem.store.items() if path.startswith(root)}
    assert after == before
    go_on(url)


def test_a_place_with_other_files_is_neither_resumed_nor_begun_in(tmp_path: Path) -> None:
    begin(tmp_path / "b")
    for name in (
        "notes.txt",
        "blobs/notes.txt",
        "openings/" + "0" * 63,
        "tile/0/000.p/3",
        "weights.safetensors",
    ):
        place = tmp_path / name.replace("/", "-")
        (place / name).parent.mkdir(parents=True)
        (place / name).write_text("mine")
        with pytest.raises(RecordError, match="has no checkpoint, but has") as caught:
            go_on(place)
        assert name in caught.value.message
        assert [p for p in place.rglob("*") if p.is_file()] == [place / name]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecordError, match="is not a directory"):
        go_on(tmp_path / "file")
    (tmp_path / "b" / "checkpoint").unlink()
    with pytest.raises(RecordError, match="tile/"):
        go_on(tmp_path / "b")


def test_a_log_without_a_state_is_not_gone_on_with(tmp_path: Path) -> None:
    """No recording publishes one; and the given tensors of state zero may be others by now."""
    begin(tmp_path / "b")
    files = FsspecFiles(str(tmp_path / "b"))
    manifest = manifest_of(tmp_path / "b")
    BundleWriter(BlobWriter(files), KEY, manifest).publish()
    with pytest.raises(RecordError, match="no sealed state"):
        go_on(tmp_path / "b")
    assert open_bundle(files).checkpoint.size == 1


def manifest_of(path: Path) -> Manifest:
    return Manifest.decode(open_bundle(FsspecFiles(str(path))).all_entries()[0])


def begin(path: Path | str, **options: Any) -> None:
    """Half a run."""
    with pytest.raises(KeyboardInterrupt):
        go_on(path, seed=7, stop_after=3, **options)


def go_on(path: Path | str, *, stop_after: int | None = None, weights: bool = False, **options: Any) -> None:
    settings: dict[str, Any] = {
        "data": digits(),
        "batch_size": 16,
        "steps": 6,
        "every": 2,
        "key": KEY,
        "progress": False,
    }
    with nullcontext() if weights else initialise():  # given weights, if they are not initialised
        model = mlp()
    with record(path, model, sgd(model), loss=cross_entropy, resume=True, **{**settings, **options}) as run:
        for number, batch in enumerate(run):
            if number == stop_after:
                raise KeyboardInterrupt
            run.step(batch)
