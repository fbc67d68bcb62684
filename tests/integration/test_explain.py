"""The calls that operators ask about most, explained: on real servers, with scripted models.

The text on top is compared as it is, with times left out; of the timeline, the lines that matter,
in their order.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace

import pytest

from app.agents.tools.tool import tool
from app.calls.call import LOST
from app.events import AgentSaid, CallEnded
from app.explain import explain, render
from tests.fakes.carrier import FakeCall, Ringing
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.integration.server import App, trunkline
from tests.integration.test_calls_tools import with_agents
from tests.integration.transfer_site import asks_for, transfer_site

WIDTH = 80


async def explained(app: App, call: FakeCall | Ringing) -> tuple[str, list[str]]:
    """The explanation of a call that is over: its top, and the lines of its timeline."""
    events = await app.events(call)
    assert isinstance(events[-1], CallEnded)
    text = render(explain(events), WIDTH)
    assert max(map(len, text.splitlines())) <= WIDTH
    text = re.sub(r"\d+\.\d\d", "T", text)
    _, top, timeline = text.split("\n\n")
    return top, [line.strip() for line in timeline.splitlines()]


def in_order(wanted: list[str], lines: list[str]) -> bool:
    """Each wanted text stands in a line, behind the one before it."""
    left = iter(lines)
    missing = [text for text in wanted if not any(text in line for line in left)]
    assert not missing, f"{missing} in\n" + "\n".join(lines)
    return True


REFUSALS = {
    "key": (
        Trouble(http_status=401, http_code="invalid_api_key"),
        "First problem, T s into the call:\n"
        "  The voice model refuses the API key.\n"
        "  -> Check OPENAI_API_KEY; `trunkline doctor` tries it. A key that was revoked,\n"
        "     or is of another organization, looks the same.",
    ),
    "quota": (
        Trouble(http_status=429, http_code="insufficient_quota"),
        "First problem, T s into the call:\n"
        "  The account of the voice model has no credit left.\n"
        "  -> Add credit, or raise the limit, at the provider of the model; no retry\n"
        "     helps before that.",
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_model_that_refuses_is_named_with_its_cure(refusal: str) -> None:
    trouble, expected = REFUSALS[refusal]
    voice = ScriptedVoiceServer(trouble=trouble)
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        assert (await call.ended()).close_code == LOST
        await app.ended(call)
        top, lines = await explained(app, call)
        assert top == expected
        assert in_order(
            ["call admitted for agent", "! ", "call ended: the voice model was lost (voice_lost"],
            lines,
        )
        assert "sk-scripted-model" not in "\n".join(lines)


async def test_a_model_that_stays_silent_is_named() -> None:
    nothing = [Reply(never_starts=True)] * 8
    voice = ScriptedVoiceServer(replies=[Reply(text="Good day.", audio_ms=300), *nothing])
    waits = {"answer_wait_ms": 600}
    async with voice, trunkline(voice, policy=waits) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        await app.ended(call, within_s=30)
        top, lines = await explained(app, call)
        assert top == (
            "First problem, T s into the call:\n"
            "  The voice model stayed silent while the caller waited.\n"
            "  -> If it happens often, try another model, or raise limits.answer_wait_s for\n"
            "     one that thinks longer before it speaks."
        )
        wanted = [
            'agent: "Good day',
            "turn 1: no answer was begun",
            "call ended: the voice model was lost (voice_lost",
        ]
        assert in_order(wanted, lines)


async def test_a_caller_who_hangs_up_during_a_tool_is_seen() -> None:
    began = asyncio.Event()

    @tool
    async def look_up() -> str:
        """Look something up."""
        began.set()
        await asyncio.sleep(60)
        return "found"

    replies = [
        Reply(text="Good day.", audio_ms=300),
        Reply(text="One moment.", audio_ms=200, tool=("look_up", "{}")),
    ]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(look_up,))])
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            await began.wait()
            await call.hang_up()
            await app.ended(call)
            top, lines = await explained(app, call)
    assert top == (
        "First problem, T s into the call:\n"
        "  The caller hung up while tool look_up ran, after T s.\n"
        "  -> Have callers told that it takes a moment (filler), or make the tool faster."
    )
    assert in_order(
        ["tool look_up not finished: the call was over", "the caller hung up (caller"], lines
    )


async def test_a_transfer_that_nobody_answers_is_told_with_its_evidence() -> None:
    voice = ScriptedVoiceServer(replies=asks_for("transfer_call", destination="front_desk"))
    async with voice, transfer_site(voice) as site:
        call = await site.call()
        await site.leaves(call)
        back = await site.comes_back(await site.dial_ends(call, "no-answer"))
        await site.app.event(call, AgentSaid, lambda said: "still with you" in said.text)
        await back.hang_up()
        await site.app.ended(call)
        top, lines = await explained(site.app, call)
    assert top == (
        "First problem, T s into the call:\n"
        "  The transfer to front_desk came to nothing: nobody answered.\n"
        "  -> Check who should answer there, raise the destination's ring_s, or name\n"
        "     another one."
    )
    wanted = ["transfer to front_desk (cold)", "came to nothing", "evidence", "flows again"]
    assert in_order(wanted, lines)


async def test_a_call_without_a_fault_shows_where_the_time_of_each_turn_went() -> None:
    replies = [Reply(text="Good day.", audio_ms=300), Reply(text="Of course.", audio_ms=400)]
    voice = ScriptedVoiceServer(replies=replies, heard=["A table for two."])
    async with voice, trunkline(voice) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        await app.event(call, AgentSaid, lambda said: said.text == "Of course.")
        await call.hang_up()
        await app.ended(call)
        top, lines = await explained(app, call)
    assert top == "Nothing went wrong, as far as the events of the call show."
    wanted = [
        "model ready: ",
        "told: agent ",
        "the model's own id of the session: sess_fake",
        'agent: "Good day',
        "turn 1: the caller waited T s for the answer",
        "T s  until the turn was found over",
        "T s  until the model began to answer",
        "T s  until the model's first sound",
        "T s  until it was sent",
        "T s  until it was heard",
        "T s  transcript, beside these",
        'agent: "Of course."',
        "call ended: the caller hung up (caller_hung_up)",
    ]
    assert in_order(wanted, lines)
    # These may have the same time as others.
    for line in ('caller: "A table for two."', "first sound of the agent, T s"):
        assert any(line in one for one in lines), line
