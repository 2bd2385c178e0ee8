"""The recorder on real data: what it records, and what it refuses."""

from __future__ import annotations

import hashlib
import io
import itertools
import random
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SubsetRandomSampler,
    TensorDataset,
)

from gradseal.errors import CaptureError, KeyFileError, RecordError, RecordWarning, StoreError
from gradseal.program.initialise import initialise
from gradseal.program.program import Program
from gradseal.program.sources import Given, Initialisation
from gradseal.proof.bundle import Bundle, open_bundle
from gradseal.proof.entries import (
    MAX_LOSSES_BYTES,
    Close,
    Entry,
    Initial,
    Segment,
    decode_losses,
    entry_from_bytes,
    seal_of,
    state_root,
)
from gradseal.proof.files import read_blob, read_opening
from gradseal.proof.manifest import DeclaredSeed, Manifest
from gradseal.proof.note import SigningKey
from gradseal.record.keys import load_signer
from gradseal.record.progress import Progress
from gradseal.record.recorder import record
from gradseal.record.run import Run
from gradseal.store.files import FsspecFiles

KEY = SigningKey(name="example.com/owner", seed=bytes(32))
SAMPLES, BATCH = 40, 16  # batches of 16, 16 and 8

Step = Callable[..., torch.Tensor]


@pytest.fixture(autouse=True)
def threads_restored() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def digits() -> TensorDataset:
    images, classes = load_digits(return_X_y=True)
    return TensorDataset(
        torch.tensor(images[:SAMPLES] / 16, dtype=torch.float32), torch.tensor(classes[:SAMPLES])
    )


def build(*layers: Callable[[], nn.Module]) -> Any:  # layers and their tensors have no static types
    with initialise():
        return nn.Sequential(*(layer() for layer in layers))


def small() -> Any:
    return build(lambda: nn.Linear(64, 10))


def normed() -> Any:
    return build(
        lambda: nn.Linear(64, 12),
        lambda: nn.BatchNorm1d(12),
        nn.ReLU,
        lambda: nn.Dropout(0.3),
        lambda: nn.Linear(12, 10),
    )


def mean_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    x, y = batch
    return cross_entropy(model(x), y)


def sgd(model: nn.Module, lr: float = 0.1, momentum: float = 0.9) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def start(path: Path, data: Any, model: nn.Module | None = None, **options: Any) -> Run:
    model = small() if model is None else model
    defaults: dict[str, Any] = {
        "optimizer": None,
        "loss": mean_loss,
        "batch_size": BATCH,
        "steps": 5,
        "every": 2,
        "key": KEY,
        "seed": 7,
        "progress": False,
    }
    options = {**defaults, **options}
    optimizer = options.pop("optimizer") or sgd(model)
    return record(path / "bundle", model, optimizer, data=data, **options)


def own_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    def step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = mean_loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer.step()
        return loss

    return step


def recorded(path: Path) -> tuple[Bundle, Manifest, list[Entry]]:
    """The bundle, once its log is checked; its manifest; its other entries."""
    bundle = open_bundle(FsspecFiles(str(path / "bundle")))
    raw = bundle.all_entries()
    bundle.check_log(raw)
    assert bundle.note.verified_by(KEY.verification_key)
    manifest = Manifest.decode(raw[0])
    assert bundle.checkpoint.origin == manifest.origin
    return bundle, manifest, [entry_from_bytes(data, where="entry") for data in raw[1:]]


def is_closed(path: Path) -> bool:
    return isinstance(recorded(path)[2][-1], Close)


def program_of(bundle: Bundle, manifest: Manifest) -> Program:
    return Program.decode(read_blob(bundle.files, manifest.program, 1 << 26), where="program")


def test_a_run_is_recorded_whole(tmp_path: Path, digits: TensorDataset) -> None:
    model = normed()
    losses = []
    with start(tmp_path, digits, model) as run:
        for batch in run:
            losses.append(float(run.step(batch)))
    bundle, manifest, entries = recorded(tmp_path)
    initial, *segments, close = entries
    assert isinstance(initial, Initial)
    assert isinstance(close, Close)
    assert close.segments == 3
    assert [(s.index, s.first_step, s.steps) for s in segments if isinstance(s, Segment)] == [
        (0, 0, 2),
        (1, 2, 2),
        (2, 4, 1),
    ]
    layout = program_of(bundle, manifest).layout
    sealed: list[float] = []
    for entry in (initial, *segments):
        assert isinstance(entry, Initial | Segment)
        digests = read_opening(bundle.files, entry.seal, len(layout))
        assert seal_of(manifest.owner, state_root(digests)) == entry.seal
        for spec, digest in zip(layout, digests, strict=True):
            assert len(read_blob(bundle.files, digest, 1 << 20)) == spec.size_bytes
        if isinstance(entry, Segment):
            data = read_blob(bundle.files, entry.losses, MAX_LOSSES_BYTES)
            sealed += decode_losses(data, entry.steps, where="losses")
    assert sealed == losses
    weights = bundle.files.read("weights.safetensors", 1 << 20)
    assert hashlib.sha256(weights).digest() == close.weights
    released = safetensors.torch.load(weights)
    assert released.keys() == model.state_dict().keys()
    assert all(torch.equal(released[name], tensor) for name, tensor in model.state_dict().items())


