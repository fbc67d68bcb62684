"""Drives an `EngineSession` by hand: what it sends is collected, the work it asks for is listed.

Every event that it sends is written in the GA dialect and validated by the vendor's own models.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from typing import Any, TypeVar

import openai.types.realtime as ga_types
from pydantic import TypeAdapter

from app.engine.actions import (
    Action,
    FeedTurn,
    FinishHearing,
    KeepAudio,
    KeepText,
    Send,
    Speak,
    TakeAudio,
)
from app.engine.base import Heard
from app.engine.engine_session import EngineSession, SessionLimits
from app.engine.turns import Edge
from app.realtime.dialect import GA
from app.realtime.events import (
    ClientEvent,
    ContentPart,
    ErrorDetail,
    ErrorEvent,
    InputAudioAppend,
    Item,
    ItemCreate,
    ResponseDone,
    ServerEvent,
    ServerVad,
    SessionConfig,
    SessionUpdate,
    Transcription,
)
from audio.format import PCM16_24K
from tests.fakes.engine_parts import EchoResponder, MarkedEdge, quiet, said, speech

__all__ = ["Driver", "edge", "message", "names", "tool"]

_VENDOR: TypeAdapter[Any] = TypeAdapter(ga_types.RealtimeServerEvent)
E = TypeVar("E")


def edge(started: bool, at_ms: int) -> MarkedEdge:
    return MarkedEdge(started, at_ms)


def message(text: str, role: str = "user", item_id: str | None = None) -> ItemCreate:
    kind = "output_text" if role == "assistant" else "input_text"
    content = (ContentPart(type=kind, text=text),)
    return ItemCreate(Item(type="message", id=item_id, role=role, content=content))


def tool(name: str) -> dict[str, Any]:
    return {"type": "function", "name": name, "parameters": {"type": "object", "properties": {}}}


def names(events: Iterable[object]) -> list[str]:
    return [type(event).__name__ for event in events]


class Driver:
    """A session and everything that came out of it."""

    def __init__(self, *, max_turn_ms: int = 60_000, **settings: Any) -> None:
        numbers = itertools.count(1)
        self.responder = EchoResponder()
        self.keeps: bool | None = True
        """True if messages are kept; None leaves that to the test."""
        self.session = EngineSession(
            self.responder,
            lambda kind: f"{kind}_{next(numbers)}",
            limits=SessionLimits(max_turn_ms=max_turn_ms),
        )
        self.events: list[ServerEvent] = []
        self.work: list[Action] = []
        self.take(self.session.start())
        settings.setdefault("transcription", Transcription(model="any"))
        settings.setdefault("output_format", PCM16_24K)
        self.client(SessionUpdate(SessionConfig(**settings)))
        self.forget()

    def take(self, actions: list[Action]) -> list[ServerEvent]:
        sent: list[ServerEvent] = []
        for action in actions:
            if isinstance(action, Send):
                _VENDOR.validate_python(json.loads(GA.encode_server(action.event, "event_1")))
                sent.append(action.event)
            elif isinstance(action, TakeAudio):
                raise AssertionError("append through `audio`")
            else:
                self.work.append(action)
        self.events += sent
        for work in actions:
            if isinstance(work, KeepAudio | KeepText) and self.keeps is not None:
                sent += self.take(self.session.on_kept(work.item_id, self.keeps))
        return sent

    def forget(self) -> None:
        """Look at what comes from here on."""
        self.events.clear()
        self.work.clear()

    def client(self, event: ClientEvent) -> list[ServerEvent]:
        return self.take(self.session.on_client(event))

    def refused(self, event: ClientEvent) -> ErrorDetail:
        """The client's event is answered by an error, and by nothing else."""
        (error,) = self.client(event)
        assert isinstance(error, ErrorEvent)
        assert error.error.type == "invalid_request_error"
        return error.error

    def audio(self, pcm16: bytes, *edges: Edge) -> list[ServerEvent]:
        (taken,) = self.session.on_client(InputAudioAppend(pcm16))
        assert isinstance(taken, TakeAudio)
        return self.take(self.session.on_audio(taken.audio, edges))

    def turn(self, start_ms: int = 0, ms: int = 1000) -> str:
        """The caller speaks for so long from here on; the id of his item."""
        self.audio(speech(ms), edge(True, start_ms))
        self.audio(quiet(500), edge(False, start_ms + ms + 500))
        finish = [work for work in self.work if isinstance(work, FinishHearing)][-1]
        return finish.item_id

    def hears(self, words: str, item_id: str | None = None) -> list[ServerEvent]:
        item_id = item_id or [w for w in self.work if isinstance(w, FinishHearing)][-1].item_id
        heard = said(words) if words else Heard(transcript="")
        return self.take(self.session.on_heard(item_id, heard))

    def speaks(self, ms: int = 400, response_id: str | None = None) -> list[ServerEvent]:
        """Speech for the last response that wants some, and its end."""
        response_id = response_id or self.speak().response_id
        sent = self.take(self.session.on_speech(response_id, speech(ms, 24_000)))
        return sent + self.take(self.session.on_speech_end(response_id))

    def speak(self) -> Speak:
        return self.works(Speak)[-1]

    def works(self, kind: type[E]) -> list[E]:
        return [work for work in self.work if isinstance(work, kind)]

    def sent(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def fed(self, item_id: str) -> bytes:
        return b"".join(w.pcm16 for w in self.works(FeedTurn) if w.item_id == item_id)

    def done(self) -> ResponseDone:
        """The one response that has ended."""
        (done,) = self.sent(ResponseDone)
        return done

    @staticmethod
    def vad(**settings: Any) -> ServerVad:
        return ServerVad(**settings)
