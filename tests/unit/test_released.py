"""The reader of the released code's folders: what it takes, and that hostile files are refused unopened."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradseal.errors import CaptureError, Error, MalformedBundle, MissingFile
from gradseal.record import released, released_names
from gradseal.record.released import Checkpoint, read_released
from gradseal.record.released_hash import hash_note
from gradseal.record.released_names import ATTACKS
from gradseal.record.released_schedule import rates_within
from gradseal.record.torch_files import read_torch_file

SAMPLES, LIMIT = 10, 100_000
RAN: list[str] = []
"""What hostile pickles ran."""


def ran() -> None:
    RAN.append("the pickle")


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (ran, ())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five steps of two samples, checkpoints each two steps."""
    for step in (0, 2, 4, 5):
        save(tmp_path / f"model_step_{step}")
    np.save(tmp_path / "indices.npy", np.arange(10).reshape(5, 2))
    return tmp_path


def save(path: Path, held: Any = None) -> Path:
    torch.save(held or {"net": OrderedDict(w=torch.arange(6.0))}, path)
    return path


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rewrite(path: Path, changed: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """Writes the archive again with other members."""
    kept = {**members(path), **changed}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in kept.items():
            archive.writestr(name, data)


def replace_pickle(path: Path, data: bytes) -> None:
    (name,) = [n for n in members(path) if n.endswith("/data.pkl")]
    rewrite(path, {name: data})


def test_a_folder_says_its_steps_its_interval_and_its_order(folder: Path) -> None:
    proof = read_released(folder, samples=SAMPLES)
    assert (proof.steps, proof.every, proof.batch_size) == (5, 2, 2)
    assert proof.checkpoint_steps == [0, 2, 4, 5]
    np.save(folder / "indices.npy", np.array([[3, 1], [4, 1], [5, 9], [2, 6], [5, 3]], dtype=np.uint8))
    proof = read_released(folder, samples=SAMPLES, batch_size=2)
    samples = proof.samples("abcdefghij")
    assert (len(samples), "".join(samples[i] for i in range(10))) == (10, "dbebfjcgfd")
    loaded = list(proof.checkpoints(LIMIT))
    assert [c.step for c in loaded] == [0, 2, 4, 5]
    assert torch.equal(loaded[0].net["w"], torch.arange(6.0))
    assert (loaded[0].optimizer, loaded[0].scheduler) == (None, None)


def test_indices_of_one_dimension_need_a_batch_size(folder: Path) -> None:
    np.save(folder / "indices.npy", np.arange(9))
    with pytest.raises(CaptureError, match="one dimension"):
        read_released(folder, samples=SAMPLES)
    proof = read_released(folder, samples=SAMPLES, batch_size=2)
    assert (proof.steps, len(proof.samples("abcdefghij"))) == (5, 9)


def remove(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def indices(array: Any) -> Callable[[Path], object]:
    return lambda folder: np.save(folder / "indices.npy", array, allow_pickle=True)


def header(text: str, data: bytes = b"") -> Callable[[Path], object]:
    """An array whose header says something else."""
    raw = text.encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(raw)) + raw + data
    return lambda folder: (folder / "indices.npy").write_bytes(content)


def link(name: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).rename(folder / "elsewhere")
        (folder / name).symlink_to(folder / "elsewhere")

    return change


def indices_as_zip(folder: Path) -> None:
    with (folder / "indices.npy").open("wb") as file:
        np.savez(file, np.arange(10).reshape(5, 2))


WRONG_FOLDERS: dict[str, tuple[Callable[[Path], object], type[Error], str]] = {
    "no checkpoint": (
        lambda f: [os.unlink(p) for p in f.glob("model_step_*")],  # type: ignore[func-returns-value]
        MissingFile,
        "has no model_step_0",
    ),
    "no first": (remove("model_step_0"), MissingFile, "model_step_0: is not there"),
    "one missing": (remove("model_step_4"), MissingFile, "model_step_4: is not there"),
    "no last": (remove("model_step_5"), MissingFile, "model_step_5: is not there"),
    "one too many": (
        lambda f: save(f / "model_step_3"),
        MalformedBundle,
        "model_step_3: is beyond the 5 steps",
    ),
    "leading zero": (lambda f: save(f / "model_step_04"), MalformedBundle, "model_step_04: is not named"),
    "an ending": (lambda f: save(f / "model_step_4.pt"), MalformedBundle, "model_step_4.pt: is not named"),
    "a sign": (lambda f: save(f / "model_step_-2"), MalformedBundle, "model_step_-2: is not named"),
    "other digits": (lambda f: save(f / "model_step_٤"), MalformedBundle, "is not named"),
    "no indices": (remove("indices.npy"), MissingFile, "indices.npy: is not there"),
    "linked indices": (link("indices.npy"), MalformedBundle, "indices.npy: is a symbolic link"),
    "too large": (indices([[0, 10]] * 5), MalformedBundle, "indices.npy: names sample 10"),
    "negative": (indices([[0, -1]] * 5), MalformedBundle, "indices.npy: names sample -1"),
    "floats": (indices(np.zeros((5, 2))), MalformedBundle, "indices.npy: is float64"),
    "objects": (indices(np.array([[Hostile()] * 2] * 5)), MalformedBundle, "indices.npy: numpy cannot load"),
    "three dimensions": (indices(np.zeros((5, 2, 1), int)), MalformedBundle, "of 3 dimensions"),
    "none": (indices(np.zeros((5, 0), int)), MalformedBundle, "names 0 samples"),
    "a pickle": (
        lambda f: (f / "indices.npy").write_bytes(pickle.dumps(Hostile())),
        MalformedBundle,
        "indices.npy: is no array",
    ),
    "an archive": (indices_as_zip, MalformedBundle, "indices.npy: is no array"),
    "larger than its file": (
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (1099511627776, 2), }"),
        MalformedBundle,
        "indices.npy: numpy cannot load",
    ),
    "a header of code": (header("__import__('os').abort()"), MalformedBundle, "numpy cannot load"),
    "a negative shape": (
        header("{'descr': '<i8', 'fortran_order': False, 'shape': (-5, -2), }", bytes(80)),
        MalformedBundle,
        "indices.npy: numpy cannot load|names",
    ),
}


