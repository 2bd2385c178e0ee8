"""What a tensor is to a record: a name, an element type and a shape; its bytes are row-major, little-endian.

Knows no torch. Format: docs/spec/program.md, section 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType

from gradseal.errors import MalformedBundle
from gradseal.proof.canonical import Json
from gradseal.proof.fields import Fields

ITEM_SIZE_BYTES: Mapping[str, int] = MappingProxyType(
    {
        "float64": 8,
        "float32": 4,
        "float16": 2,
        "bfloat16": 2,
        "int64": 8,
        "int32": 4,
        "int16": 2,
        "int8": 1,
        "uint8": 1,
        "bool": 1,
    }
)
MAX_DIMENSIONS = 16
MAX_TENSOR_BYTES = 1 << 36


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """A tensor's name, element type and shape.

    Args:
        name: Its name in a state, a sample or a release; unique there.
        dtype: One of `ITEM_SIZE_BYTES`.
        shape: The sizes of its dimensions; empty for a scalar.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """How many bytes those take."""
        return self.elements * ITEM_SIZE_BYTES[self.dtype]

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 1."""
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}

    @classmethod
    def from_fields(cls, fields: Fields) -> TensorSpec:
        """Reads the JSON form strictly.

        Raises:
            MalformedBundle: A field is missing, unknown, of the wrong type or over a limit.
        """
        name = fields.text("name")
        dtype = fields.choice("dtype", ITEM_SIZE_BYTES.keys())
        shape = tuple(_dimension(n, fields.where("shape")) for n in fields.array("shape", MAX_DIMENSIONS))
        fields.end()
        spec = cls(name=name, dtype=dtype, shape=shape)
        spec.check(fields.where())
        return spec

    def check(self, where: str) -> None:
        """Refuses a tensor over the limit.

        Raises:
            MalformedBundle: It is; one without elements, as if its empty dimensions had size 1.
        """
        # Even of a tensor without elements, torch multiplies the sizes.
        size_bytes = prod(max(n, 1) for n in self.shape) * ITEM_SIZE_BYTES[self.dtype]
        if size_bytes > MAX_TENSOR_BYTES:
            raise MalformedBundle(f"a tensor of {size_bytes} bytes, over {MAX_TENSOR_BYTES}", where=where)


def are_truth_values(data: bytes) -> bool:
    """Whether these bytes of a `bool` tensor are each 0 or 1."""
    return not data.strip(b"\0\1")


def check_unique(specs: Sequence[TensorSpec], where: str) -> None:
    """Refuses two tensors of one name."""
    names: set[str] = set()
    for spec in specs:
        if spec.name in names:
            raise MalformedBundle(f"the name {spec.name!r} stands twice", where=where)
        names.add(spec.name)


def _dimension(value: Json, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1 << 40:
        raise MalformedBundle(f"{value!r} is not a size of a dimension", where=where)
    return value
