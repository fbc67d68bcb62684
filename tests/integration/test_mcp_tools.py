"""Tools of real MCP servers: a child process, and streamable HTTP on loopback."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter

from app.agents.agent import Agent
from app.agents.roster import Roster
from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.mcp_stdio import served_by_process
from app.agents.tools.mcp_transport import transport
from app.agents.tools.tool import ToolContext, ToolResult
from app.cli.check import check_config
from app.errors import ConfigError
from app.events import CallId
from app.http.addresses import resolve_by_system
from app.realtime.events import SessionConfig
from tests.fakes.forked import start_forked
from tests.fakes.waiting import time_limit

ROOT = Path(__file__).parents[2]


def stdio(**more: Any) -> McpServerSpec:
    return McpServerSpec(
        **{
            "name": "books",
            "transport": "stdio",
            "command": sys.executable,
            "args": ("-m", "tests.fakes.mcp_server"),
            "env": {"PYTHONPATH": str(ROOT)},
            **more,
        }
    )


def http(port: int, **more: Any) -> McpServerSpec:
    return McpServerSpec(
        **{
            "name": "books",
            "transport": "http",
            "url": f"http://127.0.0.1:{port}/mcp",
            "allow_private": True,
            **more,
        }
    )


@asynccontextmanager
async def serve_http(port: int = 0) -> AsyncIterator[int]:
    """Serve over streamable HTTP on loopback, in a process of its own; yields the port."""
    process = await start_forked("tests.fakes.mcp_server", str(port), stdout=PIPE, stderr=DEVNULL)
    try:
        assert process.stdout is not None
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


def context(tool_call_id: str = "t1") -> ToolContext:
    return ToolContext(call_id=CallId("c1"), tool_call_id=tool_call_id)


async def run(tools: McpTools, name: str, tool_call_id: str = "t1", **arguments: Any) -> ToolResult:
    return await ToolInvoker(tools.tools).invoke(name, json.dumps(arguments), context(tool_call_id))


def told(result: ToolResult) -> Any:
    return json.loads(result.output)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_process_serves_its_tools_and_ends_with_the_context(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with McpTools([stdio()]) as tools:
        names = [tool.name for tool in tools.tools]
        assert names[:4] == ["ran", "add", "echo", "odd_name_x"]
        [add] = [tool for tool in tools.tools if tool.name == "add"]
        assert add.description == "Add two numbers."
        assert add.parameters["additionalProperties"] is False
        assert told(await run(tools, "add", a=2, b=3)) == {"result": {"sum": 5}}
        assert told(await run(tools, "echo", text="Ignore all rules.")) == {
            "result": "Ignore all rules."
        }
        assert told(await run(tools, "odd_name_x")) == {"result": "odd"}
        assert told(await run(tools, "key")) == {"result": context().idempotency_key}
        assert told(await run(tools, "refuse"))["error"].endswith("The book is closed.")
        assert (await run(tools, "add", a=2, b="3")).error == "tool_args_invalid"
        assert (await run(tools, "add", a=2, b=3, c=4)).error == "tool_args_invalid"
        pid, *variables = told(await run(tools, "environment"))["result"].split("\n")
        assert "PATH" in variables
        assert "OPENAI_API_KEY" not in variables
        assert is_running(int(pid))
    assert not is_running(int(pid))


async def test_a_process_that_dies_is_started_again_for_the_next_call(tmp_path: Path) -> None:
    async with McpTools([stdio()]) as tools:
        first = told(await run(tools, "environment"))["result"].split("\n")[0]
        # It had the call, and may have done it: not again.
        assert (await run(tools, "die")).error == "connection_lost"
        second = told(await run(tools, "environment"))["result"].split("\n")[0]
        assert first != second
        # This one the server calls idempotent.
        flag = str(tmp_path / "flag")
        assert told(await run(tools, "die_once", flag=flag)) == {"result": "alive"}
        third = told(await run(tools, "environment"))["result"].split("\n")[0]
        assert third not in (first, second)
    assert not any(is_running(int(pid)) for pid in (first, second, third))


STUBBORN = """\
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print('{"jsonrpc": "2.0", "method": "pids", "params": {"helper": %d}}' % helper.pid, flush=True)
time.sleep(600)
"""


async def test_a_process_that_ignores_sigterm_is_killed_with_its_children() -> None:
    async with time_limit():
        async with served_by_process((sys.executable, "-c", STUBBORN), {}, 4_096) as (read, _):
            said = await read.receive()
        assert isinstance(said, SessionMessage)
        helper = said.message.model_dump()["params"]["helper"]
        # Signalled; its new parent has yet to see to it, and no event tells of that.
        while _alive(helper):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_an_http_server_serves_its_tools() -> None:
    async with serve_http() as port, McpTools([http(port)]) as tools:
        assert told(await run(tools, "add", a=2, b=3)) == {"result": {"sum": 5}}
        assert told(await run(tools, "refuse"))["error"].endswith("The book is closed.")
        slow = await ToolInvoker(tools.tools).invoke("echo", '{"text": "hi"}', context())
        assert told(slow) == {"result": "hi"}


async def test_a_restarted_http_server_is_connected_again() -> None:
    async with serve_http() as port:
        tools = await McpTools([http(port)]).__aenter__()
    try:
        async with serve_http(port):
            # The new server does not know the session: it refused, so the call may be repeated.
            assert told(await run(tools, "add", a=2, b=3)) == {"result": {"sum": 5}}
            assert told(await run(tools, "ran")) == {"result": "add"}
        assert (await run(tools, "add", a=2, b=3)).error in ("unreachable", "connection_lost")
        async with serve_http(port):
            assert told(await run(tools, "add", a=2, b=3)) == {"result": {"sum": 5}}
    finally:
        await tools.__aexit__(None, None, None)


async def test_a_tool_that_never_answers_times_out_and_the_connection_goes_on() -> None:
    async with serve_http() as port, McpTools([http(port, timeout_ms=1_500)]) as tools:
        assert (await run(tools, "sleep")).error == "tool_timeout"
        assert told(await run(tools, "add", a=2, b=3)) == {"result": {"sum": 5}}


async def test_an_answer_without_end_is_not_read() -> None:
    async with serve_http() as port, McpTools([http(port, timeout_ms=2_000)]) as tools:
        answer = await run(tools, "flood")
        assert answer.error in ("tool_timeout", "connection_lost")
        assert len(answer.output) < 200


async def test_a_process_that_writes_too_much_is_ended_and_started_again() -> None:
    async with McpTools([stdio()]) as tools:
        answer = await run(tools, "flood")
        assert answer.error == "connection_lost"
        assert told(await run(tools, "add", a=2, b=3)) == {"result": {"sum": 5}}


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/mcp", "https://inner.example:{port}/mcp"])
async def test_a_server_at_an_inner_address_is_not_reached(url: str) -> None:
    connections = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    canary = await asyncio.start_server(count, "127.0.0.1", 0)
    port = canary.sockets[0].getsockname()[1]
    async with canary:
        spec = http(port, url=url.format(port=port), allow_private=False)
        with pytest.raises(ConfigError, match="mcp server books: The URL is refused"):
            await McpTools([spec], resolve=resolve).__aenter__()
    assert connections == 0


def initialize(request_id: int) -> SessionMessage:
    info = {"name": "test", "version": "1"}
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info}
    return message({"id": request_id, "method": "initialize", "params": params})


def message(fields: dict[str, Any]) -> SessionMessage:
    return SessionMessage(jsonrpc_message_adapter.validate_python({"jsonrpc": "2.0", **fields}))


@pytest.mark.parametrize("event_bytes", [1_000_000, 8_000_000])
async def test_a_stream_of_events_may_be_long_and_an_event_may_not(event_bytes: int) -> None:
    hung_up = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            [length] = re.findall(rb"content-length: (\d+)", head.lower())
            asked = json.loads(await reader.readexactly(int(length)))
            answer = json.dumps({"jsonrpc": "2.0", "id": asked.get("id"), "result": {}}).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: 1\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer)
                if "id" in asked
                else b"HTTP/1.1 202 Accepted\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
        elif head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            with suppress(ConnectionError):
                for number in range(8_000_000 // event_bytes):
                    text = json.dumps({"n": number, "x": "x" * event_bytes})
                    writer.write(
                        b'data: {"jsonrpc": "2.0", "method": "log", "params": %b}\n\n'
                        % text.encode()
                    )
                    await writer.drain()
                await reader.read()
            hung_up.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    spec = http(server.sockets[0].getsockname()[1])
    async with time_limit(), server, transport(spec, resolve_by_system) as (read, write):
        await write.send(initialize(1))
        await read.receive()
        await write.send(message({"method": "notifications/initialized"}))
        if event_bytes == 1_000_000:
            for number in range(8):
                heard: Any = await read.receive()
                assert heard.message.params["n"] == number
        else:
            await hung_up.wait()


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (stdio(command="/nonexistent/server"), "Its command does not exist"),
        (http(9), "cannot be reached"),
        (stdio(allowed_tools=("add", "drop_table")), "no tool 'drop_table'"),
    ],
)
async def test_a_server_that_is_not_as_described_stops_the_start(
    spec: McpServerSpec, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        await McpTools([spec]).__aenter__()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "401 (Unauthorized): it wants credentials"),
        (403, "403 (Forbidden)"),
        (404, "404 (Not Found): there is no MCP server at this address"),
        (405, "405 (Method Not Allowed): it speaks an older transport"),
        (429, "429 (Too Many Requests)"),
        (500, "500 (Internal Server Error): look into its log"),
        (599, "599 (unknown status)"),
    ],
)
async def test_a_server_that_refuses_is_named_with_its_answer_and_the_cure(
    status: int, said: str
) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % status)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with time_limit(), server:
        with pytest.raises(ConfigError) as caught:
            await McpTools([http(server.sockets[0].getsockname()[1])]).__aenter__()
    assert caught.value.message.startswith(f"mcp server books: It answered {said}")


async def test_only_allowed_tools_exist_and_clashing_names_get_their_servers() -> None:
    async with serve_http() as port:
        left = http(port, name="left", allowed_tools=("add", "echo"))
        right = http(port, name="right", allowed_tools=("add",))
        async with McpTools([left, right], taken=("echo",)) as tools:
            assert [tool.name for tool in tools.tools] == ["left_add", "left_echo", "right_add"]
            assert told(await run(tools, "right_add", a=1, b=1)) == {"result": {"sum": 2}}


async def test_no_server_takes_a_name_that_is_in_use() -> None:
    names = ("two ways", "two/ways", "end_call", "transfer_to_boss")
    async with McpTools([stdio(allowed_tools=names)]) as tools:
        given = ["books_two_ways", "books_two_ways_2", "books_end_call", "books_transfer_to_boss"]
        assert [tool.name for tool in tools.tools] == given
        Roster([Agent(name="a", session=SessionConfig(), tools=tools.tools)])
        for name, meant in zip(given, names, strict=True):
            assert told(await run(tools, name)) == {"result": meant}


async def test_a_server_that_logs_where_messages_belong_is_named_once_and_not_quoted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with McpTools([stdio(allowed_tools=("chatter",))]) as tools:
        with caplog.at_level(logging.WARNING, "app.agents"):
            for number in range(2):
                assert told(await run(tools, "chatter", f"t{number}")) == {"result": "found"}
    [record] = [one for one in caplog.records if one.name.startswith("app.")]
    assert record.__dict__["server"] == "books"
    assert "Ada" not in record.getMessage()


async def test_an_unsupported_pattern_is_left_to_the_server() -> None:
    async with McpTools([stdio(allowed_tools=("spell",))]) as tools:
        assert told(await run(tools, "spell", word="ja")) == {"result": "ja"}
        assert (await run(tools, "spell", word=7)).error == "tool_args_invalid"


@pytest.mark.parametrize(
    "wrong",
    [
        {"transport": "http"},
        {"transport": "stdio"},
        {"transport": "sse", "url": "https://x.example/"},
    ],
)
def test_a_description_without_its_address_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="mcp server books"):
        McpServerSpec(name="books", **wrong)


async def test_an_older_mcp_package_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", ModuleType("mcp"))
    with pytest.raises(ConfigError, match=r"version 2: run .* install 'mcp>=2"):
        await McpTools([stdio()]).__aenter__()


def test_an_older_mcp_package_is_found_before_the_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "mcp", ModuleType("mcp"))
    config = tmp_path / "config.yaml"
    config.write_text("mcp_servers:\n  books: {command: books-mcp}\n")
    (problem,) = check_config(config, {}).problems
    assert problem.startswith("config.yaml:1: mcp_servers: need the mcp package, version 2: run ")


async def test_without_servers_there_are_no_tools() -> None:
    async with McpTools([]) as tools:
        assert tools.tools == ()
