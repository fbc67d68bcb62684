"""`trunkline calls`: calls that are live or were kept, of a running server or of its database.

All of it goes over the HTTP API. Where no server answers, the same routes are asked in this
process, over the database, and only to read.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

import httpx2
import typer

from app.cli.shared import (
    DEFAULT_CONFIG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigPath,
    echo,
    fail,
    load_settings,
    own_url,
)
from app.credentials.api_keys import first_key_path
from app.errors import AppError
from app.events import SESSION_PREFIX
from app.http.routed import open_client
from app.installation import command
from app.settings import Settings
from app.store.base import LAST_EVENTS

if TYPE_CHECKING:
    from app.explain import Timeline

__all__ = ["Api", "AsJson", "Key", "Server", "asked_of", "calls_app", "run_with"]

calls_app = typer.Typer(help="Calls that are live or were kept.", no_args_is_help=True)

ANSWER_S: Final = 30.0
RECONNECT_S: Final = 2.0
_V1: Final = "/api/v1"

Server = Annotated[
    str | None,
    typer.Option("--server", envvar="TRUNKLINE_SERVER", help="A server. Default: this one."),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar="TRUNKLINE_API_KEY",
        help="A key of the server. Default: its first one, where that can be read.",
    ),
]
FromDatabase = Annotated[
    bool, typer.Option("--database", help="Read the database, and ask no server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
CallId = Annotated[str, typer.Argument(metavar="ID", help="As `calls list` shows it.")]


class _Refused(Exception):
    """The API has answered with an error."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Api:
    """The API of a server, or of a database."""

    client: httpx2.AsyncClient
    of_database: bool

    async def get(self, path: str, params: Mapping[str, Any] | None = None) -> httpx2.Response:
        return await self.request("GET", path, params=dict(params or {}))

    async def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Ask. Raises _Refused."""
        answer = await self.client.request(method, _V1 + path, **options)
        if answer.is_error:
            raise _refusal(answer)
        return answer


def _refusal(answer: httpx2.Response) -> _Refused:
    try:
        problem = answer.json()
        return _Refused(answer.status_code, str(problem["code"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError):
        text = f"HTTP {answer.status_code}: this is not a Trunkline server"
        return _Refused(answer.status_code, "", text)


# Asking -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """The place that a command asks, by its options."""

    settings: Settings | None
    url: str
    key: str | None
    of_database: bool | None
    """None: where no server answers."""


def asked_of(config: Path, server: str | None, key: str | None, *, database: bool = False) -> Asked:
    if server is not None and database:
        fail("--server and --database do not go together")
    if server is not None and key is not None:
        return Asked(None, server.rstrip("/"), key, of_database=False)
    settings = load_settings(config)
    if key is None and server is None:
        with contextlib.suppress(OSError):  # it belongs to another user, or was never made
            key = first_key_path(settings.state_dir).read_text(encoding="utf-8").strip()
        token = settings.server.operator_token
        key = key or (token.get_secret_value() if token is not None else None)
    url = (server or own_url(settings.server)).rstrip("/")
    return Asked(settings, url, key, of_database=database or (None if server is None else False))


def run_with(asked: Asked, work: Callable[[Api], Awaitable[None]], *, writes: bool = False) -> None:
    """Do something with the API; its errors end the command, in words."""

    async def run() -> None:
        async with _opened(asked, writes=writes) as api:
            await work(api)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except _Refused as refused:
        _fail_refused(refused, asked)
    except httpx2.HTTPError as error:
        fail(f"the server at {asked.url} does not answer: {error}", EXIT_FAILED)
    except AppError as error:
        fail(error.message, EXIT_FAILED)


def _fail_refused(refused: _Refused, asked: Asked) -> NoReturn:
    if refused.status == 401:
        what = "takes this key for none of its own" if asked.key else "wants a key"
        fail(
            f"the server at {asked.url} {what}: make one with `{command()} keys create`, "
            "and pass it with --key or TRUNKLINE_API_KEY",
            EXIT_FAILED,
        )
    fail(refused.detail, EXIT_FAILED)


@contextlib.asynccontextmanager
async def _opened(asked: Asked, *, writes: bool) -> AsyncIterator[Api]:
    if asked.of_database is not True:
        headers = {} if asked.key is None else {"authorization": f"Bearer {asked.key}"}
        client = open_client(base_url=asked.url, headers=headers, timeout=ANSWER_S)
        async with client:
            if asked.of_database is False or await _answers(client):
                yield Api(client, of_database=False)
                return
    if writes:
        fail(f"no server answers at {asked.url}: this needs a running one", EXIT_FAILED)
    assert asked.settings is not None
    if asked.of_database is None:
        note = f"no server answers at {asked.url}: this is read from the database"
        echo(note, err=True)
    from app.parts import stored_calls

    async with stored_calls(asked.settings) as app:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://127.0.0.1", timeout=ANSWER_S
        ) as client:
            yield Api(client, of_database=True)


async def _answers(client: httpx2.AsyncClient) -> bool:
    try:
        await client.get("/healthz")
    except httpx2.ConnectError:
        return False
    return True


# Commands -----------------------------------------------------------------------------------------


@calls_app.command("list")
def calls_list(  # noqa: PLR0913 - one parameter for each option of the command
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
    database: FromDatabase = False,
    as_json: AsJson = False,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many.")] = 50,
    since: Annotated[str | None, typer.Option(help="Not before, such as 2026-11-30.")] = None,
    until: Annotated[str | None, typer.Option(help="Before this time.")] = None,
    number: Annotated[str | None, typer.Option(help="From or to this number.")] = None,
    outcome: Annotated[
        list[str] | None, typer.Option(help="Such as answered or busy; may be repeated.")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Ended for this reason.")] = None,
    agent: Annotated[str | None, typer.Option(help="Answered by this agent.")] = None,
    tag: Annotated[str | None, typer.Option(help="With this tag.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="A tool or the model failed.")] = False,
    search: Annotated[str | None, typer.Option(help="Turns with these words instead.")] = None,
) -> None:
    """List calls, the newest first."""
    filters = {
        "since": since,
        "until": until,
        "number": number,
        "outcome": outcome,
        "reason": reason,
        "agent": agent,
        "tag": tag,
        "errors": "true" if errors else None,
        "limit": limit,
    }
    params = {name: value for name, value in filters.items() if value is not None}

    async def show(api: Api) -> None:
        if search is not None:
            found = (await api.get("/search", {"q": search, "limit": limit})).json()
        else:
            found = (await api.get("/calls", params)).json()
        if as_json:
            _print_json(found)
            return
        for line in _hit_lines(found) if search is not None else _call_lines(found):
            echo(line)

    run_with(asked_of(config, server, key, database=database), show)


@calls_app.command("show")
def calls_show(
    call_id: CallId,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
    database: FromDatabase = False,
    as_json: AsJson = False,
) -> None:
    """Show one call: its facts, and what was said."""

    async def show(api: Api) -> None:
        if as_json:
            _print_json((await api.get(f"/calls/{call_id}")).json())
            return
        row = (await api.get(f"/calls/{call_id}")).json()
        for name, value in row.items():
            if name == "notes" or not value:
                continue
            if isinstance(value, dict):  # what was paid for: one line each
                for part, amount in value.items():
                    echo(f"{name:<20} {amount:<10.6f} {part}")
            else:
                echo(f"{name:<20} {', '.join(value) if isinstance(value, list) else value}")
        for note in row["notes"]:
            echo(f"note                 {note['at']} {note['author']}: {note['text']}")
        text = (await api.get(f"/calls/{call_id}/export", {"format": "text"})).text
        echo("\n" + text.partition("\n\n")[2].rstrip("\n"))

    run_with(asked_of(config, server, key, database=database), show)


@calls_app.command("explain")
def calls_explain(
    call_id: CallId,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
    database: FromDatabase = False,
    as_json: AsJson = False,
) -> None:
    """Say in plain words what happened in a call; what went wrong first stands on top."""

    async def show(api: Api) -> None:
        path = f"/calls/{call_id}/explain"
        if as_json:
            _print_json((await api.get(path)).json())
        else:
            text = (await api.get(path, {"format": "text"})).text
            echo(text.rstrip("\n").replace("`trunkline ", f"`{command()} "))

    run_with(asked_of(config, server, key, database=database), show)


_EXPORTS: Final = {"json": "export", "text": "export", "wav": "recording"}


@calls_app.command("export")
def calls_export(
    call_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Default: all calls, as CSV.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
    database: FromDatabase = False,
    format: Annotated[str, typer.Option(help="json, text or wav.")] = "json",
    as_json: Annotated[bool, typer.Option("--json", help="All calls as JSON, not as CSV.")] = False,
    out: Annotated[Path | None, typer.Option(help="A file. Default: standard output.")] = None,
) -> None:
    """Export a call as JSON, text or WAV, or the rows of all calls as CSV."""
    if format not in _EXPORTS:
        fail("--format is json, text or wav")
    if as_json and format != "json":
        fail("--json and another --format do not go together")
    path = "/calls.csv" if call_id is None else f"/calls/{call_id}/{_EXPORTS[format]}"
    params = {"format": format} if path.endswith("/export") else {}

    async def export(api: Api) -> None:
        if call_id is None and as_json:
            content = json.dumps({"calls": await _all_calls(api)}, ensure_ascii=False).encode()
        else:
            content = (await api.get(path, params)).content
        if out is None:
            sys.stdout.buffer.write(content)
            sys.stdout.flush()
            return
        try:
            out.write_bytes(content)
        except OSError as error:
            fail(f"{out} cannot be written: {error.strerror}", EXIT_FAILED)
        echo(f"{out}: {len(content)} bytes")

    run_with(asked_of(config, server, key, database=database), export)


async def _all_calls(api: Api) -> list[Any]:
    found: list[Any] = []
    params: dict[str, Any] = {"limit": 500}
    while True:
        page = (await api.get("/calls", params)).json()
        found += page["calls"]
        if page["next"] is None:
            return found
        params["cursor"] = page["next"]


@calls_app.command("erase")
def calls_erase(
    call_id: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    number: Annotated[
        str | None, typer.Option(help="All calls from or to this number instead.")
    ] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Erase a call, or a number's calls, with recordings and messages. Needs an admin key."""
    if (call_id is None) == (number is None):
        fail("one of ID and --number is needed")
    what = f"call {call_id}" if call_id is not None else f"all calls from or to {number}"
    if not yes and not typer.confirm(f"Erase {what} for good?"):
        raise typer.Exit(EXIT_FAILED)

    async def erase(api: Api) -> None:
        if call_id is not None:
            answer = await api.request("DELETE", f"/calls/{call_id}")
        else:
            answer = await api.request("POST", "/erase", json={"number": number})
        found = answer.json()
        if as_json:
            _print_json(found)
            return
        echo(f"erased: {len(found['erased'])}")
        for live in found.get("still_live", ()):
            echo(f"note: {live} goes on; erase it when it is over")

    run_with(asked_of(config, server, key), erase, writes=True)


