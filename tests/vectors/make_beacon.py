"""Vectors of docs/spec/beacon.md: `beacon.json`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from itertools import count
from typing import Any

from py_arkworks_bls12381 import G1Point, Scalar

from gradseal.precede import bls
from gradseal.precede.chain import QUICKNET, Chain, round_message
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.rounds import BeaconRound, combine
from gradseal.proof.canonical import encode
from gradseal.proof.note import encode_base64

Vectors = dict[str, Any]

LOCAL = LocalChain(
    secret=sha256(b"gradseal's test vectors; never use this key").digest()[1:].rjust(32, b"\0"),
    beacon_id="vectors",
    period_seconds=10,
    genesis_unix_seconds=1_700_000_000,
)

FIELD_ORDER = int(
    "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab", 16
)
INFINITY = b"\xc0" + bytes(47)
OFF_CURVE = b"\x80" + bytes(46) + b"\x01"
OUTSIDE_GROUP = b"\x80" + bytes(46) + b"\x04"
KEY_OFF_CURVE = b"\x80" + bytes(94) + b"\x01"
KEY_OUTSIDE_GROUP = b"\x80" + bytes(94) + b"\x02"

# drand's documentation, and FIELD.md of this project.
_DRAND_ROUNDS = {
    42: "95a9f9f5b231b7714de1553105d8ffdf3dcda24cfdb1e689319bccf79a9c8ce430a91b811fbfaf763900bc998b5d686a",
    657413: (
        "b713718a38ae728dfd477991af2822e08d2f305e47718cef9f7848ce4050e7be41076862b98fad56e91a6b85b89cd97b"
    ),
}

# RFC 9380, appendix J.9.1: message, P.x, P.y.
_RFC_TAG = "QUUX-V01-CS02-with-BLS12381G1_XMD:SHA-256_SSWU_RO_"
_RFC_POINTS = [
    (
        "",
        "052926add2207b76ca4fa57a8734416c8dc95e24501772c814278700eed6d1e4e8cf62d9c09db0fac349612b759e79a1",
        "08ba738453bfed09cb546dbb0783dbb3a5f1f566ed67bb6be0e8c67e2e81a4cc68ee29813bb7994998f3eae0c9c6a265",
    ),
    (
        "abc",
        "03567bc5ef9c690c2ab2ecdf6a96ef1c139cc0b2f284dca0a9a7943388a49a3aee664ba5379a7655d3c68900be2f6903",
        "0b9c15f3fe6e5cf4211f346271d7b01c8f3b28be689c8429c85b67af215533311f0b8dfaaa154fa6b88176c229f2885d",
    ),
    (
        "abcdef0123456789",
        "11e0b079dea29a68f0383ee94fed1b940995272407e3bb916bbf268c263ddd57a6a27200a784cbc248e84f357ce82d98",
        "03a87ae2caf14e8ee52e51fa2ed8eefe80f02457004ba4d486d6aa1f517c0889501dc7413753f9599b099ebcbbd2d709",
    ),
    (
        "q128_" + 128 * "q",
        "15f68eaa693b95ccb85215dc65fa81038d69629f70aeee0d0f677cf22285e7bf58d7cb86eefe8f2e9bc3f8cb84fac488",
        "1807a1d50c29f430b8cafc4f8638dfeeadf51211e1602a5f184443076715f91bb90a48ba1e370edce6ae1062f5e6dd38",
    ),
    (
        "a512_" + 512 * "a",
        "082aabae8b7dedb0e78aeb619ad3bfd9277a2f77ba7fad20ef6aabdc6c31d19ba5a6d12283553294c1825c4b3ca2dcfe",
        "05b84ae5a942248eea39e1d91030458c40153f3b654ab7872d779ad1e942856a20c438e8d99bc8abfbf74729ce1f7ac8",
    ),
]


def local_round(number: int) -> BeaconRound:
    """A round of the vectors' own chain."""
    return LOCAL.sign(number, now_unix_seconds=LOCAL.chain.round_due(number))


