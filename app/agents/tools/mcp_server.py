"""The description of an MCP server. Importing this needs no `mcp` package."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from app.agents.tools.tool import Approval
from app.errors import ConfigError

__all__ = ["McpServerSpec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class McpServerSpec:
    """A server: `url` and `headers` for http, `command`, `args` and `env` for stdio.

    A process inherits PATH, HOME and the like from our environment, and nothing else.
    `allowed_tools` are the server's own names; None allows all that it has at the start.
    """

    name: str
    transport: Literal["http", "stdio"]
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    command: str = ""
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed_tools: tuple[str, ...] | None = None
    timeout_ms: int = 10_000
    connect_timeout_ms: int = 10_000
    allow_private: bool = False
    filler: str | None = None
    approval: Approval = Approval.NONE
    max_output_chars: int = 8_000

    def __post_init__(self) -> None:
        wanted = self.url if self.transport == "http" else self.command
        if self.transport not in ("http", "stdio") or not wanted:
            raise ConfigError(
                f"mcp server {self.name}: transport is http with a url, or stdio with a command"
            )
