"""`OpenAIRealtimeHandler`: talk with a Realtime model in ten lines, without a phone.

A face for `AgentSession` with the interface of the seed system: callbacks or `get_audio` for what
the model says, `send_audio` and `send_text` for the user. Sound is mono signed 16-bit little-endian
PCM at 24 kHz both ways. It plays nothing, so an interruption only drops the sound that was not
fetched yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final, Literal

from app.agents.agent import Agent
from app.agents.session.agent_session import AgentSession
from app.agents.session.events import Audio, RawModelEvent, SessionError, SessionEvent
from app.agents.session.subscriptions import Subscription
from app.errors import ConfigError, VoiceClosed, VoiceError, VoiceUnavailable
from app.realtime import events as ev
from app.realtime.connection import VoiceModel
from app.realtime.dialect import BETA, GA
from app.realtime.websocket import OPENAI_URL, WebSocketModel
from audio.format import PCM16_24K

__all__ = ["OpenAIRealtimeHandler"]


logger = logging.getLogger(__name__)

Callback = Callable[..., Awaitable[None] | None]

UPLINK_MAX_MS: Final = 2_000  # older sound is of no use
SOUND_LIMIT: Final = 1_000  # pieces that wait for `get_audio`, which a program may never call
CALLBACK_LIMIT: Final = 2_000  # events that wait behind a slow callback
DISCONNECT_TIMEOUT_S: Final = 2.0
TRANSCRIPTION: Final = ev.Transcription(model=ev.DEFAULT_TRANSCRIPTION_MODEL)
_DIALECTS: Final = {"ga": GA, "beta": BETA}
_NOT_COMPLETED: Final = (ev.ResponseStatus.FAILED, ev.ResponseStatus.INCOMPLETE)


class OpenAIRealtimeHandler:
    """A conversation with a Realtime model.

    Args:
        api_key: OpenAI's, or that of the gateway at `url`.
        voice: one that Realtime has (`marin`, `cedar`, `alloy`, ...).
        url: another server than OpenAI's.
        voice_model: any voice model in place of key, model, url and dialect: a gateway's, the
            offline engine's, or a test's.
        turn_detection: how the model finds the user's turns; `None`: `send_audio` commits them.
        transcription: how the user's words are transcribed; `None`: not at all.
        dialect: `beta` for servers that speak the protocol as it was before general availability.
    """

    def __init__(  # noqa: PLR0913 - options of the public API, each with a default
        self,
        api_key: str,
        model: str = "gpt-realtime-2.1",
        voice: str = "alloy",
        system_instruction: str = "You are a helpful AI assistant.",
        *,
        url: str = OPENAI_URL,
        voice_model: VoiceModel | None = None,
        turn_detection: ev.ServerVad | ev.SemanticVad | None = ev.DEFAULT_TURN_DETECTION,
        transcription: ev.Transcription | None = TRANSCRIPTION,
        dialect: Literal["ga", "beta"] = "ga",
    ) -> None:
        if dialect not in _DIALECTS:
            raise ConfigError(f"dialect is ga or beta, and not {dialect!r}")
        self._model = voice_model or WebSocketModel.openai(
            api_key, model, url=url, dialect=_DIALECTS[dialect]
        )
        session = ev.SessionConfig(
            output_modalities=("audio",),
            # Those of an agent are a template.
            instructions=system_instruction.replace("{", "{{").replace("}", "}}"),
            voice=voice,
            input_format=PCM16_24K,
            output_format=PCM16_24K,
            transcription=transcription,
            turn_detection=turn_detection,
        )
        self._agent = Agent(name="assistant", session=session)
        self._callbacks: dict[str, Callback | None] = {}
        self._running: _Running | None = None

    def __repr__(self) -> str:
        return f"OpenAIRealtimeHandler({self._model.name!r})"

    def set_callbacks(
        self,
        on_audio: Callback | None = None,
        on_transcript: Callback | None = None,
        on_user_transcript: Callback | None = None,
        on_turn_complete: Callback | None = None,
        on_user_turn_complete: Callback | None = None,
        on_interrupted: Callback | None = None,
        on_error: Callback | None = None,
    ) -> None:
        """Set plain functions or coroutine functions to call; replaces all that were set.

        They are called one after another, apart from the conversation: a slow one delays the
        next call and nothing else, one that raises is logged.

        Args:
            on_audio: `(sound: bytes)`, the model's speech as it is generated.
            on_transcript: `(text: str, is_final: bool)`, its words: pieces, then the whole.
            on_user_transcript: `(text: str)`, the user's words.
            on_turn_complete: `()`, the model has finished generating.
            on_user_turn_complete: `()`, the user has stopped speaking.
            on_interrupted: `()`, the user speaks: stop your player, and drop what it has not
                played.
            on_error: `(code: str, message: str)`, the model failed. A failure that ends the
                conversation comes last; every method then raises it.
        """
        self._callbacks.update(
            on_audio=on_audio,
            on_transcript=on_transcript,
            on_user_transcript=on_user_transcript,
            on_turn_complete=on_turn_complete,
            on_user_turn_complete=on_user_turn_complete,
            on_interrupted=on_interrupted,
            on_error=on_error,
        )

    async def connect(self, initial_prompt: str | None = None) -> None:
        """Connect and agree on the session; `initial_prompt` is text for the model to answer first.

        Raises:
            VoiceRefused: wrong key, model or settings.
            VoiceUnavailable: not reached within the budget, after retries.
        """
        await self.disconnect()
        session = AgentSession(
            self._agent,
            self._model,
            plays_audio=False,
            uplink_max_ms=UPLINK_MAX_MS,
            reconnect=False,
        )
        running = _Running(session, self._callbacks)
        try:
            await asyncio.shield(running.connected)
        except asyncio.CancelledError:
            running.task.cancel()
            raise
        self._running = running
        if initial_prompt:
            await self.send_text(initial_prompt)

    async def send_audio(self, audio_data: bytes, *, commit: bool = False) -> None:
        """Queue sound for the model; at once while it keeps up.

        When 2 s wait already this takes as long as the sound lasts, at most, and then drops the
        oldest: a recording may be sent as fast as you can, a microphone is not held up for good.
        `commit`: the turn ends here, and the model answers; needed without turn detection.

        Raises:
            VoiceClosed: not connected, or not any more.
        """
        with self._open() as running:
            await running.session.send_audio(audio_data, commit=commit)

    async def send_text(self, text: str, end_of_turn: bool = True) -> None:
        """Say something to the model in writing; at the end of a turn it answers.

        Raises:
            VoiceClosed: not connected, or not any more.
        """
        with self._open() as running:
            await running.session.send_message(text, reply=end_of_turn)

    async def get_audio(self) -> bytes:
        """The next piece of the model's speech; waits for it. Cancelling it loses nothing.

        Raises:
            VoiceClosed: not connected, or the connection ended and all was handed out.
        """
        with self._open() as running:
            async for event in running.sound:
                if isinstance(event, Audio):
                    return event.audio
            raise running.session.failure or _not_connected()

    async def disconnect(self) -> None:
        """End the conversation; safe at any time, also twice."""
        running, self._running = self._running, None
        if running is not None:
            await running.close()

    @contextlib.contextmanager
    def _open(self) -> Iterator[_Running]:
        """Use the session under way; raises VoiceClosed without one, or once it is over."""
        if self._running is None:
            raise _not_connected()
        try:
            yield self._running
        except VoiceUnavailable as lost:
            broken = lost.__cause__
            if isinstance(broken, VoiceClosed):
                raise broken from None
            raise VoiceClosed(f"{lost.message}: {lost.code}", close_code=1000) from lost


def _not_connected() -> VoiceClosed:
    return VoiceClosed("not connected: call connect() first", close_code=1000)


class _Running:
    """A session in a task of its own, the sound to fetch, and the calls of the user's functions."""

    def __init__(self, session: AgentSession, callbacks: dict[str, Callback | None]) -> None:
        self.session = session
        self.sound = Subscription(SOUND_LIMIT)
        self.connected: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(self._run(callbacks), name="realtime handler")
        self._calling: asyncio.Task[None] | None = None

    async def _run(self, callbacks: dict[str, Callback | None]) -> None:
        try:
            async with self.session, asyncio.TaskGroup() as group:
                self.connected.set_result(None)
                events = self.session.subscribe(self, limit=CALLBACK_LIMIT)
                self._calling = group.create_task(_call_back(events, callbacks))
                async for event in self.session:
                    if isinstance(event, Audio):
                        self.sound.put(event)
                    elif isinstance(event, RawModelEvent):
                        if isinstance(event.event, ev.SpeechStarted):
                            self.sound.clear()
                        _log(event.event)
                    elif isinstance(event, SessionError) and event.code == "response_timeout":
                        logger.warning("model did not answer")
                self.sound.end()
        except VoiceError as error:  # it did not connect
            self.connected.set_exception(error)

    async def close(self) -> None:
        await self.session.close()
        if asyncio.current_task() is self._calling:
            return  # called by a callback: the tasks end by themselves once it returns
        done, _ = await asyncio.wait({self.task}, timeout=DISCONNECT_TIMEOUT_S)
        if not done:  # a callback that does not return
            self.task.cancel()
            await asyncio.wait({self.task})


