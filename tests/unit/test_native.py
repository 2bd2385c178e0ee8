"""The environment's JSON form is strict, and nothing in it reaches a process but what it is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gradseal.errors import CaptureError, MalformedBundle, UnknownKind
from gradseal.program.native import (
    NUMERICAL_PREFIXES,
    Environment,
    check_recordable,
    current_environment,
    differences,
    enter_environment,
    seeded,
)
from gradseal.program.randomness import step_generator_seed
from gradseal.proof.fields import Fields


def read(**changes: Any) -> Environment:
    return Environment.from_fields(Fields(current_environment().to_json() | changes, "environment"))


def test_round_trip() -> None:
    assert read() == current_environment()


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 0},
        {"threads": 1025},
        {"threads": True},
        {"onednn": 1},
        {"onednn_isa": "AVX2; rm -rf /"},
        {"onednn_isa": "AVX2\n"},
        {"onednn_isa": "A" * 41},
        {"mkl_mode": "AVX2=1"},
        {"torch": "2.13\0"},
        {"machine": "é"},
        {"processor": "x" * 121},
        {"cpu_capability": "AVX2\n"},
        {"matmul_precision": "low"},
        {"deterministic": None},
        {"more": 1},
    ],
)
def test_malformed_environments(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedBundle):
        read(**changes)


def test_unknown_kinds() -> None:
    for changes in ({"kind": "exact"}, {"device": "meta"}, {"device": "cuda:0"}):
        with pytest.raises(UnknownKind):
            read(**changes)


def test_process_variables() -> None:
    own = read(threads=3, cpu_capability="AVX2", onednn_isa="AVX512_CORE", mkl_mode="AVX2,STRICT")
    assert own.process_variables() == {
        "OMP_NUM_THREADS": "3",
        "MKL_NUM_THREADS": "3",
        "MKL_DYNAMIC": "FALSE",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX512_CORE",
        "MKL_CBWR": "AVX2,STRICT",
    }
    assert all(name.startswith(NUMERICAL_PREFIXES) for name in own.process_variables())
    plain = read(threads=1, cpu_capability="SVE", onednn_isa="", mkl_mode="")
    assert set(plain.process_variables()) == {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "MKL_DYNAMIC"}


def test_entering_an_environment_and_what_differs() -> None:
    before = current_environment()
    try:
        enter_environment(read(threads=2, onednn=False, matmul_precision="high", deterministic=True))
        now = current_environment()
        assert (now.threads, now.onednn, now.matmul_precision, now.deterministic) == (2, False, "high", True)
        assert set(differences(before, now)) == {"threads", "onednn", "matmul_precision", "deterministic"}
        assert differences(before, now)["threads"] == ("1", "2")
    finally:
        enter_environment(before)
    assert differences(before, current_environment()) == {}


def test_a_steps_generator_is_seeded_and_restored() -> None:
    before = torch.random.get_rng_state()
    with seeded(bytes(32), 5, 2):
        drawn = torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    generator = torch.Generator().manual_seed(step_generator_seed(bytes(32), 5, 2))
    assert torch.equal(drawn, torch.rand(3, generator=generator))


def test_the_generator_is_restored_after_an_error() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(RuntimeError), seeded(bytes(32), 0):
        torch.rand(1)
        raise RuntimeError
    assert torch.equal(torch.random.get_rng_state(), before)


def test_variables_that_no_record_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_recordable()
    monkeypatch.setenv("ONEDNN_DEFAULT_FPMATH_MODE", "BF16")
    with pytest.raises(CaptureError) as caught:
        check_recordable()
    assert "ONEDNN_DEFAULT_FPMATH_MODE" in caught.value.where
