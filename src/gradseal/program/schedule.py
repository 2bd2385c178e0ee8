"""A schedule: every hyperparameter that changes during a run, sealed before it starts.

A column is one hyperparameter of one or several groups, as a row of pieces, each a polynomial of low degree.
It is evaluated as written and is all that counts: no scheduler is run by a replay. So there is nothing in it
but its numbers, which are counted as what could be hidden there: a table of a value for each step would have
room for a message in the last bits of every one. `curves` makes pieces of values. Knows no torch.
Format: docs/spec/program.md, section 5.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gradseal.errors import MalformedBundle, ReplayError
from gradseal.proof.canonical import Json, float_from_bits, float_to_bits
from gradseal.proof.fields import Fields

if TYPE_CHECKING:
    from gradseal.program.optimizers import Optimizer

MAX_COLUMNS = 1024
MAX_GROUPS = 10_000
MAX_PIECES = 65_536
"""Of all columns together."""

MAX_COEFFICIENTS = 8
MAX_VALUES = 1 << 26
"""How many values a schedule may have in all: each is looked at before a replay."""

_CHUNK = 1 << 20

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A polynomial over so many values.

    Args:
        length: How many values.
        coefficients: 1 to 8 finite numbers, the constant first; of t = (2i − length) / length for value i.
    """

    length: int
    coefficients: tuple[float, ...]

    def at(self, index: int) -> float:
        """Value number `index`, by Horner's rule."""
        t = (2 * index - self.length) / self.length
        *lower, value = self.coefficients
        for coefficient in reversed(lower):
            value = value * t + coefficient
        return value

    def values(self, first: int, end: int) -> Floats:
        """The values from number `first` to before `end`, with the bits of `at`."""
        t = (2.0 * np.arange(first, end, dtype=np.float64) - self.length) / self.length
        *lower, highest = self.coefficients
        values = np.full(end - first, highest)
        for coefficient in reversed(lower):
            values = values * t + coefficient
        return values

    def to_json(self) -> Json:
        """Its JSON form, spec section 5."""
        return [self.length, [float_to_bits(c) for c in self.coefficients]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One changing hyperparameter.

    Args:
        field: Its name in a parameter group, such as `lr`.
        groups: The numbers of the groups that it is set in, rising.
        pieces: Its values, one piece after another.
    """

    field: str
    groups: tuple[int, ...]
    pieces: tuple[Piece, ...]
    _ends: tuple[int, ...] = attribute(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ends", tuple(accumulate(piece.length for piece in self.pieces)))

    @property
    def length(self) -> int:
        """How many values it has."""
        return self._ends[-1]

    def at(self, index: int) -> float:
        """Value number `index`."""
        number = bisect_right(self._ends, index)
        piece = self.pieces[number]
        return piece.at(index - self._ends[number] + piece.length)

    def values(self) -> Iterator[Floats]:
        """All values, in pieces of bounded size."""
        for piece in self.pieces:
            for first in range(0, piece.length, _CHUNK):
                yield piece.values(first, min(first + _CHUNK, piece.length))

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {
            "field": self.field,
            "groups": list(self.groups),
            "pieces": [piece.to_json() for piece in self.pieces],
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Column:
        """Reads the JSON form strictly."""
        groups = fields.array("groups", MAX_GROUPS)
        numbers = tuple(g for g in groups if isinstance(g, int) and not isinstance(g, bool) and g >= 0)
        if not numbers or len(numbers) != len(groups) or list(numbers) != sorted(set(numbers)):
            raise MalformedBundle("is not a rising list of group numbers", where=fields.where("groups"))
        pieces = fields.array("pieces", MAX_PIECES)
        if not pieces:
            raise MalformedBundle("has no pieces", where=fields.where("pieces"))
        column = cls(
            field=fields.text("field", max_length=64),
            groups=numbers,
            pieces=tuple(_piece(p, fields.where(f"pieces[{i}]")) for i, p in enumerate(pieces)),
        )
        fields.end()
        return column


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What changes, and how.

    Args:
        every: How many steps each value holds.
        columns: What changes; all of one length.
    """

    every: int
    columns: tuple[Column, ...]

    def at(self, step: int) -> dict[tuple[int, str], float]:
        """The value of every scheduled hyperparameter at a step, by group number and name."""
        values = [(column, column.at(step // self.every)) for column in self.columns]
        return {(group, column.field): value for column, value in values for group in column.groups}

    def check(self, optimizer: Optimizer, steps: int, *, where: str) -> None:
        """Refuses a schedule of another length than the run, or with values that the optimizer cannot have.

        Raises:
            MalformedBundle: Names the column.
        """
        moves = -(-steps // self.every)
        if moves * len(self.columns) > MAX_VALUES:
            raise MalformedBundle(f"more than {MAX_VALUES} values", where=where)
        for number, column in enumerate(self.columns):
            place = f"{where}: columns[{number}]"
            if column.length != moves:
                raise MalformedBundle(f"{column.length} values for {moves} changes", where=place)
            low, high = _range(column, place)
            for value in (low, high):
                try:
                    optimizer.at({(group, column.field): value for group in column.groups})
                except ReplayError as e:
                    raise MalformedBundle(e.message, where=place) from e

    def free_bytes(self) -> int:
        """What could be hidden in it: its numbers, each different one once, and which stands where."""
        pieces = [piece for column in self.columns for piece in column.pieces]
        shapes = {piece.coefficients for piece in pieces}
        lengths = {piece.length for piece in pieces} | {self.every}
        size = sum(_number_bytes(c) for coefficients in shapes for c in coefficients)
        size += sum((length.bit_length() + 7) // 8 for length in lengths)
        choices = [_choice_bits(shapes) + _choice_bits(lengths)] * len(pieces)
        groups = [max(column.groups) + 1 for column in self.columns]
        return size + (sum(choices) + sum(groups) + 7) // 8

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {"every": self.every, "columns": [c.to_json() for c in self.columns]}

    @classmethod
    def from_fields(cls, fields: Fields, schedulable: Sequence[Sequence[str]]) -> Schedule:
        """Reads the JSON form strictly.

        Args:
            fields: The JSON object.
            schedulable: For each group of the optimizer, the names of what may change.
        """
        columns = tuple(Column.from_fields(c) for c in fields.objects("columns", MAX_COLUMNS))
        named = [(group, column.field) for column in columns for group in column.groups]
        where = fields.where("columns")
        if not columns or len(set(named)) != len(named):
            raise MalformedBundle("no columns, or two for one hyperparameter", where=where)
        if sum(len(column.pieces) for column in columns) > MAX_PIECES:
            raise MalformedBundle(f"more than {MAX_PIECES} pieces", where=where)
        for group, name in named:
            if group >= len(schedulable) or name not in schedulable[group]:
                raise MalformedBundle(
                    f"schedules {name!r} of group {group}, which the optimizer has not", where=where
                )
        schedule = cls(every=fields.integer("every", 1, 1 << 40), columns=columns)
        fields.end()
        return schedule


def _piece(value: Json, where: str) -> Piece:
    match value:
        case [int(length), list(numbers)] if not isinstance(value[0], bool):
            if not 1 <= length <= MAX_VALUES or not 1 <= len(numbers) <= MAX_COEFFICIENTS:
                raise MalformedBundle("a piece too long, or of too many coefficients", where=where)
            texts = [number if isinstance(number, str) else "" for number in numbers]
            coefficients = tuple(float_from_bits(text, where=where) for text in texts)
            if not all(map(math.isfinite, coefficients)):
                raise MalformedBundle("a coefficient that is not finite", where=where)
            return Piece(length=length, coefficients=coefficients)
    raise MalformedBundle("a piece is a length and coefficients", where=where)


def _range(column: Column, where: str) -> tuple[float, float]:
    """The least and the largest value of a column.

    Raises:
        MalformedBundle: One is not finite.
    """
    low, high = math.inf, -math.inf
    with np.errstate(all="ignore"):
        for values in column.values():
            if not np.isfinite(values).all():
                raise MalformedBundle("a value that is not finite", where=where)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return low, high


def _number_bytes(number: float) -> int:
    """Four for a number that single precision holds, eight for another, none for zero."""
    if number == 0:
        return 0
    try:
        single = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        return 8
    return 4 if single == number else 8


def _choice_bits(different: set[tuple[float, ...]] | set[int]) -> int:
    return (len(different) - 1).bit_length()
