"""The groups in which a state is compared besides its parameters. Knows no torch."""

from __future__ import annotations

from collections.abc import Iterable

BUFFERS = "buffers"
PARAMETERS = "parameters"


def groups_of(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of a layout besides parameters, by group: `buffers`, or the key that an optimizer has."""
    groups: dict[str, list[str]] = {}
    for name in names:
        kind = name.partition("/")[0]
        if kind != PARAMETERS:
            groups.setdefault(BUFFERS if kind == BUFFERS else name.rpartition("/")[2], []).append(name)
    return groups
