"""Rounds of beacon chains as data, and the one value that a slot makes of them.

Only a `Chain`, whose signatures are unique, has rounds. A cosignature or a time-stamp token is never
randomness: of those one can collect many, and choose. Nothing is verified but by `BeaconRound.verify`, and by
`Chain.wrong_rounds` for many at once. Format: docs/spec/beacon.md, sections 2 and 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from gradseal.errors import MalformedBundle
from gradseal.precede import bls
from gradseal.precede.chain import Chain, hex_field
from gradseal.proof.canonical import Json
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import MAX_CHAINS, MAX_ROUND

_COMBINATION = b"gradseal/v1/beacons"


@dataclass(frozen=True, slots=True, kw_only=True)
class BeaconRound:
    """A round of a chain and the signature that it is said to have.

    Args:
        chain: Whose round it is.
        number: The round's number, from 1.
        signature: 48 bytes.
    """

    chain: Chain
    number: int
    signature: bytes

    def verify(self) -> bool:
        """Whether the chain signed the round."""
        return self.chain.verify(self.number, self.signature)

    @property
    def randomness(self) -> bytes:
        """The round's 32 random bytes; verifies nothing."""
        return self.chain.randomness(self.signature)

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, which names the chain by its hash."""
        return {"chain": self.chain.hash.hex(), "round": self.number, "signature": self.signature.hex()}

    @classmethod
    def from_fields(cls, fields: Fields, chains: Mapping[bytes, Chain]) -> BeaconRound:
        """Reads the JSON form strictly. Verifies no signature.

        Args:
            fields: The object.
            chains: The chains that may be meant, by their hash.

        Raises:
            MalformedBundle: Not a round, or of a chain that is not among them.
        """
        named = fields.digest("chain")
        if named not in chains:
            raise MalformedBundle("a chain that is not among those named before", where=fields.where("chain"))
        read = cls(
            chain=chains[named],
            number=fields.integer("round", 1, MAX_ROUND),
            signature=hex_field(fields, "signature", bls.SIGNATURE_BYTES),
        )
        fields.end()
        return read


def combine(rounds: Sequence[BeaconRound]) -> bytes:
    """The beacon value of a slot: 32 bytes out of one round of each of its chains. Verifies nothing.

    Nobody can choose it: each chain's value is the only one there can be. That needs the chains, their order
    and their rounds to have been fixed before, and it stays unknown until the last of them is signed.

    Raises:
        MalformedBundle: No round, more than eight, or two of one chain.
    """
    hashes = [one.chain.hash for one in rounds]
    if not 1 <= len(rounds) <= MAX_CHAINS:
        raise MalformedBundle(f"{len(rounds)} chains for one slot, not 1 to {MAX_CHAINS}", where="slot")
    if len(set(hashes)) < len(hashes):
        raise MalformedBundle("two rounds of one chain for one slot", where="slot")
    parts = [
        chain + one.number.to_bytes(8, "big") + one.randomness
        for chain, one in zip(hashes, rounds, strict=True)
    ]
    return sha256(_COMBINATION + b"".join(parts)).digest()
