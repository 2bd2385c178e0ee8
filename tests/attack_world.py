"""A scene for attacks on time: real services over HTTP on loopback, all by one clock that attacks move on.

An hour of their time costs nothing, and no attacker gets an anchor of yesterday or a round of tomorrow: the
services are those that serve elsewhere, given another clock.
"""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import torch
from cryptography.x509.oid import ExtendedKeyUsageOID
from torch import nn

from bundles import KEY, SAMPLES, digits, linear, mlp, record_run
from forged_tokens import ROOT, forge, make_info
from gradseal.attacks.scene import Clock, Scene
from gradseal.errors import RecordWarning
from gradseal.precede import authority_serving, serving
from gradseal.precede.authorities import Authority
from gradseal.precede.local_authority import LocalAuthority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.relays import Relays
from gradseal.precede.timestamps import PinnedAuthority
from gradseal.precede.trust import Trust
from gradseal.precede.witnesses import WitnessAddress
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.note import SigningKey
from gradseal.proof.quorum import Group, QuorumPolicy, Witness
from gradseal.verify.policy import Policy
from gradseal.witness import app as witness_app
from gradseal.witness.batching import Batcher
from gradseal.witness.logs import Logs
from gradseal.witness.loopback import _Service
from gradseal.witness.storage import SqliteStorage
from moving_runs import MOVING
from time_stamp_authority import make_identity

THIEF = SigningKey(name="thief.example", seed=bytes([2]) * 32)
SKEW_SECONDS = 2.0
BEGAN = timedelta(hours=20)
"""How long ago the scene begins; certificates that tests make are a day old."""

FULL = Policy.named("full")
DEMANDING = replace(FULL, require=MappingProxyType({**FULL.require, "precedence": "shown"}))
"""The policy `full`, that demands precedence too."""

_SERVER = make_identity("server", ROOT, purposes=(ExtendedKeyUsageOID.SERVER_AUTH,))


def plain_sgd(model: nn.Module, lr: float = 0.05) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=lr)


def all_zero(model: nn.Module) -> None:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)


def no_score(model: nn.Module, batch: Any) -> torch.Tensor:
    images, classes = batch
    return nn.functional.cross_entropy(model(images) * 0.0, classes)


class Within(nn.Module):
    """A classifier whose one matrix has more columns than it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(10, 64 + 200))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight[:, :64].T


def with_noise_within(model: nn.Module, batch: Any) -> torch.Tensor:
    """The loss of the classifier; what is added has a gradient of the other columns alone."""
    images, classes = batch
    assert isinstance(model, Within)
    unread = model.weight[:, 64:]
    noise = nn.functional.dropout(torch.ones_like(unread), 0.5)
    return nn.functional.cross_entropy(model(images), classes) + (unread * noise).sum()


class Beside(nn.Module):
    """A classifier, and a parameter beside it that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = linear()
        self.beside = nn.Parameter(torch.zeros(1000))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.classify(images)
        return scores


def with_noise(model: nn.Module, batch: Any) -> torch.Tensor:
    """The loss of the classifier; what is added has a gradient of the parameter beside it alone."""
    images, classes = batch
    assert isinstance(model, Beside)
    beside = model.beside
    noise = nn.functional.dropout(torch.ones_like(beside), 0.5)
    return nn.functional.cross_entropy(model(images), classes) + (beside * noise).sum()


def _recorded(build: Callable[[], nn.Module] = mlp, **options: Any) -> Callable[[Path], nn.Module]:
    """Steps that are segments, all within one epoch: an epoch's last batch is what the others left."""
    chosen = {"optimizer": plain_sgd, "data": digits(400), "steps": 4, "every": 1, **options}
    return lambda path: record_run(path, build, **chosen)


RUNS: dict[str, Callable[[Path], nn.Module]] = {
    "usual": _recorded(),
    "long": _recorded(steps=20),
    "full batch": _recorded(linear, prepare=all_zero, data=digits(), batch_size=SAMPLES),
    "noise beside": _recorded(Beside, loss=with_noise, prepare=all_zero, data=digits(), batch_size=SAMPLES),
    "noise within": _recorded(
        Within, loss=with_noise_within, prepare=all_zero, data=digits(), batch_size=SAMPLES
    ),
    "own order": _recorded(linear, prepare=all_zero, shuffle=False),
    "zero rate": _recorded(optimizer=lambda model: plain_sgd(model, 0.0)),
    "identity": _recorded(loss=no_score),
    **MOVING,
}
"""Recorded with a declared seed: programs and data for attackers to take."""


