"""Policy files in tlog-policy form, and what they ask for."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forked_log import OWNER, Branch
from gradseal.errors import Error, KeyFileError, MalformedBundle, UnknownKind
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.note import Note, SigningKey
from gradseal.proof.quorum import MAX_DEFINITIONS, MAX_POLICY_BYTES, QuorumPolicy, parse_policy, signs_for

LOG = OWNER.verification_key
KEYS = {
    name: CosigningKey(name=f"{name}.example", seed=name.encode() * 16)
    for name in ("X1", "X2", "X3", "Y1", "Y2", "Y3")
}


def policy(text: str) -> QuorumPolicy:
    return parse_policy(text.encode("utf-8", "surrogateescape"), where="quorum.txt")


def witness(name: str, key: str = "") -> str:
    return f"witness {name} {KEYS[key or name].verification_key}"


# The example of C2SP tlog-policy, with keys.
EXAMPLE = f"""log {LOG}

{witness("X1")}
{witness("X2")}
{witness("X3")}
group X-witnesses 2 X1 X2 X3

{witness("Y1")}
{witness("Y2")}
{witness("Y3")}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


@pytest.mark.parametrize(
    ("names", "enough"),
    [
        ("X1 X2 Y1", True),
        ("X1 X2 X3 Y1 Y2 Y3", True),
        ("X2 X3 Y3", True),
        ("X1 X2 X3", False),
        ("X1 Y1 Y2 Y3", False),
        ("X-witnesses Y-witnesses", False),
        ("X-and-Y", False),
        ("X1 X1 Y1", False),
        ("", False),
    ],
)
def test_the_published_example_asks_for_two_and_one(names: str, enough: bool) -> None:
    assert policy(EXAMPLE).satisfied(names.split()) is enough


def test_the_time_is_that_at_which_the_quorum_was_complete() -> None:
    asked = policy(EXAMPLE)
    assert asked.not_after({"X1": 10, "X2": 30, "X3": 20, "Y1": 15, "Y2": 99}) == 20
    assert asked.not_after({"X1": 10, "X2": 30, "X3": 20, "Y2": 99}) == 99
    assert asked.not_after({"X1": 10, "X2": 30, "X3": 20}) is None
    assert asked.not_after({"X-witnesses": 1, "Y-witnesses": 1, "X-and-Y": 1}) is None


@given(st.dictionaries(st.sampled_from(sorted(KEYS)), st.integers(0, 50)))
def test_the_time_is_the_first_at_which_those_so_far_are_enough(times: dict[str, int]) -> None:
    asked = policy(EXAMPLE)
    moments = [t for t in range(51) if asked.satisfied(n for n, time in times.items() if time <= t)]
    assert asked.not_after(times) == (moments[0] if moments else None)


def test_a_policy_without_witnesses_is_satisfied_and_shows_no_time() -> None:
    asked = policy("quorum none\n")
    assert asked.satisfied(())
    assert asked.not_after({}) is None
    assert (asked.logs, asked.witnesses, asked.groups) == ((), (), ())


def test_blanks_comments_and_urls() -> None:
    key = KEYS["X1"].verification_key
    text = f"\n# comment\n\t # another\n\twitness \t w1  {key}   https://w1.example/  \n\n  quorum\tw1"
    asked = policy(f"log {LOG} https://log.example/\n{text}")
    assert asked.logs[0].url == "https://log.example/"
    assert [(w.name, w.url) for w in asked.witnesses] == [("w1", "https://w1.example/")]


def test_names_are_opaque_octets() -> None:
    kelvin, plain = "\N{KELVIN SIGN}", "K"
    lines = [witness(kelvin, "X1"), witness(plain, "X2"), witness("\udc80", "X3")]
    text = "\n".join([*lines, f"group g 3 {kelvin} K \udc80", "quorum g"])
    assert [w.name for w in policy(text).witnesses] == [kelvin, plain, "\udc80"]
    no_break = f"{witness('a' + chr(0xA0) + 'b', 'X1')}\nquorum a\u00a0b\n"
    assert policy(no_break).quorum == "a\u00a0b"


def test_keywords_are_names_too() -> None:
    asked = policy(f"{witness('all', 'X1')}\n{witness('any', 'X2')}\ngroup group 2 all any\nquorum group\n")
    assert asked.satisfied(["all", "any"])


