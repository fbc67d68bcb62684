"""The caller's half of an engine session: turns become items, are heard, and are transcribed.

Pure. Every committed item ends in exactly one `...transcription.completed` or `.failed` when the
session asks for transcription, whatever happens to the response that it caused. With voice
activity detection a turn is recognized while it is spoken; a turn that the client commits is
recognized from the commit on, since only then is it known to be one.

A message is spoken with pauses: it ends after `MESSAGE_PAUSE_MS` of silence, or with a key.

The idle time-out counts appended audio, as the other positions do: from `response.done` plus what
the response has to say, or from the end of a caller turn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, assert_never

from app.engine.actions import (
    AbandonHearing,
    Action,
    FeedTurn,
    FinishHearing,
    KeepAudio,
    Listen,
    ResetVad,
    Send,
)
from app.engine.base import Heard, Responder
from app.engine.items import Conversation
from app.engine.prompts import CallerTurn
from app.engine.responses import SessionResponses
from app.engine.session_settings import vad_of
from app.engine.turns import MIN_COMMIT_MS, CallerInput, Edge, TurnAudio, TurnClosed, TurnOpened
from app.realtime.events import (
    ContentPart,
    ErrorDetail,
    InputAudioCleared,
    InputAudioCommitted,
    InputTimeoutTriggered,
    Item,
    ItemAdded,
    ItemDone,
    ServerVad,
    SessionConfig,
    SpeechStarted,
    SpeechStopped,
    Transcription,
    TranscriptionCompleted,
    TranscriptionFailed,
)
from audio.format import PCM16_16K

__all__ = ["MESSAGE_PAUSE_MS", "Listening"]

MESSAGE_PAUSE_MS: Final = 2_000
"""Callers think while they leave a message; answering machines wait longer still."""
_GOES_ON_MS: Final = 500
"""Speech so soon after a message was cut at the length limit belongs to the message."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A turn that is being spoken, or has just been."""

    item_id: str
    is_message: bool
    """The responder keeps its audio."""


