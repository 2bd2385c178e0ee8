"""The code against `program.json`, read as another implementation would read it."""

from __future__ import annotations

import hashlib
import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gradseal.program.graph import Graph
from gradseal.program.program import Program
from gradseal.program.samples import SampleSchema
from gradseal.program.sources import Initialisation
from vectors import make

Array = npt.NDArray[Any]
VECTORS: dict[str, Any] = json.loads((make.HERE / "program.json").read_text(encoding="utf-8"))


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


class Written:
    """Section 5, in numpy: one parameter, its kept tensors by key, and the hyperparameters of its group."""

    def __init__(self, case: Any) -> None:
        (self.group,) = case["optimizer"]["groups"]
        self.name = case["optimizer"]["name"]
        self.count = case["optimizer"]["steps_before"]
        self.type = np.dtype(case["dtype"]).type
        self.state = {name: self.array(bits) for name, bits in case["before"].items()}

    def array(self, bits: list[str]) -> Array:
        return np.array(numbers(bits), dtype=self.type)

    def number(self, field: str) -> float:
        return numbers([self.group[field]])[0]

    def step(self, gradient: Array) -> None:
        self.count += 1
        w, g = self.state["parameters/w"], gradient
        kept = {name.rpartition("/")[2]: tensor for name, tensor in self.state.items()}
        decay = self.number("weight_decay")
        decoupled = self.name == "lion" or self.group.get("decoupled_weight_decay", False)
        if decay and decoupled:
            w *= self.type(1 - self.number("lr") * decay)
        elif decay:
            g = self.add(g, w, decay)
        getattr(self, {"adamw": "adam"}.get(self.name, self.name))(w, g, kept)

    def add(self, a: Array, b: Array, alpha: float) -> Array:
        return np.asarray(a + self.type(alpha) * b)

    def addcdiv(self, a: Array, b: Array, c: Array, value: float) -> None:
        a += self.type(value) * b / c

    def mean(self, m: Array, g: Array, rest: float) -> None:
        m[:] = m + self.type(rest) * (g - m) if rest < 0.5 else g - (g - m) * (1 - self.type(rest))

    def square(self, v: Array, g: Array, beta: float) -> None:
        v *= self.type(beta)
        v += self.type(1 - beta) * g * g

    def sgd(self, w: Array, g: Array, kept: dict[str, Array]) -> None:
        mu = self.number("momentum")
        if mu:
            m = kept["momentum_buffer"]
            m[:] = g if self.count == 1 else self.add(m * self.type(mu), g, 1 - self.number("dampening"))
            g = self.add(g, m, mu) if self.group["nesterov"] else m
        w[:] = self.add(w, g, -self.number("lr"))

    def adam(self, w: Array, g: Array, kept: dict[str, Array]) -> None:
        beta1, beta2 = self.number("beta1"), self.number("beta2")
        m, v = kept["exp_avg"], kept["exp_avg_sq"]
        self.mean(m, g, 1 - beta1)
        self.square(v, g, beta2)
        if self.group["amsgrad"]:
            v = np.maximum(kept["max_exp_avg_sq"], v, out=kept["max_exp_avg_sq"])
        root = self.type((1 - beta2**self.count) ** 0.5)
        divisor = np.sqrt(v) / root + self.type(self.number("eps"))
        self.addcdiv(w, m, divisor, -(self.number("lr") / (1 - beta1**self.count)))

    def rmsprop(self, w: Array, g: Array, kept: dict[str, Array]) -> None:
        alpha, mu, v = self.number("alpha"), self.number("momentum"), kept["square_avg"]
        self.square(v, g, alpha)
        if self.group["centered"]:
            self.mean(kept["grad_avg"], g, 1 - alpha)
            v = v + self.type(-1) * kept["grad_avg"] * kept["grad_avg"]
        divisor = np.sqrt(v) + self.type(self.number("eps"))
        if mu:
            m = kept["momentum_buffer"]
            m *= self.type(mu)
            self.addcdiv(m, g, divisor, 1.0)
            w[:] = self.add(w, m, -self.number("lr"))
        else:
            self.addcdiv(w, g, divisor, -self.number("lr"))

    def adagrad(self, w: Array, g: Array, kept: dict[str, Array]) -> None:
        rate = self.number("lr") / (1 + (self.count - 1) * self.number("lr_decay"))
        kept["sum"] += g * g
        divisor = np.sqrt(kept["sum"]) + self.type(self.number("eps"))
        self.addcdiv(w, g, divisor, -rate)

    def nadam(self, w: Array, g: Array, kept: dict[str, Array]) -> None:
        beta1, beta2, lr = self.number("beta1"), self.number("beta2"), self.number("lr")
        mu, after = (
            beta1 * (1 - 0.5 * 0.96 ** (n * self.number("momentum_decay")))
            for n in (self.count, self.count + 1)
        )
        kept["mu_product"] *= np.float32(mu)
        product = float(kept["mu_product"][0])
        self.mean(kept["exp_avg"], g, 1 - beta1)
        self.square(kept["exp_avg_sq"], g, beta2)
        correction, v = 1 - beta2**self.count, kept["exp_avg_sq"]
        if self.group["foreach"]:
            root = np.sqrt(v) / self.type(correction**0.5)
        else:
            root = np.sqrt(v / self.type(correction))
        root = root + self.type(self.number("eps"))
        self.addcdiv(w, g, root, -lr * (1 - mu) / (1 - product))
        self.addcdiv(w, kept["exp_avg"], root, -lr * after / (1 - product * after))

    def lion(self, w: Array, g: Array, kept: dict[str, Array]) -> None:
        beta1, beta2, m = self.number("beta1"), self.number("beta2"), kept["exp_avg"]
        direction = np.sign(self.add(m * self.type(beta1), g, 1 - beta1))
        w[:] = self.add(w, direction, -self.number("lr"))
        m[:] = self.add(m * self.type(beta2), g, 1 - beta2)


def case_name(case: Any) -> str:
    return str(case["optimizer"]["name"])


@pytest.mark.parametrize("case", VECTORS["updates"], ids=case_name)
def test_updates_by_the_written_formulas(case: Any) -> None:
    own = Written(case)
    for bits, state in zip(case["gradients"], case["states"], strict=True):
        own.step(own.array(bits))
        for name, expected in state.items():
            assert own.state[name].tolist() == numbers(expected), name


def test_orders_hold_each_sample_once() -> None:
    for case in VECTORS["orders"]:
        steps = case["steps"][: 2 if case["drop_last"] else 3]
        first = [index for step in steps for index in step]
        assert len(set(first)) == len(first) == (6 if case["drop_last"] else 7)


@pytest.mark.parametrize("case", VECTORS["clippings"], ids=lambda case: case["max"])
def test_clippings_by_the_written_formula(case: Any) -> None:
    gradients = [np.array(numbers(bits), dtype=np.float32) for bits in case["gradients"]]
    # Exact: the squares are those of 3, 4 and 12.
    norm = np.float32(np.sqrt(sum((g.astype(float) ** 2).sum() for g in gradients)))
    (largest,) = numbers([case["max"]])
    factor = min(np.float32(largest) * (np.float32(1) / (norm + np.float32(1e-6))), np.float32(1))
    assert [(g * factor).tolist() for g in gradients] == [numbers(bits) for bits in case["clipped"]]
