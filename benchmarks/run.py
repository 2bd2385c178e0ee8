"""What Gradseal costs, measured in one run on this machine with one thread: `make bench`.

Prints a table, for a terminal or as Markdown, and writes `build/bench.json` with every single time and the
facts of the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from benchmarks import log, machine, memory, space, training
from benchmarks.figure import Figure, markdown, text
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import TensorDataset

from gradseal.errors import Error
from gradseal.recipes import images
from gradseal.recipes.recipe import Recipe, load_recipe
from gradseal.recipes.resnet import ResNet20

EVERY = 50
STATE_BYTES = 420_000_000
ENTRIES = 1_000_000


def main() -> None:
    """Measures, prints and writes the figures."""
    chosen = _arguments()
    torch.set_num_threads(1)
    begun = {**machine.facts(), "load_at_start": machine.load()}
    recipe, data = _recipe(quick=chosen.quick)
    figures, times = _measure(chosen, recipe)
    results = {
        "machine": {**begun, "load_at_end": machine.load()},
        "training": {"data": data, "batch_size": recipe.batch_size, "steps": chosen.steps, "every": EVERY},
        "rounds": chosen.rounds,
        "figures": [asdict(figure) for figure in figures],
        "seconds": times,
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    shown = markdown if chosen.markdown else text
    print(f"{_sentence(results)}\n\n{shown(figures)}")


def _measure(chosen: argparse.Namespace, recipe: Recipe) -> tuple[list[Figure], dict[str, Any]]:
    """Everything, the memory first: it needs none of what the others leave behind."""
    _say("memory: three processes")
    held = memory.measure(STATE_BYTES // 10 if chosen.quick else STATE_BYTES)
    with tempfile.TemporaryDirectory() as directory:
        bundle = Path(directory) / "bundle"
        measured = training.measure(
            recipe, steps=chosen.steps, every=EVERY, rounds=chosen.rounds, keep=bundle, say=_say
        )
        stored = space.measure(bundle)
    _say("log")
    grown = log.measure(ENTRIES // 10 if chosen.quick else ENTRIES)
    return [*measured.figures(), *stored, *held, *grown], measured.to_json()


def _recipe(*, quick: bool) -> tuple[Recipe, str]:
    """What is trained, and a word on its data."""
    if quick:
        return load_recipe("digits"), "scikit-learn's handwritten digits"
    try:
        return load_recipe("fashion"), "Fashion-MNIST"
    except Error as e:
        _say(f"{e}\nrandom images take its place")
        return (
            _on_random_images(),
            "random images of the shape and type of Fashion-MNIST, which is not installed",
        )


def _on_random_images() -> Recipe:
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randint(256, (60_000, 1, 28, 28), dtype=torch.uint8, generator=generator)
    classes = torch.randint(10, (60_000,), dtype=torch.uint8, generator=generator)
    return Recipe(
        build=ResNet20,
        optimizer=lambda model: torch.optim.SGD(
            model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
        ),
        schedule=CosineAnnealingLR,
        loss=images.loss,
        data=TensorDataset(pictures, classes),
        batch_size=128,
        steps=469,
        every=EVERY,
        evaluate=lambda model: "",
    )


def _sentence(results: dict[str, Any]) -> str:
    """What was measured where, in words."""
    own, told = results["machine"], results["training"]
    return (
        f"{told['steps']} steps of batch {told['batch_size']}, sealed every {told['every']}, on "
        f"{told['data']}; medians of {results['rounds']} rounds. {own['processor']}, {own['cores']} cores, "
        "one thread, "
        f"{own['cpu_capability']}, PyTorch {own['torch']}, Python {own['python']}; load average "
        f"{own['load_at_start']:.1f} at the start, {own['load_at_end']:.1f} at the end; {own['date'][:10]}."
    )


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures what Gradseal costs.")
    parser.add_argument("--quick", action="store_true", help="a small net, state and log: about a minute")
    parser.add_argument("--steps", type=int, help="steps of each training (200; with --quick, 600)")
    parser.add_argument("--rounds", type=int, default=3, help="how often all ways are timed (3)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="where the JSON goes")
    chosen = parser.parse_args()
    chosen.steps = chosen.steps or (600 if chosen.quick else 200)
    if chosen.steps < 10 or chosen.rounds < 1:
        parser.error("at least 10 steps and one round")
    return chosen


if __name__ == "__main__":
    main()