TWO = f"{witness('X1')}\n{witness('X2')}\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quorum none\n\x01",
        "quorum none\r\n",
        "quorum none\n\x7f",
        "quibble X1\nquorum none\n",
        "quorum\n",
        "quorum none none\n",
        "quorum unknown\n",
        f"{TWO}quorum X1\nquorum X1\n",
        f"quorum X1\n{TWO}",
        TWO,
        "log\nquorum none\n",
        f"log {LOG} a b\nquorum none\n",
        f"log {LOG}\nlog {LOG}\nquorum none\n",
        "witness w1\nquorum none\n",
        f"{witness('X1')} https://w.example/ # comment\nquorum X1\n",
        f"{witness('none', 'X1')}\nquorum none\n",
        f"{witness('w', 'X1')}\n{witness('w', 'X2')}\nquorum w\n",
        f"{witness('v', 'X1')}\n{witness('w', 'X1')}\nquorum w\n",
        f"{TWO}group X1 any X2\nquorum X1\n",
        f"{TWO}group none any X2\nquorum none\n",
        f"{TWO}group g 1\nquorum X1\n",
        f"{TWO}group g 0 X1\nquorum g\n",
        f"{TWO}group g -1 X1\nquorum g\n",
        f"{TWO}group g 01 X1\nquorum g\n",
        f"{TWO}group g ANY X1\nquorum g\n",
        f"{TWO}group g 3 X1 X2\nquorum g\n",
        f"{TWO}group g any X9\nquorum g\n",
        f"{TWO}group g any g\nquorum g\n",
        f"group g any X1\n{TWO}quorum g\n",
        f"{TWO}group g any none X1\nquorum g\n",
        f"{TWO}group g all X1 X1\nquorum g\n",
        f"{TWO}group g any X1 X2\ngroup h any X1\nquorum g\n",
    ],
)
def test_policies_that_are_refused(text: str) -> None:
    with pytest.raises(MalformedBundle) as caught:
        policy(text)
    assert caught.value.where.startswith("quorum.txt")


def test_one_public_key_counts_once_under_whatever_name() -> None:
    twin = CosigningKey(name="impostor.example", seed=KEYS["X1"].seed).verification_key
    with pytest.raises(MalformedBundle):
        policy(f"{witness('X1')}\nwitness w2 {twin}\nquorum X1\n")


def test_keys_of_the_wrong_type_are_refused() -> None:
    plain = SigningKey(name="w.example", seed=bytes(32)).verification_key
    with pytest.raises(KeyFileError):
        policy(f"witness w {plain}\nquorum w\n")
    with pytest.raises(KeyFileError):
        policy(f"log {KEYS['X1'].verification_key}\nquorum none\n")
    with pytest.raises(UnknownKind):
        policy(f"witness w w.example+00000000+{'Bg' + 'A' * 42}\nquorum w\n")


def test_numbers_and_sizes_are_bounded() -> None:
    lines = [
        f"witness w{n} {CosigningKey(name='w', seed=n.to_bytes(32, 'big')).verification_key}"
        for n in range(MAX_DEFINITIONS + 1)
    ]
    names = " ".join(f"w{n}" for n in range(MAX_DEFINITIONS))
    whole = "\n".join([*lines[:-1], f"group g all {names}", "quorum g", ""])
    assert policy(whole).satisfied(names.split())
    with pytest.raises(MalformedBundle):
        policy("\n".join([*lines, "quorum none", ""]))
    with pytest.raises(MalformedBundle):
        policy("#" * MAX_POLICY_BYTES + "\nquorum none\n")


def test_groups_as_deep_as_they_may_be() -> None:
    deep = [f"group g{n} any g{n - 1}" for n in range(1, MAX_DEFINITIONS)]
    text = "\n".join([witness("X1"), "group g0 any X1", *deep, f"quorum g{MAX_DEFINITIONS - 1}", ""])
    assert policy(text).satisfied(["X1"])


@given(
    st.binary(max_size=200)
    | st.lists(st.sampled_from([*EXAMPLE.split(), "\n", "3", "any", "none"]), max_size=30).map(
        lambda w: " ".join(w).encode()
    )
)
def test_any_bytes_are_a_policy_or_refused(data: bytes) -> None:
    try:
        found = parse_policy(data, where="quorum.txt")
    except Error:
        return
    assert found.satisfied([w.name for w in found.witnesses])


def cosigned(note: Note, names: Sequence[str]) -> Note:
    lines = [KEYS[name].cosign(note.text, 100 + n) for n, name in enumerate(names)]
    return Note(text=note.text, signatures=(*note.signatures, *lines))


def test_times_are_those_of_verified_cosignatures() -> None:
    asked = policy(EXAMPLE)
    note = cosigned(Branch("a", 5).note(5), ["X1", "X3", "Y2"])
    assert asked.times(note) == {"X1": 100, "X3": 101, "Y2": 102}
    altered = Note(text=Branch("b", 5).note(5).text, signatures=note.signatures)
    assert asked.times(altered) == {}


def test_the_signer_is_a_log_of_the_policy_that_may_sign_for_the_origin() -> None:
    branch = Branch("a", 5)
    asked = policy(f"log {LOG}\nquorum none\n")
    assert asked.signer(branch.note(5), branch.origin) == LOG
    assert asked.signer(branch.note(5), "example.org/modelsx") is None
    thief = SigningKey(name=OWNER.name, seed=bytes(32))
    assert asked.signer(Branch("a", 5, key=thief).note(5), branch.origin) is None
    assert policy("quorum none\n").signer(branch.note(5), branch.origin) is None


@pytest.mark.parametrize(
    ("name", "origin", "may"),
    [
        ("a", "a", True),
        ("a", "a/b", True),
        ("a/b", "a/b/c", True),
        ("a", "ab", False),
        ("a/b", "a", False),
        ("a", "b/a", False),
    ],
)
def test_a_key_signs_for_its_name_and_what_is_below(name: str, origin: str, may: bool) -> None:
    assert signs_for(name, origin) is may
