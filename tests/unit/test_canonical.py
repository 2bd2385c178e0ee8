"""Canonical JSON: one byte sequence a value, and nothing hostile gets past the bounds."""

from __future__ import annotations

import json
import math
import struct
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle
from gradseal.proof.canonical import (
    MAX_INTEGER,
    decode,
    encode,
    float_from_bits,
    float_to_bits,
    integer_from_json,
    integer_to_json,
)

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
SCALARS = st.none() | st.booleans() | st.integers(-MAX_INTEGER, MAX_INTEGER) | TEXT
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def read(data: bytes, max_bytes: int = 10**7, max_depth: int = 32) -> Any:
    return decode(data, where="manifest", max_bytes=max_bytes, max_depth=max_depth)


@given(VALUES)
def test_a_value_comes_back_from_its_bytes(value: Any) -> None:
    data = encode(value)
    assert read(data) == value
    assert json.loads(data) == value


@given(VALUES, st.data())
def test_a_flipped_bit_is_another_value_or_refused(value: Any, data: st.DataObject) -> None:
    encoded = bytearray(encode(value))
    bit = data.draw(st.integers(0, 8 * len(encoded) - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    try:
        changed = read(bytes(encoded))
    except MalformedBundle:
        return
    assert encode(changed) != encode(value)


@given(st.binary(max_size=64) | st.text('[]{}",:\\0123456789eEtruflasn-. \n', max_size=40).map(str.encode))
def test_any_bytes_decode_to_themselves_or_are_refused(data: bytes) -> None:
    try:
        value = read(data)
    except MalformedBundle as e:
        assert e.where.startswith("manifest")
        return
    assert encode(value) == data


def test_keys_are_in_the_order_of_their_utf_16_code_units() -> None:
    assert encode({"\ufb33": 1, "\U0001f600": 2, "\u20ac": 3}) == '{"€":3,"😀":2,"\ufb33":1}'.encode()


def test_tuples_and_read_only_mappings_are_arrays_and_objects() -> None:
    assert encode(MappingProxyType({"a": (1, 2)})) == b'{"a":[1,2]}'


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"plan": {"steps": [1, 2.5]}}, "value: plan.steps[]"),
        ({"a": 2**53}, "value: a"),
        ([-(2**53)], "value: []"),
        (b"bytes", "value"),
        ({1: 2}, "value"),
        ("\ud800", "value"),
        ({"\udfff": 1}, "value"),
        ({"a": {1, 2}}, "value: a"),
        (float("nan"), "value"),
    ],
)
def test_what_is_outside_the_subset_is_not_encoded(value: Any, where: str) -> None:
    with pytest.raises(MalformedBundle) as caught:
        encode(value)
    assert caught.value.where == where


def test_a_value_that_contains_itself_is_not_encoded() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(MalformedBundle):
        encode(loop)


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 10**6,
        b'{"a":' * 10**6,
        b"[" * 500_000 + b"]" * 500_000,
        b"9" * 10**6,
        b"-" + b"9" * 10**6,
        b"0." + b"9" * 10**6,
        b"1e" + b"9" * 10**6,
        b'"' * 10**6,
        b'"' + b"\\" * 10**6,
        b"\\" * 10**6 + b'"' + b"[" * 10**6,
        b'"\\"' + b"[" * 10**6,
        b"[]" * 10**6,
        b"{" * 10**6,
        b"\xef\xbb\xbf{}",
    ],
    ids=lambda data: repr(data[:8]),
)
def test_hostile_bytes_are_refused_as_malformed(data: bytes) -> None:
    with pytest.raises(MalformedBundle):
        read(data)


def test_a_long_key_does_not_multiply_the_work() -> None:
    # An error message's path made for each item would copy a terabyte.
    data = b'{"' + b"k" * 10**6 + b'":[' + b",".join([b"1"] * 10**6) + b"]}"
    assert sum(*read(data).values()) == 10**6


def test_size_is_bounded_before_anything_else() -> None:
    assert read(b'"aa"', max_bytes=4) == "aa"
    with pytest.raises(MalformedBundle, match="5 bytes of JSON, more than the 4 allowed"):
        read(b"\xff" * 5, max_bytes=4)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"":', b"}")])
def test_depth_is_bounded_exactly(opening: bytes, closing: bytes) -> None:
    inner = b"0" if opening != b"[" else b""
    assert read(opening * 7 + inner + closing * 7, max_depth=7)
    with pytest.raises(MalformedBundle, match="more than 7 deep"):
        read(opening * 8 + inner + closing * 8, max_depth=7)


def test_brackets_within_strings_are_not_depth() -> None:
    assert read(encode('["\\"[[[' * 50)) == '["\\"[[[' * 50


@given(st.binary(min_size=8, max_size=8))
def test_every_bit_of_a_float_is_kept(bits: bytes) -> None:
    (x,) = struct.unpack(">d", bits)
    assert float_to_bits(x) == bits.hex()
    assert float_to_bits(float_from_bits(bits.hex(), where="loss")) == bits.hex()


def test_negative_zero_is_not_zero() -> None:
    assert math.copysign(1, float_from_bits(float_to_bits(-0.0), where="loss")) == -1


@pytest.mark.parametrize(
    "text", ["", "0" * 15, "0" * 17, "3FF0000000000000", "0" * 15 + "\n", "٠" * 16, None, 0, ["0" * 16]]
)
def test_other_spellings_of_floats_are_refused(text: Any) -> None:
    with pytest.raises(MalformedBundle, match="manifest: lr"):
        float_from_bits(text, where="manifest: lr")


@given(st.integers(-(2**63), 2**63 - 1))
def test_integers_of_64_bits_come_back(n: int) -> None:
    value = integer_to_json(n)
    assert isinstance(value, int) == (abs(n) <= MAX_INTEGER)
    assert integer_from_json(read(encode(value)), where="seed") == n


@pytest.mark.parametrize("n", [2**63, -(2**63) - 1, 10**5000], ids=["above", "below", "huge"])
def test_integers_beyond_64_bits_are_refused(n: int) -> None:
    with pytest.raises(MalformedBundle):
        integer_to_json(n)


@given(st.text(max_size=24) | st.from_regex(r"[-+]?[0-9_ ]{1,22}", fullmatch=True))
def test_a_decimal_string_is_the_only_one_for_its_integer(text: str) -> None:
    try:
        n = integer_from_json(text, where="seed")
    except MalformedBundle:
        return
    assert integer_to_json(n) == text
