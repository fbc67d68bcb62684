"""Questions to the voice model beside the conversation, which they leave unchanged.

A response with `conversation: none` may run beside the one that speaks; its metadata identifies
it. It answers in text and costs tokens of the session (OpenAI realtime guide, "out of band").
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Final

from app.agents.llm.question import OUT_OF_BAND_KEY, ModelQuestion
from app.errors import AppError
from app.realtime.events import (
    ContentPart,
    ErrorEvent,
    Item,
    ResponseConfig,
    ResponseCreate,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
)

__all__ = ["OutOfBandAsker", "question_event"]


_QUESTION_KEY: Final = "question"
_MAX_WAITING: Final = 32
_MAX_OUTPUT_TOKENS: Final = 4_096
"""The largest that a response may ask for: the session's own bound is meant for spoken answers."""


class OutOfBandAsker:
    """`Ask` over a call's voice connection: `send` puts an event into the call's outbox.

    The reader of the connection hands every event to `on_voice`, also those that the dialogue
    takes, and calls `on_voice_lost` when the connection breaks.
    """

    def __init__(self, send: Callable[[ResponseCreate], None], *, timeout_ms: int = 10_000) -> None:
        self._send = send
        self._timeout_ms = timeout_ms
        self._asked = 0
        self._answers: dict[str, asyncio.Future[tuple[str, str]]] = {}

    async def __call__(self, question: ModelQuestion) -> str:
        """Ask and wait.

        Raises:
            AppError: the model's own code, or `voice_lost`, `no_answer`, `timeout`, `model_busy`.
        """
        if len(self._answers) >= _MAX_WAITING:
            raise AppError("too many questions wait for the voice model", code="model_busy")
        self._asked += 1
        question_id = f"question_{self._asked}"
        answer: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
        self._answers[question_id] = answer
        try:
            self._send(question_event(question, question_id))
            async with asyncio.timeout(self._timeout_ms / 1000):
                text, error = await answer
        except TimeoutError:
            text, error = "", "timeout"
        finally:
            del self._answers[question_id]
        if error:
            raise AppError("the voice model did not answer a question", code=error)
        return text

    def on_voice(self, event: ServerEvent) -> None:
        """Take any event of the model; most have nothing to do with questions."""
        match event:
            case ResponseDone(response):
                question_id = response.metadata.get(_QUESTION_KEY, "")
                if response.status is ResponseStatus.COMPLETED:
                    text = "".join(_texts(response.output))
                    self._settle(question_id, text, "" if text.strip() else "no_answer")
                else:
                    code = response.error.code if response.error is not None else None
                    self._settle(question_id, "", code or f"response_{response.status}")
            case ErrorEvent(error):
                self._settle(error.client_event_id or "", "", error.code or "refused")
            case _:
                pass

    def on_voice_lost(self) -> None:
        """The connection broke: no question that waits gets an answer."""
        for question_id in self._answers:
            self._settle(question_id, "", "voice_lost")

    def _settle(self, question_id: str, text: str, error: str) -> None:
        answer = self._answers.get(question_id)
        if answer is not None and not answer.done():
            answer.set_result((text, error))


def question_event(question: ModelQuestion, question_id: str) -> ResponseCreate:
    """The event that asks a question."""
    instructions = question.instructions
    if question.schema is not None:
        instructions += (
            "\n\nAnswer with one JSON object of this JSON schema and nothing else:\n"
            f"{json.dumps(question.schema)}"
        )
    text = ContentPart(type="input_text", text=question.text)
    config = ResponseConfig(
        conversation="none",
        output_modalities=("text",),
        metadata={OUT_OF_BAND_KEY: question.name[:512], _QUESTION_KEY: question_id},
        instructions=instructions,
        input=(Item(type="message", role="user", content=(text,)),),
        tools=(),
        tool_choice="none",
        max_output_tokens=_MAX_OUTPUT_TOKENS,
    )
    return ResponseCreate(config, question_id)


def _texts(output: tuple[Item, ...]) -> list[str]:
    return [part.text or part.transcript or "" for item in output for part in item.content]
