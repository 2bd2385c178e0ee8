"""Forgeries of a closed bundle, by a stranger, a thief, or the owner who seals all again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from bundles import (
    BATCH,
    KEY,
    Forgery,
    NoReplay,
    check,
    cross_entropy,
    digits,
    files_of,
    findings,
    linear,
    mlp,
    record_run,
    sign_entries,
    statuses,
)
from gradseal.attacks.tampering import TAMPERINGS, copy_bundle
from gradseal.program.graph import Graph
from gradseal.program.release import Release
from gradseal.program.rules import Normal
from gradseal.program.samples import SampleSchema
from gradseal.program.scalars import Named
from gradseal.program.sources import Given
from gradseal.program.tensors import TensorSpec
from gradseal.proof.bundle import open_bundle
from gradseal.proof.entries import encode_losses
from gradseal.proof.files import CHECKPOINT, WEIGHTS, blob_path, opening_path, read_blob
from gradseal.proof.manifest import Data, Manifest
from gradseal.proof.merkle import root_of
from gradseal.verify.contents import read_contents
from gradseal.verify.executors import LocalProcess
from gradseal.verify.verdict import Check, ClaimName, Finding, Outcome, Result, Verdict

Recorded = Callable[..., Path]

EXPECTED: dict[str, tuple[Check, str, str]] = {
    "a state": (Check.STATES, "blobs/", "state after segment 1: parameters/1.weight: its bytes do not hash"),
    "a sample": (Check.DATA, "blobs/", "samples 0 to 39: its bytes do not hash"),
    "an entry": (Check.LOG, "tile/0/000.p/6", "entry 3 does not have the hash"),
    "the entries' order": (Check.LOG, "tile/0/000.p/6", "entry 3 does not have the hash"),
    "the released weights": (Check.WEIGHTS, WEIGHTS, "is not the last state's"),
    "the signature": (Check.PINNED_KEY, "checkpoint", "not signed by a key that was pinned"),
    "the owner": (Check.PINNED_KEY, "checkpoint", "not signed by a key that was pinned"),
    "a state, resealed": (Check.REPLAY, "segment 1", "in parameters/1.weight;"),
    "the samples' order, resealed": (Check.REPLAY, "segment 0", "differs from the sealed state"),
}
"""For each tampering, the first refuted finding: its check, where it is, and what it says."""


def refuted(path: Path, *, replays: bool = True, **options: Any) -> tuple[Verdict, list[Finding]]:
    verdict = check(path, executor=LocalProcess() if replays else NoReplay(), **options)
    assert verdict.outcome is Outcome.REJECTED
    return verdict, findings(verdict, Result.REFUTED)


def test_every_tampering_has_an_expectation() -> None:
    assert EXPECTED.keys() == TAMPERINGS.keys()


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_tampering_is_rejected_by_what_and_where(recorded: Recorded, tmp_path: Path, name: str) -> None:
    what, where, message = EXPECTED[name]
    before = {path: (recorded() / path).read_bytes() for path in files_of(recorded())}
    assert TAMPERINGS[name](copy_bundle(recorded(), tmp_path / "copy", KEY))
    assert {path: (recorded() / path).read_bytes() for path in before} == before, "only the copy is changed"
    verdict, (finding, *_) = refuted(tmp_path / "copy", replays=what is Check.REPLAY)
    assert finding.check is what
    assert finding.where.startswith(where)
    assert message in finding.message
    assert "refuted" in statuses(verdict).values()


def test_losses_of_ones_own_are_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.losses[1] = forgery.blobs.put(encode_losses([0.5, 0.25]))
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy")
    assert (finding.check, finding.where, finding.segment) == (Check.REPLAY, "segment 1", 1)
    assert "loss of step 2, loss of step 3;" in finding.message
    assert finding.measured == 0


def test_losses_of_another_number_of_steps_are_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.losses[1] = forgery.blobs.put(encode_losses([0.5]))
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.LOSSES, "losses of segment 1")


def test_segments_in_another_order_are_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.states[1], forgery.states[2] = forgery.states[2], forgery.states[1]
    forgery.losses[0], forgery.losses[1] = forgery.losses[1], forgery.losses[0]
    forgery.write()
    verdict, found = refuted(tmp_path / "copy")
    assert [f.segment for f in found] == [0, 1, 2]
    assert verdict.claims[ClaimName.COMPUTATION].status.value == "refuted"


def test_a_state_out_of_another_run_is_refuted(recorded: Recorded, tmp_path: Path) -> None:
    record_run(tmp_path / "other", mlp, seed=8)
    other = Forgery.of(tmp_path / "other", tmp_path / "other-copy")
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    for name, digest in other.states[2].items():
        forgery.put_tensor(2, name, read_blob(other.copy.files, digest, 1 << 20))
    forgery.write()
    _, found = refuted(tmp_path / "copy")
    assert [f.segment for f in found] == [1, 2]
    assert all("parameters/1.weight" in f.message for f in found)


def test_an_optimizer_moment_is_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    name = "optimizer/3.weight/momentum_buffer"
    moment = bytearray(read_blob(forgery.copy.files, forgery.states[1][name], 1 << 20))
    moment[2] ^= 1
    forgery.put_tensor(1, name, bytes(moment))
    forgery.write()
    _, found = refuted(tmp_path / "copy")
    assert [f.segment for f in found] == [0, 1]
    assert name in found[0].message and found[0].measured == 0


def test_the_weights_of_another_model_are_refuted(recorded: Recorded, tmp_path: Path) -> None:
    other = record_run(tmp_path / "other", mlp, seed=8)
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    data = safetensors.torch.save({n: t.detach() for n, t in other.state_dict().items()})
    forgery.copy.files.write(WEIGHTS, data)
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.WEIGHTS, WEIGHTS)

    forgery.weights = forgery.blobs.put(data)
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.WEIGHTS, WEIGHTS)
    assert "is not the last state's parameters/" in finding.message


def test_the_last_state_made_the_released_weights_is_refuted(recorded: Recorded, tmp_path: Path) -> None:
    other = record_run(tmp_path / "other", mlp, seed=8)
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    data = safetensors.torch.save({n: t.detach() for n, t in other.state_dict().items()})
    forgery.copy.files.write(WEIGHTS, data)
    forgery.weights = forgery.blobs.put(data)
    for name, tensor in other.state_dict().items():
        forgery.put_tensor(3, f"parameters/{name}", tensor.numpy().tobytes())
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy")
    assert (finding.check, finding.segment) == (Check.REPLAY, 2)
    assert finding.measured is not None and finding.measured > 0.1


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that does not depend on its seed: state zero is given or constant, the order the data's own."""

    def prepare(model: nn.Module) -> None:
        weight, bias = model.parameters()
        nn.init.orthogonal_(weight)
        nn.init.zeros_(bias)

    path = tmp_path_factory.mktemp("given") / "bundle"
    record_run(path, linear, prepare=prepare, shuffle=False)
    return path