@pytest.mark.parametrize("case", WRONG_FOLDERS)
def test_a_folder_that_is_not_as_it_should_be_is_refused_by_name(folder: Path, case: str) -> None:
    change, kind, message = WRONG_FOLDERS[case]
    change(folder)
    with pytest.raises(kind, match=message) as raised:
        read_released(folder, samples=SAMPLES)
    assert str(folder) in raised.value.where
    assert RAN == []


def test_too_many_files_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(released_names, "MAX_ENTRIES", 4)
    with pytest.raises(MalformedBundle, match="more than 4 files"):
        read_released(folder, samples=SAMPLES)
    monkeypatch.undo()
    monkeypatch.setattr(released_names, "MAX_CHECKPOINTS", 3)
    with pytest.raises(MalformedBundle, match="4 checkpoints, over the limit of 3"):
        read_released(folder, samples=SAMPLES)
    monkeypatch.undo()
    monkeypatch.setattr(released, "MAX_INDICES_BYTES", 100)
    with pytest.raises(MalformedBundle, match=r"indices\.npy: has \d+ bytes, over the limit of 100"):
        read_released(folder, samples=SAMPLES)


def test_a_last_step_beyond_all_others_costs_no_memory(tmp_path: Path) -> None:
    for step in (0, 1, 2, 999_999_999_999):
        (tmp_path / f"model_{step}.pt").touch()
    with pytest.raises(MissingFile, match=r"model_3\.pt: is not there"):
        ATTACKS.interval(tmp_path)


