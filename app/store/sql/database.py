"""Connections to the database: their settings, their errors, and the revisions of the tables.

Nothing here knows a table. Errors of the driver become `StoreUnavailable` where trying again may
help, and `StoreError` where it cannot.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import URL, Connection, Engine, Table, create_engine, event, make_url, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.errors import ConfigError, StoreError, StoreUnavailable, ToolFailed
from app.installation import install_command
from app.threads import Slots, in_thread

__all__ = ["Database"]

T = TypeVar("T")

BUSY_MS: Final = 1_500
"""The wait for another writer of the SQLite file; longer than any batch of ours takes."""
QUEUE_S: Final = 10.0
"""The wait for other writers of this process."""
CONNECT_S: Final = 3.0
STATEMENT_S: Final = 60.0
_UPGRADE_LOCK: Final = 0x7472756E6B
_OWN_FAULTS: Final = (IntegrityError, DataError, ProgrammingError)
# The driver of PostgreSQL has no DataError: it tells by SQLSTATE what no retry makes acceptable.
_REFUSED_CLASSES: Final = ("22", "54")  # data exceptions; limits of the program, such as an index's
_CURABLE: Final = ("42P01", "42501")  # undefined_table: not upgraded yet; insufficient_privilege


class Database:
    """A SQLite file or a PostgreSQL database."""

    def __init__(self, place: Path | str) -> None:
        """`place`: the path of a SQLite file, or postgresql://USER:PASSWORD@HOST/NAME.

        Raises:
            ConfigError: the URL is another one, or the driver is not installed.
        """
        self._url = _url(place)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _engine(self._url)
        # SQLite has writers ask again and again, so that one may starve: those of a process queue.
        self._queue = asyncio.Lock() if self.is_sqlite else None
        self._writer = _sqlite_writer(self._url) if self.path else None
        self._one_write = Slots(1)
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", _set_up_sqlite)
            event.listen(self._engine.sync_engine, "begin", _begin_sqlite)

    @property
    def kind(self) -> str:
        return self._url.get_backend_name()

    @property
    def place(self) -> str:
        """The file or server, without a password."""
        return self.path or self._url.render_as_string(hide_password=True)

    @property
    def path(self) -> str:
        """The SQLite file; empty for a server, or for a database in memory."""
        name = self._url.database or ""
        return name if self.is_sqlite and name != ":memory:" else ""

    def size_bytes(self) -> int | None:
        """The size of the SQLite file and its write-ahead log; None where there is neither."""
        if not self.path:
            return None
        found: list[int] = []
        for path in (self.path, f"{self.path}-wal"):
            with contextlib.suppress(OSError):
                found.append(Path(path).stat().st_size)
        return sum(found) if found else None

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reads that see one state.

        Raises:
            StoreUnavailable: the database does not answer.
            StoreError: it refuses.
        """
        if self.path and self.size_bytes() is None:  # reading would make an empty one
            text = f"{self.path}: there is no history of calls yet"
            raise StoreUnavailable(text, code="store_not_made")
        with _errors():
            async with self._engine.begin() as connection:
                yield connection

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncIterator[AsyncConnection]:
        """A transaction; the rest as for `reading`."""
        with _errors():
            async with self._turn(), self._engine.connect() as connection:
                await connection.execution_options(writes=True)
                async with connection.begin():
                    yield connection

    async def write(self, work: Callable[[Connection], T]) -> T:
        """Run a whole transaction as one function; the rest as for `reading`.

        In SQLite it runs in a thread: a batch of events costs half of what it does when each of
        its statements goes to the driver's thread and back. The transaction goes on when the wait
        for it is given up, so what it does must bear to be done again.
        """
        if self._writer is None:
            async with self.writing() as connection:
                return await connection.run_sync(work)
        try:
            with _errors():
                async with self._turn():
                    write = partial(_write, self._writer, work)
                    return await in_thread(write, self._one_write.here, name="trunkline-history")
        except ToolFailed:
            raise StoreUnavailable("the system has no thread to spare") from None

    def insert(self, table: Table) -> Any:  # of either dialect: both have ON CONFLICT
        """An INSERT that knows ON CONFLICT."""
        return (sqlite if self.is_sqlite else postgresql).insert(table)

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._queue is None:
            yield
            return
        async with asyncio.timeout(QUEUE_S):
            await self._queue.acquire()
        try:
            yield
        finally:
            self._queue.release()

    @contextlib.asynccontextmanager
    async def maintaining(self) -> AsyncIterator[AsyncConnection]:
        """A connection outside of transactions, for VACUUM and checkpoints."""
        with _errors():
            async with self._engine.connect() as connection:
                yield await connection.execution_options(isolation_level="AUTOCOMMIT")

    async def upgrade(self, to: str = "heads") -> None:
        """Make the tables, or bring them up to date; of several processes at once, one does.

        `to` is a revision, for tests of what follows it.

        Raises:
            StoreUnavailable: the database does not answer, or its file cannot be made.
            StoreError: a newer version of Trunkline has made the tables (`store_newer`).
        """
        if self.path:
            _make_private(Path(self.path))
        async with self.writing() as connection:
            if not self.is_sqlite:  # SQLite's transaction has the whole file
                lock = text("SELECT pg_advisory_xact_lock(:key)")
                await connection.execute(lock, {"key": _UPGRADE_LOCK})
            try:
                await connection.run_sync(_upgrade, to)
            except CommandError as error:
                raise StoreError(
                    f"{self.place}: was made by a newer version of Trunkline", code="store_newer"
                ) from error

    async def revisions(self) -> tuple[Sequence[str], Sequence[str]]:
        """The revisions that the tables have, and those that they lack."""
        async with self.reading() as connection:
            has = await connection.run_sync(_heads_there)
        wanted = _scripts().get_heads()
        return sorted(has), sorted(set(wanted) - set(has))

    async def close(self) -> None:
        """Close the connections."""
        await self._engine.dispose()
        if self._writer is not None:
            self._writer.dispose()


