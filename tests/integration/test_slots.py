"""Runs with a beacon's seeds and real anchors, recorded and verified as a user would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader

from bundles import KEY, cross_entropy, digits, mlp, own_step, sgd
from gradseal.errors import AnchorError, RecordError, RecordWarning
from gradseal.precede.beacons import Beacon
from gradseal.precede.hosts import Hosts
from gradseal.precede.log import Log, read_log
from gradseal.precede.relays import Relays
from gradseal.precede.trust import Trust
from gradseal.precede.witnesses import WitnessAddress
from gradseal.program.initialise import initialise
from gradseal.proof.anchors import Anchored, read_index
from gradseal.proof.bundle import open_bundle
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.manifest import Manifest
from gradseal.proof.merkle import leaf_hash
from gradseal.proof.note import open_note, sign_note
from gradseal.record.anchoring import Anchoring
from gradseal.record.recorder import record
from gradseal.record.run import Run
from gradseal.store.files import FsspecFiles
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import Check, ClaimName, Result, Status, Verdict
from gradseal.verify.verifier import verify
from gradseal.witness.loopback import Loopback

CADENCE = 5


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    with Loopback(tmp_path_factory.mktemp("loopback"), KEY.verification_key) as running:
        yield running


@pytest.fixture(scope="module")
def trust(loopback: Loopback) -> Trust:
    """Whose earlier bound counts, the witness's, so that slots can be short."""
    return replace(loopback.trust, combine="any")


def begin(path: Path, loopback: Loopback, **options: Any) -> tuple[Run, Any]:
    with initialise():
        model = mlp()
    optimizer = options.pop("optimizer", sgd)(model)
    settings: dict[str, Any] = {
        "steps": 40,
        "every": 2,
        "batch_size": 16,
        "beacon": loopback.beacon(cadence_seconds=CADENCE, lead_seconds=3),
        "witnesses": loopback.trust.witness_addresses(),
        "timestamps": loopback.trust.timestampers(),
    }
    settings |= options
    settings = {"data": digits(400)} | settings
    run = record(path, model, optimizer, loss=cross_entropy, key=KEY, **settings)
    return run, own_step(model, optimizer)


def train(run: Run, *, pace: float = 0.3, stop_after: int | None = None) -> None:
    """Steps at a pace that takes several slots."""
    for batch in run:
        run.step(batch)
        if run.steps_done == stop_after:
            raise KeyboardInterrupt
        time.sleep(pace)


def log_of(path: Path) -> Log:
    bundle = open_bundle(FsspecFiles(str(path)))
    entries = bundle.all_entries()
    return read_log(Manifest.decode(entries[0]), entries)


def precedence(verdict: Verdict) -> Status:
    return verdict.claims[ClaimName.PRECEDENCE].status


def said(verdict: Verdict, check: Check) -> str:
    return " | ".join(f.message for f in verdict.findings if f.check is check)


@pytest.mark.parametrize("mode", ["step", "wrap"])
def test_every_claim_is_shown(tmp_path: Path, loopback: Loopback, trust: Trust, mode: str) -> None:
    path = tmp_path / "bundle"
    recording, own = begin(path, loopback)
    with recording as run:
        step = run.step if mode == "step" else run.wrap(own)
        for batch in run:
            step(batch)
            time.sleep(0.3)
    verdict = verify(path, trust=trust)
    assert {claim.status for claim in verdict.claims.values()} == {Status.SHOWN}, verdict.claims
    windows, log = verdict.windows, log_of(path)
    assert windows.manifest is not None
    assert windows.start is not None
    assert windows.manifest < windows.start
    assert len(log.slots) == windows.slots >= 3
    assert [w.slot for w in windows.segments] == log.slots_by_segment()
    for window in windows.segments:
        assert window.not_before is not None
        assert window.not_after is not None
        assert window.not_before < window.not_after < window.not_before + 3 * CADENCE
    # Without pins the same bundle shows nothing of time, and all else.
    assert precedence(verify(path, keys=[KEY.verification_key])) is Status.NOT_SHOWN


def test_hosts_that_are_away_become_gaps_and_never_stop_the_training(
    tmp_path: Path, loopback: Loopback, trust: Trust
) -> None:
    path = tmp_path / "bundle"
    away = [WitnessAddress(key=w.key, url="http://127.0.0.1:9") for w in trust.witness_addresses()]
    with (
        pytest.warns(RecordWarning, match="not anchored: witness"),
        begin(path, loopback, witnesses=away, timestamps=())[0] as run,
    ):
        train(run)
    gaps = log_of(path).gaps
    assert [gap.entry.cause for gap in gaps] == ["anchor"] * len(gaps)
    assert gaps
    verdict = verify(path, trust=trust)
    assert precedence(verdict) is Status.NOT_SHOWN
    assert "nothing anchors the log" in said(verdict, Check.ANCHORS)


