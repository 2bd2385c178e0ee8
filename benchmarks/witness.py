"""How many durable cosignatures a witness gives a second, and how long they take at half that load.

    python -m benchmarks.run --only witness     as one part of `make bench`
    python -m benchmarks.witness                alone, with a load of one's choice

The witness is a real one, `gradseal witness serve`, on a database in a temporary directory. The load comes
from a process of its own with raw sockets that are kept open: first as fast as answers come back, which
gives the rate; then at half that rate, whatever the answers do, where a latency counts from the moment at
which its request was due. Every request is another checkpoint of one of many logs, with a proof; all are
made before anything is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

from benchmarks.figure import Figure, text

from gradseal.proof.checkpoint import Checkpoint
from gradseal.proof.cosignature import CosigningKey
from gradseal.proof.merkle import Tree, leaf_hash
from gradseal.proof.note import SigningKey, open_note, sign_note
from gradseal.proof.submission import Submission

TESTS = Path(__file__).resolve().parents[1] / "tests"

CONNECTIONS = 64
REQUESTS = 150
QUICK_CONNECTIONS = 16
QUICK_REQUESTS = 40

_OWNER = SigningKey(name="bench.example/models", seed=b"\x51" * 32)
_MAIN = "from gradseal.cli import main; main()"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What the load process saw.

    Args:
        rate: Cosignatures a second, as fast as they came.
        half_rate: At which the latencies were measured.
        p50_ms: The median latency there, in milliseconds.
        p99_ms: The 99th percentile there.
        cosignatures: How many in all.
        refused: Answers that were not cosignatures.
    """

    rate: float
    half_rate: float
    p50_ms: float
    p99_ms: float
    cosignatures: int
    refused: int


def main() -> None:
    """Measures and prints; or, with --load, is the load process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--connections", type=int, default=CONNECTIONS, help="how many logs submit at a time")
    parser.add_argument(
        "--requests", type=int, default=REQUESTS, help="how many checkpoints of each log, in each part"
    )
    parser.add_argument("--load", metavar="URL", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.load:
        print(json.dumps(asdict(asyncio.run(_Load(chosen.load, chosen.connections, chosen.requests).run()))))
        return
    figures: list[Figure] = []
    print(f"load before: {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores, {chosen.connections} connections")
    for name, measured in measure(chosen.connections, chosen.requests):
        print(
            f"{name}: {measured.rate:,.0f} durable cosignatures/s; at {measured.half_rate:,.0f}/s "
            f"p50 {measured.p50_ms:.1f} ms, p99 {measured.p99_ms:.1f} ms; {measured.refused} refused"
        )
        figures += figures_of(name, measured)
    print(text(figures))
    if why := skipped():
        print(f"PostgreSQL is not measured: {why}")


def measure(connections: int, requests: int) -> Iterator[tuple[str, Measured]]:
    """Both databases, one after the other; PostgreSQL only if there is no reason to skip it.

    Args:
        connections: How many logs submit at a time.
        requests: How many checkpoints of each, in each part.
    """
    with tempfile.TemporaryDirectory() as directory:
        yield "SQLite", _measure(Path(directory), f"sqlite:{directory}/w.db", connections, requests)
    if skipped():
        return
    with _postgres().cluster() as cluster, tempfile.TemporaryDirectory() as directory:
        yield "PostgreSQL", _measure(Path(directory), cluster.address, connections, requests)


def skipped() -> str:
    """Why PostgreSQL is not measured here; empty if it is."""
    why: str = _postgres().missing()
    return why


def figures_of(name: str, measured: Measured) -> list[Figure]:
    """What a witness is held to: 1,000 a second, and 50 ms at half of what it can."""
    rate, latency = f"witness with {name}, cosignatures", f"witness with {name}, p99 at half that rate"
    return [
        Figure(name=rate, value=measured.rate, unit="/s", at_least=1000),
        Figure(name=latency, value=measured.p99_ms, unit="ms", at_most=50),
    ]


def _postgres() -> ModuleType:
    """The tests' own PostgreSQL, a cluster in a temporary directory."""
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    return importlib.import_module("postgres")


