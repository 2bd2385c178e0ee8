"""How far each segment moved the parameters: the Euclidean length of its update, out of the sealed states.

‖W_end − W_start‖ over the parameters of floating-point types, in float64, for every segment, replayed or not.
A tensor is compared with the one before it while it is hashed, so that it is read once; the state before
stays in memory if it is small, and is otherwise read beside it, and hashed again. Memory is bounded by that
and a chunk; what is done for states that come again, by budgets of bytes and of tensors. The lengths are for
a report: they decide nothing, and where they are not known they are NaN.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from gradseal.errors import CorruptBlob
from gradseal.program.tensors import TensorSpec
from gradseal.proof.files import Files, blob_path

KEPT_BYTES = 64 << 20
"""Up to this size, the parameters of the state before are kept in memory."""

REPEATED_BYTES = 1 << 30
"""How much is compared that was hashed before: a few blobs may be named by a million states."""

REPEATED_TENSORS = 1 << 18
"""How many tensors that is at most, as small ones cost time too; those of an opening read again included."""

_CHUNK_BYTES = 1 << 20
_NUMPY = {"float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


class Lengths:
    """Follows the states of a run, first to last.

    Args:
        files: The bundle.
        layout: The state's tensors, the parameters first.
        kept_bytes: See `KEPT_BYTES`.
        repeated_bytes: See `REPEATED_BYTES`.
        repeated_tensors: See `REPEATED_TENSORS`.
    """

    def __init__(
        self,
        files: Files,
        layout: Sequence[TensorSpec],
        *,
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
        self.updates = array("d")
        """The length of each segment's update so far."""

    def watch(self, number: int, digest: bytes) -> Callable[[bytes], None] | None:
        """What takes the bytes of the next state's tensor `number` while it is hashed; None if not wanted."""
        if number >= len(self._specs) or self._specs[number].dtype not in _NUMPY:
            return None
        if not self._keeps and (not self._before or self._before[number] == digest):
            return None
        spec = self._specs[number]
        old = self._pieces(self._before[number], spec) if self._before else None
        self._watched[number] = _Difference(old, spec.dtype, keeps=self._keeps)
        return self._watched[number].feed

    def end_state(self, seal: bytes, digests: Sequence[bytes]) -> None:
        """The next state is whole; takes the digests of its parameters."""
        digests = tuple(digests[: len(self._specs)])
        kept = {digests[n]: b"".join(w.pieces) for n, w in self._watched.items()} if self._keeps else {}
        if self._before:
            self.updates.append(math.sqrt(self._squares(digests, kept)))
        elif self._states:
            self.updates.append(math.nan)
        kept |= {digest: self._kept[digest] for digest in digests if digest in self._kept}
        self._kept, self._before, self._watched = kept, digests, {}
        self._seal = seal
        self._states += 1

    def repeat_state(self, seal: bytes, read: Callable[[], Sequence[bytes]]) -> None:
        """The next state is one that was seen before, whose tensors' digests `read` gives again.

        If it is the last one again, nothing is read, nor any tensor looked at.
        """
        if seal == self._seal:
            self.updates.append(0.0 if self._before else math.nan)
        elif self._afford(32 * self._tensors, self._tensors):
            self.end_state(seal, read())
        else:
            self._before, self._kept, self._seal = (), {}, seal
            self.updates.append(math.nan)

    def between(self, first: Sequence[bytes], last: Sequence[bytes]) -> float:
        """The distance of two states, by the digests of their tensors.

        Raises:
            CorruptBlob, MissingFile, MalformedBundle: A tensor is no longer what it was.
        """
        pairs = zip(self._specs, first, last, strict=False)  # which have other tensors after the parameters
        return math.sqrt(sum(self._compare(spec, a, b) for spec, a, b in pairs if a != b))

    def _squares(self, digests: tuple[bytes, ...], kept: dict[bytes, bytes]) -> float:
        total = 0.0
        for number, (spec, old, new) in enumerate(zip(self._specs, self._before, digests, strict=True)):
            if old == new or spec.dtype not in _NUMPY:
                continue
            if number in self._watched:
                total += self._watched[number].square
            elif self._afford(spec.size_bytes, 1):
                total += self._compare(spec, old, new, kept)
            else:
                return math.nan
        return total

    def _compare(
        self, spec: TensorSpec, old: bytes, new: bytes, kept: dict[bytes, bytes] | None = None
    ) -> float:
        if spec.dtype not in _NUMPY:
            return 0.0
        difference = _Difference(self._pieces(old, spec), spec.dtype, keeps=False)
        for piece in _cut(kept[new]) if kept and new in kept else self._pieces(new, spec):
            difference.feed(piece)
        return difference.square

    def _pieces(self, digest: bytes, spec: TensorSpec) -> Iterator[bytes]:
        if digest in self._kept:
            return _cut(self._kept[digest])
        return hashed_pieces(self._files, digest, spec.size_bytes)

    def _afford(self, size_bytes: int, tensors: int) -> bool:
        self._left_bytes -= size_bytes
        self._left_tensors -= tensors
        return self._left_bytes >= 0 and self._left_tensors >= 0


class _Difference:
    """The squared distance of two tensors of one type and size, the second fed piece by piece."""

    def __init__(self, old: Iterator[bytes] | None, dtype: str, *, keeps: bool) -> None:
        self._old = old
        self._dtype = dtype
        self._keeps = keeps
        self._held = self._fed = b""
        self.pieces: list[bytes] = []
        self.square = 0.0

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes of the second tensor."""
        if self._keeps:
            self.pieces.append(piece)
        if self._old is None:
            return
        new = self._fed + piece if self._fed else piece
        whole = len(new) - len(new) % np.dtype(_NUMPY[self._dtype]).itemsize
        self._fed = new[whole:]
        self.square += _squared_distance(self._take(whole), new[:whole], self._dtype)

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


def _squared_distance(old: bytes, new: bytes, dtype: str) -> float:
    with np.errstate(all="ignore"):  # what is not finite is said as such
        a, b = _numbers(old, dtype), _numbers(new, dtype)
        difference = b[: len(a)] - a
        return float(np.dot(difference, difference))


def _numbers(data: bytes, dtype: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    numbers = np.frombuffer(data, _NUMPY[dtype])
    if dtype == "bfloat16":  # the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.astype(np.float64)
