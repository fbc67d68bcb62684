"""`trunkline call`, `trunkline do-not-call` and `trunkline campaign`: calls that a server places.

All of it goes over the HTTP API of a running server.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from app.cli.calls import Api, AsJson, Key, Server, asked_of, run_with
from app.cli.shared import DEFAULT_CONFIG, EXIT_FAILED, ConfigPath, echo, fail
from app.installation import command

if TYPE_CHECKING:
    from app.store.outbound import Contact

__all__ = ["call", "campaign_app", "do_not_call_app"]

LOOK_S: Final = 0.5
PART_BYTES: Final = 50_000
"""The API takes bodies of 64 KiB."""

do_not_call_app = typer.Typer(
    help="Numbers that are never called, and consents.", no_args_is_help=True
)
campaign_app = typer.Typer(help="Many people called, one after the other.", no_args_is_help=True)

Number = Annotated[str, typer.Argument(metavar="NUMBER", help="With + and country code.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `campaign list` shows it.")]
Agent = Annotated[str, typer.Option(help="The agent that talks, by name.")]
Purpose = Annotated[str, typer.Option(help="service, or marketing, which needs consent.")]


def _ask(
    config: Path, server: str | None, key: str | None, work: Callable[[Api], Awaitable[None]]
) -> None:
    run_with(asked_of(config, server, key), work, writes=True)


def call(  # noqa: PLR0913 - one parameter for each option of the command
    to: Number,
    agent: Agent,
    variables: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A variable.")
    ] = None,
    purpose: Purpose = "service",
    time_zone: Annotated[str | None, typer.Option(help="Where the callee is.")] = None,
    from_number: Annotated[str, typer.Option("--from", help="One of your numbers.")] = "",
    wait: Annotated[bool, typer.Option(help="Wait for the end of the call.")] = True,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Have somebody called, and tell what came of it."""
    body = {
        "to": to,
        "agent": agent,
        "variables": dict(_pair(text) for text in variables or ()),
        "purpose": purpose,
        "time_zone": time_zone,
        "from_number": from_number,
    }

    async def work(api: Api) -> None:
        headers = {"idempotency-key": secrets.token_hex(16)}
        placed = (await api.request("POST", "/calls", json=body, headers=headers)).json()
        if wait:
            placed = await _until_over(api, placed, quiet=as_json)
        if as_json:
            typer.echo(json.dumps(placed, indent=2))
        elif not wait:
            echo(f"call {placed['call_id']} is on its way")
        else:
            what = placed["outcome"].replace("_", " ")
            why = placed["reason"] or placed["code"].replace("_", " ").removeprefix(f"{what} ")
            echo(f"{what}: {why}" if why else what)
            echo(f"{command()} calls explain {placed['call_id']}")
        if wait and placed["outcome"] != "answered":
            raise typer.Exit(EXIT_FAILED)

    _ask(config, server, key, work)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        fail(f"--set {text}: write --set name=value")
    return name.strip(), value


async def _until_over(api: Api, placed: dict[str, Any], *, quiet: bool) -> dict[str, Any]:
    shown = ""
    while placed["outcome"] is None:
        if not quiet and placed["state"] != shown:
            shown = placed["state"]
            echo(shown)
        await asyncio.sleep(LOOK_S)
        placed = (await api.get(f"/placed_calls/{placed['call_id']}")).json()
    return placed


# The do-not-call list -----------------------------------------------------------------------------


@do_not_call_app.command("add")
def add(
    number: Number,
    reason: Annotated[str, typer.Option(help="Why, for your records.")] = "",
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
) -> None:
    """Never call a number again."""

    async def work(api: Api) -> None:
        await api.request("POST", "/do_not_call", json={"number": number, "reason": reason})
        echo(f"{number} is never called")

    _ask(config, server, key, work)


@do_not_call_app.command("remove")
def remove(
    number: Number, config: ConfigPath = DEFAULT_CONFIG, server: Server = None, key: Key = None
) -> None:
    """Take a number off the list; needs a key of an admin."""

    async def work(api: Api) -> None:
        gone = (await api.request("DELETE", f"/do_not_call/{number}")).json()["removed"]
        echo(f"{number} is off the list" if gone else f"{number} was not on the list")

    _ask(config, server, key, work)


@do_not_call_app.command("list")
def listed(config: ConfigPath = DEFAULT_CONFIG, server: Server = None, key: Key = None) -> None:
    """List the numbers that are never called."""

    async def work(api: Api) -> None:
        after = ""
        while True:
            params = {"after": after, "limit": 1_000}
            found = (await api.get("/do_not_call", params)).json()["numbers"]
            for one in found:
                echo(f"{one['number']}  {one['at']}  {one['source']}  {one['reason']}".rstrip())
            if not found:
                return
            after = found[-1]["number"]

    _ask(config, server, key, work)


@do_not_call_app.command("consent")
def consent(
    number: Number,
    source: Annotated[str, typer.Option(help="Where it was given.")] = "",
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="It holds no longer.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
) -> None:
    """Record that somebody agrees to marketing calls, or no longer does."""

    async def work(api: Api) -> None:
        if withdrawn:
            await api.request("DELETE", f"/consents/{number}")
        else:
            await api.request("POST", "/consents", json={"number": number, "reason": source})
        echo(f"{number}: consent {'withdrawn' if withdrawn else 'on record'}")

    _ask(config, server, key, work)


# Campaigns ----------------------------------------------------------------------------------------


