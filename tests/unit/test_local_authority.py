"""A time-stamp authority of one's own: its key, what it answers and to what, and what its service says."""

from __future__ import annotations

import asyncio
import stat
import sys
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from asn1crypto import core, tsp
from asn1crypto.x509 import Certificate
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gradseal.cli.main import gradseal
from gradseal.errors import AnchorError, KeyFileError
from gradseal.precede.authority_serving import application
from gradseal.precede.certificates import make_certificates
from gradseal.precede.local_authority import (
    MAX_DAYS,
    MAX_KEY_FILE_BYTES,
    POLICY,
    LocalAuthority,
    load_local_authority,
)
from gradseal.precede.queries import MAX_QUERY_BYTES
from gradseal.precede.timestamps import Stamped, verify_token

BEGINS = datetime(2026, 3, 1, tzinfo=UTC)
NOW = datetime(2026, 3, 2, 12, 30, 15, 999_999, tzinfo=UTC)
LOCAL = LocalAuthority.generate(name="lab", days=30, now=BEGINS)
OTHER = LocalAuthority.generate(name="lab", days=30, now=BEGINS)
DIGEST = sha256(b"stamped").digest()
SHA256 = {"algorithm": "sha256"}
TIME_STAMPING = ExtendedKeyUsageOID.TIME_STAMPING


def query(**fields: Any) -> bytes:
    """A good query, but for the fields set over it; None removes one."""
    whole = {
        "version": "v1",
        "message_imprint": {"hash_algorithm": SHA256, "hashed_message": DIGEST},
        "nonce": 7,
        "cert_req": True,
        **fields,
    }
    return bytes(tsp.TimeStampReq({name: value for name, value in whole.items() if value is not None}).dump())


def verified(answer: bytes, **options: Any) -> Stamped:
    return verify_token(
        answer, **{"digest": DIGEST, "roots": [LOCAL.root], "nonce": 7, "now": NOW, **options}
    )


def status(answer: bytes) -> Any:
    """The PKIStatusInfo of an answer without a token."""
    return core.SequenceOf.load(answer, spec=tsp.PKIStatusInfo, strict=True)[0]


def test_an_answer_verifies_and_says_what_it_should() -> None:
    found = verified(LOCAL.answer(query(), NOW))
    assert found.gen_time == NOW.replace(microsecond=0)
    assert (found.accuracy, found.accuracy_assumed) == (timedelta(seconds=1), False)
    assert found.policy == POLICY
    assert found.upper_bound >= NOW
    assert found.certificate == sha256(LOCAL.signer_certificate.public_bytes(Encoding.DER)).digest()


def test_another_root_or_nonce_or_digest_does_not_verify() -> None:
    answer = LOCAL.answer(query(), NOW)
    for options in ({"roots": [OTHER.root]}, {"nonce": 8}, {"digest": bytes(32)}):
        with pytest.raises(AnchorError):
            verified(answer, **options)


def test_the_time_is_that_of_the_clock_in_any_zone_and_its_accuracy_is_said() -> None:
    east = NOW.astimezone(timezone(timedelta(hours=9)))
    found = verified(LOCAL.answer(query(), east, accuracy_seconds=60))
    assert found.gen_time == NOW.replace(microsecond=0)
    assert found.accuracy == timedelta(seconds=60)


def test_every_answer_has_a_serial_number_of_its_own() -> None:
    numbers = {verified(LOCAL.answer(query(), NOW)).serial_number for _ in range(20)}
    assert len(numbers) == 20
    assert all(0 <= number < 1 << 160 for number in numbers)


def test_the_certificate_is_there_only_if_asked_for() -> None:
    with_it, without = (
        tsp.TimeStampResp.load(LOCAL.answer(query(cert_req=wanted), NOW))["time_stamp_token"]["content"]
        for wanted in (True, False)
    )
    signer = LOCAL.signer_certificate.public_bytes(Encoding.DER)
    assert [choice.dump() for choice in with_it["certificates"]] == [signer]
    assert without["certificates"].native is None


@pytest.mark.parametrize("nonce", [None, 0, 1, (1 << 64) - 1, (1 << 160) - 1])
def test_the_nonce_is_repeated(nonce: int | None) -> None:
    answer = LOCAL.answer(query(nonce=nonce), NOW)
    verified(answer, nonce=nonce)
    token = tsp.TimeStampResp.load(answer)["time_stamp_token"]
    assert token["content"]["encap_content_info"]["content"].parsed["nonce"].native == nonce


