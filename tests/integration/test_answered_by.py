"""The verdict about who has answered, in calls over real sockets, with spoken words and tones.

All calls go on at the same time, at the pace of real ones. The words are the known ones of each
script, as a model's transcript gives them.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from app.calls.outbound.answering import SCREENED_NOTE
from app.events import AgentSaid, AnsweredBy, AnswerJudged, CallEnded, CallId, ModelInput
from app.realtime.events import ItemCreate, ResponseCreate
from tests.demo.callees import CALLEES, OVER, REPLY, Callee, play
from tests.fakes.carrier import FakeCall
from tests.fakes.voice import Reply, ScriptedVoiceServer, Served
from tests.fakes.waiting import until
from tests.integration.outbound_site import DISCLOSURE, OutboundSite, outbound_site

PRIVATE: Final = "Am I speaking with Mrs. Smith? Your results have come."
MESSAGE: Final = "Please call us back about your appointment."
SCREENING: Final = "I am calling about an appointment."
H, S, V, I, F, W, N = (  # noqa: E741 - the column of verdicts
    AnsweredBy.HUMAN,
    AnsweredBy.SCREENING,
    AnsweredBy.VOICEMAIL,
    AnsweredBy.IVR,
    AnsweredBy.FAX,
    AnsweredBy.HOLD,
    AnsweredBy.NOBODY,
)
GREETING: Final = f"{DISCLOSURE} {PRIVATE}"
_PERSON, _BEEP, _NO_BEEP, _SCREENING, _MENU = CALLEES

# Who answers, the verdicts, what the agent is asked to say word for word, and the attempt's code.
ANSWERS: Final[list[tuple[Callee, list[AnsweredBy], list[str], str]]] = [
    (_PERSON, [H], [GREETING], "caller_hung_up"),
    (_BEEP, [V], [DISCLOSURE, MESSAGE], "answered_by_voicemail"),
    (_NO_BEEP, [V], [DISCLOSURE, MESSAGE], "answered_by_voicemail"),
    (_SCREENING, [S, H], [DISCLOSURE, SCREENING], "caller_hung_up"),
    (_MENU, [I], [], "answered_by_ivr"),
    (Callee("a fax", (600, "beep 2100 2600"), "fax"), [F], [], "answered_by_fax"),
    (
        Callee("a queue", (300, "All our agents are busy, please hold the line.", 4_000)),
        [W],
        [],
        "answered_by_hold",
    ),
    (Callee("silence", (), "unknown"), [N], [DISCLOSURE], "answered_by_nobody"),
    (
        Callee("who picks up", (*_BEEP.steps, OVER, "Hello, I am here, who is this?", REPLY)),
        [V, H],
        [DISCLOSURE, MESSAGE],
        "caller_hung_up",
    ),
    # Somebody who speaks before anybody knows who they are, for longer than a mailbox would need.
    (
        Callee("a busy person", (300, "One moment please, I am just", 300, "Okay, who is this?")),
        [H],
        [GREETING],
        "caller_hung_up",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A call that was answered, with both of its ends."""

    call_id: CallId
    callee: Callee
    call: FakeCall
    model: Served


async def answered(
    site: OutboundSite, voice: ScriptedVoiceServer, nth: int, callee: Callee
) -> tuple[str, FakeCall, Served]:
    """Have somebody called, who answers."""
    voice.heard = [*callee.turns, None]
    message = Reply(audio_ms=3_000) if OVER in callee.steps else Reply(audio_ms=600)
    voice.replies = [Reply(audio_ms=600), message, Reply(audio_ms=600, text="I see.")]
    call_id = await site.placed(f"+1415555013{nth}")
    call = await site.pick_up(await site.rings(nth), answered_by=callee.detected)
    await until(lambda: len(voice.connections) > nth)
    return call_id, call, voice.latest


async def follow(call_id: str, callee: Callee, call: FakeCall, model: Served) -> Answered:
    """Let the callee speak, and hang up if the agent does not."""
    await play(call, callee)
    person = AnsweredBy.HUMAN in next(row[1] for row in ANSWERS if row[0] is callee)
    if person:
        await call.hear_quiet(ms=300)
        await call.hang_up()
    await call.ended()
    return Answered(call_id=CallId(call_id), callee=callee, call=call, model=model)


async def test_each_of_those_that_answer_is_known_before_anything_private_is_said() -> None:
    waits = {"hold_s": 3, "nobody_after_s": 6, "opening_after_s": 2}
    answered_by = {**waits, "enabled": True, "message": MESSAGE, "screening": SCREENING}
    outbound = {"answered_by": answered_by, "max_calls": 20}
    agents = {"caller": {"greeting": PRIVATE}}
    for callee, *_ in ANSWERS:  # made before anybody listens
        [callee.sound(step) for step in callee.steps if isinstance(step, str) and step[0] != "@"]
    async with (
        ScriptedVoiceServer() as voice,
        outbound_site(voice, speed=1.0, outbound=outbound, agents=agents) as site,
    ):
        done = []
        async with asyncio.TaskGroup() as tasks:
            for nth, (callee, *_) in enumerate(ANSWERS):
                call_id, call, model = await answered(site, voice, nth, callee)
                # At once: who has picked up and is not heard yet is silent.
                done.append(tasks.create_task(follow(call_id, callee, call, model)))
        for one, (_, verdicts, asked, code) in zip(done, ANSWERS, strict=True):
            found = one.result()
            check(site, found, verdicts, asked)
            ended = await site.outcome(found.call_id)
            assert ended["code"] == code, found.callee.name
            assert ("by no person" in ended["reason"]) is code.startswith("answered_by")


def check(
    site: OutboundSite, found: Answered, verdicts: list[AnsweredBy], asked: list[str]
) -> None:
    events, name = site.seen[found.call_id], found.callee.name
    judged = [event for event in events if isinstance(event, AnswerJudged)]
    assert [event.verdict for event in judged] == verdicts, (name, judged)
    assert all(event.evidence for event in judged)
    words = [each for create in found.model.of(ResponseCreate) if (each := told_to_say(create))]
    assert words == asked, name
    before = events[: events.index(judged[0])]
    said = [event.text for event in before if isinstance(event, AgentSaid | ModelInput)]
    assert not any(PRIVATE in text for text in said), (name, said)
    if MESSAGE in asked:
        [first, *_] = found.call.stream.detector.spans
        silence_ms = first.start_ms - mailbox_end_ms(found)
        assert silence_ms >= (0 if "beep" in name or OVER in found.callee.steps else 2_500), name
        assert silence_ms < 6_000, name
    if OVER in found.callee.steps:
        assert found.call.stream.clears, "the message went on"
    if SCREENING in asked:
        notes = str([create.item for create in found.model.of(ItemCreate)])
        assert SCREENED_NOTE in notes
    assert any(isinstance(event, CallEnded) for event in events), name


def told_to_say(create: ResponseCreate) -> str:
    """The sentence that a response was asked to say word for word."""
    config = create.response
    instructions = config.instructions if config is not None else ""
    return str(instructions or "").partition("nothing else: ")[2]


def mailbox_end_ms(found: Answered) -> int:
    """The end of the mailbox's greeting, or of its beep."""
    utterances = [one for one in found.call.stream.player.utterances if one.end_ms is not None]
    count = len([step for step in _BEEP.steps if isinstance(step, str)])
    ends = [
        one.end_ms or 0
        for one in utterances[: count if "beep 1000 400" in found.callee.steps else 1]
    ]
    return max(ends)
