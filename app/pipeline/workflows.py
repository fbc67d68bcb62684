"""Workflows: text of a turn in, text to be spoken out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Sequence,
)
from dataclasses import replace
from typing import Final, Protocol

from app.agents.agent import Agent
from app.agents.session.agent_session import AgentSession
from app.agents.session.events import RawModelEvent
from app.engine.base import Hearing
from app.engine.chain import Chain
from app.engine.generation import ModelResponder
from app.engine.host import EngineParts, SpeechDetector
from app.engine.server import Engine
from app.engine.stages.base import StageError, TextModel
from app.engine.stages.fallback import TextModels
from app.errors import ConfigError
from app.http.streaming import StreamingHttp
from app.pipeline.openai import TEXT_MODEL, text_model
from app.realtime.events import ServerVad, TextDelta

__all__ = ["AgentWorkflow", "SimpleWorkflow", "VoiceWorkflow"]

_HEARD: Final = 'The user interrupted. Of your last answer they heard only: "{}"'
_UNHEARD: Final = "The user interrupted, and heard nothing of your last answer."
Answer = str | Iterable[str] | AsyncIterable[str] | None


class VoiceWorkflow(Protocol):
    """Answers turns.

    A workflow may also have `async close()`, called at the session's end, and
    `async interrupted(heard: str)`, called when its answer was stopped: `heard` is the part of it
    that was played.
    """

    def on_start(self) -> AsyncIterator[str]:
        """Yield the words said before the first turn; only of streamed input."""
        ...

    def run(self, transcription: str) -> AsyncIterator[str]:
        """Yield the words that answer a turn, in pieces of any size."""
        ...


class SimpleWorkflow:
    """A function of a turn's text: it returns text, several or None, or yields, and may be async.

    None, or no text at all, is no answer: the turn ends in silence.
    """

    def __init__(
        self, function: Callable[[str], Answer | Awaitable[Answer]], *, greeting: str | None = None
    ) -> None:
        self._function = function
        self._greeting = greeting

    async def on_start(self) -> AsyncIterator[str]:
        if self._greeting:
            yield self._greeting

    async def run(self, transcription: str) -> AsyncIterator[str]:
        answer = self._function(transcription)
        if inspect.isawaitable(answer):
            answer = await answer
        if answer is None:
            return  # nothing to say
        if isinstance(answer, str):
            yield answer
        elif isinstance(answer, AsyncIterable):
            async for words in answer:
                yield words
        elif not isinstance(answer, Iterable):
            kind = type(answer).__name__
            raise ConfigError(f"the function of a SimpleWorkflow returned {kind}: return text")
        else:
            for words in answer:
                # Separate texts, not pieces of one: two sentences must not run together.
                yield f"{words} "


class AgentWorkflow:
    """An agent with its tools, handoffs and guardrails, over a text model.

    It is the agent of calls and sessions, so it remembers the conversation over the turns. Used by
    one pipeline at a time; `close` ends its conversation.
    """

    def __init__(
        self,
        agents: Agent | Iterable[Agent],
        model: TextModel | str | Sequence[TextModel | str] = TEXT_MODEL,
    ) -> None:
        """The first of `agents` answers; the others, or a `Roster`'s, are there for handoffs.

        A `model` that is a name is OpenAI's, with the key in `OPENAI_API_KEY`, or one of the server
        in `OPENAI_BASE_URL`. Of several models the next one answers where one fails, or has written
        nothing for 1.5 s.

        Raises:
            ConfigError: a name, and no key for OpenAI.
        """
        given = [agents] if isinstance(agents, Agent) else list(agents)
        models = [model] if isinstance(model, str) or not isinstance(model, Sequence) else model
        http = StreamingHttp()
        asked = TextModels([text_model(m, http) if isinstance(m, str) else m for m in models])
        self._agents = [
            replace(agent, session=replace(agent.session, output_modalities=("text",)))
            for agent in given
        ]
        self._engine = _text_engine(asked, http)
        self._session: AgentSession | None = None

    async def on_start(self) -> AsyncIterator[str]:
        if self._agents[0].greeting:
            yield self._agents[0].greeting

    async def run(self, transcription: str) -> AsyncIterator[str]:
        session = await self._opened()
        asked = asyncio.create_task(session.ask(transcription), name="agent workflow")
        events = session.subscribe(asked)
        asked.add_done_callback(session.unsubscribe)
        item_id = ""
        try:
            async for event in events:
                match event:
                    case RawModelEvent(event=TextDelta() as words):
                        # Another message, such as the answer behind a tool, is another sentence.
                        apart = " " if item_id not in ("", words.item_id) else ""
                        item_id = words.item_id
                        yield f"{apart}{words.delta}"
            await asked
        finally:
            if not asked.done():
                asked.cancel()
                await session.interrupt()

    async def interrupted(self, heard: str) -> None:
        """Tell the model what of its last answer was heard."""
        if self._session is not None:
            part = {"type": "input_text", "text": _HEARD.format(heard) if heard else _UNHEARD}
            item = {"type": "message", "role": "system", "content": [part]}
            await self._session.send_event({"type": "conversation.item.create", "item": item})

    async def close(self) -> None:
        """End the conversation."""
        session, self._session = self._session, None
        if session is not None:
            await session.__aexit__(None, None, None)
        if self._engine.running:
            await self._engine.close()

    async def _opened(self) -> AgentSession:
        if self._session is None:
            await self._engine.start()
            session = AgentSession(self._agents, self._engine.model(), plays_audio=False)
            self._session = await session.__aenter__()
        return self._session


class _NoSpeech:
    """The speech parts of an engine that only reads and writes."""

    def listen(self, context: str, languages: Sequence[str] = ()) -> Hearing:
        raise StageError(f"no speech to text here ({context or 'text only'})")

    async def speak(self, text: str, *, voice: str, speed: float) -> AsyncGenerator[bytes, None]:
        raise StageError(f"no voice here for {len(text)} characters ({voice}, {speed})")
        yield b""


class _NoDetector:
    quiet_ms = 0

    def push(self, pcm16: bytes) -> tuple[()]:
        return ()


def _text_engine(model: TextModel, http: StreamingHttp) -> Engine:
    def make_vad(_: ServerVad) -> SpeechDetector:
        return _NoDetector()

    nothing = _NoSpeech()
    return Engine(
        EngineParts(
            recognizer=nothing,
            synthesizer=nothing,
            make_responder=lambda _hours: ModelResponder(),
            make_vad=make_vad,
            chain=Chain(model, nothing),
            owned=(http,),
        )
    )