def test_a_query_may_name_the_one_policy() -> None:
    assert verified(LOCAL.answer(query(req_policy=POLICY), NOW), policies=[POLICY]).policy == POLICY


GOOD = query()
EXTENSION = {"extn_id": "1.2.3.4", "critical": False, "extn_value": core.OctetString(b"\x05\x00")}
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "bad_data_format"),
    "text": (b"GET / HTTP/1.1", "bad_data_format"),
    "cut short": (GOOD[:-1], "bad_data_format"),
    "something after it": (GOOD + b"\0", "bad_data_format"),
    "an indefinite length": (b"\x30\x80" + GOOD[2:] + b"\0\0", "bad_data_format"),
    "nested": (b"\x30\x80" * 500, "bad_data_format"),
    "long": (query(nonce=1 << (8 * MAX_QUERY_BYTES)), "bad_data_format"),
    "an empty sequence": (b"\x30\x00", "bad_data_format"),
    "an integer": (b"\x02\x01\x01", "bad_data_format"),
    "an answer": (LOCAL.answer(query(cert_req=False), NOW), "bad_data_format"),
    "a false that is said": (GOOD[:-1] + b"\0", "bad_data_format"),
    "a true of another byte": (GOOD[:-1] + b"\1", "bad_data_format"),
    "a nonce that is too large": (query(nonce=1 << 160), "bad_data_format"),
    "a negative nonce": (query(nonce=-1), "bad_data_format"),
    "a short digest": (
        query(message_imprint={"hash_algorithm": SHA256, "hashed_message": bytes(31)}),
        "bad_data_format",
    ),
    "another version": (GOOD.replace(b"\x02\x01\x01", b"\x02\x01\x02", 1), "bad_request"),
    "SHA-512": (
        query(message_imprint={"hash_algorithm": {"algorithm": "sha512"}, "hashed_message": bytes(64)}),
        "bad_alg",
    ),
    "SHA-1": (
        query(message_imprint={"hash_algorithm": {"algorithm": "sha1"}, "hashed_message": bytes(20)}),
        "bad_alg",
    ),
    "a hash that nobody knows": (
        query(message_imprint={"hash_algorithm": {"algorithm": "1.2.3"}, "hashed_message": DIGEST}),
        "bad_alg",
    ),
    "another policy": (query(req_policy="1.2.3.4.1"), "unaccepted_policy"),
    "an extension": (query(extensions=[EXTENSION]), "unaccepted_extensions"),
}


@pytest.mark.parametrize(("asked", "failure"), REFUSED.values(), ids=REFUSED)
def test_what_is_wrong_with_a_query_is_said(asked: bytes, failure: str) -> None:
    answer = LOCAL.answer(asked, NOW)
    said = status(answer)
    assert (said["status"].native, said["fail_info"].native) == ("rejection", {failure})
    assert said["status_string"].native[0]
    with pytest.raises(AnchorError, match="did not grant it"):
        verified(answer)


@settings(max_examples=200)
@given(st.binary(max_size=100))
def test_any_bytes_get_a_rejection(asked: bytes) -> None:
    assert status(LOCAL.answer(asked, NOW))["status"].native == "rejection"


