"""The decision who, or what, has answered a call that was placed. Pure.

Three witnesses, none of which is believed alone where another says something else: the carrier's
detector, the sound of the line (how long the first words are, the silence behind them, beeps and
fax tones), and the transcript. Each gives points: to a person, to one kind of machine, or to
machines at large, since a detector that hears long speech does not know whose it is. A verdict is
reached with `ENOUGH` points, and `LEAD` more than speak for the other side. A machine of no known
kind that has fallen silent is a mailbox. docs/outbound.md has the table.

Figures: a person says less than two seconds and waits for an answer, a mailbox speaks on (Twilio's
and LiveKit's detectors draw the line at 2.4 and 2.5 s). A beep is one tone of 440 to 1400 Hz for
0.15 to 1.2 s. A fax that answers sends CED, 2100 Hz for 2.6 to 4 s (ITU-T T.30, 4.3.3.2), or V.8's
ANSam, which has the same tone; one that calls sends CNG, 1100 Hz for 0.5 s every 3.5 s (4.3.3.3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from app.calls.outbound.answered_by_phrases import Found, Kind, find_phrases, is_hello, plain
from app.events import AnsweredBy
from audio.line_sounds import LineSounds, SpeechBegan, SpeechEnded, Tone

__all__ = ["REVISED_WITHIN_MS", "Answer", "AnsweredByDetector"]


ENOUGH: Final = 4
LEAD: Final = 3
"""A phrase of a mailbox has 4 points, and the word of the carrier 2: together with a long greeting
the phrase prevails, and alone it does not."""

SHORT_MS: Final = 1_900
LONG_MS: Final = 3_200
PAUSE_MS: Final = 600
"""The silence after which somebody waits for an answer."""
SILENCE_ALONE_MS: Final = 1_400
_LONGER: Final = ((15_000, 4), (8_000, 3), (5_000, 2), (LONG_MS, 1))
"""Points for a mailbox by how long something speaks without a pause for an answer."""
_FEW_WORDS: Final = 4
BEEP_HZ: Final = (430, 1_420)
BEEP_MS: Final = (150, 1_250)
_CED_HZ: Final = (2_070, 2_130)
_CED_MS: Final = 900
_CNG_HZ: Final = (1_060, 1_140)
_CNG_MS: Final = (400, 620)
REVISED_WITHIN_MS: Final = 12_000
"""A person was taken for one: until then a mailbox's words may still say otherwise."""

MACHINE: Final = "machine"
"""In place of a verdict: evidence of a machine, of whichever kind."""

_CARRIER: Final[dict[str, tuple[AnsweredBy | str, int]]] = {
    "human": (AnsweredBy.HUMAN, 2),
    "machine_start": (MACHINE, 2),
    "machine_end_silence": (MACHINE, 2),
    "machine_end_other": (MACHINE, 2),
    "machine_end_beep": (AnsweredBy.VOICEMAIL, 3),
    "fax": (AnsweredBy.FAX, 3),
}
"""The words of the carrier, as Twilio's `AnsweredBy` spells it; `unknown` says nothing."""

_PHRASES: Final = {
    Kind.SCREENING: (AnsweredBy.SCREENING, 6),
    Kind.PERSON: (AnsweredBy.HUMAN, 5),
    Kind.SCREENING_HINT: (AnsweredBy.SCREENING, 4),
    Kind.VOICEMAIL: (AnsweredBy.VOICEMAIL, 4),
    Kind.MENU: (AnsweredBy.IVR, 5),
    Kind.HOLD: (AnsweredBy.HOLD, 4),
}
_MISSING_MS: Final = 300
_TRANSCRIPT_MS: Final = 1_500
"""The longest wait for the words of a turn that has ended, where calls are transcribed."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict, the one before, the time since the call was answered, and what speaks for it."""

    verdict: AnsweredBy
    before: AnsweredBy
    after_ms: int
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Evidence:
    verdict: AnsweredBy | str
    points: int
    words: str


