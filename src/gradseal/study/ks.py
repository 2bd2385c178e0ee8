"""How often the classical test of an initialisation rejects honest ones, and how often the corrected one.

Every draw is state zero of ResNet-20 as a recording of the recipe `fashion` would make it: the model is built
with its fills watched, each parameter is filled by its rule from the draw's own seed, and both tests judge
it. Nothing is trained, and no data are needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from gradseal.program.fills import fill
from gradseal.program.initialise import initialise, rule_for
from gradseal.program.memory import dtype_name
from gradseal.program.rules import Rule
from gradseal.program.tensors import TensorSpec
from gradseal.recipes.resnet import ResNet20
from gradseal.study.proportions import proportion_bounds
from gradseal.verify.ks import LEVEL, examine_tensor, is_random, refuted

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejections:
    """How often a test rejected.

    Args:
        rejected: How many initialisations.
        rate: As a share of all.
        low: Where its 95 % interval begins (Clopper and Pearson 1934).
        high: Where it ends.
    """

    rejected: int
    rate: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KsStudy:
    """What came of it.

    Args:
        draws: How many honest initialisations.
        seed: Of all of them.
        tensors: How many tensors of each were tested.
        original: By the classical test, each tensor at 1 %.
        corrected: By the corrected test, all tensors together at 1 %.
        expected: What the original rate is if the tensors are independent.
    """

    draws: int
    seed: int
    tensors: int
    original: Rejections
    corrected: Rejections
    expected: float

    def to_json(self) -> dict[str, Any]:
        """Its JSON form."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For a person."""
        return [
            f"{self.draws} honest initialisations of ResNet-20, {self.tensors} random tensors each",
            f"original:  {_said(self.original)} rejected; {self.expected:.1%} expected",
            f"corrected: {_said(self.corrected)} rejected; at most {LEVEL:.1%} expected",
        ]


def study_ks(
    draws: int = 300, seed: int = 0, progress: Callable[[str, int, int], None] | None = None
) -> KsStudy:
    """Draws honest initialisations, and tests each.

    Args:
        draws: How many.
        seed: Of all of them.
        progress: Told how far it is.
    """
    rules = random_tensors()
    original = corrected = 0
    for number in range(draws):
        own = hashlib.sha256(f"study ks {seed} {number}".encode()).digest()
        filled = [_filled(rule, spec, own) for rule, spec in rules]
        original += _rejected(rules, filled, corrected=False)
        corrected += _rejected(rules, filled, corrected=True)
        if progress is not None:
            progress("testing initialisations", number + 1, draws)
    return KsStudy(
        draws=draws,
        seed=seed,
        tensors=len(rules),
        original=_rejections(original, draws),
        corrected=_rejections(corrected, draws),
        expected=1 - (1 - LEVEL) ** len(rules),
    )


def random_tensors() -> list[tuple[Rule, TensorSpec]]:
    """Every parameter of ResNet-20 that a rule draws, with that rule, as a recording finds it."""
    with initialise():
        model = ResNet20()
    tensors = {f"parameters/{name}": p.detach() for name, p in model.named_parameters()}
    shapes = [tuple(t.shape) for t in (*tensors.values(), *model.buffers())]
    specs = [
        TensorSpec(name=name, dtype=dtype_name(t.dtype), shape=tuple(t.shape)) for name, t in tensors.items()
    ]
    rules = [rule_for(spec, t, shapes) for spec, t in zip(specs, tensors.values(), strict=True)]
    pairs = zip(rules, specs, strict=True)
    return [(rule, spec) for rule, spec in pairs if rule is not None and is_random(rule)]


def _filled(rule: Rule, spec: TensorSpec, seed: bytes) -> bytes:
    return fill(rule, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype)


def _rejected(rules: list[tuple[Rule, TensorSpec]], filled: list[bytes], *, corrected: bool) -> bool:
    pairs = zip(rules, filled, strict=True)
    tested = [examine_tensor(rule, spec, data, corrected=corrected) for (rule, spec), data in pairs]
    return bool(refuted([one for one in tested if one is not None], corrected=corrected))


def _rejections(rejected: int, draws: int) -> Rejections:
    low, high = proportion_bounds(rejected, draws, CONFIDENCE)
    return Rejections(rejected=rejected, rate=rejected / draws, low=low, high=high)


def _said(one: Rejections) -> str:
    return f"{one.rate:.1%} ({one.low:.1%} to {one.high:.1%})"
