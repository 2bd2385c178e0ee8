"""Options that belong together, handed to a verb as one argument."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

Verb = Callable[..., None]
Decorator = Callable[[Verb], Verb]


def gathering(argument: str, kind: type[Any], options: Sequence[Decorator]) -> Decorator:
    """Gives a verb these options, together as one argument.

    Args:
        argument: Its name.
        kind: A dataclass that has a field for each option, and no other.
        options: In the order of the help text.
    """
    names = [field.name for field in fields(kind)]

    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def gathered(**given: Any) -> None:
            own = kind(**{name: given.pop(name) for name in names})
            verb(**{argument: own}, **given)

        decorated: Verb = gathered
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
