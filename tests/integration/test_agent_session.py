"""`AgentSession` against a scripted Realtime server on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from app.agents.agent import END_CALL_TOOL, Agent
from app.agents.guardrails.rules import Stop, regex_guardrail
from app.agents.handoffs import HandoffTo
from app.agents.session.agent_session import AgentSession
from app.agents.session.events import (
    AgentEnd,
    AgentStart,
    Audio,
    AudioInterrupted,
    EventsDropped,
    GuardrailTrip,
    HandoffMade,
    HistoryAdded,
    HistoryUpdated,
    SessionError,
    ToolApproval,
    ToolEnd,
    ToolStart,
    UsageCounted,
)
from app.agents.session.subscriptions import Subscription
from app.agents.tools.tool import Approval, ToolContext, tool
from app.errors import ConfigError, VoiceClosed, VoiceError, VoiceRefused
from app.events import Party
from app.realtime import events as ev
from app.realtime.connecting import RECONNECTS_PER_MINUTE
from app.realtime.events import SessionConfig, Transcription
from app.realtime.websocket import WebSocketModel
from audio.format import PCM16_24K, PCMU_8K
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble, tone
from tests.fakes.waiting import time_limit, until
from tests.integration.server import Leftovers

T = TypeVar("T")


@dataclass
class Complaint:
    about: str


def model_of(server: ScriptedVoiceServer) -> WebSocketModel:
    headers = {"Authorization": "Bearer sk-test"}
    return WebSocketModel(server.url, headers=headers, model="scripted")


def agent(name: str = "greeter", **fields: Any) -> Agent:
    session = {
        key: fields.pop(key) for key in ("instructions", "voice", "tools_built_in") if key in fields
    }
    built_in = session.pop("tools_built_in", ())
    config = SessionConfig(
        turn_detection=None, transcription=Transcription(model="w"), tools=built_in, **session
    )
    return Agent(name=name, session=config, **fields)


async def first(
    events: Subscription | AgentSession, kind: type[T], where: Callable[[T], bool] = lambda _: True
) -> T:
    """The next event of a kind, of those that are still to be read."""
    async with time_limit():
        async for event in events:
            if isinstance(event, kind) and where(event):
                return event
    raise AssertionError(f"the session ended without {kind.__name__}")


def texts(session: AgentSession) -> list[tuple[str, str]]:
    return [(item.party.value, item.text) for item in session.history if item.party and item.text]


@pytest.mark.parametrize("model", ["gpt-realtime-2.1", None, WebSocketModel])
def test_what_is_no_voice_model_is_refused_with_the_remedy(model: Any) -> None:
    with pytest.raises(ConfigError, match=r"WebSocketModel\.openai"):
        AgentSession(Agent("a"), model)


async def test_a_written_message_is_answered() -> None:
    left = Leftovers()
    async with ScriptedVoiceServer(replies=[Reply(text="Hello to you.")]) as server:
        async with AgentSession(agent(instructions="Help."), model_of(server)) as session:
            await session.send_message("Hello!")
            assert (await first(session, AgentStart)).agent == "greeter"
            assert len((await first(session, Audio)).audio) > 0
            done = await first(session, HistoryUpdated, lambda e: e.item.final)
            assert done.item.text == "Hello to you."
            assert (await first(session, AgentEnd)).status == "completed"
            assert (await first(session, UsageCounted)).usage.output_audio == 80
            assert texts(session) == [("caller", "Hello!"), ("agent", "Hello to you.")]
        assert server.latest.of(ev.SessionUpdate)[0].session.instructions == "Help."
        assert not session.connected
    await left.are_gone()


async def test_an_agent_knows_the_time() -> None:
    year = str(datetime.now(UTC).year)
    async with (
        ScriptedVoiceServer() as server,
        AgentSession(agent(instructions="It is {time}."), model_of(server)),
    ):
        await until(lambda: server.latest.of(ev.SessionUpdate))
        assert year in server.latest.of(ev.SessionUpdate)[0].session.instructions


async def test_sound_that_is_committed_is_a_turn_and_is_answered() -> None:
    async with (
        ScriptedVoiceServer(heard=["When do you open?"]) as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        sound = tone(PCM16_24K, 1_200)
        await session.send_audio(sound[:48_000])
        await session.send_audio(sound[48_000:], commit=True)
        await first(session, AgentEnd)
        assert server.audio == sound
        assert texts(session)[0] == ("caller", "When do you open?")
        assert server.created == 1


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_a_tool_runs_and_its_result_is_spoken() -> None:
    replies = [
        Reply(text="Let me see.", tool=("add", '{"a": 2, "b": 3}')),
        Reply(text="Five."),
    ]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(tools=(add,)), model_of(server)) as session,
    ):
        await session.send_message("What is two and three?")
        start = await first(session, ToolStart)
        assert (start.tool, start.arguments) == ("add", '{"a": 2, "b": 3}')
        end = await first(session, ToolEnd)
        assert (end.output, end.error) == ('{"result": 5}', "")
        await first(session, HistoryUpdated, lambda e: e.item.text == "Five.")
        assert server.created == 2
        kinds = [item.kind for item in session.history]
        assert "function_call" in kinds
        assert "function_call_output" in kinds


async def test_a_tool_that_needs_approval_waits_for_it() -> None:
    pay = tool(name="pay", approval=Approval.OPERATOR)(_pay)
    replies = [Reply(tool=("pay", '{"amount": 3}'))]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(tools=(pay,)), model_of(server)) as session,
    ):
        await session.send_message("Pay.")
        wanted = await first(session, ToolApproval)
        assert wanted.prompt.startswith("Please confirm: pay: amount 3.")
        assert not await session.approve_tool_call("another")
        assert await session.approve_tool_call(wanted.tool_call_id)
        assert (await first(session, ToolEnd)).output == '{"result": "paid 3"}'
        second = await first(session, ToolApproval)
        assert await session.reject_tool_call(second.tool_call_id)
        assert (await first(session, ToolEnd)).error == "not_approved"


def _pay(amount: int) -> str:
    """Pay an amount."""
    return f"paid {amount}"


async def test_a_caller_is_handed_from_agent_to_agent() -> None:
    replies = [
        Reply(text="I will put you through.", tool=("transfer_to_billing", "{}")),
        Reply(text="Billing here."),
    ]
    agents = [
        agent(instructions="Greet.", voice="marin", handoffs=("billing",)),
        agent("billing", instructions="Bill.", voice="cedar"),
    ]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agents, model_of(server)) as session,
    ):
        await session.send_message("My invoice, please.")
        made = await first(session, HandoffMade)
        assert (made.from_agent, made.to_agent, made.kept_voice) == ("greeter", "billing", "marin")
        await first(session, HistoryUpdated, lambda e: e.item.text == "Billing here.")
        assert session.current_agent.name == "billing"
        kinds = [type(event).__name__ for event in server.latest.events]
        assert kinds[-3:] == ["SessionUpdate", "ItemCreate", "ResponseCreate"]
        update = server.latest.of(ev.SessionUpdate)[-1].session
        assert update.instructions == "Bill."
        assert update.voice is ev.UNSET


async def test_a_handoff_carries_what_the_model_has_to_say_with_it() -> None:
    told: list[tuple[str, Complaint]] = []

    def on_handoff(context: ToolContext, complaint: Complaint) -> None:
        told.append((context.agent, complaint))

    way = HandoffTo(agent="billing", input_type=Complaint, on_handoff=on_handoff)
    replies = [
        Reply(text="One moment.", tool=("transfer_to_billing", '{"about": "invoice 7"}')),
        Reply(text="Billing here."),
    ]
    agents = [
        agent(handoffs=(way,)),
        agent("billing", instructions_for=lambda facts: f"Bill {facts.call_id[:8]}."),
    ]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agents, model_of(server)) as session,
    ):
        await session.send_message("My invoice, please.")
        assert (await first(session, HandoffMade)).to_agent == "billing"
        await first(session, HistoryUpdated, lambda e: e.item.text == "Billing here.")
        assert told == [("greeter", Complaint("invoice 7"))]
        assert server.latest.of(ev.SessionUpdate)[-1].session.instructions == "Bill session_."
        outputs = [create.item.output for create in server.latest.of(ev.ItemCreate)]
        assert json.loads(outputs[-1] or "")["given"] == {"about": "invoice 7"}


async def test_an_agent_is_replaced_from_outside() -> None:
    async with (
        ScriptedVoiceServer() as server,
        AgentSession([agent(), agent("b", instructions="B.")], model_of(server)) as session,
    ):
        await session.update_agent("b")
        await session.update_agent(agent("c", instructions="C."))
        assert session.current_agent.name == "c"
        await server.until(lambda: len(server.latest.of(ev.SessionUpdate)) == 3)
        updates = [update.session.instructions for update in server.latest.of(ev.SessionUpdate)]
        assert updates[1:] == ["B.", "C."]
        with pytest.raises(ConfigError, match="there is no agent 'd'"):
            await session.update_agent("d")


async def test_a_guardrail_looks_at_what_the_user_writes() -> None:
    rule = regex_guardrail("no gold", Party.CALLER, "gold", Stop("I cannot advise.", "advice"))
    replies = [Reply(text="You buy it.", audio_ms=5_000, hold_after_ms=1_000), Reply()]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(guardrails=(rule,)), model_of(server)) as session,
    ):
        await session.send_message("How do I buy gold?")
        trip = await first(session, GuardrailTrip)
        assert (trip.guardrail, trip.side, trip.stopped) == ("no gold", Party.CALLER, True)
        await first(session, HistoryUpdated, lambda e: e.item.text == "I cannot advise.")
        assert server.cancelled == 1


async def test_a_guardrail_cuts_the_agent_off() -> None:
    rule = regex_guardrail("no gold", Party.AGENT, "gold", Stop("I cannot advise.", "advice"))
    replies = [
        Reply(text="Buy gold now and then more of it.", audio_ms=5_000, hold_after_ms=1_000),
        Reply(),
    ]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(
            agent(guardrails=(rule,), guardrail_every_chars=12), model_of(server)
        ) as session,
    ):
        await session.send_message("Where do I put my money?")
        trip = await first(session, GuardrailTrip)
        assert (trip.guardrail, trip.side, trip.stopped) == ("no gold", Party.AGENT, True)
        await first(session, HistoryUpdated, lambda e: e.item.text == "I cannot advise.")
        assert server.cancelled == 1
        assert len(server.truncated) == 1
        stopped = next(item for item in session.history if item.item_id == trip.item_id)
        assert stopped.cut_off


async def test_interrupting_tells_the_model_what_was_heard() -> None:
    replies = [Reply(text="A long story.", audio_ms=3_000, hold_after_ms=2_000)]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        await session.send_message("Tell me.")
        audio = await first(session, Audio)
        await session.interrupt(heard_ms=40)
        cut = await first(session, AudioInterrupted)
        assert (cut.item_id, cut.heard_ms) == (audio.item_id, 40)
        assert (await first(session, AgentEnd)).status == "cancelled"
        await server.until(lambda: len(server.truncated) == 1)
        assert server.truncated == [(audio.item_id, 40)]
        assert server.cancelled == 1


async def test_texts_are_said_in_turn_verbatim_or_as_information() -> None:
    async with (
        ScriptedVoiceServer() as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        await session.say("We close soon.")
        await session.say("The order has shipped.", mode="relay", when="idle")
        await first(session, HistoryUpdated, lambda e: e.item.text == "The order has shipped.")
        creates = server.latest.of(ev.ResponseCreate)
        assert [c.response.metadata["say"] for c in creates] == [
            "We close soon.",
            "The order has shipped.",
        ]
        assert server.items[0].role == "system"
        with pytest.raises(ValueError, match="loudly"):
            await session.say("x", mode="loudly")


async def test_the_agent_may_speak_first_and_may_end_it() -> None:
    left = Leftovers()
    replies = [
        Reply(text="Hi."),
        Reply(text="Goodbye.", tool=("end_call", '{"reason": "task_complete"}')),
    ]
    async with ScriptedVoiceServer(replies=replies) as server:
        ending = agent(tools_built_in=(END_CALL_TOOL,), greeting="Good day.")
        async with AgentSession(ending, model_of(server), greet=True) as session:
            await first(session, HistoryUpdated, lambda e: e.item.text == "Good day.")
            await session.send_message("That is all.")
            async with time_limit():
                events = [event async for event in session]
            assert isinstance(events[-1], AgentEnd | UsageCounted)
            assert not session.connected
            with pytest.raises(VoiceClosed):
                await session.send_message("Hello?")
    await left.are_gone()


# Listeners ----------------------------------------------------------------------------------------


async def test_subscribers_each_get_every_event_once() -> None:
    async with (
        ScriptedVoiceServer() as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        ui = session.subscribe("ui")
        assert session.subscribe("ui") is ui
        log = session.subscribe("log")
        await session.send_message("Hello!")
        await first(session, UsageCounted)
        for listener in (ui, log):
            added = await first(listener, HistoryAdded)
            assert (added.item.text, added.previous_item_id) == ("Hello!", None)
        session.unsubscribe("ui")
        session.unsubscribe("ui")
        await session.send_message("And again.")
        await first(session, UsageCounted)
        after = [event async for event in ui]
        assert not any(
            isinstance(event, HistoryAdded) and event.item.text == "And again." for event in after
        )


async def test_a_slow_subscriber_loses_the_oldest_and_gets_their_number() -> None:
    async with (
        ScriptedVoiceServer() as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        slow = session.subscribe("slow", limit=3)
        await session.send_message("Hello!")
        await first(session, UsageCounted)
        dropped = await anext(slow)
        assert isinstance(dropped, EventsDropped)
        assert dropped.count > 3
        rest = [await anext(slow) for _ in range(3)]
        assert isinstance(rest[-1], UsageCounted)


NAMES = (
    "agent_start agent_end audio audio_end audio_interrupted tool_start tool_end "
    "tool_approval_required handoff guardrail_tripped history_added history_updated error usage "
    "input_timeout raw_model_event said"
)


async def test_every_event_has_a_type() -> None:
    careful = tool(name="add", approval=Approval.OPERATOR)(add_them)
    rule = regex_guardrail("no gold", Party.AGENT, "gold", Stop("", "advice"))
    first_agent = agent(tools=(careful,), handoffs=("money",))
    money = agent("money", guardrails=(rule,), guardrail_every_chars=5)
    replies = [
        Reply(text="Let me see.", tool=("add", '{"a": 1, "b": 1}')),
        Reply(text="Two. Please wait.", tool=("transfer_to_money", "{}")),
        Reply(text="Buy gold now, and then some.", audio_ms=2_000, hold_after_ms=1_000),
        Reply(text="As I said.", audio_ms=9_000),
    ]
    names, seen = set(NAMES.split()), set[str]()
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession([first_agent, money], model_of(server)) as session,
        time_limit(),
    ):
        await session.send_message("One and one? And money?")
        async for event in session:
            seen.add(event.type)
            match event:
                case ToolApproval():
                    assert await session.approve_tool_call(event.tool_call_id)
                case GuardrailTrip():
                    server.latest.emit(ev.InputTimeoutTriggered("item_t", 0, 5_000))
                    detail = ev.ErrorDetail(type="server_error", code="odd", message="x")
                    server.latest.emit(ev.ErrorEvent(detail))
                case AudioInterrupted():
                    await session.send_message("Go on.")
                case _:
                    pass
            if seen >= names:
                break
    assert seen >= names


def add_them(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# Connections --------------------------------------------------------------------------------------


async def test_without_a_connection_every_request_is_answered_with_an_error() -> None:
    async with ScriptedVoiceServer() as server:
        session = AgentSession(agent(), model_of(server))
        requests: list[Callable[[], Any]] = [
            lambda: session.send_message("x"),
            lambda: session.send_audio(b"\0\0", commit=True),
            lambda: session.say("x"),
            session.interrupt,
            lambda: session.update_agent("greeter"),
            lambda: session.approve_tool_call("x"),
        ]
        for request in requests:
            with pytest.raises(VoiceClosed, match="not connected"):
                await request()
        await session.close()
        assert [event async for event in session] == []
        with pytest.raises(ConfigError, match="closed before"):
            await session.__aenter__()
        async with AgentSession(agent(), model_of(server)) as other:
            await other.close()
            await other.close()
            with pytest.raises(VoiceClosed):
                await other.send_message("x")
            assert [event async for event in other.subscribe("late")] == []


async def test_a_model_that_refuses_is_an_error_on_entering() -> None:
    left = Leftovers()
    async with ScriptedVoiceServer(trouble=Trouble(http_status=401)) as server:
        with pytest.raises(VoiceRefused):
            async with AgentSession(agent(), model_of(server)):
                raise AssertionError("it was let in")
    await left.are_gone()


async def test_a_connection_that_breaks_is_replaced_and_the_dialogue_replayed() -> None:
    replies = [Reply(text="One."), Reply(close_after_ms=300, text="Two two two")]
    async with (
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        await session.send_message("First.")
        await first(session, UsageCounted)
        server.replies = [Reply(text="Three.")]
        await session.send_message("Second.")
        await first(session, HistoryUpdated, lambda e: e.item.text == "Three.")
        assert len(server.connections) == 2
        replayed = [(i.role, i.content[0].text) for i in server.items if i.type == "message"]
        assert replayed[:3] == [("user", "First."), ("assistant", "One."), ("user", "Second.")]


async def test_a_model_that_breaks_again_and_again_ends_the_session_with_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.realtime.connecting.FIRST_PAUSE_S", 0.0)
    left = Leftovers()
    async with ScriptedVoiceServer(replies=[Reply(close_after_ms=100)]) as server:
        async with AgentSession(agent(), model_of(server)) as session:
            await session.send_message("Hello?")
            async with time_limit():
                errors = [event async for event in session if isinstance(event, SessionError)]
            assert errors[-1].fatal
            assert errors[-1].message == "the model was lost"
            with pytest.raises(VoiceError):
                await session.send_message("Hello?")
        assert len(server.connections) == 1 + RECONNECTS_PER_MINUTE
    await left.are_gone()


async def test_a_tool_ends_with_the_session() -> None:
    left = Leftovers()
    started = asyncio.Event()
    ended = asyncio.Event()

    @tool
    async def wait_for_ever() -> None:
        """Wait."""
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    replies = [Reply(tool=("wait_for_ever", "{}"))]
    async with ScriptedVoiceServer(replies=replies) as server:
        async with AgentSession(agent(tools=(wait_for_ever,)), model_of(server)) as session:
            await session.send_message("Go.")
            async with time_limit():
                await started.wait()
        assert ended.is_set()
    await left.are_gone()


async def test_an_error_of_the_user_ends_the_session_and_comes_through() -> None:
    left = Leftovers()
    async with ScriptedVoiceServer() as server:
        with pytest.raises(KeyError):
            async with AgentSession(agent(), model_of(server)):
                raise KeyError("mine")
    await left.are_gone()


async def test_a_session_that_is_closed_while_it_connects_leaves_no_connection() -> None:
    async with ScriptedVoiceServer(trouble=Trouble(ignores_update=True)) as server:
        session = AgentSession(agent(), model_of(server))
        entering = asyncio.ensure_future(session.__aenter__())
        await server.until(lambda: bool(server.connections and server.latest.of(ev.SessionUpdate)))
        await session.close()
        server.latest.emit(ev.SessionUpdated(server.latest.of(ev.SessionUpdate)[0].session))
        with pytest.raises(ConfigError, match="closed while it connected"):
            await entering
        await server.until(lambda: server.open_connections == 0)


async def test_subscribers_of_a_session_that_never_began_do_not_wait() -> None:
    async with ScriptedVoiceServer(trouble=Trouble(http_status=401)) as server:
        session = AgentSession(agent(), model_of(server))
        with pytest.raises(VoiceClosed):
            aiter(session)
        early = session.subscribe("early")
        with pytest.raises(VoiceRefused):
            async with session:
                pass
        async with time_limit():
            assert [event async for event in session] == [event async for event in early] == []
        with pytest.raises(VoiceRefused):
            await session.send_message("Hello?")
        with pytest.raises(ConfigError, match="make another one"):
            await session.__aenter__()


async def test_a_session_keeps_its_sound_format() -> None:
    phone = Agent(name="phone", session=SessionConfig(input_format=PCMU_8K, output_format=PCMU_8K))
    async with (
        ScriptedVoiceServer() as server,
        AgentSession([agent(), phone], model_of(server)) as session,
    ):
        for one in ("phone", replace(phone, name="other")):
            with pytest.raises(ConfigError, match="keeps its sound format"):
                await session.update_agent(one)
        assert session.current_agent.name == "greeter"
