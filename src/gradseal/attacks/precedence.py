"""Every attack on the claim of precedence, by name: who makes it, and what does.

The published background is Fang et al. 2023, "Proof-of-Learning is Currently More Broken Than You Think":
a thief who knows an endpoint may find another trajectory to it. So nothing here is about trajectories, but
about time: seeds known early, anchors that say too early a time, commitments to nothing, and those of others.
Each attack writes one bundle with whatever its attacker has in a `Scene`. Whether it succeeds is for the
verifier to say, and what it must say, for tests/attacks/test_precedence.py.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from gradseal.attacks import anchors, motion, programs, seals, slots
from gradseal.attacks.scene import Scene

OWNER, THIEF, HOST = "owner", "thief", "owner, and a pinned host"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """An attack on the claim of precedence.

    Args:
        who: Who makes it.
        forge: Writes the bundle.
    """

    who: str
    forge: Callable[[Scene], None]

    @property
    def said(self) -> str:
        """What the attacker knows and does, in a sentence or two."""
        return " ".join((inspect.getdoc(self.forge) or "").split())


ATTACKS: dict[str, Attack] = {
    # What says not before.
    "own chain": Attack(who=OWNER, forge=slots.own_chain),
    "own chain under its name": Attack(who=OWNER, forge=slots.own_chain_under_its_name),
    "declared seed": Attack(who=OWNER, forge=slots.declared_seed),
    "round off the plan": Attack(who=OWNER, forge=slots.round_off_the_plan),
    "wrong signature": Attack(who=OWNER, forge=slots.wrong_signature),
    "past rounds": Attack(who=OWNER, forge=slots.past_rounds),
    "manifest too late": Attack(who=OWNER, forge=slots.manifest_too_late),
    "beacon away": Attack(who=OWNER, forge=slots.beacon_away),
    "full batch": Attack(who=OWNER, forge=programs.full_batch),
    "own order": Attack(who=OWNER, forge=programs.own_order),
    "zero rate": Attack(who=OWNER, forge=programs.zero_rate),
    "identity": Attack(who=OWNER, forge=programs.identity),
    "noise beside": Attack(who=OWNER, forge=programs.noise_beside),
    "late amendment": Attack(who=OWNER, forge=programs.late_amendment),
    "amendment to known weights": Attack(who=OWNER, forge=programs.amendment_to_known_weights),
    "last segment to known weights": Attack(who=OWNER, forge=programs.last_segment_to_known_weights),
    "last two segments to known weights": Attack(
        who=OWNER, forge=programs.last_two_segments_to_known_weights
    ),
    "landing on old weights": Attack(who=OWNER, forge=motion.landing_on_old_weights),
    "moved in one segment": Attack(who=OWNER, forge=motion.moved_in_one_segment),
    "infinite beside": Attack(who=OWNER, forge=motion.infinite_beside),
    "tiny weights": Attack(who=OWNER, forge=motion.tiny_weights),
    "weights in a buffer": Attack(who=OWNER, forge=motion.weights_in_a_buffer),
    # What says not after.
    "no anchors": Attack(who=OWNER, forge=anchors.no_anchors),
    "no anchor of the end": Attack(who=OWNER, forge=anchors.no_anchor_of_the_end),
    "late anchors": Attack(who=OWNER, forge=anchors.late_anchors),
    "own authority": Attack(who=OWNER, forge=anchors.own_authority),
    "own witness": Attack(who=OWNER, forge=anchors.own_witness),
    "trust brought along": Attack(who=OWNER, forge=anchors.trust_brought_along),
    "wrong purpose": Attack(who=OWNER, forge=anchors.wrong_purpose),
    "digest of nothing": Attack(who=OWNER, forge=anchors.digest_of_nothing),
    "one authority twice": Attack(who=OWNER, forge=anchors.one_authority_twice),
    "tokens of another size": Attack(who=OWNER, forge=anchors.tokens_of_another_size),
    "receipts exchanged": Attack(who=OWNER, forge=anchors.receipts_exchanged),
    "receipt taken out": Attack(who=OWNER, forge=anchors.receipt_taken_out),
    "anchor of another run": Attack(who=OWNER, forge=anchors.anchor_of_another_run),
    "cut short": Attack(who=OWNER, forge=anchors.cut_short),
    "rewritten": Attack(who=OWNER, forge=anchors.rewritten),
    "fork of two witnesses": Attack(who=OWNER, forge=anchors.fork_of_two_witnesses),
    "time to come": Attack(who=HOST, forge=anchors.time_to_come),
    "before its own seed": Attack(who=HOST, forge=anchors.before_its_own_seed),
    # Seals.
    "log signed by another": Attack(who=THIEF, forge=seals.log_signed_by_another),
    "live log mirrored": Attack(who=THIEF, forge=seals.live_log_mirrored),
    "live log mirrored, unopened": Attack(who=THIEF, forge=seals.live_log_mirrored_unopened),
    "states sealed anew": Attack(who=THIEF, forge=seals.states_sealed_anew),
    "random states": Attack(who=OWNER, forge=seals.random_states),
    "random states at the end": Attack(who=OWNER, forge=seals.random_states_at_the_end),
    "seals of nothing": Attack(who=OWNER, forge=seals.seals_of_nothing),
    "seals filled in": Attack(who=OWNER, forge=seals.seals_filled_in),
}
"""The attacks that must not have precedence shown."""

HARMLESS: dict[str, Attack] = {
    "honest": Attack(who=OWNER, forge=slots.honest),
    "own chain beside": Attack(who=OWNER, forge=slots.own_chain_beside),
    "tokens to choose from": Attack(who=OWNER, forge=slots.tokens_to_choose_from),
    "amendment in time": Attack(who=OWNER, forge=programs.amendment_in_time),
    "one late segment": Attack(who=OWNER, forge=slots.one_late_segment),
    "seeds passed over": Attack(who=OWNER, forge=slots.seeds_passed_over),
}
"""What is true, or gains its author no more than the verdict says: precedence is shown, with that said."""

LIMITS: dict[str, Attack] = {
    "parallel manifests": Attack(who=OWNER, forge=slots.parallel_manifests),
    "parallel amendments": Attack(who=OWNER, forge=programs.parallel_amendments),
    "noise within": Attack(who=OWNER, forge=programs.noise_within),
    "bribed authority": Attack(who=HOST, forge=anchors.bribed_authority),
}
"""What no check of one bundle can see (docs/theory/precedence.md, section 5): precedence is shown."""
