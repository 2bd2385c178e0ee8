"""Whose cosignatures are enough: logs, witnesses, groups of them, and a quorum.

Follows C2SP tlog-policy, strictly and within limits. Guarantees that each witness counts once: no key stands
under two names, and no name in two groups. `QuorumPolicy.not_after` turns cosignatures into the time by which
the quorum had seen a checkpoint. Other keys than Ed25519 (0x01 for logs, 0x04 for witnesses) are refused.
Format: docs/spec/witness.md, section 4.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NoReturn

from gradseal.errors import MalformedBundle, UnknownKind
from gradseal.proof.cosignature import CosignatureKey
from gradseal.proof.note import Note, VerificationKey, decode_base64

MAX_POLICY_BYTES = 256 * 1024
"""The largest policy file."""

MAX_DEFINITIONS = 256
"""The most logs, the most witnesses, and the most groups; C2SP asks for at least 32 of each."""

NONE = "none"
"""The name that stands for no cosignature at all."""

_FORBIDDEN = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_BLANKS = re.compile(rb"[ \t]+")
_COUNT = re.compile(r"[1-9][0-9]{0,2}")
_MLDSA44 = 0x06


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log that is believed, and where it is; the URL is empty if it was not given."""

    key: VerificationKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A witness by its name in the policy, and where it is; the URL is empty if it was not given."""

    name: str
    key: CosignatureKey
    url: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Witnesses and earlier groups, of which `threshold` must have seen a checkpoint."""

    name: str
    threshold: int
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuorumPolicy:
    """A policy as `parse_policy` reads it; groups name only what stands before them."""

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: str

    def signer(self, note: Note, origin: str) -> VerificationKey | None:
        """The key of a log that may sign for an origin and signed the note; None if there is none."""
        fitting = (log.key for log in self.logs if signs_for(log.key.name, origin))
        return next((key for key in fitting if note.verified_by(key)), None)

    def times(self, note: Note) -> dict[str, int]:
        """When each of the policy's witnesses cosigned a note, by its name in the policy."""
        found = ((witness.name, witness.key.cosigned_at(note)) for witness in self.witnesses)
        return {name: time for name, time in found if time is not None}

    def satisfied(self, names: Iterable[str]) -> bool:
        """Whether cosignatures of these witnesses are enough."""
        return self.quorum == NONE or self.not_after(dict.fromkeys(names, 0)) is not None

    def not_after(self, times: Mapping[str, int]) -> int | None:
        """The earliest time by which the quorum had cosigned.

        Witnesses round down to seconds, so as an upper bound it is a second later.

        Args:
            times: When each witness cosigned, by its name in the policy; other names do not count.

        Returns:
            Seconds of Unix time; None if the quorum is not reached, and with `quorum none`: it shows no time.
        """
        seen = {w.name: times[w.name] for w in self.witnesses if w.name in times}
        for group in self.groups:
            of_members = sorted(seen[name] for name in group.members if name in seen)
            if len(of_members) >= group.threshold:
                seen[group.name] = of_members[group.threshold - 1]
        return seen.get(self.quorum)


def signs_for(name: str, origin: str) -> bool:
    """Whether a key of this name may sign for an origin: its name itself, or one below it."""
    return origin == name or origin.startswith(f"{name}/")


def parse_policy(data: bytes, *, where: str) -> QuorumPolicy:
    """Read a policy file.

    Args:
        data: The file.
        where: Its name, for error messages.

    Raises:
        MalformedBundle: Too large, a control character, a line of another form, a name that is taken, not
            defined or listed twice, one public key for two logs or two witnesses, or not exactly one quorum.
        KeyFileError: A key that does not parse.
        UnknownKind: A well-formed key of a type that this version does not verify.
    """
    if len(data) > MAX_POLICY_BYTES:
        _refuse(f"a policy of {len(data)} bytes, more than the {MAX_POLICY_BYTES} allowed", where)
    if _FORBIDDEN.search(data):
        _refuse("a policy with a control character", where)
    reader = _Reader()
    for number, line in enumerate(data.split(b"\n"), start=1):
        stripped = line.strip(b" \t")
        if stripped and not stripped.startswith(b"#"):
            reader.read(_BLANKS.split(stripped), f"{where}: line {number}")
    return reader.policy(where)


