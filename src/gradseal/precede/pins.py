"""One pin of a trust file: an owner's key, the witnesses, an authority, a chain.

Each reader takes from its table the fields that it knows, strictly; what remains, `Table.end` refuses.
Whether pins stand twice is for `trust` to see.
"""

from __future__ import annotations

import re

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gradseal.errors import AnchorError, Error, KeyFileError
from gradseal.precede.answers import MAX_ACCURACY_SECONDS
from gradseal.precede.chain import QUICKNET, Chain, answer_fields
from gradseal.precede.relays import QUICKNET_URLS, Relays
from gradseal.precede.tables import Table
from gradseal.precede.timestamps import ASSUMED_ACCURACY_SECONDS, PinnedAuthority
from gradseal.proof.note import VerificationKey
from gradseal.proof.quorum import QuorumPolicy, parse_policy

OUTERMOST = ("keys", "skew_seconds", "combine", "timestamps_needed", "witnesses", "timestamps", "beacons")
"""The names of the outermost table."""

MAX_KEYS = 256
MAX_ROOTS = 16
"""The most root certificates of one authority."""

MAX_URLS = 16
MAX_POLICIES = 64

_NAME_LENGTH = 128
_IDENTIFIER = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,39})){1,31}")


def read_keys(top: Table) -> tuple[VerificationKey, ...]:
    """The owners' keys, each given itself or by the name of a file that holds it.

    Raises:
        KeyFileError: A key that does not parse, or a secret one.
        AnchorError: A file that cannot be read.
    """
    return tuple(_key(text, top, f"keys[{i}]") for i, text in enumerate(top.texts("keys", MAX_KEYS)))


def _key(given: str, top: Table, name: str) -> VerificationKey:
    text, where = given, top.where(name)
    if given.count("+") < 2:
        data, where = top.read(given, name)
        text = data.decode("utf-8", "replace").strip()
    if text.startswith("PRIVATE+KEY+"):
        advice = "give what `gradseal key show FILE` prints"
        raise KeyFileError("a signing key; its public half is to be pinned", where=where, advice=advice)
    try:
        return VerificationKey.parse(text, where=where)
    except KeyFileError as e:
        advice = "give the line that `gradseal key new` printed, or a file that holds it"
        raise KeyFileError(e.message, where=where, advice=advice) from e


def read_policy(top: Table) -> QuorumPolicy | None:
    """The witnesses and their quorum; None if the file has no table for them.

    Raises:
        AnchorError: The policy does not parse, is not UTF-8, or has an address that is none.
        KeyFileError: A key in it does not parse.
    """
    table = top.table("witnesses")
    if table is None:
        return None
    data, where = table.content("policy")
    table.end(OUTERMOST)
    try:
        # Names go into verdicts, so here they are text, though a policy in general has any octets.
        data.decode()
        policy = parse_policy(data, where=where)
    except UnicodeDecodeError as e:
        raise AnchorError("a policy that is not UTF-8", where=where) from e
    except KeyFileError:
        raise
    except Error as e:
        advice = e.advice or "its form is that of a C2SP tlog-policy file"
        raise AnchorError(e.message, where=e.where, advice=advice) from e
    for witness in policy.witnesses:
        if witness.url:
            _check_prefix(witness.url, f"{where}: witness {witness.name}")
    return policy


def read_authority(table: Table) -> tuple[PinnedAuthority, str | None]:
    """A time-stamp authority, and where it takes queries, if the table says.

    Raises:
        AnchorError: A field of another form, roots that are none, or a name that is not known.
    """
    name = table.text("name", _NAME_LENGTH)
    if not name.isprintable() or not name.strip():
        raise AnchorError("a name with characters that cannot be shown", where=table.where("name"))
    most = float(MAX_ACCURACY_SECONDS)
    pinned = PinnedAuthority(
        name=name,
        roots=_roots(*table.content("roots")),
        policies=_identifiers(table) if table.has("policies") else None,
        assumed_accuracy_seconds=table.seconds("accuracy_seconds", most, ASSUMED_ACCURACY_SECONDS),
    )
    url = table.text("url") if table.has("url") else None
    if url:
        _check_url(url, table.where("url"))
    table.end(OUTERMOST)
    return pinned, url


def read_chain(table: Table) -> tuple[Chain, tuple[str, ...]]:
    """A chain, and where its rounds are fetched; quicknet's public relays unless the table names others.

    Raises:
        AnchorError: Not a chain, parameters that do not hash to its hash, an address that is none, or a name
            that is not known.
    """
    chain = _chain(table)
    urls = table.texts("urls", MAX_URLS) if table.has("urls") else _known_relays(chain)
    table.end(OUTERMOST)
    try:
        # Made for its checks; nobody is asked yet.
        _ = Relays(chain, urls) if urls else None
    except AnchorError as e:
        where = f"{table.where('urls')}: {e.where}"
        raise AnchorError(e.message, where=where, advice="name relays such as https://api.drand.sh") from e
    return chain, urls


def _known_relays(chain: Chain) -> tuple[str, ...]:
    return QUICKNET_URLS if chain == QUICKNET else ()


def _chain(table: Table) -> Chain:
    """`quicknet`, or a chain as `gradseal beacon show` or a relay's /info gives it."""
    if table.has("chain") and table.text("chain") == "quicknet":
        return QUICKNET
    data, where = table.content("chain")
    try:
        fields = answer_fields(data, where=where)
        return Chain.from_info(data, where=where) if fields.has("schemeID") else Chain.from_fields(fields)
    except Error as e:
        advice = e.advice or 'give "quicknet", or a file that `gradseal beacon show` printed'
        raise AnchorError(e.message, where=e.where, advice=advice) from e


def _identifiers(table: Table) -> frozenset[str]:
    found = frozenset(table.texts("policies", MAX_POLICIES))
    if not found or not all(_IDENTIFIER.fullmatch(text) for text in found):
        message = 'not dotted object identifiers, such as "1.3.6.1.4.1.601.10.3.1"'
        raise AnchorError(message, where=table.where("policies"), advice="leave it out to take any policy")
    return found


def _roots(data: bytes, where: str) -> tuple[bytes, ...]:
    """The certificates of a PEM file, or the one of a DER file, each of which must be a root."""
    try:
        pem = b"-----BEGIN" in data
        found = x509.load_pem_x509_certificates(data) if pem else [x509.load_der_x509_certificate(data)]
        roots = [(c.public_bytes(Encoding.DER), c.subject == c.issuer) for c in found]
    except (ValueError, x509.InvalidVersion) as e:
        raise AnchorError(
            "not X.509 certificates, in PEM or DER",
            where=where,
            advice="get the authority's root certificate",
        ) from e
    if len(roots) > MAX_ROOTS:
        raise AnchorError(f"{len(roots)} certificates, more than the {MAX_ROOTS} allowed", where=where)
    if not all(is_root for _, is_root in roots):
        raise AnchorError(
            "a certificate that is not self-signed, and so no root",
            where=where,
            advice="pin the root that issued it; tokens bring what lies between",
        )
    return tuple(encoded for encoded, _ in roots)


def _check_prefix(text: str, where: str) -> None:
    url = _check_url(text, where)
    # What stands there is repeated in messages, so it must hold no secret.
    if url.query or url.fragment or url.userinfo:
        advice = "give what stands before /add-checkpoint"
        raise AnchorError("an address with a query or a password", where=where, advice=advice)


def _check_url(text: str, where: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as e:
        raise AnchorError("an address that is not a URL", where=where) from e
    if url.scheme not in ("http", "https") or not url.host:
        raise AnchorError("an address that is not http:// or https:// with a host", where=where)
    return url
