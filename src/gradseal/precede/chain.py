"""Beacon chains: random values that nobody without the chain's key knew before a stated time.

A chain signs the number of each round, one round a period, and the signature is the only one there can be
(`bls`): nobody can choose its value, and whoever pinned the chain can check it without network. drand's
quicknet and a chain of one node (`local_chain`) are the same type and run the same code.

A chain whose parameters do not hash to its claimed hash is malformed. A signature that does not verify is
`False`. Fetches nothing; see `relays`. Format: docs/spec/beacon.md, sections 1 and 2.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import NoReturn

from gradseal.errors import MalformedBundle
from gradseal.precede import bls
from gradseal.proof.canonical import Json
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import MAX_ROUND

SCHEME = "bls-unchained-g1-rfc9380"
MAX_PERIOD_SECONDS = 86_400
MAX_GENESIS_UNIX_SECONDS = 1 << 40
MAX_ANSWER_BYTES = 4096
"""The longest answer of a relay that is read."""

_GROUP_HASH_BYTES = 32
_BEACON_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_INTEGER_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What a verifier pins of a beacon.

    Args:
        public_key: A point of G2, 96 bytes.
        period_seconds: From one round to the next.
        genesis_unix_seconds: When round 1 is due.
        group_hash: 32 bytes that stand for the chain's first group of nodes.
        beacon_id: The chain's name among those of its group.
        scheme: How rounds are signed.

    Raises:
        MalformedBundle: A value that no chain can have.
    """

    public_key: bytes
    period_seconds: int
    genesis_unix_seconds: int
    group_hash: bytes
    beacon_id: str
    scheme: str = SCHEME

    def __post_init__(self) -> None:
        if self.scheme != SCHEME:
            _refuse(f"a chain of another scheme than {SCHEME}")
        if not bls.is_public_key(self.public_key):
            _refuse("a public key that is not a point of G2, compressed and canonical")
        if not 1 <= self.period_seconds <= MAX_PERIOD_SECONDS:
            _refuse(f"a period of {self.period_seconds} seconds, not 1 to {MAX_PERIOD_SECONDS}")
        if not 0 <= self.genesis_unix_seconds <= MAX_GENESIS_UNIX_SECONDS:
            _refuse(f"a genesis at {self.genesis_unix_seconds}, not 0 to {MAX_GENESIS_UNIX_SECONDS}")
        if len(self.group_hash) != _GROUP_HASH_BYTES:
            _refuse(f"a group hash of {len(self.group_hash)} bytes, not {_GROUP_HASH_BYTES}")
        if not _BEACON_ID.fullmatch(self.beacon_id):
            _refuse("a beacon id that is not 1 to 64 letters, digits, dots, hyphens and underscores")

    @property
    def hash(self) -> bytes:
        """The 32 bytes that stand for the chain; drand's chain hash."""
        named = "" if self.beacon_id == "default" else self.beacon_id
        return sha256(
            self.period_seconds.to_bytes(4, "big")
            + self.genesis_unix_seconds.to_bytes(8, "big")
            + self.public_key
            + self.group_hash
            + named.encode()
        ).digest()

    def round_due(self, number: int) -> int:
        """When a round is due, in seconds of Unix time. Round 1 is the first."""
        return self.genesis_unix_seconds + (number - 1) * self.period_seconds

    def round_at(self, unix_seconds: float) -> int:
        """The last round that is due by a time; 0 before the first."""
        since = math.floor(unix_seconds) - self.genesis_unix_seconds
        return max(0, since // self.period_seconds + 1)

    def verify(self, number: int, signature: bytes) -> bool:
        """Whether this is the chain's signature of a round; `False` too for a number that no round has."""
        return 1 <= number <= MAX_ROUND and bls.verify(self.public_key, round_message(number), signature)

    def wrong_rounds(self, signatures: Mapping[int, bytes]) -> tuple[int, ...]:
        """The rounds whose signature does not verify; empty if all do.

        All are verified at once, and one by one only if that fails.

        Args:
            signatures: The signature of each round, by its number.
        """
        if all(1 <= number <= MAX_ROUND for number in signatures):
            signed = [(round_message(number), signature) for number, signature in signatures.items()]
            if bls.verify_all(self.public_key, signed):
                return ()
        return tuple(number for number, given in signatures.items() if not self.verify(number, given))

    @staticmethod
    def randomness(signature: bytes) -> bytes:
        """The 32 random bytes of a round; verifies nothing."""
        return sha256(signature).digest()

    def to_json(self) -> dict[str, Json]:
        """Its JSON form, with its hash."""
        return {
            "scheme": self.scheme,
            "hash": self.hash.hex(),
            "public_key": self.public_key.hex(),
            "period_seconds": self.period_seconds,
            "genesis_unix_seconds": self.genesis_unix_seconds,
            "group_hash": self.group_hash.hex(),
            "beacon_id": self.beacon_id,
        }

    @classmethod
    def from_fields(cls, fields: Fields) -> Chain:
        """Reads the JSON form strictly.

        Raises:
            MalformedBundle: Not a chain, or its parameters do not hash to its hash.
            UnknownKind: A scheme that this version does not know.
        """
        chain = _chain(
            fields,
            scheme=fields.kind("scheme", [SCHEME]),
            period_seconds=fields.integer("period_seconds", 1, MAX_PERIOD_SECONDS),
            genesis_unix_seconds=fields.integer("genesis_unix_seconds", 0, MAX_GENESIS_UNIX_SECONDS),
            group_hash=fields.digest("group_hash"),
            beacon_id=fields.text("beacon_id"),
        )
        fields.end()
        return chain

    def to_info(self) -> dict[str, Json]:
        """What drand's HTTP interface answers to `/info`."""
        return {
            "public_key": self.public_key.hex(),
            "period": self.period_seconds,
            "genesis_time": self.genesis_unix_seconds,
            "hash": self.hash.hex(),
            "groupHash": self.group_hash.hex(),
            "schemeID": self.scheme,
            "metadata": {"beaconID": self.beacon_id},
        }

    @classmethod
    def from_info(cls, data: bytes, *, where: str) -> Chain:
        """Reads what drand's HTTP interface answers to `/info`: whatever the relay says, until it is pinned.

        Raises:
            MalformedBundle: Not such an answer, or its parameters do not hash to its hash.
            UnknownKind: A scheme that this version does not know.
        """
        fields = answer_fields(data, where=where)
        return _chain(
            fields,
            scheme=fields.kind("schemeID", [SCHEME]),
            period_seconds=fields.integer("period", 1, MAX_PERIOD_SECONDS),
            genesis_unix_seconds=fields.integer("genesis_time", 0, MAX_GENESIS_UNIX_SECONDS),
            group_hash=fields.digest("groupHash"),
            beacon_id=fields.object("metadata").text("beaconID"),
        )


def round_message(number: int) -> bytes:
    """What a chain signs for a round."""
    return sha256(number.to_bytes(8, "big")).digest()


def answer_fields(data: bytes, *, where: str) -> Fields:
    """The fields of a relay's answer, which is JSON but not canonical.

    A caller verifies what it reads and leaves other fields unread: relays add some of their own.

    Raises:
        MalformedBundle: Longer than 4096 bytes, not JSON, not an object, a key twice, or a float.
    """
    if len(data) > MAX_ANSWER_BYTES:
        _refuse(f"an answer of more than {MAX_ANSWER_BYTES} bytes", where)

    def integer(digits: str) -> int:
        if len(digits) > _INTEGER_DIGITS:
            _refuse("a number of more than 16 digits", where)
        return int(digits)

    def unique(pairs: list[tuple[str, Json]]) -> Json:
        if len(dict(pairs)) != len(pairs):
            _refuse("an object that has the same key twice", where)
        return dict(pairs)

    def no_float(_: str) -> NoReturn:
        _refuse("a number that is not an integer", where)

    try:
        value: Json = json.loads(
            data.decode(),
            parse_int=integer,
            parse_float=no_float,
            parse_constant=no_float,
            object_pairs_hook=unique,
        )
    except (ValueError, RecursionError) as e:
        raise MalformedBundle("an answer that is not JSON", where=where) from e
    return Fields(value, where)


def hex_field(fields: Fields, name: str, size_bytes: int) -> bytes:
    """A field of exactly so many bytes in lower-case hexadecimal digits.

    Raises:
        MalformedBundle: Anything else.
    """
    text = fields.text(name)
    if not re.fullmatch(f"[0-9a-f]{{{2 * size_bytes}}}", text):
        _refuse(f"not {2 * size_bytes} lower-case hexadecimal digits", fields.where(name))
    return bytes.fromhex(text)


def _chain(
    fields: Fields,
    *,
    scheme: str,
    period_seconds: int,
    genesis_unix_seconds: int,
    group_hash: bytes,
    beacon_id: str,
) -> Chain:
    """The chain of these parameters, once it is the one that its object claims."""
    try:
        chain = Chain(
            scheme=scheme,
            public_key=hex_field(fields, "public_key", bls.PUBLIC_KEY_BYTES),
            period_seconds=period_seconds,
            genesis_unix_seconds=genesis_unix_seconds,
            group_hash=group_hash,
            beacon_id=beacon_id,
        )
    except MalformedBundle as e:
        raise MalformedBundle(e.message, where=fields.where()) from e
    if chain.hash != fields.digest("hash"):
        _refuse("parameters that do not hash to the chain's hash", fields.where("hash"))
    return chain


def _refuse(message: str, where: str = "chain") -> NoReturn:
    raise MalformedBundle(message, where=where)


QUICKNET = Chain(
    public_key=bytes.fromhex(
        "83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
        "0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
    ),
    period_seconds=3,
    genesis_unix_seconds=1692803367,
    group_hash=bytes.fromhex("f477d5c89f21a17c863a7f937c6a6d15859414d2be09cd448d4279af331c5d3e"),
    beacon_id="quicknet",
)
"""drand's quicknet, of the League of Entropy; its hash is 52db9ba7…c84e971, which the tests compare."""
