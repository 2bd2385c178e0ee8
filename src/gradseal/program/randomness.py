"""Everything random that a run derives from its seed.

Bytes come from HKDF-SHA256, words from the counter-based generator Philox4x64-10, and numbers from words by
float64 operations that IEEE-754 rounds correctly one by one, so every value is the same on any machine, and
any part of a stream can be computed without the rest. Order here: seeds and keys, words, numbers, uses.
Leaves out what the numbers are for; see `rules`. Format: docs/spec/randomness.md.

Nothing below may fuse a product with a sum or reorder a sum: each operation is one NumPy ufunc call on
elements, and there is no `dot`, no `polyval`, no reduction and no function of the C mathematics library.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from gradseal.errors import MalformedBundle

Words = npt.NDArray[np.uint64]
Floats = npt.NDArray[np.float64]

SEED_BYTES: Final = 32
KEY_BYTES: Final = 16
CHUNK: Final = 1 << 16
"""Elements per pass: 512 KiB of float64, so the few temporaries of a pass stay in the second-level cache."""

_RUN_SEED_INFO: Final = b"gradseal/v1/run-seed"
_SLOT_SEED_INFO: Final = b"gradseal/v1/slot-seed"
_DERIVE_INFO: Final = b"gradseal/v1/derive"
_DECLARED_BYTES_MAX: Final = 1024


def run_seed(declared: bytes, manifest_digest: bytes) -> bytes:
    """The seed of a run, which nobody else's manifest gives.

    Args:
        declared: What the run declares to draw its randomness from, such as a beacon value; 1 to 1024 bytes.
        manifest_digest: SHA-256 of the manifest, 32 bytes.

    Returns:
        32 bytes: HKDF-SHA256 (RFC 5869) without salt, `declared` as input keying material.

    Raises:
        MalformedBundle: If either has a length that is not allowed.
    """
    if not 1 <= len(declared) <= _DECLARED_BYTES_MAX:
        raise MalformedBundle(f"a declared seed has 1 to 1024 bytes, this one {len(declared)}")
    if len(manifest_digest) != SHA256.digest_size:
        raise MalformedBundle(f"a manifest digest has 32 bytes, this one {len(manifest_digest)}")
    info = _RUN_SEED_INFO + manifest_digest
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=info).derive(declared)


def slot_seed(value: bytes, slot: int, manifest_digest: bytes) -> bytes:
    """The seed of a slot, which no other slot and nobody else's manifest gives.

    Args:
        value: The slot's beacon value (`precede.rounds.combine`), 32 bytes; chains and rounds went into it.
        slot: The slot's number.
        manifest_digest: SHA-256 of the manifest, 32 bytes.

    Returns:
        32 bytes: HKDF-SHA256 (RFC 5869) without salt, `value` as input keying material.
    """
    info = _SLOT_SEED_INFO + slot.to_bytes(8, "big") + manifest_digest
    return HKDF(algorithm=SHA256(), length=SEED_BYTES, salt=None, info=info).derive(value)


def derive(seed: bytes, *labels: str | int, size: int = KEY_BYTES) -> bytes:
    """`size` bytes that belong to these labels under this seed and to no others.

    Args:
        seed: 32 bytes, used as the pseudorandom key of HKDF-Expand (RFC 5869, section 2.3).
        labels: Texts, and integers in [0, 2**64); the order counts, and 1 differs from "1".
        size: 1 to 8160 (255 blocks). It is part of the derivation: a shorter output is no prefix of a longer.

    Raises:
        ValueError: If an argument is outside its range.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes, not {len(seed)}")
    if not 1 <= size <= 255 * SHA256.digest_size:
        raise ValueError(f"{size} bytes cannot be derived, only 1 to {255 * SHA256.digest_size}")
    info = _DERIVE_INFO + size.to_bytes(2, "big") + b"".join(map(_encode_label, labels))
    return HKDFExpand(algorithm=SHA256(), length=size, info=info).derive(seed)


def _encode_label(label: str | int) -> bytes:
    # Each label carries its kind and its length, so no two lists of labels have the same bytes.
    if isinstance(label, str):
        text = label.encode()
        return b"s" + len(text).to_bytes(4, "big") + text
    if isinstance(label, bool) or not 0 <= label < 1 << 64:
        raise ValueError(f"an integer label lies in [0, 2**64), {label!r} does not")
    return b"i" + label.to_bytes(8, "big")


