"""What a verdict holds besides its claims, as labelled values: the record's evidence and the policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradseal.verify.classical import Classical
from gradseal.verify.policy import Policy, Replay
from gradseal.verify.protocol import picked
from gradseal.verify.times import lasting
from gradseal.verify.verdict import Verdict

Facts = dict[str, str]

_REPLAYED = {
    Replay.ENDS: "the first and the last",
    Replay.SAMPLE: "the first, the last, and a random sample of the others",
    Replay.ALL: "all",
}
_SEED_SOURCES = {
    "declared": "declared: the owner's own choice",
    "beacon": "beacon: rounds of public randomness, one slot after the other",
}
_DIGESTS = ("program", "initialisation", "release", "weights")


def number(value: float | None, digits: int = 4) -> str:
    """A number for a table; a dash for what is not known."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def evidence(verdict: Verdict) -> dict[str, Facts]:
    """The run's identity and what its record says, by heading; what could not be read is not there."""
    record = verdict.record
    groups = {"Run and checkpoint": _identity(verdict)}
    if record:
        groups["Plan and seed"] = _plan(record, verdict)
        groups["Data"] = {"samples": f"{record['data']['samples']:,}", "root": record["data"]["root"]}
        groups["Digests (SHA-256)"] = {name: record[name] for name in _DIGESTS if record[name]}
    if "free_bytes" in record:
        free = record["free_bytes"]
        groups["Free bytes"] = {
            "counted": f"{free['counted']:,} bytes that no rule derives, of at most {free['allowed']:,}"
        }
    if "environment" in record:
        groups["Environment"] = _environment(record["environment"])
    if verdict.tolerance:
        groups["Tolerance of replays"] = _tolerance(verdict.tolerance)
    return groups


def policy(policy: Policy) -> Facts:
    """All of a policy."""
    limit = policy.replay_timeout_seconds
    return {
        "name": policy.name,
        "segments replayed": picked(policy.classical) if policy.classical else _REPLAYED[policy.replay],
        **(_classical(policy.classical) if policy.classical else {}),
        **({"largest tolerance": f"{policy.tau_cap:g} of the update"} if policy.calibration else {}),
        "demanded": ", ".join(f"{name} {least}" for name, least in policy.require.items()) or "nothing",
        "longest updates that are always replayed": str(policy.longest),
        "confidence of what a sample bounds": f"{policy.confidence:g}",
        "share of forged segments that a sample is to rule out": f"{policy.tolerated_fraction:g}",
        "share of forged length that it is to rule out": _share(policy.tolerated_length),
        "free bytes allowed": f"{policy.free_bytes:,}",
        "and at most this share of the parameters' bytes": _share(policy.free_share),
        "program and graphs, as a share of the parameters' bytes": _share(policy.graph_share),
        "longest wait for a step": f"{policy.step_timeout_seconds:g} s",
        "longest time for all replays": "no limit" if limit is None else f"{limit:g} s",
        "address space of a worker": f"{policy.memory_bytes / 2**30:g} GiB",
        "most threads": str(policy.max_threads),
    }


def _tolerance(said: Mapping[str, Any]) -> Facts:
    rate, confidence, rest = said["false_rejection"], said["confidence"], said["state_tau"]
    return {
        "tau": f"{said['tau']:.4g} of the update" + (", capped by the policy" if said["capped"] else ""),
        **({} if rest is None else {"tau of the rest of a state": f"{rest:.4g} of a group's change"}),
        "honest segments beyond": "not known, as it is capped"
        if rate is None
        else f"at most {rate:.2g}, with {confidence:.0%} confidence",
        "calibrated on": f"{said['calibrated_segments']:,} segments, signed by {said['signer'] or 'nobody'}",
        "replays": f"{said['equal']:,} equal, {said['within']:,} within, {said['beyond']:,} beyond, "
        f"{said['no_evidence']:,} no evidence",
        "largest error": number(said["largest_error"]),
        **({} if rest is None else {"largest error of the rest": _rest(said)}),
        "reach": number(said["reach"]) + ", of the way from start to end",
    }


