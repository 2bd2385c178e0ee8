"""The Merkle tree of RFC 6962, with SHA-256.

Guarantees that two lists of entries with one root are the same list, that an entry is where an inclusion
proof says, and that an older tree is the beginning of a newer one (RFC 6962 section 2.1, RFC 9162 section
2.1). The verifiers accept exactly the proof that the standard defines: no missing or spare hash.

Knows no files; see `tiles`. Format: docs/spec/log.md, section 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

HASH_SIZE = 32
"""Bytes in a hash."""

EMPTY_ROOT = sha256(b"").digest()
"""The root of the tree without leaves."""


def leaf_hash(entry: bytes) -> bytes:
    """SHA-256(0x00 || entry), the hash of a leaf (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + entry).digest()


def leaf_hasher(beginning: bytes) -> Any:
    """`leaf_hash` of entries that begin alike: a hash to copy, to update with the rest and to finish."""
    return sha256(b"\x00" + beginning)


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right), the hash of an inner node (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """The root over leaf hashes, in memory that grows with the logarithm of their number.

    Args:
        leaf_hashes: The 32-byte hashes, in order.

    Returns:
        The 32-byte root; `EMPTY_ROOT` if there are none.

    Raises:
        ValueError: A hash is not 32 bytes long.
    """
    peaks: list[bytes] = []
    for size, leaf in enumerate(leaf_hashes):
        peaks.append(_hash_sized(leaf))
        # Each trailing one-bit of the size so far is a subtree that this leaf makes half of a larger one.
        for _ in range(_trailing_ones(size)):
            right = peaks.pop()
            peaks.append(node_hash(peaks.pop(), right))
    return _fold(peaks)


class Tree:
    """A growing tree that keeps the hashes of all its complete subtrees.

    Appending costs one or two hashes on average, and a root or a proof a number of hashes that grows with
    the logarithm of the size; memory is 64 bytes a leaf. Earlier sizes stay readable.
    """

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        # Level l holds, one after another, the hashes of the complete subtrees of 2**l leaves.
        self._levels = [bytearray()]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """The number of leaves."""
        return len(self._levels[0]) // HASH_SIZE

    def append(self, leaf: bytes) -> int:
        """Add a leaf by its hash.

        Args:
            leaf: The 32-byte leaf hash.

        Returns:
            The index of the new leaf.

        Raises:
            ValueError: The hash is not 32 bytes long.
        """
        index = self.size
        levels = self._levels
        levels[0] += _hash_sized(leaf)
        for level in range(_trailing_ones(index)):
            if level + 1 == len(levels):
                levels.append(bytearray())
            levels[level + 1] += sha256(b"\x01" + levels[level][-2 * HASH_SIZE :]).digest()
        return index

    def append_entry(self, entry: bytes) -> int:
        """Add a leaf by its entry; returns its index."""
        return self.append(leaf_hash(entry))

    def extend(self, leaf_hashes: Iterable[bytes]) -> None:
        """Add leaves by their hashes, in order."""
        for leaf in leaf_hashes:
            self.append(leaf)

    def subtrees(self, level: int, begin: int, end: int) -> bytes:
        """The concatenated hashes of complete subtrees of 2**level leaves.

        Args:
            level: The height of the subtrees; 0 for leaves.
            begin: The index of the first, counted in subtrees.
            end: One more than the index of the last.

        Raises:
            ValueError: The tree does not have them all.
        """
        held = self._levels[level] if 0 <= level < len(self._levels) else b""
        if not 0 <= begin <= end <= len(held) // HASH_SIZE:
            raise ValueError(f"no complete subtrees {begin} to {end} at level {level} in {self.size} leaves")
        return bytes(held[begin * HASH_SIZE : end * HASH_SIZE])

    def leaf(self, index: int) -> bytes:
        """The leaf hash at an index.

        Raises:
            ValueError: There is no such leaf.
        """
        return self.subtrees(0, index, index + 1)

    def root(self, size: int | None = None) -> bytes:
        """The root of the tree, or of its first `size` leaves.

        Raises:
            ValueError: The size is negative or beyond the tree.
        """
        return self._range_root(0, self._size_within(size))

    def inclusion_proof(self, index: int, size: int | None = None) -> list[bytes]:
        """The hashes that lead from a leaf to the root: PATH(m, D[n]) of RFC 6962 section 2.1.1.

        Args:
            index: The index of the leaf.
            size: The tree size to prove for; the present size if not given.

        Raises:
            ValueError: The index is not below the size, or the size is beyond the tree.
        """
        begin, end = 0, self._size_within(size)
        if not 0 <= index < end:
            raise ValueError(f"no leaf {index} in a tree of {end}")
        proof: list[bytes] = []
        while end - begin > 1:
            middle = begin + _split(end - begin)
            if index < middle:
                proof.append(self._range_root(middle, end))
                end = middle
            else:
                proof.append(self._range_root(begin, middle))
                begin = middle
        return proof[::-1]

    def consistency_proof(self, old: int, new: int | None = None) -> list[bytes]:
        """The hashes that show that one size continues another: PROOF(m, D[n]) of RFC 6962 section 2.1.2.

        Args:
            old: The smaller size.
            new: The larger size; the present size if not given.

        Returns:
            The hashes; none if the sizes are equal or the old tree is empty.

        Raises:
            ValueError: The sizes are out of order or beyond the tree.
        """
        begin, end = 0, self._size_within(new)
        if not 0 <= old <= end:
            raise ValueError(f"no consistency proof from {old} to {end}")
        proof: list[bytes] = []
        while 0 < old < end:
            middle = begin + _split(end - begin)
            if old <= middle:
                proof.append(self._range_root(middle, end))
                end = middle
            else:
                proof.append(self._range_root(begin, middle))
                begin = middle
        # A subtree that begins at 0 is the old tree itself, whose root the verifier has.
        if begin > 0:
            proof.append(self._range_root(begin, end))
        return proof[::-1]

    def _size_within(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError(f"size {size} is beyond a tree of {self.size}")
        return size

    def _range_root(self, begin: int, end: int) -> bytes:
        """MTH(D[begin:end]), where begin is a multiple of the power of two that covers the range."""
        peaks = []
        for level in range((end - begin).bit_length() - 1, -1, -1):
            if (end - begin) >> level & 1:
                start = (begin >> level) * HASH_SIZE
                peaks.append(bytes(self._levels[level][start : start + HASH_SIZE]))
                begin += 1 << level
        return _fold(peaks)


def verify_inclusion(*, leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether a proof shows that a leaf is in a tree (RFC 9162 section 2.1.3.2).

    Args:
        leaf: The leaf hash.
        index: Its index.
        size: The size of the tree.
        proof: The hashes of `Tree.inclusion_proof`.
        root: The root of the tree.

    Returns:
        False for any proof but the one that the standard defines, also for one of another length.
    """
    if not 0 <= index < size or not _all_hashes((leaf, root, *proof)):
        return False
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            node, last = _past_right_edge(node, last)
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and computed == root


def verify_consistency(
    *, old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether a proof shows that the old tree is the beginning of the new one (RFC 9162 section 2.1.4.2).

    The standard leaves equal sizes and an empty old tree open: here both take an empty proof, equal sizes
    need equal roots, and an empty tree needs `EMPTY_ROOT`.

    Args:
        old: The size of the old tree.
        new: The size of the new tree.
        old_root: The root of the old tree.
        new_root: The root of the new tree.
        proof: The hashes of `Tree.consistency_proof`.

    Returns:
        False for any proof but the one that the standard defines, also for one of another length.
    """
    if not 0 <= old <= new or not _all_hashes((old_root, new_root, *proof)):
        return False
    if old == 0 and old_root != EMPTY_ROOT:
        return False
    if old in (0, new):
        return not proof and (old < new or old_root == new_root)
    # A complete old tree is a node of the new one, and its root, which the verifier has, is left out.
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    return bool(path) and _climb(old, new, path) == (old_root, new_root)


def _climb(old: int, new: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Both roots as the path gives them; None if it is too long or too short."""
    shift = _trailing_ones(old - 1)
    node, last = (old - 1) >> shift, (new - 1) >> shift
    old_root = new_root = path[0]
    for sibling in path[1:]:
        if last == 0:
            return None
        if node & 1 or node == last:
            old_root, new_root = node_hash(sibling, old_root), node_hash(sibling, new_root)
            node, last = _past_right_edge(node, last)
        else:
            new_root = node_hash(new_root, sibling)
        node, last = node >> 1, last >> 1
    return (old_root, new_root) if last == 0 else None


def _past_right_edge(node: int, last: int) -> tuple[int, int]:
    """Skip the levels on which the node is a last one without a sibling, and so moves up unhashed."""
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _fold(peaks: Sequence[bytes]) -> bytes:
    """The root over complete subtrees of falling size."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def _split(size: int) -> int:
    """The largest power of two below the size."""
    return 1 << ((size - 1).bit_length() - 1)


def _trailing_ones(n: int) -> int:
    return (~n & (n + 1)).bit_length() - 1


def _hash_sized(value: bytes) -> bytes:
    if len(value) != HASH_SIZE:
        raise ValueError(f"a hash of {len(value)} bytes, not {HASH_SIZE}")
    return value


def _all_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_SIZE for value in values)
