"""`AgentSession.ask`, the event `said`, and events that are sent as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from app.agents.agent import Agent
from app.agents.session.agent_session import AgentSession
from app.agents.session.events import ToolApproval, Utterance
from app.agents.session.subscriptions import Subscription
from app.agents.tools.tool import Approval, tool
from app.errors import ConfigError, VoiceUnavailable
from app.events import Party
from app.realtime import events as ev
from app.realtime.websocket import WebSocketModel
from tests.fakes.voice import Reply, ScriptedVoiceServer, Trouble
from tests.fakes.waiting import time_limit


def model_of(server: ScriptedVoiceServer) -> WebSocketModel:
    return WebSocketModel(server.url, headers={}, model="scripted")


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def agent(name: str = "reception", **fields: Any) -> Agent:
    session = ev.SessionConfig(turn_detection=None, transcription=ev.Transcription(model="w"))
    return Agent(name, instructions="Be brief.", session=session, **fields)


def said(session: AgentSession) -> Subscription:
    return session.subscribe("said")


def utterances(events: Subscription) -> list[tuple[str, str, str]]:
    """The words so far: each with its party and its agent."""
    found = []
    while events.unread:
        event = events._events.popleft()
        if isinstance(event, Utterance):
            found.append((event.party.value, event.agent, event.text))
    return found


async def test_an_answer_is_returned_once_the_turn_is_over() -> None:
    replies = [Reply(text="Good day."), Reply(text="At nine."), Reply(text="At five.")]
    async with (
        time_limit(),
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        assert await session.ask("Hello!") == "Good day."
        assert await session.ask("When do you open?") == "At nine."
        assert await session.ask("And close?") == "At five."
        assert not session.busy


async def test_an_answer_includes_tools_and_handoffs() -> None:
    replies = [
        Reply(text="Let me see.", tool=("add", '{"a": 2, "b": 3}')),
        Reply(text="Five.", tool=("transfer_to_billing", "{}")),
        Reply(text="Billing here."),
    ]
    agents = agent(tools=[add], handoffs=[agent("billing")])
    async with (
        time_limit(),
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agents, model_of(server)) as session,
    ):
        events = said(session)
        assert await session.ask("Two and three?") == "Let me see. Five. Billing here."
        assert session.current_agent.name == "billing"
        assert utterances(events) == [
            ("caller", "", "Two and three?"),
            ("agent", "reception", "Let me see."),
            ("agent", "reception", "Five."),
            ("agent", "billing", "Billing here."),
        ]


async def test_an_answer_waits_for_an_approval() -> None:
    careful = tool(name="add", approval=Approval.OPERATOR)(add)
    replies = [Reply(text="", tool=("add", '{"a": 2, "b": 3}')), Reply(text="Five.")]
    async with (
        time_limit(),
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(tools=[careful]), model_of(server)) as session,
        asyncio.TaskGroup() as group,
    ):
        answer = group.create_task(session.ask("Two and three?"))
        async for event in session:
            if isinstance(event, ToolApproval):
                assert not answer.done()
                await session.approve_tool_call(event.tool_call_id)
                break
        assert await answer == "Five."


async def test_a_question_while_the_agent_speaks_gets_its_own_answer() -> None:
    replies = [Reply(text="A long greeting.", hold_after_ms=300), Reply(text="At nine.")]
    async with (
        time_limit(),
        ScriptedVoiceServer(replies=replies) as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        await session.send_message("Hello!")
        async for event in session:
            if event.type == "history_added" and event.item.party is Party.AGENT:
                break
        question = asyncio.create_task(session.ask("When do you open?"))
        await server.until(lambda: len(server.items) == 2)
        assert server.latest.free is not None
        server.latest.free.release()
        assert await question == "At nine."


Rewrite = Callable[[dict[str, Any]], dict[str, Any] | None]


def _lean(event: dict[str, Any]) -> dict[str, Any] | None:
    if event["type"] == "response.done":
        event["response"]["output"] = None
    closing = ("output_item.done", "content_part.done", "transcript.done", "item.done")
    return None if event["type"].endswith(closing) else event


def _one_id(event: dict[str, Any]) -> dict[str, Any] | None:
    if event["type"].startswith("response.output_audio"):
        event["item_id"] = "msg_same"
    if event["type"].startswith("response.output_item"):
        event["item"]["id"] = "msg_same"
    if event["type"] == "response.done":
        for item in event["response"]["output"]:
            item["id"] = "msg_same"
    return None if event["type"].startswith("conversation.item") else event


@pytest.mark.parametrize("rewrite", [_lean, _one_id])
async def test_servers_that_say_little_are_understood(rewrite: Rewrite) -> None:
    replies = [Reply(text="Good day."), Reply(text="At nine.")]
    async with (
        time_limit(),
        ScriptedVoiceServer(replies=replies, trouble=Trouble(rewrite=rewrite)) as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        events = said(session)
        assert await session.ask("Hello!") == "Good day."
        assert await session.ask("When do you open?") == "At nine."
        assert utterances(events) == [
            ("caller", "", "Hello!"),
            ("agent", "reception", "Good day."),
            ("caller", "", "When do you open?"),
            ("agent", "reception", "At nine."),
        ]


async def test_a_session_that_ends_meanwhile_gives_no_empty_answer() -> None:
    async with (
        time_limit(),
        ScriptedVoiceServer(
            replies=[Reply(text="Never.", audio_ms=900, close_after_ms=300)]
        ) as server,
        AgentSession(agent(), model_of(server), reconnect=False) as session,
    ):
        with pytest.raises(VoiceUnavailable):
            await session.ask("Hello!")


async def test_an_event_is_sent_as_it_is() -> None:
    async with (
        time_limit(),
        ScriptedVoiceServer() as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        await session.send_event({"type": "conversation.item.retrieve", "item_id": "item_1"})
        await session.send_event({"type": "vendor.status", "status": {"level": 3}})
        await server.until(lambda: bool(server.latest.of(ev.Unknown)))
        [retrieved] = server.latest.of(ev.ItemRetrieve)
        assert retrieved.item_id == "item_1"
        [status] = server.latest.of(ev.Unknown)
        assert status.raw["status"] == {"level": 3}


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"type": ""},
        {"type": None},
        {"type": 3},
        {"type": "x", "sound": b""},
        {"type": "x", "n": float("nan")},
    ],
)
async def test_an_event_that_cannot_be_sent_is_refused(event: dict[str, Any]) -> None:
    async with (
        time_limit(),
        ScriptedVoiceServer(replies=[Reply(text="Good day.")]) as server,
        AgentSession(agent(), model_of(server)) as session,
    ):
        with pytest.raises(ConfigError):
            await session.send_event(event)
        assert await session.ask("Hello!") == "Good day."


def test_old_names_work_for_one_more_version() -> None:
    with pytest.warns(DeprecationWarning, match="is now agent.handoff_options"):
        assert agent().leads_to == ()


async def test_a_session_offers_nothing_but_its_own_methods() -> None:
    model = WebSocketModel("ws://127.0.0.1:9", headers={}, model="m")
    session = AgentSession(agent(), model)
    with pytest.warns(DeprecationWarning, match="is now session.analyzing"):
        assert not session.thinking
    assert not [name for name in dir(session) if name.startswith("on_")]
