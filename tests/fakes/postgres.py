"""A PostgreSQL server of the tests' own, on a free port, in a folder that goes with it.

The server refuses to run as root, so root runs it as Debian's user `postgres`. `.ci/run` installs
it; where it is not there, `cluster` skips the test that asked for it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.fakes.ports import free_port

__all__ = ["Cluster", "cluster"]

_PLACES: Final = ("/usr/lib/postgresql/*/bin", "/usr/local/bin", "/usr/bin")


@dataclass(frozen=True, slots=True)
class Cluster:
    """A server that runs."""

    port: int
    data: Path

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://tests@127.0.0.1:{self.port}/{database}"

    def freeze(self) -> None:
        """Stop all its processes where they are: they answer nothing, and close nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        head = int((self.data / "postmaster.pid").read_text().split()[0])
        for process in (head, *_children(head)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, number)


def _children(parent: int) -> list[int]:
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            facts = Path(path).read_text().rpartition(")")[2].split()
            if int(facts[1]) == parent:
                found.append(int(path.split("/")[2]))
    return found


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Run a server for as long as the block lasts."""
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="trunkline-postgres-"))
    as_user: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    found = Cluster(free_port(), folder / "data")

    def run(program: str, *options: str) -> None:
        command = [*as_user, str(programs / program), "-D", str(found.data), *options]
        with (folder / "out").open("wb") as out:  # a pipe would be held open by the server
            subprocess.run(command, check=True, cwd="/", stdout=out, stderr=out)

    settings = f"-p {found.port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    try:
        run("initdb", "-U", "tests", "-A", "trust", "-N", "-E", "UTF8", "--locale=C.UTF-8")
        run("pg_ctl", "-w", "-o", settings, "-l", str(folder / "log"), "start")
        try:
            yield found
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    for place in _PLACES:
        for folder in sorted(glob.glob(place), reverse=True):
            if (Path(folder) / "initdb").exists() and (Path(folder) / "pg_ctl").exists():
                return Path(folder)
    return None
