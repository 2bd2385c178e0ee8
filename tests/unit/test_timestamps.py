"""Time-stamps: what a token says, which bytes are none, and what several authorities say together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha1, sha256, sha512
from typing import Any

import pytest
from asn1crypto import tsp
from cryptography import x509
from hypothesis import example, given
from hypothesis import strategies as st

from forged_tokens import (
    DIGEST,
    NOW,
    OTHER_ROOT,
    ROOT,
    SIGNER,
    Attributes,
    answer,
    certificate_id,
    edited,
    forge,
    informed,
    issuer_serial,
    make_info,
    nested,
    set_,
    stamped,
    verified,
)
from gradseal.errors import AnchorError
from gradseal.precede.asn1 import MAX_DEPTH, MAX_ELEMENTS, check_der
from gradseal.precede.timestamps import (
    PinnedAuthority,
    Stamped,
    agreed_bound,
    check_independent,
)
from time_stamp_authority import DAY, make_identity, make_key


def test_a_good_token_says_when_and_by_whom() -> None:
    accuracy = {"seconds": 1, "millis": 500, "micros": 7}
    token = informed(gen_time=NOW, accuracy=accuracy, serial_number=2**160 - 1)
    found = verified(token, nonce=99, policies=["1.2.3.4.1"])
    assert found.gen_time == NOW
    assert found.accuracy == timedelta(seconds=1.500007)
    assert found.upper_bound == NOW + timedelta(seconds=2.500007)
    assert not found.accuracy_assumed
    assert found.certificate == sha256(SIGNER.der).digest()
    assert (found.policy, found.serial_number) == ("1.2.3.4.1", 2**160 - 1)


def test_the_verifier_assumes_an_accuracy_where_none_is_given() -> None:
    found = verified(informed(gen_time=NOW, accuracy=None), assumed_accuracy_seconds=30)
    assert found.accuracy_assumed
    assert found.upper_bound == NOW + timedelta(seconds=31)


def test_an_empty_accuracy_is_zero() -> None:
    nothing = tsp.Accuracy.load(b"\x30\x00")
    assert verified(informed(gen_time=NOW, accuracy=nothing)).upper_bound == NOW + timedelta(seconds=1)


def test_fractions_of_a_second_are_kept() -> None:
    at = NOW.replace(microsecond=120_000)
    assert verified(informed(gen_time=at)).gen_time == at


def test_a_clock_that_is_behind_is_allowed_for() -> None:
    token = informed(gen_time=NOW)
    late = NOW - timedelta(seconds=60)
    assert verified(token, now=late, skew_seconds=60).gen_time == NOW
    assert verified(token, now=None).gen_time == NOW
    with pytest.raises(AnchorError, match="future"):
        verified(token, now=late, skew_seconds=59)


def test_an_expired_certificate_still_vouches_for_its_time() -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    root = make_identity("root", not_before=past - DAY, not_after=past + DAY)
    signer = make_identity("signer", root, not_before=past - DAY, not_after=past + DAY)
    token = forge(signer, make_info(DIGEST, gen_time=past).dump())
    assert verified(token, roots=[root.der]).gen_time == past


def test_an_intermediate_in_the_token_is_a_way_to_the_root() -> None:
    middle = make_identity("middle", ROOT, authority=True)
    signer = make_identity("signer", middle)
    info = make_info(DIGEST).dump()
    assert verified(forge(signer, info, certificates=[middle.der, signer.der])).policy == "1.2.3.4.1"
    with pytest.raises(AnchorError, match="leads to no pinned root"):
        verified(forge(signer, info))
    with pytest.raises(AnchorError, match="leads to no pinned root"):
        verified(forge(signer, info, certificates=[middle.der, signer.der]), roots=[OTHER_ROOT.der])


def test_tokens_are_malleable() -> None:
    for extra in (OTHER_ROOT.der, SIGNER.der):
        token = stamped(certificates=[SIGNER.der, extra])
        assert verified(token).certificate == sha256(SIGNER.der).digest()


@pytest.mark.parametrize("digest", ["sha384", "sha512"])
@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_other_digests_and_keys_are_taken(digest: str, kind: Any) -> None:
    signer = make_identity("signer", ROOT, key=make_key(kind))
    assert verified(forge(signer, make_info(DIGEST).dump(), digest=digest)).policy == "1.2.3.4.1"


def test_a_certificate_may_be_named_in_more_than_one_way() -> None:
    placed = certificate_id(SIGNER.der, issuer_serial=issuer_serial(SIGNER.der))
    longer = certificate_id(SIGNER.der, hash_algorithm={"algorithm": "sha512"})
    longer["certs"][0]["cert_hash"] = sha512(SIGNER.der).digest()
    old = tsp.SigningCertificate({"certs": [{"cert_hash": sha1(SIGNER.der).digest()}]})
    for value in (placed, longer):
        assert verified(edited(set_("signing_certificate_v2", value))).policy == "1.2.3.4.1"

    def both(attributes: Attributes) -> None:
        attributes["signing_certificate"] = [old]

    def only_old(attributes: Attributes) -> None:
        both(attributes)
        del attributes["signing_certificate_v2"]

    assert verified(edited(both)).policy == "1.2.3.4.1"
    assert verified(edited(only_old)).policy == "1.2.3.4.1"


def test_without_pins_nothing_verifies() -> None:
    with pytest.raises(AnchorError) as caught:
        verified(stamped(), roots=[])
    assert caught.value.where.endswith("pinned roots")
    with pytest.raises(AnchorError, match=r"not an X\.509 certificate"):
        verified(stamped(), roots=[b"junk"])


def test_an_intermediate_is_no_root() -> None:
    middle = make_identity("middle", ROOT, authority=True)
    signer = make_identity("signer", middle)
    with pytest.raises(AnchorError, match="leads to no pinned root"):
        verified(forge(signer, make_info(DIGEST).dump()), roots=[middle.der])


GOOD = stamped()


@given(st.data())
def test_any_changed_byte_is_refused_or_changes_nothing_that_counts(data: st.DataObject) -> None:
    token = bytearray(GOOD)
    at = data.draw(st.integers(0, len(token) - 1))
    token[at] ^= data.draw(st.integers(1, 255))
    try:
        found = verified(bytes(token))
    except AnchorError as e:
        assert e.where.startswith("time-stamp")
        return
    assert found == verified(GOOD)


@given(st.binary(max_size=80) | st.binary(max_size=60).map(answer))
@example(b"\x30\x84\x00\x00\x00\x01\x05")
@example(b"\x30\x80\x00\x00")
@example(b"\x02\x01\x00")
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(AnchorError):
        verified(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x30\x80\x05\x00\x00\x00",  # no definite length
        b"\x30\x81\x02\x05\x00",  # a long length for a short one
        b"\x30\x82\x00\x80" + bytes(128),  # zeros before a length
        b"\x24\x04\x04\x02ab",  # a string in parts
        b"\x10\x00",  # a primitive sequence
        b"\x1f\x20\x00",  # a tag of several bytes
        b"\x30\x03\x04\x02a",  # longer than what holds it
        b"\x30\x01\x05",  # a tag without a length
    ],
)
def test_what_is_not_strict_der_is_refused(data: bytes) -> None:
    with pytest.raises(AnchorError):
        check_der(data, where="x")


def test_der_at_its_limits_is_read() -> None:
    check_der(nested(MAX_DEPTH - 1), where="x")
    check_der(answer(b"\x05\x00" * (MAX_ELEMENTS - 1)), where="x")
    check_der(answer(b"\x04\x82" + (65_528).to_bytes(2, "big") + bytes(65_528)), where="x")


def stamp(seconds: float, key: str = "") -> Stamped:
    """A stamp whose upper bound is NOW and some seconds."""
    return Stamped(
        gen_time=NOW + timedelta(seconds=seconds - 1),
        accuracy=timedelta(0),
        accuracy_assumed=False,
        certificate=b"",
        key=key.encode(),
        policy="1.2",
        serial_number=1,
    )


def test_k_authorities_agree_on_the_kth_bound() -> None:
    stamps = {"a": [stamp(30, "a")], "b": [stamp(10, "b")], "c": [stamp(20, "c")]}
    for k, seconds in [(1, 10), (2, 20), (3, 30)]:
        assert agreed_bound(stamps, k) == NOW + timedelta(seconds=seconds)
    assert agreed_bound(stamps, 4) is None
    assert agreed_bound({}, 1) is None


def test_an_authority_counts_once_however_many_tokens_it_gives() -> None:
    stamps = {"a": [stamp(9, "a"), stamp(1, "a2"), stamp(2, "a")], "b": [stamp(50, "b")]}
    assert agreed_bound(stamps, 1) == NOW + timedelta(seconds=1)
    assert agreed_bound(stamps, 2) == NOW + timedelta(seconds=50)
    assert agreed_bound(stamps, 3) is None


def test_one_signer_under_two_names_counts_once() -> None:
    assert agreed_bound({"a": [stamp(1, "k")], "b": [stamp(2, "k")]}, 2) is None
    assert agreed_bound({"a": [stamp(1, "k")], "b": [stamp(2, "k"), stamp(3, "l")]}, 2) == NOW + timedelta(
        seconds=3
    )


def test_nobody_agrees_on_nothing() -> None:
    with pytest.raises(AnchorError):
        agreed_bound({"a": [stamp(1)]}, 0)


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=7), st.integers(1, 7), st.data())
def test_fewer_than_k_false_clocks_pull_no_bound_forward(
    honest: list[int], k: int, data: st.DataObject
) -> None:
    """With k−1 liars beside honest authorities, no bound is earlier than the earliest honest one."""
    liars = data.draw(st.lists(st.integers(-1000, -1), min_size=k - 1, max_size=k - 1))
    stamps = {f"h{i}": [stamp(s, f"h{i}")] for i, s in enumerate(honest)}
    stamps |= {f"l{i}": [stamp(s, f"l{i}")] for i, s in enumerate(liars)}
    bound = agreed_bound(stamps, k)
    assert bound == NOW + timedelta(seconds=min(honest))


def test_a_pinned_authority_verifies_under_its_own_name() -> None:
    authority = PinnedAuthority(name="clock.example", roots=(ROOT.der,), assumed_accuracy_seconds=5)
    token = informed(gen_time=NOW, accuracy=None)
    found = authority.verify(token, digest=DIGEST, now=NOW)
    assert found.upper_bound == NOW + timedelta(seconds=6)
    with pytest.raises(AnchorError) as caught:
        authority.verify(token, digest=bytes(32), now=NOW)
    assert caught.value.where.startswith("time-stamp of clock.example")


def test_pins_must_be_independent() -> None:
    first = PinnedAuthority(name="a", roots=(ROOT.der,))
    check_independent([first, PinnedAuthority(name="b", roots=(OTHER_ROOT.der,))])
    again = make_identity("renewed", key=ROOT.key)
    assert x509.load_der_x509_certificate(again.der) != ROOT.certificate
    for second in (
        PinnedAuthority(name="a", roots=(OTHER_ROOT.der,)),
        PinnedAuthority(name="b", roots=(OTHER_ROOT.der, again.der)),
        PinnedAuthority(name="b", roots=()),
        PinnedAuthority(name="b", roots=(b"junk",)),
    ):
        with pytest.raises(AnchorError):
            check_independent([first, second])


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_an_accuracy_that_nobody_has_is_not_assumed(seconds: float) -> None:
    with pytest.raises(AnchorError):
        PinnedAuthority(name="a", roots=(ROOT.der,), assumed_accuracy_seconds=seconds)
