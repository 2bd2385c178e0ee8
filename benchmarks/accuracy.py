"""How well models train in exact arithmetic: the same recipes and seeds in both arithmetics.

    python -m benchmarks.accuracy RECIPE … [--seeds N] [--steps N] [--out FILE]

Each run is a recording, so both start from the same weights and see the same batches. Prints, for each
recipe, the mean and the standard deviation over seeds of the last losses and of what is held out, for both,
and Welch's t of their difference. Finished runs are kept in the JSON file, and not made again.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from gradseal import SigningKey, initialise, record
from gradseal.recipes.recipe import RECIPES, load_recipe

_LAST = 50
_KEY = SigningKey(name="bench.example", seed=bytes(32))


def run(name: str, arithmetic: str, seed: int, steps: int | None) -> dict[str, Any]:
    """One recording: the mean of its last losses, and what its recipe says of the trained model."""
    recipe = load_recipe(name)
    with initialise():
        model = recipe.build()
    optimizer = recipe.optimizer(model)
    count = steps or recipe.steps
    losses = []
    with (
        tempfile.TemporaryDirectory() as directory,
        record(
            Path(directory) / "bundle",
            model,
            optimizer,
            loss=recipe.loss,
            data=recipe.data,
            batch_size=recipe.batch_size,
            steps=count,
            every=count,
            key=_KEY,
            schedule=recipe.schedule(optimizer, count) if recipe.schedule else None,
            clip=recipe.clip,
            accumulate=recipe.accumulate,
            arithmetic=arithmetic,
            seed=seed,
            progress=False,
        ) as made,
    ):
        for batch in made:
            losses.append(float(made.step(batch)))
    said = recipe.evaluate(model)
    held_out = re.match(r"[\d.]+", said)
    return {
        "recipe": name,
        "arithmetic": arithmetic,
        "seed": seed,
        "steps": count,
        "loss": statistics.fmean(losses[-_LAST:]),
        "held_out": float(held_out.group()) if held_out else float("nan"),
        "said": said,
    }


def table(runs: list[dict[str, Any]]) -> str:
    """A Markdown table, a line for each recipe and measure."""
    lines = ["| recipe | steps | measure | native | exact | seeds | t |", "|---|---|---|---|---|---|---|"]
    for name in dict.fromkeys(run["recipe"] for run in runs):
        own = {
            a: [r for r in runs if r["recipe"] == name and r["arithmetic"] == a] for a in ("native", "exact")
        }
        if min(map(len, own.values())) < 2:
            continue
        for measure in ("loss", "held_out"):
            values = {a: [r[measure] for r in found] for a, found in own.items()}
            mean = {a: statistics.fmean(v) for a, v in values.items()}
            spread = {a: statistics.stdev(v) for a, v in values.items()}
            error = sum(spread[a] ** 2 / len(values[a]) for a in values) ** 0.5
            cells = [f"{mean[a]:.4f} ± {spread[a]:.4f}" for a in ("native", "exact")]
            t = (mean["exact"] - mean["native"]) / error if error else 0.0
            counts = f"{len(values['native'])} + {len(values['exact'])}"
            steps = own["native"][0]["steps"]
            shown = [name, str(steps), measure.replace("_", " "), *cells, counts, f"{t:+.2f}"]
            lines.append(f"| {' | '.join(shown)} |")
    return "\n".join(lines)


def main() -> None:
    """Makes the runs that are missing, and prints the table."""
    parser = argparse.ArgumentParser(description="Compares training in both arithmetics.")
    parser.add_argument("recipes", nargs="+", choices=RECIPES)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--out", type=Path, default=Path("build/accuracy.json"))
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    runs: list[dict[str, Any]] = json.loads(chosen.out.read_text()) if chosen.out.is_file() else []
    for name in chosen.recipes:
        for seed in range(chosen.seeds):
            for arithmetic in ("native", "exact"):
                steps = chosen.steps or load_recipe(name).steps
                asked = {"recipe": name, "arithmetic": arithmetic, "seed": seed, "steps": steps}
                if any(asked.items() <= made.items() for made in runs):
                    continue
                runs.append(run(name, arithmetic, seed, steps))
                print(runs[-1], file=sys.stderr, flush=True)
                chosen.out.parent.mkdir(parents=True, exist_ok=True)
                chosen.out.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")
    print(table(runs))


if __name__ == "__main__":
    main()
