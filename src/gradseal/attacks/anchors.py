"""Attacks on what says *not after*: witnesses, time-stamps, forks, and anchors put where they do not belong.

What a verdict must say of each is in docs/reference/attacks.md, and why in docs/theory/precedence.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from gradseal.attacks.history import History
from gradseal.attacks.scene import CADENCE_SECONDS, Rounds, Scene
from gradseal.attacks.slots import FOUR
from gradseal.precede.answers import encode_query
from gradseal.precede.bounds import digest_of
from gradseal.precede.hosts import Hosts, Obtained
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.slots import SlotPlan
from gradseal.proof.anchors import receipt_path, token_path
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.entries import Segment
from gradseal.proof.note import Note
from gradseal.proof.writer import BlobWriter, BundleWriter

_EARLIER_SECONDS = 3600.0


def no_anchors(scene: Scene) -> None:
    """Nothing is anchored at all."""
    history = History(scene=scene, plan=scene.plan())
    history.publish()
    history.train(FOUR, anchored=False)
    history.finish(anchored=False)


def no_anchor_of_the_end(scene: Scene) -> None:
    """The last two segments and the close are not anchored, so that they can be written whenever he likes."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train((0, 1))
    history.train((2, 3), anchored=False)
    history.finish(anchored=False)


def late_anchors(scene: Scene) -> None:
    """The manifest is anchored in time, and all that follows an hour after the run."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR, anchored=False)
    scene.clock.until(scene.clock() + _EARLIER_SECONDS)
    history.finish()


def own_authority(scene: Scene) -> None:
    """The owner's own authority dates a run of this afternoon to the morning, by certificates of his own."""
    own = _authority_of_old(scene)
    history = _dated_back(scene)
    _anchor_all(history, lambda note, at: Obtained(note=note, tokens=(_stamp(own, note, at),)))


def own_witness(scene: Scene) -> None:
    """A witness of the owner's own, under the name of a pinned one, cosigns early times."""
    own = CosigningKey.generate(scene.witnesses[0].key.name)
    history = _dated_back(scene)
    _anchor_all(history, lambda note, at: Obtained(note=_cosigned(note, own, at)))


def wrong_purpose(scene: Scene) -> None:
    """Early times by a key that a pinned root did certify, but to serve web pages and not to stamp."""
    history = _dated_back(scene)
    _anchor_all(
        history, lambda note, at: Obtained(note=note, tokens=(scene.misissued(digest_of(note), _utc(at)),))
    )


def time_to_come(scene: Scene) -> None:
    """A pinned authority whose clock is ahead dates tokens to next week."""
    history = History(scene=scene, plan=scene.plan())
    history.publish()
    history.train(FOUR, anchored=False)
    history.finish(anchored=False)
    week = datetime.now(UTC) + timedelta(days=7)
    _anchor_all(
        history,
        lambda note, at: Obtained(note=note, tokens=(_stamp(scene.bribed, note, week.timestamp()),)),
    )


def before_its_own_seed(scene: Scene) -> None:
    """A pinned authority that was bribed dates all tokens to before slot 0: no segment can be that old."""
    history = _dated_back(scene)
    begun = history.slot_plan.begins(0)
    _anchor_all(
        history, lambda note, at: Obtained(note=note, tokens=(_stamp(scene.bribed, note, begun - 10),))
    )


def bribed_authority(scene: Scene) -> None:
    """The only pinned authority was bribed, and dates every token as the plan would have it."""
    history = _dated_back(scene)
    _anchor_all(history, lambda note, at: Obtained(note=note, tokens=(_stamp(scene.bribed, note, at),)))


def digest_of_nothing(scene: Scene) -> None:
    """Tokens that honest authorities gave early, over a digest of nothing in particular."""
    early = [stamper.stamp(sha256(b"to be found later").digest()) for stamper in scene.timestamps]
    scene.clock.until(scene.clock() + _EARLIER_SECONDS)
    history = _dated_back(scene)
    _anchor_all(history, lambda note, at: Obtained(note=note, tokens=tuple(early)))


def one_authority_twice(scene: Scene) -> None:
    """Where two authorities must agree, two tokens of one."""
    history = History(scene=scene, plan=scene.plan())
    history.hosts = Hosts((), scene.timestamps[:1])
    history.publish()
    history.anchor()
    scene.clock.until(scene.clock() + 1)
    history.begin()
    history.train(FOUR)
    history.finish()


def tokens_of_another_size(scene: Scene) -> None:
    """The first tokens of the log are put in the place of those that came late."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR, anchored=False)
    scene.clock.until(scene.clock() + _EARLIER_SECONDS)
    history.finish()
    for number in range(len(scene.timestamps)):
        early = history.files.read(token_path(1, number), 1 << 16)
        history.files.write(token_path(history.tree.size, number), early)


def receipts_exchanged(scene: Scene) -> None:
    """The receipts of two sizes change places."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR)
    history.finish()
    one, other = receipt_path(1), receipt_path(history.tree.size)
    first, last = (history.files.read(path, 1 << 20) for path in (one, other))
    history.files.write(one, last)
    history.files.write(other, first)


