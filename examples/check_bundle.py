"""Check a bundle without Gradseal: a second reader, written from the specification alone.

It shows that docs/spec says enough to write a verifier: nothing is imported but Python's standard library
and, for Ed25519, `cryptography`. Each section names its pages; the list of checks stands at the end.

It checks: checkpoint, tree, tiles; the owner's signature and the origin; manifest and entries, with slots,
gaps and amendments; anchored checkpoints; environment; sample schema; programs, schedules, graphs; state
zero, recomputed from the seed; free bytes; every state; losses; data; released weights. All input is hostile
to it: sizes are bounded first, only regular files inside the bundle are read, parsed JSON is encoded again
and compared, and nothing is executed.

Left out: the replay, so nothing here shows that the states are the program's output; the closed list of
operators and the binding of their arguments; and all that shows a time. A beacon's signatures (BLS),
witnesses' cosignatures and the signatures of time-stamps are not verified, so a beacon's seed may be
anybody's choice, and nobody is told by when a checkpoint was anchored. Consistency proofs are not needed,
since all entries are read.

    python examples/check_bundle.py runs/first --key owner.pub

Exit status: 0 consistent, 1 rejected, 2 not a bundle or wrong usage, 3 inconclusive.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import hmac
import json
import lzma
import math
import os
import re
import stat
import struct
import sys
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

DOCUMENT_BYTES = 2**26  # a program, an initialisation, a graph, a release map, a header of weights
# This checker's own bounds, where the specification's are more than plain Python computes in minutes.
LOG_BYTES = 2**28  # all entries together
FILL_COST = 2**26  # of state zero: an element costs 1, one of a constant a 256th, a truncated one up to 64
ORDERED_SAMPLES = 2**22  # whose order is printed
EVALUATED_VALUES = 2**22  # of a schedule


class Finding(Exception):
    """What ended a check, and the file or field where it was."""

    def __init__(self, where: str, what: str) -> None:
        super().__init__(f"{where}: {what}")


class Contradiction(Finding):
    """The record contradicts itself, the format or the key: it is rejected."""


class Gap(Finding):
    """Something is absent, or of a kind that only a later version knows: the check is inconclusive."""


class Absent(Gap):
    """A file is not there."""


class NotABundle(Finding):
    """There is nothing to judge."""


def demand(truth: object, where: str, what: str) -> None:
    """Refuse what is not as it should be."""
    if not truth:
        raise Contradiction(where, what)


# ---- Canonical JSON: json.md ---------------------------------------------------------------------

MAX_INTEGER = 2**53 - 1
JSON_STRING = rb'"(?:[^"\\]+|\\.)*+"'
TEXT = re.compile(".{0,1024}", re.DOTALL)
JSON_TOKEN = re.compile(JSON_STRING + rb"|([\[{])|([\]}])", re.DOTALL)


def decode_json(data: bytes, limit: int, where: str) -> Any:
    """The value whose one encoding the bytes are; section 2."""
    demand(len(data) <= limit, where, f"longer than {limit} bytes")
    value = parse_json(data, where)
    try:
        encoded = encode_json(value)
    except ValueError as error:  # that of a lone surrogate, too
        raise Contradiction(where, f"not JSON of this format: {error}") from None
    demand(encoded == data, where, "not canonical JSON")
    return value


def encode_json(value: Any) -> bytes:
    """The one encoding of a value; section 1."""
    return json.dumps(in_order(value), ensure_ascii=False, separators=(",", ":")).encode()


def in_order(value: Any) -> Any:
    """The same value, its keys in the order of their UTF-16 code units; its numbers are small integers."""
    if isinstance(value, list):
        return [in_order(item) for item in value]
    if isinstance(value, dict):
        return {key: in_order(value[key]) for key in sorted(value, key=lambda key: key.encode("utf-16-be"))}
    if isinstance(value, float) or (isinstance(value, int) and abs(value) > MAX_INTEGER):
        raise ValueError("a number that is not an integer of at most 2**53 - 1")
    return value


def parse_json(data: bytes, where: str) -> Any:
    """The value of JSON text, canonical or not, without a key twice or deep nesting."""
    depth = 0
    for token in JSON_TOKEN.finditer(data):
        depth += (token[1] is not None) - (token[2] is not None)
        demand(depth <= 32, where, "nested more than 32 deep")
    try:
        return json.loads(data.decode(), object_pairs_hook=unique_members)
    except ValueError as error:
        raise Contradiction(where, f"not JSON of this format: {error}") from None


def unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object without the same key twice."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key twice")
    return dict(pairs)


class Variant(NamedTuple):
    """The shape of an object, one field of which says which others there are."""

    field: str
    shapes: dict[str, dict[str, Any]]


class Nullable(NamedTuple):
    """The shape of null, or of something else."""

    shape: Any


def read(value: Any, shape: Any, where: str) -> Any:
    """What a JSON value of a shape stands for.

    A shape is a dict of an object's fields, or {str: shape} for any names; a Variant; a Nullable; [item] or
    [item, least, most] for an array; (low, high) for an integer; a set of texts, beside which a later
    version may know others; a pattern of a text; a type; or a function that reads the value.
    """
    if isinstance(shape, Nullable):
        return None if value is None else read(value, shape.shape, where)
    if isinstance(shape, Variant):
        demand(isinstance(value, dict) and shape.field in value, where, f"not an object with {shape.field}")
        kind = read(value[shape.field], set(shape.shapes), f"{where}.{shape.field}")
        return read(value, {shape.field: str, **shape.shapes[kind]}, where)
    if isinstance(shape, dict):
        demand(isinstance(value, dict), where, "not an object")
        fields = dict.fromkeys(value, shape[str]) if str in shape else shape
        if "format" in fields and "format" in value:  # first of all: other fields may be another version's
            read(value["format"], fields["format"], f"{where}.format")
        demand(value.keys() == fields.keys(), where, f"not exactly the fields {', '.join(fields)}")
        return {name: read(value[name], part, f"{where}.{name}") for name, part in fields.items()}
    if isinstance(shape, list):
        item, least, most = shape if len(shape) == 3 else (*shape, 0, MAX_INTEGER)
        fits = isinstance(value, list) and least <= len(value) <= most
        demand(fits, where, "not an array, or of another length")
        return [read(part, item, f"{where}[{i}]") for i, part in enumerate(value)]
    return read_scalar(value, shape, where)


def read_scalar(value: Any, shape: Any, where: str) -> Any:
    """What a value that is no object or array stands for."""
    if isinstance(shape, tuple):
        whole = isinstance(value, int) and not isinstance(value, bool)
        demand(whole and shape[0] <= value <= shape[1], where, f"not an integer of the bounds {shape}")
    elif isinstance(shape, set):
        if read(value, TEXT, where) not in shape:
            raise Gap(where, f"{value[:100]!r} is unknown; a later version may know it")
    elif isinstance(shape, re.Pattern):
        demand(shape.fullmatch(read(value, str, where)), where, f"not a text of the form {shape.pattern}")
    elif isinstance(shape, type):
        demand(isinstance(value, shape), where, f"not a {shape.__name__}")
    else:
        return shape(value, where)
    return value


def digest(value: Any, where: str) -> bytes:
    """Read a digest; section 3."""
    return bytes.fromhex(read(value, re.compile("[0-9a-f]{64}"), where))


def number(value: Any, where: str) -> float:
    """Read a float; section 3."""
    bits = bytes.fromhex(read(value, re.compile("[0-9a-f]{16}"), where))
    return float(struct.unpack(">d", bits)[0])


def integer64(value: Any, where: str) -> int:
    """Read an integer of 64 bits: a number if that holds it, otherwise a string; section 3."""
    if not isinstance(value, str):
        return int(read(value, (-MAX_INTEGER, MAX_INTEGER), where))
    found = int(read(value, re.compile("-?[1-9][0-9]{15,18}"), where))
    fits = abs(found) > MAX_INTEGER and -(2**63) <= found < 2**63
    demand(fits, where, "a text where a number would do, or beyond 64 bits")
    return found


# ---- Files: bundle.md, sections 1 and 2 ----------------------------------------------------------


class Bundle:
    """A directory, whose regular files alone are read. `gaps` are what the present check lacks."""

    def __init__(self, root: str) -> None:
        self.root = os.path.realpath(root)
        self.gaps: list[Gap] = []
        self.hashed: set[tuple[bytes, int, bool]] = set()

    def open(self, path: str) -> BinaryIO:
        """A regular file of the bundle."""
        try:
            real = os.path.realpath(os.path.join(self.root, path), strict=True)
            if os.path.commonpath([self.root, real]) != self.root:
                raise Gap(path, "leads out of the bundle, and is not followed")
            file = os.fdopen(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
        except (FileNotFoundError, NotADirectoryError):
            raise Absent(path, "is not there") from None
        except OSError as error:
            raise Gap(path, f"cannot be read: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise Gap(path, "is no regular file")
        return file

    def read(self, path: str, limit: int) -> bytes:
        """All of a file of at most `limit` bytes."""
        with self.open(path) as file:
            data = file.read(limit + 1)
        demand(len(data) <= limit, path, f"longer than {limit} bytes")
        return data

    def blob(self, digest: bytes, limit: int) -> bytes:
        """All of a blob of at most `limit` bytes."""
        data = self.read(blob_path(digest), limit)
        demand(sha256(data) == digest, blob_path(digest), "altered: its digest is not its name")
        return data

    @contextmanager
    def taking(self, path: str, digest: bytes) -> Iterator[Callable[[int], bytes]]:
        """A function that takes a file's next bytes. The context ends with the file, which has the digest."""
        running = hashlib.sha256()

        def take(count: int) -> bytes:
            data = file.read(count)
            demand(len(data) == count, path, "shorter than it should be")
            running.update(data)
            return data

        with self.open(path) as file:
            yield take
            demand(not file.read(1), path, "longer than it should be")
        demand(running.digest() == digest, path, f"altered: its digest is not {digest.hex()}")

    @contextmanager
    def noting_gaps(self) -> Iterator[None]:
        """Within this context, a gap is noted, and ends no more than the context."""
        try:
            yield
        except Gap as gap:
            self.gaps.append(gap)

    def check_tensor(self, digest: bytes, tensor: Tensor) -> None:
        """Hash a tensor's blob, if that was not done before; note a gap if it is absent."""
        size = tensor.size_bytes
        if (digest, size, tensor.dtype == "bool") in self.hashed:
            return
        with self.noting_gaps(), self.taking(blob_path(digest), digest) as take:
            for chunk in chunks(take, size):
                check_truth_values(chunk, tensor.dtype, blob_path(digest))
            self.hashed.add((digest, size, tensor.dtype == "bool"))


