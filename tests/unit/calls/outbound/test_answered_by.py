"""The verdict about those who answer: three witnesses, and what happens where they disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from app.calls.outbound import answered_by as detector
from app.calls.outbound.answered_by import AnsweredByDetector
from app.calls.outbound.answered_by_phrases import Kind, find_phrases, plain
from app.events import AnsweredBy
from audio.g711 import encode_ulaw

H, S, V, I, F, W, N, U = (  # noqa: E741 - columns of the tables below
    AnsweredBy.HUMAN,
    AnsweredBy.SCREENING,
    AnsweredBy.VOICEMAIL,
    AnsweredBy.IVR,
    AnsweredBy.FAX,
    AnsweredBy.HOLD,
    AnsweredBy.NOBODY,
    AnsweredBy.UNKNOWN,
)


def sound(step: str) -> bytes:
    """`quiet 500`, `voice 1200` or `tone 1000 300` as mu-law."""
    kind, *numbers = step.split()
    ms = int(numbers[-1])
    seconds = np.arange(8 * ms) / 8_000
    if kind == "voice":
        phase = 2 * np.pi * np.cumsum(130 * (1 + 0.2 * np.sin(2 * np.pi * 2 * seconds))) / 8_000
        wave = sum((np.sin(n * phase) * 3_000 / n**0.5 for n in range(3, 25)), np.zeros(8 * ms))
    elif kind == "tone":
        wave = 6_000 * np.sin(2 * np.pi * int(numbers[0]) * seconds)
    else:
        wave = np.zeros(8 * ms)
    return encode_ulaw(wave.astype(np.int16))


class Line:
    """A call from its answer, in time."""

    def __init__(self, *, transcribed: bool = True) -> None:
        self.detector = AnsweredByDetector(transcribed=transcribed)
        self.detector.on_answered(0)
        self.now_ms = 0
        self.verdicts: list[AnsweredBy] = []
        self.evidence: list[str] = []

    def hear(self, *steps: str) -> Line:
        """Sounds, or `says WORDS` for a transcript and `carrier WORD` for its detector."""
        for step in steps:
            kind, _, rest = step.partition(" ")
            if kind == "says":
                self.detector.on_words(f"u{self.now_ms}", rest, self.now_ms)
            elif kind == "carrier":
                self.detector.on_carrier(rest)
            else:
                made = sound(step)
                for at in range(0, len(made), 160):
                    self.detector.on_audio(made[at : at + 160])
                    self.now_ms += 20
                    if self.now_ms % 200 == 0:
                        self.look()
        return self

    def look(self) -> None:
        answer = self.detector.on_tick(self.now_ms)
        if answer is not None:
            self.verdicts.append(answer.verdict)
            self.evidence = list(answer.evidence)


LONG_GREETING = "You have reached the Smiths, please leave a message after the tone"
CASES: list[tuple[str, tuple[str, ...], list[AnsweredBy]]] = [
    ("a person", ("voice 500", "quiet 1000", "says Hello?", "quiet 200"), [H]),
    ("a person by timing alone", ("voice 500", "quiet 2000"), [H]),
    ("a person, as the carrier says", ("voice 500", "carrier human", "quiet 1000"), [H]),
    ("a person while still speaking", ("voice 1200",), []),
    ("a name", ("voice 700", "quiet 900", "says Schneider.", "quiet 200"), [H]),
    ("a receptionist", ("voice 4200", "carrier machine_start", "quiet 900",
                        "says Brown and Sons, Mary speaking, how can I help you?", "quiet 200"),
     [H]),
    ("a mailbox", ("voice 4000", "quiet 950", f"says {LONG_GREETING}", "quiet 200"), [V]),
    ("a beep behind words", ("voice 2500", "quiet 500", "tone 1000 400", "quiet 1500"), [V]),
    ("a beep that nobody transcribes", ("voice 9000", "quiet 200", "tone 850 500", "quiet 1600"),
     [V]),
    ("long speech, then silence", ("voice 9000", "carrier machine_start", "quiet 3000"), [V]),
    ("a long greeting may be a person's", ("voice 6000", "carrier machine_start", "quiet 4000"),
     []),
    ("screening", ("voice 4000", "carrier machine_start", "quiet 950",
                   "says State your name and why you are calling.", "quiet 200"), [S]),
    ("screening with a beep", ("voice 3000", "quiet 300", "tone 1000 200", "quiet 500",
                               "says Please say your name and the reason after the tone.",
                               "quiet 200"), [S]),
    ("a mailbox that asks for the reason", (
        "voice 4000", "quiet 950", "says Leave your name and the reason for your call.",
        "quiet 200"), [V]),
    ("a menu", ("voice 4000", "quiet 950", "says For sales, press 1.", "quiet 200"), [I]),
    ("on hold", ("voice 4000", "quiet 950", "says All of our agents are busy, please hold.",
                 "quiet 200"), [W]),
    ("a fax that answers", ("quiet 600", "tone 2100 1500"), [F]),
    ("a fax that calls", ("tone 1100 500", "quiet 3000", "tone 1100 500", "quiet 400"), [F]),
    ("one beep of 1100 Hz is not a fax", ("voice 2500", "quiet 400", "tone 1100 500", "quiet 1600"),
     [V]),
    ("nobody", ("quiet 15400",), [N]),
    ("nobody yet", ("quiet 9000",), []),
]  # fmt: skip

DISAGREE: list[tuple[str, tuple[str, ...], list[AnsweredBy]]] = [
    ("the carrier hears a person, the words are a mailbox's and so is the length",
     ("voice 4000", "carrier human", "quiet 950", f"says {LONG_GREETING}", "quiet 200"), [V]),
    ("the carrier hears a machine, hello and the silence speak for a person",
     ("voice 600", "carrier machine_start", "quiet 1500", "says Hello?", "quiet 200"), [H]),
    ("the carrier alone says that it is a machine", ("voice 600", "carrier machine_start",
                                                     "quiet 1000"), []),
    ("the carrier alone says that it is a fax", ("voice 600", "carrier fax", "quiet 1000"), []),
    ("the carrier says person, the line is silent", ("carrier human", "quiet 4000"), []),
    ("a beep behind a hello", ("voice 500", "quiet 300", "tone 1000 300", "quiet 400",
                               "says Hello?", "quiet 600"), []),
    ("long speech alone, whose words are no machine's",
     ("voice 6000", "carrier machine_start", "quiet 900",
      "says I told him on Tuesday that we would bring the car back by noon if it was fixed",
      "quiet 4000"), []),
    ("a person speaks of messages",
     ("voice 3000", "quiet 950", "says She is out, would you like to leave a message?",
      "quiet 400"), [H]),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "wanted"), [row[1:] for row in CASES], ids=[r[0] for r in CASES])
def test_each_kind_is_found(steps: tuple[str, ...], wanted: list[AnsweredBy]) -> None:
    line = Line().hear("quiet 400", *steps)
    assert line.verdicts == wanted
    assert bool(line.evidence) == bool(wanted)


@pytest.mark.parametrize(
    ("steps", "wanted"), [row[1:] for row in DISAGREE], ids=[r[0] for r in DISAGREE]
)
def test_no_witness_is_believed_alone_against_another(
    steps: tuple[str, ...], wanted: list[AnsweredBy]
) -> None:
    assert Line().hear("quiet 400", *steps).verdicts == wanted


def test_a_person_turns_out_to_be_a_mailbox() -> None:
    line = Line().hear("quiet 400", "voice 400", "quiet 900", "says Hello.", "quiet 300")
    assert line.verdicts == [H]
    line.hear("voice 3500", "carrier machine_start", "quiet 900")
    line.hear("says This is the answering machine of the Wilsons.", "quiet 400")
    assert line.verdicts == [H, V]
    assert line.evidence[0] == '"answering machine"'


def test_a_person_stays_one() -> None:
    line = Line().hear("quiet 400", "voice 400", "quiet 900", "says Hello.", "quiet 14000")
    line.hear("voice 3500", "quiet 900", "says Just leave a message on my voicemail.", "quiet 400")
    assert line.verdicts == [H]


@pytest.mark.parametrize(
    ("steps", "due"),
    [
        (("tone 1000 400", "quiet 100"), True),
        (("quiet 2000",), False),
        (("quiet 3000",), True),
        (("tone 1000 400", "quiet 300", "voice 400"), False),
        (("voice 2000",), False),
    ],
)
def test_a_message_begins_after_the_beep_or_in_silence(steps: tuple[str, ...], due: bool) -> None:
    line = Line().hear("quiet 400", "voice 4000", f"says {LONG_GREETING}", "voice 400")
    assert line.verdicts == [V]
    line.hear("quiet 400", *steps)
    line.look()
    assert line.detector.message_due(line.now_ms) is due


def test_after_screening_it_is_found_who_comes() -> None:
    for answer, wanted in (
        (("voice 500", "quiet 1000", "says Hello?", "quiet 400"), H),
        (
            ("voice 3000", "quiet 950", "says Please leave a message after the tone.", "quiet 200"),
            V,
        ),
    ):
        line = Line().hear("quiet 400", "voice 3500", "quiet 950")
        line.hear("says Record your name and reason for calling.", "quiet 200")
        line.detector.on_agent_spoke(line.now_ms)
        line.hear("quiet 2000", *answer)
        assert line.verdicts == [S, wanted]


def test_nothing_is_judged_before_the_call_is_answered() -> None:
    detector = AnsweredByDetector()
    detector.on_carrier("human")
    assert detector.on_tick(60_000) is None and not detector.answered


def test_phrases_are_found_in_any_spelling() -> None:
    assert plain("Après le “bip”, laissez-MOI un message!") == "apres le bip laissez moi un message"
    assert find_phrases(plain("I can\u2019t come to the phone")).phrases
    assert not find_phrases(plain("I am compressed: one")).phrases


def test_the_documented_points_and_limits_are_those_of_the_code() -> None:
    text = (Path(__file__).parents[4] / "docs" / "outbound.md").read_text(encoding="utf-8")

    def s(ms: int) -> str:
        return f"{ms / 1000:g}"

    longer = sorted(detector._LONGER)
    points = {kind: points for kind, (_, points) in detector._PHRASES.items()}
    carrier = detector._CARRIER
    low_s, high_s = (s(ms) for ms in detector.BEEP_MS)
    low_hz, high_hz = detector.BEEP_HZ
    rows = [
        f"A verdict needs {detector.ENOUGH}\npoints, and {detector.LEAD} more",
        f"at most {s(detector.SHORT_MS)} s of speech, then {s(detector.PAUSE_MS)} s of silence; "
        f"{s(detector.SILENCE_ALONE_MS)} s |",
        f"at most {s(detector.LONG_MS)} s of speech,",
        f"{', '.join(s(ms) for ms, _ in longer)} s of speech without a pause | machine "
        f"{', '.join(str(count) for _, count in longer)} |",
        f"one tone of {low_hz} to {high_hz} Hz for {low_s} to {high_s} s",
        f"2100 Hz for {s(detector._CED_MS)} s",
        f"a queue | {points[Kind.SCREENING]}, {points[Kind.MENU]}, {points[Kind.VOICEMAIL]}, "
        f"{points[Kind.HOLD]} |",
        f'("reason for your call") | {points[Kind.SCREENING_HINT]} |',
        f'("how can I help") | person {points[Kind.PERSON]} |',
        f"| `human` | person {carrier['human'][1]} |",
        f"`machine_end_other` | machine {carrier['machine_start'][1]} |",
        f"voicemail {carrier['machine_end_beep'][1]}; fax {carrier['fax'][1]} |",
        f"after {s(longer[1][0])} s of\nspeech whose words hint at one, or after "
        f"{s(longer[2][0])} s of any",
        f"found out by its words within {detector.REVISED_WITHIN_MS // 1000} s",
    ]
    assert [row for row in rows if row not in text] == []