def test_a_beacon_that_goes_away_leaves_the_seed_as_it_was(
    tmp_path: Path, loopback: Loopback, trust: Trust, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bundle"
    began = time.time()
    given = Relays.fetch

    def fetch(self: Relays, number: int, **options: Any) -> Any:
        if CADENCE * 2 < time.time() - began < CADENCE * 5:
            raise AnchorError("away")
        return given(self, number, **options)

    monkeypatch.setattr(Relays, "fetch", fetch)
    with begin(path, loopback, steps=90)[0] as run:
        train(run)
    log = log_of(path)
    missed = [gap.entry for gap in log.gaps if gap.entry.cause == "beacon"]
    assert missed
    used = {slot.entry.index for slot in log.slots}
    assert not used & set(range(missed[0].first_slot, missed[0].last_slot + 1))
    verdict = verify(path, trust=trust)
    assert verdict.windows.gaps
    assert verdict.windows.gaps[0].recorded
    assert verdict.claims[ClaimName.COMPUTATION].status is Status.SHOWN


def test_a_segment_longer_than_its_slots_is_a_recorded_gap(
    tmp_path: Path, loopback: Loopback, trust: Trust
) -> None:
    path = tmp_path / "bundle"
    beacon = loopback.beacon(cadence_seconds=2, lead_seconds=3)
    with begin(path, loopback, beacon=beacon, steps=8, every=4)[0] as run:
        train(run, pace=2)
    gaps = [gap.entry for gap in log_of(path).gaps]
    assert [gap.cause for gap in gaps] == ["anchor"] * len(gaps)
    assert gaps[0].first_slot == 0
    verdict = verify(path, trust=trust)
    assert precedence(verdict) is Status.NOT_SHOWN
    assert all(gap.recorded for gap in verdict.windows.gaps)
    assert "off the plan's cadence" in verdict.claims[ClaimName.PRECEDENCE].evidence[0]


def test_what_was_not_anchored_is_anchored_when_the_run_is_taken_up_again(
    tmp_path: Path, loopback: Loopback, trust: Trust
) -> None:
    path = tmp_path / "bundle"
    away = [WitnessAddress(key=w.key, url="http://127.0.0.1:9") for w in trust.witness_addresses()]
    options: dict[str, Any] = {"steps": 2, "beacon": None, "seed": 1, "timestamps": ()}
    with pytest.warns(RecordWarning), begin(path, loopback, witnesses=away, **options)[0] as run:
        train(run, pace=0)
    assert not read_index(FsspecFiles(str(path)))
    for _ in range(2):
        with begin(path, loopback, resume=True, **options)[0] as run:
            assert list(run) == []
    (anchored,) = read_index(FsspecFiles(str(path)))
    assert anchored.size == open_bundle(FsspecFiles(str(path))).checkpoint.size


def test_a_host_that_was_away_is_asked_again_for_the_same_checkpoint(tmp_path: Path) -> None:
    class Stamper:
        def __init__(self, name: str, away: int) -> None:
            self.name, self.away = name, away

        def stamp(self, digest: bytes) -> bytes:
            self.away -= 1
            if self.away >= 0:
                raise AnchorError("away")
            return self.name.encode() + digest

    hosts = Hosts([], [Stamper("steady", 0), Stamper("away once", 1)])
    anchoring = Anchoring(FsspecFiles(str(tmp_path)), hosts, plan=None)
    leaf = leaf_hash(b"entry")
    text = Checkpoint(origin="owner.example/run", size=1, root=leaf).text()
    anchoring.published(open_note(sign_note(text, [KEY]), where="checkpoint"), [leaf])
    assert not anchoring.now()
    assert anchoring.now()
    assert read_index(FsspecFiles(str(tmp_path))) == (Anchored(size=1, timestamps=2),)


def test_a_manifest_that_nobody_anchors_is_told_at_once(tmp_path: Path, loopback: Loopback) -> None:
    options = {"witnesses": (), "timestamps": (), "steps": 2}
    with (
        pytest.warns(RecordWarning, match="the manifest is not anchored before slot 0"),
        begin(tmp_path / "bundle", loopback, **options)[0] as run,
    ):
        train(run, pace=0)


def test_workers_read_ahead_in_the_order_of_each_seed(
    tmp_path: Path, loopback: Loopback, trust: Trust
) -> None:
    path = tmp_path / "bundle"
    loader: DataLoader[Any] = DataLoader(digits(400), batch_size=16, shuffle=True, num_workers=1)
    with begin(path, loopback, data=loader, batch_size=16)[0] as run:
        train(run)
    assert len(log_of(path).slots) >= 3
    verdict = verify(path, trust=trust)
    assert {claim.status for claim in verdict.claims.values()} == {Status.SHOWN}, verdict.claims


def test_a_sample_of_segments_supports_precedence(tmp_path: Path, loopback: Loopback, trust: Trust) -> None:
    path = tmp_path / "bundle"
    with begin(path, loopback)[0] as run:
        train(run)
    sampled = replace(Policy.named("standard"), tolerated_fraction=0.3, tolerated_length=None, longest=0)
    verdict = verify(path, sampled, trust=trust)
    assert precedence(verdict) is Status.SUPPORTED
    assert "drawn uniformly" in verdict.claims[ClaimName.PRECEDENCE].evidence[-1]
    quick = verify(path, Policy.named("quick"), trust=trust)
    assert precedence(quick) is Status.NOT_SHOWN
    assert "nothing bounds the rest" in quick.claims[ClaimName.PRECEDENCE].evidence[-1]


def test_a_beacon_that_cannot_be_reached_is_an_error_before_anything_is_trained(
    tmp_path: Path, loopback: Loopback
) -> None:
    relays = Relays(loopback.chain, ["http://127.0.0.1:9"])
    beacon = Beacon(relays=(relays,), cadence_seconds=2, lead_seconds=0, patience_seconds=0.5)
    with pytest.raises(AnchorError, match="no relay gave round"):
        begin(tmp_path / "bundle", loopback, beacon=beacon)


def test_a_run_goes_on_in_later_slots(tmp_path: Path, loopback: Loopback, trust: Trust) -> None:
    path = tmp_path / "bundle"
    with pytest.raises(KeyboardInterrupt), begin(path, loopback)[0] as run:
        train(run, stop_after=21)
    before = log_of(path)
    time.sleep(2 * CADENCE)
    with begin(path, loopback, resume=True)[0] as run:
        assert run.steps_done == 20
        train(run)
    log = log_of(path)
    assert log.slots[: len(before.slots)] == before.slots
    assert log.slots[len(before.slots)].entry.index > before.slots[-1].entry.index + 1
    assert any(gap.entry.cause == "anchor" for gap in log.gaps)
    verdict = verify(path, trust=trust)
    assert verdict.claims[ClaimName.COMPUTATION].status is Status.SHOWN, verdict.findings
    assert verdict.windows.passed_over > 0


def test_a_run_with_slots_is_not_gone_on_with_without_a_beacon(tmp_path: Path, loopback: Loopback) -> None:
    path = tmp_path / "bundle"
    with pytest.raises(KeyboardInterrupt), begin(path, loopback, steps=4)[0] as run:
        train(run, pace=0, stop_after=3)
    with pytest.raises(RecordError, match="draws from a beacon"):
        begin(path, loopback, resume=True, beacon=None)


def test_a_seed_and_a_beacon_exclude_each_other(tmp_path: Path, loopback: Loopback) -> None:
    with pytest.raises(RecordError, match="both a seed and a beacon"):
        begin(tmp_path / "bundle", loopback, seed=1)


@pytest.mark.parametrize("waiting", [True, False])
def test_an_amendment_is_in_force_from_a_later_slot_and_survives_an_interruption(
    tmp_path: Path, loopback: Loopback, trust: Trust, waiting: bool
) -> None:
    path = tmp_path / "bundle"
    with pytest.raises(KeyboardInterrupt), begin(path, loopback, steps=90)[0] as run:
        for batch in run:
            run.step(batch)
            if run.steps_done == 2:
                slot = run.amend(lr=0.01, clip=1.0)
            if run.steps_done == (7 if waiting else 81):
                raise KeyboardInterrupt
            time.sleep(0.3)
    assert len(log_of(path).programs()) == 2
    assert (log_of(path).slots[-1].entry.index < slot) == waiting
    run, _ = begin(path, loopback, steps=90, resume=True)
    with run:
        train(run, pace=0.3 if waiting else 0)
    log = log_of(path)
    assert [a.entry.slot for a in log.amendments] == [slot]
    (_, first), (amended, second) = log.programs()
    assert first != second
    assert log.slots_by_segment()[amended] >= slot  # type: ignore[operator]
    verdict = verify(path, trust=trust)
    assert verdict.claims[ClaimName.COMPUTATION].status is Status.SHOWN, verdict.findings
    assert [f.result for f in verdict.findings if f.check is Check.AMENDMENTS] == [Result.HELD]


def test_what_cannot_be_amended(tmp_path: Path, loopback: Loopback) -> None:
    with begin(tmp_path / "bundle", loopback, steps=2)[0] as run:
        for settings, message in (
            ({}, "nothing to change"),
            ({"nesterov": True}, "has only"),
            ({"lr": float("nan")}, "not a number"),
            ({"lr": 0.1, "group": 3}, "no group 3"),
            ({"clip": -1.0}, "not a largest norm"),
        ):
            with pytest.raises(RecordError, match=message):
                run.amend(**settings)
        train(run, pace=0)
    declared, _ = begin(tmp_path / "declared", loopback, steps=2, beacon=None, seed=1)
    with declared as run:
        with pytest.raises(RecordError, match="declared seed cannot be amended"):
            run.amend(lr=0.1)
        train(run, pace=0)
    verdict = verify(tmp_path / "declared", trust=loopback.trust)
    assert precedence(verdict) is Status.SUPPORTED
