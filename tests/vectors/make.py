"""Writes the test vectors: JSON files that an implementation in any language can check itself against.

    python tests/vectors/make.py            write the files
    python tests/vectors/make.py --check    compare them with those on disk; exit 1 if one differs

One function makes one file; its module names the page of the specification that it is for. Every file says
in `about` how to read its cases, and lists under `invalid` what must be refused, with the reason for people.
Bytes are hexadecimal. Nothing here is random, and the keys are public: never use them. What others published
is marked with its `source`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from vectors import (
    make_arithmetic,
    make_beacon,
    make_bundle,
    make_calibration,
    make_documents,
    make_functions,
    make_json,
    make_log,
    make_note,
    make_program,
    make_randomness,
    make_slots,
    make_witness,
)

HERE = Path(__file__).parent

FILES: Mapping[str, Callable[[], Any]] = {
    "arithmetic.json": make_arithmetic.arithmetic,
    "beacon.json": make_beacon.beacon,
    "bundle.json": make_bundle.bundle_objects,
    "calibration.json": make_calibration.calibrations,
    "canonical.json": make_json.canonical_json,
    "documents.json": make_documents.documents,
    "functions.json": make_functions.function_vectors,
    "merkle.json": make_log.merkle_tree,
    "note.json": make_note.signed_notes,
    "program.json": make_program.program_vectors,
    "randomness.json": make_randomness.randomness_vectors,
    "slots.json": make_slots.slots,
    "tiles.json": make_log.log_tiles,
    "witness.json": make_witness.witnesses,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files, or compare them with those on disk."""
    parser = argparse.ArgumentParser(description="Write the test vectors.")
    parser.add_argument("--check", action="store_true", help="compare with the files on disk; write nothing")
    check = parser.parse_args(arguments).check
    stale = []
    for name, make in FILES.items():
        text = json.dumps(make(), indent=1) + "\n"
        path = HERE / name
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    if stale:
        print(f"differ from what make.py makes: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
