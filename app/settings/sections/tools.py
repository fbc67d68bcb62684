"""The settings of tools: Python functions, HTTP requests and MCP servers.

Kinds and ranges only. `app.assembly`, which makes the tools, checks that URLs may be reached, that
schemas are valid and that functions exist.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from app.settings.sections.agents import only_one_of
from app.settings.values import (
    Blank,
    FunctionPath,
    HeaderName,
    HeaderValue,
    Name,
    Section,
    Spoken,
    Text,
)

__all__ = ["HttpToolSettings", "McpServerSettings", "ServerName", "ToolName", "ToolSettings"]


def _tool_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError(f"{name[:80]!r}: a tool's name is letters, digits, _ and -, up to 64")
    if name.lower().startswith("transfer_to_"):
        raise ValueError("transfer_to_ begins the names of handoffs: take another name")
    return name


ToolName = Annotated[str, AfterValidator(_tool_name)]
ServerName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
Timeout = Annotated[int, Field(ge=100, le=120_000)]
Approval = Literal["none", "operator", "keypad"]
OutputChars = Annotated[int, Field(ge=100, le=100_000)]


class HttpToolSettings(Section):
    """A request that an agent may make."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    url: Text
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    parameters: dict[str, Any] | None = None
    body: Any = None
    result: str = ""
    error_body: bool = False
    retries: int = Field(default=0, ge=0, le=5)
    idempotency_header: Annotated[HeaderName | None, Blank] = "Idempotency-Key"
    response_max_bytes: int = Field(default=262_144, ge=1, le=16_777_216)
    allow_private: bool = False
    follow_redirects: bool = False


class ToolSettings(Section):
    """A tool of one kind; what is absent is the kind's default."""

    python: FunctionPath | None = None
    http: HttpToolSettings | None = None
    run_in: Literal["thread", "process"] | None = None
    description: Annotated[str | None, Blank] = Field(default=None, max_length=1_024)
    timeout_ms: Timeout | None = None
    filler: Annotated[Spoken | None, Blank] = None
    filler_after_ms: Timeout | None = None
    approval: Approval | None = None
    verified_caller: bool | None = None
    reply: bool | None = None
    interruptible: bool | None = None
    max_output_chars: OutputChars | None = None
    max_concurrency: int | None = Field(default=None, ge=1, le=10_000)

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        only_one_of(self, "python", "http")
        if self.http is not None and self.run_in is not None:
            raise ValueError("run_in is for python: remove it")
        if self.http is not None and self.description is None:
            raise ValueError("an HTTP tool needs a description: the model chooses by it")
        return self


class McpServerSettings(Section):
    """A server of tools: a URL, or a process that Trunkline starts."""

    url: Text | None = None
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict)
    command: Text | None = None
    args: tuple[str, ...] = ()
    env: dict[Name, HeaderValue] = Field(default_factory=dict)
    allowed_tools: tuple[Text, ...] | None = None
    timeout_ms: Timeout = 10_000
    connect_timeout_ms: Timeout = 10_000
    allow_private: bool = False
    filler: Annotated[Spoken | None, Blank] = None
    approval: Approval = "none"
    max_output_chars: OutputChars = 8_000

    def without_effect(self) -> set[str]:
        return {"args", "env"} if self.url else {"headers", "allow_private"}

    @model_validator(mode="after")
    def _one_transport(self) -> Self:
        only_one_of(self, "url", "command")
        given = sorted(self.model_fields_set & self.without_effect())
        if given:
            kind = "url" if self.url else "command"
            raise ValueError(f"{', '.join(given)} does nothing with {kind}: remove it")
        return self