def chunks(take: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    """The next bytes, in pieces."""
    return (take(min(count - start, 2**20)) for start in range(0, count, 2**20))


def blob_path(digest: bytes) -> str:
    """Where a blob is."""
    return f"blobs/{digest.hex()[:2]}/{digest.hex()}"


def check_truth_values(data: bytes, dtype: str, where: str) -> None:
    """A bool is 0 or 1; section 5."""
    demand(dtype != "bool" or not data.translate(None, b"\x00\x01"), where, "a bool that is neither 0 nor 1")


# ---- Tree, tiles, entries: log.md, sections 1 and 2 ----------------------------------------------


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def leaf_hash(entry: bytes) -> bytes:
    """The hash of an entry."""
    return sha256(b"\x00" + entry)


def tree_root(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over leaf hashes, which are taken one after another."""
    peaks: list[tuple[int, bytes]] = []
    for leaf in leaf_hashes:
        grow(peaks, leaf)
    return root_of(peaks)


def grow(peaks: list[tuple[int, bytes]], leaf: bytes) -> None:
    """Add a leaf hash to a tree, of which sizes and roots of full subtrees are known, by falling size."""
    size, root = 1, leaf
    while peaks and peaks[-1][0] == size:
        size, root = 2 * size, sha256(b"\x01" + peaks.pop()[1] + root)
    peaks.append((size, root))


def root_of(peaks: list[tuple[int, bytes]]) -> bytes:
    """The root of a tree by the roots of its full subtrees."""
    *others, total = [root for _, root in peaks] or [sha256(b"")]
    for root in reversed(others):
        total = sha256(b"\x01" + root + total)
    return total


def roots_of(leaf_hashes: Sequence[bytes], sizes: Sequence[int]) -> Iterator[bytes]:
    """The root over the first leaf hashes, for each of these sizes, which ascend."""
    peaks: list[tuple[int, bytes]] = []
    start = 0
    for size in sizes:
        for leaf in leaf_hashes[start:size]:
            grow(peaks, leaf)
        start = size
        yield root_of(peaks)


def proven_root(leaf: bytes, index: int, size: int, proof: Sequence[bytes], where: str) -> bytes:
    """The root to which an inclusion proof leads."""
    demand(0 <= index < size, where, "an entry that is not in the tree")
    if size == 1:
        demand(not proof, where, "a proof of too many hashes")
        return leaf
    demand(proof and len(proof[-1]) == 32, where, "a proof of too few hashes, or of other ones")
    half = 1 << (size - 1).bit_length() - 1
    if index < half:
        return sha256(b"\x01" + proven_root(leaf, index, half, proof[:-1], where) + proof[-1])
    return sha256(b"\x01" + proof[-1] + proven_root(leaf, index - half, size - half, proof[:-1], where))


def tiles(leaf_hashes: list[bytes]) -> Iterator[tuple[int, int, list[bytes]]]:
    """Every tile of a tree: its level, index and hashes."""
    level, hashes = 0, leaf_hashes
    while hashes:
        rows = [hashes[i : i + 256] for i in range(0, len(hashes), 256)]
        yield from ((level, index, row) for index, row in enumerate(rows))
        level, hashes = level + 1, [tree_root(row) for row in rows if len(row) == 256]


def tile_path(level: int | str, index: int, width: int) -> str:
    """The path of a tile; of a bundle of entries, if `level` is "entries"."""
    path = f"{index % 1000:03}" + ("" if width == 256 else f".p/{width}")
    while index := index // 1000:
        path = f"x{index % 1000:03}/{path}"
    return f"tile/{level}/{path}"


def split_entries(data: bytes, count: int, where: str) -> list[bytes]:
    """The entries of a bundle of entries, which holds exactly `count`."""
    entries: list[bytes] = []
    end = 0
    for _ in range(count):
        start = end + 2
        end = start + int.from_bytes(data[end:start], "big")
        demand(end <= len(data), where, f"fewer than {count} entries")
        entries.append(data[start:end])
    demand(end == len(data), where, f"bytes after its {count} entries")
    return entries


def check_log(run: Run) -> str:
    """All entries have the checkpoint's root, and the tiles are theirs."""
    run.entries = []
    room = LOG_BYTES
    for start in range(0, run.checkpoint.size, 256):
        width = min(256, run.checkpoint.size - start)
        path = tile_path("entries", start // 256, width)
        data = run.bundle.read(path, width * 65_537)
        room -= len(data)
        if room < 0:
            raise Gap(path, f"this checker reads no more than {LOG_BYTES} bytes of entries")
        run.entries += split_entries(data, width, path)
    leaf_hashes = run.leaf_hashes = [leaf_hash(entry) for entry in run.entries]
    demand(tree_root(leaf_hashes) == run.checkpoint.root, "checkpoint", "its root is not that of the entries")
    for level, index, hashes in tiles(leaf_hashes):
        path = tile_path(level, index, len(hashes))
        with run.bundle.noting_gaps():
            tile = run.bundle.read(path, 32 * len(hashes))
            demand(tile == b"".join(hashes), path, "not the hashes of the entries")
    return f"{len(run.entries)} entries have the checkpoint's root, and the tiles are theirs"


# ---- Checkpoint, signature, keys: log.md, sections 3 to 5 ----------------------------------------

NAME = r"[^\s+\0-\x1f\ud800-\udfff]{1,255}"  # \s is White_Space, and some characters below U+0020


class Key(NamedTuple):
    """An owner's public key."""

    name: str
    id: bytes
    public: bytes

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(bytes([1]) + self.public).decode()}"


class Checkpoint(NamedTuple):
    """What the text of a log's note says."""

    origin: str
    size: int
    root: bytes
    extensions: list[str]


def parse_note(data: bytes, where: str = "checkpoint") -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """A note's text, and the name, id and signature of each signature line; section 4."""
    try:
        whole = data.decode()
    except UnicodeDecodeError:
        raise Contradiction(where, "not UTF-8") from None
    demand(not re.search(r"[\0-\x09\x0b-\x1f]", whole), where, "a control character")
    body, blank, tail = whole.rpartition("\n\n")
    lines = tail.split("\n")
    good = blank and not lines.pop() and 1 <= len(lines) <= 64 and len(data) <= 65_536
    demand(good, where, "not a text, an empty line and 1 to 64 signature lines")
    signatures = []
    for line in lines:
        match = re.fullmatch(f"\u2014 ({NAME}) ([^ ]+)", line)
        signature = decode_base64(match[2], where) if match else b""
        demand(match and len(signature) >= 5, where, "a signature line that is none")
        signatures.append((match[1] if match else "", signature[:4], signature[4:]))
    return body + "\n", signatures


def parse_checkpoint(body: str, where: str = "checkpoint") -> Checkpoint:
    """Read the text of a log's note; section 3."""
    line = r"[^\0-\x1f]+"
    match = re.fullmatch(rf"({line})\n(0|[1-9][0-9]{{0,18}})\n({line})\n((?:{line}\n)*)", body)
    if match is None or int(match[2]) >= 2**63:
        raise Contradiction(where, "not an origin, a size below 2**63 and a root, each on its line")
    root = decode_base64(match[3], where)
    demand(len(root) == 32, where, "a root that is not of 32 bytes")
    return Checkpoint(match[1], int(match[2]), root, match[4].split("\n")[:-1])


def decode_base64(encoded: str, where: str) -> bytes:
    """Decode base64 of exactly one spelling."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except ValueError:
        raise Contradiction(where, "not base64") from None
    demand(base64.b64encode(data).decode() == encoded, where, "base64 of another spelling")
    return data


def parse_key(value: Any, where: str) -> Key:
    """Read a verification key; section 5."""
    match = re.fullmatch(rf"({NAME})\+([0-9a-f]{{8}})\+(.*)", read(value, str, where))
    data = decode_base64(match[3], where) if match else b""
    if match is None or len(data) != 33 or data[0] != 1:
        raise Contradiction(where, "not an Ed25519 verification key")
    key = Key(match[1], bytes.fromhex(match[2]), data[1:])
    demand(sha256(key.name.encode() + b"\n" + data)[:4] == key.id, where, "a key whose id is not its own")
    return key


def has_signed(key: Key, body: str, signatures: list[tuple[str, bytes, bytes]]) -> bool:
    """Whether a line has the key's name and id, and the signature of every such line is valid."""
    own = [line[2] for line in signatures if line[:2] == key[:2]]
    try:
        for signature in own:
            Ed25519PublicKey.from_public_bytes(key.public).verify(signature, body.encode())
    except (InvalidSignature, ValueError):
        return False
    return bool(own)


def check_pinned_key(run: Run) -> str:
    """The given key has signed, which is known before anything else is read."""
    if run.key is not None:
        demand(has_signed(run.key, *run.note), "checkpoint", f"not signed by the given key, {run.key}")
    return f"the checkpoint is signed by {run.key}"


def check_owner(run: Run) -> str:
    """The manifest's owner, who is the given key, has signed a log of this manifest's origin."""
    owner = run.manifest["owner"]
    origin = origin_of(owner, run.manifest_digest)
    demand(has_signed(owner, *run.note), "checkpoint", f"not signed by the manifest's owner, {owner}")
    demand(run.checkpoint.origin == origin, "checkpoint", f"the origin is not {origin}")
    demand(run.key in (None, owner), "entry 0.owner", f"{owner} is not the given key")
    return f"the checkpoint and its origin are those of {owner}"


def origin_of(owner: Key, manifest_digest: bytes) -> str:
    """The origin of the log of a run."""
    return f"{owner.name}/{manifest_digest.hex()[:32]}"


# ---- Chains and slots: beacon.md, sections 1 to 3 ------------------------------------------------

ROUND = (1, 2**40)
SLOT = (0, 2**24 - 1)
CHAIN = {
    "scheme": {"bls-unchained-g1-rfc9380"},
    **dict.fromkeys(["hash", "group_hash"], digest),
    "public_key": re.compile("[0-9a-f]{192}"),
    "period_seconds": (1, 86_400),
    "genesis_unix_seconds": (0, 2**40),
    "beacon_id": re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
}


def chain_of(value: Any, where: str) -> dict[str, Any]:
    """Read a chain. That its public key is a point of the curve is not looked at; section 1."""
    fields: dict[str, Any] = read(value, CHAIN, where)
    hashed = fields["period_seconds"].to_bytes(4, "big") + fields["genesis_unix_seconds"].to_bytes(8, "big")
    hashed += bytes.fromhex(fields["public_key"]) + fields["group_hash"]
    hashed += b"" if fields["beacon_id"] == "default" else fields["beacon_id"].encode()
    demand(sha256(hashed) == fields["hash"], f"{where}.hash", "not the hash of the chain's parameters")
    return fields


SEED = Variant(
    "source",
    {
        "declared": {"value": digest},
        "beacon": {
            "cadence_seconds": (1, 86_400),
            "chains": [{"chain": chain_of, "first_round": ROUND}, 1, 8],
        },
    },
)


def check_slots(seed: dict[str, Any], where: str) -> None:
    """Refuse chains and rounds that do not fit together; section 3."""
    chains = [each["chain"] for each in seed["chains"]]
    periods = [chain["period_seconds"] for chain in chains]
    demand(len({chain["hash"] for chain in chains}) == len(chains), where, "one chain twice")
    fits = not any(seed["cadence_seconds"] % period for period in periods)
    demand(fits, where, "a cadence that is no multiple of a chain's period")
    due = [round_due(each["chain"], each["first_round"]) for each in seed["chains"]]
    demand(max(due) - min(due) <= max(periods), where, "rounds of slot 0 that are due far apart")


def round_due(chain: dict[str, Any], number: int) -> int:
    """When a round is due, in seconds of Unix time."""
    return int(chain["genesis_unix_seconds"] + (number - 1) * chain["period_seconds"])


def slot_rounds(seed: dict[str, Any], slot: int) -> list[int]:
    """The round of each chain of a slot."""
    cadence = seed["cadence_seconds"]
    return [e["first_round"] + slot * cadence // e["chain"]["period_seconds"] for e in seed["chains"]]


def slot_begins(seed: dict[str, Any], slot: int) -> int:
    """When a slot begins, in seconds of Unix time."""
    rounds = zip(seed["chains"], slot_rounds(seed, slot), strict=True)
    return max(round_due(each["chain"], number) for each, number in rounds)


def slot_value(seed: dict[str, Any], slot: int, signatures: Sequence[str]) -> bytes:
    """The beacon value of a slot, by signatures that are not verified."""
    value = b"gradseal/v1/beacons"
    for each, number, signed in zip(seed["chains"], slot_rounds(seed, slot), signatures, strict=True):
        value += each["chain"]["hash"] + number.to_bytes(8, "big") + sha256(bytes.fromhex(signed))
    return sha256(value)


# ---- Manifest and other entries: bundle.md, sections 1, 3 and 4; program.md, section 9 -----------

COUNT = (1, 2**40)
MANIFEST = {
    "format": {"gradseal/1"},
    "kind": re.compile("manifest"),
    "owner": parse_key,
    **dict.fromkeys(["program", "initialisation", "release"], digest),
    "data": {
        **dict.fromkeys(["root", "schema", "leaves", "shards"], digest),
        **dict.fromkeys(["samples", "shard_samples"], COUNT),
    },
    "plan": {
        **dict.fromkeys(["steps", "batch_size"], COUNT),
        "every": (1, 2**20),
        "accumulate": (1, 65_536),
        "drop_last": bool,
        "order": {"shuffled-v1", "sequential-v1"},
        "collation": {"stack-v1"},
        "seed": SEED,
    },
    "arithmetic": {str: object},
}
ENTRY = Variant(
    "kind",
    {
        "initial": {"seal": digest},
        "segment": {
            "index": (0, 2**24 - 1),
            "first_step": (0, 2**40),
            "steps": (1, 2**20),
            **dict.fromkeys(["seal", "losses"], digest),
        },
        "slot": {"index": SLOT, "signatures": [re.compile("[0-9a-f]{96}"), 1, 8]},
        "gap": {"cause": {"anchor", "beacon"}, "first_slot": SLOT, "last_slot": SLOT},
        "amendment": {"slot": (1, 2**24 - 1), "program": digest},
        "close": {"segments": (0, 2**24), "weights": digest},
    },
)
ENVIRONMENT_TEXTS = ["torch", "machine", "processor", "cpu_capability"]
ENVIRONMENT = {
    **dict.fromkeys(ENVIRONMENT_TEXTS, re.compile("[A-Za-z0-9 _.,+:()@-]{0,120}")),
    **dict.fromkeys(["onednn_isa", "mkl_mode"], re.compile("[A-Za-z0-9_,]{0,40}")),
    **dict.fromkeys(["onednn", "deterministic"], bool),
    "device": {"cpu", "cuda"},
    "matmul_precision": re.compile("highest|high|medium"),
    "threads": (1, 1024),
}


def definition(value: Any, where: str) -> int:
    """Read which definition of exact arithmetic it is; program.md, section 9."""
    if read(value, (0, 65_536), where) != 1:
        raise Gap(where, f"definition {value} is unknown; a later version may know it")
    return 1


ARITHMETIC = Variant("kind", {"native": ENVIRONMENT, "exact": {"definition": definition}})


def parse_manifest(entry: bytes) -> dict[str, Any]:
    """Read entry 0."""
    manifest: dict[str, Any] = read(decode_json(entry, 65_535, "entry 0"), MANIFEST, "entry 0")
    read(manifest["arithmetic"].get("kind"), set(ARITHMETIC.shapes), "entry 0.arithmetic.kind")
    plan = manifest["plan"]
    demand(plan["batch_size"] <= manifest["data"]["samples"], "entry 0.plan.batch_size", "above the samples")
    demand(segment_count(plan) <= 2**24, "entry 0.plan", "more than 2**24 segments")
    if plan["seed"]["source"] == "beacon":
        check_slots(plan["seed"], "entry 0.plan.seed")
    return manifest


def parse_entry(entry: bytes, where: str) -> dict[str, Any]:
    """Read an entry after the manifest."""
    value = decode_json(entry, 65_535, where)
    demand(not isinstance(value, dict) or value.get("kind") != "manifest", where, "a second manifest")
    fields = dict(read(value, ENTRY, where))
    ascends = fields["kind"] != "gap" or fields["first_slot"] <= fields["last_slot"]
    demand(ascends, where, "a gap that ends before it begins")
    return fields


def segment_count(plan: dict[str, Any]) -> int:
    """How many segments a plan has."""
    return -(-int(plan["steps"]) // int(plan["every"]))


def segment_numbers(plan: dict[str, Any], index: int) -> dict[str, int]:
    """What the plan says of a segment."""
    first = index * plan["every"]
    return {"index": index, "first_step": first, "steps": min(plan["every"], plan["steps"] - first)}


def check_manifest(run: Run) -> str:
    """Entry 0."""
    run.manifest, run.manifest_digest = parse_manifest(run.entries[0]), leaf_hash(run.entries[0])
    run.plan, run.data = run.manifest["plan"], run.manifest["data"]
    steps = (
        f"{run.plan['steps']} steps in {segment_count(run.plan)} segments on {run.data['samples']} samples"
    )
    seed = run.plan["seed"]
    if seed["source"] == "declared":
        return f"{steps}, with a declared seed"
    names = ", ".join(each["chain"]["beacon_id"] for each in seed["chains"])
    return f"{steps}, with a slot of {names} each {seed['cadence_seconds']} s from {slot_begins(seed, 0)} on"


class Log:
    """What the entries say so far, each of which stands where it may.

    `seeds` and `programs` are what is drawn from, and in force, from a segment's number on.
    """

    def __init__(self, manifest: dict[str, Any], manifest_digest: bytes) -> None:
        self.plan: dict[str, Any] = manifest["plan"]
        self.manifest_digest = manifest_digest
        self.count = segment_count(self.plan)
        self.beacon = self.plan["seed"]["source"] == "beacon"
        self.seals: list[bytes] = []
        self.segments: list[dict[str, Any]] = []
        self.slots: list[int] = []
        self.seeds: list[tuple[int, bytes]] = []
        self.programs: list[tuple[int, bytes]] = [(0, manifest["program"])]
        self.pending: list[tuple[int, bytes]] = []  # amendments that are not in force yet
        self.missed: dict[str, int] = {}
        self.weights: bytes | None = None
        self.last = ""
        if not self.beacon:
            self.seeds.append((0, run_seed(self.plan["seed"]["value"], manifest_digest)))

    def may_stand(self) -> set[str]:
        """The kinds of entries that may come next."""
        if self.weights is not None:
            return set()
        kinds = {"gap"} if self.beacon else set()
        if self.beacon and self.last != "slot":
            kinds |= {"slot"}
        if not self.seals:
            return kinds | {"initial"} if bool(self.slots) == self.beacon else kinds
        kinds |= {"amendment"} if self.beacon else set()
        return kinds | {"segment" if len(self.segments) < self.count else "close"}

    def add(self, fields: dict[str, Any], where: str) -> None:
        """Take the next entry."""
        kind = fields["kind"]
        demand(kind in self.may_stand(), where, f"{kind} in the wrong place")
        if kind == "slot":
            self.add_slot(fields["index"], fields["signatures"], where)
        elif kind == "gap":
            demand(fields["first_slot"] > self.missed.get(fields["cause"], -1), where, "a gap already told")
            self.missed[fields["cause"]] = fields["last_slot"]
        elif kind == "amendment":
            self.add_amendment(fields["slot"], fields["program"], where)
        else:
            self.add_state(fields, where)
        self.last = self.last if kind in ("gap", "amendment") else kind

    def add_state(self, fields: dict[str, Any], where: str) -> None:
        """State zero, a segment, or the close."""
        numbers: dict[str, int] = {"segments": self.count} if fields["kind"] == "close" else {}
        if fields["kind"] == "segment":
            numbers = segment_numbers(self.plan, len(self.segments))
            self.segments.append(fields)
        demand(fields.items() >= numbers.items(), where, f"its numbers are not the plan's, {numbers}")
        self.seals += [fields["seal"]] if "seal" in fields else []
        self.weights = fields.get("weights")

    def add_slot(self, index: int, signatures: list[str], where: str) -> None:
        """A slot, from which the next segment draws, and which may put an amendment in force."""
        seed = self.plan["seed"]
        demand(len(signatures) == len(seed["chains"]), where, "not one signature for each chain")
        follows = index > self.slots[-1] if self.slots else index == 0
        demand(follows, where, "a slot that does not come after the one before, or is not the first")
        self.slots.append(index)
        own = slot_seed(slot_value(seed, index, signatures), index, self.manifest_digest)
        self.seeds.append((len(self.segments), own))
        in_force = [program for slot, program in self.pending if slot <= index]
        self.pending = [each for each in self.pending if each[0] > index]
        if in_force:
            self.programs.append((len(self.segments), in_force[-1]))

    def add_amendment(self, slot: int, program: bytes, where: str) -> None:
        """Another program, which is in force from a later slot on."""
        demand(slot > self.slots[-1], where, "an amendment for a slot that is not a later one")
        demand(not self.pending or slot >= self.pending[-1][0], where, "an amendment before the one above")
        self.pending.append((slot, program))

    def amended(self) -> list[tuple[int, bytes]]:
        """The amended programs that are read, each with the first segment that it is in force for."""
        waiting = [(len(self.segments), program) for _, program in self.pending]
        return list({first: (first, program) for first, program in [*self.programs[1:], *waiting]}.values())


def check_entries(run: Run) -> str:
    """The other entries stand where they may, and have the plan's numbers."""
    run.log = Log(run.manifest, run.manifest_digest)
    for place, entry in enumerate(run.entries[1:], 1):
        run.log.add(parse_entry(entry, f"entry {place}"), f"entry {place}")
    run.seals, run.segments, run.weights = run.log.seals, run.log.segments, run.log.weights
    said = f"{len(run.segments)} of {run.log.count} segments stand in the plan's order"
    if run.log.beacon:
        said += f", {len(run.log.slots)} slots and {len(run.log.amended())} amended programs between them"
    return said


def check_close(run: Run) -> str:
    """The run was finished."""
    if run.weights is None:
        raise Gap("log", f"the run is not closed: {len(run.segments)} of {segment_count(run.plan)} segments")
    return f"the run is closed after {len(run.segments)} segments"


def check_environment(run: Run) -> str:
    """The fields of arithmetic."""
    found = read(run.manifest["arithmetic"], ARITHMETIC, "entry 0.arithmetic")
    if found["kind"] == "exact":
        return "exact arithmetic, definition {definition}".format(**found)
    return "torch {torch} on {device}, {threads} threads, {processor} ({machine})".format(**found)


# ---- Anchors: bundle.md, section 10; witness.md, section 5; timestamps.md ------------------------

ANCHORED = [{"size": (1, 2**25), "timestamps": (0, 16)}, 0, 65_536]
STAMPED = re.compile(rb"\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01(?:\x05\x00)?\x04\x20(.{32})", re.DOTALL)


class Receipt(NamedTuple):
    """An entry's place in a signed log."""

    entry: int
    proof: list[bytes]
    note: tuple[str, list[tuple[str, bytes, bytes]]]
    checkpoint: Checkpoint


def parse_receipt(data: bytes, where: str) -> Receipt:
    """Read a receipt; witness.md, section 5."""
    demand(len(data) <= 102_400, where, "longer than 102,400 bytes")
    head, _, note = data.partition(b"\n\n")
    match = re.fullmatch(
        rb"c2sp\.org/tlog-proof@v1\n(?:extra ([^\n]+)\n)?index (0|[1-9][0-9]{0,18})((?:\n[^\n]+){0,63})", head
    )
    if match is None or int(match[2]) >= 2**63:
        raise Contradiction(where, "not a receipt's first line, index and hashes")
    extra = decode_base64((match[1] or b"AA==").decode("ascii", "replace"), where)
    proof = [decode_base64(line.decode("ascii", "replace"), where) for line in match[3].split(b"\n")[1:]]
    demand(1 <= len(extra) <= 16_384, where, "not 1 to 16,384 extra bytes")
    demand(all(len(node) == 32 for node in proof), where, "a hash that is not of 32 bytes")
    signed = parse_note(note, where)
    return Receipt(int(match[2]), proof, signed, parse_checkpoint(signed[0], where))


def check_anchors(run: Run) -> str:
    """Every anchored checkpoint is the owner's, and of the beginning of this log."""
    path, limit = "anchors/index", 4_194_304
    try:
        listed = read(decode_json(run.bundle.read(path, limit), limit, path), ANCHORED, path)
    except Absent:
        return "none, so nothing says by when the log was there"
    sizes = [each["size"] for each in listed]
    demand(sizes == sorted(set(sizes)), path, "sizes that do not ascend")
    stamps = own = 0
    for each, root in zip(listed, roots_of(run.leaf_hashes, sizes), strict=True):
        with run.bundle.noting_gaps():
            text = check_receipt(run, each["size"], root)
            for number in range(each["timestamps"]):
                token = run.bundle.read(f"anchors/{each['size']}.{number}.tsr", 65_536)
                stamps, own = stamps + 1, own + (sha256(text.encode()) in STAMPED.findall(token))
    said = (
        f"{len(sizes)} anchored checkpoints are the owner's and of this log; {own} of {stamps} time-stamps "
    )
    return said + "name their digests, by signatures that were not verified"


def check_receipt(run: Run, size: int, root: bytes) -> str:
    """The receipt of an anchored size; gives the text of its checkpoint."""
    path, owner = f"anchors/{size}.tlog-proof", run.manifest["owner"]
    receipt = parse_receipt(run.bundle.read(path, 102_400), path)
    named = (receipt.checkpoint.size, receipt.entry) == (size, size - 1)
    demand(named, path, "not of the last entry of its size")
    demand(has_signed(owner, *receipt.note), path, "not signed by the manifest's owner")
    demand(receipt.checkpoint.origin == run.checkpoint.origin, path, "of another log")
    demand(size <= len(run.entries), path, "the log was anchored with more entries: it was cut short")
    demand(receipt.checkpoint.root == root, path, "not the root of the log of this size: it was forked")
    leaf = run.leaf_hashes[size - 1]
    proven = proven_root(leaf, size - 1, size, receipt.proof, path)
    demand(proven == root, path, "its proof does not lead to the root")
    return receipt.note[0]


# ---- Program: program.md, sections 1, 2 and 5 ----------------------------------------------------

ITEM_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
ITEM_BYTES |= {"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint8": 1, "bool": 1}
DTYPE = re.compile("|".join(ITEM_BYTES))
SHAPE = [(0, 2**40), 0, 16]


class Tensor(NamedTuple):
    """A tensor's description."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """How many bytes its elements have."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def tensor_of(value: Any, where: str) -> Tensor:
    """Read a tensor's description; section 1."""
    fields = read(value, {"name": TEXT, "dtype": DTYPE, "shape": SHAPE}, where)
    tensor = Tensor(fields["name"], fields["dtype"], tuple(fields["shape"]))
    size = math.prod(max(size, 1) for size in tensor.shape) * ITEM_BYTES[tensor.dtype]
    demand(size <= 2**36, where, "more than 2**36 bytes")
    return tensor


def check_bounds(name: str, values: Sequence[float], where: str) -> None:
    """Refuse values that the hyperparameter `name` cannot have."""
    low = -math.inf if name in ("lr", "dampening") else 0.0
    good = all(map(math.isfinite, values)) and min(values) >= low
    below = max(values) < 1 or name not in ("beta1", "beta2")
    demand(good and below, where, f"{name} is out of its bounds")


def optimizer_shape(floats: str, flags: str, most_steps: int = 2**40) -> dict[str, Any]:
    """The shape of an optimizer whose groups have these floats besides `lr`, and these booleans."""
    hyperparameters = {**dict.fromkeys(["lr", *floats.split()], number), **dict.fromkeys(flags.split(), bool)}
    group = {"parameters": [str, 0, 100_000], **hyperparameters}
    return {"groups": [group, 0, 10_000], "steps_before": (0, most_steps)}


ADAM = optimizer_shape("beta1 beta2 eps weight_decay", "amsgrad decoupled_weight_decay foreach")
NADAM = "beta1 beta2 eps weight_decay momentum_decay"
OPTIMIZERS = {
    "sgd": optimizer_shape("momentum dampening weight_decay", "nesterov foreach", 1),
    "adam": ADAM,
    "adamw": ADAM,
    "rmsprop": optimizer_shape("alpha eps weight_decay momentum", "centered foreach"),
    "adagrad": optimizer_shape("lr_decay eps weight_decay", "foreach"),
    "nadam": optimizer_shape(NADAM, "decoupled_weight_decay foreach"),
    "lion": optimizer_shape("beta1 beta2 weight_decay", "", 1),
}


def parse_optimizer(value: Any, where: str) -> dict[str, Any]:
    """Read an optimizer; section 5."""
    optimizer: dict[str, Any] = read(value, Variant("name", OPTIMIZERS), where)
    for name, found in chain.from_iterable(group.items() for group in optimizer["groups"]):
        if isinstance(found, float):
            check_bounds(name, [found], where)
    demand(len(set(trained(optimizer))) == len(trained(optimizer)), where, "a parameter twice")
    return optimizer


def trained(optimizer: dict[str, Any]) -> list[str]:
    """The parameters that an optimizer trains."""
    return list(chain.from_iterable(group["parameters"] for group in optimizer["groups"]))


def piece_of(value: Any, where: str) -> tuple[int, tuple[float, ...]]:
    """Read a piece of a schedule: how many values, and the coefficients of their polynomial; section 5."""
    length, coefficients = read(value, [object, 2, 2], where)
    numbers = tuple(read(coefficients, [number, 1, 8], f"{where}[1]"))
    demand(all(map(math.isfinite, numbers)), where, "a coefficient that is not finite")
    return read(length, (1, SCHEDULED_VALUES), f"{where}[0]"), numbers


SCHEDULED_VALUES, SCHEDULED_PIECES = 2**26, 65_536
COLUMN = {
    "field": str,
    "groups": [(0, MAX_INTEGER), 1, MAX_INTEGER],
    "pieces": [piece_of, 1, SCHEDULED_PIECES],
}
PROGRAM = {
    "format": {"gradseal/program-v1"},
    "layout": [tensor_of, 0, 200_000],
    "constants": [tensor_of, 0, 200_000],
    "graphs": [{"batch_size": (1, 2**30), "graph": digest}, 1, 16],
    "optimizer": parse_optimizer,
    "clip": Nullable(Variant("kind", {"norm": {"max": number}})),
    "schedule": Nullable({"every": (1, 2**40), "columns": [COLUMN, 1, 1024]}),
}


def parse_program(data: bytes) -> dict[str, Any]:
    """Read a program."""
    program: dict[str, Any] = read(decode_json(data, DOCUMENT_BYTES, "program"), PROGRAM, "program")
    for tensors in (program["layout"], program["constants"]):
        demand(len({tensor.name for tensor in tensors}) == len(tensors), "program", "a tensor's name twice")
    sizes = [graph["batch_size"] for graph in program["graphs"]]
    demand(sizes == sorted(set(sizes)), "program.graphs", "not by rising batch size")
    if program["clip"] is not None:
        demand(0 < program["clip"]["max"] < math.inf, "program.clip.max", "not positive and finite")
    check_layout(program["layout"], program["optimizer"])
    if program["schedule"] is not None:
        check_columns(program["schedule"]["columns"], program["optimizer"])
    return program


def kept_keys(name: str, group: dict[str, Any]) -> list[str]:
    """What an optimizer keeps for each parameter of a group."""
    if name == "sgd":
        return ["momentum_buffer"] * (group["momentum"] != 0)
    if name in ("adam", "adamw"):
        return ["exp_avg", "exp_avg_sq"] + ["max_exp_avg_sq"] * group["amsgrad"]
    if name == "rmsprop":
        momentum = ["momentum_buffer"] * (group["momentum"] > 0)
        return ["square_avg", *momentum] + ["grad_avg"] * group["centered"]
    return {"adagrad": ["sum"], "nadam": ["mu_product", "exp_avg", "exp_avg_sq"], "lion": ["exp_avg"]}[name]


def check_layout(layout: list[Tensor], optimizer: dict[str, Any]) -> None:
    """The prefixes stand in order, and the optimizer's tensors are exactly those that it keeps."""
    prefix = re.compile("(parameters|buffers|optimizer)/.", re.DOTALL)
    initials = "".join(tensor.name[0] if prefix.match(tensor.name) else "?" for tensor in layout)
    demand(re.fullmatch("p*b*o*", initials), "program.layout", "not parameters, buffers, optimizer's tensors")
    named = {tensor.name: tensor for tensor in layout}
    expected = []
    for group in optimizer["groups"]:
        for parameter in group["parameters"]:
            own = named.get(f"parameters/{parameter}")
            if own is None:
                raise Contradiction("program.layout", f"it lacks the trained parameter {parameter}")
            for key in kept_keys(optimizer["name"], group):
                like = ("float32", ()) if key == "mu_product" else own[1:]
                expected.append((f"optimizer/{parameter}/{key}", *like))
    found = layout[len(layout) - initials.count("o") :]
    demand(found == expected, "program.layout", "the optimizer's tensors are not those that it keeps")


def check_columns(columns: list[dict[str, Any]], optimizer: dict[str, Any]) -> None:
    """A schedule changes what its groups have, and nothing in two columns."""
    where = "program.schedule"
    changed = [(column["field"], group) for column in columns for group in column["groups"]]
    allowed = {"lr", "weight_decay", "beta1", "beta2"}
    allowed |= {"momentum"} if optimizer["name"] in ("sgd", "rmsprop") else set()
    for field, group in changed:
        demand(group < len(optimizer["groups"]), where, "a group that is not there")
        demand(field in allowed & optimizer["groups"][group].keys(), where, f"{field[:100]} cannot change")
    demand(len(set(changed)) == len(changed), where, "a hyperparameter twice")
    demand(all(c["groups"] == sorted(c["groups"]) for c in columns), where, "groups that do not rise")
    demand(sum(len(c["pieces"]) for c in columns) <= SCHEDULED_PIECES, where, "too many pieces")


def read_program(run: Run, digest: bytes) -> tuple[bytes, dict[str, Any]]:
    """A program's blob, whose batch sizes are the plan's, and what it says."""
    data = run.bundle.blob(digest, DOCUMENT_BYTES)
    program = parse_program(data)
    full = run.plan["batch_size"]
    rest = 0 if run.plan["drop_last"] else run.data["samples"] % full
    sizes = [graph["batch_size"] for graph in program["graphs"]]
    demand(sizes == ([rest, full] if rest else [full]), "program.graphs", "not for the plan's batch sizes")
    return data, program


def check_amended(run: Run) -> str:
    """The programs that amendments put in force, for the same tensors."""
    run.amended = []
    for first, digest in run.log.amended():
        data, program = read_program(run, digest)
        same = (program["layout"], program["constants"]) == (run.layout, run.constants)
        demand(same, f"program from segment {first} on", "not for the tensors of the manifest's program")
        run.amended.append((first, data, program))
    return f"{len(run.amended)}" + "".join(f", from segment {first} on" for first, _, _ in run.amended[:8])


def check_program(run: Run) -> str:
    """The program that the manifest names."""
    run.program_bytes, run.program = read_program(run, run.manifest["program"])
    run.layout, run.constants = run.program["layout"], run.program["constants"]
    parameters = [math.prod(tensor.shape) for tensor in run.layout if tensor.name.startswith("parameters/")]
    return f"{run.program['optimizer']['name']}, {sum(parameters)} parameters, {len(run.layout)} tensors"


def check_schedule(run: Run) -> str:
    """The values of a schedule, and of those in amended programs; section 5."""
    columns = 0
    for program in (run.program, *(program for _, _, program in run.amended)):
        if program["schedule"] is not None:
            check_values(program["schedule"], program["optimizer"], run.plan["steps"])
            columns += len(program["schedule"]["columns"])
    return f"{columns} columns for {run.plan['steps']} steps" if columns else "none"


def check_values(schedule: dict[str, Any], optimizer: dict[str, Any], steps: int) -> None:
    """A schedule is as long as the run, and each value obeys the bounds of what it sets."""
    moves, columns = -(-steps // schedule["every"]), schedule["columns"]
    demand(moves * len(columns) <= SCHEDULED_VALUES, "program.schedule", "too many values")
    for number, column in enumerate(columns):
        where = f"program.schedule.columns[{number}]"
        demand(sum(n for n, _ in column["pieces"]) == moves, where, "not as many values as the run has")
        if moves * len(columns) > EVALUATED_VALUES:
            raise Gap(where, "more values than this checker evaluates")
        check_column(column, list(values_of(column["pieces"])), optimizer["groups"], where)


def values_of(pieces: Iterable[tuple[int, tuple[float, ...]]]) -> Iterator[float]:
    """The values of a column, by Horner's rule."""
    for length, coefficients in pieces:
        for i in range(length):
            t = (2 * i - length) / length
            value = coefficients[-1]
            for coefficient in reversed(coefficients[:-1]):
                value = value * t + coefficient
            yield value


def check_column(
    column: dict[str, Any], values: Sequence[float], groups: list[dict[str, Any]], where: str
) -> None:
    """All values of a column. A momentum of 0 stays 0, another stays above."""
    check_bounds(column["field"], values, where)
    for group in column["groups"] if column["field"] == "momentum" else ():
        used = groups[group]["momentum"] != 0
        demand(all((value != 0) == used for value in values), where, "a momentum becomes 0, or ceases to be")


# ---- Graphs: program.md, section 3 ---------------------------------------------------------------

RESULT = (0, 399_999)
GRAPH = {
    "format": {"gradseal/graph-v1"},
    "inputs": [[object, 2, 2], 0, 200_000],
    "nodes": [[object, 2, 3], 0, 200_000],
    "loss": RESULT,
    "gradients": {str: RESULT},
    "buffers": {str: RESULT},
}
INPUTS = {"state": str, "batch": (0, MAX_INTEGER), "constant": (0, MAX_INTEGER)}
TAGGED: dict[str, Any] = {
    "int": lambda value, where: integer64(read(value, str, where), where),
    "float": number,
    "dtype": DTYPE,
    "memory_format": re.compile("contiguous|preserve|channels_last|channels_last_3d"),
    "layout": re.compile("strided"),
    "device": re.compile("run"),
}


def parse_graph(data: bytes, where: str) -> dict[str, Any]:
    """Read a graph."""
    graph: dict[str, Any] = read(decode_json(data, DOCUMENT_BYTES, where), GRAPH, where)
    for kind, which in graph["inputs"]:
        demand(isinstance(kind, str) and kind in INPUTS, where, "an input that is none")
        read(which, INPUTS[kind], f"{where}: input")
    first = len(graph["inputs"])
    for i, node in enumerate(graph["nodes"]):
        check_node(node, first + i, f"{where}: node {i}")
    results = [graph["loss"], *graph["gradients"].values(), *graph["buffers"].values()]
    demand(max(results) < first + len(graph["nodes"]), where, "a result that is no value")
    return graph


def check_node(node: list[Any], before: int, where: str) -> None:
    """Refuse a node that is none; `before` values stand before it."""
    operator, arguments = read(node[0], str, where), read(node[1], [object, 0, 64], where)
    named = read(node[2], {str: object}, where) if len(node) == 3 else {}
    demand((len(node) == 2 or named) and len(named) <= 64, where, "named arguments that are none, or many")
    for argument in [*arguments, *named.values()]:
        check_argument(argument, before, where)
    if operator == "getitem":
        demand(len(arguments) == 2 and not named, where, "a getitem without a value and an index")
        read(arguments[0], {"ref": (0, before - 1)}, where)
        read(arguments[1], (0, MAX_INTEGER), where)
    elif not re.fullmatch(r"aten\.\w+\.\w+", operator, re.ASCII):
        raise Gap(where, f"an operator of unknown kind, {operator[:100]}")


def check_argument(value: Any, before: int, where: str, depth: int = 0) -> None:
    """Refuse an argument that is of no form."""
    if isinstance(value, list):
        demand(depth < 3 and len(value) <= 4096, where, "a list above 4096, or more than three deep")
        for item in value:
            check_argument(item, before, where, depth + 1)
    elif isinstance(value, dict):
        [tag] = value if len(value) == 1 else [""]
        demand(tag == "ref" or tag in TAGGED, where, "an argument that is none")
        read(value[tag], (0, before - 1) if tag == "ref" else TAGGED[tag], where)
    elif isinstance(value, str):
        demand(len(value) <= 100, where, "an option of more than 100 characters")


def check_references(graph: dict[str, Any], program: dict[str, Any], leaves: int, where: str) -> None:
    """A graph reads and gives only what the program and the batch have."""
    names = {tensor.name for tensor in program["layout"]}
    readable = {name for name in names if not name.startswith("optimizer/")}
    has = {"state": readable, "batch": range(leaves), "constant": range(len(program["constants"]))}
    for kind, which in graph["inputs"]:
        demand(which in has[kind], where, f"it reads {kind} {which}, which it cannot")
    gradients = graph["gradients"].keys() <= set(trained(program["optimizer"]))
    demand(gradients, where, "a gradient of what is not trained")
    demand({f"buffers/{name}" for name in graph["buffers"]} <= names, where, "a value of what is no buffer")


def check_graphs(run: Run) -> str:
    """The graphs, by rising batch size, have nothing in them that the program has not."""
    compressor = lzma.LZMACompressor()
    outlines: set[str] = set()
    size = len(compressor.compress(run.program_bytes))
    run.graphs = []
    run.amended_graphs = [[] for _ in run.amended]
    programs = [(run.program, run.graphs)]
    programs += [(a[2], graphs) for a, graphs in zip(run.amended, run.amended_graphs, strict=True)]
    for number, (program, graphs) in enumerate(programs):
        size += len(compressor.compress(run.amended[number - 1][1])) if number else 0
        for entry in program["graphs"]:
            where = f"graph of batch size {entry['batch_size']}"
            data = run.bundle.blob(entry["graph"], DOCUMENT_BYTES)
            graph = parse_graph(data, where)
            check_references(graph, program, len(run.fields), where)
            graphs.append(graph)
            size += len(compressor.compress(data))
            outlines.add(str([[node[0] for node in graph["nodes"]], sorted(graph["gradients"])]))
    size += len(compressor.flush())
    unlike = "; THEIR OPERATORS OR GRADIENTS DIFFER" if len(outlines) > 1 else ""
    count = sum(len(graphs) for _, graphs in programs)
    return f"{count}, compressed with the programs {size} bytes{unlike}"


# ---- Seeds, words, numbers, permutations: randomness.md, sections 1 to 4 -------------------------

MASK = 2**64 - 1


def run_seed(declared: bytes, manifest_digest: bytes) -> bytes:
    """The run's seed, by HKDF-SHA256."""
    return expand(hmac.digest(bytes(32), declared, "sha256"), b"gradseal/v1/run-seed" + manifest_digest, 32)


def slot_seed(value: bytes, slot: int, manifest_digest: bytes) -> bytes:
    """The seed of a slot, by HKDF-SHA256."""
    info = b"gradseal/v1/slot-seed" + slot.to_bytes(8, "big") + manifest_digest
    return expand(hmac.digest(bytes(32), value, "sha256"), info, 32)


def expand(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand."""
    output = block = b""
    while len(output) < size:
        block = hmac.digest(key, block + info + bytes([len(output) // 32 + 1]), "sha256")
        output += block
    return output[:size]


def derive(seed: bytes, labels: Sequence[str | int], size: int = 16) -> bytes:
    """Bytes for a use of the seed."""
    info = b"gradseal/v1/derive" + size.to_bytes(2, "big")
    for label in labels:
        if isinstance(label, int):
            info += b"i" + label.to_bytes(8, "big")
        else:
            info += b"s" + len(label.encode()).to_bytes(4, "big") + label.encode()
    return expand(seed, info, size)


def words(key: bytes, start: int, count: int) -> list[int]:
    """Words `start` to `start + count` - 1 of a key's stream."""
    k0, k1 = struct.unpack("<2Q", key)
    blocks = (philox(k0, k1, counter) for counter in range(start // 4, -(-(start + count) // 4)))
    return list(chain.from_iterable(blocks))[start % 4 :][:count]


def philox(k0: int, k1: int, counter: int) -> tuple[int, int, int, int]:
    """One block of Philox4x64-10."""
    x0, x1, x2, x3 = (counter >> shift & MASK for shift in (0, 64, 128, 192))
    for _ in range(10):
        a, b = x0 * 0xD2E7470EE14C6C93, x2 * 0xCA5A826395121157
        x0, x1, x2, x3 = (b >> 64) ^ x1 ^ k0, b & MASK, (a >> 64) ^ x3 ^ k1, a & MASK
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & MASK, (k1 + 0xBB67AE8584CAA73B) & MASK
    return x0, x1, x2, x3


def unit(word: int) -> float:
    """A number in [0, 1)."""
    return (word >> 11) * 2.0**-53


def open_unit(word: int) -> float:
    """A number in (0, 1)."""
    return ((word >> 12) + 0.5) * 2.0**-52


def table(rows: str) -> list[tuple[float, ...]]:
    """The coefficients of a numerator and a denominator, each by rising degree."""
    return list(zip(*(map(float, row.split()) for row in rows.strip().split("\n")), strict=True))


LOG_HIGH, LOG_LOW = float.fromhex("0x1.62e42feep-1"), float.fromhex("0x1.a39ef35793c76p-33")
ROOT_HALF = number("3fe6a09e667f3bcd", "the square root of a half")
LOG_SERIES = [1 / (2 * j + 3) for j in range(10)]
CENTRE = table("""
    3.3871328727963666080e0 1
    1.3314166789178437745e2 4.2313330701600911252e1
    1.9715909503065514427e3 6.8718700749205790830e2
    1.3731693765509461125e4 5.3941960214247511077e3
    4.5921953931549871457e4 2.1213794301586595867e4
    6.7265770927008700853e4 3.9307895800092710610e4
    3.3430575583588128105e4 2.8729085735721942674e4
    2.5090809287301226727e3 5.2264952788528545610e3
""")
TAIL = table("""
    1.42343711074968357734e0 1
    4.63033784615654529590e0 2.05319162663775882187e0
    5.76949722146069140550e0 1.67638483018380384940e0
    3.64784832476320460504e0 6.89767334985100004550e-1
    1.27045825245236838258e0 1.48103976427480074590e-1
    2.41780725177450611770e-1 1.51986665636164571966e-2
    2.27238449892691845833e-2 5.47593808499534494600e-4
    7.74545014278341407640e-4 1.05075007164441684324e-9
""")
FAR_TAIL = table("""
    6.65790464350110377720e0 1
    5.46378491116411436990e0 5.99832206555887937690e-1
    1.78482653991729133580e0 1.36929880922735805310e-1
    2.96560571828504891230e-1 1.48753612908506148525e-2
    2.65321895265761230930e-2 7.86869131145613259100e-4
    1.24266094738807843860e-3 1.84631831751005468180e-5
    2.71155556874348757815e-5 1.42151175831644588870e-7
    2.01033439929228813265e-7 2.04426310338993978564e-15
""")


def horner(polynomial: Sequence[float], x: float) -> float:
    """A polynomial's value, from the last coefficient down."""
    total = polynomial[-1]
    for coefficient in polynomial[-2::-1]:
        total = total * x + coefficient
    return total


def log(x: float) -> float:
    """The logarithm of a positive, normal, finite number, the same bits everywhere."""
    if not sys.float_info.min <= x <= sys.float_info.max:
        raise ValueError("a number that has no logarithm here")
    m, k = math.frexp(x)  # ½ ≤ m < 1, where the page has √½ ≤ m < √2
    if m < ROOT_HALF:
        m, k = m * 2, k - 1
    f = m - 1
    s = f / (m + 1)
    z = s * s
    r = (horner(LOG_SERIES, z) * z) * 2
    t = (f - r) * s
    t = t - k * LOG_LOW
    t = t - f
    return k * LOG_HIGH - t


def quantile(u: float) -> float:
    """The normal distribution's quantile of 0 < u < 1."""
    q = u - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return (horner(CENTRE[0], r) / horner(CENTRE[1], r)) * q
    r = math.sqrt(-log(min(u, 1 - u)))
    (numerator, denominator), r = (TAIL, r - 1.6) if r <= 5 else (FAR_TAIL, r - 5)
    value = horner(numerator, r) / horner(denominator, r)
    return -value if q < 0 else value


def permutation(key: bytes, count: int) -> list[int]:
    """The integers below `count`, by the words of a key's stream."""
    drawn = words(key, 0, count)
    return sorted(range(count), key=lambda i: (drawn[i], i))


# ---- Rules: randomness.md, sections 5 and 6 ------------------------------------------------------

NAMES = "0 1 -1 2 -2 3 -3 0.5 -0.5 0.25 0.1 -0.1 0.2 -0.2 0.05 -0.05 0.02 -0.02 0.04 -0.04 0.01 -0.01"
NAMES += " 0.001 -0.001 1e-05 1e-06 -inf"
NAMED = {name: float(name) for name in NAMES.split()} | {"lowest float32": -(2 - 2.0**-23) * 2.0**127}
RATIOS = ["1/1", "2/1", "3/1", "6/1", "4/1", "12/1", "1/3", "2/3", "25/9", "25/3", "50/9", "50/3"]
SCALAR = Variant(
    "form",
    {
        "named": {"name": set(NAMED)},
        "formula": {"sign": re.compile("[+-]"), "ratio": set(RATIOS), "fan": (1, 2**31 - 1)},
        "free": {"bits": number},
    },
)
SCALARS = {
    "constant": ["number"],
    "range": ["start", "step"],
    "uniform": ["low", "high"],
    "normal": ["mean", "std"],
    "normal but a row": ["mean", "std", "row"],
    "truncated normal": ["mean", "std", "low", "high"],
}
RULE = Variant("kind", {kind: dict.fromkeys(names, SCALAR) for kind, names in SCALARS.items()})
INTEGER_CODES = {"int64": "q", "int32": "i", "int16": "h", "int8": "b", "uint8": "B", "bool": "B"}


def scalars_of(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """The scalars of a rule."""
    return [rule[name] for name in SCALARS[rule["kind"]]]


def scalar_value(scalar: dict[str, Any]) -> float:
    """The number that a scalar is."""
    if scalar["form"] == "named":
        return NAMED[scalar["name"]]
    if scalar["form"] == "free":
        return float(scalar["bits"])
    p, q = map(int, scalar["ratio"].split("/"))
    return math.copysign(math.sqrt(p / (q * scalar["fan"])), float(scalar["sign"] + "1"))


def rule_values(rule: dict[str, Any]) -> dict[str, float]:
    """The numbers of a rule, by name."""
    return {name: scalar_value(rule[name]) for name in SCALARS[rule["kind"]]}


def model_fans(shapes: Iterable[Sequence[int]]) -> set[int]:
    """The model's fans."""
    fans: set[int] = set()
    for shape in shapes:
        fans |= set(shape)
        if len(shape) >= 2:
            fan_in, fan_out = math.prod(shape[1:]), shape[0] * math.prod(shape[2:])
            fans |= {fan_in, fan_out, fan_in + fan_out}
    return {fan for fan in fans if 1 <= fan < 2**31}


def check_rule(rule: dict[str, Any], tensor: Tensor, where: str) -> None:
    """Refuse numbers that the rule, the shape or the element type cannot have."""
    kind, value = rule["kind"], rule_values(rule)
    demand(not any(map(math.isnan, value.values())), where, "a scalar that is no number")
    demand(kind == "constant" or all(map(math.isfinite, value.values())), where, "an infinite scalar")
    demand(value.get("std", 0.0) >= 0, where, "a negative deviation")
    if "low" in value:
        demand(value["low"] <= value["high"], where, "low above high")
        demand(math.isfinite(value["high"] - value["low"]), where, "an infinite range")
    if "row" in value:
        there = tensor.shape and value["row"].is_integer() and 0 <= value["row"] < tensor.shape[0]
        demand(there, where, "a row that is not there")
    if kind == "range":
        demand(tensor.shape and tensor.dtype != "bool", where, "a range without a dimension, or of bool")
    if tensor.dtype in INTEGER_CODES:
        check_integer_rule(kind, value, tensor, where)


def check_integer_rule(kind: str, value: dict[str, float], tensor: Tensor, where: str) -> None:
    """Integers are filled by a constant or a range of what the type holds."""
    demand(kind in ("constant", "range"), where, f"{kind} for {tensor.dtype}")
    if kind == "range" and tensor.shape[-1] == 0:
        return
    demand(all(map(float.is_integer, value.values())), where, "a number that is not whole")
    ends = list(value.values())
    if kind == "range":
        ends = [value["start"], (tensor.shape[-1] - 1) * value["step"] + value["start"]]
        demand(max(map(abs, ends)) <= 2**53, where, "a range beyond 2**53")
    bits = 8 * ITEM_BYTES[tensor.dtype]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if INTEGER_CODES[tensor.dtype] == "B":
        low, high = 0, 1 if tensor.dtype == "bool" else 255
    demand(all(low <= end <= high for end in ends), where, f"numbers that {tensor.dtype} does not hold")


def fill(rule: dict[str, Any], tensor: Tensor, seed: bytes) -> Iterator[bytes]:
    """The bytes of a tensor that a rule fills, in pieces."""
    value, elements = rule_values(rule), math.prod(tensor.shape)
    for start in range(0, elements, 4096):
        part = range(start, min(start + 4096, elements))
        yield encode_elements(draw(rule["kind"], value, tensor, seed, part), tensor.dtype)


def draw(kind: str, value: dict[str, float], tensor: Tensor, seed: bytes, elements: range) -> list[float]:
    """Some elements of a tensor that a rule fills, before they are rounded to its type."""
    if kind == "constant":
        return [value["number"]] * len(elements)
    if kind == "range":
        columns, start, step = tensor.shape[-1], value["start"], value["step"]
        return [(i % columns) * step + start for i in elements]
    drawn = words(derive(seed, ["initialise", tensor.name, 0]), elements.start, len(elements))
    if kind == "uniform":
        low, width = value["low"], value["high"] - value["low"]
        return [unit(word) * width + low for word in drawn]
    mean, std = value["mean"], value["std"]
    normal = [quantile(open_unit(word)) * std + mean for word in drawn]
    if kind == "normal but a row":
        size, row = math.prod(tensor.shape[1:]), value["row"]
        return [0.0 if i // size == row else v for i, v in zip(elements, normal, strict=True)]
    if kind == "truncated normal":
        return [truncate(i, v, value, tensor, seed) for i, v in zip(elements, normal, strict=True)]
    return normal


def truncate(element: int, drawn: float, value: dict[str, float], tensor: Tensor, seed: bytes) -> float:
    """The first of 64 attempts that lies in the range; `drawn` is attempt 0."""
    for attempt in range(1, 64):
        if value["low"] <= drawn <= value["high"]:
            return drawn
        [word] = words(derive(seed, ["initialise", tensor.name, attempt]), element, 1)
        drawn = quantile(open_unit(word)) * value["std"] + value["mean"]
    return min(max(drawn, value["low"]), value["high"])


def encode_elements(values: Sequence[float], dtype: str) -> bytes:
    """Round numbers to the element type and write them, little-endian."""
    if dtype in INTEGER_CODES:
        return struct.pack(f"<{len(values)}{INTEGER_CODES[dtype]}", *map(int, values))
    if dtype == "float64":
        return struct.pack(f"<{len(values)}d", *values)
    singles = array("f", values)  # rounds to nearest, ties to even; what is too large becomes infinite
    if dtype == "float32":
        return struct.pack(f"<{len(values)}f", *singles)
    return b"".join(map(half if dtype == "float16" else bfloat, singles))


def half(single: float) -> bytes:
    """A binary16, rounded from a binary32."""
    try:
        return struct.pack("<e", single)
    except OverflowError:
        return struct.pack("<e", math.copysign(math.inf, single))


def bfloat(single: float) -> bytes:
    """A bfloat16, rounded from a binary32."""
    [bits] = struct.unpack("<I", struct.pack("<f", single))
    return struct.pack("<H", (bits + 0x7FFF + (bits >> 16 & 1)) >> 16)


# ---- Initialisation and free bytes: program.md, section 8 ----------------------------------------


def source_of(value: Any, where: str) -> Any:
    """Read where a tensor comes from: a rule, or the digest of given bytes."""
    if isinstance(value, dict) and "given" in value:
        return read(value, {"given": digest}, where)["given"]
    return read(value, {"rule": RULE}, where)["rule"]


INITIALISATION = {"format": {"gradseal/initialisation-v1"}, "state": [source_of], "constants": [source_of]}
COUNTED = re.compile("Scalar|fill|full|arange|linspace|scalar_tensor|constant_pad|clamp|threshold|value")
INDEXING = re.compile(r"aten\.(slice|split|unsafe_split|index|index_put|index_put_)\.")
UNCOUNTED = {0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, math.inf, -math.inf, -100.0}


def parse_initialisation(data: bytes, layout: list[Tensor], constants: list[Tensor]) -> list[Any]:
    """The sources of the layout's tensors and of the constants."""
    found = read(decode_json(data, DOCUMENT_BYTES, "initialisation"), INITIALISATION, "initialisation")
    counts = len(found["state"]) == len(layout) and len(found["constants"]) == len(constants)
    demand(counts, "initialisation", "not one source for each tensor")
    fans = model_fans(tensor.shape for tensor in layout)
    sources = [*found["state"], *found["constants"]]
    for tensor, source in zip([*layout, *constants], sources, strict=True):
        if isinstance(source, dict):
            where = f"initialisation of {tensor.name}"
            used = {scalar["fan"] for scalar in scalars_of(source) if "fan" in scalar}
            demand(used <= fans, where, "a formula with a fan that the model has not")
            check_rule(source, tensor, where)
    return sources


def check_initialisation(run: Run) -> str:
    """Each tensor has a source, and what is given is there."""
    data = run.bundle.blob(run.manifest["initialisation"], DOCUMENT_BYTES)
    run.sources = parse_initialisation(data, run.layout, run.constants)
    pairs = zip([*run.layout, *run.constants], run.sources, strict=True)
    given = [(tensor, source) for tensor, source in pairs if isinstance(source, bytes)]
    for tensor, source in given:
        run.bundle.check_tensor(source, tensor)
    return f"{len(run.sources) - len(given)} tensors by rule, {len(given)} given"


def check_state_zero(run: Run) -> str:
    """State zero is what the rules give with the first seed, or what was given."""
    left = FILL_COST
    if not run.log.seeds:
        raise Gap("log", "no slot has begun")
    for tensor, found, source in zip(run.layout, open_state(run, 0), run.sources, strict=False):
        where = f"state zero: {tensor.name}"
        expected = hashlib.sha256()
        if isinstance(source, dict):
            costs = {"constant": 1 / 256, "truncated normal": 64}
            left -= math.ceil(math.prod(tensor.shape) * costs.get(source["kind"], 1))
            if left < 0:
                raise Gap(where, "too large for this checker to recompute")
            for chunk in fill(source, tensor, run.log.seeds[0][1]):
                expected.update(chunk)
        good = found == (expected.digest() if isinstance(source, dict) else source)
        demand(good, where, "not what the initialisation gives with the first seed")
    return f"every tensor is what its rule gives with the seed of {of_seed(run)}, or was given"


def of_seed(run: Run) -> str:
    """Where the first seed is from."""
    return "slot 0" if run.log.beacon else "the owner's choice"


def free_bytes(
    program: dict[str, Any], sources: list[Any], graphs: list[dict[str, Any]]
) -> list[tuple[str, int]]:
    """What no rule derives, with its bytes. `graphs` stand by rising batch size."""
    items = []
    for tensor, source in zip([*program["layout"], *program["constants"]], sources, strict=True):
        rule = isinstance(source, dict)
        free = 8 * sum("bits" in scalar for scalar in scalars_of(source)) if rule else tensor.size_bytes
        items.append((tensor.name, free))
    rules = [source for source in sources if isinstance(source, dict)]
    items.append(("the choice of rules", rule_bytes(rules)))
    items.append(("shapes of constants and buffers", number_bytes(shape_numbers(program), set())))
    return [item for item in [*items, *said_items(program, graphs)] if item[1]]


def said_items(
    program: dict[str, Any], graphs: list[dict[str, Any]], known: Collection[bytes] = ()
) -> list[tuple[str, int]]:
    """The same of the graphs, but for those that are known, and the optimizer of a program."""
    items = []
    seen: set[bytes] = set()
    for graph, entry in reversed(list(zip(graphs, program["graphs"], strict=True))):
        if entry["graph"] in known:
            continue
        counted = (found for found in graph_numbers(graph) if found not in UNCOUNTED)
        items.append((f"graph of batch size {entry['batch_size']}", number_bytes(counted, seen)))
    optimizer = program["optimizer"]
    items.append((f"hyperparameters of {optimizer['name']}", optimizer_bytes(optimizer, program["clip"])))
    items.append(("schedule", schedule_bytes(program["schedule"]) if program["schedule"] else 0))
    return items


def rule_bytes(rules: list[dict[str, Any]]) -> int:
    """What the choice of rules could say."""
    different = {str(rule): rule for rule in rules}.values()
    size = sum(2 if "fan" in scalar else 1 for rule in different for scalar in scalars_of(rule))
    choice_bits = (max(len(different), 1) - 1).bit_length()
    return size + -(-len(rules) * choice_bits // 8)


def number_bytes(found: Iterable[float], seen: set[bytes]) -> int:
    """What an item's numbers could say, after those in `seen`, to which they are added."""
    uses = [struct.pack(">d", each) for each in found]
    new = set(uses) - seen
    seen |= new
    choice_bits = (max(len(seen), 1) - 1).bit_length()
    return 8 * len(new) + -(-len(uses) * choice_bits // 8)


def schedule_bytes(schedule: dict[str, Any]) -> int:
    """What a schedule's numbers could say, which piece has which, and which groups a column is for."""
    pieces = [piece for column in schedule["columns"] for piece in column["pieces"]]
    shapes = {coefficients for _, coefficients in pieces}
    lengths: set[int] = {length for length, _ in pieces} | {schedule["every"]}
    size = sum(single_bytes(each) for shape in shapes for each in shape)
    size += sum((length.bit_length() + 7) // 8 for length in lengths)
    choice_bits = (len(shapes) - 1).bit_length() + (len(lengths) - 1).bit_length()
    group_bits: int = sum(column["groups"][-1] + 1 for column in schedule["columns"])
    return size + (len(pieces) * choice_bits + group_bits + 7) // 8


def single_bytes(value: float) -> int:
    """The bytes of a coefficient: 4 if single precision holds it, otherwise 8; none for 0."""
    if value == 0:
        return 0
    try:
        return 4 if struct.unpack("<f", struct.pack("<f", value))[0] == value else 8
    except OverflowError:
        return 8


def optimizer_bytes(optimizer: dict[str, Any], clip: dict[str, Any] | None) -> int:
    """What an optimizer's hyperparameters could say, and which group each parameter is in."""
    values = chain([clip["max"]] if clip else [], *(group.values() for group in optimizer["groups"]))
    counted = {each for each in values if isinstance(each, float) and each not in UNCOUNTED}
    choice_bits = (max(len(optimizer["groups"]), 1) - 1).bit_length()
    return 8 * len(counted) + -(-len(trained(optimizer)) * choice_bits // 8)


def graph_numbers(graph: dict[str, Any]) -> Iterator[float]:
    """The numbers among a graph's arguments."""
    for operator, arguments, *named in graph["nodes"]:
        counts = COUNTED.search(operator) or (operator.endswith(".Tensor") and not INDEXING.match(operator))
        for argument in chain(arguments, *(part.values() for part in named)):
            yield from argument_numbers(argument, bool(counts))


def argument_numbers(value: Any, counts: bool) -> Iterator[float]:
    """The numbers of an argument; `counts` says that it is one itself, whatever its size."""
    if isinstance(value, list):
        yield from chain.from_iterable(argument_numbers(item, False) for item in value)
    elif isinstance(value, dict) and "float" in value:
        yield number(value["float"], "graph")
    else:
        whole = int(value["int"]) if isinstance(value, dict) and "int" in value else value
        integral = isinstance(whole, int) and not isinstance(whole, bool)
        if integral and (counts or 1024 < abs(whole) < 2**63 - 1):
            yield float(whole)


def shape_numbers(program: dict[str, Any]) -> Iterator[float]:
    """The dimensions of buffers and constants that no parameter has."""
    parameters = [tensor.shape for tensor in program["layout"] if tensor.name.startswith("parameters/")]
    buffers = [tensor.shape for tensor in program["layout"] if tensor.name.startswith("buffers/")]
    constants = [tensor.shape for tensor in program["constants"]]
    common = set(chain.from_iterable(parameters))
    return (float(size) for size in chain(*buffers, *constants) if size > 1 and size not in common)


def check_free_bytes(run: Run) -> str:
    """Count what no rule derives, as section 8 does."""
    items = free_bytes(run.program, run.sources, run.graphs)
    for (first, _, program), graphs in zip(run.amended, run.amended_graphs, strict=True):
        known = {entry["graph"] for entry in run.program["graphs"]}
        said = said_items(program, graphs, known)
        items += [(f"{name}, amended from segment {first} on", size) for name, size in said if size]
    return f"{sum(size for _, size in items)}" + "".join(f"; {name}: {size}" for name, size in items[:8])


# ---- States and losses: bundle.md, sections 4 and 5 ----------------------------------------------


def seal_of(public: bytes, digests: Iterable[bytes]) -> bytes:
    """What the log says of a state, by the owner's public key and the digests of its tensors."""
    return sha256(b"gradseal/seal-v1\n" + public + tree_root(map(leaf_hash, digests)))


def open_state(run: Run, place: int) -> list[bytes]:
    """The digests of the tensors of state zero, or of that at the end of segment `place` - 1."""
    if place >= len(run.seals):
        raise Gap("log", "state zero is not sealed")
    path = f"openings/{run.seals[place].hex()}"
    data = run.bundle.read(path, 32 * len(run.layout))
    demand(len(data) == 32 * len(run.layout), path, f"not of {32 * len(run.layout)} bytes")
    digests = [data[i : i + 32] for i in range(0, len(data), 32)]
    seal = seal_of(run.manifest["owner"].public, digests)
    demand(seal == run.seals[place], path, "it does not have the seal that is its name")
    return digests


def check_states(run: Run) -> str:
    """Every sealed state opens, and its tensors are there."""
    for place in range(len(run.seals)):
        with run.bundle.noting_gaps():
            for tensor, found in zip(run.layout, open_state(run, place), strict=True):
                run.bundle.check_tensor(found, tensor)
    size = sum(tensor.size_bytes for tensor in run.layout)
    return f"{len(run.seals)} states of {size} bytes each have their seals"


def check_losses(run: Run) -> str:
    """Every segment's losses are there."""
    for segment in run.segments:
        with run.bundle.noting_gaps():
            data = run.bundle.blob(segment["losses"], 19 * segment["steps"] + 1)
            parse_losses(data, segment["steps"], f"losses of segment {segment['index']}")
    return f"one for each step of {len(run.segments)} segments"


def parse_losses(data: bytes, steps: int, where: str) -> list[float]:
    """Read the losses of a segment of so many steps."""
    return list(read(decode_json(data, 19 * steps + 1, where), [number, steps, steps], where))


# ---- Data and order: bundle.md, section 6; program.md, sections 6 and 7 --------------------------


def parse_schema(data: bytes) -> list[Tensor]:
    """Read a sample schema: its fields, in the order of the tree."""
    shape = {"format": {"gradseal/sample-v1"}, "tree": object}
    tree = read(decode_json(data, 2**20, "sample schema"), shape, "sample schema")["tree"]
    fields = list(tree_fields(tree, 1, "sample schema"))
    good = 1 <= len(fields) <= 1024 and 1 <= sum(field.size_bytes for field in fields) <= 2**30
    demand(good, "sample schema", "not 1 to 1,024 fields of 1 to 2**30 bytes together")
    return fields


def tree_fields(value: Any, level: int, where: str) -> Iterator[Tensor]:
    """The fields of a tree that stands in `level` - 1 others."""
    demand(level <= 9 and isinstance(value, dict) and len(value) == 1, where, "in more than 8 trees, or none")
    [(kind, parts)] = value.items()
    read(parts, [object, 0, 1024], where)
    if kind == "tensor" and len(parts) == 2:
        field = tensor_of({"name": "", "dtype": parts[0], "shape": parts[1]}, where)
        demand(max(field.shape, default=0) <= 2**30, where, "a size above 2**30")
        yield field
        return
    demand(kind in ("tuple", "list", "dict"), where, "a tree that is none")
    if kind == "dict":
        pairs = read(parts, [[object, 2, 2]], where)
        demand(len({read(key, str, where) for key, _ in pairs}) == len(pairs), where, "a key twice")
        parts = [part for _, part in pairs]
    for part in parts:
        yield from tree_fields(part, level + 1, where)


def check_schema(run: Run) -> str:
    """The fields of a sample."""
    run.fields = parse_schema(run.bundle.blob(run.data["schema"], 2**20))
    return f"{len(run.fields)} fields, {sum(field.size_bytes for field in run.fields)} bytes a sample"


def check_data(run: Run) -> str:
    """Every sample of every shard has its leaf, and the leaves have the data root."""
    samples, each, path = run.data["samples"], run.data["shard_samples"], blob_path
    size = min(samples, each) * sum(field.size_bytes for field in run.fields)
    demand(size <= 2**30, "entry 0.data.shard_samples", "a shard of more than 2**30 bytes")
    leaves, shards = run.data["leaves"], run.data["shards"]
    with (
        run.bundle.taking(path(leaves), leaves) as take_leaf,
        run.bundle.taking(path(shards), shards) as take_shard,
    ):
        counts = (min(each, samples - start) for start in range(0, samples, each))
        parts = (shard_leaves(run, take_shard(32), count, take_leaf) for count in counts)
        root = tree_root(chain.from_iterable(parts))
        demand(root == run.data["root"], "entry 0.data.root", "not the root of the samples' leaves")
    return f"{samples} samples in {-(-samples // each)} shards have the data root"


def shard_leaves(run: Run, digest: bytes, count: int, take_leaf: Callable[[int], bytes]) -> Iterator[bytes]:
    """The next leaves, which are those of a shard's samples, if the shard is there."""
    left = count
    with run.bundle.noting_gaps(), run.bundle.taking(blob_path(digest), digest) as take:
        for i in range(count):
            leaf = take_leaf(32)
            own = sample_leaf(run.data["schema"], run.fields, take)
            demand(leaf == own, blob_path(digest), f"its sample {i} has not its leaf")
            yield leaf
            left -= 1
    yield from (take_leaf(32) for _ in range(left))


def sample_leaf(schema: bytes, fields: list[Tensor], take: Callable[[int], bytes]) -> bytes:
    """The leaf hash of a shard's next sample."""
    leaf = hashlib.sha256(b"\x00" + schema)
    for field in fields:
        for part in chunks(take, field.size_bytes):
            check_truth_values(part, field.dtype, "shard")
            leaf.update(part)
    return leaf.digest()


def batch(plan: dict[str, Any], samples: int, seeds: Sequence[tuple[int, bytes]], number: int) -> list[int]:
    """The samples of a batch of the run, by its number; `seeds` by the first segment that draws from each."""
    size = plan["batch_size"]
    an_epoch = samples // size if plan["drop_last"] else -(-samples // size)
    epoch, place = divmod(number, an_epoch)
    entries = range(place * size, min(place * size + size, samples))
    if plan["order"] == "sequential-v1":
        return list(entries)
    first = epoch * an_epoch
    begins = {segment * plan["every"] * plan["accumulate"]: seed for segment, seed in seeds}
    seed = begins[max(m for m in begins if m <= first)]
    order = permutation(derive(seed, ["order", epoch]), samples)
    for m in sorted(m for m in begins if first < m <= number):
        left = order[(m - first) * size :]
        anew = permutation(derive(begins[m], ["order", epoch, m]), len(left))
        order[(m - first) * size :] = [left[i] for i in anew]
    return [order[i] for i in entries]


def print_batches(run: Run, count: int) -> None:
    """Print which samples the first batches of the run hold, as far as their seeds are known."""
    if run.log.beacon:
        steps = sum(segment["steps"] for segment in run.segments)
        count = min(count, steps * run.plan["accumulate"])
    if count > 0 and run.data["samples"] > ORDERED_SAMPLES:
        print(f"no batches: this checker puts no more than {ORDERED_SAMPLES} samples in order")
        return
    for place in range(min(count, run.plan["steps"] * run.plan["accumulate"])):
        step, each = divmod(place, run.plan["accumulate"])
        print(f"step {step}, batch {each}:", *batch(run.plan, run.data["samples"], run.log.seeds, place))


# ---- Released weights: bundle.md, section 7 ------------------------------------------------------

WEIGHTS = "weights.safetensors"
WEIGHT_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64"}
WEIGHT_DTYPES |= {"I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}
WEIGHT = {
    "dtype": re.compile("|".join(WEIGHT_DTYPES)),
    "shape": SHAPE,
    "data_offsets": [(0, MAX_INTEGER), 2, 2],
}


def parse_release(data: bytes, layout: list[Tensor]) -> dict[str, str]:
    """Read a release map: by released name, that of the state's tensor."""
    shape = {"format": {"gradseal/release-v1"}, "tensors": {str: str}}
    value = decode_json(data, DOCUMENT_BYTES, "release map")
    tensors: dict[str, str] = read(value, shape, "release map")["tensors"]
    known = {tensor.name for tensor in layout}
    demand(known.issuperset(tensors.values()), "release map", "a tensor that the state has not")
    demand("__metadata__" not in tensors and len(tensors) <= 200_000, "release map", "metadata, or too many")
    return tensors


def parse_weights_header(data: bytes) -> list[Tensor]:
    """The tensors of a safetensors file in the order of their bytes, which have no gaps between them."""
    data = data.rstrip(b" ")
    demand(data.startswith(b"{") and data.endswith(b"}"), WEIGHTS, "a header that is no object")
    demand(b"-" not in re.sub(JSON_STRING, b"", data, flags=re.DOTALL), WEIGHTS, "a number with a sign")
    header = read(parse_json(data, WEIGHTS), {str: WEIGHT}, WEIGHTS)
    end, tensors = 0, []
    for name, fields in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        dtype = WEIGHT_DTYPES[fields["dtype"]]
        tensor = tensor_of({"name": name, "dtype": dtype, "shape": fields["shape"]}, WEIGHTS)
        start, end = end, end + tensor.size_bytes
        demand(fields["data_offsets"] == [start, end], WEIGHTS, f"{name} leaves a gap, overlaps or misfits")
        tensors.append(tensor)
    return tensors


def compare_weights(
    take: Callable[[int], bytes], release: dict[str, str], layout: list[Tensor], digests: list[bytes]
) -> None:
    """A safetensors file holds exactly the release map's tensors of a state."""
    size = int.from_bytes(take(8), "little")
    demand(size <= DOCUMENT_BYTES, WEIGHTS, "a header of more than 2**26 bytes")
    tensors = parse_weights_header(take(size))
    names = {tensor.name for tensor in tensors}
    demand(names == release.keys(), WEIGHTS, "its tensors are not those of the release map")
    state = {tensor.name: (tensor[1:], found) for tensor, found in zip(layout, digests, strict=True)}
    for tensor in tensors:
        kind, found = state[release[tensor.name]]
        demand(tensor[1:] == kind, WEIGHTS, f"{tensor.name} has another type or shape than in the state")
        running = hashlib.sha256()
        for chunk in chunks(take, tensor.size_bytes):
            running.update(chunk)
        demand(running.digest() == found, WEIGHTS, f"{tensor.name} is not that of the last state")


def check_release(run: Run) -> str:
    """The release map names tensors of the state."""
    run.release = parse_release(run.bundle.blob(run.manifest["release"], DOCUMENT_BYTES), run.layout)
    return f"{len(run.release)} tensors"


def check_weights(run: Run) -> str:
    """The released weights are the last state's, and have the close's digest."""
    last = open_state(run, len(run.segments))
    with run.bundle.taking(WEIGHTS, run.weights or b"") as take:
        compare_weights(take, run.release, run.layout, last)
    return f"{len(run.release)} tensors are the last state's"


# ---- The list of checks, and the command line ----------------------------------------------------


class Run:
    """What is known of a run. A check sets what it read; those that need it come later in the list."""

    entries: list[bytes]
    leaf_hashes: list[bytes]
    log: Log
    manifest: dict[str, Any]
    manifest_digest: bytes
    plan: dict[str, Any]
    data: dict[str, Any]
    seals: list[bytes]
    segments: list[dict[str, Any]]
    weights: bytes | None
    fields: list[Tensor]
    program: dict[str, Any]
    program_bytes: bytes
    layout: list[Tensor]
    constants: list[Tensor]
    graphs: list[dict[str, Any]]
    amended: list[
        tuple[int, bytes, dict[str, Any]]
    ]  # from a segment on a program, its bytes and what it says
    amended_graphs: list[list[dict[str, Any]]]
    sources: list[Any]
    release: dict[str, str]

    def __init__(self, root: str, key: Key | None) -> None:
        self.bundle, self.key = Bundle(root), key
        try:
            self.note = parse_note(self.bundle.read("checkpoint", 65_536))
            self.checkpoint = parse_checkpoint(self.note[0])
            demand(1 <= self.checkpoint.size <= 2**25, "checkpoint", "a log of no entries, or too many")
        except Finding as finding:
            raise NotABundle("not a bundle", str(finding)) from finding


CHECKS: list[tuple[str, Callable[[Run], str], list[str]]] = [  # name, check, and the checks that it needs
    ("pinned key", check_pinned_key, []),
    ("log", check_log, []),
    ("manifest", check_manifest, ["log"]),
    ("owner", check_owner, ["manifest"]),
    ("entries", check_entries, ["manifest"]),
    ("anchors", check_anchors, ["owner"]),
    ("close", check_close, ["entries"]),
    ("environment", check_environment, ["manifest"]),
    ("sample schema", check_schema, ["manifest"]),
    ("program", check_program, ["manifest"]),
    ("amendments", check_amended, ["program", "entries"]),
    ("schedule", check_schedule, ["amendments"]),
    ("graphs", check_graphs, ["amendments", "sample schema"]),
    ("initialisation", check_initialisation, ["program"]),
    ("free bytes", check_free_bytes, ["initialisation", "graphs"]),
    ("state zero", check_state_zero, ["initialisation", "entries"]),
    ("states", check_states, ["program", "entries"]),
    ("losses", check_losses, ["entries"]),
    ("data", check_data, ["sample schema"]),
    ("release map", check_release, ["program"]),
    ("weights", check_weights, ["release map", "close"]),
]
EXIT = {"consistent": 0, "rejected": 1, "inconclusive": 3}


def check_bundle(root: str, key: Key | None = None, batches: int = 0) -> str:
    """Run the checks, print a line for each, and give the outcome."""
    run = Run(root, key)
    show("bundle", root, run.checkpoint.origin)
    passed: set[str] = set()
    results: set[str] = set()
    for name, check, needs in CHECKS if key is not None else CHECKS[1:]:
        lacking = [need for need in needs if need not in passed]
        result, summary = judge(check, run) if not lacking else ("not reached", f"needs {', '.join(lacking)}")
        passed |= {name} if result in ("held", "incomplete") else set()
        results.add(result)
        show(result, name, summary)
    if key is None:
        show("not checked", "whose it is", "no key was given: the record only agrees with itself")
    show("not checked", "computation", "no step was replayed, no operator looked up")
    if "entries" in passed and run.log.beacon:
        show("not checked", "beacon", f"the signatures of {len(run.log.slots)} slots, which need BLS12-381")
    show("not checked", "precedence", "no time was judged: no chain, witness or authority is known here")
    if "entries" in passed:
        print_batches(run, batches)
    outcome = "inconclusive" if results & {"incomplete", "inconclusive"} else "consistent"
    outcome = "rejected" if "rejected" in results else outcome
    print(f"{outcome}: {last_sealed(run) if 'entries' in passed else 'the log could not be read'}")
    return outcome


def judge(check: Callable[[Run], str], run: Run) -> tuple[str, str]:
    """The result of a check, and why."""
    run.bundle.gaps = []
    try:
        summary = check(run)
    except Contradiction as finding:
        return "rejected", str(finding)
    except Gap as finding:
        return "inconclusive", str(finding)
    more = len(run.bundle.gaps) - 1
    if more >= 0:
        return "incomplete", f"{run.bundle.gaps[0]}" + (f", and {more} more" if more else "")
    return "held", summary


def show(result: str, name: str, summary: str) -> None:
    """Print a line, in which nothing of the bundle's can end it or fool a terminal."""
    safe = "".join(character if character.isprintable() else "?" for character in summary[:1000])
    print(f"{result:13} {name:15} {safe}")


def last_sealed(run: Run) -> str:
    """Up to where the run is sealed."""
    if not run.segments:
        return "state zero alone is sealed" if run.seals else "no state is sealed"
    last = run.segments[-1]
    return f"the last sealed segment is {last['index']}, up to step {last['first_step'] + last['steps']}"


def key_of(argument: str) -> Key:
    """The key that an argument is, or that the file of this name holds."""
    if os.path.isfile(argument):
        with open(argument, "rb") as file:
            argument = file.read(4096).decode().strip()
    try:
        return parse_key(argument, "--key")
    except Contradiction as finding:
        raise argparse.ArgumentTypeError(str(finding)) from finding


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the bundle that the command line names, and give the exit status."""
    parser = argparse.ArgumentParser(description="Check a Gradseal bundle, all but the replay.")
    parser.add_argument("bundle", help="the bundle's directory")
    parser.add_argument("--key", type=key_of, help="the owner's public key, or a file that holds it")
    parser.add_argument(
        "--batches", type=int, default=0, help="print the samples of the first BATCHES batches"
    )
    options = parser.parse_args(arguments)
    try:
        return EXIT[check_bundle(options.bundle, options.key, options.batches)]
    except (NotABundle, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
