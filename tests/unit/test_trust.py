"""The pins of a verifier: what a file of them means, and what is said of a file that means nothing."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from forked_log import OWNER
from gradseal.errors import AnchorError, Error, KeyFileError
from gradseal.precede.chain import QUICKNET
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.relays import QUICKNET_URLS
from gradseal.precede.tables import MAX_FILE_BYTES
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import MAX_SKEW_SECONDS, Trust, load_trust
from gradseal.precede.trust_text import policy_text, trust_text, write_trust
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.note import SigningKey
from gradseal.proof.quorum import parse_policy
from time_stamp_authority import make_identity

ROOT = make_identity("first root")
OTHER_ROOT = make_identity("other root")
MIDDLE = make_identity("middle", ROOT, authority=True)
LOCAL = LocalChain.generate(beacon_id="local", period_seconds=3, genesis_unix_seconds=1_700_000_000)
WITNESSES = [CosigningKey(name=f"{name}.example", seed=name.encode() * 32) for name in "abc"]
POLICY = (
    f"log {OWNER.verification_key}\n"
    f"witness a {WITNESSES[0].verification_key} https://a.example/w\n"
    f"witness b {WITNESSES[1].verification_key}\n"
    f"witness c {WITNESSES[2].verification_key} http://127.0.0.1:8471\n"
    "group two 2 a b c\n"
    "quorum two\n"
)
INFO = json.dumps(LOCAL.chain.to_info())
SHOWN = json.dumps(LOCAL.chain.to_json())

WHOLE = f"""
keys = ["{OWNER.verification_key}", "owner.pub"]
skew_seconds = 2.5
combine = "all"
timestamps_needed = 2

[witnesses]
policy = "witnesses.policy"

[[timestamps]]
name = "first authority"
roots = "pinned/roots.pem"
url = "https://tsa.example/tsr?account=secret"
accuracy_seconds = 0
policies = ["1.2.3.4.1"]

[[timestamps]]
name = "second"
roots = "root.der"

[[beacons]]
chain = "quicknet"