def words(key: bytes, start: int, count: int) -> Words:
    """Words `start` to `start + count - 1` of the Philox4x64-10 stream of a key.

    Word i is lane i mod 4 of the block whose 256-bit counter is i // 4 (Salmon et al., "Parallel random
    numbers: as easy as 1, 2, 3", SC 2011). NumPy promises that a bit generator's raw stream stays (NEP 19).

    Args:
        key: 16 bytes, two little-endian uint64 words.
        start: Index of the first word.
        count: How many.

    Returns:
        uint64, shape (count,).

    Raises:
        ValueError: If the key has another length, or `start` or `count` is negative.
    """
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    if start < 0 or count < 0:
        raise ValueError(f"a stream has no {count} words from word {start} on")
    block, skipped = divmod(start, 4)
    # NumPy increments the counter before each block, so the first block must be asked for as block - 1.
    counter = ((block - 1) % (1 << 256)).to_bytes(32, "little")
    generator = np.random.Philox(key=_uint64s(key), counter=_uint64s(counter))
    drawn: Words = generator.random_raw(skipped + count)
    return drawn[skipped:]


def _uint64s(raw: bytes) -> Words:
    return np.frombuffer(raw, dtype="<u8").astype(np.uint64)


def unit(drawn: Words) -> Floats:
    """The upper 53 bits of each word as a multiple of 2^−53 in [0, 1); exact."""
    numbers = (drawn >> np.uint64(11)).view(np.int64).astype(np.float64)
    return np.multiply(numbers, 2.0**-53, out=numbers)


def open_unit(drawn: Words) -> Floats:
    """The upper 52 bits of each word as the midpoint of one of 2^52 cells of (0, 1); exact.

    One bit fewer than `unit`: k + 1/2 with a k of 53 bits is not a float64, and the last would round to 1.
    """
    numbers = (drawn >> np.uint64(12)).view(np.int64).astype(np.float64)
    np.add(numbers, 0.5, out=numbers)
    return np.multiply(numbers, 2.0**-52, out=numbers)


_SQRT_HALF_BITS: Final = np.int64(0x3FE6A09E667F3BCD)
# log 2 in two parts: the high one has 32 bits after the point, so that its product with an exponent is exact.
_LOG2_HIGH: Final = float.fromhex("0x1.62e42feep-1")
_LOG2_LOW: Final = float.fromhex("0x1.a39ef35793c76p-33")
# 2 atanh(s) = 2s + 2s (s²/3 + s⁴/5 + …); as |s| < 0.1716, the first term left out is below 2^−60 of the sum.
_ATANH: Final = tuple(1.0 / odd for odd in range(3, 23, 2))


def log_(x: Floats) -> Floats:
    """Natural logarithm of positive, normal, finite float64, with an error below 1 ulp.

    x = 2^k · m with m in [√½, √2), f = m − 1, s = f / (m + 1), log m = 2 atanh s, which is summed as
    f − s · (f − R) because f, unlike s, is exact.

    Raises:
        ValueError: If an element is not positive, normal and finite.
    """
    if not bool(np.all((x >= np.finfo(np.float64).tiny) & (x < np.inf))):
        raise ValueError("a logarithm is defined here for positive, normal, finite numbers only")
    bits = np.ascontiguousarray(x).view(np.int64)
    k = (bits - _SQRT_HALF_BITS) >> np.int64(52)
    m = (bits - (k << np.int64(52))).view(np.float64)
    exponent = k.astype(np.float64)
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    remainder = _horner(_ATANH, z) * z
    np.multiply(remainder, 2.0, out=remainder)
    total = (f - remainder) * s
    np.subtract(total, exponent * _LOG2_LOW, out=total)
    np.subtract(total, f, out=total)
    return np.subtract(exponent * _LOG2_HIGH, total, out=total)


def _horner(coefficients: tuple[float, ...], x: Floats) -> Floats:
    """c0 + x (c1 + x (c2 + …)), lowest coefficient first, one rounding for each product and each sum."""
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        np.multiply(total, x, out=total)
        np.add(total, coefficient, out=total)
    return total


