"""Vectors of docs/spec/program.md that are computed: `program.json`.

No update has bits that an implementation may choose: SGD's numbers are such that no operation rounds, and the
others' such that a product which is added to something is exact. Square roots are correctly rounded here;
those of PyTorch are not on every processor, since it asks a library for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import torch

from gradseal.program.batches import collate
from gradseal.program.clipping import ClipNorm
from gradseal.program.graph import Argument, Graph, Input, Named, Node, Ref
from gradseal.program.memory import to_bytes
from gradseal.program.optimizers import (
    SGD,
    Adagrad,
    AdagradGroup,
    Adam,
    AdamGroup,
    AdamW,
    AdamWGroup,
    Lion,
    LionGroup,
    NAdam,
    NAdamGroup,
    Optimizer,
    RMSprop,
    RMSpropGroup,
    SGDGroup,
    kept_name,
)
from gradseal.program.order import SEQUENTIAL, SHUFFLED, Order
from gradseal.program.program import Program
from gradseal.program.randomness import derive
from gradseal.program.rules import Constant, Uniform
from gradseal.program.samples import SampleSchema
from gradseal.program.scalars import Formula, Free
from gradseal.program.scalars import Named as NamedScalar
from gradseal.program.seeds import Seeds, Stretch
from gradseal.program.sources import Given, Initialisation, free_bytes
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import Json, float_to_bits

SEED = bytes(range(32))
CPU = torch.device("cpu")


def _spec(name: str, dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def graph() -> Graph:
    arguments: tuple[Argument, ...] = (None, True, 3, 2**62, -0.0, float("nan"), "floor", (1, (Ref(0),)))
    return Graph(
        inputs=(
            Input(kind="state", key="parameters/w"),
            Input(kind="batch", key=0),
            Input(kind="constant", key=0),
        ),
        nodes=(
            Node(operator="aten.mul.Tensor", args=(Ref(0), Ref(1)), kwargs={}),
            Node(operator="aten.max.dim", args=(Ref(3), 0), kwargs={}),
            Node(operator="getitem", args=(Ref(4), 1), kwargs={}),
            Node(operator="aten.sum.default", args=(Ref(3),), kwargs={"dtype": Named("dtype", "float32")}),
            Node(operator="aten.full.default", args=arguments, kwargs={"device": Named("device", "run")}),
        ),
        loss=6,
        gradients={"w": 1},
        buffers={},
    )


def sgd_program() -> Program:
    group = SGDGroup(parameters=("w",), lr=0.1, momentum=0.9)
    return Program(
        layout=(
            _spec("parameters/w", "float32", 2),
            _spec("buffers/n", "int64"),
            _spec(kept_name("w", "momentum_buffer"), "float32", 2),
        ),
        constants=(_spec("constants/0", "float32", 2),),
        graphs={2: bytes(32), 4: bytes([1] * 32)},
        optimizer=SGD(groups=(group,)),
    )


def initialisation() -> Initialisation:
    fan = {negative: Formula(negative=negative, p=1, q=1, fan=2) for negative in (True, False)}
    zero = Constant(number=NamedScalar(name="0"))
    return Initialisation(
        state=(Uniform(low=fan[True], high=fan[False]), zero, Constant(number=Free(number=0.3))),
        constants=(Given(digest=bytes(32)),),
    )


def _documents() -> dict[str, Json]:
    documents = {
        "graph": graph().encode(),
        "program": sgd_program().encode(),
        "initialisation": initialisation().encode(),
    }
    return {name: data.decode() for name, data in documents.items()}


def _last_uses() -> list[Json]:
    return [[*uses] for uses in graph().last_uses()]


def _free_bytes() -> list[Json]:
    program = sgd_program()
    found = free_bytes(initialisation(), program.layout, program.constants, [("graph", graph())] * 2)
    return [{"where": f.where, "name": f.name, "size_bytes": f.size_bytes} for f in found]


def _samples() -> dict[str, Json]:
    label, pixels = _spec("y", "int64"), _spec("x.0", "float32", 2)
    own = SampleSchema(tree=("dict", (label, ("tuple", (pixels,), ())), ("y", "x")))
    samples = [bytes([i, *bytes(7)]) + bytes([0, 0, i, 0x40]) * 2 for i in range(3)]
    return {
        "schema": own.encode().decode(),
        "digest": own.digest().hex(),
        "samples": [s.hex() for s in samples],
        "leaves": [leaf.hex() for leaf in own.leaves(samples)],
        "batch": [to_bytes(leaf).hex() for leaf in collate(own, samples, CPU)],
    }


def _orders() -> list[Json]:
    found: list[Json] = []
    seeds = Seeds(every=1, accumulate=1, stretches=[Stretch(first_segment=0, seed=SEED)])
    for rule in (SHUFFLED, SEQUENTIAL):
        for drop_last in (False, True):
            own = Order(rule=rule, samples=7, batch_size=3, drop_last=drop_last, seeds=seeds)
            steps: list[Json] = [[int(i) for i in own.indices(step)] for step in range(5)]
            found.append(
                {
                    "rule": rule,
                    "samples": 7,
                    "batch_size": 3,
                    "drop_last": drop_last,
                    "seed": SEED.hex(),
                    "steps": steps,
                }
            )
    return found


# Steps in a segment, batches in a step, samples, batch size, and the first segment of each seed.
_SEVERAL_SEEDS = (
    (1, 1, 10, 3, (0, 2)),
    (1, 1, 10, 3, (0, 1, 2)),
    (1, 1, 10, 3, (0, 4)),
    (2, 1, 10, 3, (0, 1, 3, 4)),
    (1, 2, 7, 2, (0, 1, 2)),
    (2, 3, 40, 4, (0, 1)),
    (3, 1, 5, 5, (0, 1)),
    (1, 1, 10, 3, (0, 0, 2, 2)),
    (1, 1, 1, 1, (0, 1)),
)


def _orders_of_seeds() -> list[Json]:
    found: list[Json] = []
    for every, accumulate, samples, batch_size, begins in _SEVERAL_SEEDS:
        stretches = [
            Stretch(first_segment=first, seed=derive(SEED, "vector", number, size=32))
            for number, first in enumerate(begins)
        ]
        seeds = Seeds(every=every, accumulate=accumulate, stretches=stretches)
        said: list[Json] = [{"first_segment": s.first_segment, "seed": s.seed.hex()} for s in stretches]
        for rule, drop_last in ((SHUFFLED, False), (SHUFFLED, True), (SEQUENTIAL, False)):
            own = Order(rule=rule, samples=samples, batch_size=batch_size, drop_last=drop_last, seeds=seeds)
            batches: list[Json] = [[int(i) for i in own.indices(n)] for n in range(3 * own.batches_per_epoch)]
            found.append(
                {
                    "rule": rule,
                    "samples": samples,
                    "batch_size": batch_size,
                    "drop_last": drop_last,
                    "every": every,
                    "accumulate": accumulate,
                    "seeds": said,
                    "batches": batches,
                }
            )
    return found


def _bits(tensor: torch.Tensor) -> list[Json]:
    return [float_to_bits(x) for x in tensor.flatten().tolist()]


def _update(optimizer: Optimizer, dtype: torch.dtype) -> Json:
    state = {"parameters/w": torch.tensor([1.0, -2.0, 0.5], dtype=dtype)}
    # SGD's momentum is there before its first step too, which must not look at it.
    used = torch.tensor([0.25, -0.0, 3.0], dtype=dtype)
    fresh = used if isinstance(optimizer, SGD) or optimizer.steps_before else torch.zeros(3, dtype=dtype)
    for kept in optimizer.tensors():
        state[kept.name] = fresh.clone() if kept.shape_like_parameter else torch.ones(())
    before: dict[str, Json] = {name: _bits(tensor) for name, tensor in state.items()}
    gradients = [torch.tensor([0.75, -0.0, -2.0], dtype=dtype) * (step + 1) for step in range(3)]
    found: list[Json] = []
    for step, gradient in enumerate(gradients):
        optimizer.update(state, {"w": gradient}, step)
        found.append({name: _bits(tensor) for name, tensor in state.items()})
    given: list[Json] = [_bits(g) for g in gradients]
    fields: dict[str, Json] = {"optimizer": optimizer.to_json(), "dtype": str(dtype).removeprefix("torch.")}
    return fields | {"before": before, "gradients": given, "states": found}


@contextmanager
def rounded_roots() -> Iterator[None]:
    """While inside, `Tensor.sqrt` and `sqrt_` round correctly on every machine."""

    def sqrt(tensor: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.sqrt(tensor.numpy()))

    with (
        patch.object(torch.Tensor, "sqrt", sqrt),
        patch.object(torch.Tensor, "sqrt_", lambda tensor: tensor.copy_(sqrt(tensor))),
    ):
        yield


@rounded_roots()
def _updates() -> list[Json]:
    w = ("w",)
    plain = (
        SGDGroup(parameters=w, lr=0.5),
        SGDGroup(parameters=w, lr=0.5, weight_decay=0.25),
        SGDGroup(parameters=w, lr=0.5, momentum=0.5, dampening=0.25),
        SGDGroup(parameters=w, lr=0.5, momentum=0.5, weight_decay=0.25, nesterov=True),
    )
    exact = [SGD(groups=(group,), steps_before=n) for group in plain for n in (0, 1)]
    adam = AdamGroup(parameters=w, lr=0.1, beta1=0.75, beta2=0.875, amsgrad=True)
    adamw = AdamWGroup(parameters=w, lr=0.1, beta1=0.5, beta2=0.9375, weight_decay=0.3)
    rmsprop = RMSpropGroup(parameters=w, lr=0.125, alpha=0.75)
    moved = RMSpropGroup(parameters=w, lr=0.125, alpha=0.875, eps=0.25, momentum=0.3, centered=True)
    nadam = NAdamGroup(parameters=w, lr=0.1, beta1=0.75, beta2=0.875, momentum_decay=0.1)
    rounded: list[Optimizer] = [
        Adam(groups=(adam,)),
        AdamW(groups=(adamw,), steps_before=7),
        RMSprop(groups=(rmsprop,)),
        RMSprop(groups=(moved,)),
        *(
            Adagrad(groups=(AdagradGroup(parameters=w, lr=0.1, lr_decay=0.3, foreach=foreach),))
            for foreach in (False, True)
        ),
        NAdam(groups=(nadam,)),
        NAdam(
            groups=(replace(nadam, weight_decay=0.3, decoupled_weight_decay=True, foreach=True),),
            steps_before=3,
        ),
        Lion(groups=(LionGroup(parameters=w, lr=0.125, beta1=0.75, beta2=0.875, weight_decay=0.3),)),
    ]
    return [
        *(_update(own, torch.float64) for own in exact),
        *(_update(own, torch.float32) for own in rounded),
    ]


def _clippings() -> list[Json]:
    gradients = {"a": torch.tensor([3.0, -4.0]), "b": torch.tensor([12.0])}
    found: list[Json] = []
    for largest in (0.5, 6.5, 20.0):
        clipped = ClipNorm(max_norm=largest).apply(gradients)
        found.append(
            {
                "max": float_to_bits(largest),
                "dtype": "float32",
                "gradients": [_bits(g) for g in gradients.values()],
                "clipped": [_bits(g) for g in clipped.values()],
            }
        )
    return found


def program_vectors() -> dict[str, Json]:
    """The file."""
    return {
        "about": (
            "documents: canonical texts of a graph, a program and an initialisation. last_uses: for each "
            "node of the graph, the values that nothing reads after it. free_bytes: of that initialisation "
            "with that graph twice. samples: a schema, samples, their leaf hashes, and the batch of all in "
            "order, a tensor's bytes for each field. orders: the samples of steps 0 to 4 with one batch a "
            "step. orders_of_seeds: the batches of three epochs where each seed begins with its "
            "`first_segment`; of several that begin with one segment the last counts. updates: an optimizer, "
            "its tensors before, the gradients of three steps and the tensors after each. clippings: a "
            "largest norm, gradients in order, and what they become. Floats are 16 digits."
        ),
        "documents": _documents(),
        "last_uses": _last_uses(),
        "free_bytes": _free_bytes(),
        "samples": _samples(),
        "orders": _orders(),
        "orders_of_seeds": _orders_of_seeds(),
        "updates": _updates(),
        "clippings": _clippings(),
    }
