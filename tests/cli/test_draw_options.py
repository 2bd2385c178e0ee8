"""The numbers of a sample as options of `gradseal verify`, and the command that `gradseal plan` prints."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from bundles import KEY, digits, linear, record_run
from gradseal.cli.draws import DrawOptions, standard_draws
from gradseal.cli.main import gradseal
from gradseal.errors import MalformedBundle
from gradseal.verify.policy import POLICIES, Policy

STANDARD = POLICIES["standard"]
OTHER = ["--confidence=0.9", "--forged=0.2", "--forged-length=0.3", "--longest=3"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 segments of a step each."""
    path = tmp_path_factory.mktemp("draws") / "bundle"
    record_run(path, linear, steps=40, every=1, data=digits(8), batch_size=4)
    return path


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(gradseal, arguments)


def verified(bundle: Path, *options: str) -> Any:
    ended = invoked("verify", str(bundle), "--key", str(KEY.verification_key), *options, "--json")
    assert ended.exit_code == 0, ended.output
    return json.loads(ended.stdout)


def test_without_options_the_policy_stays_as_it_is() -> None:
    assert DrawOptions().applied(STANDARD) is STANDARD
    assert DrawOptions().applied(Policy.named("full")) is Policy.named("full")
    assert DrawOptions().repeated() == []


def test_the_numbers_of_standard_are_standard() -> None:
    assert standard_draws().applied(STANDARD) is STANDARD


def test_other_numbers_come_into_the_policy_under_another_name() -> None:
    given = DrawOptions(confidence=0.9, forged=0.2, forged_length=0.3, longest=3)
    policy = given.applied(STANDARD)
    assert (policy.confidence, policy.tolerated_fraction, policy.tolerated_length) == (0.9, 0.2, 0.3)
    assert (policy.longest, policy.name) == (3, "standard, other draws")
    assert policy.require == STANDARD.require
    assert given.repeated() == OTHER


def test_a_share_of_one_asks_for_no_draws_by_length() -> None:
    policy = DrawOptions(forged_length=1.0, longest=0).applied(STANDARD)
    assert (policy.tolerated_length, policy.longest, policy.confidence) == (None, 0, 0.95)


@pytest.mark.parametrize("name", ["full", "quick", "jia2021", "jia2021-random"])
@pytest.mark.parametrize("options", OTHER)
def test_a_policy_that_draws_no_sample_refuses_them(name: str, options: str) -> None:
    option, _, value = options.partition("=")
    given: Any = {option.removeprefix("--").replace("-", "_"): float(value)}
    with pytest.raises(click.BadParameter, match="draws no such sample") as told:
        DrawOptions(**given).applied(Policy.named(name))
    assert told.value.param_hint == option


@pytest.mark.parametrize("value", ["nan", "0", "1.5", "-1", "inf", "many"])
def test_numbers_that_bound_nothing_are_wrong_usage(bundle: Path, value: str) -> None:
    for option in ("--confidence", "--forged", "--forged-length"):
        ended = invoked("verify", str(bundle), "--policy", "standard", f"{option}={value}")
        assert ended.exit_code == 2
        assert option in ended.output


def test_a_verification_draws_as_was_planned(bundle: Path) -> None:
    plan = json.loads(invoked("plan", str(bundle), *OTHER, "--json").stdout)
    command = shlex.split(plan["verify"])
    assert command[:2] == ["gradseal", "verify"]
    assert set(OTHER) <= set(command)
    verdict = verified(bundle, "--policy", "standard", *OTHER, "--draw", "00" * 32)
    told = "\n".join(verdict["claims"]["computation"]["evidence"])
    assert f"{plan['uniform']} of {plan['population']} other segments drawn uniformly: with 95%" in told
    assert f"{plan['by_length']} draws by length" in told
    assert verdict["policy"]["name"] == "standard, other draws"
    plain = verified(bundle, "--policy", "standard", "--draw", "00" * 32)
    assert verdict["cost"]["segments_replayed"] < plain["cost"]["segments_replayed"]


def test_a_plan_of_the_usual_numbers_is_the_plain_policy(bundle: Path) -> None:
    ended = invoked("plan", str(bundle))
    last = ended.stdout.splitlines()[-1]
    assert last == f"To do it: gradseal verify {bundle} --policy standard --key KEY"


def test_the_command_that_repeats_a_verification_has_them(bundle: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    verified(bundle, "--policy", "standard", *OTHER, "--report", str(page))
    text = page.read_text("utf-8")
    assert all(option in text for option in OTHER)


def test_a_file_besides_the_bundle_is_named_alone(bundle: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(b"no tensors")
    ended = invoked("verify", str(bundle), "--pulled-to", str(wrong))
    assert isinstance(ended.exception, MalformedBundle)
    assert ended.exception.where == str(wrong)


def test_a_file_in_the_bundle_is_not_taken_for_one_besides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "checkpoint").write_bytes(b"")
    ended = invoked("verify", "empty", "--pulled-to", "checkpoint")
    assert isinstance(ended.exception, MalformedBundle)
    assert ended.exception.where == "empty: checkpoint"