@settings(max_examples=200)
@given(st.data())
def test_a_changed_query_is_refused_or_answered_as_it_stands(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    asked = GOOD[:at] + bytes([GOOD[at] ^ 1 << data.draw(st.integers(0, 7))]) + GOOD[at + 1 :]
    answer = LOCAL.answer(asked, NOW)
    if len(core.SequenceOf.load(answer, spec=core.Any)) == 1:
        assert status(answer)["status"].native == "rejection"
        return
    # Of the whole query, only digest and nonce can change and make another good one.
    read = tsp.TimeStampReq.load(asked, strict=True)
    digest, nonce = read["message_imprint"]["hashed_message"].native, read["nonce"].native
    assert (digest, nonce) != (DIGEST, 7)
    verified(answer, digest=digest, nonce=nonce)


@pytest.mark.parametrize("now", [BEGINS - timedelta(seconds=1), LOCAL.expires, LOCAL.expires + timedelta(1)])
def test_no_time_is_told_outside_the_certificates(now: datetime) -> None:
    said = status(LOCAL.answer(query(), now))
    assert said["fail_info"].native == {"time_not_available"}


def test_what_was_signed_in_time_verifies_after_the_end() -> None:
    for last in (BEGINS, LOCAL.expires - timedelta(microseconds=1)):
        answer = LOCAL.answer(query(), last)
        found = verified(answer, now=LOCAL.expires + timedelta(days=10_000))
        assert found.gen_time == last.replace(microsecond=0)


@pytest.mark.parametrize(
    ("now", "accuracy_seconds"), [(NOW.replace(tzinfo=None), 1), (NOW, 0), (NOW, -1), (NOW, 86_401)]
)
def test_a_clock_that_is_none_is_an_error(now: datetime, accuracy_seconds: int) -> None:
    with pytest.raises(AnchorError):
        LOCAL.answer(query(), now, accuracy_seconds=accuracy_seconds)


def test_the_signer_is_for_time_stamping_alone_and_the_root_issues_once() -> None:
    usage = LOCAL.signer_certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert (usage.critical, list(usage.value)) == (True, [TIME_STAMPING])
    constraints = LOCAL.root_certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    LOCAL.root_certificate.verify_directly_issued_by(LOCAL.root_certificate)
    LOCAL.signer_certificate.verify_directly_issued_by(LOCAL.root_certificate)
    assert LOCAL.encode().count("PRIVATE KEY") == 2  # the signer's begin and end


def test_generated_authorities_differ_even_under_one_name() -> None:
    assert LOCAL != OTHER
    assert LOCAL.root != OTHER.root


@pytest.mark.parametrize("name", ["", "a b", "-a", "a/b", "a\n", "x" * 65, "é", "a,O=b"])
def test_names_that_no_authority_can_have(name: str) -> None:
    with pytest.raises(KeyFileError, match="a name is"):
        LocalAuthority.generate(name=name)


@pytest.mark.parametrize("days", [0, -1, MAX_DAYS + 1])
def test_days_that_no_authority_can_have(days: int) -> None:
    with pytest.raises(KeyFileError, match="days"):
        LocalAuthority.generate(name="a", days=days)


@pytest.mark.parametrize(("name", "days"), [("a", 1), ("Lab-7_x.example", MAX_DAYS), ("x" * 64, 3650)])
def test_keys_come_back_from_their_text(name: str, days: int) -> None:
    local = LocalAuthority.generate(name=name, days=days)
    text = local.encode()
    assert len(text) < MAX_KEY_FILE_BYTES
    again = LocalAuthority.parse(text)
    assert again == local
    assert (again.name, again.root, again.encode()) == (name, local.root, text)
    assert (again.expires - again.signer_certificate.not_valid_before_utc).days == days
    answer = again.answer(query(), datetime.now(UTC))
    assert verified(answer, roots=[local.root], now=None).policy == POLICY


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=100)
@given(st.data())
def test_a_changed_character_of_a_key_is_noticed(data: st.DataObject) -> None:
    text = LOCAL.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    replaced = text[:at] + data.draw(st.characters(exclude_characters=[text[at]])) + text[at + 1 :]
    with pytest.raises(KeyFileError):
        LocalAuthority.parse(replaced)


def pem(key: Any, encryption: Any = None) -> str:
    encoded = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())
    return str(encoded.decode())


