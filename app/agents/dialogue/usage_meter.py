"""The usage that a model bills for a conversation: each response and transcription once.

A response that never says what it used, since it was cut off with its connection or at the end of
the call, is billed all the same: it is estimated, and counted as such. Pure.

The rates of sound are OpenAI's: a token for each 100 ms of the caller and each 50 ms of the agent
(reference openai-realtime, section 8).
"""

from __future__ import annotations

from typing import Final

from app.events import TokenUsage
from app.realtime.events import TranscriptionCompleted, Usage

__all__ = ["UsageMeter"]


_AGENT_MS_PER_TOKEN: Final = 50
_WORDS_PER_SOUND: Final = 6
"""Tokens of the agent's sound to one of its transcript, at the pace of speech."""
_CHARS_PER_TOKEN: Final = 4


class UsageMeter:
    """The usage of one conversation, over all of its connections."""

    def __init__(self) -> None:
        self.total = TokenUsage()
        self._billed: set[str] = set()
        self._open: dict[str, int] = {}  # responses that have not said it yet, with their sound
        self._last: TokenUsage | None = None

    def on_created(self, response_id: str) -> None:
        """A response has begun."""
        self._open.setdefault(response_id, 0)

    def on_sound(self, response_id: str, sound_ms: int) -> None:
        """Sound of a response has come."""
        if response_id in self._open:
            self._open[response_id] += sound_ms

    def on_done(
        self, response_id: str, usage: Usage | None, instructions: str, *, failed: bool = False
    ) -> None:
        """A response is done; it may come twice, and counts once.

        One that `failed` and names no usage has cost nothing.
        """
        sound_ms = self._open.pop(response_id, None)
        self.total += TokenUsage(speech_seconds=(sound_ms or 0) / 1000)
        unknown = usage is None and (sound_ms is None or failed)
        if response_id in self._billed or unknown:
            return
        self._billed.add(response_id)
        if usage is None:
            self.total += self._estimate(sound_ms or 0, instructions)
        else:
            used = billed(usage)
            self.total += used
            if usage.input_tokens:  # a sentence that is only spoken asks nothing of a text model
                self._last = used

    def on_lost(self, instructions: str) -> None:
        """Nothing more is heard of the responses that are open: the connection is gone."""
        for response_id in list(self._open):
            self.on_done(response_id, None, instructions)

    def on_committed(self, item_id: str) -> None:
        """A turn of the caller begins a new item; some servers use an id again."""
        self._billed.discard(item_id)

    def on_transcription(self, event: TranscriptionCompleted) -> None:
        """A turn was transcribed; it may come twice, and counts once."""
        if event.item_id in self._billed:
            return
        self._billed.add(event.item_id)
        self.total += TokenUsage(
            transcription_seconds=event.seconds or 0.0,
            transcription_tokens=event.tokens or 0,
            transcription_text=event.text_tokens,
            transcription_audio=event.audio_tokens,
            transcription_output=event.output_tokens,
        )

    def _estimate(self, sound_ms: int, instructions: str) -> TokenUsage:
        """As large a context as the last response had, with what that one has added to it."""
        last = self._last or TokenUsage(input_text=len(instructions) // _CHARS_PER_TOKEN)
        sound = sound_ms // _AGENT_MS_PER_TOKEN
        return TokenUsage(
            input_text=last.input_text + last.output_text,
            input_audio=last.input_audio + last.output_audio,
            cached_text=last.cached_text,
            cached_audio=last.cached_audio,
            cached_unsplit=last.cached_unsplit,
            output_text=sound // _WORDS_PER_SOUND,
            output_audio=sound,
            estimated_responses=1,
        )


def billed(usage: Usage) -> TokenUsage:
    """Response usage by billing class.

    Cached tokens without their parts stay together; input tokens without theirs count as sound.
    """
    unsplit = max(0, usage.cached_tokens - usage.cached_text_tokens - usage.cached_audio_tokens)
    rest = max(0, usage.input_tokens - usage.input_text_tokens - usage.input_audio_tokens)
    return TokenUsage(
        input_text=usage.input_text_tokens,
        input_audio=usage.input_audio_tokens + rest,
        cached_text=usage.cached_text_tokens,
        cached_audio=usage.cached_audio_tokens,
        cached_unsplit=unsplit,
        output_text=usage.output_text_tokens,
        output_audio=usage.output_audio_tokens,
        estimated_responses=int(usage.estimated),
        unsplit_responses=1 if unsplit or rest else 0,
    )