class Listening:
    """The input buffer, the turn in it, and the way from a turn to a prompt."""

    def __init__(
        self,
        responder: Responder,
        conversation: Conversation,
        responses: SessionResponses,
        new_id: Callable[[str], str],
        *,
        max_turn_ms: int,
    ) -> None:
        self._responder = responder
        self._conversation = conversation
        self._responses = responses
        self._new_id = new_id
        self._input = CallerInput(max_turn_ms=max_turn_ms)
        self._vad: ServerVad | None = None
        self._turn: _Turn | None = None
        self._idle_at_ms: int | None = None
        self._goes_on_until_ms = -1

    @property
    def in_turn(self) -> bool:
        """The caller is speaking."""
        return self._turn is not None

    def asks_for_reply(self, item_id: str) -> bool:
        """The caller is speaking this turn, and its end will ask for a reply by itself."""
        turn, vad = self._turn, self._vad
        open_turn = turn is not None and turn.item_id == item_id and not turn.is_message
        return open_turn and vad is not None and vad.create_response

    def configure(self, config: SessionConfig) -> list[Action]:
        """Follow the session's turn detection, and whether a message is to come.

        New settings wait for the end of an open turn.
        """
        vad = self._detection(config)
        if vad == self._vad or (vad is not None and self._turn is not None):
            return []
        if vad is None or self._vad is None or vad.idle_timeout_ms != self._vad.idle_timeout_ms:
            self._idle_at_ms = None
        self._vad = vad
        return [*self._drop_turn(), *self._detect_anew()]

    def on_audio(self, pcm16: bytes, edges: Iterable[Edge], config: SessionConfig) -> list[Action]:
        """Take caller audio (int16 mono, 16 kHz) with what the detector found in it."""
        actions: list[Action] = []
        for step in self._input.append(pcm16, edges):
            match step:
                case TurnOpened():
                    actions += self._open(step, config)
                case TurnAudio():
                    assert self._turn is not None
                    actions.append(FeedTurn(self._turn.item_id, step.pcm16))
                case TurnClosed():
                    actions += self._close(step, config)
                case _:
                    assert_never(step)
        return actions + self._check_idle(config)

    def commit(self, config: SessionConfig) -> list[Action]:
        """The client ends the turn.

        Raises:
            Refusal: there is next to nothing to commit.
        """
        turn = self._turn
        audio = self._input.commit()
        if turn is None:
            turn = self._new_turn()
            item_id = turn.item_id
            begin = [self._listen(item_id, config), FeedTurn(item_id, audio)]
            return begin + self._committed(turn, audio, replies=False)
        return self._cut_short(turn, audio, config, replies=False)

    def end_message(self, config: SessionConfig) -> list[Action]:
        """The caller ends the message that they are speaking by a key, or in writing."""
        turn = self._turn
        if turn is None or not turn.is_message or self._input.buffered_ms < MIN_COMMIT_MS:
            return []
        replies = self._vad is not None and self._vad.create_response
        return self._cut_short(turn, self._input.commit(), config, replies=replies)

    def clear(self, config: SessionConfig) -> list[Action]:
        """The client forgets what it has appended, an open turn included."""
        self._input.clear()
        in_turn = self.in_turn
        actions = [*self._drop_turn(), Send(InputAudioCleared())]
        return actions + self._configured_anew(config) if in_turn else actions

    def on_heard(self, item_id: str, heard: Heard, config: SessionConfig) -> list[Action]:
        """The recognizer is done with a turn."""
        turn = self._responses.prompts.heard(item_id, heard)
        if turn is None:
            return []
        self._conversation.set_transcript(item_id, heard.transcript)
        return _transcribed(turn, heard, config)

    def on_hearing_failed(
        self, item_id: str, code: str, message: str, config: SessionConfig
    ) -> list[Action]:
        """A turn could not be recognized; it is answered as one that was not understood."""
        turn = self._responses.prompts.heard(item_id, None)
        if turn is None or not isinstance(config.transcription, Transcription):
            return []
        error = ErrorDetail(type="transcription_error", code=code, message=message)
        return [Send(TranscriptionFailed(item_id, 0, error))]

    def on_reply_over(self, spoken_ms: int) -> None:
        """A response has ended, with `spoken_ms` of speech to play: the silence counts from it."""
        self._rest(spoken_ms)

    def _open(self, step: TurnOpened, config: SessionConfig) -> list[Action]:
        goes_on = step.start_ms <= self._goes_on_until_ms
        turn = self._turn = self._new_turn(goes_on=goes_on)
        self._idle_at_ms = None
        actions: list[Action] = [Send(SpeechStarted(turn.item_id, step.start_ms))]
        if self._vad is not None and self._vad.interrupt_response:
            actions += self._responses.interrupt()
        return [*actions, self._listen(turn.item_id, config)]

    def _listen(self, item_id: str, config: SessionConfig) -> Action:
        asked = config.transcription
        languages: tuple[str, ...] = ()
        if isinstance(asked, Transcription):
            languages = (asked.language,) if asked.language else asked.languages
        return Listen(item_id, self._responder.context, languages)

    def _close(self, step: TurnClosed, config: SessionConfig) -> list[Action]:
        turn, self._turn = self._turn, None
        assert turn is not None
        replies = self._vad is not None and self._vad.create_response
        actions = [
            Send(SpeechStopped(turn.item_id, step.end_ms)),
            *self._committed(turn, step.pcm16, replies=replies),
        ]
        self._rest(0)
        if step.forced:
            self._goes_on_until_ms = step.end_ms + _GOES_ON_MS if turn.is_message else -1
            return actions + self._configured_anew(config)
        return actions + self.configure(config)

    def _cut_short(
        self, turn: _Turn, audio: bytes, config: SessionConfig, *, replies: bool
    ) -> list[Action]:
        """Close an open turn before its silence does."""
        self._turn = None
        stopped = Send(SpeechStopped(turn.item_id, self._input.clock_ms))
        committed = self._committed(turn, audio, replies=replies)
        return [stopped, *committed, *self._configured_anew(config)]

    def _committed(self, turn: _Turn, audio: bytes, *, replies: bool) -> list[Action]:
        audio_ms = PCM16_16K.bytes_to_ms(len(audio))
        vad = self._vad
        quiet_ms = vad.prefix_padding_ms + vad.silence_duration_ms if vad is not None else 0
        actions = self._item_events(turn.item_id)
        if turn.is_message:
            actions.append(KeepAudio(turn.item_id, audio))
        actions.append(FinishHearing(turn.item_id))
        self._responses.prompts.add(
            CallerTurn(
                item_id=turn.item_id,
                audio_ms=audio_ms,
                speech_ms=audio_ms - quiet_ms,
                replies=replies,
                never_empty=turn.is_message,
                is_message=turn.is_message,
            )
        )
        return actions

    def _item_events(self, item_id: str) -> list[Action]:
        item = Item(
            type="message",
            id=item_id,
            role="user",
            status="completed",
            content=(ContentPart(type="input_audio"),),
        )
        previous = self._conversation.add(item)
        return [
            Send(InputAudioCommitted(item_id, previous)),
            Send(ItemAdded(item, previous)),
            Send(ItemDone(item, previous)),
        ]

    def _check_idle(self, config: SessionConfig) -> list[Action]:
        now_ms = self._input.clock_ms
        if self._idle_at_ms is None or now_ms < self._idle_at_ms or self.in_turn:
            return []
        if self._responses.active or self._responses.prompts.being_heard:
            return []
        assert self._vad is not None and self._vad.idle_timeout_ms is not None
        start_ms = self._idle_at_ms - self._vad.idle_timeout_ms
        self._idle_at_ms = None
        item_id = self._new_id("msg")
        turn = CallerTurn(
            item_id=item_id,
            audio_ms=now_ms - start_ms,
            replies=True,
            # A caller who may be thinking about a message is not prompted again.
            never_empty=not self._responder.keeps_audio,
            heard=Heard(transcript=""),
        )
        if not turn.is_empty:
            self._responses.prompts.add(turn)
        return [
            Send(InputTimeoutTriggered(item_id, start_ms, now_ms)),
            *self._item_events(item_id),
            *_transcribed(turn, Heard(transcript=""), config),
        ]

    def _rest(self, extra_ms: int) -> None:
        """Let the idle time-out run from now."""
        idle_ms = self._vad.idle_timeout_ms if self._vad is not None else None
        if idle_ms is not None:
            self._idle_at_ms = self._input.clock_ms + extra_ms + idle_ms

    def _new_turn(self, *, goes_on: bool = False) -> _Turn:
        return _Turn(self._new_id("msg"), self._responder.keeps_audio or goes_on)

    def _drop_turn(self) -> list[Action]:
        turn, self._turn = self._turn, None
        if turn is None:
            return []
        stopped = Send(SpeechStopped(turn.item_id, self._input.clock_ms))
        return [stopped, AbandonHearing(turn.item_id)]

    def _configured_anew(self, config: SessionConfig) -> list[Action]:
        """Start the detector again with the settings in force, in the middle of speech or not."""
        self._vad = self._detection(config)
        return self._detect_anew()

    def _detection(self, config: SessionConfig) -> ServerVad | None:
        vad = vad_of(config)
        if vad is None or not self._responder.keeps_audio:
            return vad
        pause_ms = max(vad.silence_duration_ms, MESSAGE_PAUSE_MS)
        return replace(vad, silence_duration_ms=pause_ms)

    def _detect_anew(self) -> list[Action]:
        self._input.detect(self._vad)
        return [ResetVad(self._vad)]


def _transcribed(turn: CallerTurn, heard: Heard, config: SessionConfig) -> list[Action]:
    if not isinstance(config.transcription, Transcription):
        return []
    seconds = (turn.audio_ms + heard.repeated_ms) / 1000
    return [Send(TranscriptionCompleted(turn.item_id, 0, heard.transcript, seconds=seconds))]
