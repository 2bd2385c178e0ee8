"""What a verifier trusts to tell the time, and nothing else: owners' keys, witnesses, authorities, chains.

Guarantees that what would count twice is refused: a name, a witness's key, a root key or a chain that stands
in two places. Nothing gets in here from a bundle. The same pins, where they have addresses, tell a recorder
whom to ask; an address is no trust.

`load_trust` reads the file that a person writes, in TOML; `trust_text` writes one. Its form, for people:
docs/guide/trust.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from gradseal.errors import AnchorError
from gradseal.precede.authorities import TIMEOUT_SECONDS, Authority
from gradseal.precede.chain import Chain
from gradseal.precede.pins import read_authority, read_chain, read_keys, read_policy
from gradseal.precede.relays import Relays
from gradseal.precede.tables import Table, read_toml
from gradseal.precede.timestamps import PinnedAuthority, check_independent
from gradseal.precede.witnesses import WitnessAddress
from gradseal.proof.note import VerificationKey
from gradseal.proof.quorum import NONE, QuorumPolicy

DEFAULT_SKEW_SECONDS = 10.0
"""How far any clock may be off, unless the file says otherwise."""

MAX_SKEW_SECONDS = 24 * 60 * 60
MAX_AUTHORITIES = 32
MAX_PINNED_CHAINS = 32

Combine = Literal["any", "all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What a verifier pins.

    Args:
        keys: The owners' verification keys; any of them may be the log's.
        policy: The witnesses, and how many of them are enough; None for none.
        authorities: The time-stamp authorities.
        timestamps_needed: How many of them must agree.
        chains: The beacon chains.
        skew_seconds: How far any clock may be off, the verifier's included.
        combine: Where witnesses and authorities are both pinned, whether the bound of either is enough or
            both are needed.
        timestamp_urls: Where an authority takes queries, by its name.
        relay_urls: Where a chain's rounds are fetched, by its hash.

    Raises:
        AnchorError: Something stands twice, more authorities are needed than there are, a quorum of `none`,
            or a skew that is none.
    """

    keys: tuple[VerificationKey, ...] = ()
    policy: QuorumPolicy | None = None
    authorities: tuple[PinnedAuthority, ...] = ()
    timestamps_needed: int = 1
    chains: tuple[Chain, ...] = ()
    skew_seconds: float = DEFAULT_SKEW_SECONDS
    combine: Combine = "any"
    timestamp_urls: Mapping[str, str] = field(default_factory=dict)
    relay_urls: Mapping[bytes, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_independent(self.authorities)
        _check_needed(self.timestamps_needed, len(self.authorities))
        if self.policy is not None and self.policy.quorum == NONE:
            raise AnchorError(
                "a quorum of none, which shows no time",
                where="witnesses",
                advice="name a witness or a group in the policy's quorum line, or leave the witnesses out",
            )
        if len({chain.hash for chain in self.chains}) < len(self.chains):
            raise AnchorError("a chain is pinned twice", where="beacons", advice="name it once")
        if not math.isfinite(self.skew_seconds) or not 0 <= self.skew_seconds <= MAX_SKEW_SECONDS:
            raise AnchorError(f"not 0 to {MAX_SKEW_SECONDS} seconds", where="skew_seconds")

    def witness_addresses(self) -> tuple[WitnessAddress, ...]:
        """The witnesses that have an address, to be asked."""
        witnesses = self.policy.witnesses if self.policy else ()
        return tuple(WitnessAddress(key=w.key, url=w.url) for w in witnesses if w.url)

    def timestampers(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> tuple[Authority, ...]:
        """The authorities that have an address, to be asked."""
        return tuple(
            Authority(
                name=pinned.name,
                url=self.timestamp_urls[pinned.name],
                roots=pinned.roots,
                timeout_seconds=timeout_seconds,
            )
            for pinned in self.authorities
            if pinned.name in self.timestamp_urls
        )

    def relays(self, *, timeout_seconds: float = 5.0) -> dict[bytes, Relays]:
        """Where rounds are fetched, by the hash of the chain; a chain without address is not there."""
        return {
            chain.hash: Relays(chain, urls, timeout_seconds=timeout_seconds)
            for chain in self.chains
            if (urls := self.relay_urls.get(chain.hash, ()))
        }

    def to_json(self) -> dict[str, Any]:
        """The pins as a verdict repeats them; without addresses, which show nothing and may hold secrets."""
        return {
            "keys": [str(key) for key in self.keys],
            "witnesses": None if self.policy is None else _policy_json(self.policy),
            "timestamps": [_authority_json(pinned) for pinned in self.authorities],
            "timestamps_needed": self.timestamps_needed,
            "beacons": [{"beacon_id": c.beacon_id, "hash": c.hash.hex()} for c in self.chains],
            "skew_seconds": self.skew_seconds,
            "combine": self.combine,
        }


def load_trust(path: str | Path) -> Trust:
    """The pins in a file.

    Args:
        path: A TOML file of the form that docs/guide/trust.md describes. Files that it names are looked for
            beside it.

    Raises:
        AnchorError: It or a file that it names cannot be read, is over a limit or not of the form; names the
            file and the field.
        KeyFileError: A key that does not parse.
    """
    top = read_toml(Path(path))
    authorities = [read_authority(table) for table in top.tables("timestamps", MAX_AUTHORITIES)]
    chains = [read_chain(table) for table in top.tables("beacons", MAX_PINNED_CHAINS)]
    with _naming_file(top):
        trust = Trust(
            keys=read_keys(top),
            policy=read_policy(top),
            authorities=tuple(pinned for pinned, _ in authorities),
            timestamps_needed=top.integer("timestamps_needed", 1, MAX_AUTHORITIES, 1),
            chains=tuple(chain for chain, _ in chains),
            skew_seconds=top.seconds("skew_seconds", MAX_SKEW_SECONDS, DEFAULT_SKEW_SECONDS),
            combine=_read_combine(top),
            timestamp_urls={pinned.name: url for pinned, url in authorities if url},
            relay_urls={chain.hash: urls for chain, urls in chains if urls},
        )
    top.end()
    return trust


def _read_combine(top: Table) -> Combine:
    return "all" if top.choice("combine", ("any", "all"), "any") == "all" else "any"


def _check_needed(needed: int, pinned: int) -> None:
    if needed < 1 or needed > max(pinned, 1):
        raise AnchorError(
            f"{needed} time-stamp authorities must agree, and {pinned} are pinned",
            where="timestamps_needed",
            advice="pin more of them, or need fewer",
        )


@contextmanager
def _naming_file(top: Table) -> Iterator[None]:
    """Names the file in an error of `Trust`, which knows only the field."""
    try:
        yield
    except AnchorError as e:
        if e.where.startswith(top.where()):
            raise
        raise AnchorError(e.message, where=top.where(e.where), advice=e.advice) from e


def _policy_json(policy: QuorumPolicy) -> dict[str, Any]:
    return {
        "witnesses": [{"name": w.name, "key": str(w.key)} for w in policy.witnesses],
        "groups": [
            {"name": g.name, "threshold": g.threshold, "members": list(g.members)} for g in policy.groups
        ],
        "quorum": policy.quorum,
    }


def _authority_json(pinned: PinnedAuthority) -> dict[str, Any]:
    return {
        "name": pinned.name,
        "roots": [sha256(root).hexdigest() for root in pinned.roots],
        "policies": None if pinned.policies is None else sorted(pinned.policies),
        "accuracy_seconds": pinned.assumed_accuracy_seconds,
    }