@campaign_app.command("create")
def create(  # noqa: PLR0913 - one parameter for each option of the command
    name: Annotated[str, typer.Argument(help="A name for people.")],
    contacts: Annotated[Path, typer.Argument(help="A CSV file with a column number.")],
    agent: Agent,
    purpose: Purpose = "service",
    attempts: Annotated[int, typer.Option(help="At most so many for each contact.")] = 3,
    retry: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OUTCOME=SECONDS",
            help="The pause after busy, no_answer, voicemail, ...; or never.",
        ),
    ] = None,
    max_calls: Annotated[int, typer.Option(help="Calls at once.")] = 5,
    per_second: Annotated[float, typer.Option(help="Calls that begin in a second.")] = 1.0,
    hours: Annotated[str, typer.Option(help="Such as 10:00-18:00, where the callee is.")] = "",
    encoding: Annotated[
        str, typer.Option(help="Of the CSV, such as cp1252, where it is not Unicode.")
    ] = "",
    start: Annotated[bool, typer.Option("--start", help="Begin at once.")] = False,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
) -> None:
    """Make a campaign of a CSV file. It is paused until it is resumed."""
    from app.calls.outbound.contacts import render_csv

    people = _read_contacts(contacts, encoding)
    parts = [*render_csv(people, PART_BYTES)]
    body = {
        "name": name,
        "agent": agent,
        "purpose": purpose,
        "attempts": attempts,
        "retry_s": {outcome: _seconds(s) for outcome, s in map(_pair, retry or ())},
        "max_calls": max_calls,
        "calls_per_second": per_second,
        "hours": hours,
        "csv": parts[0],
    }

    async def work(api: Api) -> None:
        campaign = (await api.request("POST", "/campaigns", json=body)).json()
        campaign_id, added = campaign["campaign_id"], sum(campaign["contacts"].values())
        path = f"/campaigns/{campaign_id}"
        whole = False
        try:
            for part in parts[1:]:
                answer = await api.request("POST", f"{path}/contacts", json={"csv": part})
                added += answer.json()["added"]
            whole = True
        finally:
            if not whole:
                echo(f"{campaign_id} is paused with {added} of {len(people)} contacts", err=True)
        if start:
            await api.request("POST", f"{path}/resume")
        state = "begins" if start else f"is paused: {command()} campaign resume {campaign_id}"
        echo(f"{campaign_id}: {added} contacts; it {state}")

    _ask(config, server, key, work)


def _seconds(text: str) -> int | None:
    if text == "never":
        return None
    if not text.isascii() or not text.isdigit():
        fail(f"--retry: {text} is neither a number of seconds nor never")
    return int(text)


def _read_contacts(path: Path, encoding: str) -> Sequence[Contact]:
    """The contacts of a CSV file; the command fails with each line that has a fault."""
    from app.calls.outbound.contacts import decode_csv, read_contacts

    try:
        text = decode_csv(path.read_bytes(), encoding)
    except OSError as error:
        fail(f"{path}: cannot be read: {error.strerror}")
    except LookupError:
        fail(f"--encoding {encoding}: there is no such encoding")
    if not isinstance(text, str):
        fail(f"{path}:{text.line}: {text.text} (--encoding)")
    found = read_contacts(text, "", datetime.now(UTC))
    for note in (*found.repeated, *found.faults):
        echo(f"{path}:{note.line}: {note.text}", err=True)
    if found.faults:
        fail(f"{path}: no campaign is made of it; lines with a fault: {len(found.faults)}")
    if not found.contacts:
        fail(f"{path}: there are no contacts in it")
    return found.contacts


@campaign_app.command("list")
def campaigns(config: ConfigPath = DEFAULT_CONFIG, server: Server = None, key: Key = None) -> None:
    """List all campaigns."""

    async def work(api: Api) -> None:
        for one in (await api.get("/campaigns")).json()["campaigns"]:
            echo(_line(one))

    _ask(config, server, key, work)


@campaign_app.command("show")
def show(
    campaign_id: Id, config: ConfigPath = DEFAULT_CONFIG, server: Server = None, key: Key = None
) -> None:
    """Show a campaign and its contacts."""

    async def work(api: Api) -> None:
        path = f"/campaigns/{campaign_id}"
        echo(_line((await api.get(path)).json()))
        after = 0
        while True:
            params = {"after": after, "limit": 1_000}
            found = (await api.get(f"{path}/contacts", params)).json()["contacts"]
            for one in found:
                outcome = " ".join(dict.fromkeys((one["outcome"], one["reason"]))).strip() or "-"
                tries = f"{one['tries']} {'try' if one['tries'] == 1 else 'tries'}"
                line = f"{one['number']}  {one['state']}  {tries}  {outcome}  {one['call_id']}"
                echo(line.rstrip())
            if not found:
                return
            after = found[-1]["contact_id"]

    _ask(config, server, key, work)


def _line(campaign: dict[str, Any]) -> str:
    contacts = sorted(campaign["contacts"].items())
    states = ", ".join(f"{count} {name}" for name, count in contacts if "." not in name)
    outcomes = ", ".join(
        f"{count} {name.removeprefix('outcome.')}" for name, count in contacts if "." in name
    )
    reason = f" ({campaign['reason']})" if campaign["reason"] else ""
    return (
        f"{campaign['campaign_id']}  {campaign['name']}  {campaign['state']}{reason}  "
        f"{states or 'no contacts'}{outcomes and f'; last outcomes: {outcomes}'}"
    )


def _add_action(action: str, text: str) -> None:
    def act(
        campaign_id: Id,
        config: ConfigPath = DEFAULT_CONFIG,
        server: Server = None,
        key: Key = None,
    ) -> None:
        async def work(api: Api) -> None:
            answer = await api.request("POST", f"/campaigns/{campaign_id}/{action}")
            echo(_line(answer.json()))

        _ask(config, server, key, work)

    campaign_app.command(action, help=text)(act)


_add_action("pause", "Begin no more calls; those under way go on.")
_add_action("resume", "Begin, or go on.")
_add_action("cancel", "End it for good; calls under way go on.")