def test_equal_keys_and_seeds_give_equal_bundles_however_the_steps_are_made(
    tmp_path: Path, digits: TensorDataset
) -> None:
    checkpoints = []
    for number, wrapped in enumerate((False, False, True)):
        torch.manual_seed(number)  # what a rule fills does not depend on the generator's state
        model = normed()
        optimizer = sgd(model)
        folder = tmp_path / str(number)
        with start(folder, digits, model, optimizer=optimizer, every=1) as run:
            step = run.wrap(own_step(model, optimizer)) if wrapped else run.step
            for batch in run:
                step(batch)
        assert is_closed(folder)
        checkpoints.append((folder / "bundle" / "checkpoint").read_bytes())
    assert len(set(checkpoints)) == 1


def test_another_seed_gives_another_run(tmp_path: Path, digits: TensorDataset) -> None:
    for seed in (b"\0" * 32, None):
        folder = tmp_path / str(seed is None)
        with start(folder, digits, seed=seed, steps=1) as run:
            for batch in run:
                run.step(batch)
    first, second = (recorded(tmp_path / name)[1].plan.seed for name in ("False", "True"))
    assert first == DeclaredSeed(value=bytes(32)) != second


@pytest.mark.parametrize("seed", [-1, 1 << 256, True, b"short", "text", 1.5])
def test_a_seed_that_is_none(tmp_path: Path, digits: TensorDataset, seed: object) -> None:
    with pytest.raises(RecordError, match="seed"):
        start(tmp_path, digits, seed=seed)


def test_plain_optimizers_nesterov_and_weight_decay(tmp_path: Path, digits: TensorDataset) -> None:
    kinds: list[dict[str, Any]] = [
        {"lr": 0.1},
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01},
    ]
    for number, options in enumerate(kinds):
        model = small()
        optimizer = torch.optim.SGD(model.parameters(), **options)
        with start(tmp_path / str(number), digits, model, optimizer=optimizer, every=1) as run:
            step = run.wrap(own_step(model, optimizer))
            for batch in run:
                step(batch)
        assert is_closed(tmp_path / str(number))


