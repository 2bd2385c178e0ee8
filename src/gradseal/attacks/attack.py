"""What an attack on weights is, and what one has in hand: nothing but what its threat model grants.

An attack writes a bundle and says what it computed for it. It never judges itself: `study.matrix.suite` has
every verifier look at the bundle, measures how near its weights are to the stolen ones, and counts its cost.
Attacks on time, which need services and a clock, are in `attacks.precedence`.
"""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import fsspec
import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from gradseal.errors import Error, RecordWarning
from gradseal.precede.trust import Trust
from gradseal.program.initialise import initialise
from gradseal.program.memory import to_bytes
from gradseal.program.sources import Given
from gradseal.proof.manifest import DeclaredSeed
from gradseal.proof.note import SigningKey
from gradseal.recipes.recipe import Recipe
from gradseal.record.plan import Request
from gradseal.record.presented import Presented, State
from gradseal.verify.ks import examine_tensor, is_random, refuted

MOST_SEEDS = 30
"""After how many seeds an attacker takes what he has."""


class Need(StrEnum):
    """What a threat model may grant; architecture, loss and the code of the protocol are always public."""

    WEIGHTS = "the released weights"
    DATA = "the training data"
    BUNDLE = "the victim's published bundle"
    TOLERANCE = "the verifier's absolute tolerance"
    SHORTCUT = "other data of the same kind, that the victim never had"


class NotGranted(Error):
    """An attack reached for what its threat model does not grant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    Args:
        name: As in the papers, in lower case; also the name for `gradseal attack`.
        source: The paper, by authors, year and title; or ours, if nobody published it.
        idea: What it does, in a sentence or two.
        needs: What its threat model grants.
        aims: The claim that it wants to have believed.
        forge: Writes the bundle at the target of what it is given.
        slow: Whether it is left out but with `--full`.
        steals: Whether it wants the stolen weights released; a row without has no distance.
    """

    name: str
    source: str
    idea: str
    needs: frozenset[Need]
    aims: str
    forge: Callable[[Hand], None]
    slow: bool = False
    steals: bool = True


