"""The document of a calibration: what is written is read, and nothing else is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elsewhere import CALIBRATOR, calibration
from gradseal.errors import Error, KeyFileError, MalformedBundle, UnknownKind
from gradseal.proof.canonical import decode, encode, float_to_bits
from gradseal.proof.note import MAX_NOTE_BYTES, SigningKey, VerificationKey, sign_note
from gradseal.verify.calibration import CalibratedRun, Calibration, read_calibration, sign_calibration
from vectors import make_calibration

KEY = CALIBRATOR.verification_key
OTHER = SigningKey(name="calibrator.example", seed=bytes([8]) * 32)


def read(data: bytes) -> Calibration:
    return read_calibration(data, keys=[KEY], where="c.txt")


def changed(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A document with another value somewhere, signed by the calibrator."""
    value: Any = decode(calibration().text().encode()[:-1], where="", max_bytes=MAX_NOTE_BYTES)
    change(value)
    return sign_note(encode(value).decode() + "\n", [CALIBRATOR])


def put(name: str, value: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda document: document.update({name: value})


def test_what_is_signed_is_read() -> None:
    own = calibration()
    found = read(sign_calibration(own, [CALIBRATOR]))
    assert found == own
    assert found.signer == str(KEY)


def test_a_program_without_a_rest_has_a_tolerance_of_0() -> None:
    own = calibration(state_tau=0.0)
    assert read(sign_calibration(own, [CALIBRATOR])) == own


def test_any_pinned_key_will_do() -> None:
    data = sign_calibration(calibration(), [CALIBRATOR])
    found = read_calibration(data, keys=[OTHER.verification_key, KEY], where="c.txt")
    assert found.signer == str(KEY)


def test_without_a_pinned_key_it_is_refused_with_advice() -> None:
    with pytest.raises(KeyFileError, match="nobody") as raised:
        read_calibration(sign_calibration(calibration(), [CALIBRATOR]), keys=[], where="c.txt")
    assert "--calibrator" in raised.value.advice


def test_another_key_is_refused() -> None:
    with pytest.raises(KeyFileError, match="signed by none"):
        read(sign_calibration(calibration(), [OTHER]))


def test_a_changed_digit_is_noticed() -> None:
    data = sign_calibration(calibration(), [CALIBRATOR])
    with pytest.raises(KeyFileError, match="signed by none"):
        read(data.replace(b'"segments":59', b'"segments":58'))


FLOATS = {
    "tau": (0.0, -1.0, math.inf, math.nan),
    "state_tau": (-1.0, -0.5, math.inf, math.nan),
    "margin": (0.5, math.inf, math.nan),
    "floor": (0.0, -1.0, math.inf, math.nan),
    "ceiling": (0.0, -1.0, math.inf, math.nan),
    "false_rejection": (0.0, 1.0, math.nan),
    "confidence": (0.0, 1.0, 2.0),
    "coefficient": (-1.0, math.inf),
    "exponent": (math.inf, math.nan),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in FLOATS.items() for v in values])
def test_a_number_out_of_range_is_refused_by_reader_and_writer(name: str, value: float) -> None:
    with pytest.raises(MalformedBundle) as raised:
        read(changed(put(name, float_to_bits(value))))
    assert raised.value.where == f"c.txt: {name}"
    with pytest.raises(MalformedBundle):
        sign_calibration(calibration(None, **{name: value}), [CALIBRATOR])


