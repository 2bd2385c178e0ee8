"""`gradseal plan`: how many segments to replay, what that costs, and what it proves."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from gradseal.cli.draws import DrawOptions, draw_options, standard_draws
from gradseal.cli.numbers import FiniteRange
from gradseal.cli.paths import reading
from gradseal.cli.watching import Watcher
from gradseal.report.words import finite, printable
from gradseal.verify.bounds_said import share_said
from gradseal.verify.statistics import rounded_up

if TYPE_CHECKING:
    from gradseal.study.audits.audited import Audited
    from gradseal.study.audits.planning import Answered, AuditPlan
    from gradseal.study.audits.response import Mix, Response


_PRICE = FiniteRange(min=0)
_EVERY = 10


@click.command(
    name="plan",
    epilog="\b\nExamples:\n"
    "  gradseal plan --segments 10000 --every 10 --step-seconds 0.2\n"
    "  gradseal plan runs/digits --confidence 0.99 --forged 0.02\n"
    "  gradseal plan --segments 600 --forged-length 1 --longest 0 --json",
)
@click.argument("bundle", required=False)
@click.option("--segments", type=click.IntRange(1, 1 << 20), help="Plan for so many, of one length.")
@click.option("--every", type=click.IntRange(1, 1 << 20), help=f"Steps in each; {_EVERY} if not given.")
@draw_options(defaults=standard_draws())
@click.option(
    "--displacement",
    type=FiniteRange(0, 1, min_open=True),
    help="How far a prover must get, as a share of the path. If not given, as far as BUNDLE did, or 0.3.",
)
@click.option("--step-seconds", type=_PRICE, help="How long the replay of a step takes.")
@click.option("--price", type=_PRICE, help="What the replay of a step costs, in any currency.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for an error too.")
def command(
    bundle: str | None,
    segments: int | None,
    every: int | None,
    draws: DrawOptions,
    displacement: float | None,
    step_seconds: float | None,
    price: float | None,
    as_json: bool,
) -> None:
    """Plan an audit: which segments to replay, at what cost, and what that proves.

    For the segments of BUNDLE, a directory or URL, or for --segments of which nothing is known. BUNDLE is
    read whole, and nothing of it is replayed. The defaults are those of the policy standard. A verification
    with a calibration may draw more.

    A prover who forges must move the parameters; he chooses in how many segments. Shown is how often the
    plan sees his best choice, and how often others do that replay as much.
    """
    from gradseal.study.audits.audited import alike, read_audited
    from gradseal.study.audits.planning import Price, plan_audit
    from gradseal.verify.policy import Policy

    if (bundle is None) == (segments is None):
        raise click.UsageError("name a BUNDLE or give --segments, one of the two")
    if bundle is not None and every is not None:
        raise click.UsageError("--every goes with --segments; a bundle has its own")
    if bundle is not None:
        with reading(bundle), Watcher(shown=sys.stderr.isatty()) as watcher:
            run = read_audited(bundle, watcher.update)
    else:
        run = alike(segments or 0, every or _EVERY)
    policy = draws.applied(Policy.named("standard"))
    plan = plan_audit(run, policy, displacement=displacement, price=Price(seconds=step_seconds, money=price))
    verification = shlex.join(_verification(bundle, draws))
    if as_json:
        click.echo(json.dumps(finite({**plan.to_json(), "verify": verification}), indent=2))
        return
    answers = ["", *_answers(run, plan)] if plan.population else []
    for line in [
        *_audit(run, plan, policy.tolerated_length),
        "",
        *_proved(plan),
        *answers,
        "",
        f"To do it: {verification}",
    ]:
        click.echo(printable(line))


def _verification(bundle: str | None, draws: DrawOptions) -> list[str]:
    """The command that draws as was planned, but for whose key is pinned."""
    usual = asdict(standard_draws())
    other = DrawOptions(**{name: value for name, value in asdict(draws).items() if value != usual[name]})
    own = [*other.repeated(), "--key", "KEY"]
    return ["gradseal", "verify", bundle or "BUNDLE", "--policy", "standard", *own]


def _audit(run: Audited, plan: AuditPlan, tolerated_length: float | None) -> list[str]:
    if tolerated_length is None:
        weighted = "no draws"
    elif plan.by_length:
        weighted = f"{plan.by_length} draws of these, with replacement"
    else:
        weighted = "none: some lengths are not known, or there are none" if plan.population else "none"
    changed = ", where the plan changed or a gap began" if set(run.always) - {0} else ""
    lines = [
        f"An audit of {plan.segments} segment{'s' if plan.segments > 1 else ''}"
        + ("" if run.measured else ", taken to be of equal length"),
        _row(
            "always", f"{plan.certain}: first, last, the {min(plan.longest, plan.segments)} longest{changed}"
        ),
        _row("uniform", f"{plan.uniform} of the {plan.population} others, without replacement"),
        _row("by length", weighted),
        _row("expected", f"{plan.expected_segments:.1f} segments, {plan.expected_steps:.0f} steps"),
        _row("cost", f"{_percent(plan.share)} of a replay of all"),
    ]
    if run.replays > 1:
        lines.append(_row("", "each once more under another seed, which is counted"))
    if plan.seconds is not None:
        lines.append(_row("time", _time(plan.seconds)))
    if plan.money is not None:
        lines.append(_row("price", f"{plan.money:.2f}"))
    return lines


def _proved(plan: AuditPlan) -> list[str]:
    each = f"with {_sure(plan.bound_confidence)}"
    if not plan.population:
        return ["This is a replay of all segments: if they replay, none is forged."]
    lines = ["If all of these replay, of the others"]
    lines.append(_row("segments", f"at most {plan.most_forged} of {plan.population} are forged, {each}"))
    if plan.most_length is None:
        lines.append(_row("length", "no statement"))
    else:
        lines.append(_row("length", f"at most {share_said(plan.most_length)} is forged, {each}"))
        lines.append(_row("", f"both with {_sure(plan.confidence)}"))
    if plan.reach is not None:
        reach = f"forged ones moved the parameters by at most {rounded_up(plan.reach):.2g} of the whole way"
        lines.append(_row("reach", reach))
        if plan.reach >= 1:
            lines.append(_row("", "at 1 or more they could have made all of it"))
    return lines


def _answers(run: Audited, plan: AuditPlan) -> list[str]:
    if plan.displacement is not None and run.path:
        way = f"{plan.displacement / run.path:.2g} of the path"
    else:
        way = "some way"
    lines = [
        f"Seen, if a prover must move the parameters by {way}, and answers each audit best:",
        f"  {'':11}{'longest':>8}{'uniform':>9}{'by length':>11}{'  lengths as they are':<29}if made long",
    ]
    lines += [_answer(name, one) for name, one in plan.answered.items()]
    lines.append(
        "The first, the last and what is always replayed besides are left out of these numbers. Made"
    )
    lines.append(
        "long: by learning rates of his own. Then uniform draws alone see him, and one forged segment"
    )
    lines.append("is enough. Only a replay of all is sure to find it.")
    return lines


def _answer(name: str, answered: Answered) -> str:
    mix: Mix = answered.mix
    honest: Response | None = answered.as_they_are
    said = f"{_seen(honest.detection)}, forging {honest.forged}" if honest else "not known"
    return (
        f"  {name:11}{mix.longest:>8}{mix.uniform:>9}{mix.by_length:>11}  {said:<27}"
        f"{_seen(answered.inflated.detection)}"
    )


def _sure(confidence: float) -> str:
    return "over 99.99%" if confidence > 0.9999 else f"{100 * confidence:.4g}%"


def _seen(probability: float) -> str:
    if probability > 0.9995:
        return "over 99.9%"
    return f"{100 * probability:.2g}%" if probability < 0.1 else f"{100 * probability:.1f}%"


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _time(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def _row(name: str, text: str) -> str:
    return f"  {name:<11}{text}"
