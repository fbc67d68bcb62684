"""Questions to the voice model beside the conversation, which they leave unchanged.

A response with `conversation: none` may run beside the one that speaks; its metadata identifies
it. It answers in text and costs tokens of the session (OpenAI realtime guide, "out of band").
`OutOfBand` is pure: it makes the request and reads the events. `OutOfBandAsker` waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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

__all__ = ["Answered", "OutOfBand", "OutOfBandAsker"]


_QUESTION_KEY: Final = "question"
_MAX_WAITING: Final = 32
_MAX_OUTPUT_TOKENS: Final = 4_096
"""The largest that a response may ask for: the session's own bound is meant for spoken answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A question's end; `error` is a code, or empty when there is an answer."""

    question_id: str
    text: str = ""
    error: str = ""


class OutOfBand:
    """The questions that one call has asked its voice model."""

    def __init__(self) -> None:
        self._asked = 0
        self._waiting: set[str] = set()

    def ask(self, question: ModelQuestion) -> tuple[str, ResponseCreate]:
        """The question's id, and the event that asks it.

        Raises:
            AppError: too many questions wait already; code `model_busy`.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise AppError("too many questions wait for the voice model", code="model_busy")
        self._asked += 1
        question_id = f"question_{self._asked}"
        self._waiting.add(question_id)
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
        return question_id, ResponseCreate(config, question_id)

    def forget(self, question_id: str) -> None:
        """Stop waiting for an answer."""
        self._waiting.discard(question_id)

    def on_voice(self, event: ServerEvent) -> Answered | None:
        """Take any event of the model; most have nothing to do with questions."""
        match event:
            case ResponseDone(response):
                question_id = response.metadata.get(_QUESTION_KEY, "")
                if response.status is ResponseStatus.COMPLETED:
                    text = "".join(_texts(response.output))
                    return self._end(question_id, text, "" if text.strip() else "no_answer")
                code = response.error.code if response.error is not None else None
                return self._end(question_id, "", code or f"response_{response.status}")
            case ErrorEvent(error):
                return self._end(error.client_event_id or "", "", error.code or "refused")
            case _:
                return None

    def on_voice_lost(self) -> list[Answered]:
        """The connection broke: what was asked will not be answered."""
        lost = [Answered(question_id=one, error="voice_lost") for one in sorted(self._waiting)]
        self._waiting.clear()
        return lost

    def _end(self, question_id: str, text: str, error: str) -> Answered | None:
        if question_id not in self._waiting:
            return None
        self._waiting.discard(question_id)
        return Answered(question_id=question_id, text=text, error=error)


def _texts(output: tuple[Item, ...]) -> list[str]:
    return [part.text or part.transcript or "" for item in output for part in item.content]


class OutOfBandAsker:
    """`Ask` over a call's voice connection: `send` puts an event into the call's outbox.

    The reader of the connection hands every event to `on_voice`, also those that the dialogue
    takes, and calls `on_voice_lost` when the connection breaks.
    """

    def __init__(self, send: Callable[[ResponseCreate], None], *, timeout_ms: int = 10_000) -> None:
        self._send = send
        self._timeout_ms = timeout_ms
        self._questions = OutOfBand()
        self._answers: dict[str, asyncio.Future[Answered]] = {}

    async def __call__(self, question: ModelQuestion) -> str:
        """Ask and wait.

        Raises:
            AppError: the model's own code, or `voice_lost`, `no_answer`, `timeout`, `model_busy`.
        """
        question_id, event = self._questions.ask(question)
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._answers[question_id] = answer
        try:
            self._send(event)
            async with asyncio.timeout(self._timeout_ms / 1000):
                answered = await answer
        except TimeoutError as error:
            raise AppError("the voice model did not answer a question", code="timeout") from error
        finally:
            self._questions.forget(question_id)
            del self._answers[question_id]
        if answered.error:
            raise AppError("the voice model did not answer a question", code=answered.error)
        return answered.text

    def on_voice(self, event: ServerEvent) -> None:
        answered = self._questions.on_voice(event)
        if answered is not None:
            self._give(answered)

    def on_voice_lost(self) -> None:
        for answered in self._questions.on_voice_lost():
            self._give(answered)

    def _give(self, answered: Answered) -> None:
        with suppress(KeyError, asyncio.InvalidStateError):
            self._answers[answered.question_id].set_result(answered)
