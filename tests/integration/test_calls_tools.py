"""Tools, handoffs and guardrails in a whole phone call, over real sockets at both ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.agents.agent import Agent
from app.agents.guardrails.rules import Stop, regex_guardrail
from app.agents.handoffs import HandoffTo
from app.agents.roster import Roster
from app.agents.tools.tool import Approval, ToolContext, tool
from app.calls.route import Route
from app.dial.leg import EndedBy
from app.errors import ToolFailed
from app.events import (
    AgentSaid,
    CallAdmitted,
    EndReason,
    GuardrailTripped,
    HandedOff,
    MessageTaken,
    Party,
    ToolApprovalRequired,
    ToolRan,
    VoiceTrouble,
)
from app.realtime import events as ev
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import TIME_LIMIT_S, until
from tests.integration.server import ALL_OVER_S, App, trunkline

GREETING = Reply(text="Hello.", audio_ms=200)


def with_agents(app: App, change: Callable[[Agent], list[Agent]]) -> None:
    """Put other agents on the line: `change` makes them of the one that the settings describe."""
    switchboard: Any = app.switchboard
    route = switchboard._route

    def changed(incoming: Any) -> Route:
        found = route(incoming)
        assert isinstance(found, Route)
        agents = change(found.agent)
        return replace(found, agent=agents[0], roster=Roster(agents))

    switchboard._route = changed


async def test_a_tool_runs_beside_the_sound_and_is_answered_over_the_phone() -> None:
    @tool
    def opening_hours(day: str) -> str:
        """The opening hours."""
        return f"{day}: nine"

    replies = [
        GREETING,
        Reply(text="Let me look.", tool=("opening_hours", '{"day": "Monday"}')),
        Reply(text="At nine."),
    ]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(opening_hours,))])
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            ran = await app.event(call, ToolRan)
            assert (ran.name, ran.error) == ("opening_hours", "")
            await app.event(call, AgentSaid, lambda said: said.text == "At nine.")
            assert '{"result": "Monday: nine"}' in [item.output for item in voice.items]
            await call.hang_up()


async def test_a_tool_that_outlives_its_call_is_ended_with_it() -> None:
    ended = asyncio.Event()

    @tool
    async def wait_for_ever() -> None:
        """Wait."""
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    replies = [GREETING, Reply(text="One moment.", tool=("wait_for_ever", "{}"))]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(wait_for_ever,))])
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            await app.event(call, AgentSaid, lambda said: said.text == "One moment.")
            await call.hang_up()
            summary = await app.ended(call)
            assert summary.reason is EndReason.CALLER_HUNG_UP
            assert ended.is_set()
            events = await app.events(call)
            [ran] = [event for event in events if isinstance(event, ToolRan)]
            assert (ran.name, ran.error) == ("wait_for_ever", "call_over")
            assert not any(item.type == "function_call_output" for item in voice.items)


async def test_a_tool_that_ignores_its_end_keeps_nobody_on_the_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    released = asyncio.Event()

    @tool(timeout_ms=60_000)
    async def stubborn() -> None:
        """Wait, whatever happens."""
        while not released.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await released.wait()

    replies = [GREETING, Reply(text="One moment.", tool=("stubborn", "{}"))]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(stubborn,))])
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            await app.event(call, AgentSaid, lambda said: said.text == "One moment.")
            assert app.switchboard.hang_up((await app.event(call, CallAdmitted)).call_id)
            assert (await call.ended(within_s=ALL_OVER_S)).by is EndedBy.AGENT
            assert (await app.ended(call)).reason is EndReason.OPERATOR_HUNG_UP
            assert app.switchboard.active == 0
            assert not voice.open_connections
            released.set()
    assert "function ignores its cancellation" in caplog.text


class OwnError(BaseException):
    """An exception of an operator that `except Exception` does not catch."""


@pytest.mark.parametrize("error", [OwnError, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
async def test_a_tool_costs_its_result_and_no_call(error: type[BaseException]) -> None:
    @tool
    async def fail() -> None:
        """Fail."""
        raise error

    def instructions(_: object) -> str:
        raise error

    replies = [GREETING, Reply(text="One moment.", tool=("fail", "{}")), Reply(text="Sorry.")]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(
            app, lambda agent: [replace(agent, tools=(fail,), instructions_for=instructions)]
        )
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            assert (await app.event(call, ToolRan)).error == "tool_failed"
            await app.event(call, AgentSaid, lambda said: said.text == "Sorry.")
            await call.hang_up()
            assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP


async def test_a_caller_consents_by_key() -> None:
    @tool(approval=Approval.KEYPAD)
    def pay(amount: int) -> str:
        """Pay an amount."""
        return f"paid {amount}"

    replies = [GREETING, Reply(text="Very well.", tool=("pay", '{"amount": 3}')), Reply()]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(pay,))])
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            wanted = await app.event(call, ToolApprovalRequired)
            assert (wanted.by, wanted.arguments) == ("keypad", '{"amount": 3}')
            await app.event(call, AgentSaid, lambda said: said.text.startswith("Please confirm"))
            call.press("1")
            assert (await app.event(call, ToolRan)).error == ""
            await call.hang_up()


async def test_an_operator_is_asked_before_a_tool_runs_and_answers_over_http() -> None:
    @tool(approval=Approval.OPERATOR)
    def pay(amount: int) -> str:
        """Pay an amount."""
        return f"paid {amount}"

    asks = Reply(text="Very well.", audio_ms=200, tool=("pay", '{"amount": 3}'))
    replies = [GREETING, asks, Reply(text="Done."), asks, Reply(text="No.")]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(pay,))])
        async with (
            app.twilio() as twilio,
            httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as operator,
        ):
            url = f"{app.url}/approvals"
            assert (await operator.get(url)).json() == {"approvals": []}
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            for approved, said in ((True, "Done."), (False, "No.")):
                await call.speak(0.6)
                await until(lambda: bool(app.switchboard.approvals()))
                [wanted] = (await operator.get(url)).json()["approvals"]
                assert (wanted["tool"], wanted["arguments"]) == ("pay", {"amount": 3})
                place = f"{url}/{wanted['call_id']}/{wanted['tool_call_id']}"
                for bad in ({}, {"approved": 1}, {"approved": True, "message": 1}, ["approved"]):
                    assert (await operator.post(place, json=bad)).status_code == 400
                form = await operator.post(place, data={"approved": "true"})
                assert form.status_code == 400
                assert (await operator.post(place + "0", json={"approved": True})).is_error
                decision = {"approved": approved, "message": "Only before noon."}
                answer = await operator.post(place, json=decision)
                assert answer.json() == {"approved": approved}
                await app.event(call, AgentSaid, partial(_says, said))
                assert (await operator.post(place, json={"approved": True})).status_code == 404
            await call.hang_up()
            await app.ended(call)
            ran = [event for event in await app.events(call) if isinstance(event, ToolRan)]
            assert [event.error for event in ran] == ["", "not_approved"]
            items = [create.item for create in voice.latest.of(ev.ItemCreate)]
            told = [json.loads(i.output) for i in items if i.output is not None]
            assert told == [
                {"result": "paid 3"},
                {"error": "Only before noon.", "code": "not_approved"},
            ]


async def test_a_message_that_a_caller_leaves_is_kept_in_a_file_of_its_own() -> None:
    recipient = '{"recipient": "Ms. Lee"}'
    replies = [
        GREETING,
        Reply(text="Go on.", audio_ms=200, tool=("take_message", recipient)),
        Reply(text="I will tell her.", audio_ms=200),
    ]
    words = "Please call me back on Monday."
    voice = ScriptedVoiceServer(replies=replies, heard=["A message for Ms. Lee.", words])
    agents = {"reception": {"tools": ["take_message"]}}
    async with voice, trunkline(voice, agents=agents) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        await app.event(call, AgentSaid, partial(_says, "Go on."))
        await call.speak(0.6)
        taken = await app.event(call, MessageTaken)
        folder = app.settings.offline.messages_dir
        await until(lambda: any(folder.glob("*.json")))
        [path] = folder.glob("*.json")
        await until(lambda: path.read_text().endswith("}\n"))
        kept = json.loads(path.read_text())
        assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)
        assert (kept["recipient"], kept["text"]) == ("Ms. Lee", words)
        assert kept["call_id"] == taken.call_id
        assert kept["caller_number"] == call.ringing.caller.caller_number
        await call.hang_up()


@pytest.mark.parametrize("kind", ["a file in its place", "a file system that takes no files"])
async def test_where_no_message_can_be_written_the_agent_is_told_so(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    replies = [GREETING, Reply(text="Go on.", audio_ms=200, tool=("take_message", "{}"))]
    voice = ScriptedVoiceServer(replies=replies, heard=["A message.", "Call me back."])
    agents = {"reception": {"tools": ["take_message"]}}
    async with voice, trunkline(voice, agents=agents) as app, app.twilio() as twilio:
        folder = app.settings.offline.messages_dir
        folder.parent.mkdir(exist_ok=True)
        if kind == "a file in its place":
            folder.write_text("")
        else:
            folder.symlink_to("/proc")
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        ran = await app.event(call, ToolRan)
        assert (ran.name, ran.error) == ("take_message", "messages_not_kept")
        await call.hang_up()
        await app.ended(call)
    assert "messages cannot be kept" in caplog.text


async def test_an_async_tool_that_blocks_the_loop_is_named_with_its_stack_and_its_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tool
    async def block() -> str:
        """Block everything."""
        time.sleep(1.5)  # noqa: ASYNC251 - what the test is about
        return "done"

    reception = Agent(name="reception", instructions="Be brief.", tools=(block,))
    calling = Reply(text="Wait.", audio_ms=200, tool=("block", "{}"))
    replies = [GREETING, calling, Reply(text="Done.", audio_ms=200)]
    voice = ScriptedVoiceServer(replies=replies, heard=["Go."])
    async with voice, trunkline(voice, written=[reception]) as app, app.twilio() as twilio:
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        await call.speak(0.6)
        ran = await app.event(call, ToolRan)
        await call.hang_up()
        await app.ended(call)
    named = [one for one in caplog.records if one.message == "event loop is blocked"]
    # On a busy machine other functions may be named as well.
    [line] = [one for one in named if vars(one)["stack"].split(" < ")[0].endswith(" block")]
    assert Path(__file__).name in vars(line)["stack"]
    assert vars(line)["call_id"] == ran.call_id


def _says(text: str, said: AgentSaid) -> bool:
    return said.text == text


async def test_approvals_are_open_to_this_machine_or_to_bearers_of_the_token() -> None:
    async with ScriptedVoiceServer() as voice:
        async with (
            trunkline(voice) as app,
            httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client,
        ):
            url = f"{app.url}/approvals"
            assert (await client.get(url)).status_code == 200
            for headers in (
                {"X-Forwarded-For": "203.0.113.9"},
                {"Host": "voice.example.com"},
                {"Origin": "https://evil.example.com"},
            ):
                assert (await client.get(url, headers=headers)).status_code == 403
        token = {"operator_token": "a token of ours"}
        async with (
            trunkline(voice, server=token) as app,
            httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client,
        ):
            url = f"{app.url}/approvals"
            assert (await client.get(url)).status_code == 403
            answer = await client.post(f"{url}/a/b", json={"approved": True})
            assert answer.status_code == 403
            good = {"Authorization": "Bearer a token of ours", "X-Forwarded-For": "203.0.113.9"}
            assert (await client.get(url, headers=good)).status_code == 200
            good["Origin"] = "https://evil.example.com"
            assert (await client.get(url, headers=good)).status_code == 403


async def test_a_sensitive_tool_wants_a_number_that_the_network_vouches_for() -> None:
    @tool(verified_caller=True)
    def balance() -> str:
        """The caller's balance."""
        return "ten"

    replies = [GREETING, Reply(text="Let me look.", tool=("balance", "{}")), Reply()]
    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, lambda agent: [replace(agent, tools=(balance,))])
        async with app.twilio() as twilio:
            for verstat, error in (
                (None, "caller_not_verified"),
                ("TN-Validation-Passed-C", "caller_not_verified"),
                ("TN-Validation-Passed-A", ""),
            ):
                call = await (await twilio.ring(app.url, verstat=verstat)).connect()
                await app.event(call, AgentSaid)
                await call.speak(0.6)
                assert (await app.event(call, ToolRan)).error == error
                await call.hang_up()
                await app.ended(call)


