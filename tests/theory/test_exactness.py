"""What docs/theory/exactness.md proves of equality and of free bits, tried on small programs."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from hashlib import sha256
from math import sqrt

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

TRIALS = 10_000

States = list[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Program:
    """A stand-in for a captured one: segments that depend on the state, the seed and the number."""

    width: int = 6
    segments: int = 12

    def start(self, seed: int) -> npt.NDArray[np.float32]:
        return np.random.default_rng([seed, 0]).normal(size=self.width).astype(np.float32)

    def replay(self, state: npt.NDArray[np.float32], seed: int, segment: int) -> npt.NDArray[np.float32]:
        random = np.random.default_rng([seed, segment + 1])
        inputs = random.normal(size=(8, self.width)).astype(np.float32)
        moved: npt.NDArray[np.float32] = np.tanh(inputs @ state) @ inputs / np.float32(8)
        return state - np.float32(0.1) * moved

    def run(self, seed: int) -> States:
        states = [self.start(seed)]
        for segment in range(self.segments):
            states.append(self.replay(states[-1], seed, segment))
        return states

    def unequal(self, states: States, seed: int) -> list[int]:
        """The segments whose replay from the sealed start has other bits than the sealed end."""
        ends = enumerate(itertools.pairwise(states))
        return [n for n, (a, b) in ends if self.replay(a, seed, n).tobytes() != b.tobytes()]


def test_the_end_of_equal_segments_is_the_programs_own() -> None:
    """E1 (a), (c)."""
    program = Program()
    for seed in range(50):
        sealed = program.run(seed)
        assert program.unequal(sealed, seed) == []
        assert sealed[-1].tobytes() == program.run(seed)[-1].tobytes()


def test_one_bit_in_one_segment_is_seen_by_a_full_replay_and_breaks_the_induction() -> None:
    """E1 (a), (c), (d): what follows a forged segment may be true, and the end is another."""
    program, random = Program(), np.random.default_rng(1)
    for seed in range(200):
        forged = int(random.integers(program.segments))
        states = program.run(seed)[: forged + 1]
        end = program.replay(states[-1], seed, forged)
        bits = end.view(np.uint32)
        bits[random.integers(program.width)] ^= np.uint32(1) << np.uint32(random.integers(23))
        states.append(end)
        for segment in range(forged + 1, program.segments):
            states.append(program.replay(states[-1], seed, segment))
        assert program.unequal(states, seed) == [forged]


def test_data_lead_a_true_run_to_any_weights() -> None:
    """E2: the proof's construction, in one epoch in a random order, with a loss of its own beside it."""
    torch.manual_seed(2)
    samples, width, size = 48, 7, 6
    stolen = 3 * torch.randn(samples * width)
    weights = torch.randn(samples * width, requires_grad=True)
    inputs, c = torch.randn(samples, samples * width), 1e6
    optimizer = torch.optim.SGD([weights], lr=1 / c)
    before = float((weights.detach() - stolen).norm())
    for places in torch.randperm(samples).view(-1, size):
        rows = stolen.view(samples, width)[places]
        honest = nn.functional.softplus(inputs[places] @ weights).mean()
        loss = honest + c / 2 * ((weights.view(samples, width)[places] - rows) ** 2).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float((weights.detach() - stolen).norm()) < 1e-4 * before


@pytest.mark.parametrize("bits", [0, 3, 7])
def test_free_bits_reach_a_target_as_seldom_as_the_count_says(bits: int) -> None:
    """E3 (a), (b): ends on a circle, one for each setting and seed; hit is an arc of a share p."""
    p, seeds = 1 / 4096, 2 * TRIALS
    random = np.random.default_rng(bits)
    hit = np.zeros(seeds, dtype=bool)
    for _ in range(2**bits):  # a setting's end is a function of the seed: here one of its own, uniform
        hit |= random.uniform(size=seeds) < p
    assert hit.mean() <= 2**bits * p + 4 * sqrt(2**bits * p / seeds)
    assert hit.mean() >= 2**bits * p / 2 - 4 * sqrt(2**bits * p / seeds)
    # Settings that end alike reach no more than one, and those of a program that pulls there always do.
    alike = random.uniform(size=seeds) < p
    assert alike.mean() <= 2**bits * p + 4 * sqrt(p / seeds)


def ends(settings: int, seed: int) -> set[int]:
    """The ends of a program, as 16 bits, under each setting of its free bits."""
    return {
        int.from_bytes(sha256(b"%d %d" % (seed, setting)).digest()[:2], "big") for setting in range(settings)
    }


def test_a_seed_and_free_bits_have_no_more_ends_than_settings() -> None:
    """E3 (a), (b) with declared seeds: G seeds to choose from, 2^b settings, a target of 16 bits."""
    random, settings, declared = np.random.default_rng(3), 4, 8
    assert all(len(ends(settings, seed)) <= settings for seed in range(500))
    hit = 0
    for trial in range(1500):
        target = int(random.integers(2**16)) >> 8 << 8
        near = range(target, target + 256)  # p = 2^-8
        hit += any(end in near for number in range(declared) for end in ends(settings, 100 * trial + number))
    bound = declared * settings / 256
    assert bound / 2 < hit / 1500 <= bound + 4 * sqrt(bound / 1500)


@pytest.mark.parametrize(("chosen", "entropy"), [(2, 6), (6, 10), (4, 12)])
def test_late_choices_of_few_bits_do_not_reach_a_random_target(chosen: int, entropy: int) -> None:
    """E3 (c): who sees the target and picks the best of 2^c ends is within r with at most 2^(c - h)."""
    random = np.random.default_rng(entropy)
    radius = 2.0**-entropy / 2  # of numbers in [0, 1), a ball of this radius holds at most 2^-h
    own = random.uniform(size=2**chosen)  # fixed before the target is known
    targets = random.uniform(size=4 * TRIALS)
    nearest = np.abs(targets[:, None] - own[None, :]).min(axis=1)
    reached = (nearest <= radius).mean()
    bound = 2.0 ** (chosen - entropy)
    assert reached <= bound + 4 * sqrt(bound / len(targets))
    # Spread over the numbers instead of drawn, the ends attain it.
    spread = (np.arange(2**chosen) + 0.5) / 2**chosen
    attained = (np.abs(targets[:, None] - spread[None, :]).min(axis=1) <= radius).mean()
    assert attained == pytest.approx(bound, abs=4 * sqrt(bound / len(targets)))


def test_permuted_units_are_far_and_compute_the_same() -> None:
    """E4: hidden units in another order."""
    torch.manual_seed(4)
    model, other = (nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3)).double() for _ in range(2))
    order = torch.arange(16).roll(1)
    with torch.no_grad():
        for own, theirs in zip(other.parameters(), model.parameters(), strict=True):
            own.copy_(theirs)
        first, last = other[0], other[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        first.weight.copy_(first.weight[order])
        first.bias.copy_(first.bias[order])
        last.weight.copy_(last.weight[:, order])
        inputs = torch.randn(100, 8).double()
        assert torch.allclose(model(inputs), other(inputs), atol=1e-12)
        pairs = zip(model.parameters(), other.parameters(), strict=True)
        apart = sum(float((a - b).square().sum()) for a, b in pairs) ** 0.5
        length = sum(float(a.square().sum()) for a in model.parameters()) ** 0.5
    assert apart > 0.5 * length
