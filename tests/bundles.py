"""Small real runs, recorded quickly, and what an owner can forge out of them by sealing all again.

Ten classes of scikit-learn's digits; 40 samples in batches of 16, 16 and 8, so that a last partial batch is
always there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from gradseal.attacks.tampering import Opened, copy_bundle
from gradseal.precede.log import read_log
from gradseal.program.fills import fill
from gradseal.program.graph import Argument, Graph, Node, Ref
from gradseal.program.initialise import initialise
from gradseal.program.program import Program
from gradseal.program.seeds import Seeds
from gradseal.program.sources import Given, Initialisation
from gradseal.proof.entries import Close, Initial, Segment
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import SigningKey
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.recipes.digits import Net
from gradseal.record.recorder import record
from gradseal.record.run import Run
from gradseal.verify.contents import read_contents
from gradseal.verify.executors import Ready, Request
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import Check, Finding, Result, Verdict
from gradseal.verify.verifier import verify

KEY = SigningKey(name="owner.example", seed=bytes(32))
OTHER_KEY = SigningKey(name="owner.example", seed=bytes([1]) * 32)
SAMPLES, BATCH = 40, 16

Build = Callable[[], nn.Module]


@lru_cache
def digits(samples: int = SAMPLES) -> TensorDataset:
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels[:samples] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    return TensorDataset(images, torch.tensor(classes[:samples]))


def known(seeds: Seeds | None) -> Seeds:
    assert seeds is not None
    return seeds


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


class Twice(nn.Module):
    """Uses one parameter twice, and updates buffers in its forward pass."""

    mean: torch.Tensor
    seen: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Parameter(torch.empty(64, 16))
        nn.init.normal_(self.shared, std=0.1)
        self.classify = nn.Linear(64, 10)
        self.register_buffer("mean", torch.zeros(64))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.flatten(1)
        if self.training:
            self.mean.mul_(0.9).add_(pixels.mean(0), alpha=0.1)
            self.seen.add_(len(pixels))
        code = torch.tanh((pixels - self.mean) @ self.shared)
        scores: torch.Tensor = self.classify(code @ self.shared.T)
        return scores


MODELS: dict[str, Build] = {"mlp": mlp, "digits": Net, "custom": Twice}


def cross_entropy(model: nn.Module, batch: Any) -> torch.Tensor:
    images, classes = batch
    return functional.cross_entropy(model(images), classes)


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def own_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[Any], torch.Tensor]:
    """A training step as a user writes it."""

    def step(batch: Any) -> torch.Tensor:
        optimizer.zero_grad()
        loss = cross_entropy(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        optimizer.step()
        return loss

    return step


class Stopped(Exception):
    """The training script broke."""


def record_run(
    path: Path,
    build: Build = mlp,
    *,
    mode: str = "step",
    prepare: Callable[[nn.Module], None] = lambda model: None,
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = sgd,
    stop_after: int | None = None,
    **options: Any,
) -> nn.Module:
    """Records a run at `path`; returns the trained model.

    Args:
        path: The bundle.
        build: Makes the model, while its initialisation is watched.
        mode: `step` or `wrap`.
        prepare: Does something to the model afterwards.
        optimizer: Makes the optimizer.
        stop_after: Break the run before this step, so that the bundle stays open.
        options: Of `record`.
    """
    torch.manual_seed(0)
    with initialise():
        model = build()
    prepare(model)
    chosen = optimizer(model)
    defaults: dict[str, Any] = {
        "loss": cross_entropy,
        "data": digits(),
        "batch_size": BATCH,
        "steps": 6,
        "every": 2,
        "key": KEY,
        "seed": 7,
        "progress": False,
    }
    try:
        with record(path, model, chosen, **{**defaults, **options}) as run:
            _train(run, run.step if mode == "step" else run.wrap(own_step(model, chosen)), stop_after)
    except Stopped:
        pass
    return model


def _train(run: Run, step: Callable[[Any], torch.Tensor], stop_after: int | None) -> None:
    for number, batch in enumerate(run):
        if number == stop_after:
            raise Stopped
        step(batch)


class NoReplay:
    """An executor for what must be decided before anything is computed."""

    def run(self, request: Request) -> Iterator[Ready | SegmentResult]:
        raise AssertionError("a segment was replayed")


def check(path: Path, policy: str | Policy = "full", **options: Any) -> Verdict:
    """Verifies with the owner's key pinned, unless `keys` says otherwise."""
    options.setdefault("keys", [KEY.verification_key])
    return verify(path, policy if isinstance(policy, Policy) else Policy.named(policy), **options)


def statuses(verdict: Verdict) -> dict[str, str]:
    return {name.value: claim.status.value for name, claim in verdict.claims.items()}


def findings(verdict: Verdict, result: Result, check: Check | None = None) -> list[Finding]:
    return [f for f in verdict.findings if f.result is result and check in (None, f.check)]


