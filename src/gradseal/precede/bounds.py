"""What one anchored checkpoint shows: by when it existed, according to those whom the verifier pins.

Guarantees that only pinned witnesses and authorities count, each once, and that fewer than the quorum, or
than the authorities needed, cannot make the bound too early. Whatever does not count is told with its reason,
and nothing that a note or a token holds is an error. Who signed the checkpoint is not looked at here, nor
whether it is the bundle's. Format: docs/spec/witness.md, section 4; docs/spec/timestamps.md, section 6.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256

from gradseal.errors import AnchorError
from gradseal.precede.signer import load
from gradseal.precede.timestamps import PinnedAuthority, Stamped, agreed_bound
from gradseal.precede.trust import Trust
from gradseal.proof.anchors import MAX_TOKENS
from gradseal.proof.note import Note, NoteSignature
from gradseal.proof.quorum import QuorumPolicy, signs_for

WITNESS_SECONDS = 1.0
"""What a witness cuts off its time, which is in whole seconds."""

NO_PATH = "leads to no pinned root"
"""What `signer` says of a token of an authority that is not pinned; a test compares."""

_SHOWN = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """By when a checkpoint existed.

    Args:
        not_after: Seconds of Unix time, with all that clocks may be off; None if nothing shows one.
        by: On whose word that rests, by the verifier's names for them. Whoever says only a later time is not
            among them.
        faults: Why each of the others does not count, in words.
    """

    not_after: float | None = None
    by: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()


def digest_of(note: Note) -> bytes:
    """What time-stamps of a checkpoint are over: SHA-256 of its text, without the signatures."""
    return sha256(note.text.encode()).digest()


def bound_of(note: Note, tokens: Sequence[bytes], trust: Trust, *, now: datetime | None) -> Bound:
    """By when a checkpoint existed.

    Args:
        note: The checkpoint, with whatever cosignatures it has.
        tokens: Time-stamps that are said to be of it, at most 16; later ones are not looked at.
        trust: The verifier's pins.
        now: The verifier's clock, with a time zone; None if it has none that it trusts. Times that are ahead
            of it by more than the skew do not count.
    """
    sides = []
    if trust.policy is not None:
        sides.append(_witnessed(note, trust.policy, trust, now))
    if trust.authorities:
        sides.append(_stamped(note, tokens, trust, now))
    faults = tuple(fault for side in sides for fault in side.faults)
    reached = sorted((side for side in sides if side.not_after is not None), key=_not_after)
    if not reached or (trust.combine == "all" and len(reached) < len(sides)):
        return Bound(faults=faults)
    if trust.combine == "any":
        return Bound(not_after=reached[0].not_after, by=reached[0].by, faults=faults)
    by = tuple(name for side in sides for name in side.by)
    return Bound(not_after=reached[-1].not_after, by=by, faults=faults)


def _not_after(side: Bound) -> float:
    return side.not_after or 0.0


def _witnessed(note: Note, policy: QuorumPolicy, trust: Trust, now: datetime | None) -> Bound:
    """What the quorum's cosignatures show."""
    latest = None if now is None else now.timestamp() + trust.skew_seconds
    times, faults = _cosigned(note, policy, latest)
    reached = policy.not_after(times)
    if reached is None:
        return Bound(faults=(*faults, f"the quorum {policy.quorum} of the witnesses is not reached"))
    # Those who had cosigned by then are a quorum by themselves.
    members = _members(policy)
    by = tuple(name for name, time in times.items() if name in members and time <= reached)
    return Bound(not_after=reached + WITNESS_SECONDS + trust.skew_seconds, by=by, faults=faults)


def _cosigned(
    note: Note, policy: QuorumPolicy, latest: float | None
) -> tuple[dict[str, int], tuple[str, ...]]:
    """When each pinned witness cosigned, by name, as far as it counts, and why others do not."""
    times, faults = policy.times(note), []
    for witness in policy.witnesses:
        time = times.get(witness.name)
        claims = any(
            (line.name, line.key_id) == (witness.key.name, witness.key.id) for line in note.signatures
        )
        if time is not None and latest is not None and time > latest:
            faults.append(
                f"witness {witness.name}: its cosignature states a time in the future, {_shown_time(time)}"
            )
            del times[witness.name]
        elif time is None and claims:
            faults.append(f"witness {witness.name}: its cosignature does not verify under the pinned key")
    return times, (*faults, *_strangers(note, policy))


