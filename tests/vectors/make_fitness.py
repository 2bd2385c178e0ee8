"""Writes `fitness.json` of `gradseal.program.exact`, the digests that a worker must give before it replays.

    python tests/vectors/make_fitness.py            write the file
    python tests/vectors/make_fitness.py --check    compare it with what is on disk; exit 1 if it differs

They are of the operators as they are, on PyTorch's own operations; that these are the definition is what the
other vectors and the tests with integers show.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["GRADSEAL_EXACT_KERNEL"] = "off"

import torch

from gradseal.program.exact import fitness

FILE = Path(fitness.__file__).with_name("fitness.json")


def main() -> int:
    """Write the file, or compare it."""
    text = json.dumps(fitness.digests(torch.device("cpu")), indent=2) + "\n"
    if "--check" in sys.argv[1:]:
        return int(FILE.read_text(encoding="utf-8") != text)
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
