"""The server half of a Realtime conversation, as the offline engine holds it.

Pure: client events, audio with its speech edges, and the results of work come in; actions go out.
Decoding is `app.realtime.protocol`, performing the actions `app.engine.server`. Follows the GA
protocol of August 2026. What a client may rely on here, since compatible servers often break it:

- exactly one `response.done` per response, after the end of every item and part that it opened;
- one response of the default conversation at a time; a late cancel by id cancels nothing else;
- a cancelled reply leaves the transcription of the caller's turn alone;
- a turn in which nothing was said is transcribed as empty and makes no reply;
- a refused event changes nothing, and its error names the client's event id;
- results for a response that is over are dropped by its id.

The only clock is the caller's audio. Not here: images, MCP, transcription-only sessions, audio in
items that the client creates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from app.engine.actions import Action, KeepText, Note, NoteKind, Send, TakeAudio
from app.engine.base import Heard, Responder
from app.engine.generation import ModelResponder
from app.engine.items import Conversation, id_prefix, typed_text
from app.engine.listening import Listening
from app.engine.prompts import ToolOutput, TypedText
from app.engine.refusal import Refusal
from app.engine.responses import SessionResponses
from app.engine.session_settings import (
    ENGINE_MODEL,
    PIPELINE_MODEL,
    check_model,
    default_session,
    merge,
)
from app.engine.stages.base import TextUsage, ToolCall
from app.engine.turns import Edge
from app.realtime.events import (
    ClientEvent,
    InputAudioAppend,
    InputAudioClear,
    InputAudioCommit,
    Item,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemDone,
    ItemRetrieve,
    ItemRetrieved,
    ItemTruncate,
    ItemTruncated,
    ResponseCancel,
    ResponseCreate,
    SessionConfig,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    Unknown,
    Unset,
)
from audio.format import AudioFormat

__all__ = ["EngineSession", "SessionLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionLimits:
    """Bounds on what one client can make the engine hold."""

    max_turn_ms: int = 60_000
    max_append_bytes: int = 15 * 1024 * 1024
    """OpenAI's limit for one `input_audio_buffer.append`."""


