"""Update lengths out of sealed states, and curves of losses: right, bounded, and read once."""

from __future__ import annotations

import hashlib
import itertools
import math
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from gradseal.errors import CorruptBlob
from gradseal.program.memory import to_bytes
from gradseal.program.tensors import TensorSpec
from gradseal.proof.files import blob_path
from gradseal.verify.account import chosen, unequal_after
from gradseal.verify.distances import Distance
from gradseal.verify.executors import WorkerDied, _answer
from gradseal.verify.lengths import Lengths, hashed_pieces
from gradseal.verify.losses import LossCurve
from gradseal.verify.outcomes import SegmentResult
from memory_files import MemoryFiles

DTYPES = ["float64", "float32", "float16", "bfloat16"]


class Counting(MemoryFiles):
    """Files in odd pieces, that count the bytes read."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes_read = 0

    def pieces(self, path: str, max_bytes: int) -> Iterator[bytes]:
        data = self.read(path, max_bytes)
        for i in range(0, len(data), 1001):
            self.bytes_read += len(data[i : i + 1001])
            yield data[i : i + 1001]


State = list[torch.Tensor]


def specs(state: State) -> list[TensorSpec]:
    return [
        TensorSpec(name=f"parameters/{i}", dtype=str(t.dtype).removeprefix("torch."), shape=tuple(t.shape))
        for i, t in enumerate(state)
    ]


def followed(states: list[State], files: MemoryFiles | None = None, **options: Any) -> Lengths:
    """Goes through the states as the verifier does: every tensor is hashed once, every state has a seal."""
    files = files or Counting()
    layout = specs(states[0])
    lengths = Lengths(files, layout, **options)
    seen: set[bytes] = set()
    seals: dict[bytes, list[bytes]] = {}
    for state in states:
        digests = []
        for tensor in state:
            data = bytes(to_bytes(tensor))
            digests.append(hashlib.sha256(data).digest())
            files.content[blob_path(digests[-1])] = data
        seal = hashlib.sha256(b"".join(digests)).digest()
        if seal in seals:
            lengths.repeat_state(seal, lambda seal=seal: seals[seal])  # type: ignore[misc]  # a loop's value
            continue
        for number, (spec, digest) in enumerate(zip(layout, digests, strict=True)):
            if digest not in seen:
                watch = lengths.watch(number, digest)
                for piece in hashed_pieces(files, digest, spec.size_bytes):
                    if watch is not None:
                        watch(piece)
                seen.add(digest)
        seals[seal] = digests
        lengths.end_state(seal, digests)
    return lengths


def expected(states: list[State]) -> list[float]:
    return [
        math.sqrt(sum(float((b.double() - a.double()).square().sum()) for a, b in zip(old, new, strict=True)))
        for old, new in itertools.pairwise(states)
    ]


def run(dtype: str, count: int = 4) -> list[State]:
    made = torch.Generator().manual_seed(0)
    kind = getattr(torch, dtype)
    return [
        [torch.randn(37, 41, generator=made).to(kind), torch.randn(3, generator=made).to(kind)]
        for _ in range(count)
    ]


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20], ids=["streamed", "kept"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_length_is_the_euclidean_distance_of_two_states(dtype: str, kept_bytes: int) -> None:
    states = run(dtype)
    assert list(followed(states, kept_bytes=kept_bytes).updates) == pytest.approx(expected(states))


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20], ids=["streamed", "kept"])
@pytest.mark.parametrize("distance", list(Distance))
def test_updates_can_be_ranked_by_any_distance(distance: Distance, kept_bytes: int) -> None:
    a, b = run("float32", 2)
    states = [a, b, [a[0], b[1]], [b[0], b[1]], [b[0], a[1]], [b[0], a[1]]]
    lengths = followed(states, kept_bytes=kept_bytes, distance=distance)
    vectors = [torch.cat([t.double().flatten() for t in state]) for state in states]
    wanted = [
        {
            Distance.L1: (new - old).abs().sum(),
            Distance.L2: (new - old).norm(),
            Distance.LINF: (new - old).abs().max(),
            Distance.COSINE: 1 - torch.dot(old, new) / (old.norm() * new.norm()),
        }[distance].item()
        for old, new in itertools.pairwise(vectors)
    ]
    assert list(lengths.ranked) == pytest.approx(wanted, abs=1e-12)
    assert list(lengths.updates) == pytest.approx(expected(states))
    wrong = [[torch.full_like(t, math.nan) for t in state] for state in states[:1]]
    assert math.isnan(followed([a, *wrong], kept_bytes=kept_bytes, distance=distance).ranked[0])


@pytest.mark.parametrize(("kept_bytes", "times"), [(1 << 20, 1), (0, 2)])
def test_a_state_is_read_once_if_it_fits_in_memory_and_else_twice(kept_bytes: int, times: int) -> None:
    states, files = run("float32"), Counting()
    followed(states, files, kept_bytes=kept_bytes)
    assert files.bytes_read <= times * sum(map(len, files.content.values()))


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20], ids=["streamed", "kept"])
def test_tensors_that_stay_return_or_are_shared_are_compared_too(kept_bytes: int) -> None:
    a, b = run("float32", 2)
    states = [a, [b[0], a[1]], [b[0], a[1]], a, b, [a[0], b[1]], [b[0], b[1]], a]
    assert list(followed(states, kept_bytes=kept_bytes).updates) == pytest.approx(expected(states))
    zeros, ones = torch.zeros(5), torch.ones(5)
    twins = [[zeros, zeros], [ones, ones], [zeros, ones]]
    assert list(followed(twins, kept_bytes=kept_bytes).updates) == pytest.approx(expected(twins))


def test_what_is_compared_again_and_again_is_bounded() -> None:
    a, b = run("float32", 2)
    files = Counting()
    lengths = followed([a, b] * 500, files, kept_bytes=0, repeated_bytes=100_000)
    assert len(lengths.updates) == 999
    assert list(lengths.updates[:1]) == pytest.approx(expected([a, b]))
    assert math.isnan(lengths.updates[-1])
    assert files.bytes_read < 500_000


def executed(act: Callable[[], None]) -> int:
    """How many instructions of Python an act takes."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("known", [True, False])
