"""Receipts: an entry's place in a cosigned log, offline."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked_log import OWNER, Branch
from gradseal.errors import MalformedBundle
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.merkle import leaf_hash
from gradseal.proof.note import Note, SigningKey, encode_base64
from gradseal.proof.quorum import parse_policy
from gradseal.proof.receipt import HEADER, MAX_EXTRA_BYTES, Receipt, check_receipt, parse_receipt

WITNESS = CosigningKey(name="witness.example.org", seed=b"\x31" * 32)
POLICY = parse_policy(
    f"log {OWNER.verification_key}\nwitness w {WITNESS.verification_key}\nquorum w\n".encode(), where="policy"
)
BRANCH = Branch("a", 20)


def receipt(index: int, size: int, *, extra: bytes = b"", branch: Branch = BRANCH) -> Receipt:
    note = branch.note(size)
    return Receipt(
        index=index,
        proof=tuple(branch.tree.inclusion_proof(index, size)),
        note=Note(text=note.text, signatures=(*note.signatures, WITNESS.cosign(note.text, 1_800_000_000))),
        checkpoint=branch.checkpoint(size),
        extra=extra,
    )


GOOD = receipt(7, 20, extra=b"extra information")


def test_the_form_is_that_of_the_standard() -> None:
    one = BRANCH.tree.inclusion_proof(1, 2)
    note = receipt(1, 2).note.encode()
    expected = b"c2sp.org/tlog-proof@v1\nindex 1\n" + encode_base64(one[0]).encode() + b"\n\n" + note
    assert receipt(1, 2).encode() == expected
    # The first lines of the standard's example, and those of the Go implementation's tests.
    with_extra = receipt(0, 1, extra=b"extra information").encode()
    assert with_extra.startswith(b"c2sp.org/tlog-proof@v1\nextra ZXh0cmEgaW5mb3JtYXRpb24=\nindex 0\n\n")


# The example of C2SP tlog-proof, whose signatures are cut short where it was published.
EXAMPLE = """\
c2sp.org/tlog-proof@v1
extra YWdlLXYxLjIuMS1kYXJ3aW4tYXJtNjQudGFyLmd6kYXJ3aW4tYXJ
index 73894
gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
B95lDa8R83lS8n0eG+o0buTxRKQTYFi//1U8anccXmA=
EKNzoDWG8LGC0Yp9o+sv3qllpMP9uHQ9B20KNL+Q1zs=
RoopEkOdqkYqMB4MJXrbt/hMjOxsVn0IrWjpz1ZMMes=
AHCioX9nLjsrse6YhjRRmk1WUEirVOLLRoOQ6vfO5vk=

example.com/fancylog
109482
sFodV/vSp5O8n9a8QpW6PRY97tfOSW5bsc2Xl/EQi08=

