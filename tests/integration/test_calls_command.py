"""`trunkline calls` against a running server, and against the database without one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from app.cli import app as command_line
from app.cli.calls import _call_line, _call_lines, _event_lines
from app.credentials.api_keys import Scope, first_key
from app.events import CallId, TurnTimed
from app.explain import Timeline
from app.store.codec import encode
from tests.fakes.call_events import filled
from tests.fakes.ports import free_port
from tests.fakes.waiting import until
from tests.integration.server import App
from tests.integration.test_api import new_key
from tests.integration.test_api_history import CALLER, WORDS, kept, one_call, stored
from tests.integration.test_command import start


async def run(app: App, *args: str, server: bool = True, key: str | None = None) -> Result:
    """Run `trunkline calls` beside the server."""
    folder = app.settings.origin.folder
    assert folder is not None
    options = ["--config", str(folder / "config.yaml")]
    if server:
        options += ["--server", app.url]
    if key is not None:
        options += ["--key", key]
    runner = CliRunner()
    return await asyncio.to_thread(lambda: runner.invoke(command_line, ["calls", *args, *options]))


def printed(result: Result) -> str:
    assert result.exit_code == 0, result.output
    assert max(map(len, result.output.splitlines()), default=0) <= 80
    return result.output


async def test_calls_are_listed_shown_explained_and_exported_by_a_server(
    tmp_path: Path,
) -> None:
    async with kept() as (app, admin), app.twilio():
        call_id, _ = await one_call(app)
        await stored(admin, call_id)
        key = new_key(app, Scope.VIEWER)
        line = printed(await run(app, "list", key=key))
        assert call_id in line
        assert CALLER in line
        assert "caller_hung_up" in line
        assert printed(await run(app, "list", "--outcome", "busy", key=key)) == "no calls\n"
        assert call_id in printed(await run(app, "list", "--search", "table", key=key))
        shown = printed(await run(app, "show", call_id, key=key))
        assert WORDS in shown
        text = printed(await run(app, "explain", call_id, key=key))
        assert "Nothing went wrong" in text
        assert "turn 1: the caller waited" in text
        for command in (["list"], ["show", call_id], ["explain", call_id]):
            found = json.loads((await run(app, *command, "--json", key=key)).stdout)
            assert call_id in json.dumps(found)
        out = tmp_path / "call.json"
        assert (
            str(out.name) in (await run(app, "export", call_id, "--out", str(out), key=key)).output
        )
        assert json.loads(out.read_text())["call_id"] == call_id
        rows = (await run(app, "export", key=key)).stdout
        assert rows.startswith("call_id,")
        every = json.loads((await run(app, "export", "--json", key=key)).stdout)
        assert [one["call_id"] for one in every["calls"]] == [call_id]
        assert call_id in rows
        missing = await run(app, "explain", "call_other", key=key)
        assert (missing.exit_code, missing.output.strip()) == (1, "There is no such call")
        small = await run(app, "erase", call_id, "--yes", key=key)
        assert (small.exit_code, "needs the scope admin" in small.output) == (1, True)
        asked = new_key(app, Scope.ADMIN)
        assert printed(await run(app, "erase", call_id, "--yes", key=asked)) == "erased: 1\n"
        assert printed(await run(app, "list", key=key)) == "no calls\n"


async def test_the_first_key_of_the_server_is_found_by_its_own_user() -> None:
    async with kept() as (app, _):
        folder = app.settings.origin.folder
        assert folder is not None
        config = json.loads((folder / "config.yaml").read_text())
        config["server"]["port"] = app.trunkline.server.port
        (folder / "config.yaml").write_text(json.dumps(config))
        wanted = await run(app, "list", server=False)  # by OPERATOR_TOKEN of the configuration
        assert printed(wanted) == "no calls\n"
        assert "database" not in wanted.output
        first_key(app.settings.state_dir)
        assert printed(await run(app, "list", server=False)) == "no calls\n"
        unknown = await run(app, "list", key="tk_nonsense")
        assert unknown.exit_code == 1
        assert "trunkline keys create" in unknown.output


async def test_without_a_server_the_database_is_read_and_nothing_is_changed() -> None:
    async with kept() as (app, admin), app.twilio():
        call_id, _ = await one_call(app)
        await stored(admin, call_id)
        folder = app.settings.origin.folder
        assert folder is not None
        config = json.loads((folder / "config.yaml").read_text())
        port = config["server"]["port"] = free_port()
        (folder / "config.yaml").write_text(json.dumps(config))
        listed = await run(app, "list", server=False)
        assert call_id in listed.stdout
        assert "this is read from the database" in listed.stderr
        text = printed(await run(app, "explain", call_id, "--database", server=False))
        assert "turn 1: the caller waited" in text
        found = json.loads((await run(app, "show", call_id, "--json", server=False)).stdout)
        assert found["call_id"] == call_id
        erased = await run(app, "erase", call_id, "--yes", server=False)
        assert (erased.exit_code, "needs a running one" in erased.output) == (1, True)
        tail = await run(app, "tail", server=False)
        assert tail.exit_code == 1
        away = await run(app, "list", "--server", f"http://127.0.0.1:{port}", server=False)
        assert (away.exit_code, "does not answer" in away.output) == (1, True)


@pytest.mark.parametrize(
    "args",
    [
        ("erase",),
        ("erase", "call_1", "--number", "+15005550006"),
        ("export", "call_1", "--format", "mp3"),
        ("export", "call_1", "--format", "wav", "--json"),
        ("list", "--server", "http://127.0.0.1:1", "--database"),
    ],
)
def test_options_that_do_not_go_together_are_refused(args: tuple[str, ...]) -> None:
    result = CliRunner().invoke(command_line, ["calls", *args])
    assert result.exit_code == 2
    assert "Traceback" not in result.output


def test_the_tail_counts_the_turns_of_each_call_apart() -> None:
    told: dict[str, Timeline] = {}
    at = datetime(2026, 11, 30, tzinfo=UTC)
    lines = []
    for call_id in ("call_1", "call_1", "call_2"):
        turn = replace(filled(TurnTimed), call_id=CallId(call_id))
        record = encode(turn, seq=1, at=at)
        event = {**record.body, "type": record.type, "at": str(at), "call_id": call_id}
        lines += _event_lines({**event, "at_ms": record.at_ms}, told)
    assert [line.split("turn ")[1][0] for line in lines] == ["1", "2", "1"]


async def test_the_tail_shows_what_happens(tmp_path: Path) -> None:
    async with kept() as (app, _), app.twilio():
        key = new_key(app, Scope.VIEWER)
        command = ("calls", "tail", "--server", app.url)
        program = await start(*command, folder=tmp_path, TRUNKLINE_API_KEY=key)
        try:
            state = app.trunkline.server.server_state
            await until(lambda: state.connections)
            call_id, _call = await one_call(app)
            assert program.stdout is not None
            lines: list[str] = []
            while not any("call ended" in line for line in lines):
                lines.append((await program.stdout.readline()).decode())
            assert all(call_id[-10:] in line for line in lines)
            assert any(WORDS in line for line in lines)
        finally:
            program.terminate()
            await program.wait()


@pytest.mark.parametrize(
    ("call_id", "number", "shown"),
    [
        ("call_01a2301e06c2d45554ce66", "+15005550006", "+15005550006"),
        ("call_01a2301e06c2d45554ce66", "", "withheld"),
        ("gws_01a2302845c2657d5e22d1", "", "my-app"),
    ],
)
def test_a_line_says_who_it_was(call_id: str, number: str, shown: str) -> None:
    call = {"call_id": call_id, "caller_number": number, "agent": "my-app", "duration_ms": 34_000,
            "outcome": "answered", "reason": "caller_hung_up",
            "started_at": "2026-12-01T05:40:03Z", "tool_errors": 0, "voice_errors": 0}  # fmt: skip
    assert shown in _call_line(call).split()


@pytest.mark.parametrize(("tools", "model"), [(0, 0), (1, 0), (0, 2)])
def test_a_line_marks_a_call_in_which_something_failed(tools: int, model: int) -> None:
    call = {"call_id": "call_01a2301e06c2d45554ce66", "caller_number": "+15005550006",
            "agent": "desk", "duration_ms": 4_000_000, "outcome": "answered",
            "reason": "operator_hung_up", "started_at": "2026-12-01T05:40:03Z",
            "tool_errors": tools, "voice_errors": model}  # fmt: skip
    lines = _call_lines({"calls": [call, call], "next": None})
    assert [line.endswith(" !") for line in lines[:2]] == [bool(tools or model)] * 2
    assert len(lines) == (3 if tools or model else 2)
    assert all(len(line) <= 80 for line in lines)