@dataclass(slots=True, kw_only=True)
class Meter:
    """What an attack computes.

    Args:
        gradients: Gradients of the loss by the parameters, counted in samples. A product of a second
            derivative and a vector counts as two, as a pass forward counts a third.
        flops: Floating-point operations besides those.
        notes: What else the attack counted, by a name that says it, for tables.
    """

    gradients: float = 0.0
    flops: float = 0.0
    notes: dict[str, float] = field(default_factory=dict)

    def batch(self, samples: int) -> None:
        """Counts one gradient of a batch."""
        self.gradients += samples


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How large a run is: the victim's, and what attacks claim unless they claim something else.

    Args:
        steps: Optimizer steps.
        every: Steps in a segment, the papers' k.
        batch_size: Samples in a batch.
        delta: The classical tolerance as a share of the distance of two independently trained models.
        top: The classical Q: how many intervals are replayed in an epoch.
        tau: The tolerance as a share of a segment's update, which attacks stay below that know of it.
    """

    steps: int = 500
    every: int = 10
    batch_size: int = 6
    delta: float = 0.008
    top: int = 5
    tau: float = 0.1

    @classmethod
    def sized(cls, steps: int | None, every: int | None, batch_size: int | None) -> Setting:
        """The usual setting, but for what is given."""
        usual = cls()
        return cls(
            steps=steps or usual.steps,
            every=every or usual.every,
            batch_size=batch_size or usual.batch_size,
        )


@dataclass(kw_only=True)
class Hand:
    """What an attacker has in hand.

    Args:
        recipe: Architecture, loss, usual optimizer, and the data.
        setting: How large a run is claimed.
        stolen: The released weights, as a state dict.
        bundle: The victim's published bundle.
        reference: The distance of two independently trained models, from which the tolerance follows.
        granted: What the threat model grants of these.
        target: Where the bundle goes.
        signer: The attacker's key.
        seed: All of the attacker's own randomness.
        exact: Whether bundles claim exact arithmetic.
        meter: Counts what is computed.
        pins: What a verifier pins of the services that an attack on time was given; set by the attack, whose
            services are honest.
        picky: Whether seeds are drawn until state zero passes the classical test, which rejects honest ones
            now and then.
    """

    recipe: Recipe
    setting: Setting
    stolen: Mapping[str, torch.Tensor]
    bundle: str
    reference: float
    granted: frozenset[Need]
    target: str
    signer: SigningKey
    seed: int
    exact: bool = False
    meter: Meter = field(default_factory=Meter)
    pins: Trust | None = None
    picky: bool = True

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)
        self._scratch: list[str] = []

    @property
    def weights(self) -> State:
        """The stolen parameters and buffers, by their names in a state: `parameters/…`, `buffers/…`."""
        self._require(Need.WEIGHTS)
        model = self.recipe.build()
        names = {n: f"parameters/{n}" for n, _ in model.named_parameters()}
        names |= {n: f"buffers/{n}" for n, _ in model.named_buffers()}
        return {names[n]: tensor.clone() for n, tensor in self.stolen.items() if n in names}

    @property
    def parameters(self) -> State:
        """The stolen parameters alone, by their names in a state."""
        return {n: t for n, t in self.weights.items() if n.startswith("parameters/")}

    @property
    def data(self) -> Any:
        """The training data, a map-style data set."""
        self._require(Need.DATA)
        return self.recipe.data

    @property
    def tolerance(self) -> float:
        """δ: the absolute distance (l2) within which the classical verifier takes two states for one."""
        self._require(Need.TOLERANCE)
        return self.setting.delta * self.reference

    @property
    def victim(self) -> str:
        """Where the victim's published bundle is."""
        self._require(Need.BUNDLE)
        return self.bundle

    def model(self, *, dropout: bool = True) -> nn.Module:
        """A fresh model of the stolen one's architecture, whose initialisation was watched.

        Args:
            dropout: Without, every dropout has probability zero: that is a hyperparameter, the prover's.
        """
        with initialise():
            model = self.recipe.build()
        for module in model.modules():
            if isinstance(module, nn.Dropout) and not dropout:
                module.p = 0.0
        return model

    def present(  # noqa: PLR0913 - keyword-only options, as `record` has them
        self,
        model: nn.Module | None = None,
        *,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
        loss: Callable[[nn.Module, Any], torch.Tensor] | None = None,
        data: Any = None,
        steps: int | None = None,
        every: int | None = None,
        batch_size: int | None = None,
        schedule: Callable[[torch.optim.Optimizer], LRScheduler] | None = None,
        clip: float | None = None,
        shuffle: bool = True,
        drop_last: bool = True,
        seed: bytes | None = None,
        scratch: bool = False,
    ) -> Presented:
        """A bundle to write: the recipe's run in the setting's size, but for what is given here.

        Args:
            model: The model; a fresh one if not given. Weights loaded into it are claimed as *given*.
            optimizer: Makes its optimizer.
            loss: The loss of a batch.
            data: The data set that is claimed.
            steps: Claimed steps.
            every: Steps in a segment.
            batch_size: Samples in a batch.
            schedule: Makes the schedule of the optimizer, moved on once a step.
            clip: The largest norm of all gradients together.
            shuffle: Whether the order follows from the seed; otherwise batches come in the data's own order.
            drop_last: Whether an epoch's last, smaller batch is left out.
            seed: The declared seed, 32 bytes; the attacker's own randomness if not given.
            scratch: Not the bundle that is shown in the end, but one to try things with, in memory.
        """
        own = model if model is not None else self.model()
        made = (optimizer or self.recipe.optimizer)(own)
        request = Request(
            model=own,
            optimizer=made,
            loss=loss or self.recipe.loss,
            data=self.data if data is None else data,
            batch_size=batch_size or self.setting.batch_size,
            steps=steps or self.setting.steps,
            every=every or self.setting.every,
            seed=DeclaredSeed(value=seed or self.random_bytes()),
            shuffle=shuffle,
            drop_last=drop_last,
            schedule=schedule(made) if schedule else None,
            clip=clip,
            exact=self.exact,
        )
        with _quietly():
            run = Presented(
                target=self._memory() if scratch else self.target,
                signer=self.signer,
                request=request,
                told=self.meter.batch,
            )
        for _ in range(MOST_SEEDS if self.picky and seed is None else 0):
            if passes_ks(run):
                break
            run.reseed(self.random_bytes())
        return run

    def random_bytes(self) -> bytes:
        """32 bytes of the attacker's randomness."""
        return bytes(torch.randint(256, (32,), generator=self.generator, dtype=torch.uint8).tolist())

    def close(self) -> None:
        """Frees what was tried in memory."""
        while self._scratch:
            forget(self._scratch.pop())

    def _memory(self) -> str:
        self._scratch.append(f"memory://gradseal-scratch-{secrets.token_hex(8)}")
        return self._scratch[-1]

    def _require(self, need: Need) -> None:
        if need not in self.granted:
            raise NotGranted(f"the threat model does not grant {need.value}", where=need.name.lower())


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings that an honest owner should see."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RecordWarning)
        yield


def passes_ks(run: Presented) -> bool:
    """Whether the state zero that the rules give passes the classical test, and the corrected one."""
    zero = run.state_zero()
    for corrected in (False, True):
        tested = [
            examine_tensor(source, spec, to_bytes(zero[name]), corrected=corrected)
            for name, (spec, source) in run.claimed.items()
            if name.startswith("parameters/") and not isinstance(source, Given) and is_random(source)
        ]
        if refuted([one for one in tested if one is not None], corrected=corrected):
            return False
    return True


def forget(url: str) -> None:
    """Removes a bundle from memory; `rm` would look at every file there for each of the bundle's."""
    files, path = fsspec.core.url_to_fs(url)
    for name in [name for name in files.store if name.startswith(f"{path}/")]:
        del files.store[name]
    files.pseudo_dirs[:] = [name for name in files.pseudo_dirs if not f"{name}/".startswith(f"{path}/")]


def length(state: Mapping[str, torch.Tensor]) -> float:
    """The Euclidean length of all tensors of floating point together."""
    squares = (t.double().square().sum() for t in state.values() if t.is_floating_point())
    return float(sum(squares, torch.zeros((), dtype=torch.float64)).sqrt())


def distance(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> float:
    """The Euclidean distance over the names of `a`."""
    return length({name: a[name].double() - b[name].double() for name in a})


def line(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor], share: float) -> State:
    """The point between two states, at a share of the way; computed in float64, rounded once."""
    return {
        name: (a[name].double() + share * (b[name].double() - a[name].double())).to(a[name].dtype)
        for name in a
    }
