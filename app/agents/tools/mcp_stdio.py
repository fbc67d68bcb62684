"""The stdio transport to an MCP server: runs a process, and exchanges lines with it.

The `mcp` package's own collects a line of any length and looks at all of it again for each piece:
one giant answer would stop the sound of every call (`docs/decisions/0007`). Of stderr only the end
is kept, for an error at the start: it would get around the redaction of our log. Specification
2025-11-25, "stdio" and "shutdown". Imported only when a server is configured.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, Process
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.stdio import get_default_environment
from mcp.shared.message import SessionMessage
from mcp_types import jsonrpc_message_adapter
from pydantic import ValidationError

from app.agents.tools.mcp_faults import ProcessEnd

__all__ = ["Reader", "Writer", "served_by_process"]


Reader = MemoryObjectReceiveStream[SessionMessage | Exception]
Writer = MemoryObjectSendStream[SessionMessage]
_Inbox = MemoryObjectSendStream[SessionMessage | Exception]

_KEPT_BYTES: Final = 4_096
_LAST_WORDS_S: Final = 1.0
_GRACE_S: Final = 2.0
"""For each step: after stdin is closed, and after each of the two signals."""


@asynccontextmanager
async def served_by_process(
    command: Sequence[str],
    env: Mapping[str, str],
    max_bytes: int,
    end: ProcessEnd | None = None,
) -> AsyncIterator[tuple[Reader, Writer]]:
    """Messages from and to a process, which ends with the context.

    Nothing more is read of a process that writes a line of more than `max_bytes`. `end` is told
    the last line on stderr, and the exit code of a process that ends by itself, before the messages
    end.

    Raises:
        OSError: the program does not exist, or it may not be run.
    """
    process = await anyio.open_process(
        [*command],
        env={**get_default_environment(), **env},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    end = end or ProcessEnd()
    inbox, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, outbox = anyio.create_memory_object_stream[SessionMessage](0)
    async with process, read, write, anyio.create_task_group() as group:
        errors = anyio.Event()
        group.start_soon(_read_errors, process.stderr, end, errors)
        group.start_soon(
            _read_lines, process, inbox, max_bytes, partial(_ended, process, end, errors)
        )
        group.start_soon(_write_lines, process.stdin, outbox)
        try:
            yield read, write
        finally:
            with anyio.CancelScope(shield=True):
                await _end(process)
            group.cancel_scope.cancel()


async def _read_errors(stderr: ByteReceiveStream, end: ProcessEnd, done: anyio.Event) -> None:
    """Keep the end. All is read: a process stops once a pipe that nobody reads is full."""
    with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
        async for chunk in stderr:
            end.stderr = (end.stderr + chunk)[-_KEPT_BYTES:]
    done.set()


async def _ended(process: Process, end: ProcessEnd, errors: anyio.Event) -> None:
    """The process has closed its stdout: as a rule it is about to end."""
    with anyio.move_on_after(_LAST_WORDS_S):
        end.exit_code = await process.wait()
        await errors.wait()  # for ever where a process that it started lives on


async def _read_lines(
    process: Process, inbox: _Inbox, max_bytes: int, ended: Callable[[], Awaitable[None]]
) -> None:
    stdout = process.stdout
    assert stdout is not None
    line = bytearray()
    async with inbox:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            async for chunk in stdout:
                *whole, rest = chunk.split(b"\n")
                for end in whole:
                    line += end
                    await inbox.send(_message(bytes(line)))
                    line.clear()
                line += rest
                if len(line) > max_bytes:
                    return
        await ended()


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValidationError as error:
        return error


async def _write_lines(
    stdin: ByteSendStream, outbox: MemoryObjectReceiveStream[SessionMessage]
) -> None:
    async with outbox:
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError):
            async for sent in outbox:
                text = sent.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdin.send(f"{text}\n".encode())


async def _end(process: Process) -> None:
    """Close its stdin, wait, and end it by signals if it stays."""
    with suppress(OSError, anyio.BrokenResourceError):
        assert process.stdin is not None
        await process.stdin.aclose()
    for request in (None, signal.SIGTERM, signal.SIGKILL):
        if request is not None:
            with suppress(ProcessLookupError):
                os.killpg(
                    process.pid, request
                )  # it leads a session of its own: what it started too
        with anyio.move_on_after(_GRACE_S):
            await process.wait()
            return
