"""How far each segment moved the parameters: the Euclidean length of its update, out of the sealed states.

‖W_end − W_start‖ over the parameters of floating-point types, in float64, for every segment, replayed or not.
A tensor is compared with the one before it while it is hashed, so that it is read once; the state before
stays in memory if it is small, and is otherwise read beside it, and hashed again. Memory is bounded by that
and a chunk; what is done for states that come again, by budgets of bytes and of tensors. Where a length is
not known it is NaN. The lengths are for a report; but a classical policy replays the largest updates, by any
of the four distances, and counts one that is not known as the largest.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gradseal.errors import CorruptBlob
from gradseal.program.tensors import TensorSpec
from gradseal.proof.files import Files, blob_path
from gradseal.verify.distances import Distance, cosine

KEPT_BYTES = 64 << 20
"""Up to this size, the parameters of the state before are kept in memory."""

REPEATED_BYTES = 1 << 30
"""How much is compared that was hashed before: a few blobs may be named by a million states."""

REPEATED_TENSORS = 1 << 18
"""How many tensors that is at most, as small ones cost time too; those of an opening read again included."""

_CHUNK_BYTES = 1 << 20
NUMPY = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


class Lengths:
    """Follows the states of a run, first to last.

    Args:
        files: The bundle.
        layout: The state's tensors, the parameters first.
        distance: What else each update is measured by, for `ranked`.
        kept_bytes: See `KEPT_BYTES`.
        repeated_bytes: See `REPEATED_BYTES`.
        repeated_tensors: See `REPEATED_TENSORS`.
    """

    def __init__(
        self,
        files: Files,
        layout: Sequence[TensorSpec],
        *,
        distance: Distance = Distance.L2,
        kept_bytes: int = KEPT_BYTES,
        repeated_bytes: int = REPEATED_BYTES,
        repeated_tensors: int = REPEATED_TENSORS,
    ) -> None:
        self._files = files
        self._specs = [spec for spec in layout if spec.name.startswith("parameters/")]
        self._keeps = sum(spec.size_bytes for spec in self._specs) <= kept_bytes
        self._tensors = len(layout)
        self._left_bytes, self._left_tensors = repeated_bytes, repeated_tensors
        self._states = 0
        self._seal = b""
        self._before: tuple[bytes, ...] = ()
        self._kept: dict[bytes, bytes] = {}
        self._watched: dict[int, _Difference] = {}
        self._distance = distance
        self._squares: dict[tuple[bytes, str], float] = {}
        self.updates = array("d")
        """The length of each segment's update so far."""
        self.ranked = self.updates if distance is Distance.L2 else array("d")
        """The same by the other distance."""

    def watch(self, number: int, digest: bytes) -> Callable[[bytes], None] | None:
        """What takes the bytes of the next state's tensor `number` while it is hashed; None if not wanted."""
        if number >= len(self._specs) or self._specs[number].dtype not in NUMPY:
            return None
        if not self._keeps and (not self._before or self._before[number] == digest):
            return None
        spec = self._specs[number]
        old = self._pieces(self._before[number], spec) if self._before else None
        self._watched[number] = _Difference(old, spec.dtype, self._distance, keeps=self._keeps)
        return self._watched[number].feed

    def end_state(self, seal: bytes, digests: Sequence[bytes]) -> None:
        """The next state is whole; takes the digests of its parameters."""
        digests = tuple(digests[: len(self._specs)])
        kept = {digests[n]: b"".join(w.pieces) for n, w in self._watched.items()} if self._keeps else {}
        if self._before:
            self._measured(self._moved(digests, kept))
        elif self._states:
            self._not_measured(math.nan)
        kept |= {digest: self._kept[digest] for digest in digests if digest in self._kept}
        self._kept, self._before, self._watched = kept, digests, {}
        self._seal = seal
        self._states += 1

    def repeat_state(self, seal: bytes, read: Callable[[], Sequence[bytes]]) -> None:
        """The next state is one that was seen before, whose tensors' digests `read` gives again.

        If it is the last one again, nothing is read, nor any tensor looked at.
        """
        if seal == self._seal:
            self._not_measured(0.0 if self._before else math.nan)
        elif self._afford(32 * self._tensors, self._tensors):
            self.end_state(seal, read())
        else:
            self._before, self._kept, self._seal = (), {}, seal
            self._not_measured(math.nan)

    def between(self, first: Sequence[bytes], last: Sequence[bytes]) -> float:
        """The distance of two states, by the digests of their tensors.

        Raises:
            CorruptBlob, MissingFile, MalformedBundle: A tensor is no longer what it was.
        """
        pairs = zip(self._specs, first, last, strict=False)  # which have other tensors after the parameters
        return math.sqrt(sum(self._compare(spec, a, b).square for spec, a, b in pairs if a != b))

    def _measured(self, sums: Sums) -> None:
        self.updates.append(math.sqrt(sums.square))
        if self._distance is not Distance.L2:
            self.ranked.append(sums.by(self._distance))

    def _not_measured(self, value: float) -> None:
        self.updates.append(value)
        if self._distance is not Distance.L2:
            self.ranked.append(value)

    def _moved(self, digests: tuple[bytes, ...], kept: dict[bytes, bytes]) -> Sums:
        """What the parameters moved by, from the state before to that of these digests."""
        total = Sums()
        for number, (spec, old, new) in enumerate(zip(self._specs, self._before, digests, strict=True)):
            if spec.dtype not in NUMPY:
                if old != new:
                    return Sums.unknown()
                continue
            if old == new:
                total.add(self._still(spec, new, kept))
            elif number in self._watched:
                total.add(self._watched[number].sums)
            elif self._afford(spec.size_bytes, 1):
                total.add(self._compare(spec, old, new, kept))
            else:
                return Sums.unknown()
        current = {(digest, spec.dtype) for spec, digest in zip(self._specs, digests, strict=True)}
        self._squares = {key: square for key, square in self._squares.items() if key in current}
        return total

    def _still(self, spec: TensorSpec, digest: bytes, kept: dict[bytes, bytes]) -> Sums:
        """What a tensor that did not move counts for: its length, which only an angle needs."""
        if self._distance is not Distance.COSINE:
            return Sums()
        key = (digest, spec.dtype)
        if key not in self._squares:
            if not self._afford(spec.size_bytes, 1):
                return Sums(first=math.nan, second=math.nan)
            self._squares[key] = self._compare(spec, digest, digest, kept).second
        return Sums(first=self._squares[key], second=self._squares[key])

    def _compare(
        self, spec: TensorSpec, old: bytes, new: bytes, kept: dict[bytes, bytes] | None = None
    ) -> Sums:
        if spec.dtype not in NUMPY:
            return Sums()
        difference = _Difference(self._pieces(old, spec), spec.dtype, self._distance, keeps=False)
        for piece in _cut(kept[new]) if kept and new in kept else self._pieces(new, spec):
            difference.feed(piece)
        return difference.sums

    def _pieces(self, digest: bytes, spec: TensorSpec) -> Iterator[bytes]:
        if digest in self._kept:
            return _cut(self._kept[digest])
        return hashed_pieces(self._files, digest, spec.size_bytes)

    def _afford(self, size_bytes: int, tensors: int) -> bool:
        self._left_bytes -= size_bytes
        self._left_tensors -= tensors
        return self._left_bytes >= 0 and self._left_tensors >= 0