class AnsweredByDetector:
    """Listens to one call; times are ms of the call's clock.

    Sound is kept and looked at in `on_tick`, some times a second.
    """

    def __init__(
        self,
        *,
        nobody_after_ms: int = 15_000,
        message_silence_ms: int = 2_500,
        transcribed: bool = True,
    ) -> None:
        """`transcribed`: the words of each turn come some time after it."""
        self.verdict = AnsweredBy.UNKNOWN
        self._nobody_after_ms = nobody_after_ms
        self._message_silence_ms = message_silence_ms
        self._transcribed = transcribed
        self._answered_ms: int | None = None
        self._verdict_ms = 0
        self._sounds: LineSounds | None = None
        self._waiting: list[bytes] = []
        self._carrier = ""
        self._fax_tones = 0
        self._ced = False
        self._begin_phase(0)

    def _begin_phase(self, now_ms: int) -> None:
        """Forget what was said: somebody else may speak from now on."""
        self._since_ms = now_ms
        self._speaking_since_ms: int | None = None
        self._speech_ms = 0
        self._turn_since_ms: int | None = None
        self._turn_ms = 0
        self._ended_ms: int | None = None
        self._beep: Tone | None = None
        self._words: dict[str, str] = {}
        self._words_ms = 0
        self._found: Found | None = None
        self._plain = ""

    # Evidence -----------------------------------------------------------------------------------

    @property
    def answered(self) -> bool:
        return self._answered_ms is not None

    def on_answered(self, now_ms: int) -> None:
        """The line is open."""
        if self._answered_ms is None:
            self._answered_ms = self._since_ms = now_ms

    def on_audio(self, ulaw: bytes) -> None:
        """A frame of the callee, mono mu-law at 8 kHz; fifty times a second."""
        self._waiting.append(ulaw)

    def close(self) -> None:
        """The verdict stands: nothing is listened to any more."""
        self._waiting.clear()

    def on_words(self, item_id: str, words: str, now_ms: int) -> None:
        """The transcript of a turn, so far or to its end."""
        if words.strip():
            self._words[item_id] = words
            self._words_ms = now_ms
            self._plain = plain(" ".join(self._words.values()))
            self._found = find_phrases(self._plain)

    def on_carrier(self, word: str) -> None:
        """The carrier's detector has decided, or says more."""
        self._carrier = word

    def on_agent_spoke(self, now_ms: int) -> None:
        """The agent has said its sentence: what comes now is an answer to it."""
        self._hear(now_ms)
        self._carrier = ""  # its word was about what answered, not about who comes now
        speaking = self._speaking_since_ms
        self._begin_phase(now_ms)
        if speaking is not None:
            self._speaking_since_ms = self._turn_since_ms = now_ms

    def on_tick(self, now_ms: int) -> Answer | None:
        """Listen to what has come, and judge; None while there is nothing new to say."""
        if self._answered_ms is None:
            return None
        if self.verdict is AnsweredBy.HUMAN and now_ms - self._words_ms > _TRANSCRIPT_MS:
            return None  # only words could say otherwise: the sound is looked at when they come
        self._hear(now_ms)
        evidence = self._evidence(now_ms)
        verdict = self._decide(evidence, now_ms)
        if verdict in (self.verdict, AnsweredBy.UNKNOWN):
            return None
        before, self.verdict = self.verdict, verdict
        self._verdict_ms = now_ms
        return Answer(verdict, before, now_ms - self._answered_ms, _in_words(evidence, verdict))

    # The message to a mailbox -------------------------------------------------------------------

    def message_due(self, now_ms: int) -> bool:
        """A mailbox is ready for a message: it has beeped, or has said nothing for a while."""
        if self.verdict is not AnsweredBy.VOICEMAIL or self._speaking_since_ms is not None:
            return False
        if self._beeped_last:
            return True
        return now_ms - max(self._ended_ms or 0, self._since_ms) >= self._message_silence_ms

    @property
    def spoke(self) -> bool:
        """Somebody, or something, has said something."""
        return bool(self._speech_ms)

    def quiet_ms(self, now_ms: int) -> int:
        """Time since the line was heard to say anything."""
        if self._speaking_since_ms is not None:
            return 0
        return now_ms - max(self._ended_ms or 0, self._since_ms)

    # Sound --------------------------------------------------------------------------------------

    def _hear(self, now_ms: int) -> None:
        sound, self._waiting = b"".join(self._waiting), []
        begin_ms = now_ms - len(sound) // 8
        if self._sounds is None:
            self._sounds = LineSounds(begin_ms)
        # A carrier may send nothing while the line is silent.
        missing_ms = begin_ms - self._sounds.at_ms
        heard_all = self._sounds.skip(missing_ms) if missing_ms > _MISSING_MS else []
        for heard in (*heard_all, *self._sounds.push(sound)):
            match heard:
                case SpeechBegan(at_ms):
                    self._on_speech_began(at_ms)
                case SpeechEnded(at_ms):
                    self._on_speech_ended(at_ms)
                case Tone():
                    self._on_tone(heard)

    def _on_speech_began(self, at_ms: int) -> None:
        at_ms = max(at_ms, self._since_ms)
        self._speaking_since_ms = at_ms
        if self._turn_since_ms is None or at_ms - (self._ended_ms or at_ms) >= PAUSE_MS:
            self._turn_since_ms = at_ms

    def _on_speech_ended(self, at_ms: int) -> None:
        if self._speaking_since_ms is None:
            return
        self._speech_ms += max(0, at_ms - self._speaking_since_ms)
        self._speaking_since_ms = None
        self._ended_ms = at_ms
        if self._turn_since_ms is not None:
            self._turn_ms = max(self._turn_ms, at_ms - self._turn_since_ms)

    def _on_tone(self, tone: Tone) -> None:
        if _CED_HZ[0] <= tone.hz <= _CED_HZ[1] and tone.ms >= _CED_MS:
            self._ced = True
        if tone.going_on:
            return
        if _CNG_HZ[0] <= tone.hz <= _CNG_HZ[1] and _CNG_MS[0] <= tone.ms <= _CNG_MS[1]:
            self._fax_tones += 1
        if BEEP_HZ[0] <= tone.hz <= BEEP_HZ[1] and BEEP_MS[0] <= tone.ms <= BEEP_MS[1]:
            self._beep = tone

    # Judging ------------------------------------------------------------------------------------

    def _evidence(self, now_ms: int) -> list[_Evidence]:
        found = [*self._by_tones(), *self._by_timing(now_ms), *self._by_words()]
        if self._carrier in _CARRIER:
            verdict, points = _CARRIER[self._carrier]
            found.append(_Evidence(verdict, points, f"the carrier says {self._carrier}"))
        return found

    def _by_tones(self) -> list[_Evidence]:
        if self._ced:
            return [_Evidence(AnsweredBy.FAX, 8, "the tone of a fax, 2100 Hz")]
        if self._fax_tones >= 2 and not self._speech_ms:
            return [_Evidence(AnsweredBy.FAX, 6, "the calls of a fax, 1100 Hz")]
        if self._beep is None:
            return []
        heard = f"a beep of {self._beep.hz} Hz for {self._beep.ms} ms"
        return [_Evidence(AnsweredBy.VOICEMAIL, 5 if self._speech_ms else 3, heard)]

    def _by_timing(self, now_ms: int) -> list[_Evidence]:
        found: list[_Evidence] = []
        longest = self._longest_ms(now_ms)
        points = next((points for ms, points in _LONGER if longest >= ms), 0)
        if points:
            heard = f"{longest / 1000:.1f} s of speech without a pause"
            found.append(_Evidence(MACHINE, points, heard))
        silence = self.quiet_ms(now_ms) if self._speech_ms else 0
        if silence < PAUSE_MS or self._beeped_last:
            return found
        heard = f"{self._speech_ms / 1000:.1f} s of speech and {silence / 1000:.1f} s of silence"
        alone = silence >= SILENCE_ALONE_MS
        if self._speech_ms <= SHORT_MS:
            found.append(_Evidence(AnsweredBy.HUMAN, 4 if alone else 2, heard))
        elif longest <= LONG_MS:
            found.append(_Evidence(AnsweredBy.HUMAN, 2 if alone else 1, heard))
        return found

    def _longest_ms(self, now_ms: int) -> int:
        """The longest speech so far without a pause for an answer."""
        if self._speaking_since_ms is None or self._turn_since_ms is None:
            return self._turn_ms
        return max(self._turn_ms, now_ms - self._turn_since_ms)

    @property
    def _beeped_last(self) -> bool:
        return self._beep is not None and (self._ended_ms or 0) <= self._beep.at_ms + self._beep.ms

    def _by_words(self) -> list[_Evidence]:
        if self._found is None:
            return []
        found = self._found
        hints = found.counts.get(Kind.VOICEMAIL_HINT, 0)
        believed = self._believed(found)
        evidence: list[_Evidence] = []
        if believed is not None:
            verdict, points = _PHRASES[believed]
            evidence.append(_Evidence(verdict, points, f'"{found.phrases[believed]}"'))
        if hints and believed in (None, Kind.VOICEMAIL):
            words = f'"{found.phrases[Kind.VOICEMAIL_HINT]}"'
            evidence.append(_Evidence(AnsweredBy.VOICEMAIL, min(2 * hints, 4), words))
        if believed is not None or hints or self._words_ms < (self._ended_ms or 0):
            return evidence  # or more was said since, whose words are still to come
        if is_hello(" ".join(self._words.values())):
            evidence.append(_Evidence(AnsweredBy.HUMAN, 3, f'"{self._plain}"'))
        elif found.words <= _FEW_WORDS:
            evidence.append(_Evidence(AnsweredBy.HUMAN, 2, "few words, none of them a machine's"))
        return evidence

    @staticmethod
    def _believed(found: Found) -> Kind | None:
        """The kind of phrase to believe, where there are several."""
        mailbox = found.counts.get(Kind.VOICEMAIL, 0)
        for kind in _PHRASES:
            if not found.has(kind):
                continue
            if kind is Kind.PERSON and (mailbox > 1 or found.has(Kind.MENU)):
                continue  # a recording that begins by asking how it can help
            if kind is Kind.SCREENING_HINT and mailbox:
                continue  # a mailbox that wants to know the reason of the call
            return kind
        return None

    def _decide(self, evidence: Sequence[_Evidence], now_ms: int) -> AnsweredBy:
        points: dict[AnsweredBy | str, int] = dict.fromkeys(AnsweredBy, 0)
        # A detector and our own clock measure the same length: the stronger of the two counts.
        large = max((one.points for one in evidence if one.verdict == MACHINE), default=0)
        for one in evidence:
            if one.verdict != MACHINE:
                points[one.verdict] += one.points
        human = points.pop(AnsweredBy.HUMAN)
        kind = AnsweredBy(max(points, key=points.__getitem__))
        if human >= ENOUGH and human - large - points[kind] >= LEAD:
            return self._if_possible(AnsweredBy.HUMAN, now_ms)
        second = max(count for verdict, count in points.items() if verdict is not kind)
        machine = points[kind] + large
        if points[kind] > second and machine >= ENOUGH and machine - human >= LEAD:
            by_words = self._found is not None and self._believed(self._found) is not None
            sure = by_words or kind is AnsweredBy.FAX or not self._words_due(now_ms)
            return self._if_possible(kind, now_ms) if sure else AnsweredBy.UNKNOWN
        if not points[kind] and large >= 2 and self._fell_silent(now_ms):
            return self._if_possible(AnsweredBy.VOICEMAIL, now_ms)
        silent = (
            self.verdict is AnsweredBy.UNKNOWN
            and self._speaking_since_ms is None
            and not self._speech_ms
            and not human + machine
        )
        if silent and now_ms - self._since_ms >= self._nobody_after_ms:
            return self._if_possible(AnsweredBy.NOBODY, now_ms)
        return AnsweredBy.UNKNOWN

    def _words_due(self, now_ms: int) -> bool:
        """The last turn has only just ended: its words may say more."""
        if not self._transcribed or self._ended_ms is None or self._words_ms > self._ended_ms:
            return False
        return self._speaking_since_ms is not None or now_ms - self._ended_ms < _TRANSCRIPT_MS

    def _fell_silent(self, now_ms: int) -> bool:
        """A long speech is over, and whatever made it waits; or it has no end."""
        longest = self._longest_ms(now_ms)
        if self._found is not None and not self._found.has(Kind.VOICEMAIL_HINT):
            return False  # words of no machine
        waits = self._speaking_since_ms is None and (
            self.quiet_ms(now_ms) >= self._message_silence_ms
        )
        # People at work greet for up to seven seconds; words that hint at a mailbox make it sooner.
        enough = _LONGER[1][0] if self._found is None else _LONGER[2][0]
        return (waits and longest >= enough) or longest >= _LONGER[0][0]

    def _if_possible(self, verdict: AnsweredBy, now_ms: int) -> AnsweredBy:
        return verdict if self._may_become(verdict, now_ms) else AnsweredBy.UNKNOWN

    def _may_become(self, verdict: AnsweredBy, now_ms: int) -> bool:
        """A verdict that was given is only changed by what speaks for a change."""
        match self.verdict:
            case AnsweredBy.UNKNOWN | AnsweredBy.HOLD | AnsweredBy.NOBODY:
                return True
            case AnsweredBy.HUMAN:
                believed = self._found is not None and any(
                    self._found.has(kind) for kind in (Kind.VOICEMAIL, Kind.SCREENING, Kind.MENU)
                )
                long = self._turn_ms >= SHORT_MS
                soon = now_ms - self._verdict_ms <= REVISED_WITHIN_MS
                return soon and believed and long
            case AnsweredBy.SCREENING:
                return verdict is not AnsweredBy.IVR
            case AnsweredBy.VOICEMAIL | AnsweredBy.IVR:
                return verdict is not AnsweredBy.HOLD
            case _:
                return False


def _in_words(evidence: Sequence[_Evidence], verdict: AnsweredBy) -> tuple[str, ...]:
    """The evidence for a verdict, and that against it, the strongest first."""
    ordered = sorted(evidence, key=lambda one: one.points, reverse=True)
    sides = {verdict} if verdict is AnsweredBy.HUMAN else {verdict, MACHINE}
    by = [one.words for one in ordered if one.verdict in sides]
    against = [f"against it: {one.words}" for one in ordered if one.verdict not in sides]
    return (*by, *against) or ("nothing was heard",)
