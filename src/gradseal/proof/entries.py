"""The entries of a run's log after the manifest: slots, states, gaps, amendments, the close.

An entry is small; what it names by digest is a blob. A kind that this version does not know is an
`UnknownKind`, so that a later one may add some. Format: docs/spec/bundle.md, section 4.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gradseal.errors import MalformedBundle
from gradseal.proof.canonical import decode, encode, float_from_bits, float_to_bits
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import KIND as MANIFEST
from gradseal.proof.manifest import MAX_CHAINS, MAX_SEGMENT_STEPS, MAX_SEGMENTS, MAX_SLOTS, MAX_STEPS
from gradseal.proof.merkle import leaf_hash, root_of
from gradseal.proof.note import VerificationKey
from gradseal.proof.tiles import MAX_ENTRY_BYTES

# Brackets, and for each loss 16 digits in quotes and a comma.
MAX_LOSSES_BYTES = 19 * MAX_SEGMENT_STEPS + 1
GAP_CAUSES = ("anchor", "beacon")
SIGNATURE_BYTES = 48

_SIGNATURE = re.compile(f"[0-9a-f]{{{2 * SIGNATURE_BYTES}}}")
_SEAL_DOMAIN = b"gradseal/seal-v1\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Initial:
    """State zero, sealed."""

    seal: bytes

    def encode(self) -> bytes:
        """Its bytes as a leaf."""
        return encode({"kind": "initial", "seal": self.seal.hex()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment, sealed at its end.

    Args:
        index: Its number, from 0.
        first_step: The number of its first step.
        steps: How many steps it has.
        seal: The seal of the state at its end.
        losses: Digest of the blob of its steps' losses.
    """

    index: int
    first_step: int
    steps: int
    seal: bytes
    losses: bytes

    def encode(self) -> bytes:
        """Its bytes as a leaf."""
        return encode(
            {
                "kind": "segment",
                "index": self.index,
                "first_step": self.first_step,
                "steps": self.steps,
                "seal": self.seal.hex(),
                "losses": self.losses.hex(),
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The slot whose seed is drawn from, from here on.

    Args:
        index: Its number, which says which rounds are meant.
        signatures: The chains' signatures of these rounds, 48 bytes each, in the manifest's order.
    """

    index: int
    signatures: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Its bytes as a leaf."""
        return encode({"kind": "slot", "index": self.index, "signatures": [s.hex() for s in self.signatures]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Slots of which the owner says that something was missed.

    Args:
        cause: `beacon`: no relay gave their rounds, and the seed before went on; `anchor`: what was made in
            them was not anchored in time.
        first_slot: The first of them.
        last_slot: The last.
    """

    cause: str
    first_slot: int
    last_slot: int

    def encode(self) -> bytes:
        """Its bytes as a leaf."""
        return encode(
            {
                "kind": "gap",
                "cause": self.cause,
                "first_slot": self.first_slot,
                "last_slot": self.last_slot,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """Another program, from a later slot on.

    Args:
        slot: In force from the first segment that draws from this slot or a later one.
        program: Digest of the program blob.
    """

    slot: int
    program: bytes

    def encode(self) -> bytes:
        """Its bytes as a leaf."""
        return encode({"kind": "amendment", "slot": self.slot, "program": self.program.hex()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """The end of the run: how many segments it had, and the SHA-256 of the released safetensors file."""

    segments: int
    weights: bytes

    def encode(self) -> bytes:
        """Its bytes as a leaf."""
        return encode({"kind": "close", "segments": self.segments, "weights": self.weights.hex()})


Entry = Initial | Slot | Segment | Gap | Amendment | Close


def entry_from_bytes(data: bytes, *, where: str) -> Entry:
    """Reads an untrusted entry, any but the manifest.

    Raises:
        MalformedBundle: Not an entry, or a second manifest.
        UnknownKind: Of a kind that this version does not know.
    """
    fields = Fields(decode(data, where=where, max_bytes=MAX_ENTRY_BYTES), where)
    if fields.has("kind") and fields.raw("kind") == MANIFEST:
        raise MalformedBundle("a manifest, which only entry 0 can be", where=fields.where("kind"))
    entry = _READERS[fields.kind("kind", _READERS)](fields)
    fields.end()
    return entry


def _initial(fields: Fields) -> Entry:
    return Initial(seal=fields.digest("seal"))


def _segment(fields: Fields) -> Entry:
    return Segment(
        index=fields.integer("index", 0, MAX_SEGMENTS - 1),
        first_step=fields.integer("first_step", 0, MAX_STEPS),
        steps=fields.integer("steps", 1, MAX_SEGMENT_STEPS),
        seal=fields.digest("seal"),
        losses=fields.digest("losses"),
    )


def _close(fields: Fields) -> Entry:
    return Close(segments=fields.integer("segments", 0, MAX_SEGMENTS), weights=fields.digest("weights"))


def _slot(fields: Fields) -> Entry:
    signatures = []
    for number, item in enumerate(fields.array("signatures", MAX_CHAINS)):
        if not isinstance(item, str) or not _SIGNATURE.fullmatch(item):
            raise MalformedBundle(
                f"not {2 * SIGNATURE_BYTES} lower-case hexadecimal digits",
                where=fields.where("signatures", number),
            )
        signatures.append(bytes.fromhex(item))
    if not signatures:
        raise MalformedBundle("no signature at all", where=fields.where("signatures"))
    return Slot(index=fields.integer("index", 0, MAX_SLOTS - 1), signatures=tuple(signatures))


def _gap(fields: Fields) -> Entry:
    first = fields.integer("first_slot", 0, MAX_SLOTS - 1)
    return Gap(
        cause=fields.kind("cause", GAP_CAUSES),
        first_slot=first,
        last_slot=fields.integer("last_slot", first, MAX_SLOTS - 1),
    )


def _amendment(fields: Fields) -> Entry:
    return Amendment(slot=fields.integer("slot", 1, MAX_SLOTS - 1), program=fields.digest("program"))


_READERS: dict[str, Callable[[Fields], Entry]] = {
    "initial": _initial,
    "slot": _slot,
    "segment": _segment,
    "gap": _gap,
    "amendment": _amendment,
    "close": _close,
}


def state_root(digests: Sequence[bytes]) -> bytes:
    """The root of a state: RFC 6962 over its tensors' digests, in the layout's order."""
    return root_of(leaf_hash(d) for d in digests)


def seal_of(key: VerificationKey, root: bytes) -> bytes:
    """What a log says of a state until it is opened: bound to the log's key, so that no rival can copy it."""
    return hashlib.sha256(_SEAL_DOMAIN + key.public + root).digest()


def encode_losses(losses: Sequence[float]) -> bytes:
    """The blob of a segment's losses, each as the bits of a float64."""
    return encode([float_to_bits(loss) for loss in losses])


def decode_losses(data: bytes, steps: int, *, where: str) -> tuple[float, ...]:
    """Reads the losses of a segment of `steps` steps from an untrusted blob.

    Raises:
        MalformedBundle: Not so many losses.
    """
    values = decode(data, where=where, max_bytes=MAX_LOSSES_BYTES)
    if not isinstance(values, list) or len(values) != steps:
        raise MalformedBundle(f"not the losses of {steps} steps", where=where)
    return tuple(float_from_bits(v, where=f"{where}: [{i}]") for i, v in enumerate(values))
