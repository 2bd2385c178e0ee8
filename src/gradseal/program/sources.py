"""Where state zero and the constants come from, and how much of it the owner was free to choose.

Each tensor is made by a rule from the run's seed, or *given*: named by the digest of its bytes. Given bytes,
scalars of rules that follow from no shape, the choice among rules, and the numbers written into graphs are
the *free bytes*: whatever they are, no rule derives them, so known weights can hide in them. They are counted
here, item by item. What the count leaves out: the choice and order of operators, their sizes, axes and
indexes. Format: docs/spec/program.md, section 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gradseal.errors import MalformedBundle
from gradseal.program.fills import check_fits
from gradseal.program.graph import Argument, Graph
from gradseal.program.rules import Rule, check, rule_from_json
from gradseal.program.scalars import Formula, fans_of
from gradseal.program.tensors import TensorSpec
from gradseal.proof.canonical import Json, decode, encode, float_to_bits
from gradseal.proof.fields import Fields

FORMAT = "gradseal/initialisation-v1"
MAX_BYTES = 64 << 20
MAX_SOURCES = 200_000

COMMON_NUMBERS = frozenset(
    float_to_bits(n)
    for n in (0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, float("inf"), float("-inf"), -100.0)
)
"""Numbers in a graph that tell nothing: identities, halves, the bounds of masks, a loss's ignored class."""

SMALL_INTEGER = 1024
"""Sizes, axes and indexes up to here are not counted one by one; `verify` caps what a graph says in all."""

_TO_THE_END = (1 << 63) - 1
_CUTTING = ("slice", "split", "unsafe_split", "index", "index_put", "index_put_")