def test_a_given_tensor_named_otherwise_is_refuted(given: Path, tmp_path: Path) -> None:
    forgery = Forgery.of(given, tmp_path / "copy")
    state = list(forgery.initialisation.state)
    state[0] = Given(digest=forgery.states[3]["parameters/1.weight"])
    forgery.initialisation = replace(forgery.initialisation, state=tuple(state))
    forgery.write(refill=False)
    _, found = refuted(tmp_path / "copy", replays=False)
    assert (found[0].check, found[0].where) == (Check.INITIALISATION, "parameters/1.weight")
    assert "the bytes that the manifest names" in found[0].message


def test_a_given_tensor_replaced_is_refuted_by_replay(given: Path, tmp_path: Path) -> None:
    forgery = Forgery.of(given, tmp_path / "copy")
    state = list(forgery.initialisation.state)
    state[0] = Given(digest=forgery.states[3]["parameters/1.weight"])
    forgery.initialisation = replace(forgery.initialisation, state=tuple(state))
    forgery.write()
    _, found = refuted(tmp_path / "copy")
    assert [(f.check, f.segment) for f in found] == [(Check.REPLAY, 0)]


@pytest.mark.parametrize("refill", [False, True])
def test_another_initialisation_rule_is_refuted(recorded: Recorded, tmp_path: Path, refill: bool) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    rule = Normal(mean=Named(name="0"), std=Named(name="0.02"))
    forgery.initialisation = replace(forgery.initialisation, state=(rule, *forgery.initialisation.state[1:]))
    forgery.write(refill=refill)
    _, found = refuted(tmp_path / "copy", replays=refill)
    if refill:
        assert (found[0].check, found[0].segment) == (Check.REPLAY, 0)
    else:
        assert (found[0].check, found[0].where) == (Check.INITIALISATION, "parameters/1.weight")
        assert "'normal'" in found[0].message


