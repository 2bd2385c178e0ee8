"""Runs with a beacon's seeds, made without waiting: a recorded run is trained anew from slots of the past.

Nothing in them is false but when they were made. State zero, orders and states follow from the slots' seeds,
and every checkpoint is cosigned and time-stamped as if each segment had been sealed two seconds into its
slot.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import torch

from gradseal.precede.answers import encode_query
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.slots import SlotPlan, seeds_of
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import Trust
from gradseal.program.batches import collate
from gradseal.program.fills import fill
from gradseal.program.interpret import Interpreter
from gradseal.program.memory import from_bytes, view_of, weights_file
from gradseal.program.program import Program
from gradseal.program.seeds import Seeds
from gradseal.program.sources import Given
from gradseal.program.step import Stepper
from gradseal.program.tensors import TensorSpec
from gradseal.proof.anchors import AnchorStore, receipt_of
from gradseal.proof.bundle import open_bundle
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.entries import Amendment, Close, Gap, Initial, Segment, Slot, encode_losses
from gradseal.proof.files import read_blob
from gradseal.proof.manifest import Manifest
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Note, SigningKey
from gradseal.proof.quorum import QuorumPolicy, Witness
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.store.files import FsspecFiles
from gradseal.verify.contents import Contents, order_of, read_contents
from gradseal.verify.samples import SampleReader

CADENCE_SECONDS = 30
AGO_SECONDS = 20 * 3600
"""How long ago slot 0 began."""
_SEALED_AFTER_SECONDS = 2
_CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class Amended:
    """A program that comes into force with a slot.

    Args:
        slot: The slot.
        change: Makes it of the one before.
    """

    slot: int
    change: Callable[[Program], Program]


Between = int | Gap | Amended
"""What stands between segments; a slot by its number."""


def forge_slots(
    source: Path,
    target: Path,
    owner: SigningKey,
    between: Mapping[int, Sequence[Between]],
    *,
    segments: int | None = None,
    chains: int = 1,
) -> Trust:
    """Trains a closed, recorded run anew with a beacon's seeds, and writes its bundle at `target`.

    Args:
        source: The recorded bundle.
        target: Where the new one goes.
        owner: The key that signs it.
        between: What stands before each segment, by its number, and before the close, but for slot 0.
        segments: After how many segments the run stops, without a close; None for all of them, and a close.
        chains: How many beacon chains the slots draw from.

    Returns:
        What a verifier pins who believes the beacon, the witness and the authority.
    """
    forged = _Forged.begin(source, target, owner, chains)
    plan = forged.manifest.plan
    for segment in range(plan.segments if segments is None else segments):
        forged.put(between.get(segment, ()), segment)
        forged.train(segment)
    if segments is None:
        forged.put(between.get(plan.segments, ()), plan.segments)
        forged.close(plan.segments)
    return forged.services.trust(owner)


@dataclass(slots=True, kw_only=True)
class _Services:
    """A beacon, a witness and an authority, by a clock that is moved on.

    Args:
        beacons: The chains that the slots draw from.
        clock: The time now.
    """

    beacons: tuple[LocalChain, ...]
    clock: float
    authority: LocalAuthority
    witness: CosigningKey = field(default_factory=lambda: CosigningKey.generate("witness.example"))

    def slot(self, plan: SlotPlan, index: int) -> Slot:
        keys = {beacon.chain.hash: beacon for beacon in self.beacons}
        rounds = [
            keys[chain.hash].sign(number, now_unix_seconds=self.clock) for chain, number in plan.rounds(index)
        ]
        return Slot(index=index, signatures=tuple(one.signature for one in rounds))

    def anchor(self, store: AnchorStore, note: Note, tree: Tree) -> None:
        """Has a checkpoint cosigned and time-stamped now."""
        cosigned = replace(
            note, signatures=(*note.signatures, self.witness.cosign(note.text, int(self.clock)))
        )
        query = encode_query(sha256(note.text.encode()).digest(), nonce=1)
        token = self.authority.answer(query, datetime.fromtimestamp(self.clock, UTC))
        store.add(receipt_of(cosigned, tree), [token])

    def trust(self, owner: SigningKey) -> Trust:
        witness = Witness(name="witness", key=self.witness.verification_key, url="")
        return Trust(
            keys=(owner.verification_key,),
            policy=QuorumPolicy(logs=(), witnesses=(witness,), groups=(), quorum=witness.name),
            authorities=(PinnedAuthority(name="authority", roots=(self.authority.root,)),),
            chains=tuple(beacon.chain for beacon in self.beacons),
            skew_seconds=0.5,
            combine="all",
        )


@dataclass(slots=True, kw_only=True)
class _Forged:
    """The run so far."""

    services: _Services
    plan: SlotPlan
    manifest: Manifest
    contents: Contents
    data: SampleReader
    writer: BundleWriter
    seeds: Seeds
    program: Program
    state: dict[str, torch.Tensor]
    slots: list[tuple[int, Slot]]
    waiting: list[tuple[int, Program]] = field(default_factory=list)

    @classmethod
    def begin(cls, source: Path, target: Path, owner: SigningKey, chains: int) -> _Forged:
        """Seals the manifest before slot 0, and state zero in it."""
        shutil.copytree(source / "blobs", target / "blobs")
        files = FsspecFiles(str(target))
        recorded = Manifest.decode(open_bundle(FsspecFiles(str(source))).all_entries()[0])
        contents = read_contents(files, recorded)
        services, plan = _services(chains)
        manifest = replace(
            recorded, owner=owner.verification_key, plan=replace(recorded.plan, seed=plan.to_seed())
        )
        writer = BundleWriter(BlobWriter(files), owner, manifest)
        store, tree = AnchorStore(files), Tree()

        def published(note: Note, leaves: Sequence[bytes]) -> None:
            tree.extend(leaves)
            services.anchor(store, note, tree)

        writer.tell(published)
        writer.publish()
        services.clock = plan.begins(0) + _SEALED_AFTER_SECONDS
        slots = [(0, services.slot(plan, 0))]
        seeds = seeds_of(manifest, slots)
        if seeds is None:
            raise AssertionError("slot 0 gives no seed")
        forged = cls(
            services=services,
            plan=plan,
            manifest=manifest,
            contents=contents,
            data=SampleReader(files, manifest.data, contents.schema),
            writer=writer,
            seeds=seeds,
            program=contents.program,
            state={},
            slots=slots,
        )
        writer.append(slots[0][1])
        forged.state = forged.state_zero()
        writer.append(Initial(seal=forged.seal()))
        writer.publish()
        return forged

    def state_zero(self) -> dict[str, torch.Tensor]:
        state = {}
        for spec, source in zip(
            self.contents.program.layout, self.contents.initialisation.state, strict=True
        ):
            if isinstance(source, Given):
                data = read_blob(self.writer.files, source.digest, spec.size_bytes)
            else:
                data = fill(
                    source, seed=self.seeds.initial, name=spec.name, shape=spec.shape, dtype=spec.dtype
                )
            state[spec.name] = _tensor(data, spec)
        return state

    def put(self, between: Sequence[Between], segment: int) -> None:
        """Appends what stands before a segment."""
        for one in between:
            if isinstance(one, Gap):
                self.writer.append(one)
            elif isinstance(one, Amended):
                amended = one.change(self.program)
                self.writer.append(Amendment(slot=one.slot, program=self.writer.put(amended.encode())))
                self.waiting.append((one.slot, amended))
            else:
                self.begin_slot(one, segment)

    def begin_slot(self, index: int, segment: int) -> None:
        self.services.clock = self.plan.begins(index) + _SEALED_AFTER_SECONDS
        self.slots.append((segment, self.services.slot(self.plan, index)))
        self.writer.append(self.slots[-1][1])
        seeds = seeds_of(self.manifest, self.slots)
        if seeds is not None:
            self.seeds = seeds
        begun = [program for slot, program in self.waiting if slot <= index]
        self.waiting = [(slot, program) for slot, program in self.waiting if slot > index]
        self.program = begun[-1] if begun else self.program

    def train(self, segment: int) -> None:
        """Trains, seals and anchors a segment."""
        plan = self.manifest.plan
        stepper = Stepper(
            program=self.program,
            interpreters={
                size: Interpreter(graph, (), _CPU, guarded=True)
                for size, graph in self.contents.graphs.items()
            },
            seeds=self.seeds,
        )
        order = order_of(self.manifest, self.seeds)
        losses = []
        for step in plan.steps_of(segment):
            batches = [
                collate(self.contents.schema, self.data.samples(order.indices(number)), _CPU)
                for number in plan.batches_of(step)
            ]
            losses.append(float(stepper.take(self.state, batches, step=step)))
        steps = plan.steps_of(segment)
        self.writer.append(
            Segment(
                index=segment,
                first_step=steps.start,
                steps=len(steps),
                seal=self.seal(),
                losses=self.writer.put(encode_losses(losses)),
            )
        )
        self.writer.publish()

    def close(self, segments: int) -> None:
        released = {name: self.state[behind] for name, behind in self.contents.release.tensors.items()}
        self.writer.append(Close(segments=segments, weights=self.writer.release(weights_file(released))))
        self.writer.publish()

    def seal(self) -> bytes:
        return self.writer.seal([self.writer.put(view_of(tensor)) for tensor in self.state.values()])


def _services(chains: int) -> tuple[_Services, SlotPlan]:
    now = int(datetime.now(UTC).timestamp()) - AGO_SECONDS
    beacons = tuple(
        LocalChain.generate(
            beacon_id=f"forged-{number}",
            period_seconds=CADENCE_SECONDS // (number + 1),
            genesis_unix_seconds=now - 3600,
        )
        for number in range(chains)
    )
    plan = SlotPlan.beginning_after([beacon.chain for beacon in beacons], CADENCE_SECONDS, now)
    began = datetime.fromtimestamp(now - 3600, UTC)
    authority = LocalAuthority.generate(name="authority.example", now=began)
    return _Services(beacons=beacons, clock=plan.begins(0) - 2 * CADENCE_SECONDS, authority=authority), plan


def _tensor(data: bytes, spec: TensorSpec) -> torch.Tensor:
    return from_bytes(data, spec.dtype, spec.shape, _CPU, where=spec.name).clone()
