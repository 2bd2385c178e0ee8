"""Cosignatures, submissions, quorums and receipts against `witness.json`, as another implementation reads it.

What others published is written out in the vectors; every expectation is stated there, none is computed by
the code that is checked here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from _pytest.mark.structures import ParameterSet

from gradseal.errors import Error, KeyFileError, MalformedBundle
from gradseal.proof.cosignature import CosignatureKey, CosigningKey
from gradseal.proof.note import VerificationKey, open_note
from gradseal.proof.quorum import parse_policy
from gradseal.proof.receipt import check_receipt, parse_receipt
from gradseal.proof.submission import parse_submission
from gradseal.witness.state import NOTHING, Latest, decide
from vectors import make_receipt, make_witness

Case = dict[str, Any]

VECTORS: Case = json.loads((Path(make_witness.__file__).parent / "witness.json").read_text(encoding="utf-8"))
INVALID = VECTORS["invalid"]


def cases(items: list[Case]) -> list[ParameterSet]:
    return [
        pytest.param(item, id=item.get("reason", item.get("source", str(number))))
        for number, item in enumerate(items)
    ]


def decimal(number: str | None) -> int | None:
    return None if number is None else int(number)


def whole(times: dict[str, str]) -> dict[str, int]:
    return {name: int(time) for name, time in times.items()}


@pytest.mark.parametrize("case", cases(VECTORS["keys"]))
def test_keys(case: Case) -> None:
    key = CosigningKey.parse(case["signing_key"])
    assert key.encode() == case["signing_key"]
    assert str(key.verification_key) == case["key"]
    assert CosignatureKey.parse(case["key"]) == key.verification_key


@pytest.mark.parametrize("case", cases(VECTORS["lines"]))
def test_lines(case: Case) -> None:
    key = CosigningKey.parse(case["signing_key"])
    assert key.cosign(case["text"], int(case["time"])).line() == case["line"]


@pytest.mark.parametrize("case", cases(VECTORS["cosigned"]))
def test_cosignatures(case: Case) -> None:
    note = open_note(bytes.fromhex(case["bytes"]), where="v")
    assert CosignatureKey.parse(case["key"]).cosigned_at(note) == decimal(case["time"])


@pytest.mark.parametrize("case", cases(VECTORS["submissions"]))
def test_submissions(case: Case) -> None:
    data = bytes.fromhex(case["bytes"])
    found = parse_submission(data)
    assert found.encode() == data
    assert (found.old, found.note.encode().hex()) == (int(case["old"]), case["note"])
    assert [node.hex() for node in found.proof] == case["proof"]
    stated = found.checkpoint
    assert (stated.origin, stated.size, stated.root.hex()) == (
        case["origin"],
        int(case["size"]),
        case["root"],
    )


@pytest.mark.parametrize("case", cases(VECTORS["answers"]))
def test_answers(case: Case) -> None:
    latest, submission = NOTHING, parse_submission(bytes.fromhex(case["bytes"]))
    if before := case["latest"]:
        root = bytes.fromhex(before["root"])
        latest = Latest(size=int(before["size"]), root=root, timestamp=int(before["time"]))
    answer = decide(latest, submission, int(case["now"]))
    if isinstance(answer, Latest):
        stated = submission.checkpoint
        assert case["status"] == 200
        assert (answer.size, answer.root, answer.timestamp) == (stated.size, stated.root, int(case["time"]))
    else:
        assert (answer.status, answer.size) == (case["status"], decimal(case.get("size")))


@pytest.mark.parametrize("case", cases(VECTORS["policies"]))
def test_policies(case: Case) -> None:
    policy = parse_policy(bytes.fromhex(case["bytes"]), where="v")
    for quorum in case["cases"]:
        times = whole(quorum["times"])
        assert policy.satisfied(times) is quorum["enough"], quorum["reason"]
        assert policy.not_after(times) == decimal(quorum["not_after"]), quorum["reason"]


@pytest.mark.parametrize("case", cases(VECTORS["receipts"]))
def test_receipts(case: Case) -> None:
    data = bytes.fromhex(case["bytes"])
    receipt = parse_receipt(data, where="v")
    assert receipt.encode() == data
    policy = parse_policy(bytes.fromhex(case["policy"]), where="v")
    found = check_receipt(receipt, bytes.fromhex(case["leaf"]), policy)
    assert (found.included, found.quorum, found.holds) == (case["included"], case["enough"], case["holds"])
    assert found.signer == (case["signer"] and VerificationKey.parse(case["signer"]))
    assert found.times == whole(case["times"])
    assert found.not_after == decimal(case["not_after"])


def test_a_receipt_that_another_log_gave_is_signed_by_its_key() -> None:
    receipt = parse_receipt(make_receipt.PUBLISHED_RECEIPT.encode(), where="published")
    key = VerificationKey.parse(make_receipt.PUBLISHED_KEY)
    assert receipt.note.verified_by(key)
    assert (receipt.index, receipt.checkpoint.size, len(receipt.proof)) == (43930254, 58253265, 26)


@pytest.mark.parametrize("case", cases(INVALID["keys"]))
def test_keys_that_are_none(case: Case) -> None:
    with pytest.raises(KeyFileError):
        CosignatureKey.parse(case["key"])


@pytest.mark.parametrize("case", cases(INVALID["submissions"]))
def test_submissions_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        parse_submission(bytes.fromhex(case["bytes"]))


@pytest.mark.parametrize("case", cases(INVALID["policies"]))
def test_policies_that_are_none(case: Case) -> None:
    with pytest.raises(Error):
        parse_policy(bytes.fromhex(case["bytes"]), where="v")


@pytest.mark.parametrize("case", cases(INVALID["receipts"]))
def test_receipts_that_are_none(case: Case) -> None:
    with pytest.raises(MalformedBundle):
        parse_receipt(bytes.fromhex(case["bytes"]), where="v")
