"""The hostile function calls of `tests/protocol/data`, all in one phone call, which survives."""

from __future__ import annotations

import json
from dataclasses import replace

from app.events import AgentSaid, EndReason, ToolApprovalRequired, ToolRan
from app.http.client import SafeHttp
from app.realtime import events as ev
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.web_service import WebService, answer
from tests.integration.server import trunkline
from tests.integration.test_calls_tools import with_agents
from tests.protocol.test_hostile_tools import ATTACKS, BUDGET, make_tools, spelled

BEFORE = "Well."
AFTER = "Is there anything else?"

ORDER = [*reversed(ATTACKS[:-2]), *ATTACKS[-2:]]
"""Calls that need somebody's approval come before the budget is spent, the floods behind that."""


def response_of_attacks() -> list[ev.ServerEvent]:
    """One response of the model that calls all of them."""
    running = ev.Response(id="resp_attack", status=ev.ResponseStatus.IN_PROGRESS)
    calls = [
        ev.Item(
            type="function_call",
            id=f"item_attack_{number}",
            status="completed",
            call_id=f"call_attack_{number}",
            name=spelled(attack["name"]),
            arguments=spelled(attack["arguments"]),
        )
        for number, attack in enumerate(ORDER)
    ]
    done = replace(running, status=ev.ResponseStatus.COMPLETED, output=tuple(calls))
    return [
        ev.ResponseCreated(running),
        *(ev.OutputItemDone("resp_attack", at, call) for at, call in enumerate(calls)),
        ev.ResponseDone(done),
    ]


async def test_sixty_attacks_in_one_breath_have_no_effect_and_the_call_goes_on() -> None:
    effects: list[str] = []
    lookups: list[str] = []
    replies = [Reply(audio_ms=200), Reply(text=BEFORE, audio_ms=200), Reply(text=AFTER)]
    voice = ScriptedVoiceServer(replies=replies)
    async with WebService(answer(b"{}")) as crm, SafeHttp() as http, voice:
        tools = tuple(make_tools(crm, http, effects, lookups))
        async with trunkline(voice) as app, app.twilio() as twilio:
            with_agents(app, lambda agent: [replace(agent, tools=tools)])
            call = await twilio.call(app.url)
            await call.speak(0.6)
            await app.event(call, AgentSaid, lambda said: said.text == BEFORE)
            for event in response_of_attacks():
                voice.latest.emit(event)
            wanted = await app.event(call, ToolApprovalRequired)
            assert wanted.name == "refund"
            assert app.switchboard.approve(wanted.call_id, wanted.tool_call_id, approved=False)
            await app.event(call, AgentSaid, lambda said: said.text == AFTER)
            await call.hang_up()
            assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP
            ran = [event for event in await app.events(call) if isinstance(event, ToolRan)]
    outputs = {item.call_id: item.output for item in voice.items if item.output is not None}
    assert len(outputs) == len(ran) == len(ORDER)
    assert voice.created == 2, "the greeting, and one reply to all of them"
    assert effects == []
    assert crm.connections == 0
    errors = [json.loads(outputs[f"call_attack_{n}"] or "").get("code") for n in range(60)]
    kept = [attack["error"] for attack in ORDER[:BUDGET]]
    assert errors == kept + ["tool_budget_spent"] * (len(ORDER) - BUDGET)
