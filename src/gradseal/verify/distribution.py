"""State zero judged as the classical protocol does: by the distribution of each tensor's values.

The tensors tested are the parameters for which the manifest claims a rule that draws. One that was given has
no claimed distribution, and leaves initialisation not shown. Rules that give one number are compared by the
bytes they give. What the seed would give is not looked at.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

from gradseal.program.fills import fill_chunks
from gradseal.program.rules import Rule
from gradseal.program.sources import Given
from gradseal.program.tensors import TensorSpec
from gradseal.proof.files import Files, read_blob
from gradseal.verify.classical import InitialTest
from gradseal.verify.contents import Contents
from gradseal.verify.examination import Examination
from gradseal.verify.ks import Examined, InitialTested, examine_tensor, is_random, refuted
from gradseal.verify.verdict import Check, Finding, Result

MAX_TESTED_BYTES = 2 << 30
"""A tensor above is not tested: it would have to be held in memory, twice."""

_MOST_TOLD = 100
_NO_SEED = bytes(32)


def check_distribution(
    examination: Examination, files: Files, contents: Contents, test: InitialTest
) -> InitialTested:
    """Tests state zero, and adds what it finds.

    Raises:
        Ended: A tensor cannot be read.
    """
    read = _reader(files, examination, contents)
    corrected = test is InitialTest.KS_CORRECTED
    tested: list[Examined] = []
    constant: list[tuple[TensorSpec, Rule]] = []
    untested: list[str] = []
    for spec, source in zip(contents.program.layout, contents.initialisation.state, strict=True):
        if not spec.name.startswith("parameters/") or not spec.elements:
            continue
        if not isinstance(source, Given) and not is_random(source):
            constant.append((spec, source))
            continue
        with examination.checking(Check.DISTRIBUTION):
            one = _test(source, spec, read, corrected=corrected)
        tested += [] if one is None else [one]
        untested += [spec.name] if one is None else []
    _tell(examination, tested, corrected=corrected)
    # Else a prover would claim constants for what should be drawn, and have nothing tested.
    digests = dict(zip((s.name for s in contents.program.layout), examination.state_zero, strict=True))
    for spec, rule in constant:
        _compare(examination, rule, spec, digests[spec.name])
    return InitialTested(
        test=test,
        tested=len(tested),
        least=min(tested, key=lambda one: one.p if one.p >= 0 else -1.0, default=None),
        constant=len(constant),
        untested=tuple(untested),
    )


def _reader(files: Files, examination: Examination, contents: Contents) -> Callable[[TensorSpec], bytes]:
    digests = dict(zip((s.name for s in contents.program.layout), examination.state_zero, strict=True))
    return lambda spec: read_blob(files, digests[spec.name], spec.size_bytes)


def _test(
    source: Rule | Given, spec: TensorSpec, read: Callable[[TensorSpec], bytes], *, corrected: bool
) -> Examined | None:
    if isinstance(source, Given) or spec.size_bytes > MAX_TESTED_BYTES:
        return None
    return examine_tensor(source, spec, read(spec), corrected=corrected)


def _tell(examination: Examination, tested: list[Examined], *, corrected: bool) -> None:
    failed = refuted(tested, corrected=corrected)
    for one, level in failed[:_MOST_TOLD]:
        said = f"p = {one.p:.3g}, at least {level:.3g} asked"
        if one.outside:
            said = f"{one.outside} values that its rule never gives; {said}"
        examination.findings.append(
            Finding(
                check=Check.DISTRIBUTION,
                result=Result.REFUTED,
                message=f"the values do not look drawn by the claimed rule: {said}",
                where=f"state zero: {one.name}",
                measured=one.p if math.isfinite(one.p) else None,
                allowed=level,
            )
        )
    if tested and not failed:
        message = f"{len(tested)} tensors of state zero have values as their rules draw them"
        examination.found(Check.DISTRIBUTION, Result.HELD, message)


def _compare(examination: Examination, rule: Rule, spec: TensorSpec, sealed: bytes) -> None:
    hashed = hashlib.sha256()
    for chunk in fill_chunks(rule, seed=_NO_SEED, name=spec.name, shape=spec.shape, dtype=spec.dtype):
        hashed.update(chunk)
    if hashed.digest() != sealed:
        message = f"is not what the rule {rule.kind!r} gives"
        examination.found(Check.DISTRIBUTION, Result.REFUTED, message, f"state zero: {spec.name}")