def _strangers(note: Note, policy: QuorumPolicy) -> list[str]:
    """Lines that are neither a pinned witness's nor, by their name, the log's own."""
    origin, _, _ = note.text.partition("\n")
    pinned = {(witness.key.name, witness.key.id) for witness in policy.witnesses}
    return [
        f"cosignature of {_shown(line)}: no witness of this key is pinned"
        for line in note.signatures
        if (line.name, line.key_id) not in pinned and not signs_for(line.name, origin)
    ]


def _members(policy: QuorumPolicy) -> set[str]:
    """The names that the quorum is made of, witnesses and groups."""
    found = {policy.quorum}
    # A group names only what stands before it, so from the last one on each is reached before its members.
    for group in reversed(policy.groups):
        if group.name in found:
            found.update(group.members)
    return found


def _stamped(note: Note, tokens: Sequence[bytes], trust: Trust, now: datetime | None) -> Bound:
    """What the time-stamps show."""
    digest = digest_of(note)
    stamps: dict[str, list[Stamped]] = {}
    faults = []
    for number, token in enumerate(tokens[:MAX_TOKENS]):
        try:
            pinned, stamp = _verified(token, digest, trust, now)
        except AnchorError as e:
            faults.append(f"time-stamp {number}: {e}")
        else:
            stamps.setdefault(pinned.name, []).append(stamp)
    if len(tokens) > MAX_TOKENS:
        faults.append(f"{len(tokens)} time-stamps, of which only {MAX_TOKENS} are looked at")
    reached = agreed_bound(stamps, trust.timestamps_needed)
    if reached is None:
        needed = f"of {trust.timestamps_needed} time-stamp authorities that must agree, {len(stamps)} count"
        return Bound(faults=(*faults, needed))
    by = _stampers(stamps, trust.authorities, reached)
    return Bound(not_after=reached.timestamp() + trust.skew_seconds, by=by, faults=tuple(faults))


def _stampers(
    stamps: Mapping[str, Sequence[Stamped]], authorities: Sequence[PinnedAuthority], reached: datetime
) -> tuple[str, ...]:
    bounds = {name: min(stamp.upper_bound for stamp in given) for name, given in stamps.items()}
    return tuple(a.name for a in authorities if a.name in bounds and bounds[a.name] <= reached)


def _verified(
    token: bytes, digest: bytes, trust: Trust, now: datetime | None
) -> tuple[PinnedAuthority, Stamped]:
    """Whose time-stamp it is, and what it says.

    Raises:
        AnchorError: It counts for none of the pinned authorities.
    """
    # A root's name in the token proves nothing, but says whom to try first, and whose fault to tell.
    likely = {a.name for a in trust.authorities if any(name in token for name in _root_names(a.roots))}
    faults: dict[str, AnchorError] = {}
    for pinned in sorted(trust.authorities, key=lambda a: a.name not in likely):
        try:
            return pinned, pinned.verify(token, digest=digest, now=now, skew_seconds=trust.skew_seconds)
        except AnchorError as e:
            faults[pinned.name] = e
    raise _telling(faults, likely)


def _telling(faults: Mapping[str, AnchorError], likely: Collection[str]) -> AnchorError:
    """Of the faults that authorities find in one token, the one that says most."""
    for name, fault in faults.items():
        if name in likely and NO_PATH not in fault.message:
            return fault
    for fault in faults.values():
        if NO_PATH in fault.message:
            return AnchorError(f"of no pinned authority: {fault.message}")
    return next(iter(faults.values()))


@lru_cache(maxsize=256)
def _root_names(roots: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The subject of each root, DER."""
    return tuple(load(root, "root").subject.public_bytes() for root in roots)


def _shown(line: NoteSignature) -> str:
    """A stranger's name for a person's terminal."""
    return ascii(line.name[:_SHOWN])[1:-1]


def _shown_time(time: int) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).isoformat()
    except (OverflowError, ValueError, OSError):
        return f"{time} s"
