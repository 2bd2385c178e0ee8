from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import mpmath  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import MalformedBundle
from gradseal.program import randomness
from gradseal.program.randomness import (
    derive,
    log_,
    normal_quantile,
    open_unit,
    permutation,
    run_seed,
    step_generator_seed,
    unit,
    words,
)
from vectors import make, make_randomness

Floats = npt.NDArray[np.float64]

SPECIFICATION = Path(__file__).parents[2] / "docs" / "spec" / "randomness.md"
SEED = bytes(range(32))
KEY = bytes(range(16))
LABELS = st.lists(st.text(max_size=4) | st.integers(0, 2**64 - 1), max_size=4)


MADE = make_randomness.randomness_vectors()
VECTORS = json.loads((make.HERE / "randomness.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", sorted(VECTORS))
def test_the_code_gives_the_published_vectors(section: str) -> None:
    assert MADE[section] == VECTORS[section]


def _expand(key: bytes, info: bytes, size: int) -> bytes:
    """HKDF-Expand of RFC 5869, section 2.3, as written there."""
    output = block = b""
    for number in range(1, -(-size // 32) + 1):
        block = hmac.digest(key, block + info + bytes([number]), "sha256")
        output += block
    return output[:size]


def test_a_run_seed_is_hkdf_of_the_declared_bytes_and_the_manifest() -> None:
    declared, manifest_digest = b"beacon", hashlib.sha256(b"manifest").digest()
    extracted = hmac.digest(bytes(32), declared, "sha256")
    assert run_seed(declared, manifest_digest) == _expand(
        extracted, b"gradseal/v1/run-seed" + manifest_digest, 32
    )


@pytest.mark.parametrize(("declared", "digest"), [(b"", bytes(32)), (bytes(1025), bytes(32)), (b"x", b"x")])
def test_a_run_seed_refuses_lengths_that_are_not_allowed(declared: bytes, digest: bytes) -> None:
    with pytest.raises(MalformedBundle):
        run_seed(declared, digest)


def test_derive_is_hkdf_expand_of_prefixed_labels() -> None:
    info = b"gradseal/v1/derive" + b"\x00\x28" + b"s\x00\x00\x00\x02\xc3\xa4" + b"i" + bytes(7) + b"\x07"
    assert derive(SEED, "ä", 7, size=40) == _expand(SEED, info, 40)


@given(LABELS, LABELS)
def test_only_equal_labels_give_equal_bytes(left: list[str | int], right: list[str | int]) -> None:
    assert (derive(SEED, *left) == derive(SEED, *right)) == (left == right)


def test_a_shorter_derivation_is_no_prefix_of_a_longer() -> None:
    assert derive(SEED, "a", size=32)[:16] != derive(SEED, "a", size=16)


@pytest.mark.parametrize("label", [-1, 2**64, True])
def test_derive_refuses_labels_without_an_encoding(label: int) -> None:
    with pytest.raises(ValueError, match="integer label"):
        derive(SEED, label)


def test_derive_refuses_a_seed_or_size_out_of_range() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        derive(SEED[1:])
    for size in (0, 255 * 32 + 1):
        with pytest.raises(ValueError, match="cannot be derived"):
            derive(SEED, size=size)


@pytest.mark.parametrize(
    ("key", "start", "expected"),
    [
        # Known answers of Random123, "kat_vectors", philox4x64 10: counter and key of zeros; of ones.
        (bytes(16), 0, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        (
            b"\xff" * 16,
            4 * (2**256 - 1),
            "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
        ),
    ],
)
def test_words_are_those_of_the_published_generator(key: bytes, start: int, expected: str) -> None:
    assert [f"{word:016x}" for word in words(key, start, 4)] == expected.split()


def _philox(key: bytes, block: int) -> list[int]:
    """Ten rounds as in Salmon et al. (2011), in Python's integers."""
    mask = 2**64 - 1
    k = [int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")]
    x = [(block >> shift) & mask for shift in (0, 64, 128, 192)]
    for _ in range(10):
        a, b = x[0] * 0xD2E7470EE14C6C93, x[2] * 0xCA5A826395121157
        x = [(b >> 64) ^ x[1] ^ k[0], b & mask, (a >> 64) ^ x[3] ^ k[1], a & mask]
        k = [(k[0] + 0x9E3779B97F4A7C15) & mask, (k[1] + 0xBB67AE8584CAA73B) & mask]
    return x


@given(st.binary(min_size=16, max_size=16), st.integers(0, 2**66))
def test_word_i_is_lane_i_mod_4_of_block_i_div_4(key: bytes, index: int) -> None:
    assert int(words(key, index, 1)[0]) == _philox(key, index // 4)[index % 4]


@given(st.integers(0, 300), st.integers(0, 300))
def test_any_part_of_a_stream_is_a_slice_of_it(start: int, count: int) -> None:
    np.testing.assert_array_equal(words(KEY, start, count), words(KEY, 0, 600)[start : start + count])


@pytest.mark.parametrize(("key", "start", "count"), [(b"short", 0, 1), (KEY, -1, 4), (KEY, 0, -1)])
def test_words_that_do_not_exist_are_refused(key: bytes, start: int, count: int) -> None:
    with pytest.raises(ValueError, match=r"bytes|words"):
        words(key, start, count)


def test_units_stay_inside_their_intervals() -> None:
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert unit(ends).tolist() == [0.0, 1.0 - 2.0**-53]
    assert open_unit(ends).tolist() == [2.0**-53, 1.0 - 2.0**-53]


def _distance(sample: Floats, probabilities: Floats) -> float:
    """Kolmogorov–Smirnov distance times √n, of a sample's probabilities under the claimed law."""
    n = sample.size
    below = np.arange(n) / n
    return float(np.max(np.maximum(probabilities - below, below + 1.0 / n - probabilities)) * math.sqrt(n))


@pytest.mark.parametrize("to_unit", [unit, open_unit])
def test_units_are_uniform(to_unit: Callable[[npt.NDArray[np.uint64]], Floats]) -> None:
    sample = np.sort(to_unit(words(KEY, 0, 100_000)))
    # 1.95 is exceeded with a probability of 0.001; seeds are fixed.
    assert _distance(sample, sample) < 1.95


def test_quantiles_of_units_are_normal() -> None:
    sample = np.sort(normal_quantile(open_unit(words(KEY, 0, 100_000))))
    expected = np.array([0.5 * math.erfc(-z / math.sqrt(2.0)) for z in sample])
    assert _distance(sample, expected) < 1.95
    assert abs(float(np.mean(sample))) < 0.01
    assert abs(float(np.std(sample)) - 1.0) < 0.01


def _sample(low: float, high: float, count: int = 2000) -> Floats:
    return np.random.default_rng(7).uniform(low, high, count)


LOGARITHMS = {
    "around 1": 1.0 + _sample(-1e-3, 1e-3),
    "beside 1": np.concatenate([1.0 - np.exp2(_sample(-52, -1)), 1.0 + np.exp2(_sample(-52, -1))]),
    "one octave": _sample(0.6, 1.6),
    "the tail of a quantile": np.exp2(_sample(-53, -3)),
    "any exponent": np.exp2(_sample(-1022, 1023)),
}


@pytest.mark.parametrize("place", LOGARITHMS)
def test_a_logarithm_is_within_one_ulp(place: str) -> None:
    x = LOGARITHMS[place]
    x = x[x != 1.0]
    with mpmath.workdps(40):
        exact = [mpmath.log(mpmath.mpf(float(a))) for a in x]
        errors = [abs(mpmath.mpf(float(b)) - c) for b, c in zip(log_(x), exact, strict=True)]
    spacing = np.spacing(np.abs(np.array(exact, dtype=np.float64)))
    assert float(np.max(np.array(errors, dtype=np.float64) / spacing)) < 0.95


def test_logarithms_that_are_exact() -> None:
    assert log_(np.array([1.0])).view(np.uint64).tolist() == [0]
    assert float(log_(np.array([np.e]))[0]) == 1.0


@pytest.mark.parametrize("x", [0.0, -1.0, math.inf, math.nan, 5e-324])
def test_a_logarithm_refuses_what_it_does_not_define(x: float) -> None:
    with pytest.raises(ValueError, match="positive, normal, finite"):
        log_(np.array([x]))


QUANTILES = {
    "anywhere": _sample(0.0, 1.0),
    "the centre": _sample(0.499, 0.501, 500),
    "across the first split": np.concatenate([_sample(0.07, 0.08, 300), _sample(0.92, 0.93, 300)]),
    "the tails of a word": np.concatenate([np.exp2(_sample(-53, -3)), 1.0 - np.exp2(_sample(-53, -3))]),
    "the far tail": np.exp2(_sample(-1000, -30, 300)),
}


def _exact_quantile(u: float, start: float) -> mpmath.mpf:
    """Newton on the log of the smaller tail, from a close start."""
    p = mpmath.mpf(u) if u < 0.5 else 1 - mpmath.mpf(u)
    z = -abs(mpmath.mpf(start))
    for _ in range(3):
        tail = mpmath.erfc(-z / mpmath.sqrt(2)) / 2
        density = mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mpmath.pi)
        z -= tail / density * mpmath.log(tail / p)
    return z if u < 0.5 else -z


@pytest.mark.parametrize("place", QUANTILES)
def test_a_normal_quantile_is_exact_to_seven_parts_in_ten_to_the_sixteen(place: str) -> None:
    u = QUANTILES[place]
    u = u[(u > 0.0) & (u < 1.0) & (u != 0.5)]
    with mpmath.workdps(40):
        pairs = list(zip(u.tolist(), normal_quantile(u).tolist(), strict=True))
        exact = [_exact_quantile(p, z) for p, z in pairs]
        errors = [float(abs(z - x) / abs(x)) for (_, z), x in zip(pairs, exact, strict=True)]
    assert max(errors) < 8e-16


def test_a_normal_quantile_is_odd() -> None:
    u = open_unit(words(KEY, 0, 10_000))
    np.testing.assert_array_equal(normal_quantile(1.0 - u), -normal_quantile(u))
    assert normal_quantile(np.array([0.5])).view(np.uint64).tolist() == [0]


@pytest.mark.parametrize("u", [0.0, 1.0, -0.1, 1.1, math.nan])
def test_a_normal_quantile_refuses_what_is_no_probability(u: float) -> None:
    with pytest.raises(ValueError, match="positive, normal, finite"):
        normal_quantile(np.array([0.3, u]))


def test_numbers_do_not_depend_on_where_they_stand() -> None:
    # Vector units treat the last few elements apart; no element may notice.
    u = open_unit(words(KEY, 0, 67))
    alone = np.concatenate([normal_quantile(u[i : i + 1]) for i in range(67)])
    np.testing.assert_array_equal(normal_quantile(u), alone)
    np.testing.assert_array_equal(normal_quantile(u[::3]), alone[::3])


@given(st.binary(min_size=16, max_size=16), st.integers(0, 200))
def test_a_permutation_orders_by_word_and_index(key: bytes, n: int) -> None:
    drawn = words(key, 0, n).tolist()
    assert permutation(key, n).tolist() == sorted(range(n), key=lambda i: (drawn[i], i))


def test_a_permutation_breaks_ties_by_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(randomness, "words", lambda *_: np.array([5, 2**63, 5, 1, 5], dtype=np.uint64))
    assert permutation(KEY, 5).tolist() == [3, 0, 2, 4, 1]


def _polynomial(coefficients: tuple[float, ...], x: float) -> float:
    total = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        total = total * x
        total = total + coefficient
    return total


def _log_in_python(x: float) -> float:
    m, k = math.frexp(x)
    if m < 0.7071067811865476:
        m, k = m * 2.0, k - 1
    f = m - 1.0
    s = f / (m + 1.0)
    z = s * s
    r = _polynomial(tuple(1.0 / odd for odd in range(3, 23, 2)), z) * z * 2.0
    return k * 0.6931471803691238 - (((f - r) * s - k * 1.9082149292705877e-10) - f)


def _quantile_in_python(u: float) -> float:
    q = u - 0.5
    if abs(q) <= 0.425:
        r, part = 0.180625 - q * q, randomness._CENTRE
        return _polynomial(part[0], r) / _polynomial(part[1], r) * q
    r = math.sqrt(-_log_in_python(min(u, 1.0 - u)))
    r, part = (r - 1.6, randomness._TAIL) if r <= 5.0 else (r - 5.0, randomness._FAR_TAIL)
    z = _polynomial(part[0], r) / _polynomial(part[1], r)
    return -z if q < 0.0 else z


@given(st.floats(5e-300, 1.0, exclude_max=True) | st.floats(0.0, 1.0).map(lambda t: 2.0 ** -(1 + 51 * t)))
def test_nothing_is_fused_or_reordered(u: float) -> None:
    # Python's floats are rounded after every operation, so equal bits mean that NumPy's were too.
    assert log_(np.array([u] * 9)).tolist() == [_log_in_python(u)] * 9
    assert normal_quantile(np.array([u] * 9)).tolist() == [_quantile_in_python(u)] * 9


def test_generator_seeds_differ_between_micro_batches_and_fit_torch() -> None:
    seeds = {step_generator_seed(SEED, step, part) for step in range(50) for part in range(4)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_specification_lists_every_coefficient() -> None:
    listed = {float(text) for text in re.findall(r"-?\d\.\d+e[+-]?\d+", SPECIFICATION.read_text("utf-8"))}
    parts = (randomness._CENTRE, randomness._TAIL, randomness._FAR_TAIL)
    used = {coefficient for part in parts for polynomial in part for coefficient in polynomial}
    assert used - {1.0} <= listed