class Wrong:
    """Steps of one's own, each wrong in one way."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer

    def _train(
        self,
        batch: Any,
        *,
        zero: bool = True,
        scale: float = 1.0,
        clip: float | None = None,
        smoothing: float = 0.0,
    ) -> torch.Tensor:
        if zero:
            self.optimizer.zero_grad()
        x, y = batch
        loss = cross_entropy(self.model(x), y, label_smoothing=smoothing)
        (loss * scale).backward()  # type: ignore[no-untyped-call]  # torch does not type it
        if clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip)
        self.optimizer.step()
        return loss

    def forgets_to_zero(self, batch: Any) -> torch.Tensor:
        return self._train(batch, zero=False)

    def clips(self, batch: Any) -> torch.Tensor:
        return self._train(batch, clip=1e-3)

    def scales(self, batch: Any) -> torch.Tensor:
        return self._train(batch, scale=2.0)

    def smooths(self, batch: Any) -> torch.Tensor:
        return self._train(batch, smoothing=0.1)

    def steps_twice(self, batch: Any) -> torch.Tensor:
        self._train(batch)
        return self._train(batch)

    def does_nothing(self, batch: Any) -> torch.Tensor:
        return mean_loss(self.model, batch)

    def lowers_the_rate(self, batch: Any) -> torch.Tensor:
        for group in self.optimizer.param_groups:
            group["lr"] = 0.01
        loss = self._train(batch)
        for group in self.optimizer.param_groups:
            group["lr"] = 0.1
        return loss

    def changes_the_batch(self, batch: Any) -> torch.Tensor:
        batch[0].mul_(0.5)
        return self._train(batch)

    def returns_a_number(self, batch: Any) -> Any:
        return float(self._train(batch).detach())

    def breaks(self, batch: Any) -> torch.Tensor:
        self._train(batch)
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("forgets_to_zero", r"parameters/0\.weight.* differ, by up to"),
        ("clips", r"parameters/0\.weight.* differ, by up to"),
        ("scales", r"parameters/0\.weight.* differ, by up to"),
        ("lowers_the_rate", r"parameters/0\.weight.* differ, by up to"),
        ("does_nothing", r"parameters/0\.weight.* differ, by up to"),
        ("smooths", "the step's loss is .*, the captured program's"),
        ("steps_twice", "the step's loss is .*, the captured program's"),
        ("changes_the_batch", "the step's loss is .*, the captured program's"),
        ("returns_a_number", "must return its loss"),
    ],
)
def test_a_wrapped_step_that_is_not_the_captured_one(
    tmp_path: Path, digits: TensorDataset, name: str, message: str
) -> None:
    model = small()
    optimizer = sgd(model)
    with (
        pytest.raises(RecordError, match=message) as caught,
        start(tmp_path, digits, model, optimizer=optimizer, every=1) as run,
    ):
        step = run.wrap(getattr(Wrong(model, optimizer), name))
        for batch in run:
            step(batch)
    assert caught.value.where.startswith("step ")
    assert not is_closed(tmp_path)


def test_one_step_of_each_segment_is_checked(tmp_path: Path, digits: TensorDataset) -> None:
    model = small()
    optimizer = sgd(model)
    with (
        pytest.raises(RecordError, match="differ"),
        start(tmp_path, digits, model, optimizer=optimizer, steps=8, every=4) as run,
    ):
        step = run.wrap(Wrong(model, optimizer).scales)
        for batch in run:
            step(batch)
    assert run._step < 4


def test_nothing_is_recorded_after_an_error_that_was_swallowed(tmp_path: Path, digits: TensorDataset) -> None:
    model = small()
    optimizer = sgd(model)
    with (
        pytest.raises(RecordError, match="the recording was stopped"),
        start(tmp_path, digits, model, optimizer=optimizer, steps=1) as run,
    ):
        step = run.wrap(Wrong(model, optimizer).breaks)
        batch = next(iter(run))
        with pytest.raises(ZeroDivisionError):
            step(batch)
        with pytest.raises(RecordError, match="the recording was stopped"):
            run.step(batch)
    assert not is_closed(tmp_path)


def test_a_segment_that_could_not_be_stored_is_never_closed_over(
    tmp_path: Path, digits: TensorDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        pytest.raises(RecordError, match="stays unfinished"),
        start(tmp_path, digits, steps=1) as run,
    ):
        batch = next(iter(run))
        with monkeypatch.context() as patch:
            patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
            with pytest.raises(StoreError, match="disk full"):
                run.step(batch)
    assert not is_closed(tmp_path)


def test_a_changed_batch_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    with (
        pytest.raises(RecordError, match="the batch was changed"),
        start(tmp_path, digits) as run,
    ):
        for batch in run:
            batch[0].add_(1)
            run.step(batch)


def test_parts_of_a_batch_put_in_its_place_are_refused(tmp_path: Path) -> None:
    data = [{"x": torch.ones(64) * i, "y": i % 10} for i in range(SAMPLES)]

    def loss(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return cross_entropy(model(batch["x"]), batch["y"])

    changes: list[Callable[[Any], object]] = [
        lambda b: b.update(x=3),
        lambda b: b.pop("x"),
        lambda b: b.update(x=b["x"].double()),
        lambda b: b.update(x=-b["x"]),
    ]
    for number, change in enumerate(changes):
        with (
            pytest.raises(RecordError, match="the batch was changed"),
            start(tmp_path / str(number), data, loss=loss) as run,
        ):
            for batch in run:
                change(batch)
                run.step(batch)


def test_a_batch_of_ones_own_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    others: list[Callable[[Any], object]] = [lambda b: tuple(t.clone() for t in b), lambda _: None]
    for number, other in enumerate(others):
        with (
            pytest.raises(RecordError, match="not the one that the run gave"),
            start(tmp_path / str(number), digits) as run,
        ):
            for batch in run:
                run.step(other(batch))


def test_a_batch_is_trained_on_once(tmp_path: Path, digits: TensorDataset) -> None:
    with (
        pytest.raises(RecordError, match="not the one that the run gave"),
        start(tmp_path, digits) as run,
    ):
        for batch in run:
            run.step(batch)
            run.step(batch)


def test_nothing_is_no_batch(tmp_path: Path, digits: TensorDataset) -> None:
    with pytest.raises(RecordError, match="not the one that the run gave"), start(tmp_path, digits) as run:
        run.step(None)


def test_a_skipped_batch_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    with (
        pytest.raises(RecordError, match="a batch was taken and not trained on"),
        start(tmp_path, digits) as run,
    ):
        for _ in run:
            continue


def test_more_steps_than_planned_are_refused(tmp_path: Path, digits: TensorDataset) -> None:
    with (
        pytest.raises(RecordError, match="all 5 steps are done"),
        start(tmp_path, digits) as run,
    ):
        for batch in run:
            run.step(batch)
        run.step(batch)
    assert not is_closed(tmp_path)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m, o: m[0].weight.data.mul_(1.01), "parameters/0.weight"),
        (lambda m, o: m[1].running_mean.add_(1), "buffers/1.running_mean"),
        (lambda m, o: m(torch.ones(4, 64)), "buffers/1.running_mean"),
        (lambda m, o: o.state[m[0].weight]["momentum_buffer"].zero_(), "optimizer/0.weight/momentum_buffer"),
        (lambda m, o: m.load_state_dict(normed().state_dict()), "parameters/0.weight"),
    ],
)
def test_state_changed_between_steps_is_refused_by_name(
    tmp_path: Path, digits: TensorDataset, change: Callable[[Any, Any], object], named: str, wrapped: bool
) -> None:
    model = normed()
    optimizer = sgd(model)
    with (
        pytest.raises(RecordError, match=f"something changed .*{named}"),
        start(tmp_path, digits, model, optimizer=optimizer) as run,
    ):
        step = run.wrap(own_step(model, optimizer)) if wrapped else run.step
        for batch in run:
            step(batch)
            change(model, optimizer)
    assert not is_closed(tmp_path)


def test_state_changed_after_the_last_step_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    model = small()
    with (
        pytest.raises(RecordError, match=r"something changed parameters/0\.bias"),
        start(tmp_path, digits, model) as run,
    ):
        for batch in run:
            run.step(batch)
        model[0].bias.data.zero_()
    assert not is_closed(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: setattr(m[0], "weight", nn.Parameter(m[0].weight.detach().clone())),
            "parameter was replaced",
        ),
        (lambda m: m.register_parameter("more", nn.Parameter(torch.ones(1))), "parameter was replaced"),
        (lambda m: m.register_buffer("more", torch.ones(1)), "a buffer came or went"),
        (lambda m: m.double(), "."),
    ],
)
def test_a_model_changed_in_its_parts_is_refused(
    tmp_path: Path, digits: TensorDataset, change: Callable[[Any], object], message: str
) -> None:
    model = small()
    with pytest.raises(RecordError, match=message), start(tmp_path, digits, model) as run:
        for batch in run:
            run.step(batch)
            change(model)
    assert not is_closed(tmp_path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_evaluation_between_steps_is_free(tmp_path: Path, digits: TensorDataset, wrapped: bool) -> None:
    checkpoints = []
    for evaluated in (False, True):
        model = normed()
        optimizer = sgd(model)
        folder = tmp_path / str(evaluated)
        with start(folder, digits, model, optimizer=optimizer, every=1) as run:
            step = run.wrap(own_step(model, optimizer)) if wrapped else run.step
            for batch in run:
                step(batch)
                if evaluated:
                    model.eval()
                    with torch.no_grad():
                        model(digits.tensors[0] + torch.randn(SAMPLES, 64))
                    model.train()
        checkpoints.append((folder / "bundle" / "checkpoint").read_bytes())
    assert checkpoints[0] == checkpoints[1]


def test_other_training_flags_are_refused(tmp_path: Path, digits: TensorDataset) -> None:
    model = normed()
    optimizer = sgd(model)
    with (
        pytest.raises(RecordError, match=r"model\.1 is in evaluation mode"),
        start(tmp_path, digits, model, optimizer=optimizer) as run,
    ):
        step = run.wrap(own_step(model, optimizer))
        model[1].eval()
        for batch in run:
            step(batch)


def test_a_model_in_evaluation_mode_is_recorded_so(tmp_path: Path, digits: TensorDataset) -> None:
    model = normed().eval()
    before = model[1].running_mean.clone()
    with start(tmp_path, digits, model) as run:
        for batch in run:
            run.step(batch)
    assert is_closed(tmp_path)
    assert torch.equal(model[1].running_mean, before)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m, o: o.param_groups[0].update(lr=0.05), r"param_groups\[0\]\.lr .*0\.1 became 0\.05"),
        (lambda m, o: o.param_groups[0].update(momentum=0.5), r"param_groups\[0\]\.momentum"),
        (lambda m, o: o.param_groups[0]["params"].pop(), r"param_groups\[0\]\.params"),
        (lambda m, o: m[0].bias.requires_grad_(False), r"model\.0\.bias\.requires_grad"),
    ],
)
def test_changed_settings_are_refused_by_name(
    tmp_path: Path, digits: TensorDataset, change: Callable[[Any, Any], object], named: str, wrapped: bool
) -> None:
    model = small()
    optimizer = sgd(model)
    with (
        pytest.raises(RecordError, match=named),
        start(tmp_path, digits, model, optimizer=optimizer) as run,
    ):
        step = run.wrap(own_step(model, optimizer)) if wrapped else run.step
        for batch in run:
            step(batch)
            change(model, optimizer)
    assert not is_closed(tmp_path)


@pytest.mark.parametrize("wrapped", [False, True])
def test_random_generators_are_left_as_they_were(
    tmp_path: Path, digits: TensorDataset, wrapped: bool
) -> None:
    def generators() -> list[bytes]:
        numpy_state: Any = np.random.get_state()
        return [
            torch.get_rng_state().numpy().tobytes(),
            repr(random.getstate()).encode(),
            numpy_state[1].tobytes() + bytes([numpy_state[2] % 256]),
        ]

    model = normed()
    optimizer = sgd(model)
    before = generators()
    with start(tmp_path, digits, model, optimizer=optimizer) as run:
        assert generators() == before
        step = run.wrap(own_step(model, optimizer)) if wrapped else run.step
        for batch in run:
            step(batch)
            assert generators() == before


def test_changed_threads_are_refused(tmp_path: Path, digits: TensorDataset) -> None:
    with (
        pytest.raises(RecordError, match="threads from 1 to 2"),
        start(tmp_path, digits, steps=2) as run,
    ):
        for batch in run:
            torch.set_num_threads(2)
            run.step(batch)
    assert not is_closed(tmp_path)


def test_a_caller_under_autocast_changes_nothing(tmp_path: Path, digits: TensorDataset) -> None:
    for number in range(2):
        with start(tmp_path / str(number), digits) as run:
            for batch in run:
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(number)):
                    run.step(batch)
    first, second = ((tmp_path / str(n) / "bundle" / "checkpoint").read_bytes() for n in range(2))
    assert first == second


def test_an_output_that_exists_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    (tmp_path / "bundle").mkdir()
    start(tmp_path, digits)  # an empty directory will do
    with pytest.raises(RecordError, match="already exists") as caught:
        start(tmp_path, digits)
    assert caught.value.where == str(tmp_path / "bundle")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "bundle").write_text("a file")
    with pytest.raises(RecordError, match="already exists"):
        start(tmp_path / "file", digits)


def test_nothing_is_written_where_the_model_cannot_be_captured(tmp_path: Path, digits: TensorDataset) -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        value = mean_loss(model, batch)
        return value if value > 1 else value * 2

    with pytest.raises(CaptureError):
        start(tmp_path, digits, loss=loss)
    assert not (tmp_path / "bundle").exists()


def test_keys(tmp_path: Path, digits: TensorDataset) -> None:
    file = tmp_path / "owner.key"
    file.write_text(KEY.encode() + "\n")
    assert load_signer(file) == load_signer(str(file)) == load_signer(KEY) == KEY
    secret = KEY.encode()
    for bad in (tmp_path / "none.key", tmp_path, "a\0b"):
        with pytest.raises(KeyFileError, match="no signing key can be read"):
            start(tmp_path, digits, key=bad)
    for content in (b"", b"\xff\xfe", b"not a key", str(KEY.verification_key).encode(), secret[:-1].encode()):
        file.write_bytes(content)
        with pytest.raises(KeyFileError) as caught:
            start(tmp_path, digits, key=file)
        assert caught.value.where == str(file)
    with pytest.raises(KeyFileError) as caught:
        start(tmp_path, digits, key=secret)
    assert secret not in caught.value.diagnostics()
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"batch_size": SAMPLES + 1}, "batch_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"steps": 0}, "steps"),
        ({"steps": 2.0}, "steps"),
        ({"steps": 1 << 41}, "steps"),
        ({"steps": 1 << 30, "every": 1}, "every"),
        ({"every": True}, "every"),
        ({"every": 1 << 21}, "every"),
    ],
)
def test_a_plan_that_cannot_be(
    tmp_path: Path, digits: TensorDataset, options: dict[str, Any], where: str
) -> None:
    with pytest.raises(CaptureError) as caught:
        start(tmp_path, digits, **options)
    assert caught.value.where == where


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.ones(4, 3))


class NoLength(Dataset[torch.Tensor]):
    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.ones(3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "the data set is empty"),
        (TensorDataset(torch.ones(0, 3)), "the data set is empty"),
        (Stream(), "one after another"),
        (DataLoader(Stream()), "one after another"),
        (iter([1]), "one after another"),
        (NoLength(), "no length"),
        (DataLoader(TensorDataset(torch.ones(4, 3)), collate_fn=lambda items: items), "collate_fn"),
        ([("a text", 1)], "a str, not a tensor or a number"),
        ([(torch.ones(3), 1), (torch.ones(4), 1)], r"of shape \(4,\), but the first sample has"),
        ([(torch.ones(3), 1), (torch.ones(3),)], "a sample unlike the first"),
        ([(torch.ones(3), 1), (torch.ones(3), 1.5)], "but the first sample has int64"),
        ([((),)], "holds no numbers"),
        ([torch.ones(3).to_sparse()], "a sparse tensor"),
    ],
)
def test_data_that_cannot_be_recorded(tmp_path: Path, data: Any, message: str) -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return model(torch.ones(64)).sum()  # type: ignore[no-any-return]  # a module returns Any

    with pytest.raises(CaptureError, match=message) as caught:
        start(tmp_path, data, loss=loss, batch_size=2 if isinstance(data, list) and len(data) == 2 else 1)
    assert caught.value.where.startswith("data")
    assert "at 0x" not in caught.value.diagnostics()


def test_a_loader_stands_for_its_data_set(tmp_path: Path, digits: TensorDataset) -> None:
    with start(tmp_path, DataLoader(digits, batch_size=BATCH, shuffle=True)) as run:
        sizes = [len(batch[0]) for batch in run if run.step(batch) is not None]
    assert sizes == [16, 16, 8, 16, 16]


@pytest.mark.parametrize(
    ("options", "where", "message"),
    [
        ({"batch_size": 3, "shuffle": True}, "batch_size", "batch_size=3, .* given batch_size=16"),
        ({"batch_size": BATCH}, "shuffle", "shuffle=False, .* given shuffle=True"),
        ({"batch_size": BATCH, "shuffle": True, "drop_last": True}, "drop_last", "drop_last=True"),
        ({"batch_size": BATCH, "sampler": SubsetRandomSampler([0, 1])}, "data", "a sampler of one's own"),
    ],
)
def test_a_loader_that_makes_other_batches_is_refused(
    tmp_path: Path, digits: TensorDataset, options: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(CaptureError, match=message) as caught:
        start(tmp_path, DataLoader(digits, **options))
    assert caught.value.where == where


def test_random_transforms_are_refused_by_sample(tmp_path: Path, digits: TensorDataset) -> None:
    counter = itertools.count()

    class Noisy(Dataset[Any]):
        def __len__(self) -> int:
            return SAMPLES

        def __getitem__(self, index: int) -> Any:
            x, y = digits[index]
            return (x + next(counter) if index == 3 else x), y

    with (
        pytest.raises(RecordError, match="not the one that was committed") as caught,
        start(tmp_path, Noisy(), batch_size=SAMPLES, shuffle=False) as run,
    ):
        next(iter(run))
    assert caught.value.where == "data[3]"


def test_order_and_dropped_rest(tmp_path: Path, digits: TensorDataset) -> None:
    with start(tmp_path / "a", digits, shuffle=False) as run:
        seen = []
        for batch in run:
            seen.append(batch[0])
            run.step(batch)
    assert torch.equal(torch.cat(seen[:3]), digits.tensors[0])
    with start(tmp_path / "b", digits, drop_last=True) as run:
        sizes = []
        for batch in run:
            sizes.append(len(batch[0]))
            run.step(batch)
    assert sizes == [16] * 5
    assert recorded(tmp_path / "b")[1].plan.drop_last


def test_a_loss_that_is_nan_is_recorded_as_it_is(tmp_path: Path, digits: TensorDataset) -> None:
    model = small()
    optimizer = sgd(model, lr=1e38)
    with start(tmp_path, digits, model, optimizer=optimizer, every=5) as run:
        step = run.wrap(own_step(model, optimizer))
        for batch in run:
            step(batch)
    bundle, _, entries = recorded(tmp_path)
    segment = entries[1]
    assert isinstance(segment, Segment)
    assert isinstance(entries[-1], Close)
    losses = decode_losses(read_blob(bundle.files, segment.losses, MAX_LOSSES_BYTES), 5, where="losses")
    assert isnan(losses[-1])
    assert not isnan(losses[0])


def test_leaving_early_leaves_no_close(tmp_path: Path, digits: TensorDataset) -> None:
    with (
        pytest.raises(RecordError, match="ended after 2 of 5 steps"),
        start(tmp_path, digits) as run,
    ):
        for batch in run:
            run.step(batch)
            if run._step == 2:
                break
    assert [type(entry) for entry in recorded(tmp_path)[2]] == [Initial, Segment]


def test_an_exception_in_the_body_leaves_no_close(tmp_path: Path, digits: TensorDataset) -> None:
    with pytest.raises(KeyboardInterrupt), start(tmp_path, digits, steps=2) as run:
        for batch in run:
            run.step(batch)
        raise KeyboardInterrupt
    assert not is_closed(tmp_path)


def both_ways(
    path: Path, data: Any, make: Callable[[], tuple[nn.Module, torch.optim.Optimizer]]
) -> tuple[Bundle, Manifest]:
    """Records by `step` and by `wrap`, every step checked; the bundles must be the same."""
    for way in ("step", "wrap"):
        model, optimizer = make()
        with start(path / way, data, model, optimizer=optimizer, every=1) as run:
            step = run.wrap(own_step(model, optimizer)) if way == "wrap" else run.step
            for batch in run:
                step(batch)
    first, second = ((path / way / "bundle" / "checkpoint").read_bytes() for way in ("step", "wrap"))
    assert first == second
    bundle, manifest, entries = recorded(path / "step")
    assert isinstance(entries[-1], Close)
    return bundle, manifest


def test_frozen_and_unused_parameters(tmp_path: Path, digits: TensorDataset) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(64, 10)
            self.unused = nn.Linear(3, 3)
            self.used.bias.requires_grad_(False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.used(x)
            return y

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        with initialise():
            model = Net()
        return model, sgd(model)

    bundle, manifest = both_ways(tmp_path, digits, make)
    program = program_of(bundle, manifest)
    assert tuple(program.optimizer.parameters()) == ("used.weight", "unused.weight", "unused.bias")
    assert "parameters/used.bias" in {spec.name for spec in program.layout}


def test_tied_weights(tmp_path: Path, digits: TensorDataset) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(64, 64)
            self.second = nn.Linear(64, 64)
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.second(self.first(x).relu())
            return y

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        with initialise():
            model = Tied()
        return model, sgd(model)

    bundle, _ = both_ways(tmp_path, digits, make)
    released = safetensors.torch.load(bundle.files.read("weights.safetensors", 1 << 20))
    assert torch.equal(released["first.weight"], released["second.weight"])


def test_momentum_from_before_is_the_runs_own(tmp_path: Path, digits: TensorDataset) -> None:
    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(3)
        model = nn.Sequential(nn.Linear(64, 10))
        optimizer = sgd(model)
        own_step(model, optimizer)(digits[:8])
        return model, optimizer

    bundle, manifest = both_ways(tmp_path, digits, make)
    program = program_of(bundle, manifest)
    assert program.optimizer.steps_before == 1
    sources = Initialisation.decode(
        read_blob(bundle.files, manifest.initialisation, 1 << 20),
        program.layout,
        program.constants,
        where="initialisation",
    )
    assert all(isinstance(source, Given) for source in sources.state)


def test_a_constant_with_a_rule_is_filled_from_the_seed(tmp_path: Path, digits: TensorDataset) -> None:
    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)
            self.noise = torch.empty(64).uniform_()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.linear(x + self.noise)
            return y

    def make() -> tuple[nn.Module, torch.optim.Optimizer]:
        with initialise():
            model = Noise()
        return model, sgd(model)

    bundle, manifest = both_ways(tmp_path, digits, make)
    program = program_of(bundle, manifest)
    assert [spec.shape for spec in program.constants] == [(64,)]


def test_tensors_that_share_memory_are_refused(tmp_path: Path, digits: TensorDataset) -> None:
    model = small()
    model.register_buffer("view", model[0].weight.detach()[2:])
    with pytest.raises(CaptureError, match="shares memory with") as caught:
        start(tmp_path, digits, model)
    assert caught.value.where in {"buffers/view", "parameters/0.weight"}


def test_a_forward_pass_that_the_graph_does_not_tell_all_of_is_refused(
    tmp_path: Path, digits: TensorDataset
) -> None:
    class Sneaky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 10)
            self.factor = torch.ones(1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if type(x) is torch.Tensor:  # not while it is traced
                self.factor.mul_(2)
            y: torch.Tensor = self.linear(x) * self.factor
            return y

    with initialise():
        model = Sneaky()
    with pytest.raises(RecordError, match="the captured program and the model itself differ in loss"):
        start(tmp_path, digits, model)


def test_progress_is_shown_when_asked_for_and_not_off_a_terminal(
    tmp_path: Path, digits: TensorDataset
) -> None:
    shown = {}
    for wanted in (True, None):
        with (
            redirect_stderr(io.StringIO()) as output,
            start(tmp_path / str(wanted), digits, progress=wanted) as run,
        ):
            for batch in run:
                run.step(batch)
        shown[wanted] = output.getvalue()
    assert "committing to the data" in shown[True]
    assert "40/40" in shown[True]
    assert "training" in shown[True]
    assert "5/5" in shown[True]
    assert not shown[None]


def test_progress_ends_after_an_error() -> None:
    with redirect_stderr(io.StringIO()):
        progress = Progress(True)
        progress.committed(1, 2)
        progress.end()
        progress.end()


def test_a_tensor_outside_the_model_that_changes_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    teacher = torch.zeros(1)

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return mean_loss(model, batch) + teacher.sum()

    with pytest.raises(RecordError, match="no part of the model"), start(tmp_path, digits, loss=loss) as run:
        for batch in run:
            run.step(batch)
            teacher.add_(1)


def test_a_running_average_that_is_no_buffer_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    class Average(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = small()
            self.seen = torch.zeros(())

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = self.inner(images)
            self.seen = 0.9 * self.seen + 0.1 * scores.mean().detach()
            return scores - self.seen

    model = Average()
    with pytest.raises(CaptureError, match="no buffer") as caught:
        start(tmp_path, digits, model)
    assert caught.value.where == "model.seen"
    assert type(model.seen) is torch.Tensor, "no stand-in is left behind"


def test_hooks_that_only_the_users_loop_runs_are_refused(tmp_path: Path, digits: TensorDataset) -> None:
    model = small()
    optimizer = sgd(model)
    optimizer.register_step_post_hook(lambda *_: None)
    with pytest.raises(CaptureError, match="hooks on its step"):
        start(tmp_path, digits, model, optimizer=optimizer)
    model = small()
    next(model.parameters()).register_post_accumulate_grad_hook(lambda _: None)
    with pytest.raises(CaptureError, match="accumulated gradient"):
        start(tmp_path, digits, model)


def test_a_sampler_with_replacement_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    sampler = RandomSampler(digits, replacement=True)
    with pytest.raises(CaptureError, match="a sampler of one's own"):
        start(tmp_path, DataLoader(digits, batch_size=BATCH, sampler=sampler))


def test_a_run_that_is_not_entered_gives_no_batch(tmp_path: Path, digits: TensorDataset) -> None:
    run = start(tmp_path, digits)
    with pytest.raises(RecordError, match="was not entered"):
        next(iter(run))


def test_given_weights_and_evaluation_mode_are_warned_of(tmp_path: Path, digits: TensorDataset) -> None:
    with pytest.warns(RecordWarning, match=r"gradseal\.initialise"):
        start(tmp_path, digits, nn.Linear(64, 10))
    model = small()
    model.eval()
    with pytest.warns(RecordWarning, match="evaluation mode"):
        start(tmp_path / "again", digits, model)


def test_a_failure_before_the_first_step_leaves_nothing(tmp_path: Path) -> None:
    doubles = TensorDataset(torch.ones(40, 64, dtype=torch.float64), torch.zeros(40, dtype=torch.int64))
    for _ in range(2):
        with pytest.raises(CaptureError, match="cannot be run") as caught:
            start(tmp_path, doubles)
        assert "field 0" in caught.value.advice
        assert ".float()" in "".join(caught.value.__notes__)


def test_another_default_type_is_refused(tmp_path: Path, digits: TensorDataset) -> None:
    model = small()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(CaptureError, match="default element type"):
            start(tmp_path, digits, model)
    finally:
        torch.set_default_dtype(torch.float32)
