"""A run that never was, anchored in every slot: what precedence looks at, at any size and in seconds.

Precedence reads the log and its anchors alone, so no state and no data exist, and what would name them is
random. Rounds, cosignatures and tokens are signed with keys at hand, for times that are past.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from gradseal.precede.answers import encode_query
from gradseal.precede.bounds import digest_of
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.slots import SlotPlan
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import Trust
from gradseal.proof.anchors import AnchorStore, receipt_of
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.entries import Close, Entry, Initial, Segment, Slot
from gradseal.proof.files import Files
from gradseal.proof.manifest import Data, Manifest, Plan
from gradseal.proof.merkle import Tree
from gradseal.proof.note import Note, SigningKey
from gradseal.proof.quorum import Group, QuorumPolicy, Witness
from gradseal.proof.writer import BlobWriter, BundleWriter
from gradseal.store.files import FsspecFiles

ANCHORED_BY = 4
"""Whose word each anchor rests on: three witnesses and an authority."""

_CADENCE_SECONDS = 60
_PERIOD_SECONDS = 3
_MAX_FILE_BYTES = 1 << 24


def forge(directory: Path, segments: int, slots: int) -> Trust:
    """Writes the bundle, and gives the pins under which it shows precedence.

    Args:
        directory: Where it goes.
        segments: How many the run has; a multiple of `slots`.
        slots: How many slots; each has an anchored checkpoint, and so has the manifest.
    """
    # Thousands of durable writes take a minute on a slow disk, so all is written in memory first.
    files = FsspecFiles(f"memory://{_digest().hex()}")
    run = _Forged(files, segments, slots)
    for number in range(slots):
        run.slot(number)
    for path in list(files.paths()):
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(files.read(path, _MAX_FILE_BYTES))
        files.delete(path)
    return run.trust


class _Forged:
    def __init__(self, files: Files, segments: int, slots: int) -> None:
        # All of it is past, and the manifest is anchored a whole slot before the first one begins.
        began = int(time.time()) - (slots + 2) * _CADENCE_SECONDS
        self._chain = LocalChain.generate(
            beacon_id="bench", period_seconds=_PERIOD_SECONDS, genesis_unix_seconds=began
        )
        self._plan = SlotPlan.beginning_after([self._chain.chain], _CADENCE_SECONDS, began + _CADENCE_SECONDS)
        self._authority = LocalAuthority.generate(name="authority.bench.example", now=_utc(began))
        self._witnesses = [CosigningKey.generate(f"bench.example/witness-{i}") for i in range(3)]
        self._owner = SigningKey.generate("bench.example")
        self._segments, self._per_slot, self._made = segments, segments // slots, 0
        self._store, self._tree = AnchorStore(files), Tree()
        self._writer = BundleWriter(BlobWriter(files), self._owner, self._manifest())
        self._writer.tell(self._published)
        self._now = began
        self._writer.publish()

    @property
    def trust(self) -> Trust:
        """Two of the three witnesses, and the authority, and the chain."""
        witnesses = tuple(
            Witness(name=f"w{i}", key=key.verification_key) for i, key in enumerate(self._witnesses)
        )
        group = Group(name="two", threshold=2, members=tuple(witness.name for witness in witnesses))
        return Trust(
            keys=(self._owner.verification_key,),
            policy=QuorumPolicy(logs=(), witnesses=witnesses, groups=(group,), quorum=group.name),
            authorities=(PinnedAuthority(name="authority", roots=(self._authority.root,)),),
            chains=(self._chain.chain,),
            combine="all",
        )

    def slot(self, number: int) -> None:
        """A slot with its segments, which are anchored before the next one begins."""
        begins = self._plan.begins(number)
        rounds = [
            self._chain.sign(one, now_unix_seconds=begins).signature for _, one in self._plan.rounds(number)
        ]
        entries: list[Entry] = [Slot(index=number, signatures=tuple(rounds))]
        if not number:
            entries.append(Initial(seal=_digest()))
        entries += [self._segment() for _ in range(self._per_slot)]
        if self._made == self._segments:
            entries.append(Close(segments=self._segments, weights=_digest()))
        for entry in entries:
            self._writer.append(entry)
        self._now = begins + _CADENCE_SECONDS * 3 // 4
        self._writer.publish()

    def _segment(self) -> Segment:
        index, self._made = self._made, self._made + 1
        return Segment(index=index, first_step=index, steps=1, seal=_digest(), losses=_digest())

    def _published(self, note: Note, leaves: Sequence[bytes]) -> None:
        """Anchors what was just published."""
        self._tree.extend(leaves)
        lines = [key.cosign(note.text, self._now) for key in self._witnesses]
        cosigned = replace(note, signatures=(*note.signatures, *lines))
        query = encode_query(digest_of(note), nonce=secrets.randbits(63))
        self._store.add(receipt_of(cosigned, self._tree), [self._authority.answer(query, _utc(self._now))])

    def _manifest(self) -> Manifest:
        return Manifest(
            owner=self._owner.verification_key,
            program=_digest(),
            initialisation=_digest(),
            data=Data(
                root=_digest(),
                samples=1,
                schema=_digest(),
                leaves=_digest(),
                shards=_digest(),
                shard_samples=1,
            ),
            plan=Plan(
                steps=self._segments,
                every=1,
                batch_size=1,
                accumulate=1,
                drop_last=False,
                order="shuffled-v1",
                collation="stack-v1",
                seed=self._plan.to_seed(),
            ),
            arithmetic={"kind": "native"},
            release=_digest(),
        )


def _digest() -> bytes:
    return secrets.token_bytes(32)


def _utc(unix_seconds: int) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)
