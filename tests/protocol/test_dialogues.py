"""Scripted dialogues: events of the model and the caller, and everything that follows from them.

A file of `data/dialogues` is one phone call. Its first line says what it shows and which agents
there are. Then each line is a step: `model` is a message as the model's server sends it, `phone`
something that the caller or the carrier does, `tool` lets a running tool answer, and `want` lists
everything that has to happen until there, in order. `want` entries name the keys that matter;
`$ask` and `$update` in a message stand for the event id of our last request, `$sound 600` for
600 ms of audio. Conversation, tools and guardrails are the real ones; sockets are not needed.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.agents.agent import END_CALL_TOOL, Agent
from app.agents.dialogue.actions import Record, RunTool, ToVoice
from app.agents.guardrails.rules import CheckGuardrail, Guardrail, Stop, regex_guardrail
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.tools.tool import Tool, ToolContext
from app.calls.actions import Action, Clear, Decide, End, PlayAudio
from app.calls.background_work import BackgroundWork
from app.calls.conversation.conversation import Conversation
from app.calls.policy import CallPolicy
from app.carrier.base import (
    CarrierCallId,
    Dtmf,
    MarkReached,
    StreamEvent,
    StreamId,
    StreamStarted,
    StreamStopped,
)
from app.events import (
    BargeIn,
    CallEvent,
    CallId,
    EndReason,
    GuardrailTripped,
    HandedOff,
    Party,
    ToolRan,
)
from app.realtime.dialect import GA
from app.realtime.events import ResponseCreate, ServerVad, SessionConfig, SessionUpdate
from audio.format import PCMU_8K
from tests.fakes.waiting import time_limit

DIALOGUES = sorted((Path(__file__).parent / "data" / "dialogues").glob("*.jsonl"))
RECORDED = (BargeIn, GuardrailTripped, HandedOff, ToolRan)
SETTLE_STEPS = 50
_SOUND = re.compile(r"\$sound (\d+)")


def _sound(found: re.Match[str]) -> str:
    return base64.b64encode(b"\x20" * PCMU_8K.ms_to_bytes(int(found[1]))).decode()


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class DialogueRun:
    """Runs one dialogue as `app.calls.call` does, but without sockets."""

    def __init__(self, active: Sequence[Mapping[str, Any]]) -> None:
        self.done: list[dict[str, Any]] = []
        self.now_ms = 0
        self._answers: dict[str, asyncio.Future[str]] = {}
        self._marks: list[str] = []
        self._last: dict[str, str] = {"$ask": "", "$update": ""}
        self._over = False
        self._changed = asyncio.Event()
        roster = Roster([self._agent(facts) for facts in active])
        facts = CallFacts(call_id=CallId("call"))
        policy = CallPolicy()
        self._conversation = Conversation(
            facts.call_id, roster.first, policy, 0, roster=roster, facts=facts
        )
        self.work = BackgroundWork(
            self._conversation,
            record=self._record,
            perform=self._perform,
            now_ms=lambda: self.now_ms,
        )

    def _agent(self, facts: Mapping[str, Any]) -> Agent:
        rules: list[Guardrail] = [
            regex_guardrail(name, Party.AGENT, rule["pattern"], Stop(rule["say"], name))
            for name, rule in facts.get("guardrails", {}).items()
        ]
        session = SessionConfig(
            instructions=facts.get("instructions", "Help."),
            voice=facts.get("voice", "marin"),
            input_format=PCMU_8K,
            output_format=PCMU_8K,
            turn_detection=ServerVad(),
            tools=(END_CALL_TOOL,),
        )
        return Agent(
            name=facts["name"],
            session=session,
            greeting="Hello!",
            tools=tuple(self._tool(name, **o) for name, o in facts.get("tools", {}).items()),
            handoffs=tuple(facts.get("handoffs", ())),
            guardrails=tuple(rules),
            guardrail_every_chars=20,
        )

    def _tool(self, name: str, **options: Any) -> Tool:
        async def run(context: ToolContext, arguments: Mapping[str, Any]) -> str:
            answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            self._answers[context.tool_call_id] = answer
            return await answer

        any_arguments = {"type": "object"}
        return Tool(name=name, description="Does it.", parameters=any_arguments, run=run, **options)

    # Steps --------------------------------------------------------------------------------------

    async def step(self, line: Mapping[str, Any]) -> None:
        match line:
            case {"model": message}:
                text = json.dumps(message)
                text = _SOUND.sub(_sound, text)
                for place, event_id in self._last.items():
                    text = text.replace(f'"{place}"', json.dumps(event_id))
                event = GA.decode_server(text)
                self.work.on_voice(event)
                self._perform(self._conversation.on_voice(event, self.now_ms))
            case {"phone": "answers"}:
                started = StreamStarted(
                    stream_id=StreamId("MZ1"),
                    carrier_call_id=CarrierCallId("CA1"),
                    account_id="AC1",
                )
                self._perform(self._conversation.on_voice_ready(self.now_ms, None))
                self._phone(started)
            case {"phone": "hears all"}:
                marks, self._marks = self._marks, []
                for mark in marks:
                    self._phone(MarkReached(mark))
            case {"phone": "hangs up"}:
                self._phone(StreamStopped(hung_up=True))
            case {"phone": {"key": digit}}:
                self._phone(Dtmf(digit))
            case {"tool": tool_call_id, "output": output}:
                answer = self._answers[tool_call_id]
                if not answer.cancelled():
                    answer.set_result(output)
            case {"wait_ms": ms}:
                for _ in range(ms // 100):
                    self.now_ms += 100
                    self._perform(self._conversation.on_tick(self.now_ms))
            case {"want": wanted}:
                await self._want(wanted)
            case _:
                raise AssertionError(f"not a step: {line}")
        for _ in range(SETTLE_STEPS):
            await asyncio.sleep(0)

    async def _want(self, wanted: Sequence[Mapping[str, Any]]) -> None:
        async with time_limit():
            while len(self.done) < len(wanted):
                self._changed.clear()
                await self._changed.wait()
        found, self.done = self.done, []
        for want, got in zip(wanted, found, strict=False):
            assert _holds(want, got), f"wanted {want}\ngot {got}\nof {found}"
        assert len(found) == len(wanted), f"more than wanted: {found[len(wanted) :]}"

    def _phone(self, event: StreamEvent) -> None:
        self._perform(self._conversation.on_stream(event, self.now_ms))

    # Actions --------------------------------------------------------------------------------------

    def _perform(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case _ if self._over:
                    self._note({"after the end": type(action).__name__})
                case ToVoice(event):
                    event_id = getattr(event, "event_id", "") or "evt"
                    text = GA.encode_client(event, event_id)
                    if isinstance(event, ResponseCreate):
                        self._last["$ask"] = event_id
                    elif isinstance(event, SessionUpdate):
                        self._last["$update"] = event_id
                    self._note({"to_model": json.loads(text)})
                case PlayAudio(mark=mark):
                    self._marks += [mark] if mark else []
                case Clear():
                    self._note({"clear": True})
                case RunTool():
                    self._note({"run": action.name, "by": action.agent})
                    self.work.run_tool(action)
                case CheckGuardrail():
                    self.work.check(action)
                case Decide(tool_call_id, approved):
                    self.work.tools.decide(tool_call_id, approved=approved)
                case Record(event):
                    self._record(event)
                case End(reason):
                    self._note({"end": reason.value})
                    self._over = True
                    self.work.close()
                case _:
                    self._note({"other": repr(action)})

    def _record(self, event: CallEvent) -> None:
        if isinstance(event, RECORDED):
            facts = {name: getattr(event, name) for name in event.__dataclass_fields__}
            self._note({"recorded": type(event).__name__, **facts})

    def _note(self, facts: dict[str, Any]) -> None:
        self.done.append(facts)
        self._changed.set()


def _holds(want: Any, got: Any) -> bool:
    """True where everything wanted is there; whatever is not mentioned may differ."""
    if isinstance(want, dict):
        return isinstance(got, dict) and all(
            key in got and _holds(value, got[key]) for key, value in want.items()
        )
    if isinstance(want, list):
        return (
            isinstance(got, list)
            and len(want) == len(got)
            and all(_holds(one, other) for one, other in zip(want, got, strict=True))
        )
    return bool(want == got)


class _Over(Exception):
    """Ends the tasks of a dialogue, as a call ends its own."""


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
async def test_a_dialogue_goes_as_it_is_written(path: Path) -> None:
    head, *steps = _lines(path)
    run = DialogueRun(head["agents"])
    try:
        async with asyncio.TaskGroup() as tasks:
            run.work.open(tasks)
            for line in steps:
                await run.step(line)
            raise _Over
    except* _Over:
        pass
    assert run.done == []


def test_the_dialogues_that_matter_are_there() -> None:
    assert {path.stem for path in DIALOGUES} >= {
        "parallel_tools_one_reply",
        "tool_outlives_the_call",
        "tool_output_while_a_response_runs",
        "rejected_response_create",
        "handoff_in_mid_speech",
        "guardrail_in_mid_speech",
        "goodbye_interrupted_by_the_caller",
    }


@pytest.mark.parametrize("path", DIALOGUES, ids=lambda path: path.stem)
def test_a_dialogue_says_what_it_shows_and_ends_with_a_demand(path: Path) -> None:
    head, *steps = _lines(path)
    assert head["shows"].endswith(".")
    assert "want" in steps[-1]


def test_a_demand_is_about_what_it_names() -> None:
    assert _holds({"a": {"b": [1]}}, {"a": {"b": [1], "c": 2}, "d": 3})
    assert not _holds({"a": [1]}, {"a": [1, 2]})
    assert not _holds({"a": 1}, {"b": 1})
    assert EndReason.AGENT_HUNG_UP.value == "agent_hung_up"