async def test_a_caller_is_handed_over_and_a_guardrail_cuts_the_new_agent_off() -> None:
    rule = regex_guardrail("no gold", Party.AGENT, "gold", Stop("I cannot advise.", "advice"))
    replies = [
        GREETING,
        Reply(text="I will put you through.", tool=("transfer_to_money", "{}")),
        Reply(text="Buy gold now, and more gold later.", audio_ms=4_000, hold_after_ms=1_000),
        Reply(),
    ]

    def two(agent: Agent) -> list[Agent]:
        money = replace(
            agent, name="money", guardrails=(rule,), guardrail_every_chars=10, greeting=None
        )
        return [replace(agent, handoffs=("money",)), money]

    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, two)
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            assert (await app.event(call, HandedOff)).to_agent == "money"
            trip = await app.event(call, GuardrailTripped)
            assert (trip.guardrail, trip.stopped) == ("no gold", True)
            await app.event(call, AgentSaid, lambda said: said.text == "I cannot advise.")
            assert voice.cancelled == 1
            assert len(voice.latest.of(ev.SessionUpdate)) == 2
            await call.hang_up()
        assert (await app.ended(call)).agent == "money"


async def test_a_handoff_on_the_phone_waits_for_what_is_done_first() -> None:
    told: list[str] = []

    async def on_handoff(context: ToolContext, given: dict[str, str]) -> None:
        told.append(given["about"])
        if len(told) == 1:
            raise ToolFailed("Billing is at lunch.")

    schema = {"type": "object", "properties": {"about": {"type": "string"}}, "required": ["about"]}
    way = HandoffTo(agent="billing", input_type=schema, on_handoff=on_handoff)
    asks = Reply(text="One moment.", audio_ms=200, tool=("transfer_to_billing", '{"about": "it"}'))
    replies = [GREETING, asks, Reply(text="They eat."), asks, Reply(text="Billing here.")]

    def two(agent: Agent) -> list[Agent]:
        return [replace(agent, handoffs=(way,)), replace(agent, name="billing", greeting=None)]

    async with ScriptedVoiceServer(replies=replies) as voice, trunkline(voice) as app:
        with_agents(app, two)
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            await app.event(call, AgentSaid, partial(_says, "They eat."))
            assert voice.latest.of(ev.SessionUpdate)[1:] == []
            await call.speak(0.6)
            assert (await app.event(call, HandedOff)).to_agent == "billing"
            await app.event(call, AgentSaid, partial(_says, "Billing here."))
            await call.hang_up()
        ran = [event for event in await app.events(call) if isinstance(event, ToolRan)]
        assert [event.error for event in ran] == ["tool_failed", ""]
        assert told == ["it", "it"]