[[beacons]]
chain = "chain.json"
urls = ["http://127.0.0.1:8090"]
"""
OTHER_OWNER = SigningKey(name="example.org/others", seed=b"\x22" * 32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "owner.pub").write_text(f"{OTHER_OWNER.verification_key}\n")
    (tmp_path / "owner.key").write_text(f"{OTHER_OWNER.encode()}\n")
    (tmp_path / "witnesses.policy").write_text(POLICY)
    (tmp_path / "pinned").mkdir()
    (tmp_path / "pinned/roots.pem").write_bytes(ROOT.pem)
    (tmp_path / "middle.pem").write_bytes(ROOT.pem + MIDDLE.pem)
    secret = ROOT.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "secret.pem").write_bytes(secret)
    (tmp_path / "root.der").write_bytes(OTHER_ROOT.der)
    (tmp_path / "chain.json").write_text(SHOWN + "\n")
    (tmp_path / "info.json").write_text(INFO)
    (tmp_path / "large").write_bytes(b" " * (MAX_FILE_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    return tmp_path


def load(folder: Path, text: str) -> Trust:
    (folder / "trust.toml").write_text(text, encoding="utf-8")
    return load_trust(folder / "trust.toml")


def test_a_whole_file_is_read(folder: Path) -> None:
    trust = load(folder, WHOLE)
    assert trust.keys == (OWNER.verification_key, OTHER_OWNER.verification_key)
    assert trust.policy == parse_policy(POLICY.encode(), where="policy")
    assert trust.authorities == (
        PinnedAuthority(
            name="first authority",
            roots=(ROOT.der,),
            policies=frozenset({"1.2.3.4.1"}),
            assumed_accuracy_seconds=0,
        ),
        PinnedAuthority(name="second", roots=(OTHER_ROOT.der,)),
    )
    assert (trust.timestamps_needed, trust.skew_seconds, trust.combine) == (2, 2.5, "all")
    assert trust.chains == (QUICKNET, LOCAL.chain)


def test_addresses_say_whom_to_ask(folder: Path) -> None:
    trust = load(folder, WHOLE)
    assert [(w.key, w.url) for w in trust.witness_addresses()] == [
        (WITNESSES[0].verification_key, "https://a.example/w"),
        (WITNESSES[2].verification_key, "http://127.0.0.1:8471"),
    ]
    (authority,) = trust.timestampers(timeout_seconds=3)
    assert (authority.name, authority.url) == ("first authority", "https://tsa.example/tsr?account=secret")
    assert (authority.roots, authority.timeout_seconds) == ((ROOT.der,), 3)
    assert {key: relays.chain for key, relays in trust.relays().items()} == {
        QUICKNET.hash: QUICKNET,
        LOCAL.chain.hash: LOCAL.chain,
    }
    assert trust.relay_urls == {QUICKNET.hash: QUICKNET_URLS, LOCAL.chain.hash: ("http://127.0.0.1:8090",)}


def test_an_empty_file_pins_nothing(folder: Path) -> None:
    trust = load(folder, "")
    assert trust == Trust()
    assert (trust.skew_seconds, trust.combine, trust.timestamps_needed) == (10, "any", 1)
    assert (trust.witness_addresses(), trust.timestampers(), trust.relays()) == ((), (), {})


@pytest.mark.parametrize(
    "chain", [f"chain_text = '{INFO}'", f"chain_text = '{SHOWN}'", 'chain = "info.json"']
)
def test_a_chain_is_read_in_either_form_and_asked_nowhere(folder: Path, chain: str) -> None:
    trust = load(folder, f"[[beacons]]\n{chain}\n")
    assert (trust.chains, trust.relays()) == ((LOCAL.chain,), {})


def test_quicknet_by_its_parameters_is_quicknet(folder: Path) -> None:
    quicknet = json.dumps(QUICKNET.to_info())
    trust = load(folder, f"[[beacons]]\nchain_text = '{quicknet}'\n")
    assert trust.relay_urls == {QUICKNET.hash: QUICKNET_URLS}
    assert load(folder, '[[beacons]]\nchain = "quicknet"\nurls = []').relays() == {}


def test_several_roots_may_stand_in_one_file(folder: Path) -> None:
    (folder / "both.pem").write_bytes(b"# two of them\n" + ROOT.pem + b"\n" + OTHER_ROOT.pem)
    trust = load(folder, '[[timestamps]]\nname = "a"\nroots = "both.pem"\n')
    assert trust.authorities[0].roots == (ROOT.der, OTHER_ROOT.der)


def test_the_verdict_repeats_the_pins_and_no_address(folder: Path) -> None:
    shown = load(folder, WHOLE).to_json()
    assert json.loads(json.dumps(shown)) == shown
    assert shown == {
        "keys": [str(OWNER.verification_key), str(OTHER_OWNER.verification_key)],
        "witnesses": {
            "witnesses": [
                {"name": name, "key": str(key.verification_key)}
                for name, key in zip("abc", WITNESSES, strict=True)
            ],
            "groups": [{"name": "two", "threshold": 2, "members": ["a", "b", "c"]}],
            "quorum": "two",
        },
        "timestamps": [
            {
                "name": "first authority",
                "roots": [sha256(ROOT.der).hexdigest()],
                "policies": ["1.2.3.4.1"],
                "accuracy_seconds": 0,
            },
            {
                "name": "second",
                "roots": [sha256(OTHER_ROOT.der).hexdigest()],
                "policies": None,
                "accuracy_seconds": 1,
            },
        ],
        "timestamps_needed": 2,
        "beacons": [
            {"beacon_id": "quicknet", "hash": QUICKNET.hash.hex()},
            {"beacon_id": "local", "hash": LOCAL.chain.hash.hex()},
        ],
        "skew_seconds": 2.5,
        "combine": "all",
    }
    assert "secret" not in json.dumps(shown)


def test_a_written_file_holds_the_pins(folder: Path) -> None:
    for trust in (load(folder, WHOLE), Trust(), Trust(skew_seconds=0.1234567, chains=(QUICKNET,))):
        write_trust(trust, folder / "written.toml")
        assert load_trust(folder / "written.toml") == trust
    with pytest.raises(AnchorError, match="cannot be written"):
        write_trust(Trust(), folder / "none" / "trust.toml")


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
    st.text(st.sampled_from("'\"\\ab#"), min_size=1, max_size=12),
    st.floats(0, MAX_SKEW_SECONDS),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, name: str, witness: str, skew: float
) -> None:
    folder = tmp_path_factory.getbasetemp()
    policy = f"witness {witness} {WITNESSES[0].verification_key}\nquorum {witness}\n"
    trust = Trust(
        policy=parse_policy(policy.encode(), where="policy"),
        authorities=(PinnedAuthority(name=name, roots=(ROOT.der,)),),
        skew_seconds=skew,
    )
    try:
        assert load(folder, trust_text(trust)) == trust
    except AnchorError as e:
        assert "cannot be shown" in e.message
        assert not name.isprintable() or not name.strip()


def test_a_policy_is_written_as_it_was_read() -> None:
    assert policy_text(parse_policy(POLICY.encode(), where="policy")) == POLICY


AUTHORITY = '[[timestamps]]\nname = "a"\nroots = "pinned/roots.pem"\n'
SECOND = '[[timestamps]]\nname = "b"\nroots = "root.der"\n'
KEY = WITNESSES[0].verification_key


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("skew_seconds = ", "", "not TOML"),
        ("keys = " + "[" * 3000 + "]" * 3000, "", "not TOML"),
        ("skew_seconds = " + "9" * 5000, "", "not TOML"),
        ("skew_second = 1", "", "'skew_second'"),
        ("[witness]", "", "'witness'"),
        ("skew_seconds = -1", "skew_seconds", "not 0 to 86400 seconds"),
        ("skew_seconds = nan", "skew_seconds", "not 0 to 86400 seconds"),
        ("skew_seconds = 86401", "skew_seconds", "not 0 to 86400 seconds"),
        ("skew_seconds = true", "skew_seconds", "not a number"),
        ("skew_seconds = 2024-01-01", "skew_seconds", "not a number"),
        ('combine = "both"', "combine", "'both' is not one of all, any"),
        ("combine = 1", "combine", "not a text"),
        ("timestamps_needed = 0", "timestamps_needed", "not an integer from 1"),
        ("timestamps_needed = 1.5", "timestamps_needed", "not an integer from 1"),
        ("timestamps_needed = 2\n" + AUTHORITY, "timestamps_needed", "2 .* must agree, and 1 are pinned"),
        ("timestamps_needed = 2\n", "timestamps_needed", "2 .* must agree, and 0 are pinned"),
        (AUTHORITY + "timestamps_needed = 1", "timestamps[0]", "'timestamps_needed'"),
        (AUTHORITY + 'urls = "x"', "timestamps[0]", "'urls'"),
        (AUTHORITY + AUTHORITY.replace("pinned/roots.pem", "root.der"), "authority a", "pinned twice"),
        (
            AUTHORITY + SECOND.replace("root.der", "pinned/roots.pem"),
            "authority b",
            "root key of authority a",
        ),
        (
            AUTHORITY + SECOND.replace("root.der", "none.pem"),
            "timestamps[1].roots: none.pem",
            "cannot be read",
        ),
        (AUTHORITY.replace("pinned/roots.pem", "pinned"), "timestamps[0].roots: pinned", "cannot be read"),
        (
            AUTHORITY.replace("pinned/roots.pem", "a\\u0000b"),
            "timestamps[0].roots: a\\x00b",
            "cannot be read",
        ),
        (AUTHORITY.replace("pinned/roots.pem", "large"), "timestamps[0].roots: large", "longer than"),
        (AUTHORITY.replace("pinned/roots.pem", "secret.pem"), "timestamps[0].roots: secret.pem", "not X.509"),
        (AUTHORITY.replace("pinned/roots.pem", "binary"), "timestamps[0].roots: binary", "not X.509"),
        (AUTHORITY.replace("pinned/roots.pem", "middle.pem"), "timestamps[0].roots: middle.pem", "no root"),
        (AUTHORITY + 'roots_text = "x"', "timestamps[0]", "must have one of roots"),
        ('[[timestamps]]\nname = "a"', "timestamps[0]", "must have one of roots"),
        ('[[timestamps]]\nname = "a"\nroots_text = "x"', "timestamps[0].roots_text", "not X.509"),
        ('[[timestamps]]\nroots = "root.der"', "timestamps[0].name", "missing"),
        (AUTHORITY.replace('"a"', '"a\\u001b[1m"'), "timestamps[0].name", "cannot be shown"),
        (AUTHORITY + 'url = "tsa.example"', "timestamps[0].url", "not http"),
        (AUTHORITY + 'url = "http://[::"', "timestamps[0].url", "not a URL"),
        (AUTHORITY + 'url = ""', "timestamps[0].url", "not a text"),
        (AUTHORITY + "accuracy_seconds = -1", "timestamps[0].accuracy_seconds", "not 0 to"),
        (AUTHORITY + "policies = []", "timestamps[0].policies", "not dotted object"),
        (AUTHORITY + 'policies = ["1.02"]', "timestamps[0].policies", "not dotted object"),
        ("timestamps = 1", "timestamps", "not an array"),
        ("timestamps = [1]", "timestamps", "not tables"),
        ("timestamps = [" + "{}," * 33 + "]", "timestamps", "not an array of at most 32"),
        ("witnesses = 1", "witnesses", "not a table"),
        ("[witnesses]", "witnesses", "must have one of policy"),
        ('[witnesses]\npolicy = "none"', "witnesses.policy: none", "cannot be read"),
        ('[witnesses]\npolicy = "binary"', "witnesses.policy: binary", "not UTF-8"),
        ('[witnesses]\npolicy_text = "quorum a"', "witnesses.policy_text: line 1", "not defined above"),
        ('[witnesses]\npolicy_text = "quorum none"', "witnesses", "a quorum of none"),
        ('[witnesses]\npolicy_text = "#"', "witnesses.policy_text", "without a quorum"),
        (
            f'[witnesses]\npolicy_text = "witness a {KEY}\\nwitness b {KEY}\\nquorum a"',
            "witnesses.policy_text: line 2",
            "same public key",
        ),
        (
            f'[witnesses]\npolicy_text = "witness a {KEY} ftp://a\\nquorum a"',
            "witnesses.policy_text: witness a",
            "not http",
        ),
        (
            f'[witnesses]\npolicy_text = "witness a {KEY} https://me:secret@a.example\\nquorum a"',
            "witnesses.policy_text: witness a",
            "password",
        ),
        (f'[witnesses]\npolicy_text = "witness a {KEY}\\nquorum a"\nurl = "x"', "witnesses", "'url'"),
        ("beacons = {}", "beacons", "not an array"),
        ("[[beacons]]", "beacons[0]", "must have one of chain"),
        ('[[beacons]]\nchain = "slownet"', "beacons[0].chain: slownet", "cannot be read"),
        ('[[beacons]]\nchain_text = "{}"', "beacons[0].chain_text: scheme", "missing"),
        ('[[beacons]]\nchain_text = "quicknet"', "beacons[0].chain_text", "not JSON"),
        (
            f"[[beacons]]\nchain_text = '{SHOWN.replace('bls-unchained', 'other')}'",
            "beacons[0].chain_text: scheme",
            "not known",
        ),
        (
            f"[[beacons]]\nchain_text = '{SHOWN.replace('1700000000', '1700000001')}'",
            "beacons[0].chain_text: hash",
            "do not hash",
        ),
        ('[[beacons]]\nchain = "quicknet"\n' * 2, "beacons", "pinned twice"),
        ('[[beacons]]\nchain = "quicknet"\nurls = ["drand"]', "beacons[0].urls: drand", "not http"),
        ('[[beacons]]\nchain = "quicknet"\nurls = "http://a"', "beacons[0].urls", "not an array"),
        ('[[beacons]]\nchain = "quicknet"\nurl = "http://a"', "beacons[0]", "'url'"),
        ('keys = "owner.pub"', "keys", "not an array"),
        ("keys = [1]", "keys[0]", "not a text"),
        ('keys = ["none.pub"]', "keys[0]: none.pub", "cannot be read"),
    ],
)
def test_what_is_wrong_is_said_by_file_and_field(folder: Path, text: str, where: str, said: str) -> None:
    with pytest.raises(AnchorError, match=said) as caught:
        load(folder, text)
    file = folder / "trust.toml"
    assert caught.value.where == (f"{file}: {where}" if where else str(file))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('keys = ["a+b+c"]', "keys[0]"),
        ('keys = ["owner.pub", "witnesses.policy"]', "keys[1]: witnesses.policy"),
        (f'keys = ["{KEY}"]', "keys[0]"),
        (
            f'[witnesses]\npolicy_text = "witness a {OWNER.verification_key}\\nquorum a"',
            "witnesses.policy_text: line 1",
        ),
    ],
)
def test_a_key_that_is_none_is_said_so(folder: Path, text: str, where: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        load(folder, text)
    assert caught.value.where == f"{folder / 'trust.toml'}: {where}"
    assert caught.value.advice


@pytest.mark.parametrize("given", ["owner.key", OTHER_OWNER.encode()])
def test_a_secret_key_is_refused_and_not_repeated(folder: Path, given: str) -> None:
    with pytest.raises(KeyFileError, match="a signing key") as caught:
        load(folder, f'keys = ["{given}"]')
    assert "gradseal key show" in caught.value.advice
    assert OTHER_OWNER.encode() not in caught.value.diagnostics()


def test_a_name_below_a_table_is_said_to_belong_above(folder: Path) -> None:
    with pytest.raises(AnchorError) as caught:
        load(folder, AUTHORITY + "skew_seconds = 1\n")
    assert caught.value.advice == "put it above the first line in brackets"


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    for name in ("none.toml", "."):
        with pytest.raises(AnchorError, match="cannot be read") as caught:
            load_trust(tmp_path / name)
        assert caught.value.where == str(tmp_path / name)
    (tmp_path / "large.toml").write_bytes(b" " * (MAX_FILE_BYTES + 1))
    with pytest.raises(AnchorError, match="longer than"):
        load_trust(tmp_path / "large.toml")
    (tmp_path / "latin.toml").write_bytes(b'combine = "\xe4"')
    with pytest.raises(AnchorError, match="not TOML"):
        load_trust(tmp_path / "latin.toml")


@given(st.data())
def test_a_changed_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    text = trust_text(
        Trust(keys=(OWNER.verification_key,), authorities=(PinnedAuthority(name="a", roots=(ROOT.der,)),))
    )
    at = data.draw(st.integers(0, len(text) - 1))
    put = data.draw(st.text(st.characters(exclude_categories=["Cs"]), max_size=3))
    try:
        load(tmp_path_factory.getbasetemp(), text[:at] + put + text[at + 1 :])
    except Error as e:
        assert str(tmp_path_factory.getbasetemp()) in e.where