def test_the_last_state_again_costs_the_same_whatever_the_number_of_tensors(known: bool) -> None:
    def again(tensors: int) -> int:
        states = [[torch.full((1,), float(i)) for i in range(first, first + tensors)] for first in (0, 1)]
        lengths = followed(states if known else [*states, states[0]], repeated_tensors=0)

        def read() -> list[bytes]:
            raise AssertionError("an opening was read again")

        work = executed(lambda: lengths.repeat_state(lengths._seal, read))
        assert len(lengths.updates) == (2 if known else 3)
        assert lengths.updates[-1] == 0 if known else math.isnan(lengths.updates[-1])
        return work

    assert again(3) == again(300)


@pytest.mark.parametrize("kind", ["parameters", "buffers"])
def test_states_that_return_are_bounded_by_their_tensors_however_small(kind: str) -> None:
    layout = [
        TensorSpec(name=f"{'parameters' if i == 0 else kind}/{i}", dtype="float32", shape=(1,))
        for i in range(100)
    ]
    files = Counting()
    states = [[np.array([100 * s + i], "<f4").tobytes() for i in range(100)] for s in range(2)]
    digests = [[hashlib.sha256(data).digest() for data in state] for state in states]
    files.content = {blob_path(hashlib.sha256(d).digest()): d for state in states for d in state}
    lengths = Lengths(files, layout, kept_bytes=0, repeated_tensors=1000)
    lengths.end_state(b"0", digests[0])
    lengths.end_state(b"1", digests[1])
    reads = 0

    def read(state: int) -> list[bytes]:
        nonlocal reads
        reads += 1
        return digests[state]

    for i in range(500):
        lengths.repeat_state(b"%d" % (i % 2), lambda i=i: read(i % 2))  # type: ignore[misc]  # a loop's value
    assert reads <= 10
    assert files.bytes_read <= 2 * 4 * 1000
    assert len(lengths.updates) == 501
    assert lengths.updates[1] > 0 and math.isnan(lengths.updates[-1])


@pytest.mark.parametrize("changed", [0, 3])
def test_a_tensor_of_the_state_before_that_changed_since_it_was_hashed_is_noticed(changed: int) -> None:
    old, new = (np.arange(4, dtype="<f4").tobytes(), np.ones(4, "<f4").tobytes())
    digests = [hashlib.sha256(data).digest() for data in (old, new)]
    files = MemoryFiles()
    files.content = {blob_path(d): data for d, data in zip(digests, (old, new), strict=True)}
    lengths = Lengths(files, [TensorSpec(name="parameters/w", dtype="float32", shape=(4,))], kept_bytes=0)
    lengths.end_state(b"0", digests[:1])
    altered = np.frombuffer(old, "<f4").copy()
    altered[changed] = 9
    files.content[blob_path(digests[0])] = altered.tobytes()
    watch = lengths.watch(0, digests[1])
    assert watch is not None
    with pytest.raises(CorruptBlob):
        watch(new)
    with pytest.raises(CorruptBlob):
        lengths.between(digests[:1], digests[1:])


