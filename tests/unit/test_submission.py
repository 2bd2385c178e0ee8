"""What is sent to a witness, byte for byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked_log import Branch
from gradseal.errors import MalformedBundle
from gradseal.proof.note import open_note
from gradseal.proof.submission import MAX_SUBMISSION_BYTES, Submission, parse_size, parse_submission

GOOD = Branch("a", 9).submission(3, 9).encode()

# The example of C2SP tlog-witness, "add-checkpoint".
PUBLISHED = """\
old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
"""  # noqa: E501 - as it was published


def test_the_published_example_is_read() -> None:
    found = parse_submission(PUBLISHED.encode())
    assert (found.old, len(found.proof), found.checkpoint.size) == (20852014, 4, 20852163)
    assert found.checkpoint.origin == "example.com/behind-the-sofa"
    assert found.encode() == PUBLISHED.encode()


# The answer of the same section, whose keys are not published.
ANSWER = """\
— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
"""  # noqa: E501 - as it was published


def test_the_published_answer_is_signature_lines_after_the_checkpoint() -> None:
    submitted = parse_submission(PUBLISHED.encode()).note
    answered = open_note(submitted.encode() + ANSWER.encode(), where="answer")
    assert answered.text == submitted.text
    assert answered.signatures[:2] == submitted.signatures
    witnesses = [(line.name, len(line.signature)) for line in answered.signatures[2:]]
    assert witnesses == [("witness.example/w1", 72), ("witness.example/w1", 72), ("witness.example/w2", 72)]


@given(st.integers(0, 9), st.integers(0, 9))
def test_submissions_come_back(old: int, size: int) -> None:
    submission = Branch("a", 9).submission(old, size)
    assert parse_submission(submission.encode()) == submission


@given(st.binary(max_size=200) | st.integers(0, len(GOOD)).map(lambda n: GOOD[:n]) | st.just(GOOD))
def test_any_bytes_are_a_submission_or_refused(data: bytes) -> None:
    try:
        found = parse_submission(data)
    except MalformedBundle:
        return
    assert found.encode() == data


@given(st.data())
def test_a_changed_byte_is_refused_or_another_submission(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    changed = bytearray(GOOD)
    changed[at] = data.draw(st.integers(0, 255))
    try:
        found = parse_submission(bytes(changed))
    except MalformedBundle:
        return
    assert found.encode() == bytes(changed)


HASH = "A" * 43 + "=\n"


@pytest.mark.parametrize(
    "head",
    [
        "",
        "old\n\n",
        "old 03\n\n",
        "old +3\n\n",
        "old 1_0\n\n",
        "old -1\n\n",
        "old 3 \n\n",
        "OLD 3\n\n",
        "old  3\n\n",
        "old 3\r\n\r\n",
        f"old {2**63}\n\n",
        f"old 3\n{HASH * 64}\n",
        f"old 3\n{'A' * 44}\n\n",
        "old 3\nAAAA\n\n",
        f"old 3\n{'A' * 42}B=\n\n",
        f"old 3\n {HASH}\n",
    ],
)
def test_heads_that_are_refused(head: str) -> None:
    note = Branch("a", 9).note(9).encode()
    with pytest.raises(MalformedBundle):
        parse_submission(head.encode() + note)


def test_numbers_and_sizes_are_bounded() -> None:
    note = Branch("a", 9).note(9)
    assert len(parse_submission(f"old 3\n{HASH * 63}\n".encode() + note.encode()).proof) == 63
    with pytest.raises(MalformedBundle):
        parse_submission(b"old 0\n\n" + b"x" * MAX_SUBMISSION_BYTES)


def test_what_would_not_be_read_back_is_not_sent() -> None:
    branch = Branch("a", 9)
    with pytest.raises(MalformedBundle):
        Submission(old=3, proof=(), note=branch.note(9), checkpoint=branch.checkpoint(8)).encode()
    with pytest.raises(MalformedBundle):
        Submission(old=-1, proof=(), note=branch.note(9), checkpoint=branch.checkpoint(9)).encode()


# From the Sigsum project's client, which the C2SP documents grew out of: what a conflict may say.
@pytest.mark.parametrize(("body", "size"), [(b"0\n", 0), (b"50\n", 50)])
def test_sizes_are_read(body: bytes, size: int) -> None:
    assert parse_size(body, where="answer") == size


@pytest.mark.parametrize(
    "body", [b"", b"50", b"050\n", b"+5\n", b"5\n\n", b"5\r\n", b"1_0\n", b"99999999999999999999\n"]
)
def test_other_sizes_are_refused(body: bytes) -> None:
    with pytest.raises(MalformedBundle):
        parse_size(body, where="answer")
