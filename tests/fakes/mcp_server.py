"""A real MCP server for tests: `python -m tests.fakes.mcp_server [port]`, without one on stdio."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Annotated, Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations
from pydantic import Field

__all__ = ["main", "make_server"]


def make_server(stdout: int = 1) -> MCPServer:
    """`stdout` is where messages go: the package lets no `print` in between, others do."""
    server = MCPServer("test server", log_level="ERROR")
    calls: list[str] = []

    @server.tool(structured_output=False)
    def ran() -> str:
        """Name the tools that ran in this process."""
        return " ".join(calls)

    @server.tool()
    def add(a: int, b: int) -> dict[str, int]:
        """Add two numbers."""
        calls.append("add")
        return {"sum": a + b}

    @server.tool(structured_output=False)
    def echo(text: str) -> str:
        """Say it back."""
        calls.append("echo")
        return text

    @server.tool(structured_output=False, name="odd.name/x")
    def odd() -> str:
        """Has a name that a Realtime session would not take."""
        return "odd"

    for name in ("two ways", "two/ways", "end_call", "transfer_to_boss"):
        _named(server, name)

    @server.tool(structured_output=False)
    def spell(word: Annotated[str, Field(json_schema_extra={"pattern": r"^\p{L}+$"})]) -> str:
        """Take a word; its pattern is JavaScript's."""
        return word

    @server.tool(structured_output=False)
    def chatter() -> str:
        """Write a log where messages belong."""
        os.write(stdout, b"Looking for Ada Byron\n... found\n")
        return "found"

    @server.tool()
    def refuse() -> str:
        """Never work."""
        raise ToolError("The book is closed.")

    @server.tool(structured_output=False)
    def key(context: Context[Any, Any]) -> str:
        """Give back the idempotency key."""
        meta: Any = context.request_context.meta or {}
        return str(meta.get("trunkline/idempotency-key", ""))

    @server.tool(structured_output=False)
    def environment() -> list[str]:
        """Name the variables of the environment, and the process."""
        return [str(os.getpid()), *sorted(os.environ)]

    @server.tool()
    async def sleep() -> str:
        """Never answer."""
        calls.append("sleep")
        await asyncio.Event().wait()
        return ""

    @server.tool()
    def die() -> str:
        """End the process."""
        os._exit(3)

    @server.tool(annotations=ToolAnnotations(idempotent_hint=True), structured_output=False)
    def die_once(flag: str) -> str:
        """End the process unless a file exists."""
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "alive"
        os._exit(3)

    @server.tool(structured_output=False)
    def flood() -> str:
        """Answer with more than anybody wants."""
        return "x" * 6_000_000

    return server


def _named(server: MCPServer, name: str) -> None:
    @server.tool(structured_output=False, name=name)
    def say_name() -> str:
        """Say how it is called here."""
        return name


def main() -> None:
    """Serve on the port of the first argument, or without one on stdio."""
    if len(sys.argv) == 1:
        make_server(os.dup(1)).run("stdio")
        return
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(sys.argv[1])))
    listener.listen()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(make_server().streamable_http_app(), log_config=None, ws="none")
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