@pytest.mark.parametrize("what", ["there is no such folder", "is a file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, what: str) -> None:
    if what == "is a file":
        (tmp_path / "proof").write_text("")
    with pytest.raises(MissingFile, match=what):
        read_released(tmp_path / "proof", samples=SAMPLES)


# Checkpoints: what torch.save wrote, or somebody else.


def refused(path: Path, message: str, limit: int = LIMIT) -> None:
    with pytest.raises(MalformedBundle, match=message) as raised:
        read_torch_file(path, limit)
    assert raised.value.where.startswith(str(path))
    assert RAN == []


def test_a_checkpoint_is_read_with_all_that_the_released_code_saves(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3)).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 4])
    model(torch.ones(2, 2, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    scheduler.step()
    held = {
        "net": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    read = read_torch_file(save(tmp_path / "c", held), LIMIT)
    assert read["scheduler"] == held["scheduler"]
    assert read["optimizer"]["param_groups"] == held["optimizer"]["param_groups"]
    assert list(read["net"]) == list(held["net"])
    for name, tensor in model.state_dict().items():
        assert torch.equal(read["net"][name], tensor)


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    refused(save(tmp_path / "c", {"net": Hostile()}), "names '.* ran'")


@pytest.mark.parametrize(
    "name",
    ["os system", "builtins eval", "builtins bytearray", "torch Tensor", "torch.storage _load_from_bytes"],
)
def test_only_what_tensors_are_made_of_may_be_named(tmp_path: Path, name: str) -> None:
    module, _, function = name.partition(" ")
    path = save(tmp_path / "c")
    replace_pickle(path, f"\x80\x02c{module}\n{function}\n.".encode("latin-1"))
    refused(path, f"names '{name}'")


def test_a_storage_that_is_called_is_refused(tmp_path: Path) -> None:
    """Its memory would be the importer's own, whatever was in it."""
    path = save(tmp_path / "c")
    replace_pickle(path, b"\x80\x02ctorch\nFloatStorage\nK\x06\x85R.")
    refused(path, "torch cannot load it")


def test_a_few_bytes_may_not_ask_for_much_memory(tmp_path: Path) -> None:
    path = save(tmp_path / "c")
    replace_pickle(path, b"\x80\x02}X\x03\x00\x00\x00netcbuiltins\nbytearray\nJ\x00\x00\x10\x00\x85Rs.")
    assert len(torch.load(path, weights_only=True)["net"]) == 1 << 20
    refused(path, "names 'builtins bytearray'")


def declared(path: Path, numel: int, size: int) -> None:
    """Makes the six floats of a checkpoint say that they are more."""
    data = next(d for name, d in members(path).items() if name.endswith("data.pkl"))
    assert data.count(b"K\x06") == 2  # of the storage, then of the tensor
    first, second, third = data.split(b"K\x06")
    replace_pickle(
        path, b"".join([first, b"J", struct.pack("<i", numel), second, b"J", struct.pack("<i", size), third])
    )


@pytest.mark.parametrize(("numel", "size"), [(1 << 30, 1 << 30), (6, 1 << 30), (0, 1 << 30)])
def test_a_huge_tensor_that_is_only_declared_is_refused(tmp_path: Path, numel: int, size: int) -> None:
    path = save(tmp_path / "c")
    declared(path, numel, size)
    refused(path, "torch cannot load it")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "c")
    (name,) = [n for n in members(path) if n.endswith("data/0")]
    rewrite(path, {name: bytes(90_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 4000
    refused(path, "unpacks to .* over the limit of 50,000", limit=50_000)
    refused(path, "a compressed member")


def test_a_bomb_of_overlapping_members_is_refused(tmp_path: Path) -> None:
    """Many entries of the directory that share the bytes of one."""
    path = save(tmp_path / "c")
    name = next(n for n in members(path) if n.endswith("data/0"))
    rewrite(path, {name: bytes(20_000)})
    data = path.read_bytes()
    begins = data.index(b"PK\x01\x02")
    directory, end = data[begins : data.index(b"PK\x05\x06")], data[data.index(b"PK\x05\x06") :]
    copies = directory * 20
    count = struct.pack("<H", 20 * int.from_bytes(end[10:12], "little"))
    end = end[:8] + count * 2 + struct.pack("<L", len(copies)) + end[16:]
    path.write_bytes(data[:begins] + copies + end)
    refused(path, "unpacks to")


def test_a_directory_that_says_it_is_huge_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "c")
    whole = path.read_bytes()
    at = whole.index(b"PK\x06\x06") + 40
    huge = whole[:at] + struct.pack("<Q", 1 << 40) + whole[at + 8 :]
    path.write_bytes(huge[:-10] + struct.pack("<L", 0xFFFFFFFF) + huge[-6:])
    refused(path, "directory is over the limit")
    path.write_bytes(huge)
    refused(path, "two directories differ")


def test_a_directory_elsewhere_than_it_says_is_refused(tmp_path: Path) -> None:
    """Torch takes the one at the stated place, zipfile the one before the end: they would read two files."""
    path = save(tmp_path / "c")
    whole = path.read_bytes()
    at = whole.index(b"PK\x06\x06") + 48
    moved = whole[:at] + struct.pack("<Q", 8) + whole[at + 8 :]
    path.write_bytes(moved)
    refused(path, "two directories differ")
    path.write_bytes(moved[:-6] + struct.pack("<L", 8) + moved[-2:])
    refused(path, "directory is not where it says")


class Made:
    def __init__(self, maker: type, argument: object) -> None:
        self.maker, self.argument = maker, argument

    def __reduce__(self) -> tuple[object, ...]:
        return self.maker, (self.argument,)


@pytest.mark.parametrize("maker", [Counter, OrderedDict])
def test_a_container_made_of_a_tensor_is_refused(tmp_path: Path, maker: type) -> None:
    """An expanded tensor of one number would be taken apart into as many as it says."""
    path = tmp_path / "c"
    first = OrderedDict()  # type: ignore[var-annotated]
    torch.save({"net": first, "more": Made(maker, torch.zeros(1).expand(100))}, path)
    refused(path, "is not made of numbers" if maker is Counter else "that is not made of")


def test_members_that_stand_twice_or_in_two_places_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "c")
    rewrite(path, {"other/data.pkl": b"."})
    refused(path, "more than one directory")
    path = save(tmp_path / "d")
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("d/data.pkl", b".")
    refused(path, "a member twice")


@pytest.mark.parametrize("size", [0, 10, 1000])
def test_what_is_no_archive_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "c"
    path.write_bytes(os.urandom(size))
    refused(path, "is no archive as torch.save writes it")


def test_the_format_before_1_6_is_refused_with_advice(tmp_path: Path) -> None:
    held = io.BytesIO()
    torch.save({"net": {}}, held, _use_new_zipfile_serialization=False)
    (tmp_path / "c").write_bytes(held.getvalue())
    with pytest.raises(MalformedBundle) as raised:
        read_torch_file(tmp_path / "c", LIMIT)
    assert "1.6" in raised.value.advice


def test_files_that_are_too_large_or_links_are_not_opened(tmp_path: Path) -> None:
    path = save(tmp_path / "c")
    refused(path, "over the limit of 100", limit=100)
    link("c")(tmp_path)
    refused(path, "is a symbolic link")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is no regular file")


def test_a_cut_or_flipped_checkpoint_is_an_error_of_ours_or_other_numbers(tmp_path: Path) -> None:
    whole = save(tmp_path / "c").read_bytes()
    changed = tmp_path / "changed"
    generator = np.random.default_rng(0)
    refusals = 0
    for _ in range(150):
        data = bytearray(whole)
        if generator.random() < 0.3:
            data = data[: int(generator.integers(len(data)))]
        else:
            for at in generator.integers(len(data), size=3):
                data[at] ^= 1 << int(generator.integers(8))
        changed.write_bytes(data)
        try:
            read_torch_file(changed, LIMIT)
        except MalformedBundle:
            refusals += 1
    assert refusals > 50


PARTS = {
    "no net": ({"model": {}}, "has no 'net'"),
    "more": ({"net": {}, "epoch": 3}, "has 'epoch' besides"),
    "a list": ([1], "has no 'net'"),
    "a tensor": ({"net": torch.zeros(2)}, "net: is no state dict"),
    "a number": ({"net": {}, "optimizer": 3}, "optimizer: is no state dict"),
}


@pytest.mark.parametrize("case", PARTS)
def test_a_checkpoint_of_other_parts_is_refused(folder: Path, case: str) -> None:
    held, message = PARTS[case]
    save(folder / "model_step_2", held)
    with pytest.raises(MalformedBundle, match=message) as raised:
        list(read_released(folder, samples=SAMPLES).checkpoints(LIMIT))
    assert "model_step_2" in raised.value.where


# The scheduler and the hash.


def with_scheduler(state: dict[Any, Any] | None) -> Checkpoint:
    return Checkpoint(path=Path("model_step_4"), step=4, net={}, optimizer=None, scheduler=state)


def test_milestones_within_an_interval_are_those_of_torch() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.3)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 5, 5, 9], gamma=0.3)
    rates, states = [], []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        states.append(dict(scheduler.state_dict()))
        optimizer.step()
        scheduler.step()
    for first in range(12):
        steps = 12 - first
        rate, factors = rates[first], rates_within(with_scheduler(states[first]), steps)
        assert factors is not None
        for ahead in range(steps):
            rate *= factors.get(ahead, 1.0)
            assert rate == rates[first + ahead]


