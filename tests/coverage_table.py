"""Which models and optimizers are recorded and verified: `make coverage`, each pair in turn.

Records two segments of two steps each, verifies them in full, and writes docs/reference/coverage.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import gradseal
from gradseal.errors import Error, RecordWarning
from gradseal.verify.verdict import ClaimName, Verdict
from models import EXAMPLES, Example

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "coverage.md"
KEY = gradseal.SigningKey(name="owner.example", seed=bytes(32))

OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-3, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-3),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9, centered=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=1e-2),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=1e-3),
    "Lion": lambda p: gradseal.Lion(p, lr=1e-4),
}

_HEAD = """# What can be recorded

Each cell is a run of four steps in two segments, recorded with `run.step`, a cosine schedule and clipping,
and verified in full on the same machine. `make coverage` makes this page; the models are those of
`tests/models.py`, at the size of a test.

- **shown**: the claims integrity, initialisation, data and computation are shown;
- anything else is what was not, in words.

"""

_TAIL = """
The models: ResNet-20 (width 4); a transformer with tied embeddings, its matrices decayed and all else not; a
GRU of two layers; `GPT2LMHeadModel` and `BertForMaskedLM` of the Transformers library from their configs,
with their own loss and dropout; a net that computes in bfloat16 under autocast; one with class weights in its
loss; one with an `autograd.Function`; one whose first layer is frozen. An LSTM runs inside oneDNN on the CPU
and is refused with that advice; with `torch.backends.mkldnn.enabled = False` it is recorded like any other.
"""


def record_and_verify(
    example: Example, optimizer: Callable[[Any], torch.optim.Optimizer], path: Path, arithmetic: str
) -> Verdict:
    """Records a short run at `path` and verifies it."""
    with gradseal.initialise():
        model = example.build()
    own = optimizer(example.groups(model))
    with gradseal.record(
        path,
        model,
        own,
        loss=example.loss,
        data=example.data(),
        batch_size=8,
        steps=4,
        every=2,
        key=KEY,
        seed=1,
        schedule=torch.optim.lr_scheduler.CosineAnnealingLR(own, 4),
        clip=1.0,
        arithmetic=arithmetic,
        progress=False,
    ) as run:
        for batch in run:
            run.step(batch)
    return gradseal.verify(path, keys=[KEY.verification_key])


def said(verdict: Verdict) -> str:
    """A cell: `shown`, or each claim that is not."""
    demanded = [name for name in ClaimName if name is not ClaimName.PRECEDENCE]
    lacking = [
        f"{name.value} {verdict.claims[name].status.value}"
        for name in demanded
        if verdict.claims[name].status.value != "shown"
    ]
    return ", ".join(lacking) or "shown"


def table(arithmetic: str) -> str:
    """The table of one arithmetic as Markdown."""
    rows = [f"| model | {' | '.join(OPTIMIZERS)} |", "|---" * (1 + len(OPTIMIZERS)) + "|"]
    for name, example in EXAMPLES.items():
        cells = []
        for optimizer in OPTIMIZERS.values():
            with tempfile.TemporaryDirectory() as directory:
                try:
                    cells.append(
                        said(record_and_verify(example, optimizer, Path(directory) / "b", arithmetic))
                    )
                except Error as e:
                    cells.append(f"refused: {e.message}")
        print(f"{name}, {arithmetic}: {', '.join(cells)}", file=sys.stderr)
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Writes the page; 0 if every cell is `shown`, or refused where that is meant."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PAGE)
    out = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", RecordWarning)
    native, exact = table("native"), table("exact")
    out.write_text(
        f"{_HEAD}## Native arithmetic\n\n{native}\n## Exact arithmetic\n\n{exact}{_TAIL}", encoding="utf-8"
    )
    # Mixed precision is the one thing in the table that exact arithmetic does not have.
    bad = [line for line in exact.splitlines() if "refused" in line and "bfloat16" not in line]
    return int("not shown" in native + exact or "refused" in native or bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
