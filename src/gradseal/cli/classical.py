"""The options of `gradseal verify` for classical policies, and policies by name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import click

from gradseal.cli.gathered import gathering
from gradseal.cli.numbers import FiniteRange
from gradseal.cli.paths import reading
from gradseal.verify.classical import DELTA, Classical, distance_named
from gradseal.verify.distances import Distance
from gradseal.verify.policy import Policy, policy_names


def policy_name(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    """Refuses a name that no policy has, neither Gradseal's own nor another package's.

    Raises:
        click.BadParameter: There is none.
    """
    if value not in policy_names():
        raise click.BadParameter(f"{value!r} is not one of {', '.join(policy_names())}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicalOptions:
    """What was given, to change a classical policy.

    Args:
        reference: d_ref as a number, or the file that it is measured to.
        delta: The limit.
        distance: What is limited.
        top: How many segments of each epoch.
    """

    reference: str | None = None
    delta: float | None = None
    distance: str | None = None
    top: int | None = None

    def repeated(self) -> list[str]:
        """The same as options."""
        given = {
            "--reference": self.reference,
            "--delta": None if self.delta is None else repr(self.delta),
            "--distance": self.distance,
            "--top": None if self.top is None else str(self.top),
        }
        # Joined, since a negative number would be taken for an option.
        return [f"{name}={value}" for name, value in given.items() if value is not None]

    def check(self, policy: Policy) -> None:
        """Refuses options that the policy has no use for, before anything is read.

        Raises:
            Error: There are some, and it is not classical; or a number is out of range.
            click.BadParameter: The reference is neither a number nor a file.
        """
        if not self.repeated():
            return
        classical = policy.require_classical()
        if self.reference is not None and _number(self.reference) is None:
            if not Path(self.reference).is_file():
                raise click.BadParameter(
                    f"neither a number nor a file: {self.reference!r}", param_hint="--reference"
                )
            self._limited(classical, 1.0)
        else:
            self._limited(classical, _number(self.reference) if self.reference else None)

    def applied(self, policy: Policy, bundle: str) -> Policy:
        """The policy that is meant; measures the reference distance, if it is to a file.

        Raises:
            Error: The file or the bundle cannot be read, or do not fit each other.
        """
        if not self.repeated():
            return policy
        classical = self._limited(policy.require_classical(), self._reference(bundle))
        return replace(policy, classical=classical if self.top is None else replace(classical, top=self.top))

    def _limited(self, classical: Classical, reference: float | None) -> Classical:
        if reference is not None:
            return classical.normalised(
                reference, DELTA if self.delta is None else self.delta, self.distance or "l2"
            )
        if self.delta is None and self.distance is None:
            return classical
        return classical.limited(self.delta, self.distance)

    def _reference(self, bundle: str) -> float | None:
        if self.reference is None or (number := _number(self.reference)) is not None:
            return None if self.reference is None else number
        from gradseal.store.files import FsspecFiles
        from gradseal.verify.reference import distance_to, released_weights

        with reading(bundle):
            url = bundle if "://" in bundle else str(Path(bundle).absolute())
            weights = released_weights(FsspecFiles(url))
        return distance_to(Path(self.reference), weights, distance_named(self.distance or "l2"))


_OPTIONS = (
    click.option(
        "--reference",
        metavar="NUMBER|FILE",
        help="Have a jia2021 policy allow a share of this distance; or of that to an independently trained "
        "model, whose weights a safetensors file has.",
    ),
    click.option(
        "--delta",
        type=FiniteRange(min=0),
        help="What a jia2021 policy allows: of --reference (by default 0.008), of the update, or as it is.",
    ),
    click.option(
        "--distance",
        type=click.Choice([distance.value for distance in Distance]),
        help="The one distance that a jia2021 policy is to limit.",
    ),
    click.option(
        "--top",
        type=int,
        metavar="Q",
        help="How many segments of each epoch a jia2021 policy replays, by default 5; all with 0.",
    ),
)


classical_options = gathering("classical", ClassicalOptions, _OPTIONS)


def _number(text: str) -> float | None:
    """The number, if it is one that is written plainly; other checks are the policy's."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
