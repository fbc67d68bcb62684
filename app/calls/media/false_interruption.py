"""Speech that a sound cut off, kept until it is known whether the sound was a caller.

The agent is cut at once whatever follows: `clear` to the carrier, truncation to the model, so that
an answer to the caller is never one to words they did not hear. What is reversible is kept here:
the audio that was not heard, and the model's answer to the sound, which is not played while a
resumption is still possible. Deciding is `app.calls.media.false_interruption.FalseInterruption`'s,
doing it the conversation's. Why it works this way: docs/decisions/0006. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.calls.media.playout import HeardItem, Rest
from app.calls.turns.words import meaningful_words
from app.realtime.events import AudioDelta, AudioDone

__all__ = ["FalseInterruption", "Held", "Interrupted", "Resumed", "Resumption"]


Held = AudioDelta | AudioDone


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """An item that plays for a second time: how much was heard before, of how much there is."""

    heard_ms: int
    sent_ms: int
    known: bool = True
    """The model has the item, truncated; a fresh session does not."""


class Resumption:
    """The interruption of one call that is not decided yet, and the items that were resumed."""

    def __init__(self, false_interruption_ms: int) -> None:
        self._machine = FalseInterruption(false_interruption_ms)
        self._rest: tuple[Rest, ...] = ()
        self._cut: list[HeardItem] = []
        self._held: list[Held] = []
        self._sounds: dict[str, bool] = {}
        self._resumed: dict[str, Resumed] = {}
        self.unfinished = False
        self.reply_comes = False
        self.late_sounds: frozenset[str] = frozenset()

    @property
    def open(self) -> bool:
        """Not decided: what the model says meanwhile is held."""
        return self._machine.open

    # What happens -------------------------------------------------------------------------------

    def on_cut(
        self,
        sound_id: str,
        items: Sequence[HeardItem],
        rest: tuple[Rest, ...],
        now_ms: int,
        *,
        unfinished: bool,
    ) -> bool:
        """A sound has cut these items off; True when they may yet be resumed."""
        if not rest:
            return False
        self._machine.on_interrupted(sound_id, now_ms)
        if self.open:
            self._cut, self._rest, self._sounds = list(items), rest, {sound_id: False}
            self.unfinished, self.reply_comes = unfinished, True
        return self.open

    def on_speech_started(self, sound_id: str) -> None:
        """A sound, which may be the one that interrupts or another one behind it."""
        self.late_sounds = frozenset()
        if not self.open:
            self.reply_comes = False
        else:
            self._sounds.setdefault(sound_id, False)
            self._machine.on_speech_started(sound_id)

    def on_speech_stopped(self, now_ms: int) -> Interrupted | None:
        return self._machine.on_speech_stopped(now_ms)

    def on_words(self, sound_id: str, text: str) -> Interrupted | None:
        """Some words of a sound, before all of them are known."""
        return self._machine.on_transcript(sound_id, text) if meaningful_words(text) else None

    def on_transcript(self, sound_id: str, text: str) -> Interrupted | None:
        """What a sound was in the end. Late transcripts of earlier turns decide nothing."""
        if sound_id in self._sounds:
            self._sounds[sound_id] = True
        return self._machine.on_transcript(sound_id, text)

    def on_tick(self, now_ms: int) -> Interrupted | None:
        return self._machine.on_tick(now_ms)

    def on_overtaken(self) -> Interrupted | None:
        """Something else is said or pressed meanwhile: what was cut off stays so."""
        return self._machine.on_overtaken()

    def hold(self, event: Held) -> None:
        """Keep sound of the model until the interruption is decided."""
        self._held.append(event)

    # When it is decided -------------------------------------------------------------------------

    def take_held(self) -> list[Held]:
        held, self._held = self._held, []
        return held

    def take_cut(self) -> list[HeardItem]:
        """It was real: the items that were cut off for good."""
        cut, self._cut = self._cut, []
        self._rest = ()
        self.unfinished = self.reply_comes = False
        return cut

    def take_rest(self) -> tuple[Rest, ...]:
        """It was none: what is to be played. The items count as resumed from here on."""
        for item in self._cut:
            self._resumed[item.item_id] = Resumed(heard_ms=item.heard_ms, sent_ms=item.sent_ms)
        rest, self._rest, self._cut = self._rest, (), []
        # Words that come after the time was over are words all the same.
        self.late_sounds = frozenset(i for i, written in self._sounds.items() if not written)
        return rest

    @property
    def noises(self) -> list[str]:
        """The sounds that had no words."""
        return [item_id for item_id, written in self._sounds.items() if written]

    # Items that were resumed --------------------------------------------------------------------

    def take_resumed(self, item_id: str) -> Resumed | None:
        """An item is over or cut again: what was heard of it before, if it was resumed."""
        return self._resumed.pop(item_id, None)

    def heard_ms(self, item_id: str) -> int:
        """What was heard of a resumed item before it was."""
        return self._resumed[item_id].heard_ms

    def on_voice_lost(self) -> None:
        """The model that knew the items is gone."""
        self._resumed = {key: replace(was, known=False) for key, was in self._resumed.items()}
        self.unfinished = self.reply_comes = False


# False interruptions ------------------------------------------------------------------------------


class Interrupted(StrEnum):
    """What an interruption turned out to be."""

    REAL = "real"
    FALSE = "false"


class FalseInterruption:
    """Decides whether speech that was cut off is taken up again.

    The agent is silent from the first sound; whether it stays so depends on what follows. Words are
    an interruption. A short sound without words, by the transcript or for as long as
    `false_interruption_ms` after it ended, was none. A sound that lasts as long as that is not
    short, and counts as real whatever it was. Sounds are known by the items that they become, since
    the transcript of an earlier turn may come late.
    """

    def __init__(self, false_interruption_ms: int = 2_000) -> None:
        """0 turns it off: every interruption is real."""
        self._limit_ms = false_interruption_ms
        self._sounds: set[str] = set()
        self._began_ms = 0
        self._ended_ms: int | None = None

    @property
    def open(self) -> bool:
        """Not decided yet: hold back the reply to this sound, and keep what was cut off."""
        return bool(self._sounds)

    def on_interrupted(self, item_id: str, now_ms: int) -> None:
        """The caller's sound has cut the agent off."""
        if self._limit_ms:
            self._sounds = {item_id}
            self._began_ms, self._ended_ms = now_ms, None

    def on_speech_started(self, item_id: str) -> None:
        """Another sound, while the agent is silent: it belongs to the same interruption."""
        if self._sounds:
            self._sounds.add(item_id)
            self._ended_ms = None

    def on_speech_stopped(self, now_ms: int) -> Interrupted | None:
        """The sound has ended; one that was not short is decided."""
        if not self._sounds:
            return None
        if now_ms - self._began_ms >= self._limit_ms:
            return self._decide(Interrupted.REAL)
        self._ended_ms = now_ms
        return None

    def on_transcript(self, item_id: str, transcript: str) -> Interrupted | None:
        """What the caller said; nothing, when it was no speech or the transcription failed."""
        if item_id not in self._sounds:
            return None
        if meaningful_words(transcript):
            return self._decide(Interrupted.REAL)
        if len(self._sounds) > 1:  # the other sounds' transcripts may still bring words
            self._sounds.discard(item_id)
            return None
        return None if self._ended_ms is None else self._decide(Interrupted.FALSE)

    def on_overtaken(self) -> Interrupted | None:
        """Something else was said or pressed meanwhile: what was cut off stays cut off."""
        return self._decide(Interrupted.REAL) if self._sounds else None

    def on_tick(self, now_ms: int) -> Interrupted | None:
        if not self._sounds:
            return None
        if self._ended_ms is None:
            long = now_ms - self._began_ms >= self._limit_ms
            return self._decide(Interrupted.REAL) if long else None
        if now_ms - self._ended_ms >= self._limit_ms:
            return self._decide(Interrupted.FALSE)
        return None

    def _decide(self, outcome: Interrupted) -> Interrupted:
        self._sounds = set()
        return outcome
