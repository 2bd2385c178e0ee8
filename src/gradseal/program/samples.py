"""What a sample is, in bytes: the fields of a tree of tensors, one after another.

Every sample of a run has the same fields, so that a batch can be rebuilt without its owner's code; the schema
names them and is hashed into each leaf. Knows no torch; `batches` makes tensors of the bytes.
Format: docs/spec/program.md, section 6.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from gradseal.errors import MalformedBundle
from gradseal.program.tensors import ITEM_SIZE_BYTES, MAX_DIMENSIONS, TensorSpec
from gradseal.proof.canonical import Json, decode, encode
from gradseal.proof.fields import Fields
from gradseal.proof.merkle import leaf_hasher

FORMAT = "gradseal/sample-v1"
MAX_SCHEMA_BYTES = 1 << 20
MAX_FIELDS = 1024
MAX_DEPTH = 8
MAX_SAMPLE_BYTES = 1 << 30

Tree: TypeAlias = "TensorSpec | tuple[str, tuple[Tree, ...], tuple[str, ...]]"
"""A field, or (`tuple` | `list` | `dict`, its parts, a dict's keys)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSchema:
    """The fields of every sample, and the tree that they stand in.

    Args:
        tree: Its structure; the fields are its `TensorSpec`s, in order.
    """

    tree: Tree
    fields: tuple[TensorSpec, ...] = field(init=False, repr=False, compare=False)
    """The fields in order of their bytes."""
    size_bytes: int = field(init=False, repr=False, compare=False)
    """How many bytes a sample takes."""
    _hasher: Any = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        # Once, since every sample of a run needs them.
        object.__setattr__(self, "fields", tuple(_leaves(self.tree)))
        object.__setattr__(self, "size_bytes", sum(f.size_bytes for f in self.fields))

    def __reduce__(self) -> tuple[object, ...]:
        return (_schema, (self.tree,))

    def encode(self) -> bytes:
        """The canonical bytes that its digest is taken of."""
        return encode({"format": FORMAT, "tree": _tree_to_json(self.tree)})

    def digest(self) -> bytes:
        """SHA-256 of its bytes."""
        return hashlib.sha256(self.encode()).digest()

    def leaf(self, sample: bytes | memoryview) -> bytes:
        """The hash of a sample as a leaf of the data's tree (RFC 6962, section 2.1)."""
        if self._hasher is None:
            object.__setattr__(self, "_hasher", leaf_hasher(self.digest()))
        hasher = self._hasher.copy()
        hasher.update(sample)
        digest: bytes = hasher.digest()
        return digest

    def leaves(self, samples: Sequence[bytes | memoryview]) -> list[bytes]:
        """`leaf` of each sample."""
        return [self.leaf(sample) for sample in samples]

    def leaves_of(self, rows: bytes | memoryview) -> bytes:
        """`leaf` of each sample in a row of whole samples, one after another, as the hashes are returned."""
        view, size = memoryview(rows), self.size_bytes
        return b"".join([self.leaf(view[i : i + size]) for i in range(0, len(view), size)])

    def unflatten(self, leaves: Sequence[Any]) -> Any:
        """The tree with `leaves` in the place of its fields."""
        return _unflatten(self.tree, iter(leaves))

    @classmethod
    def decode(cls, data: bytes, *, where: str) -> SampleSchema:
        """Reads a schema from an untrusted blob.

        Raises:
            MalformedBundle: Not the format, or over a limit.
            UnknownKind: A format that this version does not know.
        """
        fields = Fields(decode(data, where=where, max_bytes=MAX_SCHEMA_BYTES), where)
        fields.kind("format", [FORMAT])
        schema = cls(tree=_tree_from_json(fields.raw("tree"), "", 0, f"{where}: tree"))
        fields.end()
        if not 1 <= len(schema.fields) <= MAX_FIELDS:
            raise MalformedBundle(f"a sample has between 1 and {MAX_FIELDS} fields", where=where)
        if not 1 <= schema.size_bytes <= MAX_SAMPLE_BYTES:
            raise MalformedBundle(f"a sample has between 1 and {MAX_SAMPLE_BYTES} bytes", where=where)
        return schema


def flatten(tree: Tree, value: Any) -> Iterator[Any]:
    """The parts of `value` that stand where the tree has fields, in order.

    Raises:
        ValueError: `value` is not shaped as the tree is.
    """
    return iter(flattener(tree)(value))


def flattener(tree: Tree) -> Callable[[Any], list[Any]]:
    """`flatten` for many values: the function that takes a value apart, with the tree already walked.

    It raises ValueError for a value that is not shaped as the tree is.
    """
    if isinstance(tree, TensorSpec):
        return lambda value: [value]
    kind, parts, keys = tree
    items = _dict_items(keys) if kind == "dict" else _sequence_items(len(parts))
    if all(isinstance(part, TensorSpec) for part in parts):
        return items
    below = [flattener(part) for part in parts]
    return lambda value: [leaf for read, item in zip(below, items(value), strict=True) for leaf in read(item)]


def _sequence_items(length: int) -> Callable[[Any], list[Any]]:
    def items(value: Any) -> list[Any]:
        if not isinstance(value, tuple | list) or len(value) != length:
            raise ValueError(f"expected {length} parts")
        return list(value)

    return items


def _dict_items(keys: tuple[str, ...]) -> Callable[[Any], list[Any]]:
    wanted = set(keys)

    def items(value: Any) -> list[Any]:
        if not isinstance(value, Mapping) or set(value) != wanted:
            raise ValueError(f"expected a dict of {', '.join(keys)}")
        return [value[key] for key in keys]

    return items


def _schema(tree: Tree) -> SampleSchema:
    return SampleSchema(tree=tree)


def _leaves(tree: Tree) -> Iterator[TensorSpec]:
    if isinstance(tree, TensorSpec):
        yield tree
    else:
        for part in tree[1]:
            yield from _leaves(part)


def _unflatten(tree: Tree, leaves: Iterator[Any]) -> Any:
    if isinstance(tree, TensorSpec):
        return next(leaves)
    kind, parts, keys = tree
    values = [_unflatten(part, leaves) for part in parts]
    if kind == "dict":
        return dict(zip(keys, values, strict=True))
    return tuple(values) if kind == "tuple" else values


def _tree_to_json(tree: Tree) -> Json:
    if isinstance(tree, TensorSpec):
        return {"tensor": [tree.dtype, list(tree.shape)]}
    kind, parts, keys = tree
    if kind == "dict":
        # Pairs, not an object: the order of a dict's fields is the order of their bytes.
        return {"dict": [[key, _tree_to_json(part)] for key, part in zip(keys, parts, strict=True)]}
    return {kind: [_tree_to_json(part) for part in parts]}


def _tree_from_json(value: Json, name: str, depth: int, where: str) -> Tree:
    if depth > MAX_DEPTH:
        raise MalformedBundle(f"more than {MAX_DEPTH} levels", where=where)
    match value:
        case {"tensor": [str(dtype), [*shape]], **rest} if not rest:
            return _field_from_json(dtype, shape, name, where)
        case {"tuple": [*parts], **rest} if not rest and len(parts) <= MAX_FIELDS:
            return ("tuple", _parts_from_json(parts, name, depth, where), ())
        case {"list": [*parts], **rest} if not rest and len(parts) <= MAX_FIELDS:
            return ("list", _parts_from_json(parts, name, depth, where), ())
        case {"dict": [*pairs], **rest} if not rest and len(pairs) <= MAX_FIELDS:
            return _dict_from_json(pairs, name, depth, where)
    raise MalformedBundle("a tree is one of tensor, tuple, list and dict", where=where)


def _parts_from_json(parts: list[Json], name: str, depth: int, where: str) -> tuple[Tree, ...]:
    return tuple(
        _tree_from_json(p, f"{name}.{i}" if name else str(i), depth + 1, where) for i, p in enumerate(parts)
    )


def _dict_from_json(pairs: list[Json], name: str, depth: int, where: str) -> Tree:
    keys: list[str] = []
    below: list[Tree] = []
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str)) or pair[0] in keys:
            raise MalformedBundle("a dict is a list of pairs of a key, each once, and a tree", where=where)
        keys.append(pair[0])
        below.append(_tree_from_json(pair[1], f"{name}.{pair[0]}" if name else pair[0], depth + 1, where))
    return ("dict", tuple(below), tuple(keys))


def _field_from_json(dtype: str, shape: list[Json], name: str, where: str) -> TensorSpec:
    sizes = [
        n for n in shape if isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= MAX_SAMPLE_BYTES
    ]
    if dtype not in ITEM_SIZE_BYTES or len(sizes) != len(shape) or len(shape) > MAX_DIMENSIONS:
        raise MalformedBundle("a tensor is an element type and a shape", where=where)
    field = TensorSpec(name=name or "sample", dtype=dtype, shape=tuple(sizes))
    field.check(where)
    return field
