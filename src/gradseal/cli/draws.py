"""The options that say how many segments a sample has: of `gradseal verify`, and of `gradseal plan`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import click

from gradseal.cli.gathered import Decorator, gathering
from gradseal.cli.numbers import FiniteRange
from gradseal.verify.policy import MOST_CONFIDENCE, POLICIES, Policy, Replay

NO_DRAWS_BY_LENGTH = 1.0
_SHARE = FiniteRange(0, 1, min_open=True, max_open=True)
_CONFIDENCE = FiniteRange(0, MOST_CONFIDENCE, min_open=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawOptions:
    """What was given; None where it was not.

    Args:
        confidence: Of both bounds together.
        forged: The share of segments to rule out.
        forged_length: The share of their length to rule out; 1 for no draws by length.
        longest: How many of the longest updates are always replayed.
    """

    confidence: float | None = None
    forged: float | None = None
    forged_length: float | None = None
    longest: int | None = None

    def repeated(self) -> list[str]:
        """The same as options."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return [f"{_spelled(name)}={value!r}" for name, value in given.items()]

    def applied(self, policy: Policy) -> Policy:
        """The policy that is meant, under a name of its own if it demands other numbers.

        Raises:
            click.BadParameter: It draws no sample.
        """
        if self == DrawOptions():
            return policy
        if policy.replay is not Replay.SAMPLE or policy.classical:
            first = self.repeated()[0].partition("=")[0]
            raise click.BadParameter(
                f"the policy {policy.name!r} draws no such sample; give --policy standard", param_hint=first
            )
        changed: dict[str, Any] = {"longest": self.longest}
        changed |= {"confidence": self.confidence, "tolerated_fraction": self.forged}
        demanded = replace(policy, **{name: value for name, value in changed.items() if value is not None})
        if self.forged_length is not None:
            none = self.forged_length == NO_DRAWS_BY_LENGTH
            demanded = replace(demanded, tolerated_length=None if none else self.forged_length)
        return policy if demanded == policy else replace(demanded, name=f"{policy.name}, other draws")


def standard_draws() -> DrawOptions:
    """Those of the policy `standard`."""
    own = POLICIES["standard"]
    length = NO_DRAWS_BY_LENGTH if own.tolerated_length is None else own.tolerated_length
    return DrawOptions(
        confidence=own.confidence, forged=own.tolerated_fraction, forged_length=length, longest=own.longest
    )


def draw_options(*, defaults: DrawOptions | None = None) -> Decorator:
    """Gives a verb these options, together as its argument `draws`.

    Args:
        defaults: What counts where nothing is given; by default that nothing was.
    """
    own, shown = defaults or DrawOptions(), defaults is not None
    whose = "" if shown else ", in place of the policy's"

    def option(name: str, kind: click.ParamType[Any], said: str) -> Decorator:
        default = getattr(own, name)
        text = f"{said.format(whose=whose)}."
        return click.option(_spelled(name), type=kind, default=default, show_default=shown, help=text)

    length = "The share of their length to rule out{whose}; 1 for no draws by length"
    longest = "How many of the longest updates are always replayed{whose}"
    options = (
        option("confidence", _CONFIDENCE, "Of both bounds of a sample together{whose}"),
        option("forged", _SHARE, "The share of segments to rule out{whose}"),
        option("forged_length", FiniteRange(1e-4, 1), length),
        option("longest", click.IntRange(min=0), longest),
    )
    return gathering("draws", DrawOptions, options)


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"
