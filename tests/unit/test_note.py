"""Signed notes and their keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import KeyFileError, MalformedBundle
from gradseal.proof.note import (
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    Note,
    NoteSignature,
    Signer,
    SigningKey,
    VerificationKey,
    decode_base64,
    encode_base64,
    key_id,
    name_fault,
    open_note,
    sign_note,
)

KEY = SigningKey(name="example.com/run", seed=b"\x07" * 32)
OTHER = SigningKey(name="example.com/witness", seed=b"\x08" * 32)
TEXT = st.text(st.characters(codec="utf-8", exclude_characters=[chr(c) for c in range(32) if c != 10])).map(
    lambda text: text + "\n"
)
NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=255).filter(
    lambda name: not name_fault(name)
)


def opened(data: bytes) -> Note:
    return open_note(data, where="checkpoint")


@given(TEXT)
def test_a_note_opens_to_the_text_that_was_signed(text: str) -> None:
    data = sign_note(text, [KEY, OTHER])
    note = opened(data)
    assert note.text == text
    assert note.encode() == data
    assert note.verified_by(KEY.verification_key)
    assert note.verified_by(OTHER.verification_key)


@given(TEXT, st.data())
def test_a_flipped_bit_is_noticed(text: str, data: st.DataObject) -> None:
    signed = bytearray(sign_note(text, [KEY]))
    bit = data.draw(st.integers(0, 8 * len(signed) - 1))
    signed[bit // 8] ^= 1 << bit % 8
    try:
        note = opened(bytes(signed))
    except MalformedBundle:
        return
    assert not note.verified_by(KEY.verification_key)


@given(st.binary(max_size=300) | TEXT.map(lambda text: (text + "\n\N{EM DASH} a AAAAAAA=\n").encode()))
def test_any_bytes_are_a_note_or_refused(data: bytes) -> None:
    try:
        note = opened(data)
    except MalformedBundle as e:
        assert e.where.startswith("checkpoint")
        return
    assert note.encode() == data


@given(NAMES, st.binary(min_size=32, max_size=32))
def test_keys_come_back_from_their_text(name: str, seed: bytes) -> None:
    key = SigningKey(name=name, seed=seed)
    assert SigningKey.parse(key.encode()) == key
    assert VerificationKey.parse(str(key.verification_key)) == key.verification_key


@given(st.data())
def test_a_changed_character_of_a_key_is_noticed(data: st.DataObject) -> None:
    key = KEY.verification_key
    text = str(key)
    at = data.draw(st.integers(0, len(text) - 1))
    replaced = text[:at] + data.draw(st.characters(exclude_characters=[text[at]])) + text[at + 1 :]
    with pytest.raises(KeyFileError):
        VerificationKey.parse(replaced)


def test_generated_keys_differ_and_sign() -> None:
    first, second = SigningKey.generate("a"), SigningKey.generate("a")
    assert first != second
    assert first.verification_key.verify(first.sign(b"m"), b"m")
    assert not second.verification_key.verify(first.sign(b"m"), b"m")


def test_a_signature_of_another_length_does_not_verify() -> None:
    for signature in (b"", KEY.sign(b"m")[:-1], KEY.sign(b"m") + b"\0"):
        assert not KEY.verification_key.verify(signature, b"m")


def test_a_key_of_another_name_is_another_key() -> None:
    renamed = VerificationKey(name="example.com/thief", public=KEY.verification_key.public)
    assert not opened(sign_note("text\n", [KEY])).verified_by(renamed)


def test_a_false_line_under_a_key_spoils_its_true_one() -> None:
    note = opened(sign_note("text\n", [KEY]))
    false = NoteSignature(name=KEY.name, key_id=KEY.verification_key.id, signature=OTHER.sign(b"text\n"))
    assert not Note(text=note.text, signatures=(*note.signatures, false)).verified_by(KEY.verification_key)


def test_lines_of_other_types_are_kept() -> None:
    strange = NoteSignature(name="witness", key_id=key_id("witness", 4, bytes(32)), signature=b"\0" * 72)
    note = opened(sign_note("text\n", [KEY]))
    longer = Note(text=note.text, signatures=(*note.signatures, strange))
    assert opened(longer.encode()) == longer
    assert longer.verified_by(KEY.verification_key)


def test_line_separators_other_than_newline_belong_to_the_text() -> None:
    text = "one\u2028two\u0085three\u2029four\x7f\n\nfive\n\n"
    assert opened(sign_note(text, [KEY])).text == text


@pytest.mark.parametrize("text", ["", "no newline", "tab\t\n", "\r\n", "\0\n", "\ud800\n"])
def test_a_text_that_no_note_may_have_is_not_signed(text: str) -> None:
    class Never:
        verification_key = KEY.verification_key

        def sign(self, message: bytes) -> bytes:
            raise AssertionError(message)

    never: Signer = Never()
    with pytest.raises(MalformedBundle):
        sign_note(text, [never])


def test_numbers_and_sizes_are_bounded() -> None:
    assert len(opened(sign_note("t\n", [KEY] * MAX_SIGNATURES)).signatures) == MAX_SIGNATURES
    room = MAX_NOTE_BYTES - len(sign_note("\n", [KEY]))
    assert len(opened(sign_note("x" * room + "\n", [KEY])).text) == room + 1
    for text, signers in [
        ("t\n", []),
        ("t\n", [KEY] * (MAX_SIGNATURES + 1)),
        ("x" * (room + 1) + "\n", [KEY]),
    ]:
        with pytest.raises(MalformedBundle):
            sign_note(text, signers)


def test_a_note_by_hand_that_would_not_read_back_is_not_written() -> None:
    good = opened(sign_note("t\n", [KEY])).signatures[0]
    for name, signature in [("a b", b"s"), ("a\nb", b"s"), ("\ud800", b"s"), ("a", b"")]:
        bad = NoteSignature(name=name, key_id=good.key_id, signature=signature)
        with pytest.raises(MalformedBundle):
            Note(text="t\n", signatures=(bad,)).encode()


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\u2003b", "a\x01b", "a\x85b", "\ud800", "x" * 256]
)
def test_names_that_are_not_allowed(name: str) -> None:
    with pytest.raises(KeyFileError):
        SigningKey(name=name, seed=bytes(32))


def test_a_secret_shows_in_no_message() -> None:
    secret = KEY.encode()
    seed = secret.rpartition("+")[2]
    assert seed not in repr(KEY)
    assert repr(KEY.seed) not in repr(KEY)
    for broken in (secret[:-1], secret + "\n", secret.replace("run", "ran"), secret[8:]):
        with pytest.raises(KeyFileError) as caught:
            SigningKey.parse(broken, where="owner.key")
        assert seed[:12] not in caught.value.diagnostics()
        assert caught.value.where == "owner.key"


def test_keys_of_another_length_are_refused() -> None:
    for length in (0, 31, 33, 64):
        with pytest.raises(KeyFileError):
            VerificationKey(name="a", public=bytes(length))


@given(st.binary(max_size=40))
def test_base64_comes_back(data: bytes) -> None:
    assert decode_base64(encode_base64(data), where="x") == data


@given(st.text("AQgw+/=-_ \n", max_size=9) | st.text(max_size=9))
def test_base64_has_one_text_for_its_bytes(text: str) -> None:
    try:
        data = decode_base64(text, where="x")
    except MalformedBundle:
        return
    assert encode_base64(data) == text