def recommit(forgery: Forgery, sample: int, at: int = 2, flip: int = 0x40) -> None:
    """Changes a byte of one sample, a pixel's unless said otherwise, and commits to the data again."""
    read, data = forgery.copy.files, forgery.manifest.data
    schema = SampleSchema.decode(read_blob(read, data.schema, 1 << 20), where="schema")
    (shard,) = _pieces(read_blob(read, data.shards, 1 << 20), 32)
    samples = _pieces(read_blob(read, shard, 1 << 20), schema.size_bytes)
    changed_sample = bytearray(samples[sample])
    changed_sample[at] ^= flip
    samples[sample] = bytes(changed_sample)
    leaves = [schema.leaf(s) for s in samples]
    put = forgery.blobs.put
    changed = Data(
        root=root_of(leaves),
        samples=data.samples,
        schema=data.schema,
        leaves=put(b"".join(leaves)),
        shards=put(put(b"".join(samples))),
        shard_samples=data.shard_samples,
    )
    forgery.manifest = replace(forgery.manifest, data=changed)


@pytest.mark.parametrize("sample", [5, 35])
def test_data_committed_anew_is_refuted_where_it_was_used(given: Path, tmp_path: Path, sample: int) -> None:
    forgery = Forgery.of(given, tmp_path / "copy")
    recommit(forgery, sample)
    forgery.write()
    _, found = refuted(tmp_path / "copy")
    # In the data's own order, step 0 has samples 0 to 15, step 2 has 32 to 39, and an epoch three steps.
    expected = {5: [0, 1], 35: [1, 2]}[sample]
    assert [f.segment for f in found] == expected
    assert all(f.check is Check.REPLAY for f in found)


def test_data_committed_anew_does_not_fit_the_seed(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    recommit(forgery, sample=5)
    forgery.write(refill=False)
    _, found = refuted(tmp_path / "copy", replays=False)
    assert found[0].check is Check.INITIALISATION


def test_a_data_root_that_is_not_the_samples_is_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    data = forgery.manifest.data
    forgery.manifest = replace(forgery.manifest, data=replace(data, root=bytes(32)))
    forgery.write()
    verdict, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.DATA, blob_path(data.leaves))
    assert statuses(verdict)["data"] == "refuted"


def test_a_seal_that_is_not_the_opening_is_refuted(recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_bundle(recorded(), tmp_path / "copy", KEY)
    seal, other = copy.segment(1).seal.hex().encode(), bytes(32).hex().encode()
    copy.files.write(opening_path(bytes(32)), copy.files.read(opening_path(copy.segment(1).seal), 1 << 20))
    sign_entries(copy, lambda entries: [entry.replace(seal, other) for entry in entries])
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.STATES, opening_path(bytes(32)))


def test_released_weights_written_otherwise_are_refuted(recorded: Recorded, tmp_path: Path) -> None:
    copy = copy_bundle(recorded(), tmp_path / "copy", KEY)
    tensors = safetensors.torch.load(copy.files.read(WEIGHTS, 1 << 20))
    plain = safetensors.torch.save(tensors)
    size = int.from_bytes(plain[:8], "little")
    longer = (size + 8).to_bytes(8, "little") + plain[8 : 8 + size] + b" " * 8 + plain[8 + size :]
    copy.files.write(WEIGHTS, longer)
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.WEIGHTS, WEIGHTS)
    assert "not the file that the run was closed with" in finding.message


def test_released_weights_with_metadata_are_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    tensors = safetensors.torch.load(forgery.copy.files.read(WEIGHTS, 1 << 20))
    data = safetensors.torch.save(tensors, metadata={"licence": "none"})
    forgery.copy.files.write(WEIGHTS, data)
    forgery.weights = forgery.blobs.put(data)
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.WEIGHTS, WEIGHTS)
    assert "metadata" in finding.message


