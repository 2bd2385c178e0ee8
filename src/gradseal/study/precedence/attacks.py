"""What a thief who holds W_T tries, by a plan that may lack a part; and the owner, for comparison.

Each attack writes one bundle with whatever the plan still has, and says what is true of it: when the thief
knew its end, and from how many runs he chose. Whether it succeeded, `gradseal.verify` says. The same attacks
against real services, over HTTP, are in `attacks.precedence`; that a thief may try several runs is in
`attacks.selecting`, and how data lead to weights in `attacks.smuggled_data`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations_with_replacement

from gradseal.attacks.attack import line
from gradseal.attacks.dated import DAY_SECONDS, Services
from gradseal.attacks.scene import Clock
from gradseal.precede.slots import SlotPlan
from gradseal.program.memory import view_of
from gradseal.proof.bundle import open_bundle
from gradseal.proof.entries import Close, Initial, Segment, encode_losses, entry_from_bytes
from gradseal.proof.files import WEIGHTS, blob_path, opening_path, read_opening
from gradseal.proof.manifest import DeclaredSeed
from gradseal.record.presented import State, copy_of
from gradseal.study.precedence.claimed import given, idle, strong, weak
from gradseal.study.precedence.removals import Part
from gradseal.study.precedence.run import SEGMENTS, SETTING, PlannedRun
from gradseal.study.precedence.world import World

TRIED = 8
"""From how many runs is chosen, where there is a choice."""

_COPIED_SECONDS = 4.0
"""How long after the beginning of a slot the owner's seal is copied: two seconds after he publishes it."""

_MAX_BYTES = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What is true of a bundle, whatever a verdict says.

    Args:
        run: The run, as it was written.
        tried: From how many runs it was chosen.
        known: When its author could name its end; None if not before it was computed.
        named: The end that he named then.
    """

    run: PlannedRun
    tried: int = 1
    known: float | None = None
    named: State | None = None


Forge = Callable[[World, Part], Told]


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One row.

    Args:
        name: What is tried.
        said: How, in a sentence.
        forge: Writes the bundle.
        needs: Parts without which there is nothing to try.
        changed: Parts without which the bundle is another one, besides those of `IN_BUNDLES`.
    """

    name: str
    said: str
    forge: Forge
    needs: frozenset[Part] = frozenset()
    changed: frozenset[Part] = frozenset()


def owner(world: World, removed: Part) -> Told:
    """An honest run, closed before the theft."""
    run = world.run(removed, world.at(world.began), signer=world.owner_key)
    run.make()
    return Told(run=run)


def true_and_later(world: World, removed: Part) -> Told:
    """A true run from the theft on, whose data pull to W_T."""
    run = world.run(removed, world.at(world.theft), claims=weak)
    run.make()
    return Told(run=run)


def backdated(world: World, removed: Part) -> Told:
    """The same by slots of the day before, all at once after the theft."""
    services = world.at(world.theft)
    run = world.run(removed, services, plan=services.plan(ago_seconds=DAY_SECONDS), claims=weak)
    run.make()
    return Told(run=run)


def own_hosts(world: World, removed: Part) -> Told:
    """The same, with the thief's own witness and authority, whose clocks show the day before."""
    run = world.run(removed, world.own_hosts(world.theft - DAY_SECONDS), claims=weak)
    run.make()
    return Told(run=run)


def own_chain(world: World, removed: Part) -> Told:
    """Seeds of the thief's own chain, all known to him: the best of eight keys, computed before slot 0."""
    hand = world.hand("keys")
    known = world.theft
    offers = [world.own_chain(hand.random_bytes(), known) for _ in range(TRIED)]
    run = world.run(removed, offers[0])
    ends = [_foreseen(run, services) for services in offers]
    best = _nearest(world, ends)
    run.again(seed=offers[best].plan().to_seed())
    run.services = offers[best]
    run.make()
    return Told(run=run, tried=TRIED, known=known, named=ends[best])


def after_its_seed(world: World, removed: Part) -> Told:
    """Slot 0's seed in view, the best of eight manifests is taken, sealed then, and trained on cadence."""
    services = world.at(world.theft)
    run = world.run(removed, services)
    services.clock.until(_plan(run).begins(0))
    _take_best(world, run)
    run.make()
    return Told(run=run, tried=TRIED)


