"""A beacon of one node, for places without network: a key that signs the rounds of its own chain.

The same scheme as drand's, so that recorder and verifier run the same code for both. No round is signed
before it is due by the clock that the caller gives. Whoever holds the key could know all rounds beforehand,
though: the chain shows a time only to those who trust its holder.

Serves nothing; see `serving`. Format: docs/spec/beacon.md, section 5.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from gradseal.errors import AnchorError, KeyFileError, MalformedBundle
from gradseal.precede import bls
from gradseal.precede.chain import Chain, round_message
from gradseal.precede.rounds import BeaconRound
from gradseal.proof.manifest import MAX_ROUND
from gradseal.proof.note import decode_base64, encode_base64

MAX_KEY_FILE_BYTES = 4096

_GROUP = b"gradseal/v1/one-node-group"
_PREFIX = "PRIVATE+BEACON+"
_SHOWN_HASH_BYTES = 4
_KEY = re.compile(r"([^+]+)\+(0|[1-9][0-9]{0,12})\+(0|[1-9][0-9]{0,12})\+([0-9a-f]{8})\+([A-Za-z0-9+/]+=*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalChain:
    """A chain and the key that signs its rounds.

    Args:
        secret: 32 bytes, big-endian, from 1 to the group's order less one.
        beacon_id: The chain's name.
        period_seconds: From one round to the next.
        genesis_unix_seconds: When round 1 is due.

    Raises:
        KeyFileError: A value that no chain can have.
    """

    secret: bytes = field(repr=False)
    beacon_id: str
    period_seconds: int
    genesis_unix_seconds: int

    def __post_init__(self) -> None:
        if not bls.is_secret(self.secret):
            raise KeyFileError(
                "a secret that is not 32 bytes from 1 to the group's order", where="beacon key"
            )
        try:
            _ = self.chain
        except MalformedBundle as e:
            raise KeyFileError(e.message, where="beacon key") from e

    @classmethod
    def generate(cls, *, beacon_id: str, period_seconds: int, genesis_unix_seconds: int) -> LocalChain:
        """A chain of a new key from the system's randomness."""
        return cls(
            secret=bls.new_secret(),
            beacon_id=beacon_id,
            period_seconds=period_seconds,
            genesis_unix_seconds=genesis_unix_seconds,
        )

    @property
    def chain(self) -> Chain:
        """What recorders and verifiers pin."""
        public = bls.public_key(self.secret)
        return Chain(
            public_key=public,
            period_seconds=self.period_seconds,
            genesis_unix_seconds=self.genesis_unix_seconds,
            group_hash=sha256(_GROUP + public).digest(),
            beacon_id=self.beacon_id,
        )

    def sign(self, number: int, *, now_unix_seconds: float) -> BeaconRound:
        """A round, if it is due; always the same one.

        Args:
            number: The round.
            now_unix_seconds: The time, by the clock of whoever serves the chain.

        Raises:
            AnchorError: It is not due yet, or no chain has such a round.
        """
        chain = self.chain
        if not 1 <= number <= MAX_ROUND:
            raise AnchorError("no chain has such a round", where=f"round {number}")
        # By the time itself, not by `round_at`, so that nothing rests on how that rounds.
        if not chain.round_due(number) <= now_unix_seconds:
            raise AnchorError("the round is not due yet", where=f"round {number}")
        return BeaconRound(chain=chain, number=number, signature=bls.sign(self.secret, round_message(number)))

    def encode(self) -> str:
        """The key as text, without a newline. It holds the secret."""
        shown = self.chain.hash[:_SHOWN_HASH_BYTES].hex()
        return (
            f"{_PREFIX}{self.beacon_id}+{self.period_seconds}+{self.genesis_unix_seconds}"
            f"+{shown}+{encode_base64(self.secret)}"
        )

    @classmethod
    def parse(cls, text: str, *, where: str = "beacon key") -> LocalChain:
        """Read what `encode` writes.

        Raises:
            KeyFileError: Not of this form, or the hash is not the chain's. The error never repeats the text.
        """
        match = _KEY.fullmatch(text.removeprefix(_PREFIX))
        if not text.startswith(_PREFIX) or not match:
            raise KeyFileError(f"not a beacon's key; it would begin with {_PREFIX}", where=where)
        beacon_id, period, genesis, _, secret = match.groups()
        try:
            key = cls(
                secret=decode_base64(secret, where=where, kind=KeyFileError),
                beacon_id=beacon_id,
                period_seconds=int(period),
                genesis_unix_seconds=int(genesis),
            )
        except KeyFileError as e:
            raise KeyFileError(e.message, where=where) from e
        if key.encode() != text:
            raise KeyFileError("a key whose hash is not its chain's", where=where)
        return key


def load_local_chain(file: Path) -> LocalChain:
    """The chain whose key a file holds.

    Raises:
        KeyFileError: The file cannot be read or is not such a key.
    """
    try:
        with open(file, "rb") as opened:
            text = opened.read(MAX_KEY_FILE_BYTES).decode()
    except (OSError, ValueError) as e:
        raise KeyFileError(
            "no beacon's key can be read", where=str(file), advice="make one with `gradseal beacon new-key`"
        ) from e
    return LocalChain.parse(text.removesuffix("\n"), where=str(file))
