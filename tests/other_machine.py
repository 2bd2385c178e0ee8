"""Replays of exact arithmetic on other processors, which QEMU's user mode emulates.

    python tests/other_machine.py [--prepare] [BUNDLE]

Records a short run here, unless a bundle is given, and replays it on each processor with `replay_under.py`:
the known digests of `fitness.json` first, then every step. Prints a line for each. Processors of x86-64 run
this very Python. AArch64 needs a Python, PyTorch and the other dependencies of its own, which `--prepare`
fetches from Debian and PyPI, at the versions installed here, into `GRADSEAL_OTHER_MACHINE` or a folder of the
user's cache; it needs Debian with Python 3.11, and 2 GB. Our kernels are compiled for it too.

What differs from a real machine: the emulator computes floats by its own software, in the way the processor's
manual says. The AArch64 build of PyTorch wants CUDA; empty libraries that report no device take its place.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PACKAGE = Path("gradseal", "program", "exact")
FOREIGN = Path(os.environ.get("GRADSEAL_OTHER_MACHINE", Path.home() / ".cache" / "gradseal" / "aarch64"))
COMPILER = "aarch64-linux-gnu-gcc"
STEPS = 3

_DEBIAN = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "media-types"),
    *("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "zlib1g", "libbz2-1.0", "liblzma5", "libcrypt1"),
    *("libssl3", "libffi8", "libsqlite3-0", "libexpat1", "libuuid1"),
)
_PROCESSOR = """processor\t: {}
BogoMIPS\t: 50.00
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
_NO_DEVICE = 100  # cudaErrorNoDevice


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A processor to emulate.

    Attributes:
        architecture: As QEMU names it.
        processor: Likewise.
        capability: What PyTorch must say of it, so that it is known which kernels ran.
        kernel: Which of our kernels must have run.
        variables: The environment's, besides.
    """

    architecture: str
    processor: str
    capability: str
    kernel: str
    variables: Mapping[str, str] = field(default_factory=dict)


MACHINES: Mapping[str, Machine] = {
    "x86-64 without AVX": Machine(
        architecture="x86_64", processor="Nehalem", capability="DEFAULT", kernel="baseline.so"
    ),
    "x86-64 with AVX2": Machine(
        architecture="x86_64", processor="Haswell", capability="AVX2", kernel="avx2.so"
    ),
    "AArch64": Machine(
        architecture="aarch64", processor="neoverse-n1", capability="DEFAULT", kernel="baseline.so"
    ),
    "AArch64, PyTorch's operators only": Machine(
        architecture="aarch64",
        processor="neoverse-n1",
        capability="DEFAULT",
        kernel="none",
        variables={"GRADSEAL_EXACT_KERNEL": "off"},
    ),
}


def missing(machine: Machine) -> str:
    """Why this machine cannot emulate that one; empty if it can."""
    if not shutil.which(f"qemu-{machine.architecture}"):
        return f"no qemu-{machine.architecture}: apt install qemu-user"
    if machine.architecture == "x86_64":
        return "" if os.uname().machine == "x86_64" else "this Python is not one for x86-64"
    if not shutil.which(COMPILER):
        return f"no {COMPILER}: apt install gcc-aarch64-linux-gnu"
    ready = FOREIGN / "ready.json"
    if not ready.is_file() or json.loads(ready.read_text()) != pins():
        return (
            f"no AArch64 Python with these dependencies in {FOREIGN}: python tests/other_machine.py --prepare"
        )
    return ""


def record(bundle: Path, key: Path, *, timeout_seconds: float) -> None:
    """Records a few steps of the digits recipe in exact arithmetic, on this machine."""
    program = str(Path(sys.executable).with_name("gradseal"))
    commands = [
        ["key", "new", "--name", "machine.example", str(key)],
        ["record", "digits", "--arithmetic", "exact", "--steps", str(STEPS), "--every", "1"],
    ]
    commands[1] += ["--out", str(bundle), "--key", str(key)]
    for command in commands:
        subprocess.run([program, *command], check=True, capture_output=True, timeout=timeout_seconds)


def replay(bundle: Path, machine: Machine, scratch: Path, *, timeout_seconds: float) -> dict[str, Any]:
    """What `replay_under.py` prints there.

    Args:
        bundle: Recorded anywhere.
        machine: Which must not be missing.
        scratch: An empty folder.
        timeout_seconds: After which it is stopped.

    Raises:
        RuntimeError: It failed there; with the end of what it said.
    """
    variables = dict(os.environ) | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    for name in ("ATEN_CPU_CAPABILITY", "GRADSEAL_EXACT_KERNEL"):
        variables.pop(name, None)
    command = [f"qemu-{machine.architecture}", "-cpu", machine.processor]
    if machine.architecture == "aarch64":
        _compile(scratch)
        # The host's loader and locale have nothing to do with that Python's.
        variables["PYTHONPATH"] = os.pathsep.join([str(scratch), str(FOREIGN / "site")])
        command += ["-L", str(FOREIGN / "root"), str(FOREIGN / "root" / "usr" / "bin" / "python3.11")]
    else:
        command.append(sys.executable)
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "replay_under.py"), str(bundle)],
        env={**variables, **machine.variables},
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def same(found: Mapping[str, Any], machine: Machine) -> bool:
    """Whether every step had the recorded bits, on the kernels that were meant."""
    return (
        found["computation"] == "shown"
        and found["equal"] == STEPS
        and (found["capability"], found["kernel"]) == (machine.capability, machine.kernel)
    )


def _compile(folder: Path) -> None:
    """Gradseal with its kernels for AArch64, in place of those for this machine."""
    shutil.copytree(
        ROOT / "src" / "gradseal",
        folder / "gradseal",
        ignore=shutil.ignore_patterns("_kernel_*", "__pycache__"),
    )
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    hatch_build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hatch_build)
    hatch_build.build(COMPILER, folder / PACKAGE / "_kernel_baseline.so", ())


def pins() -> list[str]:
    """Gradseal's dependencies, and theirs, at the versions installed here, as requirements."""
    found: dict[str, str] = {}
    waiting, done = [Requirement("gradseal")], set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in done:
                continue
            done.add((wanted.name, extra))
            try:
                installed = metadata.distribution(wanted.name)
            except metadata.PackageNotFoundError:
                continue  # what a CUDA build of PyTorch asks for
            found[installed.metadata["Name"].lower()] = installed.version.partition("+")[0]
            for line in installed.requires or ():
                requirement = Requirement(line)
                if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                    waiting.append(requirement)
    return sorted(f"{name}=={version}" for name, version in found.items() if name != "gradseal")


