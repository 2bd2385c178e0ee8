"""The reference distance of the classical protocol: between the released weights and an independent model's.

In Jia et al., "Proof-of-Learning: Definitions and Practice", 2021, a normalised limit is a share of the
distance of two models that were trained independently, from other initialisations. The verifier trains the
other one, or has it from somebody he trusts.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from gradseal.errors import Error, MalformedBundle
from gradseal.program.release import MAX_HEADER_BYTES, MAX_WEIGHTS_BYTES, Tensors, read_weights
from gradseal.proof.bundle import open_bundle
from gradseal.proof.files import WEIGHTS, Files
from gradseal.proof.manifest import Manifest
from gradseal.verify.contents import read_contents
from gradseal.verify.distances import Distance
from gradseal.verify.lengths import NUMPY, Sums, numbers, sums_of
from gradseal.verify.own_weights import read_own_weights

Weights = dict[str, tuple[tuple[int, ...], npt.NDArray[np.floating]]]
"""Of each released parameter of floating point its shape and its numbers, by its released name."""


def released_weights(files: Files) -> Weights:
    """The parameters that a bundle releases, not yet verified.

    Raises:
        MalformedBundle: It is no bundle, or its weights do not fit it.
        StoreError: Something is missing or cannot be read.
    """
    bundle = open_bundle(files)
    contents = read_contents(files, Manifest.decode(bundle.all_entries()[0]))
    sizes = {s.name: s.size_bytes for s in contents.program.layout}
    parameters = {n: own for n, own in contents.release.tensors.items() if own.startswith("parameters/")}
    released = sum(sizes[name] for name in contents.release.tensors.values())
    data = files.read(WEIGHTS, 8 + MAX_HEADER_BYTES + released)
    weights = _numbers(read_weights(data, where=WEIGHTS))
    if missing := sorted(parameters.keys() - weights.keys()):
        raise MalformedBundle(f"tensor {missing[0]!r} is missing", where=WEIGHTS)
    return {name: weights[name] for name in parameters}


def distance_to(path: Path, weights: Weights, distance: Distance) -> float:
    """The distance from released weights to those of a safetensors file, which may hold other tensors too.

    Raises:
        Error: A tensor is missing there, or has another shape; or there is none to compare.
        MalformedBundle: It is no safetensors file.
        StoreError: It cannot be read.
    """
    where = str(path)
    other = _numbers(read_own_weights(path, MAX_WEIGHTS_BYTES))
    if not weights:
        raise Error("the bundle releases no parameter to compare with", where=where)
    total = Sums()
    for name, (shape, values) in weights.items():
        if name not in other:
            raise Error(f"has no tensor of numbers {name!r}, which the bundle releases", where=where)
        theirs, numbers_there = other[name]
        if theirs != shape:
            raise Error(f"tensor {name!r} has shape {theirs}, in the bundle {shape}", where=where)
        total.add(sums_of(values, numbers_there, distance))
    return total.by(distance)


def _numbers(tensors: Tensors) -> Weights:
    return {
        name: (spec.shape, numbers(raw, spec.dtype))
        for name, (spec, raw) in tensors.items()
        if spec.dtype in NUMPY
    }
