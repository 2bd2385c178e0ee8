"""Attacks on what says *not before*: beacons, rounds, slots, programs that do without a seed, amendments.

What a verdict must say of each is in docs/reference/attacks.md, and why in docs/theory/precedence.md.
"""

from __future__ import annotations

import shutil
from dataclasses import replace

from gradseal.attacks.history import History
from gradseal.attacks.scene import CADENCE_SECONDS, Scene
from gradseal.precede.chain import Chain
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.rounds import BeaconRound, combine
from gradseal.precede.slots import SlotPlan
from gradseal.proof.entries import Gap
from gradseal.proof.manifest import BeaconSeed, DeclaredSeed, SlotChain

FOUR = (0, 1, 2, 3)
"""The slots of an honest run of four segments."""

_MOST_LOOKED_AT = 20


def honest(scene: Scene) -> None:
    """Nobody cheats: the manifest is anchored before slot 0, each segment in its slot."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR)
    history.finish()


def own_chain(scene: Scene) -> None:
    """The seeds are from a chain of the owner's own, whose rounds he knows from the first day."""
    own = _own_chain(scene)
    plan = SlotPlan.beginning_after([own.chain], CADENCE_SECONDS, scene.clock() + 30)
    history = History(scene=scene, plan=plan, rounds=lambda _, number: _signed(own, number)).begin()
    history.train(FOUR)
    history.finish()


def own_chain_under_its_name(scene: Scene) -> None:
    """The owner's own chain under the hash of the pinned one, so that it looks like that."""
    own, plan = _own_chain(scene), scene.plan()
    shown = {**own.chain.to_json(), "hash": scene.chain.hash.hex()}
    seed = BeaconSeed(
        cadence_seconds=CADENCE_SECONDS, chains=(SlotChain(chain=shown, first_round=plan.chains[0][1]),)
    )
    history = History(scene=scene, seed=seed, rounds=lambda _, number: _signed(own, number))
    history.begin()


def own_chain_beside(scene: Scene) -> None:
    """The owner's own chain beside the pinned one: he knows half of each seed early, and that is nothing."""
    own = _own_chain(scene)

    def rounds(chain: Chain, number: int) -> bytes:
        return _signed(own, number) if chain == own.chain else scene.round(chain, number)

    history = History(scene=scene, plan=scene.plan(own.chain), rounds=rounds).begin()
    history.train(FOUR)
    history.finish()


def declared_seed(scene: Scene) -> None:
    """The owner declares a seed that he chose, and says that it is the value of the pinned chain's round."""
    number = scene.chain.round_at(scene.clock())
    value = combine(
        [BeaconRound(chain=scene.chain, number=number, signature=scene.round(scene.chain, number))]
    )
    history = History(scene=scene, seed=DeclaredSeed(value=value)).begin()
    history.initial()
    for _ in FOUR:
        history.segment()
    history.finish()


def round_off_the_plan(scene: Scene) -> None:
    """For slot 2 the owner takes a round that he likes better, a real one, of a period later."""
    plan = scene.plan()
    history = History(scene=scene, plan=plan).begin()
    history.train((0, 1))
    ((chain, number),) = plan.rounds(2)
    scene.clock.until(chain.round_due(number + 1))
    history.draw(2, (scene.round(chain, number + 1),))
    _rest(history, 2)


def wrong_signature(scene: Scene) -> None:
    """For slot 2 the owner writes 48 bytes of another chain, which he signed himself."""
    own, plan = _own_chain(scene), scene.plan()
    history = History(scene=scene, plan=plan).begin()
    history.train((0, 1))
    history.reach(2)
    history.draw(2, (_signed(own, plan.rounds(2)[0][1]),))
    _rest(history, 2)


def past_rounds(scene: Scene) -> None:
    """The plan is of public rounds: of twenty such plans the owner takes the one whose seed he likes best.

    He trains at leisure, and says by the plan that it was an hour ago.
    """
    ago = SlotPlan.beginning_after([scene.chain], CADENCE_SECONDS, scene.clock() - 3600)
    ((chain, first),) = ago.chains
    liked = min(range(first, first + 20), key=lambda number: scene.round(chain, number))
    plan = replace(ago, chains=((chain, liked),))
    history = History(scene=scene, plan=plan).begin()
    history.train(FOUR)
    history.finish()


def manifest_too_late(scene: Scene) -> None:
    """The manifest is anchored a moment after slot 0's round, with the seed in view."""
    history = History(scene=scene, plan=scene.plan())
    history.reach(0)
    history.begin()
    history.train(FOUR)
    history.finish()


def beacon_away(scene: Scene) -> None:
    """The owner says that the beacon was away, looks at six seeds, and draws from those that he likes."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train((0,))
    history.reach(9)
    liked = sorted(sorted(range(1, 7), key=history.signatures)[:3])
    for slot in liked:
        history.draw(slot)
        history.segment()
    history.append(Gap(cause="beacon", first_slot=1, last_slot=9))
    history.publish()
    history.anchor()
    history.finish()


def one_late_segment(scene: Scene) -> None:
    """The last of four segments is anchored late, for a choice of seeds: within the policy's share."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train((0, 1, 2))
    history.train((3,), anchored=False)
    history.reach(7)
    history.anchor()
    history.finish()


def seeds_passed_over(scene: Scene) -> None:
    """The owner leaves slots empty until one has a seed that he likes better than the first that he saw."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train((0,))
    history.reach(1)
    seen = history.signatures(1)
    for slot in range(2, 2 + _MOST_LOOKED_AT):
        history.reach(slot)
        if history.signatures(slot) < seen:
            break
    history.train((slot, slot + 1, slot + 2))
    history.finish()


def parallel_manifests(scene: Scene) -> None:
    """The owner anchors five manifests in time, and trains the one whose first seed he likes best."""
    path, plan = scene.target, scene.plan()
    ((chain, first),) = plan.chains
    plans = [replace(plan, chains=((chain, first + later),)) for later in range(5)]
    begun = [
        History(scene=scene, plan=own, target=path.with_name(f"{path.name}-{number}")).begin()
        for number, own in enumerate(plans)
    ]
    begun[-1].reach(0)
    liked = min(begun, key=lambda history: history.signatures(0))
    liked.train(FOUR)
    liked.finish()
    shutil.copytree(liked.path, path, dirs_exist_ok=True)


def tokens_to_choose_from(scene: Scene) -> None:
    """The owner collects anchors of the manifest for ten seconds, and keeps the ones that he likes best.

    Nothing is drawn from an anchor, so all that he chooses is which true time is told.
    """
    history = History(scene=scene, plan=scene.plan())
    history.publish()
    collected = []
    for _ in range(5):
        collected.append(history.hosts.obtain(history.notes[1], history.tree.consistency_proof))
        scene.clock.until(scene.clock() + 2)
    liked = min(collected, key=lambda obtained: obtained.tokens)
    history.store_anchor(liked)
    history.train(FOUR)
    history.finish()


def _rest(history: History, slot: int) -> None:
    history.segment()
    history.publish()
    history.anchor()
    history.train((slot + 1,))
    history.finish()


def _own_chain(scene: Scene) -> LocalChain:
    return LocalChain.generate(
        beacon_id=scene.chain.beacon_id,
        period_seconds=scene.chain.period_seconds,
        genesis_unix_seconds=scene.chain.genesis_unix_seconds,
    )


def _signed(own: LocalChain, number: int) -> bytes:
    """A round of the owner's own chain, due or not."""
    return own.sign(number, now_unix_seconds=own.chain.round_due(number)).signature
