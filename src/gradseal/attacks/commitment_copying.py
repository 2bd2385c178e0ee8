"""Commitment copying: somebody else's seals in one's own log, anchored, and opened once he opens them.

Source: ours. A thief watches the victim's log grow, and mirrors each seal into a log of his own, under his
own manifest and key, in time by honest services. When the victim publishes what opens them, the thief copies
that, and the released weights. He computes nothing at all.
"""

from __future__ import annotations

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.dated import Services, present_dated
from gradseal.attacks.squatting import put
from gradseal.proof.bundle import open_bundle
from gradseal.proof.entries import Close, Initial, Segment, entry_from_bytes
from gradseal.proof.files import WEIGHTS, blob_path, opening_path, read_opening
from gradseal.store.files import FsspecFiles

_MAX_BLOB_BYTES = 1 << 32


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    victim = FsspecFiles(hand.victim)
    raw = open_bundle(victim).all_entries()
    entries = [entry_from_bytes(data, where=f"entry {i}") for i, data in enumerate(raw) if i]
    states = [entry for entry in entries if isinstance(entry, Initial | Segment)]
    services = Services.of(hand)
    run = present_dated(hand, services, services.plan())

    def take(digest: bytes) -> None:
        run.writer.put(victim.read(blob_path(digest), _MAX_BLOB_BYTES))

    run.begin_with(states[0].seal)
    for state in states:
        if isinstance(state, Segment):
            take(state.losses)
            put(run, state.seal, state.losses)
    for state in states:
        digests = read_opening(victim, state.seal, len(run.state_zero()))
        for digest in set(digests):
            take(digest)
        run.files.write(opening_path(state.seal), b"".join(digests))
    weights = run.writer.release(victim.read(WEIGHTS, _MAX_BLOB_BYTES))
    run.writer.append(Close(segments=run.segments, weights=weights))
    run.writer.publish()


ATTACK = Attack(
    name="commitment copying",
    source="ours",
    idea="A thief mirrors the victim's seals into an anchored log of his own, and copies later what opens "
    "them.",
    needs=frozenset({Need.BUNDLE, Need.DATA}),
    aims="precedence",
    forge=forge,
)
