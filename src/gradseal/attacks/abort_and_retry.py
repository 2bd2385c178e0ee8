"""Abort and retry: runs that look bad after a while are given up, and nobody hears of them.

Source: ours. Eight honest runs are begun, each is computed to a quarter, and only the one whose losses are
least by then is trained to its end and shown. Cheaper than grinding whole runs, and chosen by less. The
claimed run has a quarter of the setting's steps.
"""

from __future__ import annotations

from statistics import fmean

from gradseal.attacks.attack import Attack, Hand, Need
from gradseal.attacks.selecting import RUNS, Make, show_best

SHARE = 0.25
"""How much of a run is computed before it is given up; and how much of the setting's steps is claimed."""


def forge(hand: Hand) -> None:
    """Writes the bundle."""
    makes = [_make(hand, hand.random_bytes()) for _ in range(RUNS)]
    show_best(hand, "loss when chosen", makes, lambda ends: fmean(ends[-1][1]), SHARE)


def _make(hand: Hand, seed: bytes) -> Make:
    steps = max(4 * hand.setting.every, round(SHARE * hand.setting.steps))
    return lambda scratch: hand.present(seed=seed, steps=steps, scratch=scratch)


ATTACK = Attack(
    name="abort and retry",
    source="ours",
    idea="Eight honest runs are begun, and the one that looks best after a quarter is finished and shown.",
    needs=frozenset({Need.DATA}),
    aims="that the run is the only one",
    forge=forge,
    steals=False,
)