@dataclass(slots=True, kw_only=True)
class Forgery:
    """A copy of a closed bundle, whose owner changes what he likes and seals it all again.

    Args:
        copy: The copy.
        owner: Signs it.
        states: The tensors' digests by name of every state, state zero first.
        losses: Each segment's losses, by digest.
        weights: The digest of the released weights.
    """

    copy: Opened
    owner: SigningKey
    manifest: Manifest
    program: Program
    graphs: dict[int, Graph]
    initialisation: Initialisation
    states: list[dict[str, bytes]]
    losses: list[bytes]
    weights: bytes
    blobs: BlobWriter = field(init=False)

    def __post_init__(self) -> None:
        self.blobs = BlobWriter(self.copy.files)

    @classmethod
    def of(cls, source: Path, target: Path, owner: SigningKey = KEY) -> Forgery:
        """Begins with a copy of `source` at `target`."""
        copy = copy_bundle(source, target, owner)
        contents = read_contents(copy.files, copy.manifest)
        entries = copy.typed()
        segments = [e for e in entries if isinstance(e, Segment)]
        (close,) = [e for e in entries if isinstance(e, Close)]
        return cls(
            copy=copy,
            owner=owner,
            manifest=copy.manifest,
            program=contents.program,
            graphs=dict(contents.graphs),
            initialisation=contents.initialisation,
            states=[copy.state(e.seal) for e in entries if isinstance(e, Initial | Segment)],
            losses=[s.losses for s in segments],
            weights=close.weights,
        )

    def put_tensor(self, state: int, name: str, data: bytes) -> None:
        """Puts other bytes in the place of a tensor of a state."""
        self.states[state][name] = self.blobs.put(data)

    def append_nodes(self, *nodes: tuple[str, tuple[Argument, ...]]) -> None:
        """Appends operators to every graph; a `Ref` below 0 counts back from the first of them."""
        for size, graph in self.graphs.items():
            first = len(graph.inputs) + len(graph.nodes)
            added = [Node(operator=name, args=_placed(args, first), kwargs={}) for name, args in nodes]
            self.graphs[size] = Graph(
                inputs=graph.inputs,
                nodes=(*graph.nodes, *added),
                loss=graph.loss,
                gradients=graph.gradients,
                buffers=graph.buffers,
            )

    def write(self, *, refill: bool = True) -> None:
        """Seals everything again; with `refill`, state zero is made anew by rule from the new seed."""
        put = self.blobs.put
        program = Program(
            layout=self.program.layout,
            constants=self.program.constants,
            graphs={size: put(graph.encode()) for size, graph in self.graphs.items()},
            optimizer=self.program.optimizer,
            clip=self.program.clip,
            schedule=self.program.schedule,
        )
        manifest = Manifest(
            owner=self.owner.verification_key,
            program=put(program.encode()),
            initialisation=put(self.initialisation.encode()),
            data=self.manifest.data,
            plan=self.manifest.plan,
            arithmetic=self.manifest.arithmetic,
            release=self.manifest.release,
        )
        if refill:
            self.states[0] = self._state_zero(manifest)
        writer = BundleWriter(self.blobs, self.owner, manifest)
        zero, *others = [writer.seal(list(state.values())) for state in self.states]
        writer.append(Initial(seal=zero))
        for index, (seal, losses) in enumerate(zip(others, self.losses, strict=True)):
            steps = manifest.plan.steps_of(index)
            writer.append(
                Segment(index=index, first_step=steps.start, steps=len(steps), seal=seal, losses=losses)
            )
        writer.append(Close(segments=len(others), weights=self.weights))
        writer.publish()

    def _state_zero(self, manifest: Manifest) -> dict[str, bytes]:
        seed = known(read_log(manifest, [manifest.encode()]).seeds()).initial
        return {
            spec.name: source.digest
            if isinstance(source, Given)
            else self.blobs.put(fill(source, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype))
            for spec, source in zip(self.program.layout, self.initialisation.state, strict=True)
        }


def _placed(args: tuple[Argument, ...], first: int) -> tuple[Argument, ...]:
    return tuple(Ref(first + ~a.value) if isinstance(a, Ref) and a.value < 0 else a for a in args)


@dataclass(frozen=True, slots=True)
class _Raw:
    """An entry that no honest writer is given."""

    data: bytes

    def encode(self) -> bytes:
        return self.data


def sign_entries(
    copy: Opened, change: Callable[[list[bytes]], list[bytes]], manifest: Manifest | None = None
) -> None:
    """Signs the log again with other raw entries after the manifest, whatever they are."""
    writer = BundleWriter(BlobWriter(copy.files), copy.owner, manifest or copy.manifest)
    for entry in change(copy.entries[1:]):
        writer.append(_Raw(entry))  # type: ignore[arg-type]  # see _Raw
    writer.publish()


def files_of(path: Path) -> list[str]:
    """The paths of all files of a bundle, relative to it."""
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())
