"""Native arithmetic: what decides its bits besides the program, as far as it can be known and set.

The same program in the same environment gives the same bits; in another it may not. So a run records the
environment it was made in, and a verifier starts its workers in that one, if it can be had.
Format: docs/spec/program.md, section 9.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as dataclass_fields
from functools import cache
from pathlib import Path

from gradseal.errors import CaptureError, MalformedBundle
from gradseal.program.randomness import step_generator_seed
from gradseal.proof.canonical import Json
from gradseal.proof.fields import Fields

KIND = "native"
MAX_THREADS = 1024
DEVICES = ("cpu", "cuda")

_X86 = frozenset(["x86_64", "amd64", "i386", "i686"])
_CAPABILITIES: Mapping[str, frozenset[str]] = {
    "DEFAULT": frozenset(),
    "AVX2": frozenset(["avx2", "fma"]),
    "AVX512": frozenset(["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"]),
}
"""ATen's vector widths, the narrowest first, with what a processor must have for each; a process that is told
to use what is not there ends at its first step."""

_WORD = re.compile(r"[A-Za-z0-9_.,+:() @-]{0,120}")
_MODE = re.compile(r"[A-Za-z0-9_,]{0,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What native arithmetic depends on.

    Args:
        torch: PyTorch's version.
        machine: The processor's architecture, as `platform.machine` names it.
        processor: The processor's model, as the operating system names it; libraries choose kernels by it.
        device: The kind of device, `cpu` or `cuda`.
        threads: Threads within an operator.
        cpu_capability: The vector width ATen's kernels were chosen for.
        onednn: Whether oneDNN was used.
        onednn_isa: `ONEDNN_MAX_CPU_ISA`, or empty where it was not set.
        mkl_mode: `MKL_CBWR`, or empty where it was not set.
        matmul_precision: `torch.get_float32_matmul_precision()`.
        deterministic: Whether deterministic algorithms were demanded.
    """

    torch: str
    machine: str
    processor: str
    device: str
    threads: int
    cpu_capability: str
    onednn: bool
    onednn_isa: str
    mkl_mode: str
    matmul_precision: str
    deterministic: bool

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 9."""
        return {"kind": KIND, **asdict(self)}

    @classmethod
    def from_fields(cls, fields: Fields) -> Environment:
        """Reads the JSON form strictly.

        What would reach a process's environment is a number, or of letters, digits, underscores and commas.

        Raises:
            MalformedBundle: A field is wrong.
            UnknownKind: Not native arithmetic, or a kind of device that this version does not know.
        """
        fields.kind("kind", [KIND])
        own = cls(
            torch=_matching(fields, "torch", _WORD),
            machine=_matching(fields, "machine", _WORD),
            processor=_matching(fields, "processor", _WORD),
            device=fields.kind("device", DEVICES),
            threads=fields.integer("threads", 1, MAX_THREADS),
            cpu_capability=_matching(fields, "cpu_capability", _WORD),
            onednn=fields.boolean("onednn"),
            onednn_isa=_matching(fields, "onednn_isa", _MODE),
            mkl_mode=_matching(fields, "mkl_mode", _MODE),
            matmul_precision=fields.choice("matmul_precision", ["highest", "high", "medium"]),
            deterministic=fields.boolean("deterministic"),
        )
        fields.end()
        return own

    def process_variables(self) -> dict[str, str]:
        """The environment variables that a process must be started with to have this environment."""
        variables = {
            "OMP_NUM_THREADS": str(self.threads),
            "MKL_NUM_THREADS": str(self.threads),
            "MKL_DYNAMIC": "FALSE",
            "ATEN_CPU_CAPABILITY": self.cpu_capability.lower()
            if self.cpu_capability in _CAPABILITIES
            else "",
            "ONEDNN_MAX_CPU_ISA": self.onednn_isa,
            "MKL_CBWR": self.mkl_mode,
        }
        return {name: value for name, value in variables.items() if value}


UNRECORDED_VARIABLES = (
    "DNNL_MAX_CPU_ISA",
    "DNNL_DEFAULT_FPMATH_MODE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "MKL_ENABLE_INSTRUCTIONS",
)
"""Variables that change the bits and that no record holds; a recording refuses them."""

NUMERICAL_PREFIXES = ("OMP_", "KMP_", "GOMP_", "MKL_", "ONEDNN_", "DNNL_", "ATEN_")
"""How the variables begin that a worker must not inherit: they change the bits, or how threads work."""


def _matching(fields: Fields, name: str, pattern: re.Pattern[str]) -> str:
    text = fields.text(name, max_length=120)
    if not pattern.fullmatch(text):
        raise MalformedBundle(f"{text!r} has characters that do not belong here", where=fields.where(name))
    return text


def attainable(environment: Environment) -> Environment:
    """The environment as far as this machine can have it: with the widest vectors that it has."""
    wanted = environment.cpu_capability
    if wanted not in _CAPABILITIES or has_capability(wanted):
        return environment
    return replace(environment, cpu_capability=[name for name in _CAPABILITIES if has_capability(name)][-1])


def has_capability(capability: str) -> bool:
    """Whether the processor has what a vector width needs; where it does not say, that is tried."""
    if platform.machine().lower() not in _X86:
        return capability == "DEFAULT"
    flags = _flags()
    return flags is None or _CAPABILITIES[capability] <= flags


@cache
def _cpuinfo() -> tuple[str, ...]:
    try:
        return tuple(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines())
    except OSError:
        return ()


def _flags() -> frozenset[str] | None:
    return next((frozenset(line.split()) for line in _cpuinfo() if line.startswith("flags")), None)


@cache
def _processor() -> str:
    models = [line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")]
    return re.sub(r"[^A-Za-z0-9_.,+:() @-]", "_", (models or [platform.processor()])[0])[:120]


def current_environment(device: str = "cpu") -> Environment:
    """The environment of this process, as it is now."""
    import torch

    return Environment(
        torch=torch.__version__,
        machine=platform.machine(),
        processor=_processor(),
        device=device,
        threads=torch.get_num_threads(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        onednn=bool(torch.backends.mkldnn.enabled),
        onednn_isa=os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        mkl_mode=os.environ.get("MKL_CBWR", ""),
        matmul_precision=torch.get_float32_matmul_precision(),
        deterministic=torch.are_deterministic_algorithms_enabled(),
    )


def check_recordable() -> None:
    """Refuses settings that change the bits and that a record does not hold.

    Raises:
        CaptureError: One is set; names it.
    """
    if float.fromhex("0x1p-1060") * float(len("1")) == 0.0:
        raise CaptureError(
            "denormal numbers are flushed to zero in this thread, and no record holds that",
            where="environment: torch.set_flush_denormal",
            advice="call torch.set_flush_denormal(False)",
        )
    import torch

    if torch.get_default_dtype() is not torch.float32:
        raise CaptureError(
            f"the default element type is {torch.get_default_dtype()}, and no record holds that",
            where="environment: torch.set_default_dtype",
            advice="leave it float32, and cast model and data",
        )
    try:
        torch.get_float32_matmul_precision()
    except RuntimeError as e:
        raise CaptureError(
            "precision is set by backend, and no record holds that",
            where="environment: torch.backends",
            advice="leave fp32_precision alone; use torch.set_float32_matmul_precision",
        ) from e
    for name in UNRECORDED_VARIABLES:
        if os.environ.get(name):
            raise CaptureError(
                "is set, and a verifier could not know it", where=f"environment: {name}", advice="unset it"
            )


def enter_environment(wanted: Environment) -> None:
    """Sets, in this process, what of `wanted` can still be set once torch is loaded."""
    import torch

    torch.set_num_threads(wanted.threads)
    torch.backends.mkldnn.enabled = wanted.onednn  # type: ignore[assignment] # typed as a property of torch's
    torch.set_float32_matmul_precision(wanted.matmul_precision)
    # Setting it, even to what it is, loads torch's compiler, which takes as long as the rest of torch.
    if torch.are_deterministic_algorithms_enabled() != wanted.deterministic:
        torch.use_deterministic_algorithms(wanted.deterministic)


def differences(wanted: Environment, had: Environment) -> Mapping[str, tuple[str, str]]:
    """The fields in which two environments differ, each with both values."""
    pairs = {
        f.name: (str(getattr(wanted, f.name)), str(getattr(had, f.name))) for f in dataclass_fields(wanted)
    }
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


@contextmanager
def seeded(seed: bytes, step: int, micro_batch: int = 0) -> Iterator[None]:
    """Torch's default generators as they are at a step, and afterwards as they were before.

    Args:
        seed: The run's seed.
        step: The number of the step, from 0.
        micro_batch: Which part of the step's batch.
    """
    import torch

    with torch.random.fork_rng():
        seed_generators(seed, step, micro_batch)
        yield


def seed_generators(seed: bytes, step: int, micro_batch: int) -> None:
    """Sets torch's default generators to what they are at a batch of a step; see `seeded`."""
    import torch

    value = step_generator_seed(seed, step, micro_batch)
    # What `torch.manual_seed` does, without its formatting of a stack for devices that are not there.
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(value)
