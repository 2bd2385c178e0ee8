"""The specification's example: the page is made of the bundle, and the bundle still verifies."""

from __future__ import annotations

from pathlib import Path

import gradseal
from example_bundle import BUNDLE, KEY, PAGE, page, record
from gradseal.proof.bundle import open_bundle
from gradseal.proof.manifest import Manifest
from gradseal.store.files import FsspecFiles
from gradseal.verify.verdict import ClaimName, Outcome, Status


def test_the_page_is_what_the_bundle_makes() -> None:
    assert page(BUNDLE) == PAGE.read_text(encoding="utf-8")


def test_the_bundle_verifies() -> None:
    verdict = gradseal.verify(BUNDLE, keys=[KEY.verification_key])
    statuses = {name: claim.status for name, claim in verdict.claims.items()}
    assert statuses[ClaimName.INTEGRITY] is Status.SHOWN
    assert statuses[ClaimName.INITIALISATION] is Status.SHOWN
    # Another processor may give other bits in native arithmetic, which contradicts nothing.
    assert verdict.outcome is not Outcome.REJECTED


def test_recorded_anew_it_differs_in_nothing_but_what_the_machine_decides(tmp_path: Path) -> None:
    """So that the example is what this version writes."""
    record(tmp_path / "bundle")
    own, fresh = (
        Manifest.decode(open_bundle(FsspecFiles(str(path))).entry(0))
        for path in (BUNDLE, tmp_path / "bundle")
    )
    for name in ("owner", "program", "initialisation", "data", "plan", "release"):
        assert getattr(own, name) == getattr(fresh, name), name