ROOT_PEM, SIGNER_PEM = LOCAL.root_pem, LOCAL.signer_certificate.public_bytes(Encoding.PEM).decode()
KEY_PEM = pem(LOCAL.key)
SEC1_PEM = LOCAL.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()).decode()
NO_KEYS: dict[str, str] = {
    "nothing": "",
    "a root alone": ROOT_PEM,
    "no key": ROOT_PEM + SIGNER_PEM,
    "another order": SIGNER_PEM + ROOT_PEM + KEY_PEM,
    "a root twice": ROOT_PEM + ROOT_PEM + KEY_PEM,
    "something before it": "# lab\n" + ROOT_PEM + SIGNER_PEM + KEY_PEM,
    "something after it": ROOT_PEM + SIGNER_PEM + KEY_PEM + ROOT_PEM,
    "long lines": ROOT_PEM + SIGNER_PEM + KEY_PEM.replace("\n", "").replace("KEY-----", "KEY-----\n", 1),
    "carriage returns": (ROOT_PEM + SIGNER_PEM + KEY_PEM).replace("\n", "\r\n"),
    "an empty certificate": ROOT_PEM + "-----BEGIN CERTIFICATE-----\n\n-----END CERTIFICATE-----\n" + KEY_PEM,
    "certificates that are none": ROOT_PEM.replace("MII", "AAA") + SIGNER_PEM + KEY_PEM,
    "another's root": OTHER.root_pem + SIGNER_PEM + KEY_PEM,
    "another's key": ROOT_PEM + SIGNER_PEM + pem(OTHER.key),
    "a key on another curve": ROOT_PEM + SIGNER_PEM + pem(ec.generate_private_key(ec.SECP384R1())),
    "a key of another kind": ROOT_PEM + SIGNER_PEM + pem(ed25519.Ed25519PrivateKey.generate()),
    "a key in another form": ROOT_PEM + SIGNER_PEM + SEC1_PEM,
    "a key under a password": ROOT_PEM + SIGNER_PEM + pem(LOCAL.key, BestAvailableEncryption(b"x")),
    "huge": ROOT_PEM * 20 + SIGNER_PEM + KEY_PEM,
}


@pytest.mark.parametrize("text", NO_KEYS.values(), ids=NO_KEYS)
def test_keys_that_are_none(text: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        LocalAuthority.parse(text.removesuffix("\n"), where="authority.key")
    assert caught.value.where == "authority.key"
    for line in KEY_PEM.splitlines()[1:-1]:
        assert line not in caught.value.diagnostics()


def test_a_secret_shows_in_no_repr() -> None:
    assert "PrivateKey" in repr(LOCAL.key)
    assert "PrivateKey" not in repr(LOCAL)


def issued(*purposes: x509.ObjectIdentifier, critical: bool = True, name: str = "lab") -> LocalAuthority:
    """An authority whose signer's certificate is for other purposes, or says so otherwise."""
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)] if name else [])

    def builder(kind: str, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        own = x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, kind)])
        issuer = x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, "root")])
        return (
            x509.CertificateBuilder()
            .subject_name(own)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(BEGINS)
            .not_valid_after(BEGINS + timedelta(days=1))
        )

    ca = x509.BasicConstraints(ca=True, path_length=None)
    root = builder("root", root_key.public_key()).add_extension(ca, critical=True)
    signer = builder("signer", key.public_key())
    signer = signer.add_extension(x509.ExtendedKeyUsage(purposes), critical=critical)
    return LocalAuthority(
        root_certificate=root.sign(root_key, hashes.SHA256()),
        signer_certificate=signer.sign(root_key, hashes.SHA256()),
        key=key,
    )


def test_a_key_whose_answers_would_not_verify_is_none() -> None:
    assert issued(TIME_STAMPING).name == "lab"
    with pytest.raises(KeyFileError, match="would not verify: not critical"):
        issued(TIME_STAMPING, critical=False)
    with pytest.raises(KeyFileError, match="would not verify: not for time-stamping alone"):
        issued(TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING)
    with pytest.raises(KeyFileError, match="a name is"):
        issued(TIME_STAMPING, name="")


def test_a_root_that_was_changed_is_noticed_though_a_pin_of_it_would_do() -> None:
    changed = Certificate.load(LOCAL.root)
    changed["tbs_certificate"]["serial_number"] = 5
    root = x509.load_der_x509_certificate(changed.dump())
    verified(LOCAL.answer(query(), NOW), roots=[root.public_bytes(Encoding.DER)])
    with pytest.raises(KeyFileError, match="not self-signed"):
        LocalAuthority(root_certificate=root, signer_certificate=LOCAL.signer_certificate, key=LOCAL.key)


def test_certificates_out_of_force_together_make_no_authority() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    root, _ = make_certificates("lab", key.public_key(), begins=BEGINS, ends=BEGINS + timedelta(days=1))
    with pytest.raises(KeyFileError, match="would not verify"):
        LocalAuthority(root_certificate=root, signer_certificate=OTHER.signer_certificate, key=OTHER.key)


