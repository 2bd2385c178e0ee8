"""What a witness cosigns: a pure function of what it cosigned last, a submission and the time.

Guarantees, for each origin: never two roots of one size, never a smaller tree, always a proof that the tree
only grew, and times that never go backwards. Knows no signatures, no storage and no clock: whoever calls has
verified the log's signature, and makes the result durable before anyone learns of it.

Follows C2SP tlog-witness, "add-checkpoint". Format: docs/spec/witness.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradseal.proof.merkle import EMPTY_ROOT, verify_consistency
from gradseal.proof.submission import Submission

MAX_CLOCK_STEP_SECONDS = 10
"""How far the clock may be behind the last time that was cosigned; that time is then stated again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latest:
    """The last checkpoint of a log that was cosigned.

    Args:
        size: Its number of entries.
        root: Its 32-byte root.
        timestamp: The time that the cosignature states, in seconds of Unix time.
    """

    size: int
    root: bytes
    timestamp: int


NOTHING = Latest(size=0, root=EMPTY_ROOT, timestamp=0)
"""What was cosigned last of a log that nobody asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """Why a submission is not cosigned.

    Args:
        status: The HTTP status.
        reason: A few words for the log's operator.
        size: With a conflict, the size that was cosigned last.
        is_fork: Whether the log signed two trees that cannot both be its own.
    """

    status: int
    reason: str
    size: int | None = None
    is_fork: bool = False


def decide(latest: Latest, submission: Submission, now: int) -> Latest | Refused:
    """What to cosign, in the order of checks that the standard gives.

    Args:
        latest: What was cosigned last of this origin.
        submission: Its log's signature is verified already.
        now: Seconds of Unix time.

    Returns:
        What was cosigned last from now on, whose time is the cosignature's; or why nothing is cosigned.
    """
    checkpoint = submission.checkpoint
    if submission.old > checkpoint.size:
        return Refused(status=400, reason="the old size is greater than the checkpoint's")
    if submission.old != latest.size:
        return Refused(status=409, reason="another size was cosigned last", size=latest.size)
    if 0 < latest.size == checkpoint.size and latest.root != checkpoint.root:
        reason = "another root of this size was cosigned"
        return Refused(status=409, reason=reason, size=latest.size, is_fork=True)
    if not verify_consistency(
        old=latest.size,
        new=checkpoint.size,
        old_root=latest.root,
        new_root=checkpoint.root,
        proof=submission.proof,
    ):
        return Refused(status=422, reason="the proof does not show that the log only grew")
    if now < latest.timestamp - MAX_CLOCK_STEP_SECONDS:
        return Refused(status=503, reason="this witness's clock is behind what it cosigned")
    return Latest(size=checkpoint.size, root=checkpoint.root, timestamp=max(now, latest.timestamp))


def decide_all(
    latest: Mapping[str, Latest], submissions: Sequence[Submission], now: int
) -> tuple[list[Latest | Refused], dict[str, Latest]]:
    """What to cosign of several submissions, one after another.

    Args:
        latest: What was cosigned last, by origin; an origin that is absent was never cosigned.
        submissions: In the order in which they came.
        now: Seconds of Unix time.

    Returns:
        The outcome of each, and what changed by origin. No outcome holds until all changes are durable.
    """
    outcomes: list[Latest | Refused] = []
    changed: dict[str, Latest] = {}
    for submission in submissions:
        origin = submission.checkpoint.origin
        before = changed.get(origin) or latest.get(origin) or NOTHING
        outcome = decide(before, submission, now)
        if isinstance(outcome, Latest):
            changed[origin] = outcome
        outcomes.append(outcome)
    return outcomes, changed
