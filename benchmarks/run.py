"""What Gradseal costs, measured in one run on this machine with one thread: `make bench`.

Prints a table, for a terminal or as Markdown, and writes `build/bench.json` with every single time and the
facts of the machine. With `--only`, some of the parts alone: memory, training, exact, anchoring, log,
precedence or witness.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from benchmarks import anchoring, exact, log, machine, memory, precedence, space, training, witness
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
ANCHORED_BATCH, ANCHORED_EVERY = 16, 25
CADENCE_SECONDS, QUICK_CADENCE_SECONDS = 10, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one part measured.

    Args:
        figures: The lines of the table.
        details: What else the JSON is to hold of it.
        skipped: What was not measured, and why; empty if all was.
    """

    figures: list[Figure]
    details: dict[str, Any] = field(default_factory=dict)
    skipped: str = ""


def main() -> None:
    """Measures, prints and writes the figures."""
    chosen = _arguments()
    torch.set_num_threads(1)
    begun = {**machine.facts(), "load_at_start": machine.load()}
    parts = _measure(chosen)
    figures = [figure for name in _SHOWN if name in parts for figure in parts[name].figures]
    results = {
        "machine": {**begun, "load_at_end": machine.load()},
        "figures": [asdict(figure) for figure in figures],
        "skipped": [part.skipped for part in parts.values() if part.skipped],
        **{name: value for part in parts.values() for name, value in part.details.items()},
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    shown = markdown if chosen.markdown else text
    print("\n\n".join([_sentence(results), shown(figures), *results["skipped"]]))


def _measure(chosen: argparse.Namespace) -> dict[str, Part]:
    """The chosen parts, the memory first: it needs none of what the others leave behind."""
    parts = {}
    for name, measure in _PARTS.items():
        if name in (chosen.only or _PARTS):
            _say(name)
            parts[name] = measure(chosen)
    return parts


def _memory(chosen: argparse.Namespace) -> Part:
    return Part(figures=memory.measure(STATE_BYTES // 10 if chosen.quick else STATE_BYTES))


def _training(chosen: argparse.Namespace) -> Part:
    """The times of a training, and the space that its bundle takes."""
    recipe, data = _recipe(quick=chosen.quick)
    with tempfile.TemporaryDirectory() as directory:
        bundle = Path(directory) / "bundle"
        measured = training.measure(
            recipe, steps=chosen.steps, every=EVERY, rounds=chosen.rounds, keep=bundle, say=_say
        )
        stored = space.measure(bundle)
    told = {"data": data, "batch_size": recipe.batch_size, "steps": chosen.steps, "every": EVERY}
    return Part(
        figures=[*measured.figures(), *stored],
        details={"training": told, "rounds": chosen.rounds, "seconds": measured.to_json()},
    )


def _anchoring(chosen: argparse.Namespace) -> Part:
    """The times of a training with slots and anchors, whose steps are short and whose data are not."""
    recipe = (
        load_recipe("digits") if chosen.quick else replace(_on_random_images(), batch_size=ANCHORED_BATCH)
    )
    cadence = QUICK_CADENCE_SECONDS if chosen.quick else CADENCE_SECONDS
    measured = anchoring.measure(
        recipe, every=ANCHORED_EVERY, cadence_seconds=cadence, rounds=chosen.rounds, say=_say
    )
    told = {
        "steps": measured.steps,
        "batch_size": recipe.batch_size,
        "every": ANCHORED_EVERY,
        "cadence_seconds": cadence,
        "rounds": chosen.rounds,
        "seconds": measured.to_json(),
    }
    return Part(figures=measured.figures(), details={"anchoring": told})


def _exact(chosen: argparse.Namespace) -> Part:
    """Exact arithmetic: products, operators, and steps of a transformer and of a net on images."""
    recipe, data = _recipe(quick=False)
    count = 5 if chosen.quick else 15
    figures = [
        *exact.matmuls(rounds=chosen.rounds),
        *exact.ordered(rounds=chosen.rounds),
        *exact.operators(rounds=chosen.rounds),
        *exact.steps("digits", load_recipe("digits"), count=10 * count),
        *exact.steps("text", load_recipe("text"), count=2 * count),
        *exact.steps("fashion", recipe, count=count),
    ]
    return Part(figures=figures, details={"exact": {"images": data, "rounds": chosen.rounds}})


def _log(chosen: argparse.Namespace) -> Part:
    return Part(figures=log.measure(ENTRIES // 10 if chosen.quick else ENTRIES))


def _precedence(chosen: argparse.Namespace) -> Part:
    segments, slots = precedence.SEGMENTS, precedence.SLOTS
    parts = 10 if chosen.quick else 1
    return Part(figures=precedence.measure(segments // parts, slots // parts))


def _witness(chosen: argparse.Namespace) -> Part:
    """The witness with each of its databases that is installed."""
    connections = witness.QUICK_CONNECTIONS if chosen.quick else witness.CONNECTIONS
    requests = witness.QUICK_REQUESTS if chosen.quick else witness.REQUESTS
    measured = dict(witness.measure(connections, requests))
    why = witness.skipped()
    return Part(
        figures=[figure for name, one in measured.items() for figure in witness.figures_of(name, one)],
        details={
            "witness": {
                "connections": connections,
                "requests": requests,
                **{name: asdict(one) for name, one in measured.items()},
            }
        },
        skipped=f"the witness with PostgreSQL was not measured: {why}" if why else "",
    )


_PARTS: Mapping[str, Callable[[argparse.Namespace], Part]] = {
    "memory": _memory,
    "training": _training,
    "exact": _exact,
    "anchoring": _anchoring,
    "log": _log,
    "precedence": _precedence,
    "witness": _witness,
}
_SHOWN = ("training", "exact", "anchoring", "memory", "log", "precedence", "witness")


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
    own = results["machine"]
    what = []
    if told := results.get("training"):
        what.append(
            f"{told['steps']} steps of batch {told['batch_size']}, sealed every {told['every']}, on "
            f"{told['data']}; medians of {results['rounds']} rounds."
        )
    if told := results.get("exact"):
        what.append(f"Exact arithmetic: {told['rounds']} rounds; ResNet-20 on {told['images']}.")
    if told := results.get("anchoring"):
        what.append(
            f"With anchors: {told['steps']} steps of batch {told['batch_size']}, sealed every "
            f"{told['every']}, slots of {told['cadence_seconds']} s; medians of {told['rounds']} rounds."
        )
    if told := results.get("witness"):
        what.append(
            f"{told['connections']} logs submit to the witness at a time, {told['requests']} checkpoints "
            "each in either part."
        )
    what.append(
        f"{own['processor']}, {own['cores']} cores, one thread, {own['cpu_capability']}, PyTorch "
        f"{own['torch']}, Python {own['python']}; load average {own['load_at_start']:.1f} at the start, "
        f"{own['load_at_end']:.1f} at the end; {own['date'][:10]}."
    )
    return " ".join(what)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures what Gradseal costs.")
    parser.add_argument("--quick", action="store_true", help="a small net, state and log: two minutes or so")
    parser.add_argument(
        "--only", choices=_PARTS, action="append", help="measure this part alone; may be given again"
    )
    parser.add_argument("--steps", type=int, help="steps of each training (200; with --quick, 600)")
    parser.add_argument("--rounds", type=int, default=3, help="how often all ways of training are timed (3)")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="where the JSON goes")
    chosen = parser.parse_args()
    chosen.steps = chosen.steps or (600 if chosen.quick else 200)
    if chosen.steps < 10 or chosen.rounds < 1:
        parser.error("at least 10 steps and one round")
    return chosen


if __name__ == "__main__":
    main()
