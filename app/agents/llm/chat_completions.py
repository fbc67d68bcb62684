"""Questions to any endpoint that speaks OpenAI's chat completions.

Gemini (`https://generativelanguage.googleapis.com/v1beta/openai`), vLLM, Ollama and the hosted ones
do. The voice call does not depend on the answer, which may be missing. Requests go through
`app.http.client`.

Wire: OpenAI API reference, "Create chat completion".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from app.agents.llm.question import ModelQuestion
from app.errors import AppError, ConfigError, ToolFailed
from app.http.addresses import check_url
from app.http.client import Fetched, Outgoing, SafeHttp
from app.json_text import parse_json

__all__ = ["ChatEndpoint", "ChatSpec", "JsonMode"]


_COMPLETIONS: Final = "/chat/completions"


class JsonMode(StrEnum):
    """Ways to request an answer in JSON; older servers support fewer."""

    SCHEMA = "json_schema"
    OBJECT = "json_object"
    PROMPT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSpec:
    """An endpoint. `allow_private`: it stands in a network of one's own, and may be plain http."""

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)
    timeout_ms: int = 8_000
    json_mode: JsonMode = JsonMode.SCHEMA
    allow_private: bool = False

    def __post_init__(self) -> None:
        if not self.model:
            raise ConfigError("analysis: the chat endpoint needs a model")
        if self.timeout_ms <= 0:
            raise ConfigError("analysis: timeout_ms must be above zero")
        object.__setattr__(self, "json_mode", JsonMode(self.json_mode))
        try:
            check_url(self.base_url, allow_private=self.allow_private)
        except ToolFailed as error:
            raise ConfigError(f"analysis: base_url: {error.message}") from error
        parts = urlsplit(self.base_url)
        if parts.query or parts.fragment or parts.path.rstrip("/").endswith(_COMPLETIONS):
            raise ConfigError(
                f"analysis: base_url: {_COMPLETIONS} is put behind it: end it before that, and "
                "without a query"
            )


class ChatEndpoint:
    """`Ask` over HTTP."""

    def __init__(self, spec: ChatSpec, http: SafeHttp) -> None:
        self._spec = spec
        self._http = http

    async def __call__(self, question: ModelQuestion) -> str:
        """Ask once: the next turn of the caller brings the next question.

        Raises:
            AppError: `chat_refused`, `chat_unavailable` (retryable), `no_answer`, and the codes
                of `SafeHttp.fetch`.
        """
        spec = self._spec
        headers = {"Content-Type": "application/json"}
        if spec.api_key:
            headers["Authorization"] = f"Bearer {spec.api_key}"
        fetched = await self._http.fetch(
            Outgoing(
                method="POST",
                url=spec.base_url.rstrip("/") + _COMPLETIONS,
                headers=headers,
                content=json.dumps(render_question(question, spec)).encode(),
                timeout_ms=spec.timeout_ms,
                allow_private=spec.allow_private,
            )
        )
        return read_answer(fetched)


def render_question(question: ModelQuestion, spec: ChatSpec) -> dict[str, Any]:
    """The request's body."""
    body: dict[str, Any] = {"model": spec.model}
    instructions = question.instructions
    if question.schema is not None:
        if spec.json_mode is JsonMode.SCHEMA:
            shape = {
                "name": question.name,
                "strict": _is_strict(question.schema),
                "schema": dict(question.schema),
            }
            body["response_format"] = {"type": "json_schema", "json_schema": shape}
        else:
            if spec.json_mode is JsonMode.OBJECT:
                body["response_format"] = {"type": "json_object"}
            instructions += (
                "\n\nAnswer with one JSON object of this JSON schema and nothing else:\n"
                f"{json.dumps(question.schema)}"
            )
    body["messages"] = [
        {"role": "system", "content": instructions},
        {"role": "user", "content": question.text},
    ]
    return body


def _is_strict(schema: Any) -> bool:
    """True if strict mode takes a schema: closed objects, and no optional member."""
    match schema:
        case Mapping():
            members = schema.get("properties")
            if schema.get("type") == "object" and (
                not isinstance(members, Mapping)
                or schema.get("additionalProperties") is not False
                or set(schema.get("required", ())) != set(members)
            ):
                return False
            return all(_is_strict(inner) for inner in schema.values())
        case list() | tuple():
            return all(_is_strict(inner) for inner in schema)
        case _:
            return True


def read_answer(fetched: Fetched) -> str:
    """The words of the first choice."""
    if fetched.status == 429 or fetched.status >= 500:
        raise AppError(
            f"the chat endpoint answered {fetched.status}", code="chat_unavailable", retryable=True
        )
    if fetched.status != 200:
        raise AppError(f"the chat endpoint answered {fetched.status}", code="chat_refused")
    try:
        text = _content(parse_json(fetched.body))
    except (ValueError, RecursionError):
        text = None
    if not text or not text.strip():
        raise AppError("the chat endpoint gave no answer", code="no_answer")
    return text


def _content(body: Any) -> str | None:
    match body:
        case {"choices": [{"message": {"content": str(text)}}, *_]}:
            return text
        case {"choices": [{"message": {"content": [*parts]}}, *_]}:  # some answer in parts
            texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
            return "".join(text for text in texts if isinstance(text, str))
        case _:
            return None