\N{EM DASH} example.com/fancylog hI2DJw1roloI
\N{EM DASH} witness1.example mJirIkljqY9v2B/5bg==
\N{EM DASH} witness2.example TnKKVHLXxwYwrSjgow==
\N{EM DASH} witness3.example S4X82uH53oEcROGLFQ==
"""


def test_the_published_example_is_read() -> None:
    read = parse_receipt(EXAMPLE.encode(), where="example")
    assert read.encode() == EXAMPLE.encode()
    assert (read.index, len(read.proof), len(read.note.signatures)) == (73894, 5, 4)
    assert read.extra.startswith(b"age-v1.2.1-darwin-arm64.tar.gz")
    assert (read.checkpoint.origin, read.checkpoint.size) == ("example.com/fancylog", 109482)
    assert not check_receipt(read, leaf_hash(b""), POLICY).holds


@given(st.data(), st.binary(max_size=50))
def test_receipts_come_back_and_hold(data: st.DataObject, extra: bytes) -> None:
    size = data.draw(st.integers(1, 20))
    index = data.draw(st.integers(0, size - 1))
    made = receipt(index, size, extra=extra)
    read = parse_receipt(made.encode(), where="r")
    assert read == made
    checked = check_receipt(read, leaf_hash(f"a{index}".encode()), POLICY)
    assert (checked.holds, checked.not_after, checked.signer) == (True, 1_800_000_000, OWNER.verification_key)


@given(st.data())
def test_a_changed_byte_is_refused_or_does_not_hold_or_is_extra(data: st.DataObject) -> None:
    whole = bytearray(GOOD.encode())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    try:
        read = parse_receipt(bytes(whole), where="r")
    except MalformedBundle:
        return
    assert read.encode() == bytes(whole)
    holds = check_receipt(read, leaf_hash(b"a7"), POLICY).holds
    assert not holds or replace(read, extra=b"") == replace(GOOD, extra=b"")


def test_what_does_not_hold_says_what_is_missing() -> None:
    leaf = leaf_hash(b"a7")
    assert check_receipt(GOOD, leaf, POLICY).holds
    assert not check_receipt(GOOD, leaf_hash(b"a8"), POLICY).included
    assert not check_receipt(replace(GOOD, index=8), leaf, POLICY).included
    assert not check_receipt(replace(GOOD, proof=GOOD.proof[:-1]), leaf, POLICY).included
    thief = SigningKey(name=OWNER.name, seed=bytes(32))
    stolen = check_receipt(receipt(7, 20, branch=Branch("a", 20, key=thief)), leaf, POLICY)
    assert (stolen.included, stolen.signer, stolen.quorum, stolen.holds) == (True, None, True, False)
    alone = replace(GOOD, note=BRANCH.note(20))
    checked = check_receipt(alone, leaf, POLICY)
    assert (checked.included, checked.times, checked.quorum, checked.not_after) == (True, {}, False, None)


HASH = b"A" * 43 + b"=\n"


@pytest.mark.parametrize(
    "head",
    [
        b"wrong-header\nindex 0\n\n",
        HEADER + b"\n\n",
        HEADER + b"\n\n\n",
        HEADER + b"\nextra !!notbase64!!\nindex 0\n\n",
        HEADER + b"\nextra \nindex 0\n\n",
        HEADER + b"\nextra AA==\n\n",
        HEADER + b"\nextra AA==\nextra AA==\nindex 0\n\n",
        HEADER + b"\nindex notanumber\n\n",
        HEADER + b"\nindex -5\n\n",
        HEADER + b"\nindex 05\n\n",
        HEADER + b"\nindex 9223372036854775808\n\n",
        HEADER + b"\nindex 0\nindex 0\n\n",
        HEADER + b"\nindex 0\n!!notbase64!!\n\n",
        HEADER + b"\nindex 0\nAAAA\n\n",
        HEADER + b"\nindex 0\n" + HASH * 64 + b"\n",
        HEADER + b"\r\nindex 0\r\n\r\n",
        HEADER + b"\nextra " + encode_base64(bytes(MAX_EXTRA_BYTES + 1)).encode() + b"\nindex 0\n\n",
    ],
)
def test_heads_that_are_refused(head: bytes) -> None:
    with pytest.raises(MalformedBundle):
        parse_receipt(head + BRANCH.note(20).encode(), where="r")


def test_what_would_not_be_read_back_is_not_written() -> None:
    for broken in (
        replace(GOOD, index=-1),
        replace(GOOD, proof=(b"short",)),
        replace(GOOD, checkpoint=BRANCH.checkpoint(19)),
        replace(GOOD, extra=bytes(MAX_EXTRA_BYTES + 1)),
    ):
        with pytest.raises(MalformedBundle):
            broken.encode()


@given(st.binary(max_size=200) | st.integers(0, 400).map(lambda n: GOOD.encode()[:n]))
def test_any_bytes_are_a_receipt_or_refused(data: bytes) -> None:
    try:
        read = parse_receipt(data, where="r")
    except MalformedBundle:
        return
    assert read.encode() == data