class EngineSession:
    """One conversation. Every `on_...` returns the actions to perform, in order."""

    def __init__(
        self,
        responder: Responder,
        new_id: Callable[[str], str],
        *,
        voice: str = "default",
        limits: SessionLimits | None = None,
    ) -> None:
        self._generates = isinstance(responder, ModelResponder)
        self._limits = limits or SessionLimits()
        self._new_id = new_id
        self._responder = responder
        name = PIPELINE_MODEL if self._generates else ENGINE_MODEL
        self._config = default_session(session_id=new_id("sess"), voice=voice, model=name)
        self._conversation = Conversation()
        self._responses = SessionResponses(responder, self._conversation, new_id("conv"), new_id)
        self._listening = Listening(
            responder,
            self._conversation,
            self._responses,
            new_id,
            max_turn_ms=self._limits.max_turn_ms,
        )

    @property
    def config(self) -> SessionConfig:
        """The settings in force."""
        return self._config

    @property
    def input_format(self) -> AudioFormat:
        """The format of the client's audio."""
        assert not isinstance(self._config.input_format, Unset)
        return self._config.input_format

    def start(self, model: str = "") -> list[Action]:
        """Greet the client with the settings in force; `model` is the one that it asks for.

        A client that asks for a model that is not here is told so, and served all the same.
        """
        actions: list[Action] = [Send(SessionCreated(self._config))]
        try:
            check_model(model, "model", own=str(self._config.model))
        except Refusal as refusal:
            actions.append(Send(refusal.as_event("")))
        return actions + self._listening.configure(self._config)

    # The client -----------------------------------------------------------------------------------

    def on_client(self, event: ClientEvent) -> list[Action]:
        """Take an event of the client. One that is refused is answered by an error event."""
        try:
            actions = self._apply(event)
        except Refusal as refusal:
            return [Send(refusal.as_event(_event_id(event)))]
        return self._settled(actions)

    def on_malformed(
        self, code: str, message: str, *, param: str | None = None, event_id: str = ""
    ) -> list[Action]:
        """A message of the client could not be read; the session goes on."""
        return [Send(Refusal(code, message, param=param).as_event(event_id))]

    def _apply(self, event: ClientEvent) -> list[Action]:
        match event:
            case InputAudioAppend(audio=audio):
                return self._append(audio)
            case InputAudioCommit():
                return self._listening.commit(self._config)
            case InputAudioClear():
                return self._listening.clear(self._config)
            case SessionUpdate(session=update):
                return self._update(update)
            case ItemCreate():
                return self._create_item(event)
            case ItemDelete(item_id=item_id):
                self._conversation.delete(item_id)
                self._responses.prompts.drop(item_id)
                return [Send(ItemDeleted(item_id))]
            case ItemRetrieve(item_id=item_id):
                return [Send(ItemRetrieved(self._conversation.get(item_id)))]
            case ItemTruncate(item_id=item_id, content_index=index, audio_end_ms=end_ms):
                self._conversation.truncate(item_id, index, end_ms)
                return [Send(ItemTruncated(item_id, index, end_ms))]
            case ResponseCreate(response=request):
                return self._responses.create(request, self._config)
            case ResponseCancel(response_id=response_id):
                return self._responses.cancel(response_id)
            case Unknown(type=kind):
                raise Refusal("invalid_value", f"There is no client event {kind!r}.", param="type")
            case _:
                assert_never(event)

    def _append(self, audio: bytes) -> list[Action]:
        if len(audio) > self._limits.max_append_bytes:
            raise Refusal(
                "string_above_max_length",
                f"One append holds at most {self._limits.max_append_bytes} bytes.",
                param="audio",
            )
        return [TakeAudio(audio)]

    def _update(self, update: SessionConfig) -> list[Action]:
        before = self._config
        self._config = merge(before, update, spoken=self._responses.spoken)
        actions: list[Action] = []
        changed = self._config.instructions != before.instructions
        if self._config.instructions and changed and not self._generates:
            actions.append(Note(NoteKind.INSTRUCTIONS_IGNORED))
        actions.append(Send(SessionUpdated(self._config)))
        return actions + self._listening.configure(self._config)

    def _create_item(self, event: ItemCreate) -> list[Action]:
        given = replace(event.item, id=event.item.id or self._new_id(id_prefix(event.item)))
        item, previous = self._conversation.insert(given, event.previous_item_id)
        actions: list[Action] = [Send(ItemAdded(item, previous)), Send(ItemDone(item, previous))]
        if item.id == self._conversation.last_id:
            if item.type == "message" and item.role == "user":
                actions += self._listening.end_message(self._config)
            actions += self._prompt(item)
        return actions

    def _prompt(self, item: Item) -> list[Action]:
        """Note the answer that a new last item asks for, or is; have a typed message kept."""
        assert item.id is not None
        prompts = self._responses.prompts
        if item.type == "function_call_output":
            name = self._conversation.call_name(item.call_id or "")
            prompts.add(ToolOutput(item.id, name or "", item.output or ""))
        elif item.type == "message" and item.role == "user" and typed_text(item):
            text = typed_text(item)
            if self._responder.keeps_audio and self._responder.is_message(text):
                prompts.add(TypedText(item.id, text, kept=None))
                return [KeepText(item.id, text)]
            prompts.add(TypedText(item.id, text))
        elif item.type == "message" and item.role == "assistant":
            prompts.answered()
            self._responses.opened = True
        return []

    # Audio and the results of work ----------------------------------------------------------------

    def on_audio(self, pcm16: bytes, edges: Iterable[Edge]) -> list[Action]:
        """Caller audio as int16 mono at 16 kHz, with the edges of speech found in it."""
        return self._settled(self._listening.on_audio(pcm16, edges, self._config))

    def on_heard(self, item_id: str, heard: Heard) -> list[Action]:
        """A turn has been recognized."""
        return self._settled(self._listening.on_heard(item_id, heard, self._config))

    def on_heard_so_far(self, item_id: str, transcript: str) -> list[Action]:
        """A turn that may be about to end has been recognized so far."""
        if not self._generates or not self._listening.asks_for_reply(item_id):
            return []
        return self._responses.foresee(transcript, self._config)

    def on_hearing_failed(self, item_id: str, code: str, message: str) -> list[Action]:
        """A turn could not be recognized."""
        return self._settled(
            self._listening.on_hearing_failed(item_id, code, message, self._config)
        )

    def on_kept(self, item_id: str, kept: bool) -> list[Action]:
        """A caller's message was kept, or could not be."""
        self._responses.prompts.kept(item_id, kept)
        return self._settled([])

    def on_speech(self, response_id: str, pcm16: bytes) -> list[Action]:
        """A piece of a response's speech: int16 mono at 24 kHz."""
        return self._responses.on_speech(response_id, pcm16)

    def on_late(self, filler: str, pcm16: Sequence[bytes]) -> list[Action]:
        """An answer may be late: say the filler (int16 mono, 24 kHz, in chunks) if it is."""
        may_begin = not self._listening.in_turn
        return self._responses.fill(filler, pcm16, self._config, may_begin=may_begin)

    def on_words(self, response_id: str, text: str, written: str | None = None) -> list[Action]:
        """More of a response's text, from the text model; `written`: as it wrote it, if not so."""
        return self._responses.on_words(response_id, text, written)

    def on_used(self, response_id: str, usage: TextUsage) -> list[Action]:
        """The text model has told its usage for a response, which may still be spoken."""
        self._responses.on_used(response_id, usage)
        return []

    def on_dropped(self, usage: TextUsage) -> list[Action]:
        """A reply that was made ahead was dropped: its usage goes with the next response's."""
        self._responses.on_dropped(usage)
        return []

    def on_generated(
        self,
        response_id: str,
        calls: Sequence[ToolCall],
        stages: Mapping[str, str],
    ) -> list[Action]:
        """A response's text is complete, and so is its speech; `stages` join its metadata."""
        return self._settled(self._responses.on_generated(response_id, calls, stages))

    def on_speech_end(self, response_id: str) -> list[Action]:
        """A response's speech is complete."""
        return self._settled(self._responses.on_speech_end(response_id))

    def on_speech_failed(self, response_id: str, code: str, message: str) -> list[Action]:
        """A response's speech could not be made."""
        return self._settled(self._responses.on_speech_failed(response_id, code, message))

    def _settled(self, actions: list[Action]) -> list[Action]:
        """These actions, then whatever they have made possible."""
        actions += self._responses.settle(self._config, may_begin=not self._listening.in_turn)
        actions += self._listening.configure(self._config)
        spoken_ms = self._responses.pop_ended_audio_ms()
        if spoken_ms is not None:
            self._listening.on_reply_over(spoken_ms)
        return actions


def _event_id(event: ClientEvent) -> str:
    if isinstance(event, Unknown):
        raw = event.raw.get("event_id")
        return raw if isinstance(raw, str) else ""
    return event.event_id
