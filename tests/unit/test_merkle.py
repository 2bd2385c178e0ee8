"""The laws of the Merkle tree, against the recursive definition of RFC 6962 section 2.1."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradseal.proof.merkle import (
    EMPTY_ROOT,
    Tree,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(i.to_bytes(2, "big")) for i in range(3000)]
TREE = Tree(LEAVES)
SMALL = 70
SIZES = st.integers(1, len(LEAVES))


def split(n: int) -> int:
    k = 1
    while 2 * k < n:
        k *= 2
    return k


def mth(d: list[bytes]) -> bytes:
    if not d:
        return sha256(b"").digest()
    if len(d) == 1:
        return d[0]
    k = split(len(d))
    return node_hash(mth(d[:k]), mth(d[k:]))


def path(m: int, d: list[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = split(len(d))
    return [*path(m, d[:k]), mth(d[k:])] if m < k else [*path(m - k, d[k:]), mth(d[:k])]


def subproof(m: int, d: list[bytes], whole: bool) -> list[bytes]:
    if m == len(d):
        return [] if whole else [mth(d)]
    k = split(len(d))
    if m <= k:
        return [*subproof(m, d[:k], whole), mth(d[k:])]
    return [*subproof(m - k, d[k:], False), mth(d[:k])]


def included(
    index: int, size: int, proof: list[bytes], leaf: bytes | None = None, root: bytes | None = None
) -> bool:
    return verify_inclusion(
        leaf=leaf or LEAVES[index], index=index, size=size, proof=proof, root=root or TREE.root(size)
    )


def consistent(old: int, new: int, proof: list[bytes]) -> bool:
    return verify_consistency(old=old, new=new, old_root=TREE.root(old), new_root=TREE.root(new), proof=proof)


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert Tree().root() == root_of([]) == EMPTY_ROOT == sha256(b"").digest()


def test_leaves_and_nodes_are_hashed_apart() -> None:
    assert leaf_hash(b"") == sha256(b"\0").digest()
    assert node_hash(LEAVES[0], LEAVES[1]) != leaf_hash(LEAVES[0] + LEAVES[1])


def test_roots_are_those_of_the_definition() -> None:
    growing = Tree()
    for size in range(SMALL + 1):
        assert growing.root() == TREE.root(size) == root_of(LEAVES[:size]) == mth(LEAVES[:size])
        assert growing.append(LEAVES[size]) == size


def test_inclusion_proofs_are_those_of_the_definition_and_verify() -> None:
    for size in range(1, SMALL + 1):
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            assert proof == path(index, LEAVES[:size])
            assert included(index, size, proof)


def test_consistency_proofs_are_those_of_the_definition_and_verify() -> None:
    for new in range(1, SMALL + 1):
        for old in range(1, new + 1):
            proof = TREE.consistency_proof(old, new)
            assert proof == subproof(old, LEAVES[:new], True)
            assert consistent(old, new, proof)


def test_the_example_of_the_standard() -> None:
    # RFC 6962 section 2.1.3: seven entries, and the names that it gives to the nodes.
    a, b, c, d, e, f, j = LEAVES[:7]
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k, l = node_hash(g, h), node_hash(i, j)  # noqa: E741 - the standard's names
    assert TREE.root(7) == node_hash(k, l)
    paths = {0: [b, h, l], 3: [c, g, l], 4: [f, j, k], 6: [i, k]}
    assert {index: TREE.inclusion_proof(index, 7) for index in paths} == paths
    proofs = {3: [c, d, g, l], 4: [l], 6: [i, j, k]}
    assert {old: TREE.consistency_proof(old, 7) for old in proofs} == proofs


@given(SIZES, st.data())
def test_proofs_hold_in_larger_trees(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(0, size))
    assert TREE.root(size) == root_of(LEAVES[:size])
    assert included(index, size, TREE.inclusion_proof(index, size))
    assert consistent(old, size, TREE.consistency_proof(old, size))


@given(SIZES, st.data())
def test_a_flipped_bit_spoils_an_inclusion_proof(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    parts = [LEAVES[index], TREE.root(size), *TREE.inclusion_proof(index, size)]
    leaf, root, *proof = flip_one(parts, data)
    assert not included(index, size, proof, leaf, root)


@given(SIZES, st.data())
def test_a_flipped_bit_spoils_a_consistency_proof(new: int, data: st.DataObject) -> None:
    old = data.draw(st.integers(1, new))
    parts = [TREE.root(old), TREE.root(new), *TREE.consistency_proof(old, new)]
    old_root, new_root, *proof = flip_one(parts, data)
    assert not verify_consistency(old=old, new=new, old_root=old_root, new_root=new_root, proof=proof)


def flip_one(parts: list[bytes], data: st.DataObject) -> list[bytes]:
    which = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = bytearray(parts[which])
    flipped[bit // 8] ^= 1 << bit % 8
    return [*parts[:which], bytes(flipped), *parts[which + 1 :]]


def test_an_inclusion_proof_holds_for_one_index_only() -> None:
    # One size's proof may serve another size, whose path has the same shape; the root tells them apart.
    for size in range(1, 33):
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            holding = [
                other for other in range(-1, size + 2) if included_at(other, LEAVES[index], size, proof)
            ]
            assert holding == [index]


def included_at(index: int, leaf: bytes, size: int, proof: list[bytes]) -> bool:
    return verify_inclusion(leaf=leaf, index=index, size=size, proof=proof, root=TREE.root(size))


def test_proofs_of_another_length_are_refused() -> None:
    spare = LEAVES[0]
    for size in range(1, 20):
        for index in range(size):
            proof = TREE.inclusion_proof(index, size)
            assert not included(index, size, [*proof, spare])
            assert not included(index, size, [spare, *proof])
            assert not proof or not included(index, size, proof[:-1])
            proof = TREE.consistency_proof(index, size)
            assert not consistent(index, size, [*proof, spare])
            assert not consistent(index, size, [spare, *proof])
            assert not proof or not consistent(index, size, proof[:-1])


def test_hashes_of_another_length_are_refused() -> None:
    proof = TREE.inclusion_proof(2, 5)
    assert not included(2, 5, [proof[0] + b"\0", *proof[1:]])
    assert not included(2, 5, proof, leaf=LEAVES[2][:-1])
    # Bytes moved from one hash to its neighbour leave the hashed concatenation alone.
    assert not verify_inclusion(
        leaf=LEAVES[0] + LEAVES[1][:1], index=0, size=2, proof=[LEAVES[1][1:]], root=TREE.root(2)
    )


def test_equal_sizes_and_the_empty_tree_take_no_proof() -> None:
    assert consistent(7, 7, [])
    assert consistent(0, 7, [])
    assert consistent(0, 0, [])
    assert not consistent(7, 7, [LEAVES[0]])
    root = TREE.root(7)
    assert not verify_consistency(old=7, new=7, old_root=root, new_root=LEAVES[0], proof=[])
    assert not verify_consistency(old=0, new=7, old_root=root, new_root=root, proof=[])
    assert not verify_consistency(old=0, new=0, old_root=EMPTY_ROOT, new_root=root, proof=[])
    assert not verify_consistency(old=8, new=7, old_root=TREE.root(8), new_root=root, proof=[])


def test_what_the_tree_does_not_have_is_an_error() -> None:
    tree = Tree(LEAVES[:5])
    for impossible in (
        lambda: tree.append(b"short"),
        lambda: root_of([b"short"]),
        lambda: tree.root(6),
        lambda: tree.root(-1),
        lambda: tree.inclusion_proof(5),
        lambda: tree.inclusion_proof(-1),
        lambda: tree.inclusion_proof(0, 6),
        lambda: tree.consistency_proof(6),
        lambda: tree.consistency_proof(-1),
        lambda: tree.consistency_proof(3, 2),
        lambda: tree.leaf(5),
        lambda: tree.leaf(-1),
        lambda: tree.subtrees(2, 0, 2),
        lambda: tree.subtrees(60, 0, 1),
    ):
        with pytest.raises(ValueError):
            impossible()
    assert tree.size == 5


def test_entries_become_leaves() -> None:
    tree = Tree()
    assert [tree.append_entry(bytes([i])) for i in range(3)] == [0, 1, 2]
    assert tree.leaf(1) == leaf_hash(b"\x01")
    assert tree.subtrees(1, 0, 1) == node_hash(leaf_hash(b"\0"), leaf_hash(b"\x01"))