def _rest(said: Mapping[str, Any]) -> str:
    group = said["state_group"]
    return number(said["largest_state_error"]) + (f", in {group}" if group else "")


def _classical(classical: Classical) -> Facts:
    rates = classical.learning_rates
    return {
        "protocol": "the classical one: distances instead of bits",
        "test of state zero": classical.initial.value,
        "a replay's distance": classical.limits.said(),
        "learning rates": f"from {rates[0]:g} to {rates[1]:g}" if rates else "any",
    }


def _identity(verdict: Verdict) -> Facts:
    bundle = verdict.bundle
    return {
        "run": str(bundle["origin"]),
        "owner's key": str(bundle.get("owner", "not verified")),
        "checkpoint size, in entries": f"{bundle['size']:,}",
        "checkpoint root": str(bundle["root"]),
    }


def _plan(record: Mapping[str, Any], verdict: Verdict) -> Facts:
    plan, segments = record["plan"], verdict.segments
    said = {
        "steps": f"{plan['steps']:,}, in segments of {plan['every']:,}; {segments.count:,} are sealed",
        "run": "closed" if record["closed"] else "not closed: it was stopped, or still goes on",
        "batches": f"of {plan['batch_size']:,} samples, order {plan['order']}, {plan['collation']}"
        + (f", {plan['accumulate']:,} to a step" if plan.get("accumulate", 1) != 1 else ""),
        "seed's source": _SEED_SOURCES.get(record["seed"]["source"], record["seed"]["source"]),
    } | _seed(record["seed"])
    if "parameters" in record:
        tensors, numbers = record["parameters"]["tensors"], record["parameters"]["numbers"]
        said["parameters"] = f"{numbers:,} numbers in {tensors:,} tensors"
    if segments.path_length is not None and segments.distance is not None:
        said["path of the parameters"] = (
            f"{number(segments.path_length)} long in all, {number(segments.distance)} from start to end"
        )
    return said


def _seed(seed: Mapping[str, Any]) -> Facts:
    if seed["source"] == "declared":
        return {"seed": seed["value"]}
    chains = [
        f"{str(one['chain'].get('hash', ''))[:64]} from round {one['first_round']:,} on"
        for one in seed["chains"]
    ]
    return {
        "slots": f"each {lasting(seed['cadence_seconds'])} long",
        "beacon chain" if len(chains) == 1 else "beacon chains, combined": "; ".join(chains),
    }


def _environment(environment: Mapping[str, Any]) -> Facts:
    recorded, had = dict(environment["recorded"]), environment["replayed"]
    if recorded.pop("kind", "native") == "exact":
        return _exact(recorded, had)
    facts: Facts = {"arithmetic": "native"}
    for name, value in recorded.items():
        own = None if had is None else had.get(name)
        said = _plain(value)
        facts[name.replace("_", " ")] = said if had is None or own == value else f"{said}; here {_plain(own)}"
    ended = "in the recorded environment" if had == recorded else "in another environment, as said"
    facts["replays ran"] = "not at all" if had is None else ended
    return facts


def _exact(recorded: Mapping[str, Any], had: Mapping[str, Any] | None) -> Facts:
    facts: Facts = {"arithmetic": f"exact, definition {recorded.get('definition')}: no setting counts"}
    if had is None:
        return {**facts, "replays ran": "not at all"}
    told = ("torch", "machine", "processor", "device", "threads", "cpu_capability")
    settings = "; ".join(f"{name.replace('_', ' ')} {_plain(had.get(name))}" for name in told)
    return {**facts, "replays ran": f"with {settings}"}


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) or "not set"


def _share(share: float | None) -> str:
    if share is None:
        return "no limit"
    inverse = 1 / share if share > 0 else 0.5
    return f"1/{inverse:.0f}" if inverse == round(inverse) else f"{share:g}"