async def test_a_tool_that_the_model_refuses_in_mid_call_is_named_and_the_first_agent_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tool
    def look_up(name: str) -> str:
        """Look up."""
        return name

    @tool
    def pay(amount: int) -> str:
        """Pay."""
        return str(amount)

    def refused(event: dict[str, Any]) -> dict[str, Any] | None:
        updates = voice.latest.of(ev.SessionUpdate)
        if event["type"] != "session.updated" or len(updates) != 2:
            return event
        names = [sent["name"] for sent in updates[1].session.tools]
        param = f"session.tools[{names.index('pay')}].parameters"
        error = {"type": "invalid_request_error", "code": "invalid_function_parameters"}
        error |= {"param": param, "message": "Invalid schema.", "event_id": updates[1].event_id}
        return {"type": "error", "event_id": event["event_id"], "error": error}

    def two(agent: Agent) -> list[Agent]:
        money = replace(agent, name="money", tools=(look_up, pay), greeting=None)
        return [replace(agent, handoffs=("money",)), money]

    replies = [
        GREETING,
        Reply(text="One moment.", audio_ms=200, tool=("transfer_to_money", "{}")),
        Reply(text="Still me."),
    ]
    trouble = Trouble(rewrite=refused)
    async with (
        ScriptedVoiceServer(replies=replies, trouble=trouble) as voice,
        trunkline(voice) as app,
    ):
        with_agents(app, two)
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await app.event(call, AgentSaid)
            await call.speak(0.6)
            refusal = await app.event(call, VoiceTrouble)
            assert refusal.where.endswith("].parameters (tool pay)")
            await app.event(call, AgentSaid, partial(_says, "Still me."))
            await call.hang_up()
        assert (await app.ended(call)).agent != "money"
        assert ["go on yourself" in (item.output or "") for item in voice.items] == [True]
        [line] = [line for line in caplog.records if line.msg == "voice model trouble"]
        assert vars(line)["where"] == refusal.where
