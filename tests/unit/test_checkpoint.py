"""Checkpoints: one text for each."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle
from gradseal.proof.checkpoint import MAX_SIZE, Checkpoint
from gradseal.proof.note import SigningKey, open_note, sign_note

LINES = st.text(st.characters(codec="utf-8", exclude_characters=[chr(c) for c in range(32)]), min_size=1)
CHECKPOINTS = st.builds(
    Checkpoint,
    origin=LINES,
    size=st.integers(0, MAX_SIZE),
    root=st.binary(min_size=32, max_size=32),
    extensions=st.lists(LINES, max_size=3).map(tuple),
)


def parse(text: str) -> Checkpoint:
    return Checkpoint.parse(text, where="checkpoint")


@given(CHECKPOINTS)
def test_a_checkpoint_comes_back_from_its_text(checkpoint: Checkpoint) -> None:
    assert parse(checkpoint.text()) == checkpoint


@given(CHECKPOINTS, st.data())
def test_a_changed_character_is_another_checkpoint_or_refused(
    checkpoint: Checkpoint, data: st.DataObject
) -> None:
    text = checkpoint.text()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(exclude_characters=[text[at]])) + text[at + 1 :]
    try:
        assert parse(changed) != checkpoint
    except MalformedBundle as e:
        assert e.where.startswith("checkpoint")


@given(st.text() | st.lists(st.text("0129_+- a=A/\n", max_size=6)).map("\n".join))
def test_any_text_is_a_checkpoint_or_refused(text: str) -> None:
    try:
        checkpoint = parse(text)
    except MalformedBundle:
        return
    assert checkpoint.text() == text


@pytest.mark.parametrize(
    "part",
    [
        {"origin": ""},
        {"origin": "two\nlines"},
        {"size": -1},
        {"size": 2**63},
        {"root": bytes(31)},
        {"extensions": ("",)},
        {"extensions": ("a\rb",)},
    ],
)
def test_a_part_that_the_text_cannot_hold_is_refused(part: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"origin": "log", "size": 1, "root": bytes(32)}
    Checkpoint(**parts)
    with pytest.raises(MalformedBundle):
        Checkpoint(**(parts | part))


def test_a_checkpoint_is_the_text_of_a_note() -> None:
    key = SigningKey(name="example.com/run", seed=bytes(32))
    checkpoint = Checkpoint(origin="example.com/run/0123", size=5, root=bytes(range(32)))
    note = open_note(sign_note(checkpoint.text(), [key]), where="checkpoint")
    assert note.verified_by(key.verification_key)
    assert parse(note.text) == checkpoint
