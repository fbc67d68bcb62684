"""Speech that a sound cut off, kept until it is known whether the sound was the caller's words.

The agent is cut at once whatever follows: `clear` to the carrier, truncation to the model, so that
an answer to the caller is never one to words they did not hear. What is reversible is kept here:
the audio that was not heard, and the model's answer to the sound, which is not played before the
interruption is decided. docs/decisions/0006 has the reasons. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.calls.media.playout import HeardItem, UnheardAudio
from app.calls.turns.meaningful_words import meaningful_words
from app.realtime.events import AudioDelta, AudioDone

__all__ = ["AgentSound", "FalseInterruption", "Interrupted", "Resumed"]


AgentSound = AudioDelta | AudioDone


class Interrupted(StrEnum):
    """The outcome of an interruption."""

    REAL = "real"
    FALSE = "false"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """An item that plays for a second time: how much was heard before, of how much there is."""

    heard_ms: int
    sent_ms: int
    known: bool = True
    """The model has the item, truncated; a fresh session does not."""


class FalseInterruption:
    """Decides whether speech that was cut off is resumed, and keeps what that takes.

    Words are an interruption. A short sound without words, by the transcript or for as long as
    `false_interruption_ms` after it ended, is a false one. A sound that lasts as long as that
    counts as real whatever it was. Sounds are known by the items that they become, since
    the transcript of an earlier turn may come late.
    """

    def __init__(self, false_interruption_ms: int = 2_000) -> None:
        """0 takes every sound for an interruption."""
        self._limit_ms = false_interruption_ms
        self._began_ms = 0
        self._ended_ms: int | None = None
        self._awaited: set[str] = set()  # sounds that may still bring words, while undecided
        self._transcribed: dict[str, bool] = {}  # all sounds of the last interruption
        self._late_words: frozenset[str] = frozenset()
        self._cut: list[HeardItem] = []
        self._unheard: tuple[UnheardAudio, ...] = ()
        self._withheld: list[AgentSound] = []
        self._resumed: dict[str, Resumed] = {}
        self._unfinished = False  # the model was still generating what was cut off
        self._reply_expected = False  # the model may yet begin to answer the sound

    @property
    def undecided(self) -> bool:
        """A sound has cut the agent off; what the model says meanwhile is withheld."""
        return bool(self._awaited)

    # Events ---------------------------------------------------------------------------------------

    def on_interrupted(
        self,
        sound_id: str,
        items: Sequence[HeardItem],
        unheard: tuple[UnheardAudio, ...],
        now_ms: int,
        *,
        unfinished: bool,
    ) -> bool:
        """A sound has cut these items off; True when they may yet be resumed."""
        if not unheard or not self._limit_ms:
            return False
        self._awaited, self._transcribed = {sound_id}, {sound_id: False}
        self._began_ms, self._ended_ms = now_ms, None
        self._cut, self._unheard = list(items), unheard
        self._unfinished, self._reply_expected = unfinished, True
        return True

    def on_speech_started(self, sound_id: str) -> None:
        """A sound begins: another one behind the one that interrupts, or a turn like any other."""
        self._late_words = frozenset()
        if self.undecided:
            self._awaited.add(sound_id)
            self._transcribed.setdefault(sound_id, False)
            self._ended_ms = None
        else:
            self._reply_expected = False

    def on_speech_stopped(self, now_ms: int) -> Interrupted | None:
        """The sound has ended; one that was not short is decided."""
        if not self.undecided:
            return None
        if now_ms - self._began_ms >= self._limit_ms:
            return self._decide(Interrupted.REAL)
        self._ended_ms = now_ms
        return None

    def on_partial_transcript(self, sound_id: str, text: str) -> Interrupted | None:
        """Some words of a sound are known, and more may follow."""
        spoken = sound_id in self._awaited and meaningful_words(text)
        return self._decide(Interrupted.REAL) if spoken else None

    def on_transcript(self, sound_id: str, text: str) -> Interrupted | None:
        """All words of a sound are known: none when it was not speech or transcription failed."""
        if sound_id in self._transcribed:
            self._transcribed[sound_id] = True
        if sound_id not in self._awaited:
            return None
        if meaningful_words(text):
            return self._decide(Interrupted.REAL)
        if len(self._awaited) > 1:  # the other sounds' transcripts may still bring words
            self._awaited.discard(sound_id)
            return None
        return None if self._ended_ms is None else self._decide(Interrupted.FALSE)

    def on_superseded(self) -> Interrupted | None:
        """Something else is said or pressed meanwhile: what was cut off stays cut off."""
        return self._decide(Interrupted.REAL) if self.undecided else None

    def on_tick(self, now_ms: int) -> Interrupted | None:
        """Decide by time alone."""
        if not self.undecided:
            return None
        if self._ended_ms is None:
            long = now_ms - self._began_ms >= self._limit_ms
            return self._decide(Interrupted.REAL) if long else None
        short = now_ms - self._ended_ms >= self._limit_ms
        return self._decide(Interrupted.FALSE) if short else None

    def on_voice_lost(self) -> None:
        """The model that knew the items is gone."""
        self._resumed = {key: replace(was, known=False) for key, was in self._resumed.items()}
        self._unfinished = self._reply_expected = False

    def _decide(self, outcome: Interrupted) -> Interrupted:
        self._awaited = set()
        return outcome

    # Questions that are asked once ---------------------------------------------------------------

    def answers_noise(self) -> bool:
        """True for a response that nobody asked for, once the sound it answers was a noise."""
        expected, self._reply_expected = self._reply_expected, False
        return expected and not self.undecided

    def take_unfinished(self) -> bool:
        """True when what was resumed was heard, and the model had not finished it."""
        if self.undecided or not self._unfinished:
            return False
        self._unfinished = False
        return True

    # State ----------------------------------------------------------------------------------------

    def withhold(self, event: AgentSound) -> None:
        """Keep sound of the model until the interruption is decided."""
        self._withheld.append(event)

    def take_withheld(self) -> list[AgentSound]:
        """Give up the sound that was withheld."""
        withheld, self._withheld = self._withheld, []
        return withheld

    def take_cut(self) -> list[HeardItem]:
        """The interruption was real: give up the items that it cut off for good."""
        cut, self._cut = self._cut, []
        self._unheard = ()
        self._unfinished = self._reply_expected = False
        return cut

    def take_unheard(self) -> tuple[UnheardAudio, ...]:
        """The interruption was false: give up what is to be played, and count it as resumed."""
        for item in self._cut:
            self._resumed[item.item_id] = Resumed(heard_ms=item.heard_ms, sent_ms=item.sent_ms)
        unheard, self._unheard, self._cut = self._unheard, (), []
        self._late_words = frozenset(i for i, done in self._transcribed.items() if not done)
        return unheard

    @property
    def noises(self) -> list[str]:
        """The sounds that had no words."""
        return [item_id for item_id, done in self._transcribed.items() if done]

    def interrupts_late(self, sound_id: str, text: str) -> bool:
        """True for words of a sound that was taken for a noise when its time was over."""
        return sound_id in self._late_words and bool(meaningful_words(text))

    # Items that were resumed --------------------------------------------------------------------

    def take_resumed(self, item_id: str) -> Resumed | None:
        """An item is over or cut again: what was heard of it before, if it was resumed."""
        return self._resumed.pop(item_id, None)

    def heard_before_ms(self, item_id: str) -> int:
        """Return the part of a resumed item that was heard before it was cut off."""
        return self._resumed[item_id].heard_ms
