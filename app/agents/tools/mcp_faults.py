"""Faults of MCP servers in words: the cause, and the cure where it is known.

The words are for operators, at the start. What a process writes to stderr may hold anything, so no
model and no log gets it. Imported only when a server is configured.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Final

from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND, PARSE_ERROR
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic import ValidationError

from app.errors import ToolError

__all__ = ["NO_MESSAGE", "NO_TOOLS", "ProcessEnd", "in_words", "is_closed", "leaves"]

NO_TOOLS: Final = (
    "It has no tools, and callers have no use for anything else: take it out of mcp_servers, or "
    "give it what it needs to offer them."
)
NO_MESSAGE: Final = (
    "What it answers is not MCP (JSON-RPC): check its url, which often ends in /mcp."
)
_VERSION: Final = "Unsupported protocol version from the server: "
_CLOSED: Final = ("Connection closed", "SSE stream ")  # as the package words it
_MAX_CHARS: Final = 200


@dataclass(slots=True)
class ProcessEnd:
    """The end of a server's process. `exit_code` is negative for a signal, None while it runs.

    `stderr` is the end of what it wrote there.
    """

    exit_code: int | None = None
    stderr: bytes = b""

    def __str__(self) -> str:
        lines = [_line(line) for line in self.stderr.decode(errors="replace").splitlines()]
        last = next((line for line in reversed(lines) if line), "")
        wrote = f"It wrote last: {last}" if last else ""
        if self.exit_code is None:
            return wrote
        if self.exit_code < 0:
            number = -self.exit_code
            known = number in set(signal.Signals)
            how = f"was ended by {signal.Signals(number).name if known else f'signal {number}'}"
        else:
            how = f"ended with exit code {self.exit_code}"
        cure = "" if wrote else " and wrote nothing: run its command in a terminal to see why"
        return f"Its process {how}{cure}. {wrote}".strip()


def in_words(error: BaseException) -> str:
    """The cause that an error tells, as a sentence; empty where it tells none."""
    for leaf in leaves(error):
        match leaf:
            case ToolError():
                return leaf.message
            case FileNotFoundError() | PermissionError():
                return "Its command does not exist, or may not be run."
            case MCPError(code=code) if code == METHOD_NOT_FOUND:
                return NO_TOOLS
            case MCPError(code=code) if code == PARSE_ERROR:
                return NO_MESSAGE
            case MCPError() if not is_closed(leaf):
                return f"It answers with an error: {_line(leaf.message)}"
            case RuntimeError() if str(leaf).startswith(_VERSION):
                version = _line(str(leaf).removeprefix(_VERSION))
                known = f"{HANDSHAKE_PROTOCOL_VERSIONS[0]} to {HANDSHAKE_PROTOCOL_VERSIONS[-1]}"
                return f"It speaks version {version} of MCP, and not one of {known}: update it."
            case ValidationError():
                found = leaf.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, found["loc"])) or "its beginning"
                return f"Its answer is malformed at {place} ({found['msg']}): update it."
    return ""


def is_closed(error: MCPError) -> bool:
    """True for the package's own error about a connection; servers use its code for theirs."""
    return error.code == CONNECTION_CLOSED and error.message.startswith(_CLOSED)


def leaves(error: BaseException) -> list[BaseException]:
    """The errors in a group of groups, or the error itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def _line(text: str) -> str:
    """Text of a server as one short line without control characters."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\s]+", " ", text).strip()[:_MAX_CHARS]
