"""Classical policies as settings: limits, names, other packages' policies, which segments are chosen."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradseal.errors import Error
from gradseal.proof.manifest import Manifest
from gradseal.verify import policy as policies
from gradseal.verify.classical import Classical, Limits, Scale, Selection
from gradseal.verify.distances import Distance, Distances, cosine
from gradseal.verify.executors import WorkerDied, _answer
from gradseal.verify.policy import Policy, policy_names
from gradseal.verify.replay import distances
from gradseal.verify.sampling import Sample, draw_classical

JIA2021 = ["jia2021", "jia2021-random", "jia2021-relative", "jia2021-random-relative", "jia2021-bounded"]
ROOT = bytes(32)


def test_the_named_policies_stand_in_their_order_and_are_json() -> None:
    assert policy_names() == ["quick", "standard", "full", *JIA2021]
    for name in policy_names():
        own = Policy.named(name)
        assert own.name == name
        plain = own.to_json()
        assert json.loads(json.dumps(plain, allow_nan=False)) == plain
        assert (plain["classical"] is not None) == (name in JIA2021)
    released = Policy.named("jia2021").to_json()["classical"]
    assert released["limits"]["factors"] == {"l1": 1000, "l2": 10, "linf": 0.1, "cosine": 0.01}
    assert (released["initial"], released["selection"], released["top"]) == ("ks", "top", 5)
    assert Policy.named("jia2021-bounded").to_json()["classical"]["learning_rates"] == [1e-4, 1.0]


def test_all_of_several_limits_must_hold_and_no_number_holds_none() -> None:
    limits = Policy.named("jia2021").require_classical().limits
    near = Distances(l1=1000.0, l2=10.0, linf=0.1, cosine=0.01)
    assert all(limits.within(near, Distances()).values())
    for name in Distance:
        for wrong in (math.nan, math.inf, 1001.0):
            held = limits.within(replace(near, **{name.value: wrong}), Distances())
            assert [d for d, fine in held.items() if not fine] == [name]


def test_a_relative_limit_follows_the_update_and_a_normalised_one_the_reference() -> None:
    relative = Policy.named("jia2021-relative").require_classical().limits
    assert relative.allowed(Distance.L2, Distances(l2=3.0)) == pytest.approx(0.3)
    assert relative.within(Distances(l2=0.3), Distances(l2=math.inf))[Distance.L2]
    assert not relative.within(Distances(l2=math.inf), Distances(l2=math.inf))[Distance.L2]
    normalised = Policy.named("jia2021").normalised(71.472)
    classical = normalised.require_classical()
    assert classical.limits.allowed(Distance.L2, Distances()) == pytest.approx(0.571776)
    assert classical.limits.ranked_by is Distance.L2
    other = Policy.named("jia2021").normalised(2.0, 0.1, "linf").require_classical().limits
    assert (dict(other.factors), other.ranked_by) == ({Distance.LINF: 0.1}, Distance.LINF)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Policy.named("full").normalised(1.0),
        lambda: Policy.named("jia2021-relative").normalised(1.0),
        lambda: Policy.named("jia2021").normalised(0.0),
        lambda: Policy.named("jia2021").normalised(math.nan),
        lambda: Policy.named("jia2021").normalised(math.inf),
        lambda: Policy.named("jia2021").normalised(1.0, -1.0),
        lambda: Policy.named("jia2021").normalised(1.0, math.nan),
        lambda: Policy.named("jia2021").normalised(1.0, distance="l3"),
        lambda: Limits(factors={}),
        lambda: Limits(factors={Distance.L2: 1.0}, scale=Scale.NORMALISED),
        lambda: Classical().limited(1.0),
        lambda: Policy.named("jia2021-relative").require_classical().limited(distance="l1"),
    ],
)
def test_limits_without_a_meaning_are_errors(make: Callable[[], object]) -> None:
    with pytest.raises(Error):
        make()


def test_one_limit_can_be_set_on_the_scale_that_there_is() -> None:
    limited = Classical().limited(distance="linf").limits
    assert dict(limited.factors) == {Distance.LINF: 0.1}
    relative = Policy.named("jia2021-relative").require_classical().limited(0.5, "l1").limits
    assert (dict(relative.factors), relative.scale) == ({Distance.L1: 0.5}, Scale.RELATIVE)


def offered(monkeypatch: pytest.MonkeyPatch, **modules: Any) -> None:
    """Entry points whose modules are made up here."""
    points = [EntryPoint(name, f"made_up_{name}:POLICY", policies.GROUP) for name in modules]

    def load(point: EntryPoint) -> Any:
        found = modules[point.name]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(EntryPoint, "load", load)
    monkeypatch.setattr(policies, "entry_points", lambda group: points if group == policies.GROUP else [])


def test_other_packages_bring_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(Policy.named("standard"), name="own")
    offered(monkeypatch, own=own, made=lambda: own, quick=ValueError("never loaded"), zeta=ImportError("x"))
    assert policy_names()[-3:] == ["made", "own", "zeta"]
    assert policy_names().count("quick") == 1
    assert Policy.named("own") is Policy.named("made") is own
    assert Policy.named("quick") is policies.POLICIES["quick"]


@pytest.mark.parametrize("wrong", [ImportError("no such module"), "a text", lambda: 3, lambda: 1 / 0])
def test_a_broken_policy_is_an_error_that_names_its_package(
    monkeypatch: pytest.MonkeyPatch, wrong: object
) -> None:
    offered(monkeypatch, broken=wrong)
    with pytest.raises(Error) as e:
        Policy.named("broken")
    assert "made_up_broken" in e.value.where and e.value.advice
    with pytest.raises(Error, match="no policy is called 'other'") as e:
        Policy.named("other")
    assert "broken" in e.value.advice


def manifest(*, steps: int, every: int, samples: int, batch_size: int, accumulate: int = 1) -> Manifest:
    """As much of a manifest as the choice of segments reads."""

    class Part:
        def __init__(self, **values: Any) -> None:
            self.__dict__.update(values)

        def steps_of(self, segment: int) -> range:
            return range(segment * every, min((segment + 1) * every, steps))

    plan = Part(steps=steps, every=every, batch_size=batch_size, accumulate=accumulate, drop_last=False)
    return Part(plan=plan, data=Part(samples=samples))  # type: ignore[return-value]  # see above


def chosen(updates: Sequence[float], top: int, selection: Selection, draw: bytes, **plan: int) -> Sample:
    return draw_classical(Classical(top=top, selection=selection), manifest(**plan), updates, draw, ROOT)


def test_the_largest_updates_of_each_epoch_are_chosen() -> None:
    # Epochs of 5 steps, segments of 2: they begin at 0, 2, 4 | 6, 8 | 10.
    plan = {"steps": 11, "every": 2, "samples": 18, "batch_size": 4}
    updates = [1.0, 3.0, 2.0, 9.0, 8.0, 0.0]
    assert chosen(updates, 1, Selection.TOP, b"", **plan).segments == [1, 3, 5]
    assert chosen(updates, 2, Selection.TOP, b"", **plan).segments == [1, 2, 3, 4, 5]
    assert chosen(updates, 0, Selection.TOP, b"", **plan).segments == [0, 1, 2, 3, 4, 5]
    assert chosen(updates, -1, Selection.RANDOM, b"", **plan).segments == [0, 1, 2, 3, 4, 5]
    # Of equals the first; one that is not known or no number counts as the largest.
    assert chosen([2.0, 2.0, 1.0, 5.0, math.nan, 0.0], 1, Selection.TOP, b"", **plan).segments == [0, 4, 5]
    # Two batches to a step: an epoch is 3 steps.
    halved = {**plan, "accumulate": 2}
    assert chosen(updates, 1, Selection.TOP, b"", **halved).segments == [1, 2, 3, 5]


@given(st.integers(1, 60), st.integers(1, 6), st.binary(min_size=4, max_size=4))
def test_as_many_are_drawn_uniformly(segments: int, top: int, draw: bytes) -> None:
    plan = {"steps": segments, "every": 1, "samples": 40, "batch_size": 4}
    updates = [1.0] * segments
    largest = chosen(updates, top, Selection.TOP, draw, **plan)
    drawn = chosen(updates, top, Selection.RANDOM, draw, **plan)
    assert len(drawn.segments) == len(set(drawn.segments)) == len(largest.segments)
    assert (drawn.certain, drawn.population) == ((), segments)
    assert drawn == chosen(updates, top, Selection.RANDOM, draw, **plan)


def test_a_draw_depends_on_the_draw() -> None:
    plan = {"steps": 40, "every": 1, "samples": 40, "batch_size": 1}
    drawn = {chosen([1.0] * 40, 3, Selection.RANDOM, bytes([i]), **plan).uniform for i in range(20)}
    assert len(drawn) > 15


def test_distances_are_those_of_one_vector() -> None:
    made = torch.Generator().manual_seed(0)
    a = {name: torch.randn(5, 7, generator=made) for name in "xy"} | {"empty": torch.zeros(0)}
    b = {name: t + 1e-3 * torch.randn(t.shape, generator=made) for name, t in a.items()}
    x, y = (torch.cat([s[n].double().flatten() for n in "xy"]) for s in (a, b))
    found = distances(a, b, list(a))
    assert found.l1 == pytest.approx((x - y).abs().sum().item())
    assert found.l2 == pytest.approx((x - y).norm().item())
    assert found.linf == pytest.approx((x - y).abs().max().item())
    assert found.cosine == pytest.approx(1 - (torch.dot(x, y) / x.norm() / y.norm()).item(), rel=1e-6)
    assert distances(a, a, list(a)) == Distances()
    for order in ("xy", "yx"):
        b["y"][2, 3] = math.nan
        wrong = distances(a, b, list(order))
        assert all(math.isnan(wrong.by(d)) for d in Distance), "whichever tensor comes first"


def test_an_angle_of_nothing_is_none() -> None:
    assert (cosine(0.0, 0.0, 0.0), cosine(1.0, 0.0, 1.0), cosine(4.0, 1.0, 1.0)) == (0.0, 1.0, 2.0)
    assert math.isnan(cosine(math.nan, 1.0, 1.0))
    assert cosine(0.0, 3.0, 3.0) == 0.0


@pytest.mark.parametrize(
    "said",
    ["0.5", "null", '{"l1":0.0}', '{"l1":0.0,"l2":0.0,"linf":0.0,"cosine":-1.0}']
    + ['{"l1":0.0,"l2":0.0,"linf":0.0,"cosine":' + x + "}" for x in ("true", '"1"', "1", "null")]
    + ['{"l1":0.0,"l2":0.0,"linf":0.0,"cosine":0.0,"l3":0.0}'],
)
def test_an_answer_whose_distances_are_none_is_not_taken(said: str) -> None:
    line = (
        '{"kind":"segment","segment":0,"equal":false,"differing":[],"moved":[],"independent":[],'
        '"error":%s,"update":{"l1":0.0,"l2":0.0,"linf":0.0,"cosine":NaN},'
        '"state":0.0,"state_group":"","seconds":0.5}'
    )
    with pytest.raises(WorkerDied):
        _answer((line % said).encode())
    good = _answer((line % '{"l1":1.0,"l2":0.0,"linf":Infinity,"cosine":0.0}').encode())
    assert good is not None