def parallel_manifests(world: World, removed: Part) -> Told:
    """Eight manifests are anchored before slot 0, and then the best is trained.

    Checkpoints are signed alike, so what anchored the one that is shown is what its own log has again; the
    others' anchors are nowhere.
    """
    services = world.at(world.theft)
    run = world.run(removed, services)
    begins = services.clock()
    services.clock.until(_plan(run).begins(0))
    _take_best(world, run)
    run.services = world.at(begins)
    run.make()
    return Told(run=run, tried=TRIED)


def slots_chosen_late(world: World, removed: Part) -> Told:
    """The manifest is sealed in time; then eight ways to draw from known seeds are tried, one is sealed."""
    services = world.at(world.theft)
    run = world.run(removed, services, more=frozenset({"during"}))
    run.commit()
    services.clock.until(_plan(run).begins(2 * SEGMENTS) + 1)
    ways = list(combinations_with_replacement(range(2 * SEGMENTS - 1), SEGMENTS))
    ways = [ways[i * (len(ways) - 1) // (TRIED - 1)] for i in range(TRIED)]
    ends = [run.peek(slots) for slots in ways]
    run.make(ways[_nearest(world, ends)])
    return Told(run=run, tried=TRIED)


def slots_passed_over(world: World, removed: Part) -> Told:
    """Slots stay empty, on cadence, until one is better for the first segment than the first three were."""
    services = world.at(world.theft)
    run = world.run(removed, services)
    run.commit()
    plan, seen = _plan(run), list[float]()
    for slot in range(1, TRIED + 1):
        services.clock.until(plan.begins(slot))
        seen.append(world.away(run.peek((slot,), 1)))
        if len(seen) > 3 and seen[-1] < min(seen[:-1]):
            break
    run.make(tuple(range(slot, slot + SEGMENTS)))
    return Told(run=run, tried=len(seen))


def declared_seeds(world: World, removed: Part) -> Told:
    """The best of eight declared seeds, whatever the plan has; each run is computed before it is begun."""
    services = world.at(world.theft)
    run = world.run(removed, services, declared=True)
    hand = world.hand("seeds")
    seeds = [hand.random_bytes() for _ in range(TRIED)]
    ends = []
    for seed in seeds:
        run.reseed(seed)
        ends.append(run.peek(()))
    best = _nearest(world, ends)
    run.again(seed=DeclaredSeed(value=seeds[best]))
    run.make()
    return Told(run=run, tried=TRIED, known=world.theft, named=ends[best])


def known_endpoint(world: World, removed: Part) -> Told:
    """Data that pull to W_T with every step, whatever the seed, from the theft on."""
    run = world.run(removed, world.at(world.theft), claims=strong)
    run.make()
    return Told(run=run, known=world.theft, named=world.owner.weights)


def head_start(world: World, removed: Part) -> Told:
    """W_T as given initialisation, and little training after it, from the theft on."""
    run = world.run(removed, world.at(world.theft), claims=given)
    run.make()
    return Told(run=run, known=world.theft, named=world.owner.weights)


def head_start_ruled(world: World, removed: Part) -> Told:
    """The same, but the usual rules are claimed."""
    run = world.run(removed, world.at(world.theft), claims=idle)
    run.make(start=copy_of(world.owner.weights))
    return Told(run=run, known=world.theft, named=world.owner.weights)


def mirrored(world: World, removed: Part) -> Told:
    """The owner's seals, each copied two seconds after it was published, and opened after the theft."""
    victim = world.owner.run.files
    raw = open_bundle(victim).all_entries()
    entries = [entry_from_bytes(data, where=f"entry {i}") for i, data in enumerate(raw) if i]
    states = [entry for entry in entries if isinstance(entry, Initial | Segment)]
    run = world.run(removed, world.at(world.began), after_seconds=_COPIED_SECONDS)
    run.commit()
    for state in states:
        if isinstance(state, Segment):
            run.enter(state.index)
            run.writer.put(victim.read(blob_path(state.losses), _MAX_BYTES))
            _put(run, state.seal, state.losses)
        else:
            run.enter(0)
            run.writer.append(Initial(seal=state.seal))
            run.publish()
    run.services.clock.until(world.theft)
    for state in states:
        digests = read_opening(victim, state.seal, len(run.state_zero()))
        for digest in set(digests):
            run.writer.put(victim.read(blob_path(digest), _MAX_BYTES))
        run.files.write(opening_path(state.seal), b"".join(digests))
    run.ending()
    run.writer.append(Close(segments=SEGMENTS, weights=run.writer.release(victim.read(WEIGHTS, _MAX_BYTES))))
    run.publish()
    run.state = copy_of(world.owner.run.state)
    return Told(run=run, known=world.theft, named=world.owner.weights)


def seals_of_nothing(world: World, removed: Part) -> Told:
    """Random seals are anchored before the theft, and opened after it as states on the way to W_T."""
    run = world.run(removed, world.at(world.began))
    hand = world.hand("seals")
    run.commit()
    run.enter(0)
    run.begin()
    seals = [hand.random_bytes() for _ in range(SEGMENTS)]
    losses = run.writer.put(encode_losses([1.0] * SETTING.every))
    for number, seal in enumerate(seals):
        run.enter(number)
        _put(run, seal, losses)
    run.services.clock.until(world.theft)
    start, target = run.state, world.owner.weights
    for number, seal in enumerate(seals, start=1):
        run.state = start | line({n: start[n] for n in target}, target, number / SEGMENTS)
        digests = [run.writer.put(view_of(tensor)) for tensor in run.state.values()]
        run.files.write(opening_path(seal), b"".join(digests))
    run.ending()
    run.finish()
    return Told(run=run, known=world.theft, named=world.owner.weights)


def _put(run: PlannedRun, seal: bytes, losses: bytes) -> None:
    """The next segment with a seal of any origin."""
    steps = run.steps_of(run.segments)
    run.writer.append(
        Segment(index=run.segments, first_step=steps.start, steps=len(steps), seal=seal, losses=losses)
    )
    run.segments += 1
    run.publish()


def _plan(run: PlannedRun) -> SlotPlan:
    if run.plan is None:
        raise ValueError("the seed is declared")
    return run.plan


def _foreseen(run: PlannedRun, services: Services) -> State:
    """The end under the seeds of a chain whose rounds its owner need not wait for."""
    run.again(seed=services.plan().to_seed())
    run.services = replace(services, clock=Clock(services.clock() + DAY_SECONDS))
    return run.peek(range(SEGMENTS))


def _take_best(world: World, run: PlannedRun) -> None:
    """Takes the one of eight names of a key whose first segment, of slot 0, ends nearest to W_T.

    A name is in the manifest, and means nothing else.
    """
    keys = [world.key(f"thief-{i}.example", 1) for i in range(TRIED)]
    ends = []
    for key in keys:
        run.again(signer=key)
        ends.append(run.peek((0,), 1))
    run.again(signer=keys[_nearest(world, ends)])


def _nearest(world: World, ends: Sequence[State]) -> int:
    return min(range(len(ends)), key=lambda i: world.away(ends[i]))


_NONE = frozenset[Part]()
_SLOTS, _HOSTS = frozenset({Part.BEACON}), frozenset({Part.ANCHORS})

TRIES: tuple[Try, ...] = tuple(
    Try(name=name, said=" ".join((forge.__doc__ or "").split()), forge=forge, needs=needs, changed=changed)
    for name, forge, needs, changed in (
        ("no attack: the owner", owner, _NONE, _NONE),
        ("a true run, later", true_and_later, _NONE, _NONE),
        ("backdating", backdated, _SLOTS, _NONE),
        ("own witness and authority", own_hosts, _HOSTS, _NONE),
        ("own chain", own_chain, _SLOTS, _NONE),
        ("manifest after its seed", after_its_seed, _SLOTS, _NONE),
        ("slots chosen late", slots_chosen_late, _SLOTS, _NONE),
        ("declared seeds", declared_seeds, _NONE, _NONE),
        ("known endpoint", known_endpoint, _NONE, _NONE),
        ("head start", head_start, _NONE, _NONE),
        ("head start, ruled", head_start_ruled, _NONE, _NONE),
        ("live log mirrored", mirrored, _NONE, frozenset({Part.SEAL_KEY})),
        ("seals of nothing", seals_of_nothing, _NONE, _NONE),
        ("slots passed over", slots_passed_over, _SLOTS, _NONE),
        ("parallel manifests", parallel_manifests, _SLOTS, _NONE),
    )
)
"""The rows, in order."""

OWNER = TRIES[0].name
