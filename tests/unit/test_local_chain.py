"""A chain of one node: its key, what it signs and when, and what its service answers."""

from __future__ import annotations

import asyncio
import json
import stat
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from gradseal.cli.main import gradseal
from gradseal.errors import AnchorError, KeyFileError
from gradseal.precede import bls
from gradseal.precede.chain import Chain
from gradseal.precede.local_chain import LocalChain, load_local_chain
from gradseal.precede.serving import application
from gradseal.proof.canonical import decode
from gradseal.proof.fields import Fields
from gradseal.proof.manifest import MAX_ROUND
from vectors import make_beacon
from vectors.make_beacon import LOCAL

VECTORS: Any = json.loads((Path(make_beacon.__file__).parent / "beacon.json").read_text(encoding="utf-8"))
CHAIN = LOCAL.chain
HASH = CHAIN.hash.hex()
DUE = CHAIN.round_due(7)


def at(time: float, path: str, method: str = "GET") -> httpx.Response:
    """What the service answers when its clock shows a time."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application(LOCAL, clock=lambda: time))
        async with httpx.AsyncClient(transport=transport, base_url="http://beacon") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


def test_a_round_is_signed_once_it_is_due_and_always_alike() -> None:
    signed = LOCAL.sign(7, now_unix_seconds=DUE)
    assert signed.verify()
    assert LOCAL.sign(7, now_unix_seconds=DUE + 1e6) == signed


@pytest.mark.parametrize("now", [DUE - 1, DUE - 0.001, 0, -1e9, float("nan")])
def test_no_round_is_signed_before_it_is_due(now: float) -> None:
    with pytest.raises(AnchorError, match="not due"):
        LOCAL.sign(7, now_unix_seconds=now)


@pytest.mark.parametrize("number", [0, -1, MAX_ROUND + 1, 1 << 64])
def test_numbers_that_no_round_has(number: int) -> None:
    with pytest.raises(AnchorError):
        LOCAL.sign(number, now_unix_seconds=1e30)


@settings(max_examples=20)
@given(
    st.integers(1, bls.GROUP_ORDER - 1),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    st.integers(1, 86_400),
    st.integers(0, 1 << 40),
)
def test_keys_come_back_from_their_text(secret: int, name: str, period: int, genesis: int) -> None:
    key = LocalChain(
        secret=secret.to_bytes(32, "big"), beacon_id=name, period_seconds=period, genesis_unix_seconds=genesis
    )
    assert LocalChain.parse(key.encode()) == key
    assert key.chain.verify(1, key.sign(1, now_unix_seconds=genesis).signature)


@settings(max_examples=50)
@given(st.data())
def test_a_changed_character_of_a_key_is_noticed(data: st.DataObject) -> None:
    text = LOCAL.encode()
    at = data.draw(st.integers(0, len(text) - 1))
    replaced = text[:at] + data.draw(st.characters(exclude_characters=[text[at]])) + text[at + 1 :]
    with pytest.raises(KeyFileError):
        LocalChain.parse(replaced)


@pytest.mark.parametrize("case", VECTORS["invalid"]["keys"], ids=lambda case: case["reason"])
def test_keys_that_are_none(case: Any) -> None:
    with pytest.raises(KeyFileError) as caught:
        LocalChain.parse(case["key"], where="beacon.key")
    assert caught.value.where == "beacon.key"


def test_keys_of_the_vectors() -> None:
    for case in VECTORS["keys"]:
        assert LocalChain.parse(case["key"]).chain.hash.hex() == case["hash"]


def test_a_secret_shows_in_no_message() -> None:
    text = LOCAL.encode()
    secret = text.rpartition("+")[2]
    assert repr(LOCAL.secret) not in repr(LOCAL)
    for broken in (text[:-1], text + "\n", text.replace("vectors", "sectors"), text[8:]):
        with pytest.raises(KeyFileError) as caught:
            LocalChain.parse(broken)
        assert secret[:12] not in caught.value.diagnostics()


def test_generated_keys_differ() -> None:
    first, second = (
        LocalChain.generate(beacon_id="a", period_seconds=1, genesis_unix_seconds=0) for _ in range(2)
    )
    assert first.chain.hash != second.chain.hash


def test_the_service_gives_a_round_from_when_it_is_due() -> None:
    path = f"/{HASH}/public/7"
    early = at(DUE - 0.001, path)
    assert (early.status_code, early.headers["cache-control"]) == (404, "no-store")
    assert "signature" not in early.text
    answer = at(DUE, path)
    signed = LOCAL.sign(7, now_unix_seconds=DUE)
    assert answer.json() == {
        "round": 7,
        "randomness": signed.randomness.hex(),
        "signature": signed.signature.hex(),
    }
    assert at(DUE + 1e6, path).content == answer.content


@pytest.mark.parametrize(("now", "number"), [(DUE - 0.001, 6), (DUE, 7), (DUE + 9.999, 7), (DUE + 10, 8)])
def test_the_latest_round_is_the_last_that_is_due(now: float, number: int) -> None:
    answer = at(now, f"/{HASH}/public/latest")
    assert answer.json()["round"] == number
    assert answer.headers["cache-control"] == "no-store"
    assert at(now, "/health").json()["current"] == number


def test_before_the_first_round_there_is_no_latest() -> None:
    assert at(CHAIN.genesis_unix_seconds - 1, f"/{HASH}/public/latest").status_code == 404
    assert at(CHAIN.genesis_unix_seconds - 1, "/health").status_code == 200


def test_the_service_tells_its_chain() -> None:
    assert at(0, "/chains").json() == [HASH]
    assert Chain.from_info(at(0, f"/{HASH}/info").content, where="info") == CHAIN


@pytest.mark.parametrize(
    "asked",
    [
        "0",
        "-1",
        "+1",
        "01",
        "1.0",
        "1e3",
        " 1",
        "1_0",
        "x",
        "\u0661",
        "9" * 13,
        "9" * 14,
        "9" * 5000,
        str(MAX_ROUND + 1),
    ],
    ids=lambda asked: asked[:16],
)
def test_absurd_rounds_are_refused(asked: str) -> None:
    answer = at(1e30, f"/{HASH}/public/{asked}")
    assert answer.status_code in (400, 404)
    assert list(answer.json()) == ["error"]


@pytest.mark.parametrize(
    "path", ["/", "/x", f"/{HASH}", f"/{bytes(32).hex()}/public/1", "/../info", "//public/1"]
)
def test_what_is_not_served(path: str) -> None:
    assert at(DUE, path).status_code == 404


def test_nothing_can_be_posted() -> None:
    assert at(DUE, f"/{HASH}/public/7", "POST").status_code == 405


def run(*arguments: str) -> Any:
    return CliRunner().invoke(gradseal, ["beacon", *arguments])


def test_a_key_file_is_its_owners_and_its_chain_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "beacon.key"
    made = run("new-key", str(file), "--name", "lab", "--period", "1", "--genesis", "1700000000")
    assert made.exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    local = load_local_chain(file)
    assert (local.beacon_id, local.period_seconds, local.genesis_unix_seconds) == ("lab", 1, 1_700_000_000)
    shown = run("show", str(file)).stdout
    assert shown == made.stdout
    assert shown.count("\n") == 1
    printed = decode(shown.strip().encode(), where="shown", max_bytes=4096)
    assert Chain.from_fields(Fields(printed, "shown")) == local.chain


def test_a_key_file_is_never_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "beacon.key"
    file.write_text("precious")
    assert isinstance(run("new-key", str(file)).exception, KeyFileError)
    assert isinstance(run("new-key", str(tmp_path / "no" / "beacon.key")).exception, KeyFileError)
    assert file.read_text() == "precious"


def test_a_name_that_no_chain_can_have_is_wrong_usage(tmp_path: Path) -> None:
    assert run("new-key", str(tmp_path / "k"), "--name", "a b").exit_code == 2
    assert not (tmp_path / "k").exists()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"PRIVATE+KEY+a+00000000+AAAA\n", b"x" * 10_000])
def test_files_that_hold_no_key(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(content)
    with pytest.raises(KeyFileError):
        load_local_chain(tmp_path / "k")


def test_where_no_server_is_installed_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("new-key", str(tmp_path / "k"))
    monkeypatch.delitem(sys.modules, "gradseal.precede.serving", raising=False)
    monkeypatch.delattr("gradseal.precede.serving", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    ended = run("serve", str(tmp_path / "k"), "--port", "0")
    assert ended.exit_code != 0
    assert "gradseal[witness]" in ended.stderr
