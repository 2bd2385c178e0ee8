"""Builds the kernels of exact arithmetic, once for each width of vectors that the processor may have.

    python hatch_build.py

Run by the build of the package, and by hand after a change. Without a C compiler there are none, and
PyTorch's own operators give the same bits, slower. Files named `*_exact.c` compute on integers that floats
hold exactly, so a product and a sum may be contracted there; in all others that would change a result, and is
forbidden.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
PACKAGE = ROOT / "src" / "gradseal" / "program" / "exact"

_COMMON = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fvisibility=hidden",
    "-Wall",
)
_WIDTHS = {
    "x86_64": {
        "baseline": ("-march=x86-64",),
        "avx2": ("-mavx2", "-mfma", "-mf16c", "-mbmi2"),
        "avx512": ("-march=skylake-avx512", "-mprefer-vector-width=512"),
    },
}


def build(compiler: str, target: Path, options: tuple[str, ...]) -> None:
    """One shared library of all sources.

    Raises:
        subprocess.CalledProcessError: The compiler refused.
    """
    with tempfile.TemporaryDirectory() as scratch:
        objects = []
        for source in sorted((PACKAGE / "c").glob("*.c")):
            contract = "fast" if source.stem.endswith("_exact") else "off"
            made = Path(scratch) / f"{source.stem}.o"
            command = [compiler, *_COMMON, f"-ffp-contract={contract}", *options, "-c", str(source)]
            subprocess.run([*command, "-o", str(made)], check=True)
            objects.append(str(made))
        # Moved into place, so that a process that has the old one open keeps it whole.
        fresh = Path(scratch) / target.name
        subprocess.run([compiler, "-shared", *objects, "-o", str(fresh), "-lm"], check=True)
        shutil.copy(fresh, target.with_suffix(".new"))
        os.replace(target.with_suffix(".new"), target)


def build_all() -> list[Path]:
    """Every kernel that this machine's compiler can make; none where there is no compiler."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")), None)
    if compiler is None:
        print("no C compiler: exact arithmetic will run on PyTorch's operators", file=sys.stderr)  # noqa: T201
        return []
    made = []
    for name, options in _WIDTHS.get(platform.machine(), {"baseline": ()}).items():
        target = PACKAGE / f"_kernel_{name}.so"
        try:
            build(compiler, target, options)
        except (OSError, subprocess.CalledProcessError) as e:
            print(f"no {name} kernel of exact arithmetic: {e}", file=sys.stderr)  # noqa: T201
            target.unlink(missing_ok=True)
            continue
        made.append(target)
    return made


try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    pass
else:

    class KernelHook(BuildHookInterface[Any]):
        """Adds the kernels to a wheel, or to the sources of an editable installation."""

        PLUGIN_NAME = "custom"

        def initialize(self, version: str, build_data: dict[str, Any]) -> None:
            """Called by hatchling before it builds."""
            if self.target_name != "wheel":
                return
            made = build_all()
            if made and version != "editable":
                build_data["pure_python"] = False
                platform_ = sysconfig.get_platform().replace("-", "_").replace(".", "_")
                build_data["tag"] = f"py3-none-{platform_}"
            build_data["artifacts"] += [str(path.relative_to(ROOT)) for path in made]


if __name__ == "__main__":
    found = build_all()
    for path in found:
        print(path)  # noqa: T201
    sys.exit(0 if found else 1)
