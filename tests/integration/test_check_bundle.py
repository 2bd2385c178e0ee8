"""The checker of bundles that was written from the specification alone, on the vectors and on real bundles.

It shares no code with Gradseal, so what both accept and refuse is what the specification says.
"""

import base64
import contextlib
import importlib.util
import json
import os
import re
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn
from torch.utils.data import TensorDataset

import gradseal
from bundles import KEY, Forgery, check, record_run, statuses
from forged_slots import Amended, Between, forge_slots
from gradseal.program.program import Program
from gradseal.proof.entries import Gap
from gradseal.verify.policy import Policy

ROOT = Path(__file__).parents[2]
VECTORS = Path(__file__).parents[1] / "vectors"


def _load(path: Path) -> Any:
    """The script as a module; `Any`, since its path is known only here."""
    spec = importlib.util.spec_from_file_location("check_bundle", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


checker: Any = _load(ROOT / "examples" / "check_bundle.py")


def _vectors(file: str, *path: str) -> Any:
    """A part of a file of vectors."""
    part: Any = json.loads((VECTORS / file).read_text("utf-8"))
    for name in path:
        part = part[name]
    return part


def _cases(file: str, *path: str) -> list[Any]:
    """The cases of a part of a file of vectors, each with a name of its own."""
    cases = _vectors(file, *path)
    return [
        pytest.param(case, id=str(case.get("reason", number)) if isinstance(case, dict) else str(number))
        for number, case in enumerate(cases)
    ]


def _refused(function: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises((checker.Contradiction, checker.Gap)):
        function(*arguments)


def _bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def _float(bits: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(bits))[0])


def _read(value: Any, shape: Any) -> Any:
    return checker.read(value, shape, "vector")


def _tensors(values: list[dict[str, Any]]) -> list[Any]:
    return [checker.tensor_of(value, "vector") for value in values]


# ---- canonical.json


@pytest.mark.parametrize("case", _cases("canonical.json", "encode"))
def test_a_value_has_one_encoding(case: dict[str, str]) -> None:
    encoded = bytes.fromhex(case["canonical"])
    assert checker.encode_json(json.loads(case["json"])) == encoded
    assert checker.decode_json(encoded, len(encoded), "vector") == json.loads(case["json"])


@pytest.mark.parametrize("case", _cases("canonical.json", "invalid"))
def test_other_bytes_are_no_canonical_json(case: dict[str, str]) -> None:
    _refused(checker.decode_json, bytes.fromhex(case["bytes"]), 1 << 20, "vector")


def test_more_bytes_than_the_limit_are_refused() -> None:
    _refused(checker.decode_json, b"[1]", 2, "vector")


@pytest.mark.parametrize("case", _cases("canonical.json", "floats"))
def test_a_float_is_its_bits(case: dict[str, str]) -> None:
    value = checker.number(case["json"], "vector")
    assert _bits(value) == case["json"]
    assert repr(value) == case["value"]


@pytest.mark.parametrize("value", _cases("canonical.json", "invalid_floats"))
def test_other_spellings_of_a_float_are_refused(value: object) -> None:
    _refused(checker.number, value, "vector")


@pytest.mark.parametrize("case", _cases("canonical.json", "integers"))
def test_an_integer_of_64_bits_is_read(case: dict[str, Any]) -> None:
    assert checker.integer64(case["json"], "vector") == int(case["value"])


@pytest.mark.parametrize("case", _cases("canonical.json", "invalid_integers"))
def test_other_spellings_of_an_integer_are_refused(case: dict[str, Any]) -> None:
    _refused(checker.integer64, case["json"], "vector")


# ---- merkle.json, tiles.json


def test_leaves_and_roots_are_those_of_the_vectors() -> None:
    vectors = _vectors("merkle.json")
    leaves = [checker.leaf_hash(bytes.fromhex(entry)) for entry in vectors["entries"]]
    assert [leaf.hex() for leaf in leaves] == vectors["leaf_hashes"]
    assert [checker.tree_root(leaves[:size]).hex() for size in range(9)] == vectors["roots"]


@pytest.mark.parametrize(("size", "root"), _vectors("merkle.json", "longer").items())
def test_the_root_of_a_longer_tree(size: str, root: str) -> None:
    assert checker.tree_root(checker.leaf_hash(bytes([i])) for i in range(int(size))).hex() == root


@pytest.mark.parametrize("case", _cases("merkle.json", "inclusion"))
def test_a_proof_leads_to_the_root(case: dict[str, Any]) -> None:
    assert _proven(case) == case["root"]


@pytest.mark.parametrize("case", _cases("merkle.json", "invalid", "inclusion"))
def test_another_proof_leads_elsewhere(case: dict[str, Any]) -> None:
    with contextlib.suppress(checker.Contradiction):
        assert _proven(case) != case["root"]


def _proven(case: dict[str, Any]) -> str:
    proof = [bytes.fromhex(node) for node in case["proof"]]
    leaf = bytes.fromhex(case["leaf"])
    root: bytes = checker.proven_root(leaf, case["index"], case["size"], proof, "vector")
    return root.hex()


def test_the_root_of_every_beginning_of_a_log() -> None:
    vectors = _vectors("merkle.json")
    leaves = [checker.leaf_hash(bytes.fromhex(entry)) for entry in vectors["entries"]]
    assert [root.hex() for root in checker.roots_of(leaves, range(1, 9))] == vectors["roots"][1:]
    assert [root.hex() for root in checker.roots_of(leaves, [3, 8])] == vectors["roots"][3:9:5]


@pytest.mark.parametrize("case", _cases("tiles.json", "paths"))
def test_a_tile_has_its_path(case: dict[str, Any]) -> None:
    assert checker.tile_path(case["level"], case["index"], case["width"]) == case["tile"]
    assert checker.tile_path("entries", case["index"], case["width"]) == case["entries"]


@pytest.mark.parametrize("case", _cases("tiles.json", "layouts"))
def test_a_tree_has_the_tiles_of_its_size(case: dict[str, Any]) -> None:
    levels: list[dict[str, int]] = []
    for level, _, hashes in checker.tiles([bytes(32)] * case["size"]):
        if level == len(levels):
            levels.append({"full": 0, "partial": 0})
        if len(hashes) == 256:
            levels[level]["full"] += 1
        else:
            levels[level]["partial"] = len(hashes)
    assert levels == case["levels"]


def test_tiles_hold_the_hashes_of_the_vectors() -> None:
    leaves = [checker.leaf_hash(index.to_bytes(4, "big")) for index in range(70_000)]
    found = {(level, index): hashes for level, index, hashes in checker.tiles(leaves)}
    for case in _vectors("tiles.json", "tiles"):
        hashes = found[case["level"], case["index"]]
        assert len(hashes) == case["width"]
        assert checker.sha256(b"".join(hashes)).hex() == case["sha256"]
    assert checker.tree_root(leaves).hex() == _vectors("tiles.json", "root")


@pytest.mark.parametrize("case", _cases("tiles.json", "entries"))
def test_a_bundle_of_entries_is_split(case: dict[str, Any]) -> None:
    entries = checker.split_entries(bytes.fromhex(case["bytes"]), len(case["entries"]), "vector")
    assert [entry.hex() for entry in entries] == case["entries"]


@pytest.mark.parametrize("case", _cases("tiles.json", "invalid"))
def test_a_bundle_of_other_entries_is_refused(case: dict[str, Any]) -> None:
    _refused(checker.split_entries, bytes.fromhex(case["bytes"]), case["count"], "vector")


# ---- note.json


@pytest.mark.parametrize("case", _cases("note.json", "keys"))
def test_a_key_is_read(case: dict[str, str]) -> None:
    assert str(checker.parse_key(case["key"], "vector")) == case["key"]
    assert str(_owner(case["signing_key"]).key) == case["key"]


@pytest.mark.parametrize("case", _cases("note.json", "invalid", "keys"))
def test_another_spelling_is_no_key(case: dict[str, str]) -> None:
    _refused(checker.parse_key, case["key"], "vector")


@pytest.mark.parametrize("case", _cases("note.json", "notes"))
def test_a_note_is_read_and_its_signatures_verified(case: dict[str, Any]) -> None:
    note = checker.parse_note(bytes.fromhex(case["bytes"]))
    assert note[0] == case["text"]
    assert len(note[1]) == case["signatures"]
    for key in case["keys"]:
        assert checker.has_signed(checker.parse_key(key, "vector"), *note)
    for key in case["not_keys"]:
        assert not checker.has_signed(checker.parse_key(key, "vector"), *note)


@pytest.mark.parametrize("case", _cases("note.json", "signatures"))
def test_a_signature_is_valid_or_not(case: dict[str, Any]) -> None:
    key = checker.Key("vector", bytes(4), bytes.fromhex(case["public"]))
    line = (key.name, key.id, bytes.fromhex(case["signature"]))
    assert checker.has_signed(key, bytes.fromhex(case["message"]).decode(), [line]) is case["valid"]


@pytest.mark.parametrize("case", _cases("note.json", "invalid", "notes"))
def test_other_bytes_are_no_note(case: dict[str, str]) -> None:
    _refused(checker.parse_note, bytes.fromhex(case["bytes"]))


@pytest.mark.parametrize("case", _cases("note.json", "checkpoints"))
def test_a_checkpoint_is_read(case: dict[str, Any]) -> None:
    checkpoint = checker.parse_checkpoint(case["text"])
    assert checkpoint.origin == case["origin"]
    assert checkpoint.size == int(case["size"])
    assert checkpoint.root.hex() == case["root"]
    assert checkpoint.extensions == case["extensions"]


@pytest.mark.parametrize("case", _cases("note.json", "invalid", "checkpoints"))
def test_another_text_is_no_checkpoint(case: dict[str, str]) -> None:
    _refused(checker.parse_checkpoint, case["text"])


# ---- bundle.json


def test_the_manifest_is_read() -> None:
    case = _vectors("bundle.json", "manifest")
    entry = bytes.fromhex(case["bytes"])
    manifest = checker.parse_manifest(entry)
    assert manifest.keys() == case["json"].keys()
    assert manifest["program"].hex() == case["json"]["program"]
    assert manifest["plan"]["steps"] == case["json"]["plan"]["steps"]
    assert checker.leaf_hash(entry).hex() == case["digest"]
    assert checker.origin_of(manifest["owner"], checker.leaf_hash(entry)) == case["origin"]


@pytest.mark.parametrize("case", _cases("bundle.json", "seed"))
def test_a_manifest_gives_the_seed_and_the_origin(case: dict[str, str]) -> None:
    entry = bytes.fromhex(case["manifest"])
    manifest, leaf = checker.parse_manifest(entry), checker.leaf_hash(entry)
    assert checker.run_seed(manifest["plan"]["seed"]["value"], leaf).hex() == case["run_seed"]
    assert checker.origin_of(manifest["owner"], leaf) == case["origin"]


def test_segments_have_the_steps_of_the_plan() -> None:
    plan = _vectors("bundle.json", "manifest", "json", "plan")
    segments = [checker.segment_numbers(plan, index) for index in range(checker.segment_count(plan))]
    found = [[segment["first_step"], segment["steps"]] for segment in segments]
    assert found == _vectors("bundle.json", "segments")


@pytest.mark.parametrize("case", _cases("bundle.json", "entries"))
def test_an_entry_is_read(case: dict[str, Any]) -> None:
    entry = checker.parse_entry(bytes.fromhex(case["bytes"]), "vector")
    plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in entry.items()}
    assert plain == case["json"]


