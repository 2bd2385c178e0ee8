"""A calibration: how far honest replays of a program end apart, measured, stated and signed.

A signed note whose text is one line of canonical JSON. Reading is strict: what parses is written back byte
for byte, and counts only if a key that the reader pinned signed it, since a tolerance from nobody is worth
nothing. How it is measured is `study.calibrating`; how it is used, `tolerance`.
Format: docs/spec/calibration.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradseal.errors import KeyFileError, MalformedBundle, UnknownKind
from gradseal.program.native import Environment
from gradseal.proof.canonical import MAX_INTEGER, decode, encode, float_to_bits
from gradseal.proof.fields import Fields
from gradseal.proof.note import MAX_NOTE_BYTES, Signer, VerificationKey, open_note, sign_note

KIND = "gradseal calibration"
VERSION = 1
MAX_RUNS = 64
MAX_VARIANTS = 256
MAX_TEXT = 255
MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedRun:
    """A bundle whose segments were replayed.

    Args:
        origin: The line that names its log.
        size: The tree size of its checkpoint.
        root: That checkpoint's root, 32 bytes.
    """

    origin: str
    size: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What was measured, and two tolerances that follow: of parameters, and of the rest of a state.

    Errors are l2 distances of all parameters taken as one vector, relative to the length of the update. A
    segment's score is the largest over the variants.

    Args:
        tau: The tolerance of parameters: `margin` times the tolerance bound of the scores.
        state_tau: That of the rest of a state, in the same way, of each segment's largest error of a group
            relative to the group's own change; see `state_error`. 0 where none was seen.
        margin: At least 1.
        floor: A little below the shortest update that was measured; nothing is known of shorter ones.
        ceiling: Twice the longest one; nothing is known of longer ones. A tolerance is a share of the update,
            so whoever makes that long, by his data for instance, would choose the tolerance.
        false_rejection: The largest share of such segments that lies beyond a bound, of each by itself, with
            the confidence.
        confidence: See above.
        segments: How many were measured.
        variants: The names of the numerics that they were replayed under.
        program: The digest of the program.
        every: Steps in a segment, k.
        batch_size: Samples in a batch.
        accumulate: Batches in a step.
        environment: Of the replays that all others were compared with.
        runs: What was replayed.
        coefficient: The median relative error after j steps is about `coefficient` · j ** `exponent`; 0 if no
            growth was seen.
        exponent: See above.
        signer: The pinned key that signed it, as text; empty for one that was not read. No part of the
            document.
    """

    tau: float
    state_tau: float
    margin: float
    floor: float
    ceiling: float
    false_rejection: float
    confidence: float
    segments: int
    variants: tuple[str, ...]
    program: bytes
    every: int
    batch_size: int
    accumulate: int
    environment: Environment
    runs: tuple[CalibratedRun, ...]
    coefficient: float
    exponent: float
    signer: str = field(default="", compare=False)

    def text(self) -> str:
        """The text to be signed: canonical JSON and a newline.

        Raises:
            MalformedBundle: A part that no calibration may have.
        """
        line = encode(self._json(float_to_bits), where="calibration").decode()
        if parse_calibration(f"{line}\n", where="calibration") != self:
            raise MalformedBundle("a calibration that would not be read back as it is", where="calibration")
        return f"{line}\n"

    def covers(self, update: float) -> bool:
        """Whether updates of this length were measured; none that is no number was."""
        return self.floor <= update <= self.ceiling

    def to_json(self) -> dict[str, Any]:
        """All of it, for the verdict: floats as numbers, and who signed."""
        return {**self._json(float), "signer": self.signer}

    def _json(self, number: Callable[[float], Any]) -> dict[str, Any]:
        return {
            "kind": KIND,
            "version": VERSION,
            **{name: number(getattr(self, name)) for name in _FLOATS},
            **{name: getattr(self, name) for name in _COUNTS},
            "variants": list(self.variants),
            "program": self.program.hex(),
            "environment": self.environment.to_json(),
            "runs": [{"origin": r.origin, "size": r.size, "root": r.root.hex()} for r in self.runs],
        }


def _positive(x: float) -> bool:
    return 0 < x < math.inf


def _not_negative(x: float) -> bool:
    return 0 <= x < math.inf


def _share(x: float) -> bool:
    return 0 < x < 1


_FLOATS: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "tau": (_positive, "a finite number above 0"),
    "state_tau": (_not_negative, "a finite number, not below 0"),
    "margin": (lambda x: 1 <= x < math.inf, "a finite number, at least 1"),
    "floor": (_positive, "a finite number above 0"),
    "ceiling": (_positive, "a finite number above 0"),
    "false_rejection": (_share, "between 0 and 1"),
    "confidence": (_share, "between 0 and 1"),
    "coefficient": (_not_negative, "a finite number, not below 0"),
    "exponent": (math.isfinite, "a finite number"),
}
_COUNTS = ("segments", "every", "batch_size", "accumulate")


