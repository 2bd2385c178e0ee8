"""A real PostgreSQL for tests: a cluster of its own in a temporary directory, which a test may kill.

PostgreSQL refuses to run as root, so a test that is root runs it as another user.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

_USERS = ("postgres", "nobody")


def missing() -> str:
    """Why no cluster can be started here; empty if one can."""
    if _programs() is None:
        return "PostgreSQL is not installed: no initdb and postgres in PATH or /usr/lib/postgresql/*/bin"
    if os.getuid() == 0 and (_user() is None or not shutil.which("setpriv")):
        return "PostgreSQL does not run as root, and there is no setpriv or no user postgres or nobody"
    return ""


class Cluster:
    """A running server. Durable as a real one is: fsync and synchronous_commit are on."""

    def __init__(self, directory: Path) -> None:
        self._data = directory / "data"
        self._directory = directory
        self._port = _free_port()
        self._run("initdb", "--pgdata", str(self._data), "--username=witness", "--auth=trust", "--no-sync")
        self._server = self._start()

    @property
    def address(self) -> str:
        return f"postgresql://witness@127.0.0.1:{self._port}/postgres"

    def kill(self) -> None:
        """Kill -9 every process of the server, as a crash of the machine would, and start it again."""
        # Each process of the server leads a session of its own, so there is no group to kill.
        started = _children(self._server.pid)
        for process in (self._server.pid, *started):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self._server.wait()
        self._server = self._start()

    def stop(self) -> None:
        self._server.send_signal(signal.SIGINT)  # the fast way of stopping
        try:
            self._server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait()

    def set(self, setting: str) -> None:
        """Change a setting in the configuration, in force from the next start."""
        with psycopg.connect(self.address, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET {setting}")

    def _start(self) -> subprocess.Popen[bytes]:
        log = (self._directory / "log").open("ab")
        options = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "unix_socket_directories=",
            "-p",
            str(self._port),
        ]
        with log:
            server = subprocess.Popen(
                [*_as_user(), str(_program("postgres")), "-D", str(self._data), *options],
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError), psycopg.connect(self.address, connect_timeout=2):
                return server
            if server.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError((self._directory / "log").read_text())

    def _run(self, program: str, *arguments: str) -> None:
        command = [*_as_user(), str(_program(program)), *arguments]
        subprocess.run(command, cwd=self._directory, check=True, capture_output=True, timeout=120)


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster in a directory that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="gradseal-postgres-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        user = _user() if os.getuid() == 0 else None
        if user:
            os.chown(directory, user.pw_uid, user.pw_gid)
        running = Cluster(directory)
        try:
            yield running
        finally:
            running.stop()


def _programs() -> Path | None:
    """Where the programs are; in the one place both of them, so that they are of one version."""
    found = [Path(program).resolve().parent for program in (shutil.which("postgres"),) if program]
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((place for place in found if (place / "initdb").exists()), None)


def _program(name: str) -> Path:
    directory = _programs()
    assert directory is not None
    return directory / name


def _user() -> pwd.struct_passwd | None:
    for name in _USERS:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    return None


def _as_user() -> list[str]:
    user = _user() if os.getuid() == 0 else None
    if user is None:
        return []
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name before the state may hold anything, so count from its closing bracket.
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