@pytest.mark.parametrize("case", _cases("bundle.json", "states"))
def test_a_state_has_its_root_and_seals(case: dict[str, Any]) -> None:
    digests = [bytes.fromhex(digest) for digest in case["digests"]]
    assert checker.tree_root(map(checker.leaf_hash, digests)).hex() == case["root"]
    for seal in case["seals"]:
        key = checker.parse_key(seal["key"], "vector")
        assert checker.seal_of(key.public, digests).hex() == seal["seal"]


def test_losses_are_read() -> None:
    case = _vectors("bundle.json", "losses")
    losses = checker.parse_losses(bytes.fromhex(case["bytes"]), len(case["floats"]), "vector")
    assert list(map(_bits, losses)) == case["floats"]


def test_a_blob_has_its_path() -> None:
    case = _vectors("bundle.json", "paths")
    assert checker.blob_path(bytes.fromhex(case["digest"])) == case["blob"]


@pytest.mark.parametrize("case", _cases("bundle.json", "invalid", "manifests"))
def test_another_manifest_is_refused(case: dict[str, str]) -> None:
    _refused(checker.parse_manifest, bytes.fromhex(case["bytes"]))


@pytest.mark.parametrize("case", _cases("bundle.json", "invalid", "entries"))
def test_another_entry_is_refused(case: dict[str, str]) -> None:
    _refused(checker.parse_entry, bytes.fromhex(case["bytes"]), "vector")


@pytest.mark.parametrize("case", _cases("bundle.json", "invalid", "losses"))
def test_other_losses_are_refused(case: dict[str, Any]) -> None:
    _refused(checker.parse_losses, bytes.fromhex(case["bytes"]), case["steps"], "vector")


# ---- slots.json, beacon.json; receipts of witness.json


def _manifest_of(data: str) -> tuple[dict[str, Any], bytes]:
    entry = bytes.fromhex(data)
    return checker.parse_manifest(entry), checker.leaf_hash(entry)


def _seed_of(plan: dict[str, Any]) -> Any:
    chains = [{name: each[name] for name in ("chain", "first_round")} for each in plan["chains"]]
    seed = {"source": "beacon", "cadence_seconds": plan["cadence_seconds"], "chains": chains}
    found = _read(seed, checker.SEED)
    checker.check_slots(found, "vector")
    return found


@pytest.mark.parametrize("case", _cases("slots.json", "plans"))
def test_slots_have_the_rounds_of_the_plan(case: dict[str, Any]) -> None:
    seed = _seed_of(case)
    for slot in case["slots"]:
        assert checker.slot_rounds(seed, slot["slot"]) == slot["rounds"]
        assert checker.slot_begins(seed, slot["slot"]) == slot["begins"]