def _measure(directory: Path, database: str, connections: int, requests: int) -> Measured:
    sizes = (f"--connections={connections}", f"--requests={requests}")
    with _server(directory, database) as url:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.witness", "--load", url, *sizes],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return Measured(**json.loads(done.stdout))


@contextmanager
def _server(directory: Path, database: str) -> Iterator[str]:
    (directory / "logs.txt").write_text(f"{_OWNER.verification_key}\n", encoding="utf-8")
    key = CosigningKey.generate("witness.bench.example")
    (directory / "w.key").write_text(key.encode(), encoding="utf-8")
    options = (f"--database={database}", f"--key={directory}/w.key", f"--logs={directory}/logs.txt")
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "witness", "serve", "--port=0", *options],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None  # noqa: S101 - it was asked for
    with process.stdout:
        try:
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the witness did not start; what it said is above")
            yield url
        finally:
            process.terminate()
            process.wait()


class _Connection(asyncio.Protocol):
    """One connection that is kept open, with one request under way at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = bytes(self._received).partition(b"\r\n\r\n")
        if not blank:
            return
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        )
        if len(body) >= length and self._answer and not self._answer.done():
            self._received.clear()
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("closed"))

    async def ask(self, request: bytes) -> int:
        """The status of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport:
            self._transport.write(request)
        return await self._answer


class _Load:
    def __init__(self, url: str, connections: int, requests: int) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._number = requests
        # The first part warms up, the second is measured as fast as it goes, the third at half that rate.
        self._logs = [self._prepare(log, requests // 5 + 2 * requests) for log in range(connections)]
        self._statuses: list[int] = []

    async def run(self) -> Measured:
        loop = asyncio.get_running_loop()
        made = [await loop.create_connection(_Connection, self._host, self._port) for _ in self._logs]
        connections = [connection for _, connection in made]
        warm = self._number // 5
        await asyncio.gather(*map(self._fast, connections, [log[:warm] for log in self._logs]))
        began = time.perf_counter()
        parts = [log[warm : warm + self._number] for log in self._logs]
        await asyncio.gather(*map(self._fast, connections, parts))
        rate = len(parts) * self._number / (time.perf_counter() - began)
        await asyncio.sleep(0.5)
        latencies = await self._at_rate(connections, rate / 2, warm + self._number)
        for transport, _ in made:
            transport.close()
        latencies.sort()
        return Measured(
            rate=rate,
            half_rate=rate / 2,
            p50_ms=1000 * latencies[len(latencies) // 2],
            p99_ms=1000 * latencies[99 * len(latencies) // 100],
            cosignatures=self._statuses.count(200),
            refused=len(self._statuses) - self._statuses.count(200),
        )

    async def _fast(self, connection: _Connection, requests: list[bytes]) -> None:
        for request in requests:
            self._statuses.append(await connection.ask(request))

    async def _at_rate(self, connections: list[_Connection], rate: float, first: int) -> list[float]:
        """Latencies in seconds, each from the moment at which its request was due."""
        latencies: list[float] = []
        began = time.perf_counter() + 0.1

        async def submit(place: int, connection: _Connection) -> None:
            for turn, request in enumerate(self._logs[place][first:]):
                due = began + (turn * len(connections) + place) / rate
                if (wait := due - time.perf_counter()) > 0:
                    await asyncio.sleep(wait)
                self._statuses.append(await connection.ask(request))
                latencies.append(time.perf_counter() - due)

        await asyncio.gather(*(submit(place, connection) for place, connection in enumerate(connections)))
        return latencies

    def _prepare(self, log: int, requests: int) -> list[bytes]:
        origin, tree = f"{_OWNER.name}/{log:032x}", Tree()
        made = []
        for old in range(requests):
            tree.append(leaf_hash(f"{log} {old}".encode()))
            checkpoint = Checkpoint(origin=origin, size=old + 1, root=tree.root())
            note = open_note(sign_note(checkpoint.text(), [_OWNER]), where="note")
            proof = tuple(tree.consistency_proof(old)) if old else ()
            body = Submission(old=old, proof=proof, note=note, checkpoint=checkpoint).encode()
            head = f"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: {len(body)}\r\n\r\n"
            made.append(head.encode() + body)
        return made


if __name__ == "__main__":
    main()