def receipt_taken_out(scene: Scene) -> None:
    """A receipt that the index lists is taken out."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR)
    history.finish()
    history.files.delete(receipt_path(1))


def anchor_of_another_run(scene: Scene) -> None:
    """The manifest's anchors are those of an earlier run, whose manifest was anchored in time."""
    plan, beside = scene.plan(), scene.target.with_name(f"{scene.target.name}-earlier")
    earlier = History(scene=scene, plan=replace(plan, cadence_seconds=90), target=beside).begin()
    history = History(scene=scene, plan=plan)
    history.reach(0)
    history.begin()
    history.train(FOUR)
    history.finish()
    for path in (receipt_path(1), token_path(1, 0), token_path(1, 1)):
        history.files.write(path, earlier.files.read(path, 1 << 20))


def cut_short(scene: Scene) -> None:
    """The owner does not like how a run ends, and gives out what comes before, anchored as it is."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR)
    history.finish()
    _write_again(history, 7)


def rewritten(scene: Scene) -> None:
    """The owner writes the last segment again with other losses, after it was anchored, and signs that."""
    history = History(scene=scene, plan=scene.plan()).begin()
    history.train(FOUR)
    history.finish()
    _write_again(history, history.tree.size, other_losses=True)


def fork_of_two_witnesses(scene: Scene) -> None:
    """Two continuations of one manifest, one shown to each witness, whose cosignatures are put together."""
    plan, beside = scene.plan(), scene.target.with_name(f"{scene.target.name}-fork")
    history, fork = History(scene=scene, plan=plan).begin(), History(scene=scene, plan=plan, target=beside)
    fork.publish()
    history.hosts, fork.hosts = Hosts(scene.witnesses[:1]), Hosts(scene.witnesses[1:])
    for slot in FOUR:
        history.train((slot,), anchored=False)
        fork.train((slot,), anchored=False)
        next(iter(fork.state.values())).add_(0.001)
        if slot > 0:
            _anchor_both(history, fork)
    history.finish(anchored=False)
    fork.finish(anchored=False)
    _anchor_both(history, fork)


def trust_brought_along(scene: Scene) -> None:
    """Own beacon, own witness, own authority; and the bundle brings a file of pins, roots and keys."""
    chain = LocalChain.generate(beacon_id="own", period_seconds=3, genesis_unix_seconds=1_700_000_000)
    authority, witness = _authority_of_old(scene), CosigningKey.generate("own.example/witness")
    plan = SlotPlan.beginning_after([chain.chain], CADENCE_SECONDS, scene.clock() - _EARLIER_SECONDS)
    history = _dated_back(scene, plan, lambda _, n: chain.sign(n, now_unix_seconds=scene.clock()).signature)
    _anchor_all(
        history,
        lambda note, at: Obtained(note=_cosigned(note, witness, at), tokens=(_stamp(authority, note, at),)),
    )
    pins = f'keys = ["{scene.owner.verification_key}"]\n[[timestamps]]\nname = "own"\nroots = "roots.pem"\n'
    for path, text in {
        "trust.toml": pins,
        "roots.pem": authority.root_pem,
        "policy": f"witness own {witness.verification_key}\nquorum own\n",
    }.items():
        history.files.write(path, text.encode())


Dated = Callable[[Note, float], Obtained]
"""What says that a checkpoint is from a time."""


def _dated_back(scene: Scene, plan: SlotPlan | None = None, rounds: Rounds | None = None) -> History:
    """A run made now, all at once, by a plan of an hour ago, and not anchored."""
    ago = plan or SlotPlan.beginning_after([scene.chain], CADENCE_SECONDS, scene.clock() - _EARLIER_SECONDS)
    history = History(scene=scene, plan=ago, rounds=rounds)
    history.publish()
    history.train(FOUR, anchored=False)
    history.finish(anchored=False)
    return history


def _anchor_all(history: History, dated: Dated) -> None:
    """Gives every checkpoint an anchor that says what the plan would have."""
    plan, sizes = history.slot_plan, sorted(history.notes)
    said = [plan.begins(0) - 10, *(plan.begins(slot) + 20 for slot in FOUR), plan.begins(FOUR[-1]) + 30]
    for size, at in zip(sizes, said, strict=True):
        history.store_anchor(dated(history.notes[size], at))


def _anchor_both(history: History, fork: History) -> None:
    """Gives a checkpoint its own witness's cosignature, and the other's of the fork."""
    size = history.tree.size
    own, other = (h.hosts.obtain(h.notes[size], h.tree.consistency_proof) for h in (history, fork))
    signatures = (*own.note.signatures, *other.note.signatures[1:])
    history.store_anchor(Obtained(note=replace(own.note, signatures=signatures)))


def _authority_of_old(scene: Scene) -> LocalAuthority:
    begins = _utc(scene.clock() - 10 * _EARLIER_SECONDS)
    return LocalAuthority.generate(name="own.example", now=begins)


def _utc(unix_seconds: float) -> datetime:
    return datetime.fromtimestamp(unix_seconds, UTC)


def _stamp(authority: LocalAuthority, note: Note, at: float) -> bytes:
    return authority.answer(encode_query(digest_of(note), nonce=1), _utc(at))


def _cosigned(note: Note, key: CosigningKey, at: float) -> Note:
    return replace(note, signatures=(*note.signatures, key.cosign(note.text, int(at))))


def _write_again(history: History, size: int, *, other_losses: bool = False) -> None:
    """Signs a log of `size` of the entries, if asked for with another segment's losses in the last one."""
    entries = history.entries[: size - 1]
    first, *_, last = (entry for entry in entries if isinstance(entry, Segment))
    writer = BundleWriter(BlobWriter(history.files), history.scene.owner, history.manifest)
    for entry in entries:
        changed = other_losses and entry is last
        writer.append(replace(last, losses=first.losses) if changed else entry)
    writer.publish()
