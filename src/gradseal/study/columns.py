"""The policies that the matrix has as columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from gradseal.verify.classical import Scale
from gradseal.verify.policy import Policy

PolicyOf = Callable[[float], Policy]
"""A policy, once the distance of two independently trained models is known."""


def full_dated(_: float) -> Policy:
    """The policy `full`, that demands that precedence is shown too."""
    full = Policy.named("full")
    return replace(full, name="full-dated", require=MappingProxyType({**full.require, "precedence": "shown"}))


def normalised(reference: float) -> Policy:
    """The policy `jia2021` with a normalised tolerance."""
    return replace(Policy.named("jia2021").normalised(reference), name="jia2021-normalised")


def named(name: str) -> PolicyOf:
    """A policy by name, `jia2021-normalised` and `full-dated` among them.

    Of the classical ones `jia2021` alone keeps the released code's absolute limits, which fit no other model;
    the others have the paper's.
    """
    made: Mapping[str, PolicyOf] = {"full-dated": full_dated, "jia2021-normalised": normalised}
    if name in made:
        return made[name]
    policy = Policy.named(name)
    own = policy.classical
    if name == "jia2021" or own is None or own.limits.scale is not Scale.ABSOLUTE:
        return lambda _: policy
    return policy.normalised


POLICIES = (
    "jia2021",
    "jia2021-normalised",
    "jia2021-random",
    "jia2021-relative",
    "jia2021-random-relative",
    "jia2021-bounded",
    "quick",
    "standard",
    "full",
    "full-dated",
)
"""The columns of the matrix."""
