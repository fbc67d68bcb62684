"""`trunkline chat`: through a pseudo-terminal with the offline engine, and what its reports say."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from app.agents.agent import Agent
from app.agents.analysis.analyzer import AnalyzerLimits
from app.agents.analysis.live_analysis import AnalysisPlan
from app.agents.analysis.questions import AnalysisSpec
from app.agents.guardrails.rules import Stop, regex_guardrail
from app.agents.session.agent_session import AgentSession
from app.agents.session.events import (
    AgentEnd,
    HistoryAdded,
    HistoryItem,
    HistoryUpdated,
    SessionError,
    ToolEnd,
    UsageCounted,
)
from app.agents.tools.tool import Approval, tool
from app.cli.chat import JsonReport, TerminalLines, TextReport, chat
from app.events import AnalysisFailed, CallId, Party, TokenUsage
from app.realtime.events import SessionConfig
from app.realtime.websocket import WebSocketModel
from tests.fakes.forked import ForkedProcess, start_forked
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit

COMMAND = (sys.executable, "-c", "from app.cli import main; main()", "chat")
ROOT = Path(__file__).parents[2]
# In a terminal ------------------------------------------------------------------------------------


class Terminal:
    """A process on a pseudo-terminal: what it has shown, and what is typed to it."""

    def __init__(self, process: ForkedProcess, master: int) -> None:
        self.process = process
        self.shown = ""
        self._master = master
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(master, self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65_536)
        except OSError:  # the other end is closed (Linux says EIO)
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(self._master)
        self.shown += data.decode(errors="replace").replace("\r\n", "\n")
        self._changed.set()

    async def until(self, text: str, after: str = "") -> None:
        async with time_limit():
            while text not in self.shown.partition(after)[2] if after else text not in self.shown:
                self._changed.clear()
                await self._changed.wait()

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    async def code(self) -> int:
        async with time_limit():
            return await self.process.wait()


@asynccontextmanager
async def terminal(folder: Path, *options: str) -> AsyncIterator[Terminal]:
    config = folder / "config.yaml"
    config.write_text("voice_model: offline\noffline: {workers: 1}\n")
    master, slave = pty.openpty()
    process = await start_forked(
        "app.cli",
        "chat",
        "--config",
        str(config),
        *options,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(folder)},
    )
    os.close(slave)
    shown = Terminal(process, master)
    try:
        yield shown
    finally:
        await process.end()
        asyncio.get_running_loop().remove_reader(master)
        os.close(master)


@pytest.mark.offline_speech
async def test_a_user_types_to_the_offline_receptionist(tmp_path: Path) -> None:
    async with terminal(tmp_path) as screen:
        await screen.until("you> ")
        assert "agent> Hello, this is the robot at the Trunkline demo office." in screen.shown
        screen.type("when are you open\n")
        await screen.until("you> ", after="when are you open")
        assert "agent> We are open Monday to Friday" in screen.shown
        assert "tokens so far, free]" in screen.shown
        screen.type("/quit\n")
        assert await screen.code() == 0


@pytest.mark.offline_speech
async def test_a_goodbye_ends_the_conversation_from_the_other_side(tmp_path: Path) -> None:
    async with terminal(tmp_path) as screen:
        await screen.until("you> ")
        screen.type("bye bye\n")
        assert await screen.code() == 0
        await screen.until("[tool end_call")
        assert "agent> Thank you for calling. Goodbye." in screen.shown


@pytest.mark.offline_speech
async def test_the_keys_for_end_and_interrupt_end_it(tmp_path: Path) -> None:
    async with terminal(tmp_path) as screen:
        await screen.until("you> ")
        screen.type("\x04")
        assert await screen.code() == 0
    async with terminal(tmp_path) as screen:
        await screen.until("you> ")
        screen.process.send_signal(signal.SIGINT)
        assert await screen.code() == 130
        assert "Traceback" not in screen.shown


@pytest.mark.offline_speech
async def test_one_turn_as_json_for_scripts(tmp_path: Path) -> None:
    async with terminal(tmp_path, "--json", "--say", "where are you") as screen:
        assert await screen.code() == 0
        events = [json.loads(line) for line in screen.shown.splitlines()]
    assert events[0]["type"] == "history_added"
    assert events[0]["item"]["text"] == "where are you"
    assert [event["type"] for event in events][-2:] == ["agent_end", "usage"]
    said = [event["item"]["text"] for event in events if event["type"] == "history_updated"]
    assert "Harbor Street" in said[-1]


# Reports ------------------------------------------------------------------------------------------


class Typed:
    """Lines that were typed beforehand."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = list(lines)

    async def next(self) -> str | None:
        return self._lines.pop(0) if self._lines else None