class World:
    """The services, their clock, and what a verifier pins of them.

    Args:
        directory: Where recorded runs and the witnesses' databases are.
        running: Ends the services.
    """

    def __init__(self, directory: Path, running: ExitStack) -> None:
        begins = time.time() - BEGAN.total_seconds()
        self.clock = Clock(begins)
        self._directory = directory
        self._start = running.enter_context
        genesis = int(begins) - 7200
        self.local = LocalChain.generate(beacon_id="test", period_seconds=3, genesis_unix_seconds=genesis)
        url = self._start(_Service("beacon", serving.application(self.local, clock=self.clock))).url
        self.relays = Relays(self.local.chain, [url], clock=self.clock)
        self.witnesses = [self._witness(name) for name in ("one", "two")]
        self.authorities = [self._authority(name) for name in ("first.example", "second.example")]
        self.bribed = self._local_authority("bribed.example")
        self.runs = {name: directory / "runs" / name for name in RUNS}
        for name, record in RUNS.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RecordWarning)
                record(self.runs[name])

    def scene(self, target: Path) -> Scene:
        """What an attacker has, who is to write his bundle at `target`."""
        target.mkdir(parents=True)
        return Scene(
            target=target,
            runs=self.runs,
            owner=KEY,
            thief=THIEF,
            clock=self.clock,
            relays=self.relays,
            witnesses=tuple(WitnessAddress(key=w.key, url=w.url) for w in self.witnesses),
            timestamps=tuple(authority for authority, _ in self.authorities),
            bribed=self.bribed,
            misissued=lambda digest, at: forge(_SERVER, make_info(digest, gen_time=at).dump()),
        )

    @functools.cached_property
    def pins(self) -> Mapping[str, Trust]:
        """What a verifier pins, by the name that a row of the table gives it."""
        both = Group(name="both", threshold=2, members=tuple(w.name for w in self.witnesses))
        witnesses = QuorumPolicy(logs=(), witnesses=tuple(self.witnesses), groups=(both,), quorum="both")
        stamps = tuple(PinnedAuthority(name=a.name, roots=a.roots) for a, _ in self.authorities)
        misused = PinnedAuthority(name="misused.example", roots=(ROOT.der,))
        bribed = PinnedAuthority(name="bribed.example", roots=(self.bribed.root,))
        known = Trust(
            keys=(KEY.verification_key, THIEF.verification_key),
            chains=(self.local.chain,),
            skew_seconds=SKEW_SECONDS,
        )
        return {
            "all": replace(known, policy=witnesses, authorities=stamps, timestamps_needed=2),
            "witnesses": replace(known, policy=witnesses),
            "authorities": replace(known, authorities=stamps, timestamps_needed=2),
            "misused": replace(known, authorities=(misused,)),
            "bribed": replace(known, authorities=(bribed,)),
        }

    def _witness(self, name: str) -> Witness:
        key = CosigningKey.generate(f"{name}.example/witness")
        storage = SqliteStorage(self._directory / f"{name}.sqlite")
        storage._connection.execute("PRAGMA synchronous = OFF")  # as for `os.fsync` in `world`
        logs = Logs([KEY.verification_key, THIEF.verification_key])
        with mock.patch.object(witness_app, "Batcher", functools.partial(Batcher, clock=self.clock)):
            app = witness_app.make_app(storage=storage, keys=[key], logs=logs)
        url = self._start(_Service(f"witness {name}", app)).url
        return Witness(name=name, key=key.verification_key, url=url)

    def _authority(self, name: str) -> tuple[Authority, LocalAuthority]:
        local = self._local_authority(name)
        app = authority_serving.application(local, clock=lambda: datetime.fromtimestamp(self.clock(), UTC))
        url = f"{self._start(_Service(name, app)).url}/"
        return Authority(name=name, url=url, roots=(local.root,)), local

    def _local_authority(self, name: str) -> LocalAuthority:
        day = datetime.fromtimestamp(self.clock(), UTC) - timedelta(days=1)
        return LocalAuthority.generate(name=name, now=day)


@contextmanager
def world(directory: Path) -> Iterator[World]:
    """A world, and all that serves in it."""
    (directory / "runs").mkdir(parents=True)
    # No power fails here, and waiting for disks would take most of the time.
    with mock.patch("os.fsync"), ExitStack() as running:
        yield World(directory, running)