def test_other_schedulers_and_none_are_told_apart() -> None:
    assert rates_within(with_scheduler(None), 5) == {}
    assert rates_within(with_scheduler({"T_max": 3, "last_epoch": 4}), 5) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"gamma": "0.1"},
        {"last_epoch": 1.5},
        {"milestones": [3]},
        {"milestones": Counter({5: 1, "6": 1})},
        {"gamma": 1e300, "milestones": {5: 400}},
    ],
)
def test_a_scheduler_of_other_types_is_refused(wrong: dict[str, Any]) -> None:
    state = {"milestones": Counter([5]), "gamma": 0.1, "last_epoch": 4, **wrong}
    with pytest.raises(MalformedBundle) as raised:
        rates_within(with_scheduler(state), 5)
    assert raised.value.where.startswith("model_step_4: scheduler: ")


def test_the_hash_covers_no_label_and_few_values_of_a_large_array(tmp_path: Path) -> None:
    """SHA-256 over `str` of each element, as the released code has it."""
    generator = np.random.default_rng(0)

    class Photos:
        data = generator.integers(0, 256, size=(3, 32, 32, 3), dtype=np.uint8)
        targets = (0, 1, 2)

    assert "is not there" in hash_note(tmp_path, Photos)
    (tmp_path / "hash.txt").write_text("0" * 64)
    assert "differs" in hash_note(tmp_path, Photos)
    (tmp_path / "hash.txt").write_text(hashlib.sha256("".join(map(str, Photos.data)).encode()).hexdigest())
    assert "matches" in hash_note(tmp_path, Photos)
    seen = np.zeros((32, 32, 3), dtype=bool)
    corners = np.r_[0:3, 29:32]
    seen[np.ix_(corners, corners)] = True
    assert seen.sum() == 108
    Photos.data = np.where(seen, Photos.data, 0).astype(np.uint8)
    Photos.targets = (9, 9, 9)
    assert "matches" in hash_note(tmp_path, Photos)
    Photos.data[0, 0, 0, 0] ^= 1
    assert "differs" in hash_note(tmp_path, Photos)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"0" * 5000])
def test_a_hash_that_is_none_cannot_be_compared_and_is_no_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "hash.txt").write_bytes(content)
    assert "cannot be compared" in hash_note(tmp_path, torch.utils.data.TensorDataset(torch.zeros(2)))


def test_a_data_set_without_an_array_cannot_be_compared(tmp_path: Path) -> None:
    (tmp_path / "hash.txt").write_text("0" * 64)
    assert "cannot be compared: the data set" in hash_note(tmp_path, [1, 2])