def _url(written: Path | str) -> URL:
    if isinstance(written, Path):
        return URL.create("sqlite+aiosqlite", database=str(written))
    try:
        url = make_url(written)
    except ArgumentError:
        raise ConfigError(
            "store.url is not a database URL such as postgresql://user@host/name"
        ) from None
    match url.get_backend_name():
        case "sqlite":
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres":
            return url.set(drivername="postgresql+asyncpg")
        case other:
            raise ConfigError(
                f"store.url: {other} is not a database for it: use postgresql or sqlite"
            )


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        arguments: dict[str, Any] = {"timeout": BUSY_MS / 1000}
        return create_async_engine(url, connect_args=arguments, hide_parameters=True)
    try:
        return create_async_engine(
            url,
            connect_args={"timeout": CONNECT_S, "command_timeout": STATEMENT_S},
            pool_size=5,
            max_overflow=5,
            pool_timeout=CONNECT_S,
            pool_pre_ping=True,
            hide_parameters=True,  # numbers and speech, which no log may have
        )
    except ModuleNotFoundError:
        raise ConfigError(
            f"store.url is PostgreSQL, whose driver is missing: {install_command('postgres')}"
        ) from None


def _sqlite_writer(url: URL) -> Engine:
    arguments: dict[str, Any] = {"timeout": BUSY_MS / 1000}
    engine = create_engine(
        url.set(drivername="sqlite"), connect_args=arguments, hide_parameters=True
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine.execution_options(writes=True)


def _write(engine: Engine, work: Callable[[Connection], T]) -> T:
    with _errors(), engine.begin() as connection:
        return work(connection)


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, and not before a SELECT.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode = WAL")
    # Survives the death of the process; power loss may cost the last commits, and no more.
    cursor.execute("PRAGMA synchronous = NORMAL")
    # Erased rows leave no copy in pages that are free.
    cursor.execute("PRAGMA secure_delete = ON")
    cursor.execute("PRAGMA temp_store = MEMORY")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads first and writes later fails at once when another has written.
    writes = connection.get_execution_options().get("writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        if _is_refusal(error):
            raise StoreError(_short(error)) from error
        raise StoreUnavailable(_short(error)) from error
    # What a driver cannot pass on is none of its own errors: a number too large, half a character.
    except (StatementError, OverflowError, UnicodeEncodeError) as error:
        cause = getattr(error, "orig", None) or error
        text = f"the database cannot take a value: {type(cause).__name__}"
        raise StoreError(text) from error
    except TimeoutError as error:
        raise StoreUnavailable("the database does not answer in time") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreUnavailable(f"the database does not answer: {reason}") from error


def _is_refusal(error: DBAPIError) -> bool:
    """True where the statement or its values are at fault, so that trying again cannot help."""
    state = getattr(error.orig, "sqlstate", None) or ""
    if error.connection_invalidated or state in _CURABLE:
        return False
    return isinstance(error, _OWN_FAULTS) or state.startswith(_REFUSED_CLASSES)


def _short(error: DBAPIError) -> str:
    """The error's own words. The statement and its values are left out: values are personal."""
    if _is_refusal(error):  # PostgreSQL and its driver repeat the values that they refused
        name = type(error.orig).__name__
        state = getattr(error.orig, "sqlstate", None)
        return f"the database refuses: {name}" + (f" ({state})" if state else "")
    lines = str(error.orig).splitlines() or [""]
    return f"the database refuses: {lines[0][:200]}{_CURES.get(lines[0], '')}"


_DAMAGED: Final = "; restore a copy, or move the file away: a new one is made"
_CURES: Final = {
    "file is not a database": _DAMAGED,
    "database disk image is malformed": _DAMAGED,
    "database or disk is full": "; free the disk",
}


# Files --------------------------------------------------------------------------------------------


def _make_private(path: Path) -> None:
    """Create the file with its rights: one that is made private later was readable until then."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StoreUnavailable(f"{path}: cannot be written: {error.strerror}") from error


# Revisions ----------------------------------------------------------------------------------------


def _config() -> Config:
    config = Config()
    folder = str(Path(__file__).parent)
    config.set_main_option("script_location", folder.replace("%", "%%"))
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _upgrade(connection: Connection, to: str) -> None:
    scripts = _scripts()
    # Without an env.py: it would be run as a script, and there is nothing to configure by hand.
    with EnvironmentContext(
        _config(),
        scripts,
        fn=lambda has, _context: scripts._upgrade_revs(to, has),
        destination_rev=to,
    ) as environment:
        environment.configure(connection=connection, transaction_per_migration=False)
        environment.run_migrations()


def _heads_there(connection: Connection) -> Sequence[str]:
    return MigrationContext.configure(connection).get_current_heads()
