"""Verification of honest bundles, and of bundles of which something is absent, unknown or cannot be run."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.utils.data import TensorDataset

from bundles import (
    KEY,
    MODELS,
    OTHER_KEY,
    Forgery,
    NoReplay,
    check,
    cross_entropy,
    digits,
    findings,
    known,
    linear,
    record_run,
    sign_entries,
    statuses,
)
from gradseal.attacks.tampering import copy_bundle
from gradseal.errors import MalformedBundle, MissingFile
from gradseal.precede.log import read_log
from gradseal.program.graph import Ref
from gradseal.program.memory import weights_file
from gradseal.program.native import Environment, current_environment
from gradseal.program.release import Release
from gradseal.proof.bundle import open_bundle
from gradseal.proof.canonical import decode, encode
from gradseal.proof.files import CHECKPOINT, WEIGHTS, blob_path, opening_path, read_blob
from gradseal.proof.manifest import Manifest
from gradseal.proof.note import sign_note
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import order_of
from gradseal.verify.distances import Distances
from gradseal.verify.evidence import samples_used
from gradseal.verify.executors import Ready, Request
from gradseal.verify.lengths import Lengths
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.policy import POLICIES, Policy
from gradseal.verify.verdict import Check, ClaimName, Outcome, Result, Verdict
from gradseal.verify.verifier import verify

Recorded = Callable[..., Path]
ALL_SHOWN = {
    "integrity": "shown",
    "precedence": "not shown",
    "initialisation": "shown",
    "data": "shown",
    "computation": "shown",
}


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 segments of one step each."""
    path = tmp_path_factory.mktemp("long") / "bundle"
    record_run(path, linear, steps=60, every=1, data=digits(8), batch_size=4)
    return path


@pytest.mark.parametrize("mode", ["step", "wrap"])
@pytest.mark.parametrize("model", MODELS)
def test_an_honest_run_is_shown_in_full(recorded: Recorded, model: str, mode: str) -> None:
    bundle = recorded(model, mode)
    verdict = check(bundle)
    assert statuses(verdict) == ALL_SHOWN
    assert verdict.outcome is Outcome.ACCEPTED
    assert [f for f in verdict.findings if f.result in (Result.REFUTED, Result.UNDECIDED)] == []
    noted = [f.check for f in findings(verdict, Result.NOTED)]
    assert Check.PROGRAM not in noted, "graphs that differ in shapes alone are one program"
    assert (verdict.cost.segments_replayed, verdict.cost.segments, verdict.cost.steps_replayed) == (3, 3, 6)
    assert "all 3 segments replay bit for bit" in verdict.claims[ClaimName.COMPUTATION].evidence[0]


def test_step_and_wrap_record_the_same_states(recorded: Recorded) -> None:
    for model in MODELS:
        # One seed, owner and program give one manifest, and so one log.
        step, wrap = (open_bundle(FsspecFiles(str(recorded(model, mode)))) for mode in ("step", "wrap"))
        assert step.all_entries() == wrap.all_entries(), model


def test_a_run_of_partial_batches_has_a_program_for_each_size(recorded: Recorded) -> None:
    bundle = open_bundle(FsspecFiles(str(recorded("digits"))))
    manifest = Manifest.decode(bundle.all_entries()[0])
    program = decode(read_blob(bundle.files, manifest.program, 1 << 26), where="program", max_bytes=1 << 26)
    assert isinstance(program, dict)
    graphs = program["graphs"]
    assert isinstance(graphs, list)
    assert [g["batch_size"] for g in graphs if isinstance(g, dict)] == [8, 16]


def test_the_quick_policy_replays_the_ends_alone(long_run: Path) -> None:
    # Of several keys that are pinned, any one will do.
    keys = [OTHER_KEY.verification_key, KEY.verification_key]
    verdict = check(long_run, "quick", keys=keys)
    assert verdict.outcome is Outcome.ACCEPTED
    assert verdict.cost.segments_replayed == 2
    assert statuses(verdict) == {**ALL_SHOWN, "data": "not shown", "computation": "not shown"}


