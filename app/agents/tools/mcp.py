"""Tools of MCP servers, over streamable HTTP or the stdio of a process (specification 2025-11-25).

The `mcp` package speaks the protocol and is imported only when a server is configured. Its
connections live in the task that opened them, so each server has one task, in a group that ends
with `McpTools`. A lost connection is made anew once for a call; a call that may have reached the
server is repeated only when the server calls the tool idempotent. The list of tools is read at the
start: a server that changes it later changes nothing here. A URL is held to the same addresses as
those of HTTP tools.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from app.agents.tools.call_control import CALL_TOOLS, PREFIX
from app.agents.tools.mcp_server import McpServerSpec
from app.agents.tools.schema import bounded, closed
from app.agents.tools.tool import Tool, ToolContext
from app.errors import ConfigError, ToolError, ToolFailed, ToolTimeout
from app.http.addresses import Resolve, resolve_by_system
from app.installation import install_command

if TYPE_CHECKING:
    from mcp import ClientSession
    from mcp.client.session import IncomingMessage
    from mcp_types import CallToolResult
    from mcp_types import Tool as Offered

    from app.agents.tools.mcp_faults import ProcessEnd

__all__ = ["McpTools", "missing_package"]


logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S: Final = 6.0
"""A process gets 2 s to go by itself, 2 s for SIGTERM and 2 s for SIGKILL."""

IDEMPOTENCY_META: Final = "trunkline/idempotency-key"
_MAX_PAGES: Final = 20
_MAX_DESCRIPTION_CHARS: Final = 1_024
_UNREACHABLE: Final = "The server cannot be reached."
_SESSION_TERMINATED: Final = "Session terminated"  # the package's word for a 404 in a session


def missing_package() -> str:
    """The remedy where the `mcp` package is missing or too old; empty where it is there."""
    try:
        from mcp import MCPError  # noqa: F401
        from mcp_types import Tool  # noqa: F401
    except ImportError:
        return f"need the mcp package, version 2: {install_command('mcp')}"
    return ""


class McpTools:
    """The tools of several servers, for as long as the context lasts."""

    def __init__(
        self,
        specs: Iterable[McpServerSpec],
        *,
        taken: Collection[str] = (),
        resolve: Resolve = resolve_by_system,
    ) -> None:
        """`taken`: names of other tools; a tool of that name gets its server's before it."""
        self._specs = tuple(specs)
        self._taken = taken
        self._resolve = resolve
        self._servers: list[_Server] = []
        self._tools: tuple[tuple[str, Tool], ...] = ()

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(tool for _, tool in self._tools)

    def of(self, server: str) -> tuple[Tool, ...]:
        """The tools of one server, by its name."""
        return tuple(tool for name, tool in self._tools if name == server)

    async def __aenter__(self) -> Self:
        """Connect to every server and read its tools.

        Raises:
            ConfigError: a server is not there, or lacks a tool that is allowed.
        """
        if self._specs and (missing := missing_package()):
            raise ConfigError(f"MCP servers: {missing}")
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        try:
            offers = []
            for spec in self._specs:
                server = _Server(spec, self._group, self._resolve)
                self._servers.append(server)
                offers += [(server, offered) for offered in await server.offers()]
            self._tools = self._named(offers)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        await self._group.__aexit__(None, None, None)

    def _named(self, offers: list[tuple[_Server, Offered]]) -> tuple[tuple[str, Tool], ...]:
        """Give each tool a name of its own; servers choose theirs without regard to others."""
        clashing = Counter(_plain_name(offered.name) for _, offered in offers)
        clashing.update(list(self._taken))
        used = {*self._taken}
        tools = []
        for server, offered in offers:
            name = _plain_name(offered.name)
            if clashing[name] > 1 or name in CALL_TOOLS or name.lower().startswith(PREFIX):
                name = _plain_name(f"{server.spec.name}_{name}")
            name = next(one for one in _numbered(name) if one not in used)
            try:
                tools.append((server.spec.name, server.tool(name, offered)))
            except ConfigError as error:  # what is wrong with one tool costs no other
                _log_left_out(server.spec.name, name, error.message)
                continue
            used.add(name)
        return tuple(tools)


def _log_left_out(server: str, name: str, reason: str) -> None:
    facts = {"server": server, "tool": name[:64], "reason": reason}
    logger.warning("mcp tool left out", extra=facts)


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in count(2):
        yield f"{name[:58]}_{number}"


