"""The options that say how many segments a sample has: of `gradseal verify`, and of `gradseal plan`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

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
        return [f"--{name.replace('_', '-')}={value!r}" for name, value in given.items()]

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


def draw_options(
    *, defaults: DrawOptions | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a verb these options, together as its argument `draws`.

    Args:
        defaults: What counts where nothing is given; by default that nothing was.
    """
    own, shown = defaults or DrawOptions(), defaults is not None
    whose = "" if shown else ", in place of the policy's"
    options = (
        click.option(
            "--confidence",
            type=_CONFIDENCE,
            default=own.confidence,
            show_default=shown,
            help=f"Of both bounds of a sample together{whose}.",
        ),
        click.option(
            "--forged",
            type=_SHARE,
            default=own.forged,
            show_default=shown,
            help=f"The share of segments to rule out{whose}.",
        ),
        click.option(
            "--forged-length",
            type=FiniteRange(1e-4, 1),
            default=own.forged_length,
            show_default=shown,
            help=f"The share of their length to rule out{whose}; 1 for no draws by length.",
        ),
        click.option(
            "--longest",
            type=click.IntRange(min=0),
            default=own.longest,
            show_default=shown,
            help=f"How many of the longest updates are always replayed{whose}.",
        ),
    )

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(verb)
        def gathered(
            *,
            confidence: float | None,
            forged: float | None,
            forged_length: float | None,
            longest: int | None,
            **others: Any,
        ) -> None:
            given = DrawOptions(
                confidence=confidence, forged=forged, forged_length=forged_length, longest=longest
            )
            verb(draws=given, **others)

        decorated: Callable[..., None] = gathered
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