def agent(name: str = "greeter", **fields: Any) -> Agent:
    session = SessionConfig(turn_detection=None, voice=fields.pop("voice", "marin"))
    return Agent(name=name, session=session, **fields)


async def shown(
    server: ScriptedVoiceServer,
    agents: Sequence[Agent],
    lines: Sequence[str] = (),
    *,
    say: str | None = None,
    ended_well: bool = True,
    analysis: AnalysisPlan | None = None,
) -> str:
    out = StringIO()
    model = WebSocketModel(server.url, headers={}, model="scripted")
    session = AgentSession(
        agents, model, plays_audio=False, price=lambda _usage: 0.00123, analysis=analysis
    )
    async with time_limit(), session:
        report = TextReport(out, prompts=True)
        assert await chat(session, Typed(lines), report, say=say) is ended_well
    return out.getvalue()


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_tools_and_costs_are_shown_between_the_words() -> None:
    replies = [Reply(text="Let me see.", tool=("add", '{"a": 2, "b": 3}')), Reply(text="Five.")]
    async with ScriptedVoiceServer(replies=replies) as server:
        text = await shown(server, [agent(tools=(add,))], ["two and three?", "", "/quit"])
    lines = [line.rstrip() for line in text.splitlines()]
    assert lines[0] == "you> agent> Let me see."
    assert lines[1] == '[tool add {"a": 2, "b": 3}]'
    assert lines[2].startswith('[tool add: {"result": 5} (')
    assert lines[3:5] == ["agent> Five.", "[600 tokens so far, $0.0012]"]


@pytest.mark.parametrize(("dollars", "cost"), [(None, "price not known"), (0.0, "free")])
async def test_a_price_that_is_not_known_is_not_called_free(
    dollars: float | None, cost: str
) -> None:
    out = StringIO()
    report = TextReport(out, prompts=False)
    report.event(UsageCounted(usage=TokenUsage(input_text=7), cost_usd=dollars))
    report.end()
    assert out.getvalue() == f"[7 tokens so far, {cost}]\n"