def beacon() -> Vectors:
    """docs/spec/beacon.md."""
    quicknet = [
        BeaconRound(chain=QUICKNET, number=number, signature=bytes.fromhex(signature))
        for number, signature in _DRAND_ROUNDS.items()
    ]
    local = [local_round(number) for number in (1, 2, 1 << 40)]
    return {
        "about": (
            "hash_to_curve: `message` hashes to the point (x, y) of G1 under the tag `dst`. chains: `text` "
            "is the chain's JSON, `info` what a relay answers to /info, `hash` its hash. keys: `key` is the "
            "key of the chain of that hash. rounds: `signature` is the chain's of `round`, which is `due` at "
            "that second of Unix time and has this `randomness`. combinations: `rounds` in this order give "
            "`value`. invalid: chains, infos, keys and combinations must be refused; signatures do not "
            "verify."
        ),
        "hash_to_curve": [
            {"dst": _RFC_TAG, "message": message, "x": x, "y": y, "source": "RFC 9380, appendix J.9.1"}
            for message, x, y in _RFC_POINTS
        ],
        "chains": [_chain(QUICKNET) | {"source": "drand"}, _chain(LOCAL.chain)],
        "keys": [{"key": LOCAL.encode(), "hash": LOCAL.chain.hash.hex()}],
        "rounds": [_round(one) | {"source": "drand"} for one in quicknet] + [_round(one) for one in local],
        "combinations": [
            {"rounds": [one.to_json() for one in rounds], "value": combine(rounds).hex()}
            for rounds in (quicknet[:1], local[:1], [quicknet[0], local[0]], [local[0], quicknet[0]])
        ],
        "invalid": {
            "chains": [{"reason": reason, "text": text} for reason, text in _bad_chains()],
            "infos": [{"reason": reason, "text": text} for reason, text in _bad_infos()],
            "keys": [{"reason": reason, "key": key} for reason, key in _bad_keys()],
            "signatures": [
                {"reason": reason, "chain": LOCAL.chain.hash.hex(), "round": number, "signature": data.hex()}
                for number, reason, data in [*((1, *bad) for bad in _bad_signatures()), _not_reduced()]
            ],
            "combinations": [
                {"reason": "no round", "rounds": []},
                {"reason": "two rounds of one chain", "rounds": [one.to_json() for one in local[:2]]},
            ],
        },
    }


def _chain(chain: Chain) -> Vectors:
    return {
        "text": encode(chain.to_json()).decode(),
        "info": json.dumps(chain.to_info()),
        "hash": chain.hash.hex(),
    }


def _round(one: BeaconRound) -> Vectors:
    due = one.chain.round_due(one.number)
    return {**one.to_json(), "due": due, "randomness": one.randomness.hex()}


def _bad_signatures() -> Iterator[tuple[str, bytes]]:
    right = local_round(1).signature
    point = G1Point.from_compressed_bytes(right)
    secret = Scalar.from_be_bytes(LOCAL.secret)

    def signed(message: bytes, dst: bytes) -> bytes:
        return (G1Point.hash_to_curve(message, dst) * secret).to_compressed_bytes()

    yield "empty", b""
    yield "a byte short", right[:-1]
    yield "a byte more", right + b"\0"
    yield "not compressed", point.to_xy_bytes_be()
    yield "of another round", local_round(2).signature
    yield "of another key", bls.sign(bytes(31) + b"\x07", round_message(1))
    yield "the same point negated", (-point).to_compressed_bytes()
    yield "twice the point", (point + point).to_compressed_bytes()
    yield "the round itself, not hashed", signed((1).to_bytes(8, "big"), bls.DOMAIN)
    yield "the round little-endian", signed(sha256((1).to_bytes(8, "little")).digest(), bls.DOMAIN)
    yield (
        "the tag of G2, as drand's older scheme has it",
        signed(round_message(1), bls.DOMAIN.replace(b"G1", b"G2")),
    )
    yield "the tag of RFC 9380's vectors", signed(round_message(1), _RFC_TAG.encode())
    yield "the generator", G1Point().to_compressed_bytes()
    yield "infinity", INFINITY
    yield "infinity with a sign", b"\xe0" + bytes(47)
    yield "infinity with other bits", b"\xc0" + bytes(46) + b"\x01"
    yield "off the curve", OFF_CURVE
    yield "on the curve, outside the group", OUTSIDE_GROUP
    # A pairing does not see the difference, so without the check of the group a round had many signatures.
    yield "the right point and one of small order", (point + _small_order()).to_compressed_bytes()
    yield "without the bit for compression", bytes([right[0] & 0x7F]) + right[1:]
    yield "with the bit for infinity", bytes([right[0] | 0x40]) + right[1:]
    yield "x equal to the field's order", (FIELD_ORDER | 1 << 383).to_bytes(48, "big")
    yield "all bits set", b"\xff" * 48


