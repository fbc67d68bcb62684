"""Text models over HTTP: `/v1/chat/completions` and `/v1/responses`, streamed, with tools.

Wire: OpenAI API reference, "Create chat completion" and "Create response" (openai-python 3.57).
Compatible servers differ, and all of this is met: whole tool calls in one piece, no id or index in
them, arguments as an object, `finish_reason: stop` beside tool calls, no usage, no `[DONE]`, JSON
in place of a stream, `null` where a delta was expected, thoughts in `<think>` tags, and a refusal
of `stream_options` or `reasoning_effort`, which are then left out.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from app.engine.stages.base import (
    Message,
    StageError,
    StageSpec,
    TextPiece,
    TextRequest,
    TextUsage,
    ToolCall,
    Words,
)
from app.engine.stages.http_responses import as_json, asked, content_type, whole
from app.http.streaming import StreamingHttp, sse_data

__all__ = ["ChatCompletions", "Responses", "without_thoughts"]

logger = logging.getLogger(__name__)

_NEWER_LIMIT: Final = "max_completion_tokens"
_NONE: Final = {"type": "object", "properties": {}}
_END: Final = "[DONE]"


@dataclass(frozen=True, slots=True)
class _Optional:
    """Fields of a request that not every server takes."""

    usage: bool
    effort: str | None
    limit: str


class _Taken:
    """The optional fields that the server takes, as far as it has answered.

    Models differ: some refuse `reasoning_effort`, some a value of it, and OpenAI's GPT-6 takes no
    tools at chat completions unless it is `none`, which is not its default. OpenAI's newer models
    have another name for `max_tokens`, which other servers do not know.
    """

    def __init__(self, spec: StageSpec, effort: str | None) -> None:
        self._model = spec.model
        self._usage = True
        self._efforts = list(dict.fromkeys((effort, "none", None)))
        self._limit = _NEWER_LIMIT if spec.is_openai else "max_tokens"

    @property
    def now(self) -> _Optional:
        return _Optional(self._usage, self._efforts[0], self._limit)

    def refused(self, names: Collection[str], fields: _Optional) -> bool:
        """Change one of `fields` that was refused; False if there is none to be changed."""
        if fields != self.now:
            return True  # another request has met the same
        if "stream_options" in names and fields.usage:
            self._usage = False
        elif "max_tokens" in names and fields.limit != _NEWER_LIMIT:
            self._limit = _NEWER_LIMIT
        elif "reasoning_effort" in names and len(self._efforts) > 1:
            del self._efforts[0]
            facts = {"model": self._model, "from": fields.effort, "to": self._efforts[0]}
            logger.warning("reasoning effort refused", extra=facts)
        return fields != self.now


async def _asked_until_taken(
    taken: _Taken, ask: Callable[[_Optional], AsyncGenerator[TextPiece, None]]
) -> AsyncGenerator[TextPiece, None]:
    """The pieces of the first request that is not refused for one of its optional fields."""
    while True:
        fields = taken.now
        try:
            async with aclosing(ask(fields)) as pieces:
                async for piece in pieces:
                    yield piece
            return
        except StageError as error:
            # A refusal comes before any word, so nothing is said twice.
            if not taken.refused(error.fields, fields):
                raise


class ChatCompletions:
    """A server of `/v1/chat/completions`."""

    def __init__(
        self, spec: StageSpec, http: StreamingHttp, *, reasoning_effort: str | None = None
    ) -> None:
        """`reasoning_effort` is left to the model where it is not given, or is refused."""
        self._spec = spec
        self._http = http
        self._taken = _Taken(spec, reasoning_effort)

    @property
    def name(self) -> str:
        return self._spec.model

    def stream(self, request: TextRequest) -> AsyncGenerator[TextPiece, None]:
        """Yield words, then the tool calls, then the usage, if the server tells it.

        Raises:
            StageError: the stage failed; words that came before it stand.
        """
        return _asked_until_taken(self._taken, lambda fields: self._stream(request, fields))

    async def _stream(
        self, request: TextRequest, fields: _Optional
    ) -> AsyncGenerator[TextPiece, None]:
        spec = self._spec
        body = spec.body(self._body(request, fields))
        async with asked(self._http, spec, "/chat/completions", json=body) as response:
            if content_type(response) == "application/json":
                chunk = _as_chunk(await _answer_of(response), spec)
                pieces = _chat_pieces(_each(chunk, _END), spec)
            else:
                pieces = _chat_pieces(sse_data(response), spec)
            async with aclosing(without_thoughts(pieces)) as thoughtless:
                async for piece in thoughtless:
                    yield piece

    def _body(self, request: TextRequest, fields: _Optional) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self._spec.model,
            "messages": [_chat_message(message) for message in request.messages],
            "stream": True,
            fields.limit: request.max_tokens,
            "reasoning_effort": fields.effort,
        }
        if fields.usage:
            body["stream_options"] = {"include_usage": True}
        if request.tools:
            body["tools"] = [
                {"type": "function", "function": _function(tool)} for tool in request.tools
            ]
            body["tool_choice"] = _chat_choice(request.tool_choice)
        return body


class Responses:
    """A server of `/v1/responses`."""

    def __init__(
        self, spec: StageSpec, http: StreamingHttp, *, reasoning_effort: str | None = None
    ) -> None:
        """As `ChatCompletions`."""
        self._spec = spec
        self._http = http
        self._taken = _Taken(spec, reasoning_effort)

    @property
    def name(self) -> str:
        return self._spec.model

    def stream(self, request: TextRequest) -> AsyncGenerator[TextPiece, None]:
        """Yield words, then the tool calls, then the usage.

        Raises:
            StageError: the stage failed; words that came before it stand.
        """
        return _asked_until_taken(self._taken, lambda fields: self._stream(request, fields))

    async def _stream(
        self, request: TextRequest, fields: _Optional
    ) -> AsyncGenerator[TextPiece, None]:
        spec = self._spec
        body: dict[str, Any] = {
            "model": spec.model,
            "input": [item for message in request.messages for item in _input_items(message)],
            "stream": True,
            "store": False,  # what callers say is not left on the server
            "max_output_tokens": request.max_tokens,
        }
        if fields.effort is not None:
            body["reasoning"] = {"effort": fields.effort}
        if request.tools:
            # Strict is the default here: every optional argument would have to be made up.
            body["tools"] = [
                {"type": "function", "strict": False, "parameters": _NONE, **_function(tool)}
                for tool in request.tools
            ]
            body["tool_choice"] = request.tool_choice
        async with asked(self._http, spec, "/responses", json=spec.body(body)) as response:
            if content_type(response) == "application/json":
                events = _each(*_as_events(await _answer_of(response), spec))
            else:
                events = sse_data(response)
            async with aclosing(_response_pieces(events, spec)) as pieces:
                async for piece in pieces:
                    yield piece


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tool[key] for key in ("name", "description", "parameters") if key in tool}


def _chat_choice(choice: object) -> object:
    match choice:
        case {"type": "function", "name": str(name)}:
            return {"type": "function", "function": {"name": name}}
    return choice


def _chat_message(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.calls:
        written["content"] = message.text or None
        written["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.calls
        ]
    if message.role == "tool":
        written["tool_call_id"] = message.call_id
    return written


def _input_items(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [
            {
                "type": "function_call_output",
                "call_id": message.call_id,
                "output": message.text,
            }
        ]
    items: list[dict[str, Any]] = []
    if message.text:
        items.append({"role": message.role, "content": message.text})
    for call in message.calls:
        items.append(
            {
                "type": "function_call",
                "call_id": call.call_id,
                "name": call.name,
                "arguments": call.arguments,
            }
        )
    return items


# Reading ------------------------------------------------------------------------------------------


async def _answer_of(response: httpx2.Response) -> Mapping[str, Any]:
    """The answer of a server that does not stream."""
    return as_json((await whole(response)).decode(errors="replace"))


async def _each(*texts: str) -> AsyncIterator[str]:
    for text in texts:
        yield text


def _as_chunk(answer: Mapping[str, Any], spec: StageSpec) -> str:
    """A whole answer as if it were the only piece of a stream."""
    match answer:
        case {"choices": [{"message": dict(message)}, *_]}:
            choices = [{"delta": message, "finish_reason": "stop"}]
            return json.dumps({"choices": choices, "usage": answer.get("usage")})
        case {"error": _}:
            return json.dumps(answer)
    raise _no_answer(spec)


def _as_events(answer: Mapping[str, Any], spec: StageSpec) -> Iterator[str]:
    """A whole response as the events that it would be streamed in."""
    if answer.get("error"):
        yield json.dumps({"type": "error", "error": answer["error"]})
        return
    items = answer.get("output")
    if not isinstance(items, list):
        raise _no_answer(spec)
    for item in items:
        match item:
            case {"type": "message", "content": content} if text := _content(content):
                yield json.dumps({"type": "response.output_text.delta", "delta": text})
            case {"type": "function_call"}:
                yield json.dumps({"type": "response.output_item.done", "item": item})
    yield json.dumps({"type": "response.completed", "response": answer})


def _no_answer(spec: StageSpec) -> StageError:
    return StageError(f"{spec.model}: the server sent no answer", code="stage_invalid")


class _Calls:
    """Tool calls that arrive in pieces."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, str]] = {}

    def add(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function")
        function = function if isinstance(function, Mapping) else {}
        call_id, name = piece.get("id"), function.get("name")
        index = piece.get("index")
        if not isinstance(index, int):
            # Without an index, a piece with a name begins a call and another one goes on with it.
            index = len(self._calls) if name or not self._calls else max(self._calls)
        elif name and self._calls.get(index, {}).get("id", call_id) != call_id:
            index = len(self._calls)  # Gemini numbers every call 0
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        if isinstance(call_id, str):
            call["id"] = call["id"] or call_id
        if isinstance(name, str):
            call["name"] = call["name"] or name
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            call["arguments"] += arguments
        elif isinstance(arguments, Mapping):
            call["arguments"] = _arguments(arguments)

    def whole(self) -> list[ToolCall]:
        return [
            ToolCall(
                call_id=call["id"] or f"call_{secrets.token_hex(8)}",
                name=call["name"],
                arguments=call["arguments"] or "{}",
            )
            for _, call in sorted(self._calls.items())
            if call["name"]
        ]


def _arguments(given: object) -> str:
    """The arguments of a call as JSON text; some servers send the object itself."""
    if isinstance(given, Mapping):
        return json.dumps(given)
    return given if isinstance(given, str) and given else "{}"


async def _chat_pieces(
    events: AsyncIterator[str], spec: StageSpec
) -> AsyncGenerator[TextPiece, None]:
    calls, usage, ended = _Calls(), None, False
    async for data in events:
        if data.strip() == _END:
            ended = True
            break
        chunk = as_json(data)
        if chunk.get("error"):
            raise _stream_error(chunk["error"], spec)
        usage = _chat_usage(chunk.get("usage")) or usage
        match chunk.get("choices"):
            case [dict(choice), *_]:
                ended = ended or bool(choice.get("finish_reason"))
                delta = choice.get("delta")
                if not isinstance(delta, Mapping):
                    continue
                if text := _content(delta.get("content")) or _content(delta.get("refusal")):
                    yield Words(text)
                for piece in delta.get("tool_calls") or ():
                    if isinstance(piece, Mapping):
                        calls.add(piece)
    if not ended:
        raise StageError(f"{spec.model}: the answer was cut off", code="stage_cut")
    for call in calls.whole():
        yield call
    if usage is not None:
        yield usage


def _content(content: object) -> str:
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return "".join(text for text in texts if isinstance(text, str))


def _chat_usage(usage: object) -> TextUsage | None:
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    return TextUsage(
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_count(usage.get("completion_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0,
    )


async def _response_pieces(
    events: AsyncIterator[str], spec: StageSpec
) -> AsyncGenerator[TextPiece, None]:
    async for data in events:
        event = as_json(data)
        match event:
            case {"type": "response.output_text.delta" | "response.refusal.delta", "delta": str(d)}:
                yield Words(d)
            case {
                "type": "response.output_item.done",
                "item": {"type": "function_call", "name": str(name)} as item,
            }:
                yield ToolCall(
                    call_id=str(item.get("call_id") or f"call_{secrets.token_hex(8)}"),
                    name=name,
                    arguments=_arguments(item.get("arguments")),
                )
            case {"type": "response.completed" | "response.incomplete"}:
                answer = event.get("response")
                usage = answer.get("usage") if isinstance(answer, Mapping) else None
                if isinstance(usage, Mapping):
                    yield _response_usage(usage)
                return
            case {"type": "response.failed", "response": {"error": error}}:
                raise _stream_error(error, spec)
            case {"type": "error"}:
                raise _stream_error(event.get("error") or event, spec)
    raise StageError(f"{spec.model}: the answer was cut off", code="stage_cut")


def _response_usage(usage: Mapping[str, Any]) -> TextUsage:
    details = usage.get("input_tokens_details")
    return TextUsage(
        input_tokens=_count(usage.get("input_tokens")),
        output_tokens=_count(usage.get("output_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, Mapping) else 0,
    )


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _stream_error(error: object, spec: StageSpec) -> StageError:
    message = error.get("message") if isinstance(error, Mapping) else error
    return StageError(f"{spec.model}: {str(message)[:200]}", code="stage_failed")


_OPEN: Final = "<think>"
_CLOSE: Final = "</think>"


async def without_thoughts(
    pieces: AsyncGenerator[TextPiece, None],
) -> AsyncGenerator[TextPiece, None]:
    """Leave out what a model thinks aloud, in tags, before it answers."""
    held: str | None = ""  # None: the answer has begun
    thinking = False
    async with aclosing(pieces):
        async for piece in pieces:
            if held is None or not isinstance(piece, Words):
                yield piece
                continue
            held += piece.text
            start = held.lstrip()
            if not thinking and _OPEN.startswith(start[: len(_OPEN)]):
                thinking = start.startswith(_OPEN)
                if not thinking:
                    continue  # the beginning of a tag, perhaps
            if not thinking:
                yield Words(held)
                held = None
            elif _CLOSE in held:
                rest = held.partition(_CLOSE)[2].lstrip()
                thinking, held = False, None if rest else ""
                if rest:
                    yield Words(rest)
    if held and not thinking:
        yield Words(held)
