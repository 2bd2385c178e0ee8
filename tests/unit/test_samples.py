"""A schema's JSON form is strict, and its bytes are part of each leaf."""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle
from gradseal.program.samples import SampleSchema, Tree, flatten
from gradseal.program.tensors import ITEM_SIZE_BYTES, TensorSpec
from gradseal.proof.canonical import encode


def tensor(dtype: str = "float32", *shape: int, name: str = "sample") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def read(tree: Any, **more: Any) -> SampleSchema:
    return SampleSchema.decode(encode({"format": "gradseal/sample-v1", "tree": tree, **more}), where="s")


TENSORS = st.builds(
    lambda dtype, shape: {"tensor": [dtype, shape]},
    st.sampled_from(sorted(ITEM_SIZE_BYTES)),
    st.lists(st.integers(1, 3), max_size=3),
)
TREES = st.recursive(
    TENSORS,
    lambda below: st.one_of(
        st.builds(lambda parts: {"tuple": parts}, st.lists(below, min_size=1, max_size=3)),
        st.builds(lambda parts: {"list": parts}, st.lists(below, min_size=1, max_size=3)),
        st.builds(
            lambda parts: {"dict": [[k, v] for k, v in parts.items()]},
            st.dictionaries(st.text("ab", max_size=2), below, min_size=1, max_size=3),
        ),
    ),
    max_leaves=6,
)


@given(TREES)
def test_round_trip(tree: Any) -> None:
    own = read(tree)
    assert own.encode() == encode({"format": "gradseal/sample-v1", "tree": tree})
    leaves = list(range(len(own.fields)))
    assert list(flatten(own.tree, own.unflatten(leaves))) == leaves


def test_a_dicts_own_order_is_the_order_of_bytes() -> None:
    own = read({"dict": [["y", {"tensor": ["int64", []]}], ["x", {"tuple": [{"tensor": ["uint8", [3]]}]}]]})
    assert [(f.name, f.dtype) for f in own.fields] == [("y", "int64"), ("x.0", "uint8")]
    assert own.size_bytes == 11
    assert own.unflatten(["b", "a"]) == {"y": "b", "x": ("a",)}


def test_a_leaf_is_over_schema_and_sample() -> None:
    own = SampleSchema(tree=tensor("uint8", 2))
    digest = hashlib.sha256(b'{"format":"gradseal/sample-v1","tree":{"tensor":["uint8",[2]]}}').digest()
    assert own.leaf(b"ab") == hashlib.sha256(b"\x00" + digest + b"ab").digest()
    assert own.leaves([b"ab", b"cd"]) == [own.leaf(b"ab"), own.leaf(b"cd")]


def test_hashes_of_samples_in_a_row() -> None:
    own = SampleSchema(tree=("tuple", (tensor("uint8", 2, name="0"), tensor("bool", name="1")), ()))
    hashes = own.leaf(b"ab\0") + own.leaf(b"cd\1")
    assert own.leaves_of(b"ab\0cd\1") == own.leaves_of(memoryview(b"ab\0cd\1")) == hashes


def test_a_schema_that_has_hashed_can_be_sent_to_another_process() -> None:
    own = SampleSchema(tree=tensor("uint8", 2))
    leaf = own.leaf(b"ab")
    sent = pickle.loads(pickle.dumps(own))
    assert (sent, sent.fields, sent.size_bytes, sent.leaf(b"ab")) == (own, own.fields, 2, leaf)
    assert hash(sent) == hash(own)


def nested(depth: int) -> Any:
    return {"tuple": [nested(depth - 1)]} if depth else {"tensor": ["uint8", []]}


@pytest.mark.parametrize(
    "tree",
    [
        None,
        {},
        {"tensor": ["float32"]},
        {"tensor": ["complex64", []]},
        {"tensor": ["float32", [-1]]},
        {"tensor": ["float32", [True]]},
        {"tensor": ["float32", [1] * 17]},
        {"tensor": ["float32", [1 << 30, 1 << 30]]},
        {"tensor": ["float32", [0, 1 << 29, 1 << 29]]},
        {"tensor": ["float32", [0]]},
        {"tensor": ["float32", []], "more": 1},
        {"tuple": []},
        {"tuple": [], "list": []},
        {"dict": [["a", {"tensor": ["uint8", []]}], ["a", {"tensor": ["uint8", []]}]]},
        {"dict": [[1, {"tensor": ["uint8", []]}]]},
        {"dict": {"a": {"tensor": ["uint8", []]}}},
        {"tuple": [{"tensor": ["uint8", []]}] * 1025},
        {"tuple": [{"tuple": [{"tensor": ["uint8", []]}] * 600}] * 2},
        nested(9),
    ],
)
def test_malformed_schemas(tree: Any) -> None:
    with pytest.raises(MalformedBundle):
        read(tree)


def test_malformed_around_the_tree() -> None:
    assert read(nested(8)).size_bytes == 1
    with pytest.raises(MalformedBundle):
        read(nested(0), more=1)
    with pytest.raises(MalformedBundle):
        SampleSchema.decode(b"{}", where="s")


def test_flatten_refuses_another_tree() -> None:
    tree: Tree = ("dict", (tensor(), ("list", (tensor(), tensor()), ())), ("a", "b"))
    assert list(flatten(tree, {"b": [2, 3], "a": 1})) == [1, 2, 3]
    for value in ({"a": 1}, {"a": 1, "b": [2]}, {"a": 1, "b": 2}, [1, 2], {"a": 1, "b": [2, 3], "c": 4}):
        with pytest.raises(ValueError, match="expected"):
            list(flatten(tree, value))
