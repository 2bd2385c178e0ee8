"""Vectors of docs/spec/calibration.md: `calibration.json`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from elsewhere import CALIBRATOR, calibration
from gradseal.proof.canonical import decode, encode, float_to_bits
from gradseal.proof.note import MAX_NOTE_BYTES, SigningKey, sign_note
from gradseal.verify.calibration import sign_calibration

Vectors = dict[str, Any]

_OTHER = SigningKey(name=CALIBRATOR.name, seed=bytes([8]) * 32)
_FLOATS = (
    "tau",
    "state_tau",
    "margin",
    "floor",
    "ceiling",
    "false_rejection",
    "confidence",
    "coefficient",
    "exponent",
)


def calibrations() -> Vectors:
    """docs/spec/calibration.md, all of it."""
    own = calibration()
    return {
        "about": (
            "valid: notes, as text, that are calibrations by `key`; `fields` has the values, floats as 16 "
            "hexadecimal digits of their bits. invalid: notes that a reader who pinned `key` must refuse."
        ),
        "key": str(CALIBRATOR.verification_key),
        "signing_key": CALIBRATOR.encode(),
        "valid": [
            {
                "note": sign_calibration(own, [CALIBRATOR]).decode(),
                "fields": {
                    **{name: float_to_bits(getattr(own, name)) for name in _FLOATS},
                    "segments": own.segments,
                    "every": own.every,
                    "batch_size": own.batch_size,
                    "accumulate": own.accumulate,
                    "variants": list(own.variants),
                    "program": own.program.hex(),
                },
            }
        ],
        "invalid": [{"reason": reason, "note": note} for reason, note in _invalid().items()],
    }


def _invalid() -> dict[str, str]:
    text = calibration().text()
    notes = {
        "by another key of the same name": sign_note(text, [_OTHER]),
        "not canonical": sign_note(text.replace(":", ": ", 1), [CALIBRATOR]),
        "a second line": sign_note(text + "{}\n", [CALIBRATOR]),
    }
    for reason, change in _CHANGES.items():
        value: Any = decode(text.encode()[:-1], where="", max_bytes=MAX_NOTE_BYTES)
        change(value)
        notes[reason] = sign_note(encode(value).decode() + "\n", [CALIBRATOR])
    return {reason: note.decode() for reason, note in notes.items()}


def _put(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.update({name: value})


_CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another kind": _put("kind", "calibration"),
    "a later version": _put("version", 2),
    "a tolerance of 0": _put("tau", float_to_bits(0.0)),
    "an infinite tolerance": _put("tau", float_to_bits(math.inf)),
    "a tolerance that is no number": _put("tau", float_to_bits(math.nan)),
    "a negative tolerance of the rest": _put("state_tau", float_to_bits(-1e-4)),
    "an infinite tolerance of the rest": _put("state_tau", float_to_bits(math.inf)),
    "a tolerance of the rest that is no number": _put("state_tau", float_to_bits(math.nan)),
    "a margin below 1": _put("margin", float_to_bits(0.5)),
    "a ceiling below the floor": _put("ceiling", float_to_bits(1e-300)),
    "a rate that so few segments cannot bound": _put("false_rejection", float_to_bits(1e-9)),
    "a floor of 0": _put("floor", float_to_bits(0.0)),
    "a rate of 1": _put("false_rejection", float_to_bits(1.0)),
    "a confidence of 1": _put("confidence", float_to_bits(1.0)),
    "a negative coefficient": _put("coefficient", float_to_bits(-1.0)),
    "an exponent that is no number": _put("exponent", float_to_bits(math.nan)),
    "no segments": _put("segments", 0),
    "no variants": _put("variants", []),
    "a variant twice": _put("variants", ["order", "order"]),
    "no runs": _put("runs", []),
    "a field that the format does not have": _put("note", ""),
    "a field that is missing": lambda document: document.pop("program"),
}
