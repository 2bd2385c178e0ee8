"""Attacks on those who ask for rounds and anchors, and on the witness that is asked: each is refused at once.

No bundle comes of these. Each function does what its attacker does, and what is wrong must end in an
`AnchorError` of whoever was to be deceived.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from gradseal.attacks.history import History
from gradseal.attacks.scene import Scene
from gradseal.precede.answers import encode_query
from gradseal.precede.authorities import ANSWER_TYPE, Authority
from gradseal.precede.local_chain import LocalChain
from gradseal.precede.relays import Relays
from gradseal.precede.witnesses import Cosignature, cosign
from gradseal.proof.canonical import Json, encode

_DIGEST = sha256(b"a checkpoint").digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """An attack on a service, or by one.

    Args:
        who: Who makes it.
        make: Does it; what is refused is an `AnchorError`.
    """

    who: str
    make: Callable[[Scene], object]


def token_replayed(scene: Scene) -> bytes:
    """Whoever is on the way to the authority answers with an older token of the same digest."""
    older = scene.bribed.answer(encode_query(_DIGEST, nonce=1), datetime.fromtimestamp(scene.clock(), UTC))
    return _stamp(scene, lambda query: older)


def token_of_tomorrow(scene: Scene) -> bytes:
    """An authority whose clock is a day ahead answers the query."""
    return _stamp(scene, lambda query: scene.bribed.answer(query, datetime.now(UTC) + timedelta(days=1)))


def round_of_another_chain(scene: Scene) -> object:
    """A relay gives rounds of a chain of its own, as those of the chain that it is asked for."""
    own = LocalChain.generate(beacon_id="own", period_seconds=3, genesis_unix_seconds=0)
    number = scene.chain.round_at(scene.clock())
    signed = own.sign(number, now_unix_seconds=scene.clock())
    answer: dict[str, Json] = {
        "round": number,
        "randomness": signed.randomness.hex(),
        "signature": signed.signature.hex(),
    }
    with _answering(lambda _: encode(answer), "application/json") as url:
        return Relays(scene.chain, [url], clock=scene.clock).fetch(number)


def round_of_tomorrow(scene: Scene) -> object:
    """The owner asks the beacon for a round that is not due."""
    return scene.relays.fetch(scene.chain.round_at(scene.clock()) + 1000)


def fork_at_one_witness(scene: Scene) -> Cosignature:
    """After one continuation of a log, the owner shows the same witness another of the same size."""
    _, fork = _two(scene)
    return _cosigned(scene, fork, fork.tree.size)


def longer_fork_at_one_witness(scene: Scene) -> Cosignature:
    """After one continuation of a log, the owner shows the same witness another that is longer."""
    _, fork = _two(scene)
    fork.train((1,), anchored=False)
    return _cosigned(scene, fork, fork.tree.size)


def smaller_tree(scene: Scene) -> Cosignature:
    """The owner goes back to an earlier state of his log, and has that cosigned."""
    history, _ = _two(scene)
    return _cosigned(scene, history, 1)


SERVICES: dict[str, Approach] = {
    "token replayed": Approach(who="whoever is on the way", make=token_replayed),
    "token of tomorrow": Approach(who="authority", make=token_of_tomorrow),
    "round of another chain": Approach(who="relay", make=round_of_another_chain),
    "round of tomorrow": Approach(who="owner", make=round_of_tomorrow),
    "fork at one witness": Approach(who="owner", make=fork_at_one_witness),
    "longer fork at one witness": Approach(who="owner", make=longer_fork_at_one_witness),
    "smaller tree": Approach(who="owner", make=smaller_tree),
}
"""Every attack on a service, by name."""


def _two(scene: Scene) -> tuple[History, History]:
    """A log that both witnesses cosigned up to its first segment, and another one of the same manifest."""
    plan, beside = scene.plan(), scene.target.with_name(f"{scene.target.name}-fork")
    history, fork = History(scene=scene, plan=plan).begin(), History(scene=scene, plan=plan, target=beside)
    fork.publish()
    history.train((0,))
    fork.reach(0)
    fork.draw(0)
    fork.initial()
    next(iter(fork.state.values())).add_(0.001)
    fork.segment()
    fork.publish()
    return history, fork


def _cosigned(scene: Scene, history: History, size: int) -> Cosignature:
    prove = history.tree.consistency_proof
    return cosign(scene.witnesses[0], history.notes[size], known_size=0, prove=prove)


def _stamp(scene: Scene, answer: Callable[[bytes], bytes]) -> bytes:
    with _answering(answer, ANSWER_TYPE) as url:
        return Authority(name="bribed.example", url=url, roots=(scene.bribed.root,)).stamp(_DIGEST)


@contextmanager
def _answering(answer: Callable[[bytes], bytes], kind: str) -> Iterator[str]:
    """A host on loopback that answers whatever it is asked; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="attacker", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