# Wichura, "Algorithm AS 241: The percentage points of the normal distribution", Applied Statistics 37 (1988),
# routine PPND16: numerator and denominator, lowest degree first, for the centre, the tail and the far tail.
_CENTRE: Final = (
    (
        3.3871328727963666080e0,
        1.3314166789178437745e2,
        1.9715909503065514427e3,
        1.3731693765509461125e4,
        4.5921953931549871457e4,
        6.7265770927008700853e4,
        3.3430575583588128105e4,
        2.5090809287301226727e3,
    ),
    (
        1.0,
        4.2313330701600911252e1,
        6.8718700749205790830e2,
        5.3941960214247511077e3,
        2.1213794301586595867e4,
        3.9307895800092710610e4,
        2.8729085735721942674e4,
        5.2264952788528545610e3,
    ),
)
_TAIL: Final = (
    (
        1.42343711074968357734e0,
        4.63033784615654529590e0,
        5.76949722146069140550e0,
        3.64784832476320460504e0,
        1.27045825245236838258e0,
        2.41780725177450611770e-1,
        2.27238449892691845833e-2,
        7.74545014278341407640e-4,
    ),
    (
        1.0,
        2.05319162663775882187e0,
        1.67638483018380384940e0,
        6.89767334985100004550e-1,
        1.48103976427480074590e-1,
        1.51986665636164571966e-2,
        5.47593808499534494600e-4,
        1.05075007164441684324e-9,
    ),
)
_FAR_TAIL: Final = (
    (
        6.65790464350110377720e0,
        5.46378491116411436990e0,
        1.78482653991729133580e0,
        2.96560571828504891230e-1,
        2.65321895265761230930e-2,
        1.24266094738807843860e-3,
        2.71155556874348757815e-5,
        2.01033439929228813265e-7,
    ),
    (
        1.0,
        5.99832206555887937690e-1,
        1.36929880922735805310e-1,
        1.48753612908506148525e-2,
        7.86869131145613259100e-4,
        1.84631831751005468180e-5,
        1.42151175831644588870e-7,
        2.04426310338993978564e-15,
    ),
)


def normal_quantile(u: Floats) -> Floats:
    """The z with Φ(z) = u, for u in (0, 1), to a few ulp; odd about 1/2, bit for bit, where 1 − u is exact.

    AS 241 (PPND16), with its logarithm by `log_`. NaN, 0 and 1 are not quantiles of anything and are refused.

    Raises:
        ValueError: If an element is outside (0, 1) or below the smallest normal float64.
    """
    q = u - 0.5
    r = 0.180625 - q * q
    quantiles = _ratio(_CENTRE, r)
    np.multiply(quantiles, q, out=quantiles)
    # `~(≤)` and not `>`, so that a NaN goes to the tail, where the logarithm refuses it.
    outer = np.flatnonzero(~(np.abs(q) <= 0.425))
    tails = _tail_quantile(np.minimum(u[outer], 1.0 - u[outer]))
    quantiles[outer] = np.where(q[outer] < 0.0, -tails, tails)
    return quantiles


def _tail_quantile(p: Floats) -> Floats:
    """The positive z with Φ(−z) = p, for p < 0.075."""
    r = np.sqrt(-log_(p))
    quantiles = _ratio(_TAIL, r - 1.6)
    far = np.flatnonzero(r > 5.0)
    quantiles[far] = _ratio(_FAR_TAIL, r[far] - 5.0)
    return quantiles


def _ratio(coefficients: tuple[tuple[float, ...], tuple[float, ...]], r: Floats) -> Floats:
    numerator, denominator = (_horner(part, r) for part in coefficients)
    return np.divide(numerator, denominator, out=numerator)


def permutation(key: bytes, n: int) -> npt.NDArray[np.int64]:
    """0 … n − 1 in the order of (word i of the key's stream, i); int64, shape (n,)."""
    return np.argsort(words(key, 0, n), kind="stable").astype(np.int64, copy=False)


def step_generator_seed(seed: bytes, step: int, micro_batch: int) -> int:
    """What torch's generators are seeded with in native arithmetic before this micro-batch; in [0, 2**63)."""
    return int.from_bytes(derive(seed, "generator", step, micro_batch, size=8), "big") >> 1


def operator_words(seed: bytes, step: int, micro_batch: int, node: int) -> Callable[[int], Words]:
    """What gives the first words of the stream of one node of the graph, in exact arithmetic.

    Args:
        seed: The run's seed at the step.
        step: The number of the step.
        micro_batch: Which part of the step's batch.
        node: The node's number in the graph.
    """
    key = derive(seed, "operator", step, micro_batch, node)
    return lambda count: words(key, 0, count)