def test_the_standard_policy_supports_computation_by_a_sample(long_run: Path) -> None:
    verdict = check(long_run, "standard", draw=bytes(32))
    assert verdict.outcome is Outcome.ACCEPTED
    assert statuses(verdict) == {**ALL_SHOWN, "data": "supported", "computation": "supported"}
    assert 40 < verdict.cost.segments_replayed < 60
    ground, uniform, by_length = verdict.claims[ClaimName.COMPUTATION].evidence[:3]
    assert ground == f"{verdict.cost.segments_replayed} segments replay bit for bit"
    assert "34 of 48 other segments drawn uniformly: with 97.5% confidence at most 2 are forged" in uniform
    assert "36 draws by length" in by_length
    assert "at most 9.8% of the others' length is forged; both hold with 95%" in by_length
    assert by_length.endswith("of ‖W_T − W_0‖")
    again = check(long_run, "standard", draw=bytes.fromhex(verdict.draw))
    assert [f.to_json() for f in again.findings] == [f.to_json() for f in verdict.findings]


def test_lengths_that_are_not_known_are_said_not_to_be(
    long_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are replayed as the longest: more is drawn, and nothing is claimed by a sample."""
    known = Lengths.end_state

    def not_all_known(lengths: Lengths, seal: bytes, digests: Sequence[bytes]) -> None:
        known(lengths, seal, digests)
        if 20 <= len(lengths.updates) <= 40:
            lengths.updates[-1] = math.nan

    monkeypatch.setattr(Lengths, "end_state", not_all_known)
    # In a run so short as many draws as by length and uniformly together are all there is.
    assert statuses(check(long_run, "standard", draw=bytes(32)))["computation"] == "shown"
    easy = replace(Policy.named("standard"), tolerated_fraction=0.2, tolerated_length=0.5)
    verdict = check(long_run, easy, draw=bytes(32))
    assert statuses(verdict)["computation"] == "not shown"
    (ground, *_) = verdict.claims[ClaimName.COMPUTATION].evidence
    assert ground.endswith("segments replay bit for bit; no bound on the others, whose lengths are not known")
    assert set(range(19, 29)) <= {row.number for row in verdict.segments.rows if row.replayed}


def test_a_sample_of_a_short_run_is_all_of_it(recorded: Recorded) -> None:
    assert statuses(check(recorded(), "standard")) == ALL_SHOWN


def test_a_partial_replay_never_satisfies_the_full_policy(recorded: Recorded) -> None:
    ends = replace(Policy.named("quick"), require=POLICIES["full"].require)
    verdict = check(recorded(), ends, executor=Elsewhere({}, error=0))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict)["computation"] == "not shown"


def test_without_a_pinned_key_integrity_is_self_consistency(recorded: Recorded) -> None:
    verdict = check(recorded(), keys=[])
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict) == {**ALL_SHOWN, "integrity": "not shown"}
    assert verdict.claims[ClaimName.INTEGRITY].evidence[0].startswith("self-consistent")


def test_another_pinned_key_rejects(recorded: Recorded) -> None:
    verdict = check(recorded(), keys=[OTHER_KEY.verification_key], executor=NoReplay())
    assert verdict.outcome is Outcome.REJECTED
    (finding,) = findings(verdict, Result.REFUTED)
    assert (finding.check, finding.where) == (Check.PINNED_KEY, "checkpoint")
    assert statuses(verdict)["integrity"] == "refuted"


def test_a_pinned_key_that_signed_another_owners_log_rejects(recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_bundle(recorded(), tmp_path / "copy", KEY)
    text = open_bundle(copy.files).note.text
    copy.files.write(CHECKPOINT, sign_note(text, [KEY, OTHER_KEY]))
    verdict = check(tmp_path / "copy", keys=[OTHER_KEY.verification_key], executor=NoReplay())
    assert verdict.outcome is Outcome.REJECTED
    (finding,) = findings(verdict, Result.REFUTED)
    assert (finding.check, finding.where) == (Check.PINNED_KEY, "entry 0: owner")


def test_the_weights_that_are_handed_in_are_compared(recorded: Recorded, tmp_path: Path) -> None:
    own = recorded() / WEIGHTS
    tensors = safetensors.torch.load_file(own)
    verdict = check(recorded(), weights=own, executor=Elsewhere({}, error=0))
    assert verdict.outcome is Outcome.ACCEPTED
    assert any("handed in" in f.message for f in findings(verdict, Result.HELD, Check.WEIGHTS))

    other = tmp_path / "other.safetensors"
    safetensors.torch.save_file(tensors, other, metadata={"format": "pt"})
    verdict = check(recorded(), weights=other, executor=Elsewhere({}, error=0))
    assert verdict.outcome is Outcome.ACCEPTED, "a file of the verifier's own may have metadata"

    tensors["1.bias"][0] += 1
    safetensors.torch.save_file(tensors, other)
    verdict = check(recorded(), weights=other, executor=NoReplay())
    assert verdict.outcome is Outcome.REJECTED
    (finding,) = findings(verdict, Result.REFUTED)
    assert (finding.check, finding.where) == (Check.WEIGHTS, str(other))
    assert "'1.bias'" in finding.message

    del tensors["1.bias"]
    safetensors.torch.save_file(tensors, other)
    (finding,) = findings(check(recorded(), weights=other, executor=NoReplay()), Result.REFUTED)
    assert "'1.bias' is missing" in finding.message

    with pytest.raises(MissingFile):
        check(recorded(), weights=tmp_path / "none", executor=NoReplay())

    other.write_bytes(b"no tensors")
    with pytest.raises(MalformedBundle) as told:  # it says nothing of the record
        check(recorded(), weights=other, executor=NoReplay())
    assert told.value.where == str(other)


def test_an_unclosed_run_is_replayed_as_far_as_it_is_sealed(tmp_path: Path) -> None:
    record_run(tmp_path / "bundle", stop_after=5)
    verdict = check(tmp_path / "bundle")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = findings(verdict, Result.UNDECIDED)
    assert "2 of 3 segments are sealed, the last is segment 1" in finding.message
    assert finding.where == "entry 4"
    assert verdict.cost.segments_replayed == 2
    assert statuses(verdict) == {
        "integrity": "not shown",
        "precedence": "not shown",
        "initialisation": "shown",
        "data": "not shown",
        "computation": "not shown",
    }
    assert "2 segments replay" in verdict.claims[ClaimName.COMPUTATION].evidence[0]


def test_a_run_that_sealed_nothing_but_state_zero_is_inconclusive(tmp_path: Path) -> None:
    record_run(tmp_path / "bundle", stop_after=0)
    verdict = check(tmp_path / "bundle", executor=NoReplay())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "no segment is sealed" in findings(verdict, Result.UNDECIDED)[0].message


@pytest.mark.parametrize(
    "what",
    ["program", "graph", "schema", "shard", "leaves", "losses", "tensor", "opening", "weights", "tile"],
)
def test_what_is_absent_is_named(recorded: Recorded, tmp_path: Path, what: str) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    files, manifest = forgery.copy.files, forgery.manifest
    path = {
        "program": blob_path(manifest.program),
        "graph": blob_path(forgery.program.graphs[16]),
        "schema": blob_path(manifest.data.schema),
        "shard": blob_path(read_blob(files, manifest.data.shards, 1 << 20)[:32]),
        "leaves": blob_path(manifest.data.leaves),
        "losses": blob_path(forgery.losses[1]),
        "tensor": blob_path(forgery.states[2]["parameters/1.weight"]),
        "opening": opening_path(forgery.copy.segment(1).seal),
        "weights": WEIGHTS,
        "tile": "tile/0/000.p/6",
    }[what]
    files.delete(path)
    for policy in ("quick", "standard", "full"):
        verdict = check(tmp_path / "copy", policy, executor=NoReplay())
        assert verdict.outcome is Outcome.INCONCLUSIVE
        (finding,) = findings(verdict, Result.UNDECIDED)
        assert (finding.where, finding.message.endswith("is not there")) == (path, True)
        assert statuses(verdict)["integrity"] == "not shown"


def test_what_is_no_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MalformedBundle, match="no checkpoint"):
        check(tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"\xff")
    with pytest.raises(MalformedBundle):
        check(tmp_path)


def test_an_entry_of_an_unknown_kind_is_inconclusive(recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_bundle(recorded(), tmp_path / "copy", KEY)
    sign_entries(copy, lambda entries: [*entries[:2], encode({"kind": "dispute", "x": 1}), *entries[2:]])
    verdict = check(tmp_path / "copy", executor=NoReplay())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = findings(verdict, Result.UNDECIDED)
    assert (finding.check, finding.where) == (Check.ENTRIES, "entry 3: kind")
    assert "'dispute' is not known" in finding.message


def test_an_unknown_operator_is_inconclusive(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.append_nodes(("aten.from_file.default", ("/etc/passwd",)))
    forgery.write()
    verdict = check(tmp_path / "copy", executor=NoReplay())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = findings(verdict, Result.UNDECIDED)
    assert finding.check is Check.PROGRAM
    assert "aten.from_file.default" in f"{finding.where} {finding.message}"


@pytest.mark.parametrize("field", ["order", "collation", "rule", "format"])
def test_an_unknown_rule_is_inconclusive(recorded: Recorded, tmp_path: Path, field: str) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    manifest = forgery.manifest
    if field == "rule":
        blob = forgery.initialisation.encode().replace(b'"kind":"uniform"', b'"kind":"orthogonal"')
        manifest = replace(manifest, initialisation=forgery.blobs.put(blob))
    elif field == "format":
        blob = forgery.initialisation.encode().replace(b"initialisation-v1", b"initialisation-v2")
        manifest = replace(manifest, initialisation=forgery.blobs.put(blob))
    else:
        unknown: dict[str, Any] = {field: "new-v9"}
        manifest = replace(manifest, plan=replace(manifest.plan, **unknown))
    sign_entries(forgery.copy, lambda entries: entries, manifest)
    verdict = check(tmp_path / "copy", executor=NoReplay())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert "not known to this version" in findings(verdict, Result.UNDECIDED)[0].message


RECORDING = """
import sys, torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from bundles import record_run
torch.backends.mkldnn.enabled = False
record_run(Path(sys.argv[2]))
"""


def test_a_worker_gets_the_recorded_environment(tmp_path: Path) -> None:
    variables = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "2", "MKL_CBWR": "COMPATIBLE"}
    tests = str(Path(__file__).resolve().parents[1])
    subprocess.run(
        [sys.executable, "-c", RECORDING, tests, str(tmp_path / "bundle")],
        check=True,
        env={**os.environ, **variables},
    )
    recorded = Forgery.of(tmp_path / "bundle", tmp_path / "copy").manifest.arithmetic
    expected = {"cpu_capability": "DEFAULT", "threads": 2, "onednn": False, "mkl_mode": "COMPATIBLE"}
    own = current_environment()
    for field, value in expected.items():
        assert recorded[field] == value != getattr(own, field), "this process has that environment too"
    verdict = check(tmp_path / "bundle", "quick")
    (finding,) = findings(verdict, Result.HELD, Check.ENVIRONMENT)
    assert finding.message == "replays run in the recorded environment"
    assert len(findings(verdict, Result.HELD, Check.REPLAY)) == 1
    assert verdict.outcome is Outcome.ACCEPTED


@dataclass
class Elsewhere:
    """Workers in another environment than the recorded one, as far as the verifier can see."""

    changed: dict[str, Any]
    error: float = 2e-7
    update: float = 2e-2

    def run(self, request: Request) -> Iterator[Ready | SegmentResult]:
        assert isinstance(request.arithmetic, Environment)
        yield Ready(environment=replace(request.arithmetic, **self.changed))
        for task in request.tasks:
            yield SegmentResult(
                segment=task.segment,
                equal=self.error == 0,
                differing=("parameters/1.weight",) if self.error else (),
                error=Distances(l2=self.error),
                update=Distances(l2=self.update),
            )


def test_a_difference_in_another_environment_is_undecided_and_measured(recorded: Recorded) -> None:
    verdict = check(recorded(), executor=Elsewhere({"torch": "1.0", "cpu_capability": "VSX"}))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict)["computation"] == "not shown"
    assert statuses(verdict)["data"] == "not shown"
    (noted,) = findings(verdict, Result.NOTED, Check.ENVIRONMENT)
    assert "cpu_capability" in noted.message and "'VSX'" in noted.message and "'1.0'" in noted.message
    undecided = findings(verdict, Result.UNDECIDED)
    assert [f.segment for f in undecided] == [0, 1, 2]
    assert undecided[0].measured == pytest.approx(1e-5)
    assert "in another environment this may be noise" in undecided[0].message


def test_equal_bits_are_equal_bits_in_any_environment(recorded: Recorded) -> None:
    verdict = check(recorded(), executor=Elsewhere({"torch": "1.0"}, error=0))
    assert statuses(verdict)["computation"] == "shown"
    assert findings(verdict, Result.NOTED, Check.ENVIRONMENT)


def test_a_difference_in_the_recorded_environment_rejects(recorded: Recorded) -> None:
    assert check(recorded(), executor=Elsewhere({})).outcome is Outcome.REJECTED


@pytest.mark.parametrize(
    ("error", "update"),
    [(float("nan"), 1.0), (1.0, float("nan")), (1.0, 0.0), (float("inf"), 1.0), (0.5, 1.0)],
)
def test_a_verdict_is_json_whatever_was_measured(recorded: Recorded, error: float, update: float) -> None:
    verdict = check(recorded(), executor=Elsewhere({}, error=error, update=update))
    assert verdict.outcome is Outcome.REJECTED
    plain = verdict.to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_the_json_of_a_verdict_has_all_of_it(recorded: Recorded) -> None:
    plain = check(recorded(), executor=Elsewhere({}, error=0)).to_json()
    assert {"outcome", "claims", "findings", "policy", "cost"} <= plain.keys()
    assert plain["outcome"] == "accepted"
    assert list(plain["claims"]) == ["integrity", "precedence", "initialisation", "data", "computation"]
    for claim in plain["claims"].values():
        assert claim["status"] in ("shown", "supported", "not shown", "refuted")
        assert claim["evidence"] and all(isinstance(line, str) and line for line in claim["evidence"])
    for finding in plain["findings"]:
        assert {"check", "result", "message"} <= finding.keys()
        assert finding["result"] in ("held", "refuted", "undecided", "noted")
    assert plain["policy"] == POLICIES["full"].to_json()
    assert plain["policy"].keys() == set(Policy.__dataclass_fields__)
    assert plain["cost"].keys() == {
        "segments_replayed",
        "segments",
        "steps_replayed",
        "bytes_hashed",
        "seconds",
    }
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


def test_an_outcome_has_no_truth_value(recorded: Recorded) -> None:
    with pytest.raises(TypeError):
        bool(check(recorded(), executor=Elsewhere({})).outcome)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("kill -9 $$", "ended with status -9"),
        ("echo broken >&2; exit 3", "ended with status 3: broken"),
        ("exec sleep 600", "no step was done within 0.5 s"),
        ("echo nonsense; exec sleep 600", "its answer cannot be read"),
        ('printf \'{"kind": "segment"\'', "its answer cannot be read"),
        ('echo \'{"kind": "segment", "segment": 0}\'', "its answer cannot be read"),
        ("echo '[]'", "its answer cannot be read"),
        ('exec yes \'{"kind": "hello"}\' | head -3', "ended with status 0"),
    ],
    ids=[
        "killed",
        "failed",
        "hanging",
        "nonsense",
        "half an answer",
        "answer without result",
        "list",
        "unknown",
    ],
)
def test_a_worker_that_fails_is_inconclusive(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    worker = tmp_path / "python"
    worker.write_text(f"#!/bin/sh\n{script}\n")
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    verdict = check(recorded(), replace(POLICIES["full"], step_timeout_seconds=0.5))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = findings(verdict, Result.UNDECIDED)
    assert (finding.check, finding.where) == (Check.REPLAY, "worker")
    assert said in finding.message
    assert statuses(verdict) == {**ALL_SHOWN, "computation": "not shown", "data": "not shown"}


def test_a_program_that_needs_too_much_memory_is_inconclusive(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.append_nodes(("aten.full.default", ((1 << 40,), 1.0)))
    forgery.write()
    verdict = check(tmp_path / "copy", replace(POLICIES["full"], memory_bytes=8 << 30))
    assert_undecided_by_replay(verdict, "aten.full.default")


def test_a_program_that_does_not_run_is_inconclusive(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.append_nodes(
        ("aten.zeros.default", ((2, 2),)),
        ("aten.isnan.default", (Ref(-1),)),
        ("aten.mm.default", (Ref(-1), Ref(-2))),
    )
    forgery.write()
    verdict = check(tmp_path / "copy")
    assert_undecided_by_replay(verdict, "aten.mm.default")


def test_a_program_that_takes_too_long_is_inconclusive(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    square = ("aten.mm.default", (Ref(-1), Ref(-1)))
    forgery.append_nodes(("aten.ones.default", ((3000, 3000),)), *[square] * 1000)
    forgery.write()
    # Long enough for a worker to start; where it is not, the finding is the same.
    verdict = check(tmp_path / "copy", replace(POLICIES["full"], step_timeout_seconds=4))
    assert_undecided_by_replay(verdict, "no step was done within 4 s")


@pytest.mark.parametrize("script", ["exec sleep 600", 'exec yes \'{"kind": "step"}\''])
def test_replays_that_take_too_long_together_are_inconclusive(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    worker = tmp_path / "python"
    worker.write_text(f"#!/bin/sh\n{script}\n")
    worker.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(worker))
    verdict = check(recorded(), replace(POLICIES["full"], replay_timeout_seconds=0.5))
    assert_undecided_by_replay(verdict, "the replays took more than 0.5 s")


def assert_undecided_by_replay(verdict: Verdict, said: str) -> None:
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = findings(verdict, Result.UNDECIDED)
    assert finding.check is Check.REPLAY
    assert said in f"{finding.where}: {finding.message}"
    assert statuses(verdict) == {**ALL_SHOWN, "computation": "not shown", "data": "not shown"}


def test_more_threads_than_the_policy_allows_are_inconclusive(recorded: Recorded) -> None:
    verdict = check(recorded(), replace(POLICIES["full"], max_threads=0), executor=NoReplay())
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (finding,) = findings(verdict, Result.UNDECIDED)
    assert (finding.check, finding.where) == (Check.ENVIRONMENT, "entry 0: arithmetic.threads")


def test_a_loss_that_turns_nan_is_shown_as_it_is(tmp_path: Path) -> None:
    images, classes = digits().tensors
    images = images.clone()
    images[5, 0, 3, 3] = float("nan")
    record_run(tmp_path / "bundle", data=TensorDataset(images, classes))
    assert statuses(check(tmp_path / "bundle")) == ALL_SHOWN


def test_a_bundle_is_verified_where_it_lies_by_url(recorded: Recorded) -> None:
    verdict = verify(
        recorded().as_uri(), POLICIES["quick"], keys=[KEY.verification_key], executor=Elsewhere({}, error=0)
    )
    assert statuses(verdict)["integrity"] == "shown"


def test_progress_is_told(recorded: Recorded) -> None:
    told: list[tuple[str, int, int]] = []
    check(recorded(), executor=Elsewhere({}, error=0), progress=lambda *now: told.append(now))
    assert {what for what, _, _ in told} == {"hashing states", "hashing samples", "replaying segments"}
    assert all(0 <= done <= total for _, done, total in told)
    assert told[-1] == ("replaying segments", 3, 3)


def evidence(verdict: Verdict, claim: ClaimName) -> str:
    return "\n".join(verdict.claims[claim].evidence)


def test_the_evidence_on_data_says_how_many_samples_were_used(recorded: Recorded, tmp_path: Path) -> None:
    said = evidence(check(recorded(), executor=Elsewhere({}, error=0)), ClaimName.DATA)
    assert "used 40 distinct samples of 40" in said
    assert "order 'shuffled-v1', from the seed" in said

    # Two steps of four samples, of ten, in each epoch; the third is the next epoch's first.
    record_run(tmp_path / "b", data=digits(10), batch_size=4, steps=3, every=1, drop_last=True, shuffle=False)
    verdict = check(tmp_path / "b")
    said = evidence(verdict, ClaimName.DATA)
    assert statuses(verdict) == ALL_SHOWN
    assert "used 8 distinct samples of 10" in said
    assert "order 'sequential-v1', the data set's own order, not from the seed" in said


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_samples_used_are_those_of_the_replayed_steps(tmp_path: Path, shuffle: bool) -> None:
    record_run(tmp_path / "b", linear, data=digits(11), batch_size=2, steps=9, every=1, shuffle=shuffle)
    manifest = Forgery.of(tmp_path / "b", tmp_path / "copy").manifest
    log = read_log(manifest, [manifest.encode()])
    order = order_of(manifest, known(log.seeds()))
    for segments in ([0], [0, 8], [3, 4, 5, 6], list(range(9))):
        expected = {int(i) for segment in segments for i in order.indices(segment)}
        assert samples_used(log, segments) == len(expected)


def test_data_that_no_gradient_depends_on_are_not_shown(tmp_path: Path) -> None:
    def decay(model: nn.Module, batch: Any) -> torch.Tensor:
        images, _ = batch
        squares = [p.square().sum() for p in model.parameters()]
        total: torch.Tensor = torch.stack(squares).sum() + images.mean()
        return total

    record_run(tmp_path / "bundle", loss=decay)
    verdict = check(tmp_path / "bundle")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict) == {**ALL_SHOWN, "data": "not shown"}
    assert "no gradient depends on the batch, in batches of 8, 16" in evidence(verdict, ClaimName.DATA)


def test_fields_that_nothing_reads_are_named(tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        images, classes, _ = batch
        return cross_entropy(model, (images, classes))

    images, classes = digits().tensors
    record_run(tmp_path / "bundle", data=TensorDataset(images, classes, torch.arange(40)), loss=loss)
    verdict = check(tmp_path / "bundle")
    assert statuses(verdict) == ALL_SHOWN
    (said,) = (line for line in verdict.claims[ClaimName.DATA].evidence if "fields" in line)
    assert said.endswith(": '2'")


def test_updates_of_zero_are_no_evidence(tmp_path: Path) -> None:
    record_run(tmp_path / "bundle", optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.0))
    verdict = check(tmp_path / "bundle")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict) == {**ALL_SHOWN, "data": "not shown", "computation": "not shown"}
    for claim in (ClaimName.DATA, ClaimName.COMPUTATION):
        assert "all 3 replayed segments left the parameters as they were" in evidence(verdict, claim)


def test_some_updates_of_zero_are_counted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    momentum = [name for name in forgery.states[1] if name.startswith("optimizer/")]
    forgery.states[2] = {**forgery.states[2], **{k: v for k, v in forgery.states[1].items() if k[0] == "p"}}
    assert any(forgery.states[2][name] != forgery.states[1][name] for name in momentum)
    forgery.write()
    verdict = check(tmp_path / "copy", executor=Elsewhere({}, error=0))
    assert statuses(verdict) == ALL_SHOWN
    for claim in (ClaimName.DATA, ClaimName.COMPUTATION):
        assert "1 of the 3 replayed segments left the parameters" in evidence(verdict, claim)


def releasing(source: Path, target: Path, names: list[str]) -> None:
    """A copy whose release map and released file hold these tensors alone."""
    forgery = Forgery.of(source, target)
    tensors = safetensors.torch.load_file(source / WEIGHTS)
    release = Release.of({name: f"parameters/{name}" for name in names})
    forgery.manifest = replace(forgery.manifest, release=forgery.blobs.put(release.encode()))
    data = weights_file({name: tensors[name] for name in names})
    forgery.copy.files.write(WEIGHTS, data)
    forgery.weights = forgery.blobs.put(data)
    forgery.write()


def test_the_evidence_says_how_many_parameters_are_released(recorded: Recorded, tmp_path: Path) -> None:
    verdict = check(recorded(), executor=Elsewhere({}, error=0))
    said = "4 of 4 parameters are released and are the last state's"
    assert said in verdict.claims[ClaimName.COMPUTATION].evidence

    releasing(recorded(), tmp_path / "some", ["1.weight"])
    verdict = check(tmp_path / "some", executor=Elsewhere({}, error=0))
    assert statuses(verdict) == ALL_SHOWN
    assert "1 of 4 parameters are released" in evidence(verdict, ClaimName.COMPUTATION)
    assert "3 are not released" in evidence(verdict, ClaimName.COMPUTATION)

    releasing(recorded(), tmp_path / "none", [])
    verdict = check(tmp_path / "none", executor=Elsewhere({}, error=0))
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert statuses(verdict) == {**ALL_SHOWN, "computation": "not shown"}
    assert "none of 4 parameters is released" in evidence(verdict, ClaimName.COMPUTATION)


def test_weights_that_cannot_be_compared_are_undecided(recorded: Recorded, tmp_path: Path) -> None:
    releasing(recorded(), tmp_path / "none", [])
    record_run(tmp_path / "open", stop_after=4)
    for name, why in (("none", "the run releases no parameter"), ("open", "the run is not closed")):
        weights = tmp_path / "none" / WEIGHTS
        verdict = check(tmp_path / name, weights=weights, executor=Elsewhere({}, error=0))
        assert verdict.outcome is Outcome.INCONCLUSIVE
        (finding,) = findings(verdict, Result.UNDECIDED, Check.WEIGHTS)
        assert (finding.message, finding.where) == (f"not compared: {why}", str(weights))


def test_a_state_that_is_sealed_often_is_read_once(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.states[1:] = [forgery.states[3]] * 3
    forgery.losses = [forgery.losses[0]] * 3
    forgery.write()
    read: list[str] = []
    plain = FsspecFiles.pieces

    def pieces(self: FsspecFiles, path: str, limit: int) -> Iterator[bytes]:
        read.append(path)
        return plain(self, path, limit)

    monkeypatch.setattr(FsspecFiles, "pieces", pieces)
    check(tmp_path / "copy", executor=Elsewhere({}, error=0))
    tensors = {blob_path(d) for d in forgery.states[3].values()}
    assert all(read.count(path) == 1 for path in tensors | {blob_path(forgery.losses[0])})
    assert sum(path.startswith("openings/") for path in read) == 4


LISTENED = """
import os, sys
from gradseal.verify import worker
def serve(request, say):
    print("from Python")
    os.write(1, b"from C\\n")
    say("step")
worker._serve = serve
sys.exit(worker.main())
"""


def test_what_libraries_print_does_not_mix_with_a_workers_answers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENED],
        input=b'{"memory_bytes": 17179869184}\n',
        capture_output=True,
        check=True,
    )
    assert done.stdout == b'{"kind": "step"}\n'
    assert b"from Python" in done.stderr and b"from C" in done.stderr
