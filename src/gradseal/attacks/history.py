"""A run's log written by hand: by an owner who may do in it what he likes, at times that he cannot choose.

Everything is real but the owner's honesty: states are what the program computes, rounds, cosignatures and
time-stamps come from services over HTTP, as of the time that their clock has when they are asked. That clock
is the scene's and goes forward only, so nobody here gets an anchor of yesterday, or a round of tomorrow.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from gradseal.attacks.scene import Rounds, Scene
from gradseal.precede.hosts import Hosts, Obtained
from gradseal.precede.slots import SlotPlan, seeds_of
from gradseal.program.batches import collate
from gradseal.program.fills import fill
from gradseal.program.interpret import Interpreter
from gradseal.program.memory import from_bytes, view_of, weights_file
from gradseal.program.order import Order
from gradseal.program.program import MAX_PROGRAM_BYTES, Program
from gradseal.program.seeds import Seeds
from gradseal.program.sources import Given
from gradseal.program.step import Stepper
from gradseal.proof.anchors import AnchorStore, receipt_of
from gradseal.proof.bundle import open_bundle
from gradseal.proof.entries import Amendment, Close, Entry, Initial, Segment, Slot, encode_losses
from gradseal.proof.files import Files, read_blob
from gradseal.proof.manifest import Manifest, Seed
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Note, SigningKey
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import Contents, order_of, read_contents
from gradseal.verify.samples import SampleReader

_CPU = torch.device("cpu")

State = dict[str, torch.Tensor]


@dataclass(kw_only=True)
class History:
    """A log that grows entry by entry, and the states that its program computes.

    Args:
        scene: What there is.
        plan: The slots; None for a declared seed.
        seed: What the manifest says of randomness, if not just the plan.
        run: The name of the recorded run whose program and data these are.
        target: Where the bundle goes, if not to the scene's target.
        owner: Who signs, if not the owner.
        rounds: Where signatures of rounds come from, if not from the relays.
    """

    scene: Scene
    plan: SlotPlan | None = None
    seed: Seed | None = None
    run: str = "usual"
    target: Path | None = None
    owner: SigningKey | None = None
    rounds: Rounds | None = None
    tree: Tree = field(default_factory=Tree, init=False)
    notes: dict[int, Note] = field(default_factory=dict, init=False)
    state: State = field(default_factory=dict, init=False)
    slots: list[tuple[int, Slot]] = field(default_factory=list, init=False)
    segments: int = field(default=0, init=False)
    programs: list[tuple[int, bytes]] = field(default_factory=list, init=False)
    entries: list[Entry] = field(default_factory=list, init=False)
    _steppers: dict[bytes, Stepper] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        source = self.scene.runs[self.run]
        self.path = self.target or self.scene.target
        shutil.copytree(source / "blobs", self.path / "blobs", copy_function=os.link)
        known = Manifest.decode(open_bundle(FsspecFiles(str(source))).all_entries()[0])
        signer, seed = self.owner or self.scene.owner, self.seed or known.plan.seed
        if self.plan is not None and self.seed is None:
            seed = self.plan.to_seed()
        self.files: Files = FsspecFiles(str(self.path))
        self.manifest = replace(known, owner=signer.verification_key, plan=replace(known.plan, seed=seed))
        self.writer = BundleWriter(BlobWriter(self.files), signer, self.manifest)
        self.writer.tell(self._published)
        self.store = AnchorStore(self.files)
        self.hosts = Hosts(self.scene.witnesses, self.scene.timestamps)

    def _published(self, note: Note, leaves: Sequence[bytes]) -> None:
        self.tree.extend(leaves)
        self.notes[self.tree.size] = note

    @property
    def slot_plan(self) -> SlotPlan:
        """The slots."""
        if self.plan is None:
            raise ValueError("the seed is declared")
        return self.plan

    # What an honest owner does.

    def begin(self) -> History:
        """Seals the manifest and anchors it."""
        self.publish()
        self.anchor()
        return self

    def train(self, slots: Iterable[int], *, anchored: bool = True) -> None:
        """A segment in each slot, published, and anchored while the slot lasts."""
        for slot in slots:
            self.reach(slot)
            self.draw(slot)
            if not self.state:
                self.initial()
            self.segment()
            self.publish()
            if anchored:
                self.anchor()

    def finish(self, *, anchored: bool = True) -> None:
        """Closes the log, and anchors it."""
        self.close()
        self.publish()
        if anchored:
            self.anchor()

    # The parts of it.

    def reach(self, slot: int) -> None:
        """Waits until a slot has begun."""
        self.scene.clock.until(self.slot_plan.begins(slot) + 1.0)

    def signatures(self, slot: int) -> tuple[bytes, ...]:
        """The signatures of a slot's rounds."""
        rounds = self.rounds or self.scene.round
        return tuple(rounds(chain, number) for chain, number in self.slot_plan.rounds(slot))

    def draw(self, slot: int, signatures: tuple[bytes, ...] | None = None) -> None:
        """Draws from a slot from now on."""
        if self.slots and self.slots[-1][1].index == slot:
            return
        entry = Slot(index=slot, signatures=signatures or self.signatures(slot))
        self.slots.append((self.segments, entry))
        self.append(entry)

    def initial(self) -> None:
        """Seals state zero, as the rules give it."""
        own = self.contents
        sources = zip(own.program.layout, own.initialisation.state, strict=True)
        seed = self.seeds().initial
        self.state = {
            spec.name: from_bytes(
                read_blob(self.files, source.digest, spec.size_bytes)
                if isinstance(source, Given)
                else fill(source, seed=seed, name=spec.name, shape=spec.shape, dtype=spec.dtype),
                spec.dtype,
                spec.shape,
                _CPU,
                where=spec.name,
            )
            for spec, source in sources
        }
        self.append(Initial(seal=self.seal()))

    def segment(self) -> None:
        """Trains the next segment, and seals its end."""
        losses = self.compute()
        steps = self.manifest.plan.steps_of(self.segments)
        self.append(
            Segment(
                index=self.segments,
                first_step=steps.start,
                steps=len(steps),
                seal=self.seal(),
                losses=self.writer.put(encode_losses(losses)),
            )
        )
        self.segments += 1

    def amend(self, slot: int, program: bytes) -> None:
        """Writes that another program is in force from a slot on."""
        self.programs.append((slot, program))
        self.append(Amendment(slot=slot, program=program))

    def close(self) -> None:
        """Releases the last state's weights, and says so in the last entry."""
        released = {name: self.state[held] for name, held in self.contents.release.tensors.items()}
        weights = self.writer.release(weights_file(released))
        self.append(Close(segments=self.segments, weights=weights))

    def append(self, entry: Entry) -> None:
        """Adds any entry."""
        self.entries.append(entry)
        self.writer.append(entry)

    def publish(self) -> None:
        """Signs the log as it is."""
        self.writer.publish()

    def anchor(self, *, tokens: Sequence[bytes] = ()) -> Obtained:
        """Has the newest checkpoint anchored by whom the scene has, and stores what they give."""
        note = self.notes[self.tree.size]
        obtained = self.hosts.obtain(note, self.tree.consistency_proof)
        self.store_anchor(replace(obtained, tokens=(*obtained.tokens, *tokens)))
        return obtained

    def store_anchor(self, obtained: Obtained) -> None:
        """Puts anchors of a checkpoint into the bundle, whatever they are."""
        self.store.add(receipt_of(obtained.note, self.tree), obtained.tokens)

    def seal(self) -> bytes:
        """The seal of the state as it is."""
        return self.writer.seal([self.writer.put(view_of(t)) for t in self.state.values()])

    # The machine.

    def compute(self) -> list[float]:
        """Moves the state on by a segment, by the program in force; returns the losses."""
        seeds, plan = self.seeds(), self.manifest.plan
        stepper = replace(self._stepper(self._in_force()), seeds=seeds)
        order, losses = order_of(self.manifest, seeds), []
        for step in plan.steps_of(self.segments):
            batches = [self._batch(order, number) for number in plan.batches_of(step)]
            losses.append(float(stepper.take(self.state, batches, step=step)))
        return losses

    def seeds(self) -> Seeds:
        """The seeds so far."""
        seeds = seeds_of(self.manifest, self.slots)
        if seeds is None:
            raise ValueError("nothing was drawn yet")
        return seeds

    @cached_property
    def contents(self) -> Contents:
        """What the manifest names."""
        return read_contents(self.files, self.manifest)

    def program(self) -> Program:
        """The manifest's program."""
        return Program.decode(
            read_blob(self.files, self.manifest.program, MAX_PROGRAM_BYTES), where="program"
        )

    @cached_property
    def _data(self) -> SampleReader:
        return SampleReader(self.files, self.manifest.data, self.contents.schema)

    def _batch(self, order: Order, number: int) -> list[torch.Tensor]:
        return collate(self.contents.schema, self._data.samples(order.indices(number)), _CPU)

    def _in_force(self) -> bytes:
        drawn = self.slots[-1][1].index if self.slots else 0
        return next((p for slot, p in reversed(self.programs) if slot <= drawn), self.manifest.program)

    def _stepper(self, program: bytes) -> Stepper:
        if program not in self._steppers:
            own = read_contents(self.files, replace(self.manifest, program=program))
            graphs = {size: Interpreter(graph, [], _CPU, guarded=True) for size, graph in own.graphs.items()}
            self._steppers[program] = Stepper(program=own.program, interpreters=graphs, seeds=self.seeds())
        return self._steppers[program]
