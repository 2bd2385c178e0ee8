"""Vectors of the documents that a manifest names, docs/spec/program.md and bundle.md: `documents.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from gradseal.program.clipping import ClipNorm
from gradseal.program.native import Environment
from gradseal.program.samples import SampleSchema
from gradseal.program.schedule import Column, Piece, Schedule
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import encode, float_to_bits
from vectors.make_free_bytes import free_bytes_of_runs
from vectors.make_program import graph, initialisation, sgd_program

Vectors = dict[str, Any]
Changes = Sequence[tuple[str, str, str]]

ENVIRONMENT = Environment(
    torch="2.13.0+cpu",
    machine="x86_64",
    processor="A processor @ 2.00GHz",
    device="cpu",
    threads=2,
    cpu_capability="AVX2",
    onednn=True,
    onednn_isa="",
    mkl_mode="COMPATIBLE",
    matmul_precision="highest",
    deterministic=False,
)
_SCHEDULE = Schedule(
    every=2,
    columns=(
        Column(
            field="lr",
            groups=(0,),
            pieces=(
                Piece(length=3, coefficients=(0.25, -0.1875, 0.03125)),
                Piece(length=2, coefficients=(0.1,)),
            ),
        ),
        Column(
            field="momentum",
            groups=(0,),
            pieces=(Piece(length=3, coefficients=(0.1,)), Piece(length=2, coefficients=(0.75, 0.125))),
        ),
    ),
)
_STEPS = 9
_SCHEMA = SampleSchema(
    tree=(
        "dict",
        (
            TensorSpec(name="y", dtype="int64", shape=()),
            ("list", (TensorSpec(name="x", dtype="uint8", shape=(2, 3)),), ()),
        ),
        ("y", "x"),
    )
)


def documents() -> Vectors:
    """docs/spec/program.md, sections 2, 3, 5, 8 and 9; docs/spec/bundle.md, section 6."""
    plain = sgd_program()
    scheduled = replace(plain, clip=ClipNorm(max_norm=1.5), schedule=_SCHEDULE)
    texts = {
        "graphs": graph().encode().decode(),
        "programs": scheduled.encode().decode(),
        "initialisations": initialisation().encode().decode(),
        "schemas": _SCHEMA.encode().decode(),
        "arithmetics": encode(ENVIRONMENT.to_json()).decode(),
    }
    return {
        "about": (
            "valid: the canonical text of one document of each kind; the initialisation is one for the "
            "layout and constants of the program. schedule: of that program, for so many steps, what each "
            "step has, and its free bytes. free_bytes: whole programs, each with its graphs by batch size "
            "and its initialisation, and what section 8 counts, item by item. invalid: changed texts that "
            "must be refused; `schedules` are of programs that are well-formed, but not for so many steps, "
            "or not with these values."
        ),
        "valid": texts,
        "free_bytes": free_bytes_of_runs(ENVIRONMENT),
        "schedule": {
            "steps": _STEPS,
            "values": [
                {f"{group} {field}": float_to_bits(x) for (group, field), x in _SCHEDULE.at(step).items()}
                for step in range(_STEPS)
            ],
            "free_bytes": _SCHEDULE.free_bytes(),
        },
        "invalid": {kind: _changed(texts[kind], changes) for kind, changes in _CHANGES.items()}
        | {"schedules": _changed(texts["programs"], _SCHEDULE_CHANGES)},
    }


def _changed(good: str, changes: Changes) -> list[Vectors]:
    cases = []
    for reason, old, new in changes:
        if good.count(old) != 1:
            raise AssertionError(f"{reason}: {old} is there {good.count(old)} times")
        cases.append({"reason": reason, "text": good.replace(old, new)})
    return cases


_CHANGES: dict[str, Changes] = {
    "graphs": (
        ("another format", "graph-v1", "graph-v999"),
        ("an unknown operator", "aten.mul.Tensor", "aten.mul.Nothing"),
        ("an operator that writes a file", "aten.mul.Tensor", "aten.save.default"),
        ("a value of its own node", '["aten.mul.Tensor",[{"ref":0}', '["aten.mul.Tensor",[{"ref":3}'),
        ("a negative value", '["aten.mul.Tensor",[{"ref":0}', '["aten.mul.Tensor",[{"ref":-1}'),
        ("empty named arguments", '["aten.mul.Tensor",[{"ref":0},{"ref":1}]]', '["aten.mul.Tensor",[],{}]'),
        ("a loss that is no value", '"loss":6', '"loss":8'),
        ("a gradient that is no value", '"gradients":{"w":1}', '"gradients":{"w":8}'),
        ("a JSON float", '[{"ref":3},0]', '[{"ref":3},0.5]'),
        ("an unknown element type", '{"dtype":"float32"}', '{"dtype":"float33"}'),
        ("another device", '{"device":"run"}', '{"device":"cuda:0"}'),
        ("an unknown tag", '{"dtype":"float32"}', '{"file":"float32"}'),
        ("two tags", '{"dtype":"float32"}', '{"dtype":"float32","ref":0}'),
        ("a large integer as a small one", '{"int":"4611686018427387904"}', '{"int":"4611686018427387904x"}'),
        ("a small integer as a large one", '{"int":"4611686018427387904"}', '{"int":"7"}'),
        ("a negative index", '["getitem",[{"ref":4},1]]', '["getitem",[{"ref":4},-1]]'),
        ("an input of another kind", '["batch",0]', '["file",0]'),
        ("a list nested too deep", "[1,[{", "[1,[[[{"),
        ("an unknown field", '"format":', '"extra":1,"format":'),
        ("a missing field", ',"loss":6', ""),
    ),
    "programs": (
        ("another format", "program-v1", "program-v999"),
        ("an unknown optimizer", '"name":"sgd"', '"name":"sgx"'),
        ("a hyperparameter too many", '"nesterov":', '"more":true,"nesterov":'),
        ("a learning rate that is not finite", '"lr":"3fb999999999999a"', '"lr":"7ff0000000000000"'),
        ("a negative momentum", '"momentum":"3feccccccccccccd"', '"momentum":"bfeccccccccccccd"'),
        ("a kept tensor of another name", "optimizer/w/momentum_buffer", "optimizer/w/momentum"),
        ("a tensor of no part", '"name":"buffers/n"', '"name":"others/n"'),
        ("a parameter that is not there", '"name":"parameters/w"', '"name":"parameters/v"'),
        ("batch sizes that fall", '{"batch_size":2,', '{"batch_size":5,'),
        ("an unknown clipping", '"kind":"norm"', '"kind":"value"'),
        ("a largest norm of zero", '"max":"3ff8000000000000"', '"max":"0000000000000000"'),
        ("a schedule of what may not change", '{"field":"lr"', '{"field":"dampening"'),
        ("a piece without coefficients", '[2,["3fb999999999999a"]]', "[2,[]]"),
        ("a piece without length", '[2,["3fb999999999999a"]]', '[0,["3fb999999999999a"]]'),
        ("a coefficient that is not finite", '[2,["3fb999999999999a"]]', '[2,["7ff0000000000000"]]'),
        ("a coefficient that is a number", '[2,["3fb999999999999a"]]', "[2,[1]]"),
        ("values that hold for no step", '"every":2', '"every":0'),
        (
            "a schedule of a group that is not there",
            '"field":"lr","groups":[0]',
            '"field":"lr","groups":[1]',
        ),
        ("two columns for one", '"field":"lr","groups":[0]', '"field":"momentum","groups":[0]'),
        ("a column without groups", '"field":"lr","groups":[0]', '"field":"lr","groups":[]'),
        ("a negative size", '"name":"constants/0","shape":[2]', '"name":"constants/0","shape":[-1]'),
        ("a missing field", ',"steps_before":0', ""),
        ("updates counted by one that does not count", '"steps_before":0', '"steps_before":2'),
        ("a parameter without a name", '"name":"buffers/n"', '"name":"buffers/"'),
    ),
    "initialisations": (
        ("another format", "initialisation-v1", "initialisation-v999"),
        ("a source too few", '{"given":"' + "00" * 32 + '"}', ""),
        ("an unknown rule", '"kind":"uniform"', '"kind":"cauchy"'),
        (
            "a fan that the model has not",
            '"fan":2,"form":"formula","ratio":"1/1","sign":"+"',
            '"fan":3,"form":"formula","ratio":"1/1","sign":"+"',
        ),
        ("an unknown ratio", '"ratio":"1/1","sign":"+"', '"ratio":"7/5","sign":"+"'),
        ("an unknown name", '"name":"0"', '"name":"0.7"'),
        ("a number that is none", '"bits":"3fd3333333333333"', '"bits":"7ff8000000000000"'),
        ("a source of both kinds", '{"given":"', '{"rule":1,"given":"'),
    ),
    "schemas": (
        ("another format", "sample-v1", "sample-v999"),
        ("an unknown element type", '"int64"', '"int65"'),
        ("a negative size", "[2,3]", "[2,-3]"),
        ("a key twice", '["x",', '["y",'),
        ("an unknown member", '{"list":', '{"set":'),
        ("two members", '{"list":', '{"dict":[],"list":'),
        ("no field", '[["y",{"tensor":["int64",[]]}],["x",{"list":[{"tensor":["uint8",[2,3]]}]}]]', "[]"),
    ),
    "arithmetics": (
        ("another kind", '"kind":"native"', '"kind":"exotic"'),
        ("no threads", '"threads":2', '"threads":0'),
        ("another device", '"device":"cpu"', '"device":"abacus"'),
        ("a mode with a space", '"mkl_mode":"COMPATIBLE"', '"mkl_mode":"COMPATIBLE X"'),
        ("a line end", '"machine":"x86_64"', '"machine":"x86_64\\n"'),
        ("another precision", '"matmul_precision":"highest"', '"matmul_precision":"lowest"'),
        ("a number for a truth value", '"deterministic":false', '"deterministic":0'),
        ("a missing field", '"onednn":true,', ""),
    ),
}

_SCHEDULE_CHANGES: Changes = (
    ("a value too few", '[2,["3fb999999999999a"]]', '[1,["3fb999999999999a"]]'),
    ("a value too many", '[2,["3fb999999999999a"]]', '[3,["3fb999999999999a"]]'),
    ("values for another number of steps", '"every":2', '"every":3'),
    ("a momentum below zero", '"3fe8000000000000"', '"bfe8000000000000"'),
    ("a momentum that goes", '[3,["3fb999999999999a"]]', '[3,["0000000000000000"]]'),
    (
        "a value that is not finite",
        '"bfc8000000000000","3fa0000000000000"',
        '"ffefffffffffffff","7fefffffffffffff"',
    ),
)