def _small_order() -> G1Point:
    """The group's order times a point outside the group: what the cofactor has left of it."""
    outside = G1Point.from_compressed_bytes_unchecked(OUTSIDE_GROUP)
    total = G1Point.identity()
    for bit in f"{bls.GROUP_ORDER:b}":
        total = total + total + (outside if bit == "1" else G1Point.identity())
    return total


def _not_reduced() -> tuple[int, str, bytes]:
    """The first signature to whose x the field's order can be added within 381 bits, with it added."""
    for number in count(1):
        flags, x = divmod(int.from_bytes(local_round(number).signature, "big"), 1 << 381)
        if x + FIELD_ORDER < 1 << 381:
            break
    return number, "x not reduced", (flags << 381 | x + FIELD_ORDER).to_bytes(48, "big")


def _bad_chains() -> Iterator[tuple[str, str]]:
    good = LOCAL.chain.to_json()

    def changed(**fields: Any) -> str:
        return encode({**good, **fields}).decode()

    public = LOCAL.chain.public_key
    yield "another hash", changed(hash=QUICKNET.hash.hex())
    yield "another period", changed(period_seconds=11)
    yield "another genesis", changed(genesis_unix_seconds=1_700_000_001)
    yield "another name", changed(beacon_id="vector")
    yield "another group", changed(group_hash=bytes(32).hex())
    yield "another key", changed(public_key=QUICKNET.public_key.hex())
    yield "another scheme", changed(scheme="pedersen-bls-unchained")
    yield "a field too many", changed(more=1)
    yield "a field missing", encode({n: v for n, v in good.items() if n != "group_hash"}).decode()
    yield "upper-case digits", changed(public_key=public.hex().upper())
    yield "a key a byte short", changed(public_key=public.hex()[:-2])
    yield "a key in G1", changed(public_key=G1Point().to_compressed_bytes().hex())
    for reason, key in {
        "a key at infinity": b"\xc0" + bytes(95),
        "a key off the curve": KEY_OFF_CURVE,
        "a key outside the group": KEY_OUTSIDE_GROUP,
    }.items():
        yield reason, changed(public_key=key.hex(), hash=_hash(good, key))
    yield "a period of none", changed(period_seconds=0)
    yield "a negative genesis", changed(genesis_unix_seconds=-1)
    yield "a name with a space", changed(beacon_id="a b")
    yield "no name", changed(beacon_id="")
    yield "not canonical", json.dumps(good)


def _hash(chain: Any, public: bytes) -> str:
    """The hash that a chain would have with this key, if a chain could have it."""
    parameters = chain["period_seconds"].to_bytes(4, "big") + chain["genesis_unix_seconds"].to_bytes(8, "big")
    return sha256(
        parameters + public + bytes.fromhex(chain["group_hash"]) + chain["beacon_id"].encode()
    ).hexdigest()


def _bad_infos() -> Iterator[tuple[str, str]]:
    good = LOCAL.chain.to_info()
    text = json.dumps(good)
    yield "empty", ""
    yield "not an object", "[]"
    yield "a key twice", text[:-1] + ', "period": 10}'
    yield "a float", text.replace("10,", "10.0,")
    yield "another hash", json.dumps({**good, "hash": QUICKNET.hash.hex()})
    yield "another period", json.dumps({**good, "period": 11})
    yield "no metadata", json.dumps({n: v for n, v in good.items() if n != "metadata"})
    yield "another scheme", json.dumps({**good, "schemeID": "bls-unchained-on-g1"})
    yield "nested too deep", "[" * 4000
    yield "more than 4096 bytes", text + 4096 * " "


def _bad_keys() -> Iterator[tuple[str, str]]:
    good = LOCAL.encode()
    head, secret = good.rsplit("+", 1)
    yield "empty", ""
    yield "no prefix", good.removeprefix("PRIVATE+BEACON+")
    yield "a newline at the end", good + "\n"
    yield "another period", good.replace("+10+", "+11+")
    yield "a leading zero", good.replace("+10+", "+010+")
    yield "another name", good.replace("vectors", "vector")
    yield "base64 without its end", good[:-1]
    yield "a secret of zero", f"{head}+{'A' * 43}="
    yield "the group's order", f"{head}+{encode_base64(bls.GROUP_ORDER.to_bytes(32, 'big'))}"
    yield "a signing key", good.replace("BEACON", "KEY")
    yield "another secret", f"{head}+{secret[:5]}{'B' if secret[5] == 'A' else 'A'}{secret[6:]}"
