"""The verbs as a user meets them: real processes, real bundles, exit statuses, and what is printed where."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gradseal.precede.trust_text import write_trust
from gradseal.proof.note import VerificationKey
from gradseal.witness.loopback import Loopback

COMMAND = [sys.executable, "-c", "from gradseal.cli import main; main()"]
CLAIMS = ["integrity", "precedence", "initialisation", "data", "computation"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "80", "OMP_NUM_THREADS": "1", **more}


def run(*arguments: str | Path, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@dataclass(frozen=True, kw_only=True)
class Owned:
    """A directory with `owner.key`, `owner.pub`, and a bundle `run` of ten steps in two segments."""

    home: Path
    recorded: subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Owned:
    home = tmp_path_factory.mktemp("owner")
    made = run("key", "new", "owner.key", "--name", "example.org/models", cwd=home)
    (home / "owner.pub").write_text(made.stdout)
    recorded = run("record", "digits", "--out", "run", "--key", "owner.key", "--steps", "10", cwd=home)
    assert recorded.returncode == 0, recorded.stderr
    return Owned(home=home, recorded=recorded)


def test_record_says_what_came_of_it_and_what_to_do_next(owned: Owned) -> None:
    assert "10 steps in 2 segments" in owned.recorded.stdout
    key = (owned.home / "owner.pub").read_text().strip()
    assert f"gradseal verify run --key {key}" in owned.recorded.stdout
    assert owned.recorded.stderr == ""


def test_an_accepted_bundle_gives_one_json_object_and_status_0(owned: Owned) -> None:
    ended = run("verify", "run", "--key", "owner.pub", "--json", cwd=owned.home)
    assert (ended.returncode, ended.stderr) == (0, "")
    verdict = json.loads(ended.stdout)
    assert set(verdict) == {
        "outcome",
        "claims",
        "findings",
        "policy",
        "cost",
        "bundle",
        "draw",
        "record",
        "segments",
        "tolerance",
        "trust",
        "windows",
    }
    assert verdict["outcome"] == "accepted"
    assert list(verdict["claims"]) == CLAIMS
    assert [verdict["claims"][c]["status"] for c in CLAIMS] == [
        "shown",
        "not shown",
        "shown",
        "shown",
        "shown",
    ]
    assert all(line for c in CLAIMS for line in verdict["claims"][c]["evidence"])
    assert verdict["cost"]["segments_replayed"] == verdict["cost"]["segments"] == 2


def test_altered_weights_are_rejected_with_status_1(owned: Owned, tmp_path: Path) -> None:
    shutil.copytree(owned.home / "run", tmp_path / "run")
    weights = tmp_path / "run" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    ended = run("verify", "run", "--key", owned.home / "owner.pub", cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stdout.startswith("REJECTED\n")
    assert "What is wrong" in ended.stdout
    assert "[weights.safetensors]" in ended.stdout


def test_another_pinned_key_rejects_with_status_1_and_one_json_object(owned: Owned, tmp_path: Path) -> None:
    other = run("key", "new", "other.key", "--name", "other.example", cwd=tmp_path).stdout.strip()
    ended = run("verify", owned.home / "run", "--key", other, "--json", cwd=tmp_path)
    assert ended.returncode == 1
    verdict = json.loads(ended.stdout)
    assert (verdict["outcome"], verdict["claims"]["integrity"]["status"]) == ("rejected", "refuted")


def test_without_a_key_the_end_is_inconclusive_with_status_3_and_says_what_to_do(owned: Owned) -> None:
    ended = run("verify", "run", "--policy", "quick", cwd=owned.home)
    assert ended.returncode == 3
    assert ended.stdout.startswith("INCONCLUSIVE\n")
    assert "integrity (not shown)" in " ".join(ended.stdout.split())
    assert "--key" in ended.stderr


@pytest.mark.parametrize("columns", [80, 120])
def test_the_summary_is_plain_when_piped_and_no_wider_than_the_terminal(owned: Owned, columns: int) -> None:
    ended = run(
        "verify", "run", "--key", "owner.pub", "--policy", "quick", cwd=owned.home, COLUMNS=str(columns)
    )
    assert ended.returncode == 0
    lines = ended.stdout.splitlines()
    assert "\x1b" not in ended.stdout
    assert [line for line in lines if line != line.rstrip()] == []
    assert [line for line in lines if len(line) > columns and not line.startswith(("run ", "owner "))] == []
    assert [line.split()[0] for line in lines if line.startswith(tuple(CLAIMS))] == CLAIMS


ERRORS: dict[str, tuple[list[str], str]] = {
    "no such verb": (["nonsense"], "nonsense"),
    "no such bundle": (["verify", "nowhere"], "nowhere"),
    "not a bundle": (["verify", "."], "not a bundle"),
    "no such storage": (["verify", "nothing://x"], "nothing"),
    "bad key": (["verify", "run", "--key", "junk"], "'junk'"),
    "secret key": (["verify", "run", "--key", "owner.key"], "public half"),
    "bad draw": (["verify", "run", "--draw", "xy"], "hexadecimal"),
    "short draw": (["verify", "run", "--draw", "00"], "32 bytes"),
    "bad demand": (["verify", "run", "--require", "truth"], "truth"),
    "no such policy": (["verify", "run", "--policy", "lax"], "lax"),
    "no such weights": (["verify", "run", "--weights", "nowhere"], "nowhere"),
    "nothing to show": (["show", "nowhere"], "nowhere"),
    "key there already": (["key", "new", "owner.key", "--name", "x"], "never overwritten"),
    "key without a directory": (["key", "new", "no/where", "--name", "x"], "no/where"),
    "bad key name": (["key", "new", "k", "--name", "a b"], "--name"),
    "no such key": (["key", "show", "nowhere"], "nowhere"),
    "no such recipe": (["record", "nothing", "--out", "b", "--key", "owner.key"], "digits"),
    "record without a key": (["record", "digits", "--out", "b", "--key", "nowhere"], "nowhere"),
    "record over a bundle": (["record", "digits", "--out", "run", "--key", "owner.key"], "not empty"),
    "record into a file": (["record", "digits", "--out", "owner.pub", "--key", "owner.key"], "owner.pub"),
    "huge seed": (
        ["record", "digits", "--out", "b", "--key", "owner.key", "--seed", str(1 << 256)],
        "--seed",
    ),
    "demo over a bundle": (["demo", "--out", "run"], "not empty"),
    "demo into a file": (["demo", "--out", "owner.pub"], "owner.pub"),
    "unwritable": (["demo", "--out", "/proc/gradseal"], "/proc/gradseal"),
}


@pytest.mark.parametrize(("arguments", "named"), ERRORS.values(), ids=ERRORS)
def test_an_error_is_a_few_lines_on_stderr_and_status_2(
    owned: Owned, arguments: list[str], named: str
) -> None:
    ended = run(*arguments, cwd=owned.home)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "Traceback" not in ended.stderr
    assert named in ended.stderr
    assert 1 <= len(ended.stderr.splitlines()) <= 4
    assert "PRIVATE+KEY" not in ended.stderr


@pytest.mark.parametrize("name", ["no such bundle", "not a bundle", "bad key", "bad draw", "nothing to show"])
def test_with_json_an_error_is_one_object_too(owned: Owned, name: str) -> None:
    arguments, named = ERRORS[name]
    ended = run(*arguments, "--json", cwd=owned.home)
    assert ended.returncode == 2
    error: dict[str, Any] = json.loads(ended.stdout)["error"]
    assert set(error) <= {"kind", "message", "where", "advice"}
    assert named in f"{error['message']} {error.get('where', '')}"


def test_record_refuses_an_existing_directory_before_torch_is_loaded(owned: Owned) -> None:
    source = (
        "import sys\nfrom gradseal.cli import main\n"
        "try:\n    main(['record', 'digits', '--out', 'run', '--key', 'owner.key'])\n"
        "except SystemExit as e:\n    print(e.code, 'torch' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source], cwd=owned.home, capture_output=True, text=True, timeout=60, check=True
    )
    assert ended.stdout == "2 False\n"


def test_show_reads_a_bundle_without_torch_in_80_columns(owned: Owned) -> None:
    source = (
        "import sys\nfrom gradseal.cli import main\n"
        "try:\n    main(['show', 'run'])\nexcept SystemExit as e:\n"
        "    sys.exit(e.code or 'torch' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", source], cwd=owned.home, capture_output=True, text=True, timeout=60, check=True
    )
    lines = ended.stdout.splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith("owner ")] == []
    assert "nothing of it is verified" in lines[0]
    assert any(line.split()[:5] == ["segments", "2", "of", "2", "sealed,"] for line in lines)
    assert any(line.split() == ["closed", "yes"] for line in lines)


def test_show_gives_json(owned: Owned) -> None:
    said = json.loads(run("show", "run", "--json", cwd=owned.home).stdout)
    assert (said["verified"], said["closed"]) == (False, True)
    assert (said["segments_planned"], said["segments_sealed"]) == (2, 2)
    assert said["manifest"]["plan"]["steps"] == 10
    assert "entries" not in said
    with_entries = json.loads(run("show", "run", "--json", "--entries", cwd=owned.home).stdout)
    assert [e["kind"] for e in with_entries["entries"]] == ["initial", "segment", "segment", "close"]


def test_a_new_key_is_only_its_owners_and_its_public_half_is_all_that_is_printed(tmp_path: Path) -> None:
    made = run("key", "new", "k", "--name", "müller.example/models", cwd=tmp_path)
    assert made.returncode == 0
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    assert made.stdout.startswith("müller.example/models+")
    assert made.stdout.count("\n") == 1
    assert run("key", "show", "k", cwd=tmp_path).stdout == made.stdout
    secret = (tmp_path / "k").read_text().strip().split("+", 4)[4]
    assert secret not in made.stdout + made.stderr


@pytest.mark.parametrize("arguments", [["show", "run", "--entries"], ["verify", "run", "--policy", "quick"]])
def test_a_reader_that_goes_away_is_no_verdict(owned: Owned, arguments: list[str]) -> None:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=owned.home,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    said = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=100), b"Traceback" in said) == (141, False)


def test_an_interrupted_recording_ends_plainly_and_never_looks_whole(owned: Owned, tmp_path: Path) -> None:
    key = str(owned.home / "owner.key")
    command = ["record", "digits", "--out", "cut", "--key", key, "--steps", "40", "--every", "1"]
    with open(tmp_path / "stderr", "w+b") as stderr:
        process = subprocess.Popen(
            [*COMMAND, *command],
            cwd=tmp_path,
            env=environment(),
            stderr=stderr,
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + 100
        # Two entries once state zero is sealed, four once two segments are.
        while _size(tmp_path / "cut") < 4 and time.monotonic() < until:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=100)
        stderr.seek(0)
        said = stderr.read().decode()
    assert status == 130
    assert "Traceback" not in said
    assert "cut stays unfinished" in said
    shown = json.loads(run("show", "cut", "--json", cwd=tmp_path).stdout)
    assert (shown["closed"], shown["weights"]) == (False, None)
    assert shown["segments_sealed"] < shown["segments_planned"]
    verified = run("verify", "cut", "--key", owned.home / "owner.pub", "--policy", "quick", cwd=tmp_path)
    assert verified.returncode == 3
    assert "the run is not closed" in verified.stdout
    assert run(*command, cwd=tmp_path).returncode == 2  # without --resume
    resumed = run(*command, "--resume", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "going on after step " in resumed.stderr
    assert "40 steps in 40 segments" in resumed.stdout
    assert run("verify", "cut", "--key", owned.home / "owner.pub", cwd=tmp_path).returncode == 0


def _size(bundle: Path) -> int:
    """How many entries a log has that is being written."""
    try:
        return int((bundle / "checkpoint").read_text().splitlines()[1])
    except FileNotFoundError:
        return 0


def test_the_demo_is_as_promised(tmp_path: Path) -> None:
    from gradseal.attacks.tampering import TAMPERINGS

    ended = run("demo", "--out", "demo", "--steps", "20", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.count("\nrejected ") == len(TAMPERINGS) >= 6
    assert "found: nothing" not in ended.stdout
    made = tmp_path / "demo"
    assert sorted(p.name for p in made.iterdir()) == [
        "bundle",
        "key",
        "report.html",
        "trust.toml",
        "verdict.json",
    ]
    verdict = json.loads((made / "verdict.json").read_text())
    assert verdict["outcome"] == "accepted"
    assert [verdict["claims"][c]["status"] for c in CLAIMS] == ["shown"] * 5
    page = (made / "report.html").read_text()
    assert page.count('class="mark rejected"') == len(TAMPERINGS)
    assert "<script" not in page
    assert "://" not in page
    again = run("verify", "demo/bundle", "--json", cwd=tmp_path)
    assert again.returncode == 3


def test_time_from_the_command_line(tmp_path: Path) -> None:
    """Recorded with slots and anchors, shown, anchored once more, and verified with pins and without."""
    (tmp_path / "owner.pub").write_text(
        run("key", "new", "owner.key", "--name", "example.org/models", cwd=tmp_path).stdout
    )
    owner = VerificationKey.parse((tmp_path / "owner.pub").read_text().strip(), where="owner.pub")
    (tmp_path / "services").mkdir()
    with Loopback(tmp_path / "services", owner) as loopback:
        write_trust(loopback.trust, tmp_path / "trust.toml")
        recorded = run(
            *("record", "digits", "--out", "run", "--key", "owner.key", "--steps", "10"),
            *("--anchors", "trust.toml", "--cadence", "8", "--lead", "5"),
            cwd=tmp_path,
        )
        assert (recorded.returncode, recorded.stderr) == (0, ""), recorded.stderr
        assert "--trust trust.toml" in recorded.stdout
        again = run("anchor", "run", "--anchors", "trust.toml", cwd=tmp_path)
        assert (again.returncode, again.stderr) == (0, "")
        assert "anchored by 1 witnesses and 1 time-stamps" in again.stdout
    away = run("anchor", "run", "--anchors", "trust.toml", "--timeout", "2", cwd=tmp_path)
    assert away.returncode == 2
    assert away.stderr.count("not anchored: ") == 2
    shown = run("show", "run", cwd=tmp_path)
    assert "slots           of 8 s, seeds from a beacon" in shown.stdout
    verified = run("verify", "run", "--trust", "trust.toml", "--require", "precedence", cwd=tmp_path)
    assert verified.returncode == 0, verified.stdout
    assert "precedence      shown" in verified.stdout
    unpinned = run("verify", "run", "--key", "owner.pub", "--require", "precedence", cwd=tmp_path)
    assert unpinned.returncode == 3
    assert "is not pinned" in unpinned.stdout


def test_what_keeps_precedence_from_being_shown_is_told_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "owner.pub").write_text(
        run("key", "new", "owner.key", "--name", "example.org/models", cwd=tmp_path).stdout
    )
    owner = VerificationKey.parse((tmp_path / "owner.pub").read_text().strip(), where="owner.pub")
    (tmp_path / "services").mkdir()
    arguments = ["record", "digits", "--key", "owner.key", "--steps", "5", "--anchors", "trust.toml"]
    with Loopback(tmp_path / "services", owner) as loopback:
        write_trust(replace(loopback.trust, skew_seconds=30.0), tmp_path / "trust.toml")
        short = run(*arguments, "--out", "short", "--cadence", "8", "--lead", "5", cwd=tmp_path)
        assert short.returncode == 0, short.stderr
        assert short.stderr.count("warning: ") == short.stderr.count("\n") >= 2
        assert "a lead of 5 s" in short.stderr
        assert "slots of 8 s" in short.stderr
        write_trust(replace(loopback.trust, relay_urls={}), tmp_path / "trust.toml")
        declared = run(*arguments, "--out", "declared", cwd=tmp_path)
        assert "the seed is declared" in declared.stderr
        refused = run(*arguments, "--out", "refused", "--cadence", "8", cwd=tmp_path)
        assert refused.returncode == 2
        assert "--cadence" in refused.stderr
