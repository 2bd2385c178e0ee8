"""Which arithmetic a run is computed in: PyTorch's own, in a recorded environment, or the exact one.

Native arithmetic depends on machine and libraries, so its environment is part of the manifest. Exact
arithmetic depends on nothing but its definition (docs/spec/arithmetic.md), whose number is. Format:
docs/spec/program.md, section 9.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradseal.errors import UnknownKind
from gradseal.program.native import KIND, Environment
from gradseal.proof.canonical import Json
from gradseal.proof.fields import Fields

NATIVE = KIND
EXACT = "exact"
ARITHMETICS = (NATIVE, EXACT)
DEFINITION = 1
"""Which definition of exact arithmetic this version has."""

_MAX_DEFINITION = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Exact arithmetic, by the number of its definition."""

    definition: int = DEFINITION

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 9."""
        return {"kind": EXACT, "definition": self.definition}


Arithmetic = Environment | Exact
"""What a manifest says of it: native arithmetic is known by its environment."""


def read_arithmetic(fields: Fields) -> Arithmetic:
    """Reads the JSON form strictly.

    Raises:
        MalformedBundle: A field is wrong.
        UnknownKind: An arithmetic, a definition of it, or a kind of device that this version does not know.
    """
    if fields.kind("kind", ARITHMETICS) == NATIVE:
        return Environment.from_fields(fields)
    definition = fields.integer("definition", 0, _MAX_DEFINITION)
    fields.end()
    if definition != DEFINITION:
        raise UnknownKind(
            f"is definition {definition}; this version knows {DEFINITION}", where=fields.where("definition")
        )
    return Exact(definition=definition)