WRONG: dict[str, tuple[Callable[[dict[str, Any]], Any], type[Error], str]] = {
    "kind": (put("kind", "another"), UnknownKind, "c.txt: kind"),
    "version": (put("version", 2), UnknownKind, "c.txt: version"),
    "float as text": (put("tau", "0.1"), MalformedBundle, "c.txt: tau"),
    "no segments": (put("segments", 0), MalformedBundle, "c.txt: segments"),
    "no steps": (put("every", 0), MalformedBundle, "c.txt: every"),
    "no samples": (put("batch_size", True), MalformedBundle, "c.txt: batch_size"),
    "no batches": (put("accumulate", "1"), MalformedBundle, "c.txt: accumulate"),
    "short digest": (put("program", "00"), MalformedBundle, "c.txt: program"),
    "no variant": (put("variants", []), MalformedBundle, "c.txt: variants"),
    "variant twice": (put("variants", ["a", "a"]), MalformedBundle, "c.txt: variants"),
    "unnamed variant": (put("variants", [""]), MalformedBundle, "c.txt: variants[0]"),
    "variant no text": (put("variants", ["a", 1]), MalformedBundle, "c.txt: variants[1]"),
    "unprintable": (put("variants", ["a\u202e"]), MalformedBundle, "c.txt: variants[0]"),
    "too many variants": (put("variants", [str(i) for i in range(257)]), MalformedBundle, "c.txt: variants"),
    "no run": (put("runs", []), MalformedBundle, "c.txt: runs"),
    "run without root": (put("runs", [{"origin": "a", "size": 1}]), MalformedBundle, "c.txt: runs[0].root"),
    "threads": (lambda d: d["environment"].update(threads=0), MalformedBundle, "c.txt: environment.threads"),
    "exact": (lambda d: d["environment"].update(kind="exact"), UnknownKind, "c.txt: environment.kind"),
    "further field": (put("more", 1), MalformedBundle, "c.txt"),
    "no tolerance of the rest": (lambda d: d.pop("state_tau"), MalformedBundle, "c.txt: state_tau"),
    "missing field": (lambda d: d.pop("floor"), MalformedBundle, "c.txt: floor"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_field_is_refused_and_named(name: str) -> None:
    change, kind, where = WRONG[name]
    with pytest.raises(kind) as raised:
        read(changed(change))
    assert raised.value.where == where


@pytest.mark.parametrize("text", ["{}\n{}\n", " {}\n", "[]\n", "{\n"])
def test_a_text_that_is_not_one_canonical_object_is_refused(text: str) -> None:
    with pytest.raises(MalformedBundle):
        read(sign_note(text, [CALIBRATOR]))


def test_a_space_is_refused() -> None:
    text = calibration().text().replace(":", ": ", 1)
    with pytest.raises(MalformedBundle, match="canonical"):
        read(sign_note(text, [CALIBRATOR]))


def test_what_could_not_be_read_is_not_signed() -> None:
    for wrong in (
        calibration(runs=()),
        calibration(variants=("a", "a")),
        calibration(runs=(CalibratedRun(origin="x", size=0, root=bytes(32)),)),
        calibration(program=bytes(31)),
    ):
        with pytest.raises(MalformedBundle):
            sign_calibration(wrong, [CALIBRATOR])


VECTORS = json.loads(
    (Path(make_calibration.__file__).parent / "calibration.json").read_text(encoding="utf-8")
)
PINNED = VerificationKey.parse(VECTORS["key"])


@pytest.mark.parametrize("case", VECTORS["valid"], ids=lambda case: case["fields"]["program"][:8])
def test_a_vector_is_read(case: dict[str, Any]) -> None:
    own = read_calibration(case["note"].encode(), keys=[PINNED], where="vector")
    for name, value in case["fields"].items():
        found = getattr(own, name)
        if isinstance(found, float):
            found = float_to_bits(found)
        elif isinstance(found, bytes | tuple):
            found = found.hex() if isinstance(found, bytes) else list(found)
        assert found == value, name
    assert sign_calibration(own, [SigningKey.parse(VECTORS["signing_key"])]).decode() == case["note"]


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=lambda case: case["reason"])
def test_an_invalid_vector_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises((MalformedBundle, UnknownKind, KeyFileError)):
        read_calibration(case["note"].encode(), keys=[PINNED], where="vector")


def test_a_rate_that_so_few_segments_cannot_bound_is_refused() -> None:
    own = calibration(None, segments=1, false_rejection=1e-9, confidence=0.999)
    with pytest.raises(MalformedBundle, match="1 segments cannot bound a rate of 1e-09") as caught:
        own.text()
    assert caught.value.where == "calibration: false_rejection"
    with pytest.raises(MalformedBundle, match="is below the floor"):
        calibration(None, floor=2.0, ceiling=1.0).text()
