"""Optimizers by name, as Gradseal's own code: how a state's parameters follow from gradients.

In native arithmetic on a CPU each gives the bits of its namesake in `torch.optim`: the same ATen calls in the
same order, one parameter at a time. In exact arithmetic each is the same rule, every operation rounded once.
`torch.optim` itself is never called by a replay. One module a family.
Format: docs/spec/program.md, section 5.
"""

from __future__ import annotations

from gradseal.errors import MalformedBundle
from gradseal.program.optimizers.adagrad import Adagrad, AdagradGroup
from gradseal.program.optimizers.adam import Adam, AdamGroup, AdamW, AdamWGroup
from gradseal.program.optimizers.base import (
    MAX_COUNT,
    MAX_GROUPS,
    MAX_PARAMETERS,
    MAX_STEPS_BEFORE,
    Group,
    Kept,
    check_exact,
    kept_name,
)
from gradseal.program.optimizers.lion import Lion, LionGroup
from gradseal.program.optimizers.nadam import NAdam, NAdamGroup
from gradseal.program.optimizers.rmsprop import RMSprop, RMSpropGroup
from gradseal.program.optimizers.sgd import SGD, SGDGroup
from gradseal.proof.fields import Fields

__all__ = [
    "MAX_COUNT",
    "MAX_GROUPS",
    "MAX_PARAMETERS",
    "MAX_STEPS_BEFORE",
    "SGD",
    "Adagrad",
    "AdagradGroup",
    "Adam",
    "AdamGroup",
    "AdamW",
    "AdamWGroup",
    "Group",
    "Kept",
    "Lion",
    "LionGroup",
    "NAdam",
    "NAdamGroup",
    "Optimizer",
    "RMSprop",
    "RMSpropGroup",
    "SGDGroup",
    "check_exact",
    "kept_name",
    "optimizer_from_fields",
]

Optimizer = SGD | Adam | AdamW | RMSprop | Adagrad | NAdam | Lion
"""The optimizers that there are."""

_KINDS: dict[str, type[Optimizer]] = {
    kind.name: kind for kind in (SGD, Adam, AdamW, RMSprop, Adagrad, NAdam, Lion)
}


def optimizer_from_fields(fields: Fields) -> Optimizer:
    """Reads an optimizer's JSON form strictly.

    Raises:
        UnknownKind: An optimizer that this version does not know.
        MalformedBundle: A field is wrong, or a parameter stands in two places.
    """
    kind = _KINDS[fields.kind("name", _KINDS)]
    groups = tuple(kind.GROUP.from_fields(own) for own in fields.objects("groups", MAX_GROUPS))
    steps_before = fields.integer("steps_before", 0, MAX_STEPS_BEFORE if kind.COUNTS else 1)
    optimizer = kind(groups=groups, steps_before=steps_before)  # type: ignore[arg-type]
    fields.end()
    names = list(optimizer.parameters())
    if len(set(names)) != len(names):
        raise MalformedBundle("a parameter stands twice", where=fields.where("groups"))
    return optimizer