class Screen(StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("size", [1, 3, 1_000])
def test_a_terminal_gets_whole_words_however_they_come(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    said = "We are open Monday to Friday.\nFrom nine to five, at 42 Harbor Street."
    out = Screen()
    report = TextReport(out, prompts=False)
    for end in range(size, len(said) + size, size):
        item = HistoryItem(item_id="a", kind="message", party=Party.AGENT, text=said[:end])
        report.event(HistoryUpdated(item=item))
    ended = ToolEnd(
        agent="a", tool="end_call", tool_call_id="c", output='{"ok": true}', error="", duration_ms=0
    )
    report.event(ended)
    assert out.getvalue().splitlines() == [
        "agent> We are open",
        "       Monday to Friday.",
        "From nine to five, at 42",
        "       Harbor Street.",
        '[tool end_call: {"ok":',
        "true} (0 ms)]",
    ]


async def test_a_tool_asks_before_it_runs() -> None:
    careful = tool(name="add", approval=Approval.OPERATOR)(add_numbers)
    replies = [Reply(text="One moment.", tool=("add", '{"a": 1, "b": 1}')), Reply(text="Two.")]
    async with ScriptedVoiceServer(replies=replies) as server:
        text = await shown(server, [agent(tools=(careful,))], ["sum?", "y"])
        assert '[allow add {"a": 1, "b": 1}? y/n]' in text
        assert '{"result": 2}' in text
        server.replies = replies
        refused = await shown(server, [agent(tools=(careful,))], say="sum?")
    assert "(not_approved)" in refused


async def test_what_is_neither_yes_nor_no_is_asked_again() -> None:
    careful = tool(name="add", approval=Approval.OPERATOR)(add_numbers)
    replies = [Reply(text="One moment.", tool=("add", '{"a": 1, "b": 1}')), Reply(text="Two.")]
    async with ScriptedVoiceServer(replies=replies) as server:
        text = await shown(server, [agent(tools=(careful,))], ["sum?", "yse", "", "YES"])
    assert text.count('[allow add {"a": 1, "b": 1}? y/n]') == 3
    assert '{"result": 2}' in text


def add_numbers(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


async def test_handoffs_and_guardrails_are_shown() -> None:
    rule = regex_guardrail("no gold", Party.AGENT, "gold", Stop("No advice.", "advice"))
    agents = [
        agent(handoffs=("b",)),
        agent("b", voice="cedar", guardrails=(rule,), guardrail_every_chars=5),
    ]
    replies = [
        Reply(text="Please wait.", tool=("transfer_to_b", "{}")),
        Reply(text="Buy gold now or later on.", audio_ms=900, hold_after_ms=600),
        Reply(),
    ]
    async with ScriptedVoiceServer(replies=replies) as server:
        text = await shown(server, agents, say="Money?")
    text = "\n".join(line.rstrip() for line in text.splitlines())
    assert "[handed over: greeter to b, voice stays marin]" in text
    assert "[guardrail no gold stopped: advice]" in text
    assert text.splitlines()[-2] == "agent> No advice."


async def test_the_analysis_is_shown_and_a_single_turn_waits_for_it() -> None:
    found = {"intent": "add", "entities": [{"name": "a", "value": "2"}], "summary": "Sums."}
    asides = [json.dumps({**found, "task": "two"}), "no json"]
    plan = AnalysisPlan(
        analysis=AnalysisSpec(intents=("add",), tasks=frozenset({"add"})),
        limits=AnalyzerLimits(),
        task_tool=tool(name="double")(double),
        task_argument="text",
    )
    async with ScriptedVoiceServer(asides=asides, replies=[Reply(text="Well.")]) as server:
        text = await shown(server, [agent()], say="two and three?", analysis=plan)
        assert "[analysis: add; a 2; Sums.]" in text
        assert "[task: two]" in text
        assert '[task: {"result": "twotwo"} (done)]' in text
        told = text[text.index("(done)") :]
        assert "agent> Another system was asked to do this: two" in told
        server.asides = ["no json"]
        text = await shown(server, [agent()], say="two and three?", analysis=plan)
        assert "[analysis failed: answer_not_json]" in text


def double(text: str) -> str:
    """Say it twice."""
    return text * 2


def test_output_while_the_user_types_prompts_again() -> None:
    out = StringIO()
    report = TextReport(out, prompts=True)
    words = HistoryItem(item_id="a", kind="message", party=Party.AGENT, text="It is")
    report.prompt()
    report.event(AnalysisFailed(call_id=CallId("c"), item_id="u", code="timeout"))
    report.event(HistoryAdded(item=words, previous_item_id=None))
    report.event(HistoryUpdated(item=replace(words, text="It is done.")))
    report.event(AgentEnd(agent="greeter", response_id="r", status="completed"))
    report.typed()
    report.event(SessionError(code="odd"))
    assert out.getvalue() == (
        "you> \n[analysis failed: timeout]\nyou> \nagent> It is done.\nyou> [error odd]\n"
    )


async def test_a_model_cannot_steer_the_terminal() -> None:
    async with ScriptedVoiceServer(replies=[Reply(text="\x1b[2JHa\x07")]) as server:
        text = await shown(server, [agent()], say="x")
    assert "\x1b" not in text
    assert "[2JHa" in text


async def test_a_model_that_is_lost_is_a_failure() -> None:
    async with ScriptedVoiceServer(replies=[Reply(close_after_ms=100)]) as server:
        text = await shown(server, [agent()], say="x", ended_well=False)
    assert "[the model is lost: voice_closed]" in text


async def test_events_as_json_leave_sound_out() -> None:
    out = StringIO()
    async with ScriptedVoiceServer() as server:
        model = WebSocketModel(server.url, headers={}, model="scripted")
        async with time_limit(), AgentSession(agent(), model) as session:
            await chat(session, Typed(()), JsonReport(out), say="Hello!")
    kinds = [json.loads(line)["type"] for line in out.getvalue().splitlines()]
    assert {"agent_start", "history_added", "history_updated", "usage"} <= set(kinds)
    assert "audio" not in kinds
    assert "raw_model_event" not in kinds


async def test_lines_end_with_their_file() -> None:
    lines = TerminalLines(StringIO("one\r\ntwo"))
    assert [await lines.next() for _ in range(3)] == ["one", "two", None]
    closed = StringIO("x")
    closed.close()
    assert await TerminalLines(closed).next() is None


TWO_NUMBERS = """
voice_model: offline
agents:
  clara: {greeting: Clara speaking.}
  nora: {greeting: "Nora of {company} at {number}.", variables: {company: North}}
numbers:
  +15005550002:
    agent: nora
    variables: {company: South}
    hours: {time_zone: UTC, open: {mon-sun: closed}}
"""


@pytest.mark.offline_speech
@pytest.mark.parametrize(
    ("options", "code", "shown"),
    [
        ((), 0, "agent> Clara speaking."),
        (("--agent", "nora"), 0, "agent> Nora of North at unknown."),
        (("--number", "+15005550002"), 0, "agent> Nora of South at +15005550002."),
        (("--agent", "norah"), 2, "there is no agent 'norah'; did you mean \"nora\"?"),
        (("--number", "+1500"), 2, "there is no number '+1500'; there is +15005550002"),
    ],
)
async def test_the_agent_can_be_chosen(
    options: tuple[str, ...], code: int, shown: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(TWO_NUMBERS)
    process = await start_forked(
        "app.cli",
        "chat",
        "--config",
        str(config),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={"PATH": os.environ.get("PATH", ""), "HOME": str(tmp_path)},
    )
    async with time_limit():
        out, _ = await process.communicate()
    assert (process.returncode, out.decode().splitlines()[0]) == (code, shown)


@pytest.mark.parametrize("option", ["--help"])
async def test_the_help_says_that_no_key_is_needed(option: str, tmp_path: Path) -> None:
    async with terminal(tmp_path, option) as screen:
        assert await screen.code() == 0
        await screen.until("Works offline, without any key.")


# Between pipes ------------------------------------------------------------------------------------


async def piped(
    folder: Path,
    typed: bytes,
    *options: str,
    stdout: int = asyncio.subprocess.PIPE,
    shell: str = "",
    encoding: str = "utf-8",
    text: str = "voice_model: offline\noffline: {workers: 1}\n",
) -> tuple[int | None, str, str]:
    """The exit code, output and errors of a chat that no terminal is attached to."""
    config = folder / "config.yaml"
    config.write_text(text)
    process = await asyncio.create_subprocess_exec(
        *("/bin/sh", "-c", f'exec "$@" {shell}', "sh"),
        *(*COMMAND, "--config", str(config), *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env={
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(folder),
            "PYTHONIOENCODING": encoding,
        },
    )
    async with time_limit():
        out, errors = await process.communicate(typed)
    return process.returncode, (out or b"").decode(), errors.decode()


@pytest.mark.offline_speech
async def test_bytes_that_are_no_text_do_not_end_the_conversation(tmp_path: Path) -> None:
    code, out, errors = await piped(tmp_path, b"caf\xe9: when are you open?\nwhere are you\n")
    assert (code, errors) == (0, "")
    assert "We are open Monday to Friday" in out
    assert "Harbor Street" in out
    said = os.fsdecode(b"caf\xe9: when are you open?")
    code, out, errors = await piped(tmp_path, b"", "--say", said, "--json")
    assert (code, errors) == (0, "")
    assert (
        json.loads(out.splitlines()[0])["item"]["text"]
        == "caf\N{REPLACEMENT CHARACTER}: when are you open?"
    )


@pytest.mark.offline_speech
async def test_a_closed_pipe_ends_the_conversation_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code, _, errors = await piped(tmp_path, b"where are you\n", stdout=writer)
    finally:
        os.close(writer)
    assert (code, errors) == (0, "")


@pytest.mark.offline_speech
async def test_without_any_input_it_greets_and_ends(tmp_path: Path) -> None:
    code, out, errors = await piped(tmp_path, b"", shell="<&-")
    assert (code, errors) == (0, "")
    assert out.startswith("agent> Hello, this is the robot at the Trunkline demo office.")


@pytest.mark.offline_speech
async def test_without_any_output_it_ends_quietly(tmp_path: Path) -> None:
    code, out, errors = await piped(tmp_path, b"where are you\n", shell=">&-")
    assert (code, out, errors) == (0, "", "")


async def test_a_single_turn_needs_words(tmp_path: Path) -> None:
    code, out, errors = await piped(tmp_path, b"", "--say", "  ")
    assert (code, out, errors) == (2, "", "--say: there are no words to say\n")


@pytest.mark.offline_speech
async def test_letters_that_the_terminal_lacks_do_not_end_the_conversation(tmp_path: Path) -> None:
    code, out, errors = await piped(tmp_path, b"", "--json", "--say", "caf\u00e9", encoding="ascii")
    assert (code, errors) == (0, "")
    assert json.loads(out.splitlines()[0])["item"]["text"] == "caf?"


async def test_what_a_tool_prints_does_not_stand_between_the_events(tmp_path: Path) -> None:
    (tmp_path / "loud_tools.py").write_text(
        "def add(a: int) -> int:\n    'Add.'\n    print('adding')\n    return a\n"
    )
    replies = [Reply(text="Let me see.", tool=("add", '{"a": 2}')), Reply(text="Two.")]
    async with ScriptedVoiceServer(replies=replies) as server:
        text = f"""
openai_realtime: {{url: "{server.url}", api_key: sk-for-tests}}
tools: {{add: {{python: "loud_tools:add"}}}}
agents: {{a: {{tools: [add]}}}}
"""
        code, out, errors = await piped(tmp_path, b"", "--json", "--say", "two?", text=text)
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert "tool_end" in [event["type"] for event in events]
    assert errors == "adding\n"
