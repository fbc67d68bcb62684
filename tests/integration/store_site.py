"""Databases for tests of the history of calls, of each kind."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from app.store.sql.store import SqlStore
from tests.fakes.postgres import Cluster, cluster

__all__ = ["KINDS", "new_database", "opened", "postgres", "store"]

KINDS: Final = ("sqlite", "postgresql")
_numbers = itertools.count(1)
_made: Final[dict[Cluster, str]] = {}
"""The name of a database with empty tables, on each server."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL server; tests that want it are skipped where it is not installed."""
    with cluster() as found:
        yield found


@pytest.fixture(params=KINDS)
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStore]:
    """An empty store of each kind."""
    if request.param == "sqlite":
        place: Path | str = tmp_path / "state" / "calls.db"
    else:
        place = await _with_tables(request.getfixturevalue("postgres"))
    async with opened(place) as found:
        yield found


async def new_database(server: Cluster, like: str = "template0") -> str:
    """The URL of a database that holds nothing yet, or what another one of the server holds."""
    name = f"test_{next(_numbers)}"
    connection = await asyncpg.connect(server.url())
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {like}")
    finally:
        await connection.close()
    return server.url(name)


async def _with_tables(server: Cluster) -> str:
    """The URL of a new database with the tables that an empty one has got before."""
    if server not in _made:
        made = await new_database(server)
        async with opened(made):
            _made[server] = made.rpartition("/")[2]
    return await new_database(server, _made[server])


@contextlib.asynccontextmanager
async def opened(place: Path | str) -> AsyncIterator[SqlStore]:
    """A store with its tables."""
    found = SqlStore(place)
    try:
        await found.open()
        yield found
    finally:
        await asyncio.shield(found.close())