@calls_app.command("tail")
def calls_tail(
    call_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Only this call.")] = None,
    config: ConfigPath = DEFAULT_CONFIG,
    server: Server = None,
    key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Follow what happens in calls, until Ctrl-C; a break is bridged."""

    async def tail(api: Api) -> None:
        last_id: str | None = None
        told: dict[str, Timeline] = {}
        while True:
            try:
                async for event_id, event in _events(api, call_id, last_id):
                    last_id = event_id
                    if as_json:
                        typer.echo(json.dumps(event))
                        continue
                    for line in _event_lines(event, told):
                        echo(line)
            except httpx2.TransportError:
                echo("note: the server is gone; trying again", err=True)
            await asyncio.sleep(RECONNECT_S)

    run_with(asked_of(config, server, key), tail, writes=True)


async def _events(
    api: Api, call_id: str | None, last_id: str | None
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """The events of the live feed, each with its id, until the connection ends."""
    params = {} if call_id is None else {"call_id": call_id}
    headers = {} if last_id is None else {"last-event-id": last_id}
    async with api.client.stream(
        "GET", f"{_V1}/live", params=params, headers=headers, timeout=None
    ) as answer:
        if answer.is_error:
            await answer.aread()
            raise _refusal(answer)
        fields: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                yield (
                    fields.get("id", ""),
                    json.loads(fields["data"]) | {"type": fields.get("event", "")},
                )
                fields = {}


# Lines --------------------------------------------------------------------------------------------


def _call_lines(found: Mapping[str, Any]) -> list[str]:
    if not found["calls"]:
        return ["no calls"]
    lines = [_call_line(call) for call in found["calls"]]
    if any(line.endswith("!") for line in lines):
        lines.append(f"!  a tool or the model failed: `{command()} calls explain ID` says why")
    return [*lines, "there are more: raise --limit, or set --until"] if found["next"] else lines


def _call_line(call: Mapping[str, Any]) -> str:
    """One line of at most 80 characters."""
    began = datetime.fromisoformat(call["started_at"]).astimezone()
    result = call["reason"] if call["outcome"] == "answered" else call["outcome"]
    lasted = "" if call["duration_ms"] is None else _minutes(call["duration_ms"])
    number = call["caller_number"] or "withheld"
    if call["call_id"].startswith(SESSION_PREFIX):
        number = call["agent"][:12]  # the name of its key
    failed = "!" if call["tool_errors"] or call["voice_errors"] else ""
    return (
        f"{began:%m-%d %H:%M:%S} {call['call_id']} {number:<12} {result:<16} {lasted:>5} {failed}"
    ).rstrip()


def _hit_lines(found: Mapping[str, Any]) -> list[str]:
    if not found["hits"]:
        return ["no call holds these words"]
    return [f"{hit['call_id']} {hit['party']}: {hit['text']}" for hit in found["hits"]]


def _event_lines(event: dict[str, Any], told: dict[str, Timeline]) -> list[str]:
    """The lines of one event, as an explanation has them; `told` has what came before, by call."""
    from app.explain import Timeline
    from app.store.base import StoredEvent
    from app.store.codec import decode

    if event["type"] == "gap":
        return ["note: some events were missed"]
    at = datetime.fromisoformat(event.pop("at")).astimezone()
    kind, call_id, at_ms = event.pop("type"), event.pop("call_id"), event.pop("at_ms")
    record = StoredEvent(call_id=call_id, seq=1, at=at, type=kind, body=event, at_ms=at_ms)
    timeline = told.setdefault(call_id, Timeline())
    before = len(timeline.entries)
    timeline.take(decode(record))
    if kind in LAST_EVENTS:
        del told[call_id]
    new = timeline.entries[before:]
    return [f"{at:%H:%M:%S} {call_id[-10:]} {entry.text}" for entry in new]


def _minutes(ms: int) -> str:
    minutes, seconds = divmod(ms // 1000, 60)
    return f"{minutes}:{seconds:02}"


def _print_json(found: Any) -> None:
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
