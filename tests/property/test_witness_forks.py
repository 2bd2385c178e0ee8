"""Whatever is submitted in whatever order, a witness cosigns one growing history, and never goes back."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from forked_log import Branch
from gradseal.proof.merkle import verify_consistency
from gradseal.proof.submission import Submission
from gradseal.witness.state import Latest, decide_all

LARGEST = 9
BRANCHES = [Branch(name, LARGEST, shared=shared) for name, shared in (("a", 0), ("b", 3), ("c", 3), ("d", 6))]
SIZES = st.integers(0, LARGEST)


@st.composite
def submissions(draw: st.DrawFn) -> Submission:
    branch = draw(st.sampled_from(BRANCHES))
    submission = branch.submission(draw(SIZES), draw(SIZES))
    if draw(st.booleans()):
        return submission
    # A proof that is not the right one.
    other = draw(st.sampled_from(BRANCHES)).submission(draw(SIZES), draw(SIZES))
    return Submission(
        old=submission.old, proof=other.proof, note=submission.note, checkpoint=submission.checkpoint
    )


BATCHES = st.lists(
    st.tuples(st.lists(submissions(), min_size=1, max_size=6), st.integers(0, 30)), max_size=12
)


@given(BATCHES)
def test_no_fork_no_smaller_tree_and_no_earlier_time_is_ever_cosigned(
    batches: list[tuple[list[Submission], int]],
) -> None:
    latest: dict[str, Latest] = {}
    cosigned: list[Latest] = []
    for batch, now in batches:
        outcomes, changed = decide_all(latest, batch, now)
        accepted = [outcome for outcome in outcomes if isinstance(outcome, Latest)]
        cosigned += accepted
        assert bool(changed) == bool(accepted)
        # What is kept is what was cosigned last.
        assert not accepted or changed == {BRANCHES[0].origin: accepted[-1]}
        latest |= changed
    for before, after in pairwise(cosigned):
        assert before.size <= after.size
        assert before.timestamp <= after.timestamp
        assert before.size < after.size or before.root == after.root
    for branch in BRANCHES:
        # If the last one is of a branch, so were all before it.
        if cosigned and branch.tree.root(cosigned[-1].size) == cosigned[-1].root:
            assert all(branch.tree.root(one.size) == one.root for one in cosigned)


@given(st.integers(0, LARGEST), st.integers(0, LARGEST))
def test_what_grows_is_cosigned(one: int, two: int) -> None:
    old, new = sorted((one, two))
    for branch in BRANCHES:
        wanted = [branch.submission(0, old), branch.submission(old, new), branch.submission(new, new)]
        outcomes, _ = decide_all({}, wanted, 5)
        assert [o.size for o in outcomes if isinstance(o, Latest)] == [old, new, new]
        assert verify_consistency(
            old=old,
            new=new,
            old_root=branch.tree.root(old),
            new_root=branch.tree.root(new),
            proof=wanted[1].proof,
        )
