"""Questions to chat endpoints, over real sockets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.agents.llm.chat_completions import ChatSpec, JsonMode
from app.agents.llm.question import ModelQuestion
from app.errors import AppError, ConfigError
from app.http.client import SafeHttp
from tests.fakes.web_service import WebService, answer
from tests.integration.analysis_site import SPEC, completed, endpoint, outgoing, silence


@pytest.fixture
async def http() -> AsyncIterator[SafeHttp]:
    async with outgoing() as client:
        yield client


# Chat endpoints -----------------------------------------------------------------------------------


QUESTION = ModelQuestion(
    instructions="Judge.", text="The words.", schema=SPEC.schema, name="analysis"
)


async def test_a_chat_endpoint_is_asked_as_openai_documents_it(http: SafeHttp) -> None:
    async with WebService(completed("an answer")) as service:
        assert await endpoint(service, http)(QUESTION) == "an answer"
    [asked] = service.asked
    assert asked.headers["authorization"] == "Bearer sk-1"
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {
        "model": "small",
        "messages": [
            {"role": "system", "content": "Judge."},
            {"role": "user", "content": "The words."},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "analysis", "strict": True, "schema": SPEC.schema},
        },
    }


@pytest.mark.parametrize(
    ("mode", "sent"),
    [(JsonMode.OBJECT, {"type": "json_object"}), (JsonMode.PROMPT, None)],
)
async def test_older_endpoints_get_the_schema_in_words(
    mode: JsonMode, sent: Any, http: SafeHttp
) -> None:
    async with WebService(completed("{}")) as service:
        await endpoint(service, http, json_mode=mode, api_key="")(QUESTION)
    [asked] = service.asked
    request = json.loads(asked.body)
    assert request.get("response_format") == sent
    assert json.dumps(SPEC.schema) in request["messages"][0]["content"]
    assert "authorization" not in asked.headers


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": False},
        {"type": "object"},
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"type": "object"}]}},
            "required": ["a"],
            "additionalProperties": False,
        },
    ],
)
async def test_a_schema_that_strict_mode_would_refuse_is_not_sent_as_strict(
    schema: dict[str, Any], http: SafeHttp
) -> None:
    async with WebService(completed("{}")) as service:
        question = ModelQuestion(instructions="i", text="t", schema=schema)
        await endpoint(service, http)(question)
    shape = json.loads(service.asked[0].body)["response_format"]["json_schema"]
    assert (shape["strict"], shape["schema"]) == (False, schema)


async def test_a_plain_question_needs_no_format(http: SafeHttp) -> None:
    parts = [{"type": "text", "text": "in "}, "odd", {"type": "text", "text": "parts"}]
    async with WebService(completed(parts)) as service:
        question = ModelQuestion(instructions="i", text="t")
        assert await endpoint(service, http)(question) == "in parts"
    assert "response_format" not in json.loads(service.asked[0].body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[" * 100_000,
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}',
        b'{"choices": [{"message": {"content": " "}}]}',
        b'{"choices": [{"message": {"content": []}}]}',
    ],
)
async def test_an_answer_without_words_is_no_answer(body: bytes, http: SafeHttp) -> None:
    async with WebService(answer(body)) as service:
        with pytest.raises(AppError) as raised:
            await endpoint(service, http)(QUESTION)
    assert raised.value.code == "no_answer"


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (429, "chat_unavailable", True),
        (500, "chat_unavailable", True),
        (400, "chat_refused", False),
        (401, "chat_refused", False),
    ],
)
async def test_an_error_of_the_endpoint_is_told_and_not_repeated(
    status: int, code: str, retryable: bool, http: SafeHttp
) -> None:
    async with WebService(answer(b"{}", status=status)) as service:
        with pytest.raises(AppError) as raised:
            await endpoint(service, http)(QUESTION)
    assert (raised.value.code, raised.value.retryable) == (code, retryable)
    assert len(service.asked) == 1


async def test_a_slow_endpoint_is_not_waited_for(http: SafeHttp) -> None:
    async with WebService(silence) as service:
        with pytest.raises(AppError) as raised:
            await endpoint(service, http, timeout_ms=50)(QUESTION)
    assert raised.value.code == "tool_timeout"


@pytest.mark.parametrize(
    "rest", ["/v1/chat/completions", "/v1/chat/completions/", "/v1?api-version=1", "/v1#x"]
)
def test_a_base_url_that_takes_no_path_behind_it_is_refused(rest: str) -> None:
    with pytest.raises(ConfigError, match="/chat/completions is put behind it"):
        ChatSpec(base_url=f"https://api.example.com{rest}", model="m")
