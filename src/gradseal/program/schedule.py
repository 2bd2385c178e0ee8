"""A schedule: every hyperparameter that changes during a run, as a table sealed before it starts.

Row i holds the values for step i, a column one hyperparameter of one or several groups. The table is
evaluated in advance and is all that counts: no scheduler is run by a replay. Knows no torch.
Format: docs/spec/program.md, section 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradseal.errors import CorruptBlob, MalformedBundle
from gradseal.proof.canonical import Json
from gradseal.proof.fields import Fields

MAX_COLUMNS = 1024
MAX_GROUPS = 10_000
MAX_TABLE_BYTES = 1 << 30
_FIRST_BYTES = 8
_SINGLE_PRECISION_BITS = 24
_CHOICE_BITS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One changing hyperparameter.

    Args:
        field: Its name in a parameter group, such as `lr`.
        groups: The numbers of the groups that it is set in, rising.
    """

    field: str
    groups: tuple[int, ...]

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {"field": self.field, "groups": list(self.groups)}

    @classmethod
    def from_fields(cls, fields: Fields) -> Column:
        """Reads the JSON form strictly."""
        groups = fields.array("groups", MAX_GROUPS)
        numbers = tuple(g for g in groups if isinstance(g, int) and not isinstance(g, bool) and g >= 0)
        if not numbers or len(numbers) != len(groups) or list(numbers) != sorted(set(numbers)):
            raise MalformedBundle("is not a rising list of group numbers", where=fields.where("groups"))
        column = cls(field=fields.text("field", max_length=64), groups=numbers)
        fields.end()
        return column


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """What a program says of its schedule.

    Args:
        columns: What the table's columns are.
        table: The digest of the table.
    """

    columns: tuple[Column, ...]
    table: bytes

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, spec section 5."""
        return {"columns": [c.to_json() for c in self.columns], "table": self.table.hex()}

    @classmethod
    def from_fields(cls, fields: Fields, schedulable: Sequence[Sequence[str]]) -> Scheduled:
        """Reads the JSON form strictly.

        Args:
            fields: The JSON object.
            schedulable: For each group of the optimizer, the names of what may change.
        """
        columns = tuple(Column.from_fields(c) for c in fields.objects("columns", MAX_COLUMNS))
        named = [(group, column.field) for column in columns for group in column.groups]
        if not columns or len(set(named)) != len(named):
            raise MalformedBundle("no columns, or two for one hyperparameter", where=fields.where("columns"))
        for group, field in named:
            if group >= len(schedulable) or field not in schedulable[group]:
                raise MalformedBundle(
                    f"schedules {field!r} of group {group}, which the optimizer has not",
                    where=fields.where("columns"),
                )
        scheduled = cls(columns=columns, table=fields.digest("table"))
        fields.end()
        return scheduled

    def table_bytes(self, steps: int) -> int:
        """The size of the table for so many steps.

        Raises:
            MalformedBundle: It is over the limit.
        """
        size_bytes = 8 * steps * len(self.columns)
        if size_bytes > MAX_TABLE_BYTES:
            raise MalformedBundle(
                f"a schedule of {size_bytes} bytes, over the limit of {MAX_TABLE_BYTES}",
                where="program: schedule",
            )
        return size_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """A table with the names of its columns.

    Args:
        columns: What the table's columns are.
        table: Float64 values of shape (steps, columns), all finite.
    """

    columns: tuple[Column, ...]
    table: npt.NDArray[np.float64]

    def at(self, step: int) -> dict[tuple[int, str], float]:
        """The value of every scheduled hyperparameter at a step, by group number and name."""
        row = self.table[step].tolist()
        return {
            (group, column.field): value
            for column, value in zip(self.columns, row, strict=True)
            for group in column.groups
        }

    def named(self, table: bytes) -> Scheduled:
        """What a program says of it, once its table is a blob of this digest."""
        return Scheduled(columns=self.columns, table=table)

    def table_file(self) -> bytes:
        """The table as a blob: rows after one another, each value as a little-endian float64."""
        return self.table.astype("<f8").tobytes()

    def free_bytes(self) -> int:
        """What could be hidden in the table: its bytes beyond those that the values before them foretell."""
        return sum(_surprise_bytes(self.table[:, column]) for column in range(len(self.columns)))

    @classmethod
    def from_table(cls, scheduled: Scheduled, data: bytes, steps: int, *, where: str) -> Schedule:
        """Reads an untrusted table.

        Raises:
            CorruptBlob: Not the size that so many steps and columns take.
            MalformedBundle: A value that is not finite.
        """
        if len(data) != 8 * steps * len(scheduled.columns):
            raise CorruptBlob(f"{len(data)} bytes are not {steps} rows", where=where)
        table = np.frombuffer(data, dtype="<f8").reshape(steps, len(scheduled.columns))
        if not np.isfinite(table).all():
            raise MalformedBundle("a value that is not finite", where=where)
        return cls(columns=scheduled.columns, table=table)


def _surprise_bytes(values: npt.NDArray[np.float64]) -> int:
    """The bytes that a column holds beyond what goes before; by its values, or by runs of equal ones."""
    ends = np.flatnonzero(np.append(values[1:] != values[:-1], True))
    lengths = np.diff(ends, prepend=-1).astype(np.float64)
    runs = _missed_bits(values[ends]) + _missed_bits(lengths)
    return _FIRST_BYTES + math.ceil(min(_missed_bits(values), runs) / 8)


def _missed_bits(values: npt.NDArray[np.float64]) -> float:
    """The bits by which each value misses what the values before foretell, at single precision.

    Foretold by the last one, by a line, and by a cubic through the last ones, of which the nearest counts; so
    constant, linear, cosine and exponential pieces cost next to nothing, and an arbitrary value three bytes.
    """
    # In front, so that the first value is foretold by nothing.
    before = np.concatenate([np.zeros(4), values])
    last, second, third, fourth = before[3:-1], before[2:-2], before[1:-3], before[:-4]
    guesses = np.stack([last, 2 * last - second, 4 * last - 6 * second + 4 * third - fourth])
    with np.errstate(all="ignore"):
        # Relative to the value itself: what is small beside other values may be large beside its gradient.
        miss = np.abs(guesses - values).min(axis=0) / np.maximum(np.abs(values), 1e-300)
    bits = np.log2(1 + np.minimum(miss, 1.0) * 2.0**_SINGLE_PRECISION_BITS)
    costly = bits[bits > 1]
    return float(costly.sum()) + _CHOICE_BITS * len(costly)