@dataclass(slots=True, kw_only=True)
class Sums:
    """What distances follow from, piece by piece: l2 always, and what one other distance needs.

    Args:
        square: The sum of the squares of all differences.
        absolute: That of their sizes.
        largest: The largest of them.
        first: The sum of the squares of what was before.
        second: That of what came after.
    """

    square: float = 0.0
    absolute: float = 0.0
    largest: float = 0.0
    first: float = 0.0
    second: float = 0.0

    @classmethod
    def unknown(cls) -> Sums:
        """The sums of what was not looked at."""
        return cls(**dict.fromkeys(cls.__dataclass_fields__, math.nan))

    def add(self, other: Sums) -> None:
        """Counts other elements in."""
        self.square += other.square
        self.absolute += other.absolute
        # `max` drops a NaN that comes second.
        self.largest = math.nan if math.isnan(other.largest) else max(self.largest, other.largest)
        self.first += other.first
        self.second += other.second

    def by(self, distance: Distance) -> float:
        """The distance, if what it needs was summed."""
        match distance:
            case Distance.L1:
                return self.absolute
            case Distance.L2:
                return math.sqrt(self.square)
            case Distance.LINF:
                return self.largest
            case Distance.COSINE:
                return cosine(self.square, self.first, self.second)


class _Difference:
    """How far two tensors of one type and size are apart, the second fed piece by piece."""

    def __init__(self, old: Iterator[bytes] | None, dtype: str, distance: Distance, *, keeps: bool) -> None:
        self._old = old
        self._dtype = dtype
        self._distance = distance
        self._keeps = keeps
        self._held = self._fed = b""
        self.pieces: list[bytes] = []
        self.sums = Sums()

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes of the second tensor."""
        if self._keeps:
            self.pieces.append(piece)
        if self._old is None:
            return
        new = self._fed + piece if self._fed else piece
        whole = len(new) - len(new) % np.dtype(NUMPY[self._dtype]).itemsize
        self._fed = new[whole:]
        a, b = numbers(self._take(whole), self._dtype), numbers(new[:whole], self._dtype)
        self.sums.add(sums_of(a[: len(b)], b[: len(a)], self._distance))

    def _take(self, size_bytes: int) -> bytes:
        # One piece beyond what is asked for: `hashed_pieces` compares its hash once the last was taken.
        while len(self._held) <= size_bytes and self._old is not None:
            piece = next(self._old, b"")
            if not piece:
                break
            self._held += piece
        taken, self._held = self._held[:size_bytes], self._held[size_bytes:]
        return taken


def hashed_pieces(files: Files, digest: bytes, max_bytes: int) -> Iterator[bytes]:
    """The blob with this SHA-256 in pieces, none to be believed before the end.

    Raises:
        MissingFile, CorruptBlob, MalformedBundle: As `read_blob`; the second after the last piece.
    """
    hashed = hashlib.sha256()
    for piece in files.pieces(blob_path(digest), max_bytes):
        hashed.update(piece)
        yield piece
    if hashed.digest() != digest:
        raise CorruptBlob("its bytes do not hash to its name", where=blob_path(digest))


def _cut(data: bytes) -> Iterator[bytes]:
    return (data[i : i + _CHUNK_BYTES] for i in range(0, len(data), _CHUNK_BYTES))


def sums_of(old: npt.NDArray[np.floating], new: npt.NDArray[np.floating], distance: Distance) -> Sums:
    """The sums of two vectors of one length, taken in float64: for l2, and for this distance."""
    with np.errstate(all="ignore"):  # what is not finite is said as such
        a, b = old.astype(np.float64), new.astype(np.float64)
        difference = b - a
        sums = Sums(square=float(np.dot(difference, difference)))
        if distance is Distance.L1:
            sums.absolute = float(np.abs(difference).sum())
        elif distance is Distance.LINF and len(difference):
            sums.largest = float(np.abs(difference).max())
        elif distance is Distance.COSINE:
            sums.first, sums.second = float(np.dot(a, a)), float(np.dot(b, b))
        return sums


def numbers(data: bytes, dtype: str) -> npt.NDArray[np.floating]:
    """The numbers of a type of `NUMPY` that these bytes are, in their own type but for bfloat16."""
    read = np.frombuffer(data, NUMPY[dtype])
    if dtype == "bfloat16":  # the upper half of a float32
        return (read.astype(np.uint32) << 16).view(np.float32)
    return read