# Integers that are values rather than sizes, axes or indexes stand in these operators.
_VALUED = (
    "Scalar",
    "fill",
    "full",
    "arange",
    "linspace",
    "scalar_tensor",
    "constant_pad",
    "clamp",
    "threshold",
    "value",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A tensor that the owner chose: the SHA-256 of its bytes."""

    digest: bytes


Source = Rule | Given


@dataclass(frozen=True, slots=True, kw_only=True)
class FreeBytes:
    """Bytes that no rule derives, in one place.

    Args:
        where: `state zero`, `constant`, `rule`, `graph` or `optimizer`.
        name: The tensor, graph or setting.
        size_bytes: How many.
    """

    where: str
    name: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialisation:
    """The source of every tensor of state zero and of every constant, in the program's order."""

    state: tuple[Source, ...]
    constants: tuple[Source, ...]

    def encode(self) -> bytes:
        """The canonical bytes that its digest is taken of."""
        return encode(
            {
                "format": FORMAT,
                "state": [_source_to_json(s) for s in self.state],
                "constants": [_source_to_json(s) for s in self.constants],
            }
        )

    @classmethod
    def decode(
        cls, data: bytes, layout: Sequence[TensorSpec], constants: Sequence[TensorSpec], *, where: str
    ) -> Initialisation:
        """Reads the sources of the tensors of `layout` and `constants` from an untrusted blob.

        Raises:
            MalformedBundle: Not the format, not one source for each tensor, or a rule that its tensor cannot
                have.
            UnknownKind: A format or a rule that this version does not know.
        """
        fields = Fields(decode(data, where=where, max_bytes=MAX_BYTES), where)
        fields.kind("format", [FORMAT])
        own = cls(
            state=tuple(_source_from_fields(f) for f in fields.objects("state", MAX_SOURCES)),
            constants=tuple(_source_from_fields(f) for f in fields.objects("constants", MAX_SOURCES)),
        )
        fields.end()
        if (len(own.state), len(own.constants)) != (len(layout), len(constants)):
            raise MalformedBundle(
                f"{len(own.state)} and {len(own.constants)} sources for {len(layout)} tensors of state "
                f"and {len(constants)} constants",
                where=where,
            )
        fans = fans_of(s.shape for s in layout)
        for spec, source in zip((*layout, *constants), (*own.state, *own.constants), strict=True):
            if not isinstance(source, Given):
                check(source, fans)
                check_fits(source, spec.name, spec.shape, spec.dtype)
        return own


def free_bytes(
    initialisation: Initialisation,
    layout: Sequence[TensorSpec],
    constants: Sequence[TensorSpec],
    graphs: Iterable[tuple[str, Graph]],
) -> tuple[FreeBytes, ...]:
    """Every place where the owner put in bytes of his own, with how many.

    Args:
        initialisation: Where the tensors come from.
        layout: The state's tensors.
        constants: The constants.
        graphs: Each graph with a name for it.
    """
    found = [
        *_free_in_sources("state zero", layout, initialisation.state),
        *_free_in_sources("constant", constants, initialisation.constants),
    ]
    if chosen := _size_of_choices([*initialisation.state, *initialisation.constants]):
        found.append(FreeBytes(where="rule", name="the choice of rules", size_bytes=chosen))
    if size := _size_of_numbers(_sizes_without_parameters(layout, constants), set()):
        found.append(FreeBytes(where="constant", name="shapes of constants and buffers", size_bytes=size))
    known: set[str] = set()
    for name, graph in graphs:
        numbers = [n for n in _numbers(graph) if n not in COMMON_NUMBERS]
        size = _size_of_numbers(numbers, known)
        known.update(numbers)
        if size:
            found.append(FreeBytes(where="graph", name=name, size_bytes=size))
    return tuple(found)


def _sizes_without_parameters(layout: Sequence[TensorSpec], constants: Sequence[TensorSpec]) -> list[str]:
    """The dimensions of buffers and constants that no parameter has; a length can be a message."""
    own = {size for spec in layout if spec.name.startswith("parameters/") for size in spec.shape}
    others = [s for s in layout if s.name.startswith("buffers/")] + list(constants)
    return [float_to_bits(float(n)) for s in others for n in s.shape if n not in own and n > 1]


def _free_in_sources(
    where: str, specs: Sequence[TensorSpec], sources: Sequence[Source]
) -> Iterator[FreeBytes]:
    for spec, source in zip(specs, sources, strict=True):
        if isinstance(source, Given):
            if spec.size_bytes:
                yield FreeBytes(where=where, name=spec.name, size_bytes=spec.size_bytes)
        elif source.free_bytes():
            yield FreeBytes(where="rule", name=spec.name, size_bytes=source.free_bytes())


def _size_of_choices(sources: Iterable[Source]) -> int:
    """For each rule not met before, what its scalars' choice says; for each use, which of the rules it is."""
    used = [encode(s.to_json()) for s in sources if not isinstance(s, Given)]
    kinds = {encode(s.to_json()): s for s in sources if not isinstance(s, Given)}
    scalars = [scalar for rule in kinds.values() for scalar in rule.scalars().values()]
    first = sum(2 if isinstance(scalar, Formula) else 1 for scalar in scalars)
    return first + (len(used) * (len(kinds) - 1).bit_length() + 7) // 8


def _size_of_numbers(numbers: Sequence[str], known: set[str]) -> int:
    """Eight bytes for each number not met before, and for each use the bits that say which one it is."""
    bits_a_use = (len(known.union(numbers)) - 1).bit_length() if numbers else 0
    return 8 * len(set(numbers) - known) + (len(numbers) * bits_a_use + 7) // 8


def _numbers(graph: Graph) -> Iterator[str]:
    for node in graph.nodes:
        valued = _takes_values(node.operator)
        for argument in (*node.args, *node.kwargs.values()):
            yield from _numbers_in(argument, valued)


def _takes_values(operator: str) -> bool:
    """Whether integers among an operator's own arguments are values, not sizes, axes or indexes."""
    _, _, name = operator.partition(".")
    base, _, overload = name.partition(".")
    return any(word in name for word in _VALUED) or (overload == "Tensor" and base not in _CUTTING)


def _numbers_in(argument: Argument, valued: bool) -> Iterator[str]:
    if isinstance(argument, bool):
        return
    if isinstance(argument, float):
        yield float_to_bits(argument)
    elif isinstance(argument, int):
        if valued or SMALL_INTEGER < abs(argument) < _TO_THE_END:
            yield float_to_bits(float(argument))
    elif isinstance(argument, tuple):
        for part in argument:
            yield from _numbers_in(part, False)


def _source_to_json(source: Source) -> Json:
    return {"given": source.digest.hex()} if isinstance(source, Given) else {"rule": source.to_json()}


def _source_from_fields(fields: Fields) -> Source:
    source: Source = (
        Given(digest=fields.digest("given")) if fields.has("given") else rule_from_json(fields.object("rule"))
    )
    fields.end()
    return source
