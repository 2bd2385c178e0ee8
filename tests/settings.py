"""The settings of machine and libraries under which exact arithmetic must give the same bits.

    python tests/settings.py [BUNDLE …] [--all] [--out FILE]

Verifies each bundle, fully replayed, under a cover of the settings in which each two values of two settings
meet, or under all combinations, and writes docs/reference/settings.md. Without bundles it records the recipes
first. What this machine has not is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import torch

from bundles import KEY
from gradseal.cli.training import train
from gradseal.recipes.recipe import load_recipe

Setting = Mapping[str, str]

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "reference" / "settings.md"
_RECORDINGS: Mapping[str, tuple[int, int, int | None]] = {
    "digits": (300, 50, None),
    "mnist": (40, 20, None),
    "text": (12, 6, None),
    "fashion": (5, 5, 32),
}
"""Steps, steps in a segment, and the batch size where it is not the recipe's."""
_HEAD = """# Settings that change no bit

Runs in exact arithmetic, recorded in one thread with PyTorch's defaults and the compiled kernels, replayed in
full under other settings: threads (`OMP_NUM_THREADS`, `MKL_NUM_THREADS`), vector width
(`ATEN_CPU_CAPABILITY`, which also chooses the compiled kernel), oneDNN on, off, or capped to SSE4.1, MKL as
it is, in its compatible mode or capped to SSE4.2, and another blocking: PyTorch's own operators in place of
the compiled kernels. Any two values of two settings meet in a row. `make settings` makes this page;
`python tests/settings.py --all` tries every combination.

"""
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


def record_recipe(path: Path, name: str, *, steps: int, every: int, batch_size: int | None = None) -> None:
    """Records a recipe in exact arithmetic; does not ask how good the model is."""
    recipe = replace(load_recipe(name), evaluate=lambda model: "")
    train(recipe, path, KEY, steps=steps, every=every, batch_size=batch_size, seed=1, arithmetic="exact")


def _recorded(directory: Path) -> list[Path]:
    """The recipes, recorded for as many steps as the slowest settings have patience for."""
    bundles = []
    for name, (steps, every, batch_size) in _RECORDINGS.items():
        print(f"recording {steps} steps of {name}", file=sys.stderr)
        record_recipe(directory / name, name, steps=steps, every=every, batch_size=batch_size)
        bundles.append(directory / name)
    return bundles


def page(settings: Sequence[Setting], found: Mapping[str, Sequence[dict[str, Any]]]) -> str:
    """The page: a row for each setting, a column for each bundle."""
    names = list(SETTINGS)
    rows = [
        f"| {' | '.join([*names, *found])} |",
        "|---" * (len(names) + len(found)) + "|",
    ]
    for number, setting in enumerate(settings):
        cells = [_cell(own[number]) for own in found.values()]
        rows.append(f"| {' | '.join([*setting.values(), *cells])} |")
    recorded = "; ".join(
        f"{name}, {steps} steps" + (f" of {size} samples" if size else "")
        for name, (steps, _, size) in _RECORDINGS.items()
        if name in found
    )
    told = f"Recorded: {recorded}.\n\n" if recorded else ""
    absent = f"Not had here: {'; '.join(missing())}.\n\n" if missing() else ""
    return f"{_HEAD}{told}{absent}{chr(10).join(rows)}\n"


def _cell(result: dict[str, Any]) -> str:
    same = result["computation"] == "shown"
    return f"same bits, {result['equal']} segments" if same else f"**{result['wrong']}**"


def main() -> int:
    """Writes the page; 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Replays exact recordings under many settings.")
    parser.add_argument("bundles", type=Path, nargs="*")
    parser.add_argument("--all", action="store_true", help="all combinations instead of a cover of pairs")
    parser.add_argument("--out", type=Path, default=PAGE)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    settings = every() if chosen.all else cover()
    with TemporaryDirectory() as directory:
        bundles = chosen.bundles or _recorded(Path(directory))
        found: dict[str, list[dict[str, Any]]] = {bundle.name: [] for bundle in bundles}
        for bundle, setting in product(bundles, settings):
            result = replay(bundle, setting, timeout_seconds=3600)
            found[bundle.name].append(result)
            print(f"{bundle.name}: {named(setting)}: {_cell(result)}", file=sys.stderr, flush=True)
    chosen.out.write_text(page(settings, found), encoding="utf-8")
    return int(any(r["computation"] != "shown" for own in found.values() for r in own))


if __name__ == "__main__":
    sys.exit(main())
