"""Gradseal turns a PyTorch training run into evidence.

`initialise` and `record` make a bundle; `verify` checks one. Names load what they need on first use, so that
reading a bundle's log does not load torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradseal.precede.beacons import Beacon, quicknet
    from gradseal.precede.trust import Trust, load_trust
    from gradseal.program.initialise import initialise
    from gradseal.program.lion import Lion
    from gradseal.proof.note import SigningKey, VerificationKey
    from gradseal.record.recorder import record
    from gradseal.record.run import Run
    from gradseal.verify.policy import Policy
    from gradseal.verify.verdict import Verdict
    from gradseal.verify.verifier import verify

__version__ = "0.1.0"
__all__ = [
    "Beacon",
    "Lion",
    "Policy",
    "Run",
    "SigningKey",
    "Trust",
    "Verdict",
    "VerificationKey",
    "initialise",
    "load_trust",
    "quicknet",
    "record",
    "verify",
]

_HOMES = {
    "Beacon": "gradseal.precede.beacons",
    "quicknet": "gradseal.precede.beacons",
    "Trust": "gradseal.precede.trust",
    "load_trust": "gradseal.precede.trust",
    "Lion": "gradseal.program.lion",
    "initialise": "gradseal.program.initialise",
    "SigningKey": "gradseal.proof.note",
    "VerificationKey": "gradseal.proof.note",
    "Run": "gradseal.record.run",
    "record": "gradseal.record.recorder",
    "Policy": "gradseal.verify.policy",
    "Verdict": "gradseal.verify.verdict",
    "verify": "gradseal.verify.verifier",
}


class _Package(ModuleType):
    """Keeps `gradseal.record` and `gradseal.verify` functions, though packages have these names too."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gradseal' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


sys.modules[__name__].__class__ = _Package
