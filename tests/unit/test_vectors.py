"""The code against the language-neutral vectors, read as another implementation would read them."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from gradseal.errors import KeyFileError, MalformedBundle, UnknownKind
from gradseal.program.graph import Graph
from gradseal.program.native import Environment
from gradseal.program.program import Program
from gradseal.program.randomness import run_seed
from gradseal.program.release import Release, read_weights
from gradseal.program.samples import SampleSchema
from gradseal.program.sources import Initialisation
from gradseal.program.tensors import TensorSpec
from gradseal.proof import canonical, entries, files, merkle, note, tiles
from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import DeclaredSeed, Manifest
from gradseal.verify.contents import Contents
from gradseal.verify.initialisation import count_free_bytes
from vectors import make

VECTORS = Path(make.__file__).parent

Case = dict[str, Any]


def vectors(name: str) -> Case:
    value: Case = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return value


CANONICAL, MERKLE, NOTE, TILES = map(vectors, ("canonical.json", "merkle.json", "note.json", "tiles.json"))
BUNDLE, DOCUMENTS = vectors("bundle.json"), vectors("documents.json")


def cases(items: list[Case]) -> list[ParameterSet]:
    return [
        pytest.param(item, id=item.get("reason", item.get("source", str(number))))
        for number, item in enumerate(items)
    ]


def test_the_files_are_what_the_script_makes() -> None:
    assert make.main(["--check"]) == 0


def test_a_stale_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "HERE", tmp_path)
    monkeypatch.setattr(make, "FILES", {"tiles.json": lambda: {"a": 1}})
    assert make.main(["--check"]) == 1
    assert make.main([]) == 0
    assert make.main(["--check"]) == 0
    (tmp_path / "tiles.json").write_text("{}")
    assert make.main(["--check"]) == 1


@pytest.mark.parametrize("case", cases(CANONICAL["encode"]))
def test_canonical_json(case: Case) -> None:
    value, data = json.loads(case["json"]), bytes.fromhex(case["canonical"])
    assert canonical.encode(value) == data
    assert canonical.decode(data, where="v", max_bytes=len(data)) == value


@pytest.mark.parametrize("case", cases(CANONICAL["invalid"]))
def test_json_that_is_not_canonical(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        canonical.decode(bytes.fromhex(case["bytes"]), where="v", max_bytes=10**6)


def test_typed_scalars() -> None:
    for case in CANONICAL["floats"]:
        x = canonical.float_from_bits(case["json"], where="v")
        assert repr(x) == case["value"]
        assert canonical.float_to_bits(x) == case["json"]
    for text in CANONICAL["invalid_floats"]:
        with pytest.raises(MalformedBundle):
            canonical.float_from_bits(text, where="v")
    for case in CANONICAL["integers"]:
        assert canonical.integer_from_json(case["json"], where="v") == int(case["value"])
        assert canonical.integer_to_json(int(case["value"])) == case["json"]


@pytest.mark.parametrize("case", cases(CANONICAL["invalid_integers"]))
def test_integers_written_otherwise(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        canonical.integer_from_json(case["json"], where="v")


# As Certificate Transparency's reference tests publish them, so that make.py cannot drift with the code.
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots() -> None:
    assert MERKLE["roots"] == CT_ROOTS
    leaves = [merkle.leaf_hash(bytes.fromhex(entry)) for entry in MERKLE["entries"]]
    assert [leaf.hex() for leaf in leaves] == MERKLE["leaf_hashes"]
    assert [merkle.root_of(leaves[:size]).hex() for size in range(9)] == CT_ROOTS
    for size, root in MERKLE["longer"].items():
        assert merkle.root_of(merkle.leaf_hash(bytes([i])) for i in range(int(size))).hex() == root


def test_published_proofs() -> None:
    published = {
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7": 0,
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e": 1,
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4": 2,
    }
    (first,) = (case for case in MERKLE["inclusion"] if (case["index"], case["size"]) == (0, 8))
    assert first["proof"] == list(published)
    (from_two,) = (case for case in MERKLE["consistency"] if (case["old"], case["new"]) == (2, 8))
    assert from_two["proof"] == list(published)[1:]


def included(case: Case) -> bool:
    return merkle.verify_inclusion(
        leaf=bytes.fromhex(case["leaf"]),
        index=case["index"],
        size=case["size"],
        proof=[bytes.fromhex(node) for node in case["proof"]],
        root=bytes.fromhex(case["root"]),
    )


def consistent(case: Case) -> bool:
    return merkle.verify_consistency(
        old=case["old"],
        new=case["new"],
        old_root=bytes.fromhex(case["old_root"]),
        new_root=bytes.fromhex(case["new_root"]),
        proof=[bytes.fromhex(node) for node in case["proof"]],
    )


def test_proofs() -> None:
    assert all(included(case) for case in MERKLE["inclusion"])
    assert all(consistent(case) for case in MERKLE["consistency"])


@pytest.mark.parametrize("case", cases(MERKLE["invalid"]["inclusion"]))
def test_inclusion_that_does_not_hold(case: Case) -> None:
    assert not included(case)


@pytest.mark.parametrize("case", cases(MERKLE["invalid"]["consistency"]))
def test_consistency_that_does_not_hold(case: Case) -> None:
    assert not consistent(case)


@pytest.mark.parametrize("case", cases(NOTE["keys"]))
def test_keys(case: Case) -> None:
    key = note.SigningKey.parse(case["signing_key"])
    assert key.encode() == case["signing_key"]
    assert str(key.verification_key) == case["key"]
    assert note.VerificationKey.parse(case["key"]) == key.verification_key


@pytest.mark.parametrize("case", cases(NOTE["notes"]))
def test_notes(case: Case) -> None:
    data = bytes.fromhex(case["bytes"])
    opened = note.open_note(data, where="v")
    assert (opened.text, len(opened.signatures), opened.encode()) == (case["text"], case["signatures"], data)
    assert all(opened.verified_by(note.VerificationKey.parse(key)) for key in case["keys"])
    assert not any(opened.verified_by(note.VerificationKey.parse(key)) for key in case["not_keys"])
    if "signing_keys" in case:
        assert (
            note.sign_note(case["text"], [note.SigningKey.parse(key) for key in case["signing_keys"]]) == data
        )


@pytest.mark.parametrize("case", cases(NOTE["signatures"]))
def test_signatures(case: Case) -> None:
    key = note.VerificationKey(name="v", public=bytes.fromhex(case["public"]))
    message, signature = bytes.fromhex(case["message"]), bytes.fromhex(case["signature"])
    assert key.verify(signature, message) is case["valid"]


@pytest.mark.parametrize("case", cases(NOTE["checkpoints"]))
def test_checkpoints(case: Case) -> None:
    checkpoint = Checkpoint(
        origin=case["origin"],
        size=int(case["size"]),
        root=bytes.fromhex(case["root"]),
        extensions=tuple(case["extensions"]),
    )
    assert Checkpoint.parse(case["text"], where="v") == checkpoint
    assert checkpoint.text() == case["text"]


@pytest.mark.parametrize("case", cases(NOTE["invalid"]["keys"]))
def test_keys_that_are_none(case: Case) -> None:
    with pytest.raises(KeyFileError):
        note.VerificationKey.parse(case["key"])


@pytest.mark.parametrize("case", cases(NOTE["invalid"]["notes"]))
def test_notes_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        note.open_note(bytes.fromhex(case["bytes"]), where="v")


@pytest.mark.parametrize("case", cases(NOTE["invalid"]["checkpoints"]))
def test_checkpoints_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        Checkpoint.parse(case["text"], where="v")


def test_tile_paths() -> None:
    for case in TILES["paths"]:
        assert tiles.tile_path(case["level"], case["index"], case["width"]) == case["tile"]
        assert tiles.entries_path(case["index"], case["width"]) == case["entries"]


def test_tile_layouts() -> None:
    for case in TILES["layouts"]:
        expected = []
        for level, counts in enumerate(case["levels"]):
            expected += [(level, index, 256) for index in range(counts["full"])]
            expected += [(level, counts["full"], counts["partial"])] if counts["partial"] else []
        assert [(t.level, t.index, t.width) for t in tiles.tiles_for(case["size"])] == expected


def test_tile_contents() -> None:
    tree = merkle.Tree(merkle.leaf_hash(i.to_bytes(4, "big")) for i in range(70_000))
    assert tree.root().hex() == TILES["root"]
    for case in TILES["tiles"]:
        content = tiles.tile_bytes(tree, case["level"], case["index"], case["width"])
        assert sha256(content).hexdigest() == case["sha256"]


def test_entries() -> None:
    for case in TILES["entries"]:
        contents = [bytes.fromhex(entry) for entry in case["entries"]]
        assert tiles.encode_entries(contents).hex() == case["bytes"]
        assert tiles.decode_entries(bytes.fromhex(case["bytes"]), len(contents), where="v") == contents


@pytest.mark.parametrize("case", cases(TILES["invalid"]))
def test_entries_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        tiles.decode_entries(bytes.fromhex(case["bytes"]), case["count"], where="v")


def test_a_manifest() -> None:
    case = BUNDLE["manifest"]
    data = bytes.fromhex(case["bytes"])
    made = Manifest.decode(data)
    assert json.loads(data) == case["json"]
    assert (made.encode(), made.digest().hex(), made.origin) == (data, case["digest"], case["origin"])
    assert made.digest() == sha256(b"\0" + data).digest()
    steps = [made.plan.steps_of(segment) for segment in range(made.plan.segments)]
    assert [[s.start, len(s)] for s in steps] == BUNDLE["segments"]


def test_seeds_and_origins_follow_from_the_bytes_of_manifests() -> None:
    for case in BUNDLE["seed"]:
        made = Manifest.decode(bytes.fromhex(case["manifest"]))
        assert made.origin == case["origin"]
        assert isinstance(made.plan.seed, DeclaredSeed)
        assert run_seed(made.plan.seed.value, made.digest()).hex() == case["run_seed"]
    assert len({case["run_seed"] for case in BUNDLE["seed"]}) == len(BUNDLE["seed"]) == 3


def test_further_entries() -> None:
    for case in BUNDLE["entries"]:
        data = bytes.fromhex(case["bytes"])
        assert entries.entry_from_bytes(data, where="v").encode() == data == canonical.encode(case["json"])


def test_state_roots_and_seals() -> None:
    for case in BUNDLE["states"]:
        root = entries.state_root([bytes.fromhex(digest) for digest in case["digests"]])
        assert root.hex() == case["root"]
        for seal in case["seals"]:
            key = note.VerificationKey.parse(seal["key"])
            assert sha256(b"gradseal/seal-v1\n" + key.public + root).hexdigest() == seal["seal"]
            assert entries.seal_of(key, root).hex() == seal["seal"]


def test_losses_and_paths() -> None:
    case = BUNDLE["losses"]
    losses = entries.decode_losses(bytes.fromhex(case["bytes"]), len(case["floats"]), where="v")
    assert [canonical.float_to_bits(x) for x in losses] == case["floats"]
    digest = bytes.fromhex(BUNDLE["paths"]["digest"])
    assert files.blob_path(digest) == BUNDLE["paths"]["blob"]
    assert files.opening_path(digest) == BUNDLE["paths"]["opening"]


@pytest.mark.parametrize("case", cases(BUNDLE["invalid"]["manifests"]))
def test_manifests_that_are_none(case: Case) -> None:
    with pytest.raises((MalformedBundle, UnknownKind)):
        Manifest.decode(bytes.fromhex(case["bytes"]))


@pytest.mark.parametrize("case", cases(BUNDLE["invalid"]["entries"]))
def test_further_entries_that_are_none(case: Case) -> None:
    with pytest.raises((MalformedBundle, UnknownKind)):
        entries.entry_from_bytes(bytes.fromhex(case["bytes"]), where="v")


@pytest.mark.parametrize("case", cases(BUNDLE["invalid"]["losses"]))
def test_losses_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        entries.decode_losses(bytes.fromhex(case["bytes"]), case["steps"], where="v")


RELEASE = BUNDLE["release"]
LAYOUT = tuple(
    TensorSpec(name=spec["name"], dtype=spec["dtype"], shape=tuple(spec["shape"]))
    for spec in RELEASE["layout"]
)


def released(text: str) -> Release:
    return Release.decode(text.encode(), {spec.name: spec for spec in LAYOUT}, where="v")


def holds_the_state(weights: bytes) -> bool:
    """Whether it is the file of a run that ended at this state, as the verifier compares them."""
    state = dict(zip(LAYOUT, map(bytes.fromhex, RELEASE["state"]), strict=True))
    specs = {spec.name: spec for spec in LAYOUT}
    behind = {name: specs[end] for name, end in released(RELEASE["map"]).tensors.items()}
    try:
        found = read_weights(weights, where="v")
    except MalformedBundle:
        return False
    return set(found) == set(behind) and all(
        (spec.dtype, spec.shape, data) == (behind[name].dtype, behind[name].shape, state[behind[name]])
        for name, (spec, data) in found.items()
    )


def test_released_weights() -> None:
    assert released(RELEASE["map"]).encode() == RELEASE["map"].encode()
    assert holds_the_state(bytes.fromhex(RELEASE["weights"]))


@pytest.mark.parametrize("case", cases(BUNDLE["invalid"]["releases"]))
def test_release_maps_that_are_none(case: Case) -> None:
    with pytest.raises((MalformedBundle, UnknownKind)):
        released(case["text"])


@pytest.mark.parametrize("case", cases(BUNDLE["invalid"]["weights"]))
def test_weights_that_are_not_the_states(case: Case) -> None:
    assert not holds_the_state(bytes.fromhex(case["bytes"]))


def read_document(kind: str, text: str) -> bytes:
    """Reads a document as the verifier does; its canonical bytes again."""
    data = text.encode()
    program = Program.decode(DOCUMENTS["valid"]["programs"].encode(), where="v")
    match kind:
        case "graphs":
            return Graph.decode(data, where="v").encode()
        case "programs":
            return Program.decode(data, where="v").encode()
        case "initialisations":
            return Initialisation.decode(data, program.layout, program.constants, where="v").encode()
        case "schemas":
            return SampleSchema.decode(data, where="v").encode()
        case _:
            value = canonical.decode(data, where="v", max_bytes=65535)
            return canonical.encode(Environment.from_fields(Fields(value, "v")).to_json())


@pytest.mark.parametrize("kind", DOCUMENTS["valid"])
def test_documents(kind: str) -> None:
    text = DOCUMENTS["valid"][kind]
    assert read_document(kind, text) == text.encode()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        pytest.param(kind, case["text"], id=f"{kind}: {case['reason']}")
        for kind in DOCUMENTS["valid"]
        for case in DOCUMENTS["invalid"][kind]
    ],
)
def test_documents_that_are_none(kind: str, text: str) -> None:
    with pytest.raises((MalformedBundle, UnknownKind)):
        read_document(kind, text)


def schedule_of(text: str) -> None:
    """Reads a program, and checks its schedule as the verifier does."""
    program = Program.decode(text.encode(), where="v")
    assert program.schedule is not None
    program.schedule.check(program.optimizer, DOCUMENTS["schedule"]["steps"], where="v")


def test_a_schedule() -> None:
    case, program = DOCUMENTS["schedule"], Program.decode(DOCUMENTS["valid"]["programs"].encode(), where="v")
    schedule_of(DOCUMENTS["valid"]["programs"])
    assert program.schedule is not None
    for step, values in enumerate(case["values"]):
        own = {f"{group} {field}": value for (group, field), value in program.schedule.at(step).items()}
        assert {name: canonical.float_to_bits(value) for name, value in own.items()} == values
    assert program.schedule.free_bytes() == case["free_bytes"]


@pytest.mark.parametrize("case", cases(DOCUMENTS["invalid"]["schedules"]))
def test_schedules_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        schedule_of(case["text"])


@pytest.mark.parametrize("case", cases(DOCUMENTS["free_bytes"]))
def test_free_bytes_of_whole_programs(case: Case) -> None:
    program = Program.decode(case["program"].encode(), where="v")
    graphs = {int(n): Graph.decode(text.encode(), where="v") for n, text in case["graphs"].items()}
    assert {n: sha256(text.encode()).digest() for n, text in case["graphs"].items()} == {
        str(n): digest for n, digest in program.graphs.items()
    }
    initialisation = Initialisation.decode(
        case["initialisation"].encode(), program.layout, program.constants, where="v"
    )
    contents = Contents(
        program=program,
        graphs=graphs,
        initialisation=initialisation,
        release=Release.of({}),
        schema=SampleSchema.decode(DOCUMENTS["valid"]["schemas"].encode(), where="v"),
        arithmetic=Environment.from_fields(Fields(json.loads(DOCUMENTS["valid"]["arithmetics"]), "v")),
    )
    found = [
        {"where": item.where, "name": item.name, "size_bytes": item.size_bytes}
        for item in count_free_bytes(contents)
    ]
    assert found == case["items"]
