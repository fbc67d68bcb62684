"""MCP servers that fail or are odd, as real processes and real HTTP servers on loopback.

Each is told in one sentence: the server, the cause in words, the cure; and never a traceback.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.tool import ToolContext
from app.errors import ConfigError
from app.events import CallId
from tests.fakes.waiting import time_limit

OK: Final[dict[str, Any]] = {
    "initialize": {
        "result": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "test", "version": "1"},
        }
    },
    "tools/list": {"result": {"tools": [{"name": "look", "inputSchema": {"type": "object"}}]}},
    "tools/call": {"result": {"content": [{"type": "text", "text": "found"}]}},
}

# Answers by method, as its argument says; "die" ends it with words on stderr.
SERVER: Final = """
import json, os, sys
answers = json.loads(sys.argv[1])
for line in sys.stdin:
    asked = json.loads(line)
    answer = answers.get(asked["method"])
    if answer == "die":
        sys.stderr.write("Traceback (most recent call last):\\nKeyError: 'token \\x1b[31m'\\n\\n")
        sys.stderr.flush()
        os._exit(1)
    if answer and "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], **answer}), flush=True)
"""


def process(*args: str, **more: Any) -> McpServerSpec:
    return McpServerSpec(name="books", transport="stdio", command=sys.executable, args=args, **more)


def answering(**answers: Any) -> McpServerSpec:
    """A process that answers these methods otherwise; `_` stands for `/` in their names."""
    changed = {name.replace("_", "/"): answer for name, answer in answers.items()}
    return process("-c", SERVER, json.dumps(OK | changed))


def tools(*listed: Any) -> dict[str, Any]:
    return {"result": {"tools": [*listed]}}


async def cause(spec: McpServerSpec) -> str:
    """The sentence with which the start fails."""
    async with time_limit():
        with pytest.raises(ConfigError) as caught:
            await McpTools([spec]).__aenter__()
    text = caught.value.message
    assert text.startswith("mcp server books: ")
    assert "\n" not in text and "\x1b" not in text and "pydantic" not in text
    return text.removeprefix("mcp server books: ")


def initialized(**changes: Any) -> dict[str, Any]:
    return {"result": OK["initialize"]["result"] | changes}


HOUR: Final = "import sys, time; sys.stderr.write('Ok to proceed? (y)'); sys.stderr.flush()"
NO_MODULE: Final = "It wrote last: ModuleNotFoundError: No module named 'nowhere'"
NO_TOOLS: Final = "It has no tools, and callers have no use for anything else"
LOOKS: Final = "and wrote nothing: run its command in a terminal to see why."

PROCESSES: Final = {
    "no program": (
        McpServerSpec(name="books", transport="stdio", command="/nonexistent/server"),
        "Its command does not exist, or may not be run.",
    ),
    "a crash at import": (
        process("-c", "import nowhere"),
        f"Its process ended with exit code 1. {NO_MODULE}",
    ),
    "an end without a word": (process("-c", ""), f"Its process ended with exit code 0 {LOOKS}"),
    "a signal": (
        process("-c", "import os; os.kill(os.getpid(), 9)"),
        f"Its process was ended by SIGKILL {LOOKS}",
    ),
    "much on stderr": (
        process("-c", "import sys; sys.stderr.write('x' * 2**20 + '\\nlast\\n'); sys.exit(7)"),
        "Its process ended with exit code 7. It wrote last: last",
    ),
    "a question on stderr": (
        process("-c", f"{HOUR}; time.sleep(3600)", connect_timeout_ms=2_000),
        "It does not answer within 2 s. It wrote last: Ok to proceed? (y)",
    ),
    "stdout closed": (
        process("-c", "import os, time; os.close(1); time.sleep(3600)", connect_timeout_ms=3_000),
        "The server cannot be reached.",
    ),
    "another version": (
        answering(initialize=initialized(protocolVersion="1999-01-01")),
        "It speaks version 1999-01-01 of MCP, and not one of ",
    ),
    "an answer without its parts": (
        answering(initialize={"result": {"protocolVersion": "2025-11-25"}}),
        "Its answer is malformed at ",
    ),
    "a refusal": (
        answering(initialize={"error": {"code": -32000, "message": "no licence\n  here"}}),
        "It answers with an error: no licence here",
    ),
    "no tools at all": (
        answering(tools_list={"error": {"code": -32601, "message": "Method not found"}}),
        NO_TOOLS,
    ),
    "an empty list": (answering(tools_list=tools()), NO_TOOLS),
    "null for a list": (answering(tools_list={"result": {"tools": None}}), NO_TOOLS),
    "an error from the list": (
        answering(tools_list={"error": {"code": -32603, "message": "database is locked"}}),
        "It answers with an error: database is locked",
    ),
    "a list that is none": (
        answering(tools_list={"result": {"tools": {"look": {}}}}),
        "Its answer is malformed at tools",
    ),
    "a result without a list": (
        answering(tools_list={"result": {}}),
        "Its answer is malformed at tools",
    ),
    "a death while it lists": (
        answering(tools_list="die"),
        "Its process ended with exit code 1. It wrote last: KeyError: 'token [31m'",
    ),
}


@pytest.mark.parametrize(("spec", "expected"), PROCESSES.values(), ids=PROCESSES)
async def test_a_process_that_cannot_serve_is_told_in_a_sentence(
    spec: McpServerSpec, expected: str
) -> None:
    assert (await cause(spec)).startswith(expected)


NULLS: Final = {
    "look": {"name": "look", "inputSchema": {"type": "object"}},
    **{
        f"{key} null": {"name": "look", "inputSchema": {"type": "object"}, key: None}
        for key in ("description", "title", "annotations", "outputSchema", "icons", "_meta")
    },
    "inputSchema null": {"name": "look", "inputSchema": None},
    "inputSchema absent": {"name": "look"},
    "inputSchema empty": {"name": "look", "inputSchema": {}},
    "inputSchema without a type": {"name": "look", "inputSchema": {"anyOf": [{"type": "object"}]}},
}


@pytest.mark.parametrize("listed", NULLS.values(), ids=NULLS)
async def test_a_tool_with_nulls_works(listed: dict[str, Any]) -> None:
    spec = answering(tools_list=tools(None, listed, {"name": None}, {}))
    async with time_limit(), McpTools([spec]) as served:
        assert [tool.name for tool in served.tools] == ["look"]
        context = ToolContext(call_id=CallId("c1"), tool_call_id="t1")
        result = await ToolInvoker(served.tools).invoke("look", "{}", context)
        assert json.loads(result.output) == {"result": "found"}


@pytest.mark.parametrize(
    ("unreadable", "name"),
    [
        ({"name": "bad", "inputSchema": {"type": "object", "required": 7}}, "bad"),
        ({"name": "bad", "inputSchema": {"type": "object", "properties": {"a": 7}}}, "bad"),
        ({"name": "bad", "inputSchema": "none"}, "bad"),
        (
            {"name": "bad", "inputSchema": {"type": "object", "properties": {"a": {"type": "x"}}}},
            "bad",
        ),
        ({"name": "bad", "annotations": "destructive"}, "bad"),
        ({"name": 7}, "7"),
        ({"description": "nameless"}, ""),
        ("look", ""),
        (None, ""),
    ],
)
async def test_a_tool_that_cannot_be_read_is_left_out_by_name(
    unreadable: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spec = answering(tools_list=tools(unreadable, OK["tools/list"]["result"]["tools"][0]))
    async with time_limit(), McpTools([spec]) as served:
        assert [tool.name for tool in served.tools] == ["look"]
    (left,) = [one.__dict__ for one in caplog.records if one.message == "mcp tool left out"]
    assert (left["server"], left["tool"]) == ("books", name)
    assert left["reason"]


async def test_an_error_of_a_tool_with_the_code_of_a_lost_connection_loses_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = answering(tools_call={"error": {"code": -32000, "message": "out of stock"}})
    async with time_limit(), McpTools([spec]) as served:
        context = ToolContext(call_id=CallId("c1"), tool_call_id="t1")
        result = await ToolInvoker(served.tools).invoke("look", "{}", context)
    assert json.loads(result.output)["error"] == "The server refused: out of stock"
    assert "mcp connection lost" not in [one.message for one in caplog.records]


async def test_what_a_process_writes_to_stderr_reaches_no_log_and_no_model(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with time_limit(), McpTools([answering(tools_call="die")]) as served:
        context = ToolContext(call_id=CallId("c1"), tool_call_id="t1")
        result = await ToolInvoker(served.tools).invoke("look", "{}", context)
    assert result.error == "connection_lost"
    assert "KeyError" not in result.output
    assert "KeyError" not in "".join(str(one.__dict__) for one in caplog.records)


# HTTP ---------------------------------------------------------------------------------------------

JSON: Final = "application/json"


@asynccontextmanager
async def serving(status: str, kind: str, body: str) -> AsyncIterator[McpServerSpec]:
    """Answers every request with these."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if length := re.findall(rb"(?i)content-length: (\d+)", head):
            await reader.readexactly(int(length[0]))
        type_line = f"Content-Type: {kind}\r\n" if kind else ""
        writer.write(
            f"HTTP/1.1 {status}\r\n{type_line}Location: /elsewhere\r\nConnection: close\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
    async with server:
        yield McpServerSpec(
            name="books", transport="http", url=url, allow_private=True, connect_timeout_ms=3_000
        )


NO_MESSAGE: Final = "What it answers is not MCP (JSON-RPC): check its url"
PAGES: Final = {
    "a web page": ("200 OK", "text/html; charset=utf-8", "<p>Hello</p>", NO_MESSAGE),
    "a page that says it is json": ("200 OK", JSON, "<p>Hello</p>", NO_MESSAGE),
    "json of another kind": ("200 OK", JSON, '{"status": "ok"}', NO_MESSAGE),
    "a list": ("200 OK", JSON, "[]", NO_MESSAGE),
    "nothing": ("200 OK", "", "", NO_MESSAGE),
    "an empty json": ("200 OK", JSON, "", NO_MESSAGE),
    "no content": ("204 No Content", "", "", NO_MESSAGE),
    "taken without a word": ("202 Accepted", "", "", NO_MESSAGE),
    "an error": (
        "200 OK",
        JSON,
        '{"jsonrpc": "2.0", "id": 1, "error": {"code": -32600, "message": "no"}}',
        "It answers with an error: no",
    ),
    "elsewhere": ("307 Temporary Redirect", "", "", "It answered 307, which points elsewhere"),
    "events of another kind": ("200 OK", "text/event-stream", "data: x\n\n", ""),
}


@pytest.mark.parametrize(("status", "kind", "body", "expected"), PAGES.values(), ids=PAGES)
async def test_an_address_that_serves_something_else_is_told_in_a_sentence(
    status: str, kind: str, body: str, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("mcp").setLevel(logging.CRITICAL)  # as in a server's log
    async with serving(status, kind, body) as spec:
        told = await cause(spec)
    assert told.startswith(expected)
    assert len(told) > 20
    assert not [one for one in caplog.records if one.exc_info]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:9/mcp", "It cannot be reached (connection refused): check its url"),
        ("https://127.0.0.1:{port}/mcp", "It cannot be reached"),
    ],
)
async def test_an_address_where_nobody_answers_is_told_in_a_sentence(
    url: str, expected: str
) -> None:
    async with serving("200 OK", JSON, "") as there:
        port = there.url.split(":")[2].partition("/")[0]
        spec = McpServerSpec(
            name="books", transport="http", url=url.format(port=port), allow_private=True
        )
        assert (await cause(spec)).startswith(expected)
