"""A policy for verifiers with little time: a smaller sample, said to be one."""

from __future__ import annotations

from dataclasses import replace

from gradseal.verify.policy import Policy

POLICY = replace(Policy.named("standard"), name="sparing", tolerated_fraction=0.2, confidence=0.9)
