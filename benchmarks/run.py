"""What Gradseal costs, as ratios measured in one run: `make bench`.

Trains the digits recipe plainly, then under record, then verifies it, all with one thread on this machine,
each several times in turn so that a slow moment hits all alike; the medians are compared. Prints a table and
writes `build/bench.json` with the facts of the machine.
"""

from __future__ import annotations

import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from gradseal import SigningKey, initialise, record, verify
from gradseal.program.native import current_environment
from gradseal.proof.merkle import Tree
from gradseal.recipes.recipe import Recipe, load_recipe

STEPS = 600
EVERY = 50
ROUNDS = 3
LEAVES = 1_000_000


def main() -> None:
    """Measures, prints and writes the figures."""
    torch.set_num_threads(1)
    recipe = load_recipe("digits")
    figures = {**training(recipe), **tree()}
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:.3f}")
    out = Path("build/bench.json")
    out.parent.mkdir(exist_ok=True)
    facts = {"python": platform.python_version(), **current_environment().to_json()}
    out.write_text(
        json.dumps({"machine": facts, "steps": STEPS, "every": EVERY, "figures": figures}, indent=2) + "\n"
    )


def training(recipe: Recipe) -> dict[str, float]:
    """Recording and verifying against the same training without Gradseal."""
    times: dict[str, list[float]] = {"plain": [], "step": [], "wrap": [], "verify": []}
    size_ratio = 0.0
    for _ in range(ROUNDS):
        times["plain"].append(_timed(plain, recipe))
        with tempfile.TemporaryDirectory() as directory:
            wrapped, stepped = Path(directory) / "wrapped", Path(directory) / "stepped"
            times["wrap"].append(_timed(recorded, recipe, wrapped, "wrap"))
            times["step"].append(_timed(recorded, recipe, stepped, "step"))
            times["verify"].append(_timed(verify, stepped))
            size_ratio = blobs_against_state(stepped)
    middle = {name: statistics.median(values) for name, values in times.items()}
    return {
        "plain training, s": middle["plain"],
        "recording with run.step / plain": middle["step"] / middle["plain"],
        "recording with run.wrap / plain": middle["wrap"] / middle["plain"],
        "full verification, worker's start included / plain": middle["verify"] / middle["plain"],
        "bundle / raw bytes of its states": size_ratio,
    }


def plain(recipe: Recipe) -> None:
    """The recipe's training as anyone would write it."""
    torch.manual_seed(0)
    model = recipe.build()
    optimizer = recipe.optimizer(model)
    loader = torch.utils.data.DataLoader(recipe.data, batch_size=recipe.batch_size, shuffle=True)
    done = 0
    while done < STEPS:
        for batch in loader:
            optimizer.zero_grad()
            recipe.loss(model, batch).backward()
            optimizer.step()
            done += 1
            if done == STEPS:
                return


def recorded(recipe: Recipe, out: Path, way: str) -> None:
    """The same under record, capture and commitment included."""
    with initialise():
        model = recipe.build()
    optimizer = recipe.optimizer(model)

    def own(batch: object) -> torch.Tensor:
        optimizer.zero_grad()
        loss = recipe.loss(model, batch)
        loss.backward()
        optimizer.step()
        return loss

    key = SigningKey.generate("bench.example")
    with record(
        out,
        model,
        optimizer,
        loss=recipe.loss,
        data=recipe.data,
        batch_size=recipe.batch_size,
        steps=STEPS,
        every=EVERY,
        key=key,
        progress=False,
    ) as run:
        step = run.step if way == "step" else run.wrap(own)
        for batch in run:
            step(batch)


def blobs_against_state(bundle: Path) -> float:
    """The bytes of everything in the bundle against those of its states' tensors."""
    from gradseal.program.program import MAX_PROGRAM_BYTES, Program
    from gradseal.proof.bundle import open_bundle
    from gradseal.proof.files import read_blob
    from gradseal.proof.manifest import Manifest
    from gradseal.store.files import FsspecFiles

    files = FsspecFiles(str(bundle))
    manifest = Manifest.decode(open_bundle(files).entries(0)[0])
    program = Program.decode(read_blob(files, manifest.program, MAX_PROGRAM_BYTES), where="program")
    state = sum(spec.size_bytes for spec in program.layout)
    everything = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    return everything / (state * (manifest.plan.segments + 1))


def tree() -> dict[str, float]:
    """The log's tree at a million entries, in memory."""
    leaves = [number.to_bytes(32, "big") for number in range(LEAVES)]
    grown = Tree()
    seconds = _timed(grown.extend, leaves)
    proofs = 1000
    proving = _timed(lambda: [grown.inclusion_proof(i * (LEAVES // proofs)) for i in range(proofs)])
    return {"append to the tree, µs": seconds / LEAVES * 1e6, "inclusion proof, µs": proving / proofs * 1e6}


def _timed(work: Callable[..., object], *args: object) -> float:
    began = time.perf_counter()
    work(*args)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
