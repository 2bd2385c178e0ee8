"""Asking a witness: what is sent, what is believed, and what is said of the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import httpx
import pytest

from forked_log import Branch
from gradseal.errors import AnchorError
from gradseal.precede.witnesses import (
    MAX_ANSWER_BYTES,
    Cosignature,
    WitnessAddress,
    cosign,
    with_cosignatures,
)
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.submission import SIZE_TYPE, parse_submission

KEY = CosigningKey(name="witness.example.org", seed=b"\x31" * 32)
OTHER = CosigningKey(name="witness.example.org", seed=b"\x32" * 32)
WITNESS = WitnessAddress(key=KEY.verification_key, url="https://witness.example.org/")
BRANCH = Branch("a", 20)
NOTE = BRANCH.note(20)

Handler = Callable[[httpx.Request], httpx.Response]


def line(key: CosigningKey = KEY, text: str = NOTE.text, timestamp: int = 1_800_000_000) -> str:
    return key.cosign(text, timestamp).line()


def conflict(size: int | str, kind: str = SIZE_TYPE) -> httpx.Response:
    body = size if isinstance(size, str) else f"{size}\n"
    return httpx.Response(409, content=body, headers={"Content-Type": kind})


def ask(handler: Handler, *, known_size: int = 10) -> Cosignature:
    proved: list[tuple[int, int]] = []

    def prove(old: int, new: int) -> Sequence[bytes]:
        proved.append((old, new))
        return BRANCH.tree.consistency_proof(old, new)

    def unread(request: httpx.Request) -> httpx.Response:
        made = handler(request)
        return httpx.Response(made.status_code, headers=made.headers, content=iter([made.content]))

    with httpx.Client(transport=httpx.MockTransport(unread)) as client:
        return cosign(WITNESS, NOTE, known_size=known_size, prove=prove, client=client)


def test_the_cosignature_comes_back_verified() -> None:
    asked: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, content=line())

    found = ask(handler)
    assert found.timestamp == 1_800_000_000
    assert str(asked[0].url) == "https://witness.example.org/add-checkpoint"
    assert parse_submission(asked[0].content) == BRANCH.submission(10, 20)
    noted = with_cosignatures(NOTE, [found, found])
    assert KEY.verification_key.cosigned_at(noted) == 1_800_000_000
    assert len(noted.signatures) == 2
    assert with_cosignatures(noted, [found]) == noted


@pytest.mark.parametrize(("known", "size"), [(0, 7), (10, 20), (10, 15), (0, 20)])
def test_after_a_conflict_it_asks_once_more_from_the_witnesses_size(known: int, size: int) -> None:
    olds: list[int] = []

    def handler(request: httpx.Request) -> httpx.Response:
        submission = parse_submission(request.content)
        olds.append(submission.old)
        assert submission == BRANCH.submission(submission.old, 20)
        return conflict(size) if len(olds) == 1 else httpx.Response(200, content=line())

    assert ask(handler, known_size=known).timestamp
    assert olds == [known, size]


def test_an_older_checkpoint_than_was_cosigned_is_not_sent() -> None:
    def never(_: httpx.Request) -> httpx.Response:
        raise AssertionError

    with pytest.raises(AnchorError, match="already"):
        ask(never, known_size=21)


def test_it_does_not_ask_a_third_time() -> None:
    sizes = iter([12, 14, 16])
    with pytest.raises(AnchorError, match="409"):
        ask(lambda _: conflict(next(sizes)))
    assert next(sizes) == 16


@pytest.mark.parametrize(
    ("size", "known", "said"),
    [
        (9, 10, "rolled back"),
        (0, 10, "rolled back"),
        (21, 10, "more than the 20"),
        (10, 10, "forked"),
        (20, 20, "forked"),
        ("12", 10, "without the witness's size"),
        ("012\n", 10, "without the witness's size"),
        ("", 10, "without the witness's size"),
    ],
)
def test_conflicts_that_are_not_resolved_say_why(size: int | str, known: int, said: str) -> None:
    with pytest.raises(AnchorError, match=said) as caught:
        ask(lambda _: conflict(size), known_size=known)
    assert "witness.example.org" in caught.value.where


def test_a_conflict_of_another_type_is_not_read() -> None:
    with pytest.raises(AnchorError, match="409"):
        ask(lambda _: conflict(12, "text/plain"))


def test_lines_of_unknown_keys_are_ignored() -> None:
    assert ask(lambda _: httpx.Response(200, content=line(OTHER) + line())).timestamp == 1_800_000_000


@pytest.mark.parametrize(
    "content",
    [
        line(OTHER),
        line(text=BRANCH.note(19).text),
        line() + line(timestamp=5),
        line() * 65,
        "",
        "ok\n",
        line()[:-1],
        line() + "\n",
        "\n" + line(),
        "x" * (MAX_ANSWER_BYTES + 1),
        "\N{EM DASH} witness.example.org AAAA\n",
    ],
)
def test_answers_that_are_not_believed(content: str) -> None:
    with pytest.raises(AnchorError):
        ask(lambda _: httpx.Response(200, content=content))


@pytest.mark.parametrize("status", [301, 302, 307, 400, 403, 404, 422, 429, 500, 503])
def test_a_refusal_is_told_and_not_followed(status: int) -> None:
    asked: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        headers = {"Location": "https://elsewhere.example/"}
        return httpx.Response(status, content="no\x1b[31m\u202e\n", headers=headers)

    with pytest.raises(AnchorError, match=str(status)) as caught:
        ask(handler)
    assert len(asked) == 1
    assert "\x1b" not in caught.value.diagnostics()
    assert "\u202e" not in caught.value.diagnostics()


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout(""), httpx.RemoteProtocolError("x")]
)
def test_a_witness_that_is_away_is_an_anchor_error(error: Exception) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(AnchorError, match="cannot be reached"):
        ask(handler)


def test_an_address_that_is_none_is_an_anchor_error() -> None:
    for url in ("nowhere", "ftp://witness.example.org", "https://[", "https://\x00"):
        with pytest.raises(AnchorError):
            cosign(WitnessAddress(key=KEY.verification_key, url=url), NOTE, known_size=0, prove=lambda *_: ())
