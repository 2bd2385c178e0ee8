"""Runs by a sealed plan from which a part was taken, on made-up clocks.

Beacon, witness and authority are those of `attacks.dated`: honest, in this process, by a clock that only goes
forward. A run may be tried under other seeds, manifests and slots before it is sealed, as far as its author
can know them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gradseal.attacks.attack import Setting
from gradseal.attacks.dated import Services
from gradseal.errors import RecordWarning
from gradseal.precede.slots import SlotPlan, seeds_of
from gradseal.proof.anchors import AnchorStore
from gradseal.proof.entries import Slot
from gradseal.proof.manifest import BeaconSeed, DeclaredSeed
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Note, SigningKey
from gradseal.record.presented import Presented, State, copy_of
from gradseal.study.precedence.removals import Part, anchored

SETTING = Setting(steps=20, every=5, batch_size=8)
SEGMENTS = SETTING.steps // SETTING.every

AFTER_SECONDS = 2.0
"""How long after the beginning of a slot its segment is sealed."""


@dataclass(kw_only=True)
class PlannedRun(Presented):
    """A presented run by a plan that lacks a part.

    Args:
        services: Whom it asks, and what time it is.
        removed: The part.
        more: Further checkpoints that are not anchored: `manifest`, `during`, `end`.
        after_seconds: How long after the beginning of a slot its segment is sealed.
    """

    services: Services
    removed: Part
    more: frozenset[str] = frozenset()
    after_seconds: float = AFTER_SECONDS
    slots: list[tuple[int, Slot]] = field(default_factory=list, init=False)
    tree: Tree = field(default_factory=Tree, init=False)

    def __post_init__(self) -> None:
        with warnings.catch_warnings():  # of what a verifier will hold against a run: that is the point
            warnings.simplefilter("ignore", RecordWarning)
            super().__post_init__()
        self._store = AnchorStore(self.files)
        self._stage = "manifest"
        self._pace = self.services.plan()
        self.writer.tell(self._published)

    @property
    def plan(self) -> SlotPlan | None:
        """Its slots; None if the seed is declared."""
        seed = self.manifest.plan.seed
        return SlotPlan.of(seed) if isinstance(seed, BeaconSeed) else None

    def again(
        self, *, signer: SigningKey | None = None, seed: BeaconSeed | DeclaredSeed | None = None
    ) -> None:
        """Takes another key, or another seed, and so another manifest; before anything is sealed."""
        self.signer = signer or self.signer
        plan = replace(self.manifest.plan, seed=seed or self.manifest.plan.seed)
        manifest = replace(self.manifest, owner=self.signer.verification_key, plan=plan)
        self._seed(replace(self._fixed, manifest=manifest))
        self.writer.tell(self._published)

    def peek(self, slots: Sequence[int], segments: int = SEGMENTS) -> State:
        """The state after some segments that draw from these slots, state zero from slot 0; writes nothing.

        Raises:
            AnchorError: The rounds of a slot are not due yet.
        """
        if self.plan is not None:
            drawn = [(0, self.draw(0))]
            for at, slot in enumerate(slots):
                if slot != drawn[-1][1].index:
                    drawn.append((at, self.draw(slot)))
            self._draw_from(drawn)
        state = self.state_zero()
        for segment in range(segments):
            self.compute(state, segment)
        return state

    def draw(self, slot: int) -> Slot:
        """A slot with its rounds, if they are due."""
        if self.plan is None:
            raise ValueError("the seed is declared")
        return self.services.slot(self.plan, slot)

    def make(self, slots: Sequence[int] = tuple(range(SEGMENTS)), start: State | None = None) -> None:
        """The whole run, each segment in its slot, truly computed and closed."""
        self.commit()
        self.enter(0)
        self.begin(self.state_zero() if start is None else self.state_zero() | start)
        for slot in slots:
            self.enter(slot)
            self.train()
            self.publish()
        self._stage = "end"
        self.finish()

    def commit(self) -> None:
        """Seals the manifest, unless that is done."""
        if not self.tree.size:
            self.publish()
        self._stage = "during"

    def publish(self) -> None:
        """Signs the log as it is."""
        self.writer.publish()

    def enter(self, slot: int) -> None:
        """Waits for a slot, and draws it; without slots, waits as long as if there were some."""
        if self.slots and self.slots[-1][1].index == slot:
            return
        self.services.clock.until((self.plan or self._pace).begins(slot) + self.after_seconds)
        if self.plan is None:
            return
        self.slots.append((self.segments, self.draw(slot)))
        self.writer.append(self.slots[-1][1])
        self._draw_from(self.slots)

    def ending(self) -> None:
        """What is published from now on is the run's end."""
        self._stage = "end"

    def _draw_from(self, slots: Sequence[tuple[int, Slot]]) -> None:
        seeds = seeds_of(self.manifest, slots)
        if seeds is None:
            raise ValueError("a slot gives no seed")
        self._prepared = self._fixed.seeded(seeds)
        if len(slots) == 1 or slots is not self.slots:
            self._zero = copy_of(self._prepared.live.tensors())

    def _published(self, note: Note, leaves: Sequence[bytes]) -> None:
        self.tree.extend(leaves)
        if self._stage in anchored(self.removed) - self.more:
            self.services.anchor(self._store, note, self.tree)