class _Reader:
    """What the lines so far define."""

    def __init__(self) -> None:
        self.logs: list[Log] = []
        self.witnesses: list[Witness] = []
        self.groups: list[Group] = []
        self.quorum: str | None = None
        self._listed: set[str] = set()

    def read(self, octets: list[bytes], where: str) -> None:
        # Names are opaque octets, so bytes that are not UTF-8 come back as they were.
        keyword, *words = (word.decode("utf-8", "surrogateescape") for word in octets)
        readers: dict[str, Callable[[list[str], str], None]] = {
            "log": self._log,
            "witness": self._witness,
            "group": self._group,
            "quorum": self._quorum,
        }
        if keyword not in readers:
            _refuse("a line that begins with none of log, witness, group and quorum", where)
        readers[keyword](words, where)
        if max(len(self.logs), len(self.witnesses), len(self.groups)) > MAX_DEFINITIONS:
            _refuse(f"more than {MAX_DEFINITIONS} logs, witnesses or groups", where)

    def policy(self, where: str) -> QuorumPolicy:
        if self.quorum is None:
            _refuse("a policy without a quorum line", where)
        return QuorumPolicy(
            logs=tuple(self.logs),
            witnesses=tuple(self.witnesses),
            groups=tuple(self.groups),
            quorum=self.quorum,
        )

    def _log(self, words: list[str], where: str) -> None:
        if not 1 <= len(words) <= 2:
            _refuse("not log, a key and possibly a URL", where)
        key = VerificationKey.parse(words[0], where=where)
        if key.public in {log.key.public for log in self.logs}:
            _refuse("a second log with the same public key", where)
        self.logs.append(Log(key=key, url="".join(words[1:])))

    def _witness(self, words: list[str], where: str) -> None:
        if not 2 <= len(words) <= 3:
            _refuse("not witness, a name, a key and possibly a URL", where)
        self._check_new(words[0], where)
        key = _witness_key(words[1], where)
        if key.public in {witness.key.public for witness in self.witnesses}:
            _refuse("a second witness with the same public key", where)
        self.witnesses.append(Witness(name=words[0], key=key, url="".join(words[2:])))

    def _group(self, words: list[str], where: str) -> None:
        if len(words) < 3:
            _refuse("not group, a name, a threshold and members", where)
        name, count, *members = words
        self._check_new(name, where)
        for member in members:
            if member not in self._defined():
                _refuse("a member that is not defined above", where)
            if member in self._listed:
                _refuse("a member that is listed already, here or in another group", where)
            self._listed.add(member)
        threshold = _threshold(count, len(members), where)
        self.groups.append(Group(name=name, threshold=threshold, members=tuple(members)))

    def _quorum(self, words: list[str], where: str) -> None:
        if self.quorum is not None:
            _refuse("a second quorum line", where)
        if len(words) != 1:
            _refuse("not quorum and a name", where)
        if words[0] != NONE and words[0] not in self._defined():
            _refuse("a quorum that is not defined above", where)
        self.quorum = words[0]

    def _defined(self) -> set[str]:
        return {witness.name for witness in self.witnesses} | {group.name for group in self.groups}

    def _check_new(self, name: str, where: str) -> None:
        if name == NONE or name in self._defined():
            _refuse("a name that is taken", where)


def _threshold(count: str, members: int, where: str) -> int:
    if count in ("any", "all"):
        return 1 if count == "any" else members
    if not _COUNT.fullmatch(count) or int(count) > members:
        _refuse(f"a threshold that is not any, all or 1 to {members}", where)
    return int(count)


def _witness_key(text: str, where: str) -> CosignatureKey:
    encoded = text.split("+", 2)[-1]
    if encoded.startswith("B") and decode_base64(encoded, where=where)[:1] == bytes([_MLDSA44]):
        raise UnknownKind(
            "a witness with an ML-DSA-44 key, which this version does not verify",
            where=where,
            advice="name the witness's Ed25519 key, or leave the witness out",
        )
    return CosignatureKey.parse(text, where=where)


def _refuse(message: str, where: str) -> NoReturn:
    raise MalformedBundle(message, where=where)