def _log(event: ev.ServerEvent) -> None:
    if isinstance(event, ev.ErrorEvent):
        logger.warning("model reported an error", extra={"code": event.error.code})
    elif isinstance(event, ev.ResponseDone) and event.response.status in _NOT_COMPLETED:
        response = event.response
        code = response.error.code if response.error else response.status_reason
        facts = {"status": response.status.value, "code": code}
        logger.warning("response not completed", extra=facts)


async def _call_back(events: Subscription, callbacks: dict[str, Callback | None]) -> None:
    async for event in events:
        name, *arguments = _callback_for(event)
        callback = callbacks.get(name)
        if callback is None:
            continue
        try:
            result = callback(*arguments)
            if inspect.isawaitable(result):
                await result
        except Exception:  # the user's code: an error in it must not end the conversation
            logger.exception("callback failed")


def _callback_for(event: SessionEvent) -> tuple[Any, ...]:
    """The name of the callback that an event is for, and its arguments."""
    if isinstance(event, Audio):
        return "on_audio", event.audio
    if isinstance(event, SessionError) and not event.benign:
        return "on_error", event.code, event.message
    match event.event if isinstance(event, RawModelEvent) else None:
        case ev.AudioTranscriptDelta(delta=delta):
            return "on_transcript", delta, False
        case ev.AudioTranscriptDone(transcript=transcript):
            return "on_transcript", transcript, True
        case ev.TranscriptionCompleted(transcript=transcript) if transcript:
            return "on_user_transcript", transcript
        case ev.ResponseDone():
            return ("on_turn_complete",)
        case ev.SpeechStarted():
            return ("on_interrupted",)
        case ev.SpeechStopped():
            return ("on_user_turn_complete",)
        case _:
            return ("",)