def ask(
    body: bytes,
    kind: str | None = "application/timestamp-query",
    *,
    method: str = "POST",
    path: str = "/",
    **options: Any,
) -> httpx.Response:
    """What the service answers, by a clock that shows `NOW`."""

    async def exchange() -> httpx.Response:
        transport = httpx.ASGITransport(application(LOCAL, clock=lambda: NOW, **options))
        headers = {} if kind is None else {"Content-Type": kind}
        async with httpx.AsyncClient(transport=transport, base_url="http://authority") as client:
            return await client.request(method, path, content=body, headers=headers)

    return asyncio.run(exchange())


def test_the_service_answers_by_its_clock() -> None:
    answer = ask(GOOD, accuracy_seconds=5)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/timestamp-reply")
    assert answer.headers["cache-control"] == "no-store"
    found = verified(answer.content)
    assert (found.gen_time, found.accuracy) == (NOW.replace(microsecond=0), timedelta(seconds=5))


@pytest.mark.parametrize("asked", [b"", b"nonsense", GOOD[:-1], query(req_policy="1.2.3")])
def test_a_bad_query_is_answered_with_a_rejection(asked: bytes) -> None:
    answer = ask(asked)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/timestamp-reply")
    assert status(answer.content)["status"].native == "rejection"


@pytest.mark.parametrize("kind", ["Application/Timestamp-Query", "application/timestamp-query; charset=x"])
def test_a_content_type_may_be_spelled_so(kind: str) -> None:
    verified(ask(GOOD, kind).content)


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/timestamp-reply", "x" * 10_000])
def test_another_content_type_is_refused(kind: str | None) -> None:
    assert ask(GOOD, kind).status_code == 415


def test_a_long_query_is_refused() -> None:
    assert ask(bytes(MAX_QUERY_BYTES)).status_code == 200
    assert ask(bytes(MAX_QUERY_BYTES + 1)).status_code == 413


def test_what_is_not_served() -> None:
    assert ask(b"", method="GET").status_code == 405
    assert ask(GOOD, path="/tsa").status_code == 404


def run(*arguments: str) -> Any:
    return CliRunner().invoke(gradseal, ["timestamps", *arguments])


def test_a_key_file_is_its_owners_and_its_root_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "authority.key"
    made = run("new-key", str(file), "--name", "lab", "--days", "7")
    assert made.exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    local = load_local_authority(file)
    assert (local.name, made.stdout) == ("lab", local.root_pem)
    assert timedelta(days=6) < local.expires - datetime.now(UTC) <= timedelta(days=7)
    assert run("show", str(file)).stdout == made.stdout
    assert x509.load_pem_x509_certificate(made.stdout.encode()) == local.root_certificate
    assert "PRIVATE" not in made.output


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "authority.key"
    file.write_text("precious")
    assert isinstance(run("new-key", str(file)).exception, KeyFileError)
    assert isinstance(run("new-key", str(tmp_path / "no" / "authority.key")).exception, KeyFileError)
    assert file.read_text() == "precious"


@pytest.mark.parametrize("wrong", [["--name", "a b"], ["--days", "0"]])
def test_what_no_authority_can_have_is_wrong_usage(tmp_path: Path, wrong: list[str]) -> None:
    assert run("new-key", str(tmp_path / "k"), *wrong).exit_code == 2
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", ROOT_PEM.encode(), b"x" * 100_000])
def test_files_that_hold_no_key(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(content)
    for verb in (["show", str(tmp_path / "k")], ["serve", "--key", str(tmp_path / "k"), "--port", "0"]):
        assert isinstance(run(*verb).exception, KeyFileError)
    assert isinstance(run("show", str(tmp_path / "nowhere")).exception, KeyFileError)


@pytest.mark.parametrize("verb", [[], ["serve"]])
def test_help_says_whom_it_shows_a_time(verb: list[str]) -> None:
    assert "only to those who trust" in " ".join(run(*verb, "--help").output.split())


def test_where_no_server_is_installed_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("new-key", str(tmp_path / "k"))
    for module in ("serving", "authority_serving"):
        monkeypatch.delitem(sys.modules, f"gradseal.precede.{module}", raising=False)
        monkeypatch.delattr(f"gradseal.precede.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = run("serve", "--key", str(tmp_path / "k"), "--port", "0")
    assert ended.exit_code != 0
    assert "gradseal[witness]" in ended.stderr