def test_what_is_no_number_has_no_known_length_and_nor_have_integers_that_change() -> None:
    state = [torch.tensor([1.0, 2.0]), torch.tensor([1, 2])]
    other = [torch.tensor([1.0, math.nan]), torch.tensor([5, 6])]
    lengths = followed([state, [2 * state[0], state[1]], [2 * state[0], other[1]], [other[0], other[1]]])
    assert lengths.updates[0] == pytest.approx(math.sqrt(5))
    assert all(math.isnan(length) for length in lengths.updates[1:])


@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
def test_the_distance_from_the_first_state_to_the_last(kept_bytes: int) -> None:
    states = run("float32")
    files = Counting()
    lengths = followed(states, files, kept_bytes=kept_bytes)
    first, last = (
        [hashlib.sha256(bytes(to_bytes(t))).digest() for t in state] for state in (states[0], states[-1])
    )
    assert lengths.between(first, last) == pytest.approx(expected([states[0], states[-1]])[0])
    assert lengths.between(first, first) == 0


def test_a_blob_in_pieces_is_hashed() -> None:
    files = MemoryFiles()
    digest = hashlib.sha256(b"one").digest()
    files.content[blob_path(digest)] = b"two"
    with pytest.raises(CorruptBlob):
        list(hashed_pieces(files, digest, 3))


def test_a_short_run_has_every_loss_and_a_long_one_its_range() -> None:
    short = LossCurve(3, most=3)
    short.add(0, [3.0, 2.0])
    short.add(2, [1.0])
    assert short.steps_per_point == 1
    assert short.points()[0] == [3.0, 2.0, 1.0]
    assert (list(short.first), list(short.last), list(short.mean)) == ([3.0, 1.0], [2.0, 1.0], [2.5, 1.0])

    losses = np.arange(10_007.0)
    long = LossCurve(len(losses), most=100)
    for first in range(0, len(losses), 7):
        long.add(first, losses[first : first + 7].tolist())
    mean, low, high = long.points()
    assert long.steps_per_point == 101 and len(mean) == 100
    assert mean[1] == pytest.approx(losses[101:202].mean())
    assert (low[1], high[1]) == (101, 201)
    assert high[-1] == 10_006


def test_losses_that_are_not_known_leave_a_gap() -> None:
    curve = LossCurve(4, most=2)
    curve.skip()
    curve.add(2, [1.0, math.nan])
    mean, low, _ = curve.points()
    assert math.isnan(mean[0]) and math.isnan(low[0]) and math.isnan(mean[1])
    assert math.isnan(curve.first[0]) and curve.first[1] == 1


def test_a_million_segments_are_thinned_but_for_what_is_wrong_and_the_ends() -> None:
    results = [SegmentResult(segment=i, equal=i != 123_457) for i in (0, 123_457, 777_777, 999_999)]
    told = chosen(1_000_000, results)
    assert len(told) <= 2000
    assert told == sorted(set(told))
    assert {0, 123_457, 777_777, 999_999} <= set(told)
    assert chosen(5, results) == [0, 1, 2, 3, 4]
    assert unequal_after(told, results) == ()


def test_what_is_wrong_and_not_told_is_counted_where_it_is() -> None:
    results = [SegmentResult(segment=i, equal=i % 100 < 99) for i in range(100_000)]
    told = chosen(100_000, results)
    after = unequal_after(told, results)
    shown = sum(i % 100 == 99 for i in told)
    assert len(after) == len(told) <= 2000
    assert sum(after) == 1000 - shown > 0
    for number, following, hidden in zip(told, [*told[1:], 100_000], after, strict=True):
        assert hidden == sum(i % 100 == 99 for i in range(number + 1, following))


@pytest.mark.parametrize("seconds", ["-1.0", "NaN", "Infinity", '"1"', "true", "null", "1"])
def test_an_answer_whose_cost_is_no_duration_is_not_taken(seconds: str) -> None:
    line = (
        '{"kind":"segment","segment":0,"equal":true,"differing":[],"moved":[],"independent":[],'
        '"error":{"l1":0.0,"l2":0.0,"linf":0.0,"cosine":0.0},'
        '"update":{"l1":0.0,"l2":0.0,"linf":0.0,"cosine":0.0},'
        '"state":0.0,"state_group":"","seconds":%s}'
    )
    with pytest.raises(WorkerDied):
        _answer((line % seconds).encode())
    answer = _answer((line % "0.5").encode())
    assert isinstance(answer, SegmentResult) and answer.seconds == 0.5
