"""The options of `gradseal verify` for a calibrated tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from gradseal.cli.gathered import gathering
from gradseal.cli.numbers import FiniteRange
from gradseal.errors import StoreError
from gradseal.proof.note import MAX_NOTE_BYTES, VerificationKey
from gradseal.verify.calibration import read_calibration
from gradseal.verify.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class ToleranceOptions:
    """What was given.

    Args:
        calibration: The file of the signed calibration.
        calibrators: Keys as they were given, of whom one must have signed it.
        tau_cap: The largest tolerance, in place of the policy's own.
    """

    calibration: Path | None = None
    calibrators: tuple[str, ...] = ()
    tau_cap: float | None = None

    def repeated(self, keys: Sequence[VerificationKey]) -> list[str]:
        """The same as options, with the keys themselves."""
        if self.calibration is None:
            return []
        options = [f"--calibration={self.calibration}", *(f"--calibrator={key}" for key in keys)]
        return options + ([] if self.tau_cap is None else [f"--tau-cap={self.tau_cap!r}"])

    def applied(self, policy: Policy, keys: Sequence[VerificationKey]) -> Policy:
        """The policy that is meant.

        Args:
            policy: What it is without.
            keys: The calibrators', read.

        Raises:
            click.BadParameter: Options that go with no calibration, or with a policy that has no use for it.
            KeyFileError: None of the keys signed it, or none was given.
            MalformedBundle, UnknownKind: It is no calibration.
            StoreError: The file cannot be read.
        """
        if self.calibration is None:
            given = {"--calibrator": bool(self.calibrators), "--tau-cap": self.tau_cap is not None}
            for name in (name for name, is_given in given.items() if is_given):
                raise click.BadParameter("says something only with --calibration FILE", param_hint=name)
            return policy
        if policy.classical:
            raise click.BadParameter(
                f"the policy {policy.name!r} has distances of its own", param_hint="--calibration"
            )
        calibration = read_calibration(_bytes(self.calibration), keys=keys, where=str(self.calibration))
        cap = policy.tau_cap if self.tau_cap is None else self.tau_cap
        return replace(policy, calibration=calibration, tau_cap=cap)


def _bytes(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_NOTE_BYTES + 1)
    except OSError as e:
        raise StoreError(f"cannot be read: {e.strerror}", where=str(path)) from e


_OPTIONS = (
    click.option(
        "--calibration",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="FILE",
        help="What gradseal calibrate wrote: native replays pass within its tolerance where the recorded "
        "environment cannot be had.",
    ),
    click.option(
        "--calibrator",
        "calibrators",
        multiple=True,
        metavar="KEY",
        help="The public key of whoever calibrated, or a file that holds it; with several, any will do.",
    ),
    click.option(
        "--tau-cap",
        type=FiniteRange(0, 1, min_open=True),
        metavar="SHARE",
        help="The largest tolerance that a calibration may bring, of the update; by default 0.1.",
    ),
)


tolerance_options = gathering("tolerance", ToleranceOptions, _OPTIONS)
