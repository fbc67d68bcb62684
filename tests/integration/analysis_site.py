"""A place to test the analysis: a chat endpoint and a webhook's receiver, on loopback."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from openai.types.chat import ChatCompletion
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming
from pydantic import TypeAdapter

from app.agents.analysis.questions import AnalysisSpec, TranscriptLine
from app.agents.llm.chat_completions import ChatEndpoint, ChatSpec
from app.events import CallId, Party
from app.http.client import SafeHttp
from app.http.signed_webhook import Webhook, WebhookSpec
from tests.fakes.web_service import Asked, Script, WebService, answer

__all__ = [
    "CALL",
    "SECRET",
    "SPEC",
    "analysis_of",
    "completed",
    "endpoint",
    "hook",
    "lines",
    "outgoing",
    "silence",
]

CALL: Final = CallId("call_1")
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SPEC: Final = AnalysisSpec(intents=("book", "chat"), tasks=frozenset({"book"}))
REQUEST: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)


async def nobody(host: str, port: int) -> Sequence[str]:
    raise OSError(f"no such name: {host}")


@asynccontextmanager
async def outgoing() -> AsyncIterator[SafeHttp]:
    """Requests that resolve no names."""
    async with SafeHttp(resolve=nobody) as client:
        yield client


def lines(*said: str) -> list[TranscriptLine]:
    return [TranscriptLine(party=Party.CALLER, text=text) for text in said]


async def silence(_: Asked, __: asyncio.StreamWriter) -> None:
    """A server that takes the request and never answers."""
    await asyncio.Event().wait()


def completed(content: Any) -> Script:
    """A chat endpoint that checks what it is asked and answers as OpenAI's does."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "small",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": content, "refusal": None},
            }
        ],
    }
    if isinstance(content, str):
        ChatCompletion.model_validate(body)
    good = answer(json.dumps(body).encode())

    async def check(asked: Asked, writer: asyncio.StreamWriter) -> None:
        request = json.loads(asked.body)
        REQUEST.validate_python(request)
        known = {"model", "messages", "response_format"}
        fine = asked.method == "POST" and asked.target == "/v1/chat/completions"
        if not fine or request.keys() - known:
            await answer(b"{}", status=400)(asked, writer)
        else:
            await good(asked, writer)

    return check


def analysis_of(**members: Any) -> Script:
    return completed(
        json.dumps({"intent": "chat", "entities": [], "summary": "", "task": ""} | members)
    )


def endpoint(service: WebService, http: SafeHttp, **more: Any) -> ChatEndpoint:
    fields = {"model": "small", "api_key": "sk-1", "allow_private": True, **more}
    return ChatEndpoint(ChatSpec(base_url=f"{service.url}/v1/", **fields), http)


def hook(service: WebService | str, http: SafeHttp, **more: Any) -> Webhook:
    url = service if isinstance(service, str) else f"{service.url}/hook"
    fields = {"first_delay_ms": 1, "max_delay_ms": 5, "allow_private": True, **more}
    return Webhook(WebhookSpec(url=url, secret=SECRET, **fields), http)