@pytest.mark.parametrize("case", _cases("slots.json", "invalid", "plans"))
def test_another_plan_is_refused(case: dict[str, Any]) -> None:
    _refused(_seed_of, case)


@pytest.mark.parametrize("case", _cases("slots.json", "manifests"))
def test_a_manifest_with_a_beacons_seed_is_read(case: dict[str, Any]) -> None:
    manifest, leaf = _manifest_of(case["bytes"])
    assert manifest["plan"]["seed"]["cadence_seconds"] == case["json"]["plan"]["seed"]["cadence_seconds"]
    assert leaf.hex() == case["digest"]


@pytest.mark.parametrize("case", _cases("slots.json", "invalid", "manifests"))
def test_another_manifest_with_a_beacons_seed_is_refused(case: dict[str, str]) -> None:
    _refused(_manifest_of, case["bytes"])


@pytest.mark.parametrize("case", _cases("slots.json", "entries"))
def test_a_slot_gap_or_amendment_is_read(case: dict[str, Any]) -> None:
    entry = checker.parse_entry(bytes.fromhex(case["bytes"]), "vector")
    plain = {name: value.hex() if isinstance(value, bytes) else value for name, value in entry.items()}
    assert plain == case["json"]


@pytest.mark.parametrize("case", _cases("slots.json", "invalid", "entries"))
def test_another_slot_gap_or_amendment_is_refused(case: dict[str, str]) -> None:
    _refused(checker.parse_entry, bytes.fromhex(case["bytes"]), "vector")


def _log_of(case: dict[str, Any]) -> Any:
    log = checker.Log(*_manifest_of(_vectors("slots.json", "log_manifests", case["manifest"])))
    for place, entry in enumerate(case["entries"], 1):
        log.add(checker.parse_entry(bytes.fromhex(entry), f"entry {place}"), f"entry {place}")
    return log


@pytest.mark.parametrize("case", _cases("slots.json", "logs"))
def test_a_log_gives_each_segment_its_seed_and_program(case: dict[str, Any]) -> None:
    log = _log_of(case)
    seeds, programs = log.seeds, [log.programs[0], *log.amended()]
    assert (seeds[0][1].hex() if seeds else None) == case["first_seed"]
    assert len(log.segments) == len(case["segments"])
    for index, segment in enumerate(case["segments"]):
        assert [seed for first, seed in seeds if first <= index][-1].hex() == segment["seed"]
        assert [program for first, program in programs if first <= index][-1].hex() == segment["program"]
    assert (log.weights is not None) is case["close"]


@pytest.mark.parametrize("case", _cases("slots.json", "invalid", "logs"))
def test_another_log_is_refused_at_its_last_entry(case: dict[str, Any]) -> None:
    _log_of({**case, "entries": case["entries"][:-1]})
    _refused(_log_of, case)


def test_a_beacon_gives_the_value_of_a_slot() -> None:
    for case in _vectors("beacon.json", "combinations"):
        chains = {chain["hash"]: json.loads(chain["text"]) for chain in _vectors("beacon.json", "chains")}
        seed = {
            "cadence_seconds": 30,
            "chains": [
                {"chain": checker.chain_of(chains[one["chain"]], "vector"), "first_round": one["round"]}
                for one in case["rounds"]
            ],
        }
        signatures = [one["signature"] for one in case["rounds"]]
        assert checker.slot_value(seed, 0, signatures).hex() == case["value"]


# What is no point of the curve, the checker does not know.
POINTS = {"a key at infinity", "a key off the curve", "a key outside the group"}


@pytest.mark.parametrize("case", _cases("beacon.json", "invalid", "chains"))
def test_another_chain_is_refused(case: dict[str, str]) -> None:
    def parse() -> None:
        checker.chain_of(checker.decode_json(case["text"].encode(), 4096, "vector"), "vector")

    if case["reason"] in POINTS:
        parse()
    else:
        _refused(parse)


@pytest.mark.parametrize("case", _cases("witness.json", "receipts"))
def test_a_receipt_is_read(case: dict[str, Any]) -> None:
    receipt = checker.parse_receipt(bytes.fromhex(case["bytes"]), "vector")
    try:
        leaf, size = bytes.fromhex(case["leaf"]), receipt.checkpoint.size
        proven = checker.proven_root(leaf, receipt.entry, size, receipt.proof, "vector")
        included = proven == receipt.checkpoint.root
    except checker.Contradiction:
        included = False
    assert included is case["included"]


@pytest.mark.parametrize("case", _cases("witness.json", "invalid", "receipts"))
def test_another_receipt_is_refused(case: dict[str, str]) -> None:
    _refused(checker.parse_receipt, bytes.fromhex(case["bytes"]), "vector")


def _compare_weights(data: bytes, directory: Path) -> None:
    """Compare the bytes of a safetensors file with the state of the vectors."""
    case = _vectors("bundle.json", "release")
    layout = _tensors(case["layout"])
    release = checker.parse_release(case["map"].encode(), layout)
    digests = [checker.sha256(bytes.fromhex(tensor)) for tensor in case["state"]]
    (directory / "weights").write_bytes(data)
    with checker.Bundle(str(directory)).taking("weights", checker.sha256(data)) as take:
        checker.compare_weights(take, release, layout, digests)


def test_the_released_weights_are_the_last_state(tmp_path: Path) -> None:
    _compare_weights(bytes.fromhex(_vectors("bundle.json", "release", "weights")), tmp_path)


@pytest.mark.parametrize("case", _cases("bundle.json", "invalid", "weights"))
def test_other_weights_are_refused(case: dict[str, str], tmp_path: Path) -> None:
    _refused(_compare_weights, bytes.fromhex(case["bytes"]), tmp_path)


@pytest.mark.parametrize("case", _cases("bundle.json", "invalid", "releases"))
def test_another_release_map_is_refused(case: dict[str, str]) -> None:
    layout = _tensors(_vectors("bundle.json", "release", "layout"))
    _refused(checker.parse_release, case["text"].encode(), layout)


# ---- program.json, documents.json

DOCUMENTS: dict[str, Callable[[bytes], Any]] = {
    "graphs": lambda data: checker.parse_graph(data, "vector"),
    "programs": checker.parse_program,
    "initialisations": lambda data: checker.parse_initialisation(data, *_layout_and_constants()),
    "schemas": checker.parse_schema,
    "arithmetics": lambda data: _read(checker.decode_json(data, 1 << 16, "vector"), checker.ARITHMETIC),
}
# The checker leaves the list of operators out, and with it what is on it.
OPERATORS = {"an unknown operator", "an operator that writes a file"}


def _layout_and_constants() -> tuple[list[Any], list[Any]]:
    program = checker.parse_program(_vectors("program.json", "documents", "program").encode())
    return program["layout"], program["constants"]


