"""Anchors as files of a bundle: what is read, what is refused, and what is there wherever writing stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked_log import Branch
from gradseal.errors import Error, MalformedBundle, MissingFile, RecordError, StoreError
from gradseal.precede.asn1 import MAX_DER_BYTES
from gradseal.proof import anchors
from gradseal.proof.anchors import (
    INDEX,
    MAX_INDEX_BYTES,
    MAX_TOKEN_BYTES,
    MAX_TOKENS,
    Anchored,
    AnchorStore,
    read_index,
    read_receipt,
    read_token,
    receipt_of,
    receipt_path,
    token_path,
)
from gradseal.proof.bundle import MAX_ENTRIES
from gradseal.proof.canonical import encode
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.merkle import verify_inclusion
from gradseal.proof.receipt import Receipt
from memory_files import MemoryFiles

ONE = CosigningKey(name="one.example", seed=b"\x01" * 32)
TWO = CosigningKey(name="two.example", seed=b"\x02" * 32)
BRANCH = Branch("a", 40)
FORK = Branch("b", 40)


def receipt(size: int, *keys: CosigningKey, branch: Branch = BRANCH, time: int = 1_800_000_000) -> Receipt:
    note = branch.note(size)
    lines = tuple(key.cosign(note.text, time) for key in keys)
    return receipt_of(replace(note, signatures=(*note.signatures, *lines)), branch.tree)


def with_index(data: bytes) -> MemoryFiles:
    files = MemoryFiles()
    files.content[INDEX] = data
    return files


def row(size: int, timestamps: int) -> dict[str, int]:
    return {"size": size, "timestamps": timestamps}


def test_the_last_entry_is_where_the_receipt_says() -> None:
    for size in range(1, 41):
        made = receipt(size)
        leaf, root = BRANCH.tree.leaf(size - 1), BRANCH.tree.root(size)
        assert verify_inclusion(leaf=leaf, index=size - 1, size=size, proof=made.proof, root=root)


def test_no_receipt_is_made_of_another_tree() -> None:
    with pytest.raises(RecordError, match="root at size 7"):
        receipt_of(BRANCH.note(7), FORK.tree)
    with pytest.raises(RecordError, match="root at size 40"):
        receipt_of(BRANCH.note(40), Branch("a", 39).tree)
    with pytest.raises(RecordError, match="root at size 0"):
        receipt_of(BRANCH.note(0), BRANCH.tree)


def test_what_was_added_is_read_back() -> None:
    files = MemoryFiles()
    store = AnchorStore(files)
    assert list(store.anchored) == list(read_index(files)) == []
    store.add(receipt(9, ONE), [b"token"])
    store.add(receipt(1), [])
    assert store.add(receipt(30, ONE, TWO), [b"a", b"b", b"a"]) == Anchored(size=30, timestamps=2)
    listed = (
        Anchored(size=1, timestamps=0),
        Anchored(size=9, timestamps=1),
        Anchored(size=30, timestamps=2),
    )
    assert store.anchored == read_index(files) == listed
    assert files.content[INDEX] == encode([row(1, 0), row(9, 1), row(30, 2)])
    assert read_receipt(files, 30) == receipt(30, ONE, TWO)
    assert [read_token(files, 30, number) for number in range(2)] == [b"a", b"b"]
    assert set(files.content) == {
        "anchors/index",
        "anchors/1.tlog-proof",
        "anchors/9.tlog-proof",
        "anchors/9.0.tsr",
        "anchors/30.tlog-proof",
        "anchors/30.0.tsr",
        "anchors/30.1.tsr",
    }


def test_what_is_added_later_goes_beside_what_is_there() -> None:
    files = MemoryFiles()
    AnchorStore(files).add(receipt(9, ONE), [b"a"])
    resumed = AnchorStore(files)
    assert resumed.add(receipt(9, TWO), [b"b", b"a"]) == Anchored(size=9, timestamps=2)
    assert read_receipt(files, 9) == receipt(9, ONE, TWO)
    assert [read_token(files, 9, number) for number in range(2)] == [b"a", b"b"]


def test_of_one_key_the_first_cosignature_stays() -> None:
    files = MemoryFiles()
    store = AnchorStore(files)
    store.add(receipt(9, ONE, time=100), [])
    for time in range(101, 200):
        store.add(receipt(9, ONE, time=time), [])
    assert read_receipt(files, 9) == receipt(9, ONE, time=100)


def test_what_is_there_already_writes_no_index() -> None:
    files = MemoryFiles()
    store = AnchorStore(files)
    store.add(receipt(9, ONE), [b"a"])
    store.add(receipt(9, ONE), [b"a"])
    assert [path for _, path in files.journal].count(INDEX) == 1


def test_another_checkpoint_of_an_anchored_size_is_refused() -> None:
    files = MemoryFiles()
    store = AnchorStore(files)
    store.add(receipt(9, ONE), [b"a"])
    before = dict(files.content)
    with pytest.raises(RecordError, match="another checkpoint of size 9") as caught:
        store.add(receipt(9, TWO, branch=FORK), [b"b"])
    assert (caught.value.where, files.content) == (receipt_path(9), before)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ([bytes([i]) for i in range(MAX_TOKENS + 1)], "17 time-stamps"),
        ([b""], "1 to 65536 bytes"),
        ([bytes(MAX_TOKEN_BYTES + 1)], "1 to 65536 bytes"),
    ],
)
def test_more_than_the_format_allows_is_not_written(tokens: list[bytes], said: str) -> None:
    files = MemoryFiles()
    with pytest.raises(RecordError, match=said):
        AnchorStore(files).add(receipt(9), tokens)
    assert files.content == {}


def test_no_more_sizes_than_the_format_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anchors, "MAX_ANCHORED", 2)
    files = MemoryFiles()
    store = AnchorStore(files)
    store.add(receipt(1), [])
    store.add(receipt(2), [])
    with pytest.raises(RecordError, match="2 sizes are anchored"):
        store.add(receipt(3), [])
    store.add(receipt(2, ONE), [b"a"])
    assert read_index(files) == (Anchored(size=1, timestamps=0), Anchored(size=2, timestamps=1))


def test_a_receipt_of_another_entry_is_not_written() -> None:
    files = MemoryFiles()
    made = receipt(9)
    other = replace(made, index=3, proof=tuple(BRANCH.tree.inclusion_proof(3, 9)))
    with pytest.raises(MalformedBundle, match="entry 3 in a tree of 9"):
        AnchorStore(files).add(other, [])
    assert files.content == {}


Act = Callable[[AnchorStore], object]
ACTS: list[Act] = [
    lambda store: store.add(receipt(9, ONE), [b"a", b"b"]),
    lambda store: store.add(receipt(9, TWO), [b"c"]),
    lambda store: store.add(receipt(20, ONE), [b"d"]),
]


def check_whole(files: MemoryFiles) -> dict[int, tuple[int, set[bytes]]]:
    """Everything that the index lists is there; by size, how many lines a note has and its tokens."""
    found = {}
    for anchored in read_index(files):
        tokens = {read_token(files, anchored.size, number) for number in range(anchored.timestamps)}
        assert len(tokens) == anchored.timestamps
        found[anchored.size] = (len(read_receipt(files, anchored.size).note.signatures), tokens)
    return found


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("fail_at", range(10))
def test_wherever_writing_stops_there_is_a_whole_and_going_on_completes_it(fail_at: int, after: bool) -> None:
    files = MemoryFiles(fail_at, after=after)
    with pytest.raises(StoreError):
        for act in ACTS:
            act(AnchorStore(files))
    had = check_whole(files)
    left = MemoryFiles()
    left.content = dict(files.content)
    for act in ACTS:
        act(AnchorStore(left))
        now = check_whole(left)
        assert all(now[size][0] >= lines and now[size][1] >= tokens for size, (lines, tokens) in had.items())
    assert check_whole(left) == {9: (3, {b"a", b"b", b"c"}), 20: (2, {b"d"})}


def test_the_writes_of_the_acts_are_counted_right() -> None:
    files = MemoryFiles()
    for act in ACTS:
        act(AnchorStore(files))
    assert len(files.journal) == 4 + 3 + 3


def test_a_write_that_failed_may_be_made_again() -> None:
    for fail_at in range(4):
        files = MemoryFiles(fail_at, once=True)
        store = AnchorStore(files)
        with pytest.raises(StoreError):
            store.add(receipt(9, ONE), [b"a", b"b"])
        store.add(receipt(9, ONE), [b"a", b"b"])
        assert check_whole(files) == {9: (2, {b"a", b"b"})}


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", INDEX),
        (b"{}", INDEX),
        (b"null", INDEX),
        (b"[] ", INDEX),
        (b"[[]]", f"{INDEX}: [0]"),
        (b"[1]", f"{INDEX}: [0]"),
        (b'[{"size":1}]', f"{INDEX}: [0].timestamps"),
        (b'[{"timestamps":1}]', f"{INDEX}: [0].size"),
        (b'[{"size":0,"timestamps":1}]', f"{INDEX}: [0].size"),
        (b'[{"size":true,"timestamps":1}]', f"{INDEX}: [0].size"),
        (encode([row(MAX_ENTRIES + 1, 0)]), f"{INDEX}: [0].size"),
        (b'[{"size":1,"timestamps":17}]', f"{INDEX}: [0].timestamps"),
        (b'[{"size":1,"timestamps":-1}]', f"{INDEX}: [0].timestamps"),
        (b'[{"size":1,"timestamps":"1"}]', f"{INDEX}: [0].timestamps"),
        (b'[{"more":1,"size":1,"timestamps":1}]', f"{INDEX}: [0]"),
        (b'[{"timestamps":1,"size":1}]', INDEX),
        (b'[{"size":1,"timestamps":[[[1]]]}]', INDEX),
        (encode([row(2, 0), row(1, 0)]), f"{INDEX}: [1].size"),
        (encode([row(1, 0), row(3, 0), row(3, 0)]), f"{INDEX}: [2].size"),
        (b"[" + b" " * MAX_INDEX_BYTES + b"]", INDEX),
        (encode([row(size, 0) for size in range(1, 65_538)]), INDEX),
    ],
)
def test_an_index_of_another_form_is_refused_by_file_and_field(data: bytes, where: str) -> None:
    with pytest.raises(MalformedBundle) as caught:
        read_index(with_index(data))
    assert caught.value.where == where
    with pytest.raises(MalformedBundle):
        AnchorStore(with_index(data))


def test_the_largest_index_is_read() -> None:
    rows = [row(MAX_ENTRIES - size, MAX_TOKENS) for size in range(65_535, -1, -1)]
    assert len(read_index(with_index(encode(rows)))) == 65_536


SOME = encode([row(1, 0), row(9, 1), row(30, 16)])


@given(st.integers(0, len(SOME) - 1), st.binary(max_size=2))
def test_changed_bytes_of_an_index_are_refused_or_are_another_index(at: int, put: bytes) -> None:
    changed = SOME[:at] + put + SOME[at + 1 :]
    try:
        read = read_index(with_index(changed))
    except MalformedBundle:
        return
    assert encode([row(one.size, one.timestamps) for one in read]) == changed


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_by_name(data: bytes) -> None:
    files = with_index(data)
    files.content[receipt_path(9)] = data
    for act in (lambda: read_index(files), lambda: read_receipt(files, 9)):
        try:
            act()
        except Error as e:
            assert e.where.startswith("anchors/")


def test_a_receipt_in_another_place_is_refused() -> None:
    files = MemoryFiles()
    files.content[receipt_path(9)] = receipt(10).encode()
    made = receipt(12)
    inner = replace(made, index=3, proof=tuple(BRANCH.tree.inclusion_proof(3, 12)))
    files.content[receipt_path(12)] = inner.encode()
    for size in (9, 12):
        with pytest.raises(MalformedBundle, match=f"not the last one of {size}") as caught:
            read_receipt(files, size)
        assert caught.value.where == receipt_path(size)


def test_what_is_listed_and_absent_or_too_long_is_named() -> None:
    files = MemoryFiles()
    files.content[token_path(9, 0)] = bytes(MAX_TOKEN_BYTES + 1)
    with pytest.raises(MalformedBundle) as long:
        read_token(files, 9, 0)
    with pytest.raises(MissingFile) as absent:
        read_token(files, 9, 1)
    assert (long.value.where, absent.value.where) == ("anchors/9.0.tsr", "anchors/9.1.tsr")


def test_a_token_is_no_longer_than_one_that_can_be_verified() -> None:
    assert MAX_TOKEN_BYTES == MAX_DER_BYTES