def prepare() -> None:
    """Makes `FOREIGN` anew: an AArch64 Python in `root`, its packages in `site`.

    Raises:
        subprocess.CalledProcessError: Something could not be had.
    """
    shutil.rmtree(FOREIGN, ignore_errors=True)
    root, site = FOREIGN / "root", FOREIGN / "site"
    root.mkdir(parents=True)
    _fetch_python(root)
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 37)]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:"]
    pip += [*platforms, "--platform=manylinux2014_aarch64", "--python-version=3.11", f"--target={site}"]
    subprocess.run([*pip, "--implementation=cp", *pins()], check=True)
    # Else PyTorch's modules are compiled under emulation, at each start.
    python = root / "usr" / "lib" / "python3.11"
    subprocess.run([sys.executable, "-m", "compileall", "-q", "-j2", str(python)], check=False)
    _stand_in_for_cuda(root, site)
    (FOREIGN / "ready.json").write_text(json.dumps(pins()))


def _fetch_python(root: Path) -> None:
    """Unpacks Debian's, without a word to this machine's own list of packages; says which processor it is."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name in ("lists/partial", "cache/archives/partial", "debs"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        settings = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "root",
            "Dir::State::lists": str(folder / "lists"),
            "Dir::State::status": str(folder / "status"),
            "Dir::Cache": str(folder / "cache"),
        }
        apt = ["apt-get", "-qq", *(f"--option={name}={value}" for name, value in settings.items())]
        subprocess.run([*apt, "update"], check=True)
        subprocess.run([*apt, "download", *_DEBIAN], check=True, cwd=folder / "debs")
        for package in sorted((folder / "debs").iterdir()):
            subprocess.run(["dpkg", "-x", str(package), str(root)], check=True)
    # QEMU's user mode shows the host's, where PyTorch looks and finds no AArch64 processor.
    identity = root / "sys/devices/system/cpu/cpu0/regs/identification/midr_el1"
    for path, text in ((root / "proc/cpuinfo", _PROCESSOR.format(0)), (identity, "0x00000000413fd0c1\n")):
        path.parent.mkdir(parents=True)
        path.write_text(text)


def _stand_in_for_cuda(root: Path, site: Path) -> None:
    """One library under the names of all that PyTorch needs and nobody has, with every function they lack."""
    lib = site / "torch" / "lib"
    ours = [*lib.glob("*.so*"), *site.glob("torch/_C.*.so")]
    theirs = [path for path in root.rglob("*.so*") if path.is_file()]
    needed = set(re.findall(r"\(NEEDED\).*\[(.+)\]", _readelf("--dynamic", ours)))
    absent = sorted(needed - {path.name for path in [*ours, *theirs]})
    if not absent:
        return
    defined, wanted = set(), set()
    for line in _readelf("--dyn-syms", [*ours, *theirs, root / "usr/bin/python3.11"]).splitlines():
        fields = line.split()
        if len(fields) < 8 or not fields[0].rstrip(":").isdigit():
            continue
        name, _, version = fields[7].partition("@")
        if fields[6] != "UND":
            defined.add(name)
        elif fields[4] == "GLOBAL":
            wanted.add((name, version.strip("@")))
    versions: dict[str, list[str]] = {}
    for name, version in sorted(wanted):
        if name not in defined:
            versions.setdefault(version, []).append(name)
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "cuda.c"), Path(scratch, "cuda.map")
        functions = sorted({name for names in versions.values() for name in names})
        source.write_text("".join(f"long {name}(void) {{ return {_NO_DEVICE}; }}\n" for name in functions))
        script.write_text(
            "".join(f"{v} {{ global: {'; '.join(names)}; }};\n" for v, names in versions.items() if v)
        )
        command = [COMPILER, "-shared", "-fPIC", "-nostdlib", "-fno-builtin", "-w", str(source)]
        command += [f"-Wl,--version-script={script}", "-o", str(lib / "no_cuda.so")]
        subprocess.run(command, check=True)
    for name in absent:
        (lib / name).symlink_to("no_cuda.so")


def _readelf(what: str, paths: Sequence[Path]) -> str:
    # Some files named so are scripts; what it says of those is of no interest.
    command = ["readelf", "--wide", what, *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def main() -> int:
    """Prints a line for each processor; 1 if one gave other bits."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path, nargs="?", help=f"recorded with {STEPS} segments")
    parser.add_argument("--prepare", action="store_true", help="fetch what AArch64 needs first")
    parser.add_argument("--timeout", type=float, default=1800, metavar="SECONDS", help="of each replay")
    chosen = parser.parse_args()
    if chosen.prepare:
        prepare()
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        bundle = chosen.bundle or folder / "bundle"
        if chosen.bundle is None:
            record(bundle, folder / "key", timeout_seconds=600)
        for number, (name, machine) in enumerate(MACHINES.items()):
            if why := missing(machine):
                print(f"{name}: not tried: {why}", flush=True)
                continue
            start = time.monotonic()
            try:
                found = replay(bundle, machine, folder / str(number), timeout_seconds=chosen.timeout)
            except (RuntimeError, subprocess.SubprocessError) as e:
                found, outcome = {}, f"failed: {e}"
            else:
                outcome = "same bits" if same(found, machine) else f"other bits or kernels: {found}"
            wrong += outcome != "same bits"
            seconds = time.monotonic() - start
            print(f"{name} ({machine.processor}): {outcome}, after {seconds:.0f} s", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
