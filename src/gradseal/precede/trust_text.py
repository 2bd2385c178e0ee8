"""Writing pins as the file that `load_trust` reads: one file, with all that it would else name inline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.serialization import Encoding

from gradseal.errors import AnchorError
from gradseal.precede.chain import QUICKNET, Chain
from gradseal.precede.relays import QUICKNET_URLS
from gradseal.precede.signer import load
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import Trust
from gradseal.proof.canonical import encode
from gradseal.proof.quorum import QuorumPolicy


def trust_text(trust: Trust) -> str:
    """The file that holds these pins; `load_trust` gives them back."""
    parts = [_outermost(trust)]
    if trust.policy:
        parts.append(f"[witnesses]\npolicy_text = {_block(policy_text(trust.policy))}\n")
    parts += [_authority(pinned, trust.timestamp_urls.get(pinned.name)) for pinned in trust.authorities]
    parts += [_chain(chain, tuple(trust.relay_urls.get(chain.hash, ()))) for chain in trust.chains]
    return "\n".join(parts)


def write_trust(trust: Trust, path: str | Path) -> None:
    """Writes these pins to a file.

    Raises:
        AnchorError: It cannot be written.
    """
    try:
        Path(path).write_text(trust_text(trust), encoding="utf-8")
    except OSError as e:
        raise AnchorError(f"cannot be written: {e.strerror}", where=str(path)) from e


def policy_text(policy: QuorumPolicy) -> str:
    """A quorum policy as `parse_policy` reads it."""
    return "".join(f"{line.rstrip(' ')}\n" for line in _policy_lines(policy))


def _policy_lines(policy: QuorumPolicy) -> Iterator[str]:
    yield from (f"log {log.key} {log.url}" for log in policy.logs)
    yield from (f"witness {w.name} {w.key} {w.url}" for w in policy.witnesses)
    yield from (f"group {g.name} {g.threshold} {' '.join(g.members)}" for g in policy.groups)
    yield f"quorum {policy.quorum}"


def _outermost(trust: Trust) -> str:
    keys = ", ".join(_quoted(str(key)) for key in trust.keys)
    lines = [
        f"keys = [{keys}]",
        f"skew_seconds = {_number(trust.skew_seconds)}",
        f"combine = {_quoted(trust.combine)}",
        f"timestamps_needed = {trust.timestamps_needed}",
    ]
    return "\n".join(lines) + "\n"


def _authority(pinned: PinnedAuthority, url: str | None) -> str:
    pem = "".join(load(root, "root").public_bytes(Encoding.PEM).decode() for root in pinned.roots)
    lines = [
        "[[timestamps]]",
        f"name = {_quoted(pinned.name)}",
        f"roots_text = {_block(pem)}",
        f"accuracy_seconds = {_number(pinned.assumed_accuracy_seconds)}",
    ]
    if url:
        lines.append(f"url = {_quoted(url)}")
    if pinned.policies is not None:
        lines.append(f"policies = [{', '.join(_quoted(policy) for policy in sorted(pinned.policies))}]")
    return "\n".join(lines) + "\n"


def _chain(chain: Chain, urls: tuple[str, ...]) -> str:
    named = (
        'chain = "quicknet"' if chain == QUICKNET else f"chain_text = '{encode(chain.to_json()).decode()}'"
    )
    known = chain == QUICKNET and urls == QUICKNET_URLS
    lines = ["[[beacons]]", named]
    if not known:
        lines.append(f"urls = [{', '.join(_quoted(url) for url in urls)}]")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    # JSON's escapes are TOML's too; of the characters that JSON leaves, TOML takes all but this one.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _block(text: str) -> str:
    """A text of several lines, as it is where that can be."""
    return f"'''\n{text}'''" if "'''" not in text else _quoted(text)
