"""The code against `program.json`, read as another implementation would read it."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from gradseal.program.graph import Graph
from gradseal.program.program import Program
from gradseal.program.samples import SampleSchema
from gradseal.program.sources import Initialisation
from vectors import make_program

VECTORS: dict[str, Any] = json.loads(make_program.VECTORS.read_text(encoding="utf-8"))


def test_the_file_is_what_the_script_makes() -> None:
    assert make_program.main(["--check"]) == 0


def test_a_stale_file_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make_program, "VECTORS", tmp_path / "program.json")
    assert make_program.main(["--check"]) == 1
    assert make_program.main([]) == 0
    assert make_program.main(["--check"]) == 0


def test_documents_are_read_and_written_again() -> None:
    texts = {name: text.encode() for name, text in VECTORS["documents"].items()}
    program = Program.decode(texts["program"], where="program")
    initialisation = Initialisation.decode(
        texts["initialisation"], program.layout, program.constants, where="initialisation"
    )
    assert program.encode() == texts["program"]
    assert initialisation.encode() == texts["initialisation"]
    graph = Graph.decode(texts["graph"], where="graph")
    assert graph.encode() == texts["graph"]
    assert [list(u) for u in graph.last_uses()] == VECTORS["last_uses"]


def test_leaves_and_batches_without_our_code() -> None:
    own = VECTORS["samples"]
    digest = hashlib.sha256(own["schema"].encode()).digest()
    assert digest.hex() == own["digest"]
    samples = [bytes.fromhex(s) for s in own["samples"]]
    assert [hashlib.sha256(b"\0" + digest + s).hexdigest() for s in samples] == own["leaves"]
    assert own["batch"] == [b"".join(s[:8] for s in samples).hex(), b"".join(s[8:] for s in samples).hex()]
    assert SampleSchema.decode(own["schema"].encode(), where="s").size_bytes == len(samples[0])


def numbers(bits: list[str]) -> list[float]:
    return [struct.unpack(">d", bytes.fromhex(b))[0] for b in bits]


@pytest.mark.parametrize("case", VECTORS["updates"])
def test_updates_by_the_written_formulas(case: Any) -> None:
    """Section 5, in plain Python."""
    (group,) = case["optimizer"]["groups"]
    lr, mu, tau, decay = (numbers([group[k]])[0] for k in ("lr", "momentum", "dampening", "weight_decay"))
    weight, momentum = [1.0, -2.0, 0.5], [0.25, -0.0, 3.0]
    for step, (bits, state) in enumerate(zip(case["gradients"], case["states"], strict=True)):
        gradient = numbers(bits)
        if decay:
            gradient = [g + decay * w for g, w in zip(gradient, weight, strict=True)]
        if mu:
            fresh = step == 0 and not case["optimizer"]["warm"]
            momentum = [
                g if fresh else mu * m + (1 - tau) * g for m, g in zip(momentum, gradient, strict=True)
            ]
            if group["nesterov"]:
                gradient = [g + mu * m for g, m in zip(gradient, momentum, strict=True)]
            else:
                gradient = momentum
        weight = [w + -lr * g for w, g in zip(weight, gradient, strict=True)]
        assert weight == numbers(state["parameters/w"])
        assert momentum == numbers(state["optimizer/w/momentum_buffer"])


def test_orders_hold_each_sample_once() -> None:
    for case in VECTORS["orders"]:
        steps = case["steps"][: 2 if case["drop_last"] else 3]
        first = [index for step in steps for index in step]
        assert len(set(first)) == len(first) == (6 if case["drop_last"] else 7)