def _plain_name(name: str) -> str:
    """A name that a Realtime session accepts; MCP allows others."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)[:64]


class _Late(ToolFailed):
    """The server did not answer in time."""


class _Lost(Exception):
    """The connection is lost; `reached` when the server may have received the call."""

    def __init__(self, *, reached: bool) -> None:
        super().__init__("connection lost")
        self.reached = reached


class _Server:
    """One server, connected when it is needed."""

    def __init__(self, spec: McpServerSpec, group: asyncio.TaskGroup, resolve: Resolve) -> None:
        self.spec = spec
        self._group = group
        self._resolve = resolve
        self._connection: _Connection | None = None
        self._closing = False

    async def offers(self) -> list[Offered]:
        """The allowed tools of the server."""
        spec = self.spec
        try:
            connection = await self._connected()
            async with asyncio.timeout(spec.connect_timeout_ms / 1000):
                offered = await connection.offers()
        except (ToolError, TimeoutError, _Lost) as error:
            raise ConfigError(f"mcp server {spec.name}: {self._cause(error)}") from error
        if not offered:
            from app.agents.tools.mcp_faults import NO_TOOLS

            raise ConfigError(f"mcp server {spec.name}: {NO_TOOLS}")
        if spec.allowed_tools is None:
            return offered
        missing = set(spec.allowed_tools) - {tool.name for tool in offered}
        if missing:
            raise ConfigError(f"mcp server {spec.name}: it has no tool {sorted(missing)[0]!r}")
        return [tool for tool in offered if tool.name in spec.allowed_tools]

    def _cause(self, error: Exception) -> str:
        """The reason for operators why the server cannot be used: what it told, or how it ended."""
        connection = self._connection
        if connection is not None and connection.told:
            return connection.told
        late = f"It does not answer within {self.spec.connect_timeout_ms / 1000:g} s."
        process = "" if connection is None or connection.process is None else connection.process
        if isinstance(error, TimeoutError | _Late):
            return f"{late} {process}".strip()
        return str(process) or (error.message if isinstance(error, ToolError) else late)

    def tool(self, name: str, offered: Offered) -> Tool:
        hints = offered.annotations
        repeatable = hints is not None and bool(hints.read_only_hint or hints.idempotent_hint)
        spec = self.spec
        schema = {"type": "object", "properties": {}, **offered.input_schema}
        return Tool(
            name=name,
            description=(offered.description or offered.title or name)[:_MAX_DESCRIPTION_CHARS],
            parameters=bounded(closed(schema)),
            run=partial(self._call, offered.name, repeatable),
            timeout_ms=spec.timeout_ms,
            filler=spec.filler,
            approval=spec.approval,
            max_output_chars=spec.max_output_chars,
        )

    async def _call(
        self, name: str, repeatable: bool, context: ToolContext, arguments: Mapping[str, Any]
    ) -> Any:
        for attempt in range(2):
            connection = await self._connected()
            try:
                return _value(await connection.call(name, arguments, context.idempotency_key))
            except _Lost as lost:
                logger.warning(
                    "mcp connection lost",
                    extra={"server": self.spec.name, "tool": name, "reached": lost.reached},
                )
                if attempt or (lost.reached and not repeatable):
                    raise ToolFailed(
                        "The connection broke. It is not known whether this was done.",
                        code="connection_lost",
                    ) from lost
        raise AssertionError("the second attempt returns or raises")

    async def _connected(self) -> _Connection:
        """The connection, made anew when the last one is gone. Raises ToolFailed."""
        if self._connection is None or self._connection.lost:
            if self._closing:
                raise ToolFailed("The server is no longer there.", code="unreachable")
            self._connection = _Connection(self.spec, self._resolve)
            self._connection.start(self._group)
        connection = self._connection
        try:
            async with asyncio.timeout(self.spec.connect_timeout_ms / 1000):
                await connection.settled.wait()
        except TimeoutError as error:
            connection.lose()
            raise _Late("The server does not answer.", code="unreachable") from error
        if connection.lost:
            raise ToolFailed(connection.told or _UNREACHABLE, code="unreachable")
        return connection

    def close(self) -> None:
        self._closing = True
        if self._connection is not None:
            self._connection.lose()


class _Connection:
    """One connection to a server, held by a task of its own until it is lost."""

    def __init__(self, spec: McpServerSpec, resolve: Resolve) -> None:
        self.settled = asyncio.Event()  # connected, or lost
        self.told = ""  # the cause that an error told
        self.process: ProcessEnd | None = None
        self._spec = spec
        self._resolve = resolve
        self._session: ClientSession | None = None
        self._ended = asyncio.Event()
        self._stray = False
        self._task: asyncio.Task[None] | None = None

    @property
    def lost(self) -> bool:
        return self._ended.is_set()

    def start(self, group: asyncio.TaskGroup) -> None:
        self._task = group.create_task(self._hold())

    def lose(self) -> None:
        """Give the connection up; calls that wait for an answer over it fail."""
        if not self.lost:
            self._ended.set()
            self.settled.set()
            if self._task is not None:
                # One that is still connecting waits for nothing else.
                delay_s = 0 if self._session is None else CLOSE_TIMEOUT_S
                asyncio.get_running_loop().call_later(delay_s, self._task.cancel)

    async def _hold(self) -> None:
        from mcp import ClientSession

        from app.agents.tools.mcp_faults import ProcessEnd, in_words, leaves
        from app.agents.tools.mcp_transport import transport, watched

        self.process = ProcessEnd()
        try:
            async with (
                transport(self._spec, self._resolve, self.process) as (read, write),
                watched(read, self.lose, self._on_left_out) as messages,
                ClientSession(messages, write, message_handler=self._on_message) as session,
            ):
                try:
                    await session.initialize()
                except Exception as error:
                    self.told = in_words(error)  # here, since the end of the streams is told first
                    raise
                self._session = session
                self.settled.set()
                await self._ended.wait()
        except Exception as error:
            # The package raises errors of any kind, often in groups; they end this connection only.
            if not self.lost:
                logger.warning(
                    "mcp connection failed",
                    extra={
                        "server": self._spec.name,
                        "error_type": ", ".join(type(e).__name__ for e in leaves(error)),
                        "pii.detail": "; ".join(str(e) for e in leaves(error))[:600],
                    },
                )
            self.told = self.told or in_words(error)
        finally:
            self.lose()

    def _on_left_out(self, name: str, reason: str) -> None:
        _log_left_out(self._spec.name, name, reason)

    async def _on_message(self, message: IncomingMessage) -> None:
        if isinstance(message, Exception) and not self._stray:
            self._stray = True  # once: some servers write a log to where messages belong
            logger.warning(
                "mcp server wrote what is not a message", extra={"server": self._spec.name}
            )

    async def offers(self) -> list[Offered]:
        from mcp import MCPError
        from mcp_types import PaginatedRequestParams
        from pydantic import ValidationError

        from app.agents.tools.mcp_faults import in_words, is_closed

        session = self._live_session()
        found: dict[str, Offered] = {}
        cursor: str | None = None
        for _ in range(_MAX_PAGES):
            try:
                page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
            except MCPError as error:
                if is_closed(error):
                    raise _Lost(reached=True) from error
                raise ToolFailed(in_words(error)) from error
            except ValidationError as error:
                raise ToolFailed(in_words(error)) from error
            for tool in page.tools:
                found.setdefault(tool.name, tool)
            cursor = page.next_cursor
            if not cursor:
                break
        return list(found.values())

    async def call(self, name: str, arguments: Mapping[str, Any], key: str) -> CallToolResult:
        """Call a tool. Raises ToolError, or _Lost when the connection goes before the answer.

        Not `session.call_tool`: it checks results by the server's output schema and would fetch
        references in it from the network.
        """
        from mcp import MCPError
        from mcp_types import CallToolRequest, CallToolRequestParams, CallToolResult

        from app.agents.tools.mcp_faults import is_closed

        session = self._live_session()
        params = CallToolRequestParams.model_validate(
            {"name": name, "arguments": dict(arguments), "_meta": {IDEMPOTENCY_META: key}}
        )
        try:
            async with asyncio.timeout(self._spec.timeout_ms / 1000):
                return await session.send_request(CallToolRequest(params=params), CallToolResult)
        except TimeoutError as error:
            raise ToolTimeout("The server did not answer in time.") from error
        except MCPError as error:
            refused = error.message == _SESSION_TERMINATED
            if refused or is_closed(error):
                self.lose()
                raise _Lost(reached=not refused) from error
            raise ToolFailed(f"The server refused: {error.message}") from error

    def _live_session(self) -> ClientSession:
        if self._session is None or self.lost:
            raise _Lost(reached=False)
        return self._session


def _value(result: CallToolResult) -> Any:
    """The part of a result for the model: the structured form when there is one, else its texts."""
    texts = [
        getattr(part, "text", None)
        or getattr(getattr(part, "resource", None), "text", None)
        or f"[{part.type}]"
        for part in result.content
    ]
    text = "\n".join(texts)
    if result.is_error:
        raise ToolFailed(text or "The tool did not work.")
    return text if result.structured_content is None else result.structured_content
