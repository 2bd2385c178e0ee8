"""Every attack on time is carried out, and judged by the verifier alone; and an honest run is shown.

Real services over HTTP on loopback, by a clock that the tests move on; real rounds, cosignatures, tokens and
replays.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from attack_table import PAGE, REFUSED, ROWS, differences, judge, page
from attack_world import DEMANDING, SKEW_SECONDS, World, plain_sgd, world
from bundles import KEY, cross_entropy, digits, mlp
from gradseal.attacks.history import History
from gradseal.attacks.precedence import ATTACKS, HARMLESS, LIMITS
from gradseal.attacks.services import SERVICES
from gradseal.attacks.slots import FOUR
from gradseal.errors import AnchorError
from gradseal.precede.log import read_log
from gradseal.precede.witnesses import WitnessAddress, cosign
from gradseal.program.initialise import initialise
from gradseal.proof.anchors import INDEX
from gradseal.proof.bundle import open_bundle
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.manifest import Manifest
from gradseal.record.recorder import record
from gradseal.store.files import FsspecFiles
from gradseal.verify.policy import Policy
from gradseal.verify.verdict import ClaimName, Outcome, Status
from gradseal.verify.verifier import verify
from gradseal.witness.app import make_app
from gradseal.witness.logs import Logs
from gradseal.witness.loopback import Loopback, _Service
from gradseal.witness.mark import Mark
from gradseal.witness.storage import RolledBack, SqliteStorage
from in_process import InProcess

ALL = {**ATTACKS, **HARMLESS, **LIMITS}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("attacks") / "world") as made:
        yield made


def test_every_attack_has_a_row() -> None:
    assert ROWS.keys() == ALL.keys()
    assert REFUSED.keys() == SERVICES.keys()
    assert len(ALL) == len(ATTACKS) + len(HARMLESS) + len(LIMITS)


def test_no_attack_is_said_to_be_shown_but_those_that_are_named_as_such() -> None:
    assert {name for name, row in ROWS.items() if row.status is Status.SHOWN} == {*HARMLESS, *LIMITS}


@pytest.mark.parametrize("name", ALL)
def test_an_attack_comes_out_as_the_table_says(own: World, tmp_path: Path, name: str) -> None:
    verdict = judge(own, name, ALL[name], tmp_path / "bundle")
    assert differences(name, verdict) == []


@pytest.mark.parametrize("name", SERVICES)
def test_an_attack_on_a_service_is_refused(own: World, tmp_path: Path, name: str) -> None:
    with pytest.raises(AnchorError) as caught:
        SERVICES[name].make(own.scene(tmp_path / "bundle"))
    assert REFUSED[name] in str(caught.value)


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make attacks"


def test_a_run_recorded_in_real_time_is_shown(tmp_path: Path) -> None:
    with Loopback(tmp_path, KEY.verification_key) as services:
        trust, beacon = services.trust, services.beacon(cadence_seconds=4, lead_seconds=4)
        with initialise():
            model = mlp()
        with record(
            tmp_path / "bundle",
            model,
            plain_sgd(model),
            loss=cross_entropy,
            data=digits(400),
            batch_size=16,
            steps=8,
            every=2,
            key=KEY,
            beacon=beacon,
            witnesses=trust.witness_addresses(),
            timestamps=trust.timestampers(),
            progress=False,
        ) as run:
            for batch in run:
                run.step(batch)
                time.sleep(1.0)
    verdict = verify(tmp_path / "bundle", DEMANDING, trust=trust)
    claim = verdict.claims[ClaimName.PRECEDENCE]
    assert (verdict.outcome, claim.status) == (Outcome.ACCEPTED, Status.SHOWN), claim.evidence


def test_what_was_passed_over_amended_or_late_is_said(own: World, tmp_path: Path) -> None:
    said = {
        name: judge(own, name, ALL[name], tmp_path / name / "bundle")
        for name in ("seeds passed over", "amendment in time", "one late segment")
    }
    assert said["seeds passed over"].windows.passed_over > 0
    (gap,) = said["one late segment"].windows.gaps
    assert (gap.first_segment, gap.last_segment, gap.recorded) == (3, 3, False)
    (amended,) = [f for f in said["amendment in time"].findings if f.check.value == "amendments"]
    assert amended.result.value == "held"


def test_the_first_segment_of_an_amendment_is_replayed_whatever_the_draw(own: World, tmp_path: Path) -> None:
    ALL["amendment in time"].forge(own.scene(tmp_path / "bundle"))
    verdict = verify(tmp_path / "bundle", Policy.named("quick"), trust=own.pins["all"], executor=InProcess())
    assert verdict.cost.segments_replayed == 3  # the first, the last, and segment 2


def test_no_bit_of_a_seed_depends_on_an_anchor(own: World, tmp_path: Path) -> None:
    """One run with all anchors, one with others, one with none: the same seeds, and the same states."""
    scene, plan = own.scene(tmp_path / "bundle"), None
    logs = []
    for number in range(3):
        plan = plan or scene.plan()
        history = History(scene=scene, plan=plan, target=tmp_path / f"{number}")
        history.publish()
        for _ in range(number):
            history.anchor()
            scene.clock.until(scene.clock() + 1)
        logs.append(history)
    for history in logs:
        history.train(FOUR, anchored=history is logs[1])
        history.finish(anchored=history is not logs[0])
    read = [_entries(tmp_path / f"{number}") for number in range(3)]
    assert read[0] == read[1] == read[2]
    kept = [(tmp_path / f"{number}" / "anchors").is_dir() for number in range(3)]
    assert kept == [False, True, True]
    assert (tmp_path / "1" / INDEX).read_bytes() != (tmp_path / "2" / INDEX).read_bytes()


def _entries(path: Path) -> list[tuple[bytes, ...]]:
    entries = open_bundle(FsspecFiles(str(path))).all_entries()
    seeds = read_log(Manifest.decode(entries[0]), entries).seeds()
    assert seeds is not None
    return [tuple(entries), tuple(stretch.seed for stretch in seeds.stretches)]


def test_a_witness_whose_database_was_rolled_back_is_noticed(own: World, tmp_path: Path) -> None:
    """By its mark when it starts; without one, by the client that knows what was cosigned."""
    database, key = tmp_path / "witness.sqlite", CosigningKey.generate("rolled.example/witness")
    logs, mark = Logs([KEY.verification_key]), tmp_path / "mark"
    scene = own.scene(tmp_path / "bundle")
    history = History(scene=scene, plan=scene.plan())
    history.publish()

    def served(*, marked: bool) -> _Service:
        storage = SqliteStorage(database)
        try:
            app = make_app(storage=storage, keys=[key], logs=logs, mark=Mark(mark) if marked else None)
        except RolledBack:
            storage.close()
            raise
        return _Service("rolled-back", app)

    def ask(url: str, size: int, known: int) -> None:
        address = WitnessAddress(key=key.verification_key, url=url)
        cosign(address, history.notes[size], known_size=known, prove=history.tree.consistency_proof)

    with served(marked=True) as service:
        ask(service.url, 1, 0)
    backup = database.read_bytes()
    history.train((0,), anchored=False)
    with served(marked=True) as service:
        ask(service.url, 4, 1)
    for file in tmp_path.glob("witness.sqlite*"):
        file.unlink()
    database.write_bytes(backup)
    with pytest.raises(RolledBack, match="went back"):
        served(marked=True)
    history.train((1,), anchored=False)
    with served(marked=False) as service, pytest.raises(AnchorError, match="it was rolled back"):
        ask(service.url, 6, 4)


def test_what_a_bundle_brings_along_is_not_read(own: World, tmp_path: Path) -> None:
    """The verdict is the same without the files, and with the pins of the file that the bundle brings."""
    ATTACKS["trust brought along"].forge(own.scene(tmp_path / "bundle"))
    brought = ("trust.toml", "roots.pem", "policy")
    assert all((tmp_path / "bundle" / name).is_file() for name in brought)
    shutil.copytree(tmp_path / "bundle", tmp_path / "without")
    for name in brought:
        (tmp_path / "without" / name).unlink()
    draw = bytes(32)
    with_, without = (
        verify(tmp_path / path, DEMANDING, trust=own.pins["all"], executor=InProcess(), draw=draw)
        for path in ("bundle", "without")
    )
    assert with_.findings == without.findings
    assert with_.claims == without.claims


def test_the_skew_of_the_verifier_counts_against_the_owner(own: World, tmp_path: Path) -> None:
    """A manifest anchored less before slot 0 than clocks may be off is not shown to be from before it."""
    scene = own.scene(tmp_path / "bundle")
    history = History(scene=scene, plan=scene.plan())
    scene.clock.until(history.slot_plan.begins(0) - SKEW_SECONDS)
    history.begin()
    history.train(FOUR)
    history.finish()
    verdict = verify(tmp_path / "bundle", DEMANDING, trust=own.pins["all"], executor=InProcess())
    assert verdict.claims[ClaimName.PRECEDENCE].status is Status.NOT_SHOWN
