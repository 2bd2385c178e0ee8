"""The settings of machine and libraries under which exact arithmetic must give the same bits.

    python tests/settings.py BUNDLE … [--all]

Verifies each bundle, fully replayed, under a cover of the settings in which each two values of two different
settings meet, or under all combinations. What this machine has not is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, product
from pathlib import Path
from random import Random
from typing import Any

import torch

Setting = Mapping[str, str]

ROOT = Path(__file__).parent.parent
SETTINGS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    "threads": {"1": {"OMP_NUM_THREADS": "1"}, "2": {"OMP_NUM_THREADS": "2"}},
    "capability": {
        "default": {"ATEN_CPU_CAPABILITY": "default"},
        "avx2": {"ATEN_CPU_CAPABILITY": "avx2"},
        "avx512": {"ATEN_CPU_CAPABILITY": "avx512"},
    },
    "onednn": {"on": {}, "off": {}, "sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41"}},
    "mkl": {
        "compatible": {"MKL_CBWR": "COMPATIBLE"},
        "sse42": {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"},
        "default": {},
    },
    "blocking": {"kernel": {}, "torch": {"GRADSEAL_EXACT_KERNEL": "off"}},
}
"""Each setting's values, and the environment variables that make them."""

_ALL_VARIABLES = {name for values in SETTINGS.values() for own in values.values() for name in own}


def missing() -> list[str]:
    """What of it this machine does not have, in words."""
    here = torch.backends.cpu.get_cpu_capability()
    absent = [] if here == "AVX512" else ["AVX-512, which this processor does not have"]
    return absent if torch.cuda.is_available() else [*absent, "a GPU"]


def available() -> dict[str, list[str]]:
    """The values of each setting that this machine has."""
    found = {name: list(values) for name, values in SETTINGS.items()}
    if any("AVX-512" in what for what in missing()):
        found["capability"].remove("avx512")
    return found


def every() -> list[Setting]:
    """All combinations."""
    values = available()
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


def cover() -> list[Setting]:
    """Few combinations in which each two values of two settings meet."""
    return min((_greedy(Random(seed)) for seed in range(50)), key=len)


def _greedy(random: Random) -> list[Setting]:
    """The combination with the most new pairs, or one of them, until there is no pair left."""
    everything = every()
    left = {pair for setting in everything for pair in _pairs(setting)}
    chosen: list[Setting] = []
    while left:
        random.shuffle(everything)
        best = max(everything, key=lambda setting: len(left & _pairs(setting)))
        left -= _pairs(best)
        chosen.append(best)
    return chosen


def _pairs(setting: Setting) -> set[frozenset[tuple[str, str]]]:
    return {frozenset(pair) for pair in combinations(setting.items(), 2)}


def replay(bundle: Path, setting: Setting, *, timeout_seconds: float) -> dict[str, Any]:
    """What `replay_under.py` prints of a bundle under a setting."""
    variables = {k: v for k, v in os.environ.items() if k not in _ALL_VARIABLES}
    for name, value in setting.items():
        variables |= SETTINGS[name][value]
    variables["MKL_NUM_THREADS"] = variables["OMP_NUM_THREADS"]
    command = [sys.executable, str(ROOT / "tests" / "replay_under.py"), str(bundle)]
    if setting["onednn"] == "off":
        command.append("--without-onednn")
    done = subprocess.run(
        command, env=variables, capture_output=True, text=True, timeout=timeout_seconds, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def named(setting: Setting) -> str:
    """A setting in one line."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())


def results(
    bundles: Sequence[Path], settings: Sequence[Setting]
) -> Iterator[tuple[Path, Setting, dict[str, Any]]]:
    """Each bundle under each setting."""
    for bundle, setting in product(bundles, settings):
        yield bundle, setting, replay(bundle, setting, timeout_seconds=3600)


def main() -> int:
    """Prints a line for each bundle and setting; 1 if anything differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--all", action="store_true", help="all combinations instead of a cover of pairs")
    chosen = parser.parse_args()
    settings, wrong = every() if chosen.all else cover(), 0
    for absent in missing():
        print(f"not tried: {absent}")
    for bundle, setting, found in results(chosen.bundles, settings):
        same = found["computation"] == "shown"
        wrong += not same
        print(
            f"{bundle}: {named(setting)}: {found['equal']} segments equal, {'same bits' if same else found}",
            flush=True,
        )
    print(f"{len(settings)} settings, {len(chosen.bundles)} bundles, {wrong} with other bits")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