@pytest.mark.parametrize("kind", ["graph", "program", "initialisation"])
def test_a_document_is_read(kind: str) -> None:
    assert DOCUMENTS[f"{kind}s"](_vectors("program.json", "documents", kind).encode())


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_valid_document_is_read(kind: str) -> None:
    assert DOCUMENTS[kind](_vectors("documents.json", "valid", kind).encode())


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(kind, case, id=f"{kind}: {case['reason']}")
        for kind in DOCUMENTS
        for case in _vectors("documents.json", "invalid", kind)
        if case["reason"] not in OPERATORS
    ],
)
def test_another_document_is_refused(kind: str, case: dict[str, str]) -> None:
    _refused(DOCUMENTS[kind], case["text"].encode())


def _check_schedule(text: str) -> Any:
    """Check the schedule of a program for as many steps as the vectors say; gives it."""
    program = checker.parse_program(text.encode())
    steps = _vectors("documents.json", "schedule", "steps")
    checker.check_values(program["schedule"], program["optimizer"], steps)
    return program["schedule"]


def test_a_schedule_has_its_values() -> None:
    schedule = _check_schedule(_vectors("documents.json", "valid", "programs"))
    found = {
        f"{group} {column['field']}": list(checker.values_of(column["pieces"]))
        for column in schedule["columns"]
        for group in column["groups"]
    }
    for step, values in enumerate(_vectors("documents.json", "schedule", "values")):
        own = {name: column[step // schedule["every"]] for name, column in found.items()}
        assert {name: struct.pack(">d", value).hex() for name, value in own.items()} == values


def test_the_free_bytes_of_a_schedule() -> None:
    schedule = _check_schedule(_vectors("documents.json", "valid", "programs"))
    assert checker.schedule_bytes(schedule) == _vectors("documents.json", "schedule", "free_bytes")


@pytest.mark.parametrize("case", _cases("documents.json", "invalid", "schedules"))
def test_another_schedule_is_refused(case: dict[str, str]) -> None:
    _refused(_check_schedule, case["text"])


def test_free_bytes_are_those_of_the_vectors() -> None:
    documents = _vectors("program.json", "documents")
    program = checker.parse_program(documents["program"].encode())
    sources = DOCUMENTS["initialisations"](documents["initialisation"].encode())
    graph = checker.parse_graph(documents["graph"].encode(), "vector")
    found = checker.free_bytes(program, sources, [graph, graph])
    *found, (name, size) = found
    expected = _vectors("program.json", "free_bytes")
    assert [size for _, size in found] == [item["size_bytes"] for item in expected]
    assert [name.partition(" of batch size")[0] for name, _ in found] == [item["name"] for item in expected]
    assert (name, size) == ("hyperparameters of sgd", 16)


@pytest.mark.parametrize("case", _cases("documents.json", "free_bytes"))
def test_free_bytes_of_whole_programs_are_those_of_the_vectors(case: dict[str, Any]) -> None:
    program = checker.parse_program(case["program"].encode())
    sources = checker.parse_initialisation(
        case["initialisation"].encode(), program["layout"], program["constants"]
    )
    texts = sorted((int(size), text) for size, text in case["graphs"].items())
    graphs = [checker.parse_graph(text.encode(), "vector") for _, text in texts]
    expected = [(item["name"], item["size_bytes"]) for item in case["items"]]
    assert checker.free_bytes(program, sources, graphs) == expected


def test_values_are_freed_after_their_last_use() -> None:
    graph = checker.parse_graph(_vectors("program.json", "documents", "graph").encode(), "vector")
    kept = {graph["loss"], *graph["gradients"].values(), *graph["buffers"].values()}
    last: dict[int, int] = {}
    for place, node in enumerate(graph["nodes"]):
        last[len(graph["inputs"]) + place] = place
        last |= dict.fromkeys(_references(node[1:]), place)
    uses = [
        sorted(v for v in last if last[v] == place and v not in kept) for place in range(len(graph["nodes"]))
    ]
    assert uses == _vectors("program.json", "last_uses")


def _references(value: Any) -> Iterator[int]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item)
    elif isinstance(value, dict):
        yield from [value["ref"]] if "ref" in value else _references(list(value.values()))


def test_samples_have_their_leaves(tmp_path: Path) -> None:
    case = _vectors("program.json", "samples")
    schema = case["schema"].encode()
    data = bytes.fromhex("".join(case["samples"]))
    (tmp_path / "shard").write_bytes(data)
    assert checker.sha256(schema).hex() == case["digest"]
    with checker.Bundle(str(tmp_path)).taking("shard", checker.sha256(data)) as take:
        fields = checker.parse_schema(schema)
        leaves = [checker.sample_leaf(checker.sha256(schema), fields, take).hex() for _ in case["samples"]]
    assert leaves == case["leaves"]


@pytest.mark.parametrize("case", _cases("program.json", "orders"))
def test_steps_take_the_samples_of_the_vectors(case: dict[str, Any]) -> None:
    plan = {"batch_size": case["batch_size"], "drop_last": case["drop_last"], "order": case["rule"]}
    plan |= {"every": 1, "accumulate": 1}
    seeds = [(0, bytes.fromhex(case["seed"]))]
    batches = [checker.batch(plan, case["samples"], seeds, step) for step in range(len(case["steps"]))]
    assert batches == case["steps"]


@pytest.mark.parametrize("case", _cases("program.json", "orders_of_seeds"))
def test_batches_hold_the_samples_of_the_vectors_with_several_seeds(case: dict[str, Any]) -> None:
    plan = {name: case[name] for name in ("batch_size", "drop_last", "every", "accumulate")}
    plan["order"] = case["rule"]
    seeds = [(one["first_segment"], bytes.fromhex(one["seed"])) for one in case["seeds"]]
    count = len(case["batches"])
    assert [checker.batch(plan, case["samples"], seeds, n) for n in range(count)] == case["batches"]


@pytest.mark.parametrize("case", _cases("program.json", "updates"))
def test_an_optimizer_keeps_the_tensors_of_the_vectors(case: dict[str, Any]) -> None:
    optimizer = checker.parse_optimizer(case["optimizer"], "vector")
    kept = checker.kept_keys(optimizer["name"], optimizer["groups"][0])
    assert [name.rpartition("/")[2] for name in case["before"]] == ["w", *kept]


# ---- randomness.json


@pytest.mark.parametrize("case", _cases("randomness.json", "run_seed"))
def test_the_run_has_its_seed(case: dict[str, str]) -> None:
    declared, manifest_digest = bytes.fromhex(case["declared"]), bytes.fromhex(case["manifest_digest"])
    assert checker.run_seed(declared, manifest_digest).hex() == case["seed"]


@pytest.mark.parametrize("case", _cases("randomness.json", "slot_seed"))
def test_a_slot_has_its_seed(case: dict[str, Any]) -> None:
    value, manifest_digest = bytes.fromhex(case["value"]), bytes.fromhex(case["manifest_digest"])
    assert checker.slot_seed(value, case["slot"], manifest_digest).hex() == case["seed"]


@pytest.mark.parametrize("case", _cases("randomness.json", "derive"))
def test_bytes_are_derived(case: dict[str, Any]) -> None:
    labels = [label.get("text", int(label.get("integer", "0"), 16)) for label in case["labels"]]
    assert checker.derive(bytes.fromhex(case["seed"]), labels, case["size"]).hex() == case["bytes"]


@pytest.mark.parametrize("case", _cases("randomness.json", "words"))
def test_a_key_has_its_words(case: dict[str, Any]) -> None:
    found = checker.words(bytes.fromhex(case["key"]), case["start"], len(case["words"]))
    assert [f"{word:016x}" for word in found] == case["words"]


@pytest.mark.parametrize("name", ["unit", "open_unit"])
def test_a_word_gives_a_number(name: str) -> None:
    case = _vectors("randomness.json", name)
    assert [_bits(getattr(checker, name)(int(word, 16))) for word in case["words"]] == case["output"]


@pytest.mark.parametrize(("name", "function"), [("log", "log"), ("normal_quantile", "quantile")])
def test_a_function_has_the_bits_of_the_vectors(name: str, function: str) -> None:
    case = _vectors("randomness.json", name)
    assert [_bits(getattr(checker, function)(_float(x))) for x in case["input"]] == case["output"]


@pytest.mark.parametrize("case", _cases("randomness.json", "permutation"))
def test_a_key_has_its_permutation(case: dict[str, Any]) -> None:
    assert checker.permutation(bytes.fromhex(case["key"]), case["n"]) == case["order"]


@pytest.mark.parametrize("case", _cases("randomness.json", "step_generator_seed"))
def test_a_step_has_its_generator_seed(case: dict[str, Any]) -> None:
    labels = ["generator", case["step"], case["micro_batch"]]
    derived = int.from_bytes(checker.derive(bytes.fromhex(case["seed"]), labels, 8), "big")
    assert f"{derived >> 1:016x}" == case["generator_seed"]


@pytest.mark.parametrize("case", _cases("randomness.json", "fill"))
def test_a_rule_fills_a_tensor(case: dict[str, Any]) -> None:
    rule = _read(case["rule"], checker.RULE)
    tensor = checker.Tensor(case["name"], case["dtype"], tuple(case["shape"]))
    checker.check_rule(rule, tensor, "vector")
    assert b"".join(checker.fill(rule, tensor, bytes.fromhex(case["seed"]))).hex() == case["bytes"]


# The recorder's half of randomness.md, sections 5 and 6: no checker needs it, but the pages define it.

Scalar = dict[str, Any]


def _formulas(value: float, fans: set[int]) -> Iterator[Scalar]:
    """The formulas by ratio and ascending fan that are near enough to be a rounded `value`."""
    for ratio in checker.RATIOS:
        p, q = map(int, ratio.split("/"))
        wanted = p / (q * value * value)
        sign = "-" if value < 0 else "+"
        for fan in sorted(fan for fan in fans if abs(fan - wanted) <= 0.02 * wanted):
            yield {"form": "formula", "sign": sign, "ratio": ratio, "fan": fan}


def _candidates(value: float, fans: set[int]) -> Iterator[Scalar]:
    """What a constant tensor's element is explained by, in order."""
    yield from ({"form": "named", "name": name} for name in checker.NAMED)
    if 2**-17 < abs(value) < 5:
        yield from _formulas(value, fans)
    if value == value:  # noqa: PLR0124 - not NaN
        yield {"form": "free", "bits": _bits(value)}


def _explain(value: float, fans: set[int]) -> Scalar:
    """The scalar that a framework's number is explained by."""
    for name, named in checker.NAMED.items():
        if _bits(named) == _bits(value):
            return {"form": "named", "name": name}
    for ratio in checker.RATIOS if 2**-17 < abs(value) < 5 else ():
        p, q = map(int, ratio.split("/"))
        fan = round(p / ((q * value) * value))
        scalar = {"form": "formula", "sign": "-" if value < 0 else "+", "ratio": ratio, "fan": fan}
        if fan in fans and abs(_value(scalar) - value) <= 1e-12 * abs(value):
            return scalar
    return {"form": "free", "bits": _bits(value)}


def _value(scalar: Scalar) -> float:
    return float(checker.scalar_value(_read(scalar, checker.SCALAR)))


def _numbers(data: bytes, dtype: str) -> list[float | int]:
    """The elements of a tensor, as Python's numbers."""
    if dtype == "bfloat16":
        data = b"".join(b"\0\0" + data[i : i + 2] for i in range(0, len(data), 2))
    codes = {"float64": "d", "float32": "f", "float16": "e", "bfloat16": "f", **checker.INTEGER_CODES}
    return [value for (value,) in struct.iter_unpack(f"<{codes[dtype]}", data)]


def _constant_of(data: bytes, dtype: str, fans: set[int]) -> Scalar | None:
    """The rule of a tensor whose elements all have the same bits."""
    size = checker.ITEM_BYTES[dtype]
    first = data[:size]
    number = _numbers(first, dtype)[0]
    if data != first * (len(data) // size) or float(number) != number:
        return None
    for scalar in _candidates(float(number), fans):
        rule = {"kind": "constant", "number": scalar}
        if _fills(rule, dtype, (1,), first):
            return rule
    return None


def _range_of(data: bytes, dtype: str, shape: tuple[int, ...], fans: set[int]) -> Scalar | None:
    """The rule of a tensor that counts along its last dimension."""
    if dtype in ("float16", "bfloat16", "bool") or not shape or len(data) < 2 * checker.ITEM_BYTES[dtype]:
        return None
    first, second = _numbers(data, dtype)[:2]
    scalars = {"start": _explain(float(first), fans), "step": _explain(float(second - first), fans)}
    rule = {"kind": "range", **scalars}
    free = 8 * sum(scalar["form"] == "free" for scalar in scalars.values())
    return rule if free < len(data) and _fills(rule, dtype, shape, data) else None


def _fills(rule: Scalar, dtype: str, shape: tuple[int, ...], data: bytes) -> bool:
    tensor = checker.Tensor("", dtype, shape)
    try:
        parsed = _read(rule, checker.RULE)
        checker.check_rule(parsed, tensor, "vector")
    except checker.Finding:
        return False
    return b"".join(checker.fill(parsed, tensor, bytes(32))) == data


@pytest.mark.parametrize("case", _cases("randomness.json", "explain"))
def test_a_number_is_explained(case: dict[str, Any]) -> None:
    assert _explain(_float(case["value"]), set(case["fans"])) == case["scalar"]


@pytest.mark.parametrize("case", _cases("randomness.json", "constant_of"))
def test_a_constant_tensor_is_explained(case: dict[str, Any]) -> None:
    assert _constant_of(bytes.fromhex(case["bytes"]), case["dtype"], set(case["fans"])) == case["rule"]


@pytest.mark.parametrize("case", _cases("randomness.json", "range_of"))
def test_a_tensor_that_counts_is_explained(case: dict[str, Any]) -> None:
    data, shape = bytes.fromhex(case["bytes"]), tuple(case["shape"])
    assert _range_of(data, case["dtype"], shape, set(case["fans"])) == case["rule"]


# ---- a real bundle, and altered ones


class Owner:
    """Who records the bundle, and can sign another log in its place."""

    def __init__(self, name: str, seed: bytes) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(seed)
        public = b"\x01" + self.private.public_key().public_bytes_raw()
        self.id = checker.sha256(name.encode() + b"\n" + public)[:4]
        self.key = checker.Key(name, self.id, public[1:])
        encoded = base64.b64encode(b"\x01" + seed).decode()
        self.text = f"PRIVATE+KEY+{name}+{self.id.hex()}+{encoded}"

    def sign(self, text: str) -> bytes:
        signature = base64.b64encode(self.id + self.private.sign(text.encode())).decode()
        return f"{text}\n\u2014 {self.key.name} {signature}\n".encode()


def _owner(signing_key: str) -> Owner:
    _, _, name, _, encoded = signing_key.split("+", 4)
    return Owner(name, base64.b64decode(encoded)[1:])


OWNER = Owner("example.org/owner", bytes(range(32)))


def _loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, classes = batch
    return nn.functional.cross_entropy(model(inputs), classes)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("check_bundle")
    key = directory / "owner.key"
    key.touch(mode=0o600)
    key.write_text(OWNER.text + "\n", "utf-8")
    torch.manual_seed(0)
    dataset = TensorDataset(torch.randn(10, 3), torch.randint(2, (10,)))
    with gradseal.initialise():
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    bundle = directory / "bundle"
    with gradseal.record(
        str(bundle), model, optimizer, loss=_loss, data=dataset, batch_size=4, steps=5, every=2, key=str(key)
    ) as run:
        for batch in run:
            run.step(batch)
    return bundle


@pytest.fixture
def bundle(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "bundle")


def _outcome(bundle: Path) -> str:
    try:
        return str(checker.check_bundle(str(bundle), OWNER.key))
    except checker.NotABundle:
        return "error"


def _files(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file())


def _entries(bundle: Path) -> list[bytes]:
    checkpoint = checker.parse_checkpoint(checker.parse_note((bundle / "checkpoint").read_bytes())[0])
    path = bundle / checker.tile_path("entries", 0, checkpoint.size)
    return list(checker.split_entries(path.read_bytes(), checkpoint.size, "bundle"))


def _publish(bundle: Path, entries: list[bytes], owner: Owner = OWNER) -> None:
    """Write a log of fewer than 256 entries, and sign it."""
    shutil.rmtree(bundle / "tile")
    leaves = [checker.leaf_hash(entry) for entry in entries]
    lengths = [len(entry).to_bytes(2, "big") for entry in entries]
    contents = {
        0: b"".join(leaves),
        "entries": b"".join(part for pair in zip(lengths, entries, strict=True) for part in pair),
    }
    for level, content in contents.items():
        path = bundle / checker.tile_path(level, 0, len(entries))
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    origin = f"{owner.key.name}/{leaves[0].hex()[:32]}"
    root = base64.b64encode(checker.tree_root(leaves)).decode()
    (bundle / "checkpoint").write_bytes(owner.sign(f"{origin}\n{len(entries)}\n{root}\n"))


def _blob(bundle: Path, digest: str) -> Path:
    return bundle / "blobs" / digest[:2] / digest


def _replace_blob(bundle: Path, old: str, change: Callable[[bytes], bytes]) -> str:
    """Store a changed blob, and give its digest."""
    data = change(_blob(bundle, old).read_bytes())
    digest: str = checker.sha256(data).hex()
    _blob(bundle, digest).parent.mkdir(exist_ok=True)
    _blob(bundle, digest).write_bytes(data)
    return digest


def test_the_recorded_bundle_is_consistent(recorded: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checker.main([str(recorded), "--key", str(OWNER.key), "--batches", "4"]) == 0
    printed = capsys.readouterr().out
    assert "consistent: the last sealed segment is 2, up to step 5" in printed
    assert "no step was replayed" in printed
    batches = [line.split(":")[1].split() for line in printed.splitlines() if line.startswith("step ")]
    assert [len(batch) for batch in batches] == [4, 4, 2, 4]
    assert sorted(int(sample) for batch in batches[:3] for sample in batch) == list(range(10))


def test_a_bundle_in_exact_arithmetic_is_consistent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record_run(tmp_path / "exact", arithmetic="exact")
    assert checker.main([str(tmp_path / "exact"), "--key", str(KEY.verification_key)]) == 0
    assert "exact arithmetic, definition 1" in capsys.readouterr().out
    forged = Forgery.of(tmp_path / "exact", tmp_path / "forged")
    forged.manifest = replace(forged.manifest, arithmetic={"kind": "exact", "definition": 2})
    forged.write()
    assert checker.main([str(tmp_path / "forged"), "--key", str(KEY.verification_key)]) == 3
    assert "definition 2 is unknown" in capsys.readouterr().out


def test_without_a_key_the_record_only_agrees_with_itself(
    recorded: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert checker.main([str(recorded)]) == 0
    assert "the record only agrees with itself" in capsys.readouterr().out


def test_the_key_may_be_in_a_file(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "owner.pub").write_text(f"{OWNER.key}\n", "utf-8")
    assert checker.main([str(recorded), "--key", str(tmp_path / "owner.pub")]) == 0


def test_another_key_is_rejected(recorded: Path) -> None:
    other = Owner("example.org/owner", bytes(32)).key
    assert checker.main([str(recorded), "--key", str(other)]) == 1


@pytest.mark.parametrize("argument", ["no key", str(OWNER.key)[:-1]])
def test_what_is_no_key_is_wrong_usage(recorded: Path, argument: str) -> None:
    with pytest.raises(SystemExit) as exit_:
        checker.main([str(recorded), "--key", argument])
    assert exit_.value.code == 2


def test_what_is_no_bundle_is_an_error(tmp_path: Path) -> None:
    assert checker.main([str(tmp_path)]) == 2
    assert checker.main([str(tmp_path / "missing")]) == 2
    (tmp_path / "checkpoint").write_bytes(bytes(65_537))
    assert checker.main([str(tmp_path)]) == 2


ALTERATIONS: dict[str, Callable[[bytes], bytes]] = {
    "a bit flipped": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "a byte less": lambda data: data[:-1],
    "a byte more": lambda data: data + b"\0",
    "emptied": lambda data: b"",
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_every_file_is_found_altered(bundle: Path, alteration: str) -> None:
    for path in _files(bundle):
        data = path.read_bytes()
        path.write_bytes(ALTERATIONS[alteration](data))
        outcomes = ("rejected", "error") if path.name == "checkpoint" else ("rejected",)
        assert _outcome(bundle) in outcomes, path
        path.write_bytes(data)
    assert _outcome(bundle) == "consistent"


def test_every_file_is_missed(bundle: Path) -> None:
    for path in _files(bundle):
        path.rename(bundle.parent / "away")
        assert _outcome(bundle) == ("error" if path.name == "checkpoint" else "inconclusive"), path
        (bundle.parent / "away").rename(path)
    assert _outcome(bundle) == "consistent"


def test_a_link_out_of_the_bundle_is_not_followed(bundle: Path) -> None:
    path = next((bundle / "openings").iterdir())
    path.rename(bundle.parent / "opening")
    path.symlink_to(bundle.parent / "opening")
    assert _outcome(bundle) == "inconclusive"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_regular_file_cannot_be_read(bundle: Path, make: Callable[[Path], None]) -> None:
    path = bundle / "weights.safetensors"
    path.unlink()
    make(path)
    assert _outcome(bundle) == "inconclusive"


def _swap_weights(bundle: Path) -> None:
    """Exchange two tensors' names in the released weights, and close the log with the new digest."""
    path = bundle / "weights.safetensors"
    data = path.read_bytes()
    swapped = (
        data.replace(b'"1.weight"', b'"?"').replace(b'"1.bias"', b'"1.weight"').replace(b'"?"', b'"1.bias"')
    )
    assert swapped != data and len(swapped) == len(data)
    path.write_bytes(swapped)
    *entries, close = _entries(bundle)
    digest = checker.sha256(data).hex().encode()
    _publish(bundle, [*entries, close.replace(digest, checker.sha256(swapped).hex().encode())])


def _swap_segments(bundle: Path) -> None:
    entries = _entries(bundle)
    entries[2], entries[3] = entries[3], entries[2]
    _publish(bundle, entries)


def _change_manifest(change: Callable[[Path, dict[str, Any]], None]) -> Callable[[Path], None]:
    """Change the manifest and sign the log anew; the seed is another one, so state zero is never found."""

    def forge(bundle: Path) -> None:
        manifest, *entries = _entries(bundle)
        fields = json.loads(manifest)
        change(bundle, fields)
        _publish(bundle, [checker.encode_json(fields), *entries])

    return forge


def _change_document(field: str, old: bytes, new: bytes) -> Callable[[Path], None]:
    """Change a document that the manifest names."""

    def change(bundle: Path, fields: dict[str, Any]) -> None:
        assert old in _blob(bundle, fields[field]).read_bytes()
        fields[field] = _replace_blob(bundle, fields[field], lambda data: data.replace(old, new))

    return _change_manifest(change)


def _last_entry(change: Callable[[bytes], list[bytes]]) -> Callable[[Path], None]:
    return lambda bundle: _publish(bundle, [*_entries(bundle)[:-1], *change(_entries(bundle)[-1])])


def _sign_by_another(bundle: Path) -> None:
    _publish(bundle, _entries(bundle), Owner("example.org/owner", bytes(32)))


FORGERIES: dict[
    str, tuple[Callable[[Path], None], str, str]
] = {  # by whom has the key: outcome, and what says so
    "nothing": (lambda bundle: _publish(bundle, _entries(bundle)), "consistent", "consistent"),
    "two tensors exchanged in the weights": (_swap_weights, "rejected", "of the last state"),
    "two segments exchanged": (_swap_segments, "rejected", "not the plan's"),
    "an entry twice": (_last_entry(lambda close: [close, close]), "rejected", "in the wrong place"),
    "a run that goes on": (_last_entry(lambda close: []), "inconclusive", "last sealed segment is 2"),
    "an entry of a later version": (
        _last_entry(lambda close: [b'{"kind":"later"}']),
        "inconclusive",
        "later version",
    ),
    "another owner": (_sign_by_another, "rejected", "not signed by the given key"),
    "another format": (
        _change_manifest(lambda bundle, fields: fields.update(format="gradseal/2", more=1)),
        "inconclusive",
        "later version",
    ),
    "another data root": (
        _change_manifest(lambda bundle, fields: fields["data"].update(root="0" * 64)),
        "rejected",
        "not the root of the samples' leaves",
    ),
    "another declared seed": (
        _change_manifest(lambda bundle, fields: fields["plan"]["seed"].update(value="0" * 64)),
        "rejected",
        "not what the initialisation gives",
    ),
    "another rule": (
        _change_document("initialisation", b'"name":"1"', b'"name":"2"'),
        "rejected",
        "not what the initialisation gives",
    ),
    "a tensor that is not kept": (
        _change_document("program", b"/momentum_buffer", b"/momentum_differs"),
        "rejected",
        "the optimizer's tensors",
    ),
    "an optimizer of a later version": (
        _change_document("program", b'"name":"sgd"', b'"name":"sgx"'),
        "inconclusive",
        "a later version may know it",
    ),
    "a graph for no batch": (
        _change_document("program", b'"batch_size":2,', b'"batch_size":3,'),
        "rejected",
        "not for the plan's batch sizes",
    ),
    "a release of what is no tensor": (
        _change_document("release", b'"parameters/0.bias"', b'"parameters/9.bias"'),
        "rejected",
        "a tensor that the state has not",
    ),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_what_the_owner_forges_is_found(
    bundle: Path, forgery: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forge, outcome, reason = FORGERIES[forgery]
    forge(bundle)
    assert _outcome(bundle) == outcome
    assert reason in capsys.readouterr().out


# ---- a real bundle with a beacon's seeds and anchors, and altered ones

SIGNER = gradseal.SigningKey.parse(OWNER.text)


def _slower(program: Program) -> Program:
    optimizer = program.optimizer
    return replace(program, optimizer=optimizer.at({(0, "lr"): 0.01}))


@pytest.fixture(scope="module")
def forged(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slots 0, 1 and 4, a gap of 2 and 3, and another program from slot 4 on; two chains."""
    bundle = tmp_path_factory.mktemp("forged") / "bundle"
    missed = Gap(cause="beacon", first_slot=2, last_slot=3)
    between: dict[int, list[Between]] = {1: [1, Amended(slot=3, change=_slower)], 2: [missed, 4]}
    trust = forge_slots(recorded, bundle, SIGNER, between, chains=2)
    # No floor: with ten samples and a batch norm, a bias may well end where it would under another seed.
    policy = replace(Policy.named("full"), seed_floor=0.0)
    verdict = check(bundle, policy, trust=trust, keys=[SIGNER.verification_key])
    # Gradseal finds all of it true, so what the checker finds is of a good bundle.
    shown = ("integrity", "precedence", "data", "computation")
    assert [statuses(verdict)[claim] for claim in shown] == ["shown"] * 4, verdict.claims
    return bundle


@pytest.fixture
def seeded(forged: Path, tmp_path: Path) -> Path:
    return shutil.copytree(forged, tmp_path / "bundle")


def test_a_bundle_with_slots_is_consistent(forged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert checker.main([str(forged), "--key", str(OWNER.key), "--batches", "99"]) == 0
    printed = capsys.readouterr().out
    assert "3 of 3 segments stand in the plan's order, 3 slots and 1 amended programs between them" in printed
    assert "the signatures of 3 slots, which need BLS12-381" in printed
    assert "no time was judged" in printed
    assert "6 anchored checkpoints are the owner's and of this log; 6 of 6 time-stamps name" in printed
    assert "amendments      1, from segment 2 on" in printed
    assert "hyperparameters of sgd, amended from segment 2 on" in printed
    batches = [line.split(":")[1].split() for line in printed.splitlines() if line.startswith("step ")]
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4]
    assert sorted(int(sample) for batch in batches[:3] for sample in batch) == list(range(10))


def test_batches_are_those_that_gradseal_trained_on(forged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = checker.Run(str(forged), OWNER.key)
    for check_ in (checker.check_log, checker.check_manifest, checker.check_entries):
        check_(run)
    batches = [checker.batch(run.plan, 10, run.log.seeds, number) for number in range(5)]
    once = [(0, run.log.seeds[0][1])]
    assert batches[:2] == [checker.batch(run.plan, 10, once, number) for number in range(2)]
    assert batches[3:] != [checker.batch(run.plan, 10, once, number) for number in range(3, 5)]


ANCHOR_ALTERATIONS: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no index": (lambda anchors: (anchors / "index").unlink(), "consistent", "nothing says by when"),
    "an empty index": (lambda anchors: _write(anchors / "index", b"[]"), "consistent", "0 anchored"),
    "an index that is none": (lambda anchors: _write(anchors / "index", b"{}"), "rejected", "not an array"),
    "a size twice": (
        lambda anchors: _write(anchors / "index", b'[{"size":1,"timestamps":0},{"size":1,"timestamps":0}]'),
        "rejected",
        "do not ascend",
    ),
    "a size of 0": (
        lambda anchors: _write(anchors / "index", b'[{"size":0,"timestamps":0}]'),
        "rejected",
        "bounds",
    ),
    "a size that is not anchored": (
        lambda anchors: _write(anchors / "index", b'[{"size":2,"timestamps":0}]'),
        "inconclusive",
        "2.tlog-proof: is not there",
    ),
    "too many time-stamps": (
        lambda anchors: _write(anchors / "index", b'[{"size":1,"timestamps":17}]'),
        "rejected",
        "bounds",
    ),
    "a time-stamp that is not there": (
        lambda anchors: (anchors / "1.0.tsr").unlink(),
        "inconclusive",
        "1.0.tsr: is not there",
    ),
    "a time-stamp of something else": (
        lambda anchors: _write(anchors / "1.0.tsr", (anchors / "3.0.tsr").read_bytes()),
        "consistent",
        "5 of 6 time-stamps",
    ),
    "a receipt of another size": (
        lambda anchors: _write(anchors / "1.tlog-proof", (anchors / "3.tlog-proof").read_bytes()),
        "rejected",
        "not of the last entry of its size",
    ),
    "a receipt whose proof is another": (
        lambda anchors: _change_proof(anchors / "3.tlog-proof"),
        "rejected",
        "does not lead to the root",
    ),
    "a receipt that the owner did not sign": (
        lambda anchors: _drop_owner(anchors / "3.tlog-proof"),
        "rejected",
        "not signed by the manifest's owner",
    ),
}


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def _change_proof(path: Path) -> None:
    head, blank, note = path.read_bytes().partition(b"\n\n")
    *lines, _ = head.split(b"\n")
    _write(path, b"\n".join([*lines, base64.b64encode(bytes(32))]) + blank + note)


def _drop_owner(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    _write(path, b"".join(line for line in lines if not line.startswith("\u2014 example.org".encode())))


@pytest.mark.parametrize("alteration", ANCHOR_ALTERATIONS)
def test_altered_anchors(seeded: Path, alteration: str, capsys: pytest.CaptureFixture[str]) -> None:
    alter, outcome, reason = ANCHOR_ALTERATIONS[alteration]
    alter(seeded / "anchors")
    assert _outcome(seeded) == outcome
    assert reason in capsys.readouterr().out


def _without_anchors(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[Path], None]:
    def forge(bundle: Path) -> None:
        shutil.rmtree(bundle / "anchors")
        _publish(bundle, change(_entries(bundle)))

    return forge


def _with_signature_of(slot: int, entries: list[bytes], *, of: int) -> list[bytes]:
    """The entries, with one slot's signatures in another."""
    parsed = [json.loads(entry) for entry in entries]
    (signed,) = (one["signatures"] for one in parsed if one["kind"] == "slot" and one["index"] == of)
    return [
        checker.encode_json(
            {**one, "signatures": signed} if (one["kind"], one.get("index")) == ("slot", slot) else one
        )
        for one in parsed
    ]


def _of_kind(kind: str, entries: list[bytes]) -> list[bytes]:
    return [entry for entry in entries if json.loads(entry)["kind"] == kind]


SLOT_FORGERIES: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "nothing": (lambda bundle: _publish(bundle, _entries(bundle)), "consistent", "consistent"),
    "the log cut short": (
        lambda bundle: _publish(bundle, _entries(bundle)[:-1]),
        "rejected",
        "it was cut short",
    ),
    "the log forked": (
        lambda bundle: _publish(bundle, _with_signature_of(1, _entries(bundle), of=4)),
        "rejected",
        "it was forked",
    ),
    "another signature in slot 0": (
        _without_anchors(lambda entries: _with_signature_of(0, entries, of=4)),
        "rejected",
        "not what the initialisation gives with the first seed",
    ),
    # What only a replay, or whoever knows BLS, finds.
    "another signature in a later slot": (
        _without_anchors(lambda entries: _with_signature_of(1, entries, of=4)),
        "consistent",
        "which need BLS12-381",
    ),
    "no slot 0": (
        _without_anchors(lambda entries: [e for e in entries if e != _of_kind("slot", entries)[0]]),
        "rejected",
        "initial in the wrong place",
    ),
    "a slot moved behind the close": (
        _without_anchors(lambda entries: [*entries, _of_kind("slot", entries)[0]]),
        "rejected",
        "slot in the wrong place",
    ),
    "an amendment of a program that is not there": (
        _without_anchors(
            lambda entries: [
                re.sub(rb'"program":"[0-9a-f]{64}"', b'"program":"%s"' % (b"0" * 64), e)
                if e in _of_kind("amendment", entries)
                else e
                for e in entries
            ]
        ),
        "inconclusive",
        "is not there",
    ),
    "a gap of a later version": (
        _without_anchors(
            lambda entries: [e.replace(b'"cause":"beacon"', b'"cause":"storms"') for e in entries]
        ),
        "inconclusive",
        "later version",
    ),
}


@pytest.mark.parametrize("forgery", SLOT_FORGERIES)
def test_what_the_owner_forges_of_slots_is_found(
    seeded: Path, forgery: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forge, outcome, reason = SLOT_FORGERIES[forgery]
    forge(seeded)
    assert _outcome(seeded) == outcome
    assert reason in capsys.readouterr().out


def test_a_run_with_slots_that_was_stopped(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forge_slots(recorded, tmp_path / "open", SIGNER, {1: [2]}, segments=2)
    assert checker.main([str(tmp_path / "open"), "--key", str(OWNER.key), "--batches", "99"]) == 3
    printed = capsys.readouterr().out
    assert "inconclusive: the last sealed segment is 1, up to step 4" in printed
    assert len([line for line in printed.splitlines() if line.startswith("step ")]) == 4
