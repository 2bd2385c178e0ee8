"""No change of a bundle's anchors makes any part of a run look older than the anchors had it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundles import KEY, digits, linear, record_run
from forged_slots import forge_slots
from gradseal.errors import Error
from gradseal.precede.trust import Trust
from gradseal.program.native import current_environment
from gradseal.verify.executors import Ready, Request
from gradseal.verify.outcomes import SegmentResult
from gradseal.verify.verdict import Outcome, Verdict
from gradseal.verify.verifier import verify


class Believed:
    """An executor that finds every segment equal and dependent: what is looked at here comes before."""

    def run(self, request: Request) -> Iterator[Ready | SegmentResult]:
        yield Ready(environment=current_environment())
        for task in request.tasks:
            yield SegmentResult(segment=task.segment, equal=True, moved=(0,), dependence=1.0)


@pytest.fixture(scope="module")
def anchored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trust, Verdict]:
    home = tmp_path_factory.mktemp("anchored")
    record_run(home / "run", linear, data=digits(10), batch_size=4, steps=6, every=2)
    trust = forge_slots(home / "run", home / "bundle", KEY, {1: [1]})
    verdict = verify(home / "bundle", trust=trust, executor=Believed())
    assert verdict.outcome is Outcome.ACCEPTED
    assert len(verdict.windows.anchors) >= 3
    return home / "bundle", trust, verdict


def no_older(verdict: Verdict, honest: Verdict) -> bool:
    """Whether nothing has an earlier bound than it honestly has."""
    then, now = honest.windows, verdict.windows
    pairs = [(now.manifest, then.manifest), (now.close, then.close)]
    pairs += [(a.not_after, b.not_after) for a, b in zip(now.segments, then.segments, strict=False)]
    return all(a is None or (b is not None and a >= b) for a, b in pairs)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_anchor_never_dates_earlier(
    anchored: tuple[Path, Trust, Verdict], data: st.DataObject
) -> None:
    path, trust, honest = anchored
    names = sorted(p for p in (path / "anchors").iterdir())
    file = data.draw(st.sampled_from(names), label="file")
    whole = file.read_bytes()
    how = data.draw(st.sampled_from(["flip", "cut", "append", "delete", "another"]), label="how")
    at = data.draw(st.integers(0, len(whole) - 1), label="at")
    other = data.draw(st.sampled_from(names), label="other")
    try:
        if how == "delete":
            file.unlink()
        else:
            flipped = whole[:at] + bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))]) + whole[at + 1 :]
            changed = {
                "flip": flipped,
                "cut": whole[:at],
                "append": whole + b"\n",
                "another": other.read_bytes(),
            }
            file.write_bytes(changed[how])
        try:
            verdict = verify(path, trust=trust, executor=Believed())
        except Error:
            return
        assert no_older(verdict, honest)
        same = file.exists() and file.read_bytes() == whole
        if file.suffix == ".tlog-proof" and not same:
            # A receipt is checked whole; but for lines of cosignatures, which are just not there any more.
            assert (
                verdict.outcome is not Outcome.ACCEPTED or verdict.windows.anchors != honest.windows.anchors
            )
    finally:
        file.write_bytes(whole)