def test_a_key_that_did_not_sign_is_refuted_before_the_tree_is_read(
    recorded: Recorded, tmp_path: Path
) -> None:
    copy = copy_bundle(recorded(), tmp_path / "copy", KEY)
    text = copy.files.read(CHECKPOINT, 1 << 16)
    copy.files.write(CHECKPOINT, text.replace(b"\n6\n", b"\n7\n"))
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.PINNED_KEY, CHECKPOINT)
    unpinned = check(tmp_path / "copy", keys=[], executor=NoReplay())
    assert unpinned.outcome is Outcome.INCONCLUSIVE  # for the entries of so long a log are not there


def test_a_graph_that_reads_more_than_a_sample_has_is_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    for size, graph in forgery.graphs.items():
        inputs = tuple(replace(i, key=2) if i.kind == "batch" and i.key == 1 else i for i in graph.inputs)
        assert inputs != graph.inputs
        forgery.graphs[size] = replace(graph, inputs=inputs)
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.PROGRAM, "graph of batch size 8")
    assert finding.message == "reads batch 2, but a sample has 2 fields"


class Masked(nn.Module):
    """Has a buffer of truth values."""

    mask: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Linear(64, 10)
        self.register_buffer("mask", torch.arange(64) % 3 > 0)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classify(images.flatten(1) * self.mask)
        return scores


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with truth values in its state, its constants and its samples."""
    images, classes = digits().tensors
    constant = torch.arange(10) % 2 > 0

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        own, classes, used = batch
        scores = model(own) * constant
        losses = functional.cross_entropy(scores, classes, reduction="none")
        total: torch.Tensor = (losses * used).mean()
        return total

    path = tmp_path_factory.mktemp("masked") / "bundle"
    record_run(path, Masked, data=TensorDataset(images, classes, classes > 4), loss=loss, shuffle=False)
    assert check(path).outcome is not Outcome.REJECTED
    return path


@pytest.mark.parametrize("what", ["state", "constant", "sample"])
def test_a_truth_value_of_two_is_refuted(masked: Path, tmp_path: Path, what: str) -> None:
    forgery = Forgery.of(masked, tmp_path / "copy")
    if what == "state":
        forgery.put_tensor(1, "buffers/mask", bytes([2]) + bytes(63))
    elif what == "constant":
        given = Given(digest=forgery.blobs.put(bytes([2]) + bytes(9)))
        forgery.initialisation = replace(forgery.initialisation, constants=(given,))
    else:
        recommit(forgery, 3, at=-1, flip=0x40)
    forgery.write()
    expected = {"state": Check.STATES, "constant": Check.PROGRAM, "sample": Check.DATA}[what]
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert finding.check is expected
    assert "a truth value that is neither 0 nor 1" in finding.message


def test_a_release_of_nothing_is_noted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.manifest = replace(forgery.manifest, release=forgery.blobs.put(Release.of({}).encode()))
    data = safetensors.torch.save({})
    forgery.copy.files.write(WEIGHTS, data)
    forgery.weights = forgery.blobs.put(data)
    forgery.write()
    verdict = check(tmp_path / "copy", "quick")
    (noted,) = findings(verdict, Result.NOTED, Check.WEIGHTS)
    assert "4 of 4 parameters are not released" in noted.message
    refuted(tmp_path / "copy", replays=False, weights=recorded() / WEIGHTS)


def test_a_checkpoint_of_before_the_end_is_inconclusive(tmp_path: Path) -> None:
    record_run(tmp_path / "bundle", stop_after=5)
    old = {
        p.relative_to(tmp_path / "bundle"): p.read_bytes()
        for p in (tmp_path / "bundle").rglob("*")
        if p.is_file()
    }
    record_run(tmp_path / "whole")
    for name, data in old.items():
        (tmp_path / "whole" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "whole" / name).write_bytes(data)
    verdict = check(tmp_path / "whole")
    assert verdict.outcome is Outcome.INCONCLUSIVE
    assert (
        "2 of 3 segments are sealed, the last is segment 1" in findings(verdict, Result.UNDECIDED)[0].message
    )


def test_a_pull_in_the_partial_batch_is_a_true_run_and_noted(tmp_path: Path) -> None:
    """Its loss pulls toward known weights in the small batches alone, and computes just what it says."""
    known = torch.linspace(-1, 1, 640).sin().reshape(10, 64)

    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        value = cross_entropy(model, batch)
        if len(batch[1]) == BATCH:
            return value
        (weight, *_) = model.parameters()
        return value + ((weight - known) ** 2).sum()

    record_run(tmp_path / "bundle", linear, loss=loss)
    verdict = check(tmp_path / "bundle")
    assert statuses(verdict) == {
        "integrity": "shown",
        "precedence": "not shown",
        "initialisation": "not shown",
        "data": "shown",
        "computation": "shown",
    }
    assert verdict.outcome is Outcome.INCONCLUSIVE
    (noted,) = findings(verdict, Result.NOTED, Check.PROGRAM)
    assert noted.where == "graph of batch size 8"
    assert "other operators" in noted.message
    free = {f.where: f.measured for f in findings(verdict, Result.NOTED, Check.FREE_BYTES)}
    assert free["constants/0"] == known.nbytes


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("shared", [True, False])
def test_a_graph_for_batches_that_the_plan_has_not(recorded: Recorded, tmp_path: Path, shared: bool) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.graphs[5] = forgery.graphs[16]
    if not shared:
        del forgery.graphs[8]
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.PROGRAM, "program: graphs")
    assert "has a graph for batches of 5, which the plan has not" in finding.message


def test_a_graph_that_two_sizes_share_is_read_once(
    recorded: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.graphs[8] = forgery.graphs[16]
    forgery.write()
    read: list[str] = []
    plain = Graph.decode

    def decode(data: bytes, *, where: str) -> Graph:
        read.append(where)
        return plain(data, where=where)

    monkeypatch.setattr(Graph, "decode", decode)
    contents = read_contents(
        forgery.copy.files, Manifest.decode(open_bundle(forgery.copy.files).entries(0)[0])
    )
    assert read == ["graph of batch size 8"]
    assert contents.graphs[8] is contents.graphs[16]


def test_graphs_far_above_the_cap_are_not_compressed(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    forgery.append_nodes(*[("aten.zeros.default", (tuple(range(300, 4300)),))] * 12)
    forgery.write()
    verdict = check(tmp_path / "copy", "quick")
    (line,) = (e for e in verdict.claims[ClaimName.INITIALISATION].evidence if "uncompressed" in e)
    contents = read_contents(
        forgery.copy.files, Manifest.decode(open_bundle(forgery.copy.files).entries(0)[0])
    )
    size = len(contents.program.encode()) + sum(len(graph.encode()) for graph in contents.graphs.values())
    assert line == f"the program and its graphs have, uncompressed, {size} bytes, of at most 4096"
    assert statuses(verdict)["initialisation"] == "not shown"


def test_a_shard_that_is_too_large_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    fields = (TensorSpec(name=str(n), dtype="uint8", shape=(1 << 29,)) for n in range(2))
    schema = SampleSchema(tree=("tuple", tuple(fields), ()))
    data = replace(forgery.manifest.data, schema=forgery.blobs.put(schema.encode()), shard_samples=40)
    forgery.manifest = replace(forgery.manifest, data=data)
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.DATA, "entry 0: data.shard_samples")
    assert "more than the 1073741824 allowed" in finding.message


def test_a_tensor_that_is_a_huge_sparse_file_is_refused(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    path = tmp_path / "copy" / blob_path(forgery.states[2]["parameters/1.weight"])
    path.unlink()  # a copy may share its files
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.message) == (
        Check.STATES,
        "state after segment 1: parameters/1.weight: longer than 4096 bytes",
    )


def test_released_weights_that_name_a_tensor_twice_are_refuted(recorded: Recorded, tmp_path: Path) -> None:
    forgery = Forgery.of(recorded(), tmp_path / "copy")
    whole = (recorded() / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(whole[:8], "little")
    spec = b'"1.bias":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},'
    header = b"{" + spec + whole[9:end]
    header += b" " * (-len(header) % 8)
    data = len(header).to_bytes(8, "little") + header + whole[end:]
    forgery.copy.files.write(WEIGHTS, data)
    forgery.weights = forgery.blobs.put(data)
    forgery.write()
    _, (finding,) = refuted(tmp_path / "copy", replays=False)
    assert (finding.check, finding.where) == (Check.WEIGHTS, WEIGHTS)
    assert "the same key twice" in finding.message
