"""The options of a tolerance: what goes with what, and whose calibration is believed."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from elsewhere import CALIBRATOR, calibration
from gradseal.cli.tolerance import ToleranceOptions
from gradseal.errors import KeyFileError, MalformedBundle
from gradseal.proof.note import MAX_NOTE_BYTES, SigningKey, VerificationKey
from gradseal.verify.calibration import sign_calibration
from gradseal.verify.policy import Policy

KEY = CALIBRATOR.verification_key
OTHER = SigningKey(name="other.example", seed=bytes([9]) * 32).verification_key
STANDARD = Policy.named("standard")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "c.calibration"
    path.write_bytes(sign_calibration(calibration(), [CALIBRATOR]))
    return path


def test_without_options_the_policy_stays_as_it_is() -> None:
    assert ToleranceOptions().applied(STANDARD, []) is STANDARD
    assert ToleranceOptions().repeated([]) == []


def test_a_calibration_comes_into_the_policy(file: Path) -> None:
    options = ToleranceOptions(calibration=file, calibrators=(str(KEY),), tau_cap=0.01)
    policy = options.applied(STANDARD, [KEY])
    assert policy.calibration == calibration()
    assert policy.tau_cap == 0.01
    assert options.repeated([KEY]) == [f"--calibration={file}", f"--calibrator={KEY}", "--tau-cap=0.01"]


def test_the_cap_is_the_policys_own_unless_given(file: Path) -> None:
    assert ToleranceOptions(calibration=file).applied(STANDARD, [KEY]).tau_cap == STANDARD.tau_cap == 0.1


@pytest.mark.parametrize("keys", [[], [OTHER]])
def test_a_calibration_by_nobody_that_is_pinned_is_refused(file: Path, keys: list[VerificationKey]) -> None:
    with pytest.raises(KeyFileError):
        ToleranceOptions(calibration=file).applied(STANDARD, keys)


@pytest.mark.parametrize(
    "options", [ToleranceOptions(calibrators=("key",)), ToleranceOptions(tau_cap=0.1)], ids=["key", "cap"]
)
def test_options_that_need_a_calibration_are_refused_without(options: ToleranceOptions) -> None:
    with pytest.raises(click.BadParameter, match="only with --calibration"):
        options.applied(STANDARD, [])


def test_a_classical_policy_has_no_use_for_it(file: Path) -> None:
    with pytest.raises(click.BadParameter, match="distances of its own"):
        ToleranceOptions(calibration=file).applied(Policy.named("jia2021"), [KEY])


def test_no_more_is_read_than_a_note_may_have(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(2 * MAX_NOTE_BYTES))
    with pytest.raises(MalformedBundle, match=f"{MAX_NOTE_BYTES + 1} bytes"):
        ToleranceOptions(calibration=tmp_path / "large").applied(STANDARD, [KEY])
