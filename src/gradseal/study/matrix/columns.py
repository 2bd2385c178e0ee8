"""The policies that the matrix has as columns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import MappingProxyType

from gradseal.attacks.attack import Setting
from gradseal.verify.policy import Policy

PolicyOf = Callable[[float], Policy]
"""A policy, once the distance of two independently trained models is known."""


def full_dated(_: float) -> Policy:
    """The policy `full`, that demands that precedence is shown too."""
    full = Policy.named("full")
    return replace(full, name="full-dated", require=MappingProxyType({**full.require, "precedence": "shown"}))


def named(name: str, setting: Setting) -> PolicyOf:
    """A column's policy by name: Gradseal's own or another package's, `full-dated`, or a normalised one.

    Args:
        name: With `-normalised` behind it a classical policy gets the paper's tolerance in place of the
            released code's absolute limits.
        setting: Has Q, and δ as a share of d_ref.

    Raises:
        Error: There is no such policy.
    """
    if name == "full-dated":
        return full_dated
    plain = name.removesuffix(NORMALISED)
    policy = Policy.named(plain)
    if policy.classical:
        policy = replace(policy, name=name, classical=replace(policy.classical, top=setting.top))
    if plain == name:
        return lambda _: policy
    return lambda reference: policy.normalised(reference, setting.delta)


NORMALISED = "-normalised"
POLICIES = (
    "jia2021",
    "jia2021-normalised",
    "jia2021-random-normalised",
    "jia2021-relative",
    "jia2021-random-relative",
    "jia2021-bounded",
    "quick",
    "standard",
    "full",
    "full-dated",
)
"""The columns of the matrix."""