def parse_calibration(text: str, *, where: str) -> Calibration:
    """Reads the text of a note strictly. It is worth nothing without a signature: see `read_calibration`.

    Raises:
        MalformedBundle: Not canonical, a field missing, unknown or out of range.
        UnknownKind: Another kind of document, a later version, or arithmetic that is not native.
    """
    line, newline, rest = text.partition("\n")
    if not newline or rest:
        raise MalformedBundle("a calibration that is not one line", where=where)
    read = decode(line.encode(errors="replace"), where=where, max_bytes=MAX_NOTE_BYTES)
    fields = Fields(read, where)
    fields.kind("kind", [KIND])
    _version(fields)
    own = Calibration(
        tau=_float(fields, "tau"),
        state_tau=_float(fields, "state_tau"),
        margin=_float(fields, "margin"),
        floor=_float(fields, "floor"),
        ceiling=_float(fields, "ceiling"),
        false_rejection=_float(fields, "false_rejection"),
        confidence=_float(fields, "confidence"),
        coefficient=_float(fields, "coefficient"),
        exponent=_float(fields, "exponent"),
        segments=fields.integer("segments", 1, MAX_COUNT),
        every=fields.integer("every", 1, MAX_COUNT),
        batch_size=fields.integer("batch_size", 1, MAX_COUNT),
        accumulate=fields.integer("accumulate", 1, MAX_COUNT),
        variants=_names(fields),
        program=fields.digest("program"),
        environment=Environment.from_fields(fields.object("environment")),
        runs=tuple(_run(item) for item in fields.objects("runs", MAX_RUNS)),
    )
    fields.end()
    _check_together(own, fields)
    return own


def _check_together(own: Calibration, fields: Fields) -> None:
    """What each by itself may be, and both together not."""
    if not own.runs:
        raise MalformedBundle("no run at all", where=fields.where("runs"))
    if own.ceiling < own.floor:
        raise MalformedBundle("is below the floor", where=fields.where("ceiling"))
    # No bound without a law of the errors states more of so many segments than their largest does.
    largest = -math.expm1(own.segments * math.log1p(-own.false_rejection))
    if largest < own.confidence * (1 - 1e-9):
        raise MalformedBundle(
            f"{own.segments} segments cannot bound a rate of {own.false_rejection:g} with confidence "
            f"{own.confidence:g}",
            where=fields.where("false_rejection"),
        )


def sign_calibration(calibration: Calibration, signers: Sequence[Signer]) -> bytes:
    """The bytes of the signed note.

    Args:
        calibration: What was measured.
        signers: At least one.

    Raises:
        MalformedBundle: A part that no calibration may have, or no signer.
    """
    return sign_note(calibration.text(), signers)


def read_calibration(data: bytes, *, keys: Sequence[VerificationKey], where: str) -> Calibration:
    """Reads a signed calibration, and believes it if one of these keys signed it.

    Args:
        data: The note.
        keys: The calibrators' keys, as the reader knows them; with several, any of them will do.
        where: The file, for error messages.

    Raises:
        KeyFileError: No key is given, or none of them signed it.
        MalformedBundle, UnknownKind: As `parse_calibration`, or not a signed note.
    """
    try:
        note = open_note(data, where=where)
    except MalformedBundle as e:
        raise MalformedBundle(
            f"not a calibration, which `gradseal calibrate` writes: {e.message}", where=e.where
        ) from e
    if not keys:
        raise KeyFileError(
            "a tolerance from nobody is worth nothing, and no key of a calibrator was given",
            where=where,
            advice="give the key of whoever measured it with --calibrator, got by a way that you trust",
        )
    signed = [key for key in keys if note.verified_by(key)]
    if not signed:
        names = ", ".join(sorted({s.name for s in note.signatures}))
        raise KeyFileError(
            f"signed by none of the calibrators' keys that were given; it names {ascii(names[:200])[1:-1]}",
            where=where,
            advice="ask the calibrator for the public key, or measure your own with `gradseal calibrate`",
        )
    return replace(parse_calibration(note.text, where=where), signer=str(signed[0]))


def _version(fields: Fields) -> None:
    version = fields.integer("version", 1, MAX_COUNT)
    if version != VERSION:
        raise UnknownKind(
            f"version {version} is not known",
            where=fields.where("version"),
            advice="A newer version of Gradseal may know it.",
        )


def _float(fields: Fields, name: str) -> float:
    allowed, said = _FLOATS[name]
    value = fields.float_(name)
    if not allowed(value):
        raise MalformedBundle(f"{value!r} is not {said}", where=fields.where(name))
    return value


def _names(fields: Fields) -> tuple[str, ...]:
    names = []
    for index, name in enumerate(fields.array("variants", MAX_VARIANTS)):
        where = fields.where("variants", index)
        if not isinstance(name, str) or not 0 < len(name) <= MAX_TEXT or not name.isprintable():
            raise MalformedBundle(f"not a printable name of 1 to {MAX_TEXT} characters", where=where)
        names.append(name)
    if not names or len(set(names)) < len(names):
        raise MalformedBundle("no name, or one twice", where=fields.where("variants"))
    return tuple(names)


def _run(fields: Fields) -> CalibratedRun:
    run = CalibratedRun(
        origin=fields.text("origin", MAX_TEXT),
        size=fields.integer("size", 1, MAX_INTEGER),
        root=fields.digest("root"),
    )
    fields.end()
    return run
