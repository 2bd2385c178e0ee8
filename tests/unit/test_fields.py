"""Reading fields strictly, with errors that name the place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.proof.canonical import float_to_bits
from gradseal.proof.fields import Fields

DIGEST = "00ff" * 16


def manifest(**values: Any) -> Fields:
    return Fields(values, "manifest")


def test_each_reader_gives_the_value_in_its_type() -> None:
    fields = manifest(
        t="x", i=-1, b=False, d=DIGEST, f=float_to_bits(-0.5), o={"y": 1}, a=[1, None], c="sgd", r=None
    )
    assert fields.text("t") == "x"
    assert fields.integer("i", -1, 1) == -1
    assert fields.boolean("b") is False
    assert fields.digest("d") == bytes.fromhex(DIGEST)
    assert fields.float_("f") == -0.5
    assert fields.object("o").integer("y", 0, 9) == 1
    assert fields.array("a", 2) == [1, None]
    assert fields.choice("c", {"sgd", "adam"}) == "sgd"
    assert fields.raw("r") is None
    fields.end()


Read = Callable[[Fields], object]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (1, lambda fields: fields.text("x")),
        ("abc", lambda fields: fields.text("x", max_length=2)),
        ("1", lambda fields: fields.integer("x", 0, 9)),
        (True, lambda fields: fields.integer("x", 0, 9)),
        (10, lambda fields: fields.integer("x", 0, 9)),
        (-1, lambda fields: fields.integer("x", 0, 9)),
        (1, lambda fields: fields.boolean("x")),
        (None, lambda fields: fields.boolean("x")),
        (DIGEST.upper(), lambda fields: fields.digest("x")),
        (DIGEST[:-1], lambda fields: fields.digest("x")),
        (DIGEST[:-1] + "\n", lambda fields: fields.digest("x")),
        (DIGEST + "00", lambda fields: fields.digest("x")),
        (1, lambda fields: fields.float_("x")),
        ([], lambda fields: fields.object("x")),
        ({}, lambda fields: fields.array("x", 9)),
        ([1, 2], lambda fields: fields.array("x", 1)),
        ([{}, {}], lambda fields: fields.objects("x", 1)),
        ("lion", lambda fields: fields.choice("x", ["sgd", "adam"])),
        (None, lambda fields: fields.choice("x", ["sgd"])),
        (None, lambda fields: fields.kind("x", ["sgd"])),
    ],
)
def test_a_wrong_value_is_refused_by_file_and_field(value: Any, read: Read) -> None:
    with pytest.raises(MalformedBundle) as caught:
        read(Fields({"plan": {"x": value}}, "manifest").object("plan"))
    assert caught.value.where == "manifest: plan.x"


@pytest.mark.parametrize(
    "read",
    [
        lambda fields: fields.text("x"),
        lambda fields: fields.raw("x"),
        lambda fields: fields.object("x"),
        lambda fields: fields.objects("x", 3),
    ],
)
def test_a_missing_field_is_refused(read: Read) -> None:
    with pytest.raises(MalformedBundle, match="missing") as caught:
        read(manifest(y=1))
    assert caught.value.where == "manifest: x"


def test_items_of_arrays_are_named_by_index() -> None:
    fields = manifest(plan={"slots": [{"k": 1}, {"k": "2"}]}).object("plan")
    first, second = fields.objects("slots", 2)
    assert first.integer("k", 0, 9) == 1
    with pytest.raises(MalformedBundle) as caught:
        second.integer("k", 0, 9)
    assert caught.value.where == "manifest: plan.slots[1].k"
    with pytest.raises(MalformedBundle) as caught:
        manifest(slots=[{}, 3]).objects("slots", 2)
    assert caught.value.where == "manifest: slots[1]"
    assert fields.where("slots", 1) == "manifest: plan.slots[1]"
    assert fields.where() == "manifest: plan"


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_only_objects_have_fields(value: Any) -> None:
    with pytest.raises(MalformedBundle, match="expected an object") as caught:
        Fields(value, "manifest")
    assert caught.value.where == "manifest"


def test_fields_that_nobody_read_are_refused_by_name() -> None:
    fields = manifest(a=1, zebra=2, b=3)
    fields.integer("a", 0, 9)
    assert fields.has("zebra")
    assert not fields.has("c")
    with pytest.raises(MalformedBundle, match="'b', 'zebra'") as caught:
        fields.end()
    assert caught.value.where == "manifest"
    fields.raw("b"), fields.raw("zebra")
    fields.end()


def test_hostile_names_do_not_fill_the_error() -> None:
    with pytest.raises(MalformedBundle) as caught:
        Fields({f"{i}" + "x" * 10**5: 1 for i in range(100)}, "manifest").end()
    assert len(str(caught.value)) < 2000
    assert "92 more" in str(caught.value)


def test_a_kind_not_known_is_not_malformed() -> None:
    assert manifest(kind="segment").kind("kind", {"segment"}) == "segment"
    with pytest.raises(UnknownKind) as caught:
        manifest(kind="retraction").kind("kind", {"segment"})
    assert caught.value.where == "manifest: kind"
    assert caught.value.advice
