"""`trunkline db`: the database of the history of calls. Works with or without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from app.cli.shared import DEFAULT_CONFIG, EXIT_FAILED, ConfigPath, echo, fail, load_settings
from app.errors import AppError, ConfigError
from app.installation import command

if TYPE_CHECKING:
    from pathlib import Path

    from app.store.base import CallStore
    from app.store.history import CallHistory

__all__ = ["db_app", "with_store"]

db_app = typer.Typer(help="The database of the history of calls.", no_args_is_help=True)

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def with_store(config: Path, work: Callable[[CallStore], Awaitable[T]]) -> T:
    """Do something with the store that a configuration names; its errors end the command."""
    return _with_history(config, lambda history: work(history.store))


def _with_history(config: Path, work: Callable[[CallHistory], Awaitable[T]]) -> T:
    from app.parts import call_history

    async def run() -> T:
        history = call_history(load_settings(config))
        if history is None:
            fail("no history is kept: store is off")
        try:
            return await work(history)
        finally:
            await history.store.close()

    try:
        return asyncio.run(run())
    except ConfigError as error:
        fail(error.message)
    except AppError as error:
        fail(error.message, EXIT_FAILED)


@db_app.command("upgrade")
def upgrade(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Make the tables, or bring them up to date, as a server does at its start."""
    with_store(config, lambda store: store.open())
    echo("the tables are up to date")


@db_app.command("rebuild")
def rebuild(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Make the rows of calls and the full-text search anew, of the events."""

    async def made_anew(store: CallStore) -> int:
        await store.open()
        return await store.rebuild()

    echo(f"calls made anew: {with_store(config, made_anew)}")


@db_app.command("clean")
def clean(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Remove what is older than store.retention allows, as a server does once a day."""

    async def cleaned(history: CallHistory) -> Mapping[str, int]:
        await history.store.open()
        return await history.clean()

    removed = _with_history(config, cleaned)
    echo(
        f"removed: calls: {removed['calls']}; words: of {removed['words']} events; "
        f"files: {removed['files']}"
    )


@db_app.command("status")
def status(config: ConfigPath = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Show where the history is, how much it holds, and whether its tables are up to date."""
    found = with_store(config, lambda store: store.status())
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    lacks = ", ".join(found.missing_revisions)
    size = "" if found.bytes is None else f", {found.bytes / 1e6:.1f} MB"
    echo(f"{found.kind}: {found.place}{size}")
    echo(f"calls: {found.calls}, of which go on: {found.open_calls}; events: {found.events}")
    echo(f"tables: lack {lacks}: {command()} db upgrade" if lacks else "tables: up to date")
