"""`trunkline chat`: type to an agent in the terminal, and see what it says, does and costs.

The same agents answer the phone. It writes the events of an `AgentSession`, as text for people or
as one JSON object per line for scripts, and reads lines; it opens nothing itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from contextlib import AbstractAsyncContextManager, nullcontext, redirect_stdout, suppress
from dataclasses import asdict
from io import StringIO, TextIOWrapper
from typing import Any, Final, Protocol, TextIO

from app.agents.session.agent_session import AgentSession
from app.agents.session.events import (
    AgentEnd,
    Audio,
    EventsDropped,
    GuardrailTrip,
    HandoffMade,
    HistoryAdded,
    HistoryItem,
    HistoryUpdated,
    RawModelEvent,
    SessionError,
    SessionEvent,
    ToolApproval,
    ToolEnd,
    ToolStart,
    UsageCounted,
)
from app.cli.shared import wrapped
from app.events import AnalysisFailed, Party, TaskAnswered, TaskStarted, TurnAnalyzed
from app.threads import in_thread

__all__ = ["JsonReport", "Lines", "Report", "TerminalLines", "TextReport", "chat", "run"]


PROMPT: Final = "you> "
AGENT: Final = "agent> "
QUIT: Final = ("/quit", "/exit")
YES: Final = ("y", "yes")
NO: Final = ("n", "no")


class Lines(Protocol):
    """The user's lines."""

    async def next(self) -> str | None:
        """The next line without its end; `None` when there are no more."""
        ...


class Report(Protocol):
    """The output that the user sees."""

    def event(self, event: SessionEvent) -> None: ...

    def prompt(self) -> None:
        """It is the user's turn."""
        ...

    def typed(self) -> None:
        """The user has ended a line."""
        ...

    def end(self) -> None:
        """The conversation is over: whatever was begun is finished."""
        ...


async def run(
    session: AbstractAsyncContextManager[AgentSession], *, say: str | None, as_json: bool
) -> bool:
    """Hold the conversation on this process's own terminal.

    Raises:
        VoiceError: the model cannot be reached, or refuses us.
    """
    typed = _input()
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal that lacks a letter shows another
        sys.stdout.reconfigure(errors="replace")
    if say is not None:  # bytes that are not text come in as halves of surrogate pairs
        say = os.fsencode(say).decode(errors="replace")
    prompts = say is None and typed.isatty()
    out: TextIO = StringIO() if sys.stdout is None else sys.stdout  # closed by the shell
    report: Report = JsonReport(out) if as_json else TextReport(out, prompts=prompts)
    try:
        async with session as ready, ready as entered:
            # The output of a tool must not stand between the objects that a script reads.
            with redirect_stdout(sys.stderr) if as_json else nullcontext():
                return await chat(entered, TerminalLines(typed), report, say=say)
    except* BrokenPipeError:  # who read us has seen enough, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
    return True


def _input() -> TextIO:
    """Standard input, where there is one; bytes that are not text do not end it."""
    if sys.stdin is None:  # closed by the shell
        return StringIO()
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    return sys.stdin


async def chat(session: AgentSession, lines: Lines, report: Report, *, say: str | None) -> bool:
    """Hold the conversation until either side ends it; true unless the model failed.

    With `say` it is one turn: that text, and the answer to it. The session has been entered.
    """
    terminal = _Terminal(session, report)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(terminal.watch())
        typing = tasks.create_task(
            terminal.say_once(say) if say is not None else terminal.type_in(lines)
        )
        await asyncio.wait((watching, typing), return_when=asyncio.FIRST_COMPLETED)
        typing.cancel()  # the agent may have ended it
        await session.close()
    report.end()
    return session.failure is None


class _Terminal:
    """The user's side of one conversation."""

    def __init__(self, session: AgentSession, report: Report) -> None:
        self._session = session
        self._events = session.subscribe(self)
        self._report = report
        self._wanted: ToolApproval | None = None
        self._moved = asyncio.Event()

    async def watch(self) -> None:
        """Report what happens, until the session ends."""
        async for event in self._events:
            if isinstance(event, ToolApproval):
                self._wanted = event
            self._report.event(event)
            self._moved.set()

    async def say_once(self, text: str) -> None:
        """Say one thing and hear the answer out; what asks for approval is refused."""
        await self._session.send_message(text)
        while not await self._our_turn(analyzed=True):
            await self._answer("n")

    async def type_in(self, lines: Lines) -> None:
        """Say line after line, each when the agent is done."""
        while True:
            await self._our_turn()
            if not self._session.connected:
                return
            self._report.prompt()
            text = await lines.next()
            self._report.typed()
            if text is None or text.strip() in QUIT or not self._session.connected:
                return
            if self._wanted is not None and text.strip().lower() not in (*YES, *NO):
                self._report.event(self._wanted)  # a slip of the finger decides nothing
            elif self._wanted is not None:
                await self._answer(text)
            elif text.strip():
                await self._session.send_message(text.strip())

    async def _our_turn(self, *, analyzed: bool = False) -> bool:
        """Wait until the agent is done, or wants an answer to something else: then false.

        `analyzed`: and until the analysis is done, which a user who types on does not wait for.
        """
        while self._wanted is None and (
            self._session.busy or self._events.unread or (analyzed and self._session.analyzing)
        ):
            self._moved.clear()
            with suppress(TimeoutError):  # a watchdog may end the wait without any event
                async with asyncio.timeout(1):
                    await self._moved.wait()
        return self._wanted is None

    async def _answer(self, text: str) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is None:
            return
        if text.strip().lower() in YES:
            await self._session.approve_tool_call(wanted.tool_call_id)
        else:
            await self._session.reject_tool_call(wanted.tool_call_id)


# Reports ------------------------------------------------------------------------------------------


class TextReport:
    """The conversation as people read it; the agent's words as they come."""

    def __init__(self, out: TextIO, *, prompts: bool) -> None:
        self._out = out
        self._prompts = prompts
        self._shown: dict[str, int] = {}
        self._open = ""
        self._word = ""
        self._column = 0
        self._usage: UsageCounted | None = None
        self._at_prompt = False
        self._prompt_due = False

    def event(self, event: SessionEvent) -> None:
        match event:
            case HistoryAdded(item=item) | HistoryUpdated(item=item):
                self._item(item)
            case ToolStart():
                self._line(f"[tool {event.tool} {event.arguments}]")
            case ToolEnd():
                how = event.error or f"{event.duration_ms} ms"
                self._line(f"[tool {event.tool}: {event.output} ({how})]")
            case ToolApproval():
                self._line(f"[allow {event.tool} {event.arguments}? y/n]")
            case HandoffMade():
                kept = f", voice stays {event.kept_voice}" if event.kept_voice else ""
                self._line(f"[handed over: {event.from_agent} to {event.to_agent}{kept}]")
            case GuardrailTrip():
                what = "stopped" if event.stopped else "warned"
                self._line(f"[guardrail {event.guardrail} {what}: {event.reason}]")
            case SessionError(fatal=True):
                self._line(f"[the model is lost: {event.code}]")
            case SessionError(benign=False):
                self._line(f"[error {event.code}{event.message and f': {event.message}'}]")
            case EventsDropped():
                self._line(f"[{event.count} events missed]")
            case TurnAnalyzed(analysis=found):
                facts = [f"{name} {value}" for name, value in found.entities.items()]
                noted = "; ".join(part for part in (found.intent, *facts, found.summary) if part)
                self._line(f"[analysis: {noted}]")
            case AnalysisFailed():
                self._line(f"[analysis failed: {event.code}]")
            case TaskStarted(task=task):
                self._line(f"[task: {task.text}]")
            case TaskAnswered():
                self._line(f"[task: {event.answer or 'no answer'} ({event.error or 'done'})]")
            case UsageCounted():
                self._usage = event
            case AgentEnd():
                self._line("")
            case _:
                pass
        if self._prompt_due and not self._open:
            self._write_prompt()
        self._out.flush()

    def prompt(self) -> None:
        self._line("")
        self._cost()
        if self._prompts:
            self._write_prompt()
        self._out.flush()

    def typed(self) -> None:
        self._at_prompt = False

    def _write_prompt(self) -> None:
        self._out.write(PROMPT)
        self._at_prompt, self._prompt_due = True, False

    def _leave_prompt(self) -> None:
        """Write on a line of its own while the user may be typing, and prompt again after it."""
        if self._at_prompt:
            self._out.write("\n")
            self._at_prompt, self._prompt_due = False, True

    def end(self) -> None:
        self._at_prompt = False
        self._line("")
        self._cost()
        self._out.flush()

    def _item(self, item: HistoryItem) -> None:
        if item.party is not Party.AGENT or not item.text:
            return
        shown = self._shown.get(item.item_id, 0)
        if self._open != item.item_id:
            if shown >= len(item.text):
                return
            self._line("")
            self._leave_prompt()
            self._open = item.item_id
            self._out.write(AGENT)
            self._column = len(AGENT)
        self._speak(_plain(item.text[shown:]))
        self._shown[item.item_id] = max(shown, len(item.text))

    def _speak(self, text: str) -> None:
        """Write words as they come; a terminal gets whole ones, which no line breaks."""
        *whole, self._word = re.split(r"(?<=\S)(?=\s)", self._word + text)
        if not self._out.isatty():
            whole, self._word = [*whole, self._word], ""
        for word in whole:
            self._write_word(word)

    def _write_word(self, word: str) -> None:
        room = shutil.get_terminal_size().columns - self._column
        if self._out.isatty() and "\n" not in word and len(word) > room:
            word = f"\n{' ' * len(AGENT)}{word.lstrip()}"
        self._out.write(word)
        *ended, last = word.split("\n")
        self._column = len(last) if ended else self._column + len(word)

    def _line(self, text: str) -> None:
        """End the line that is being written, and write one of its own."""
        if self._open:
            self._write_word(self._word)
            self._out.write("\n")
            self._open = self._word = ""
        if text:
            self._leave_prompt()
            self._out.write(f"{wrapped(_plain(text), self._out)}\n")

    def _cost(self) -> None:
        counted, self._usage = self._usage, None
        if counted is None:
            return
        usage = counted.usage
        tokens = usage.input_text + usage.input_audio + usage.output_text + usage.output_audio
        dollars = counted.cost_usd
        cost = f"${dollars:.4f}" if dollars else "free" if dollars == 0 else "price not known"
        self._line(f"[{tokens} tokens so far, {cost}]")


class JsonReport:
    """The session's events as one JSON object per line; sound and raw events are left out."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def event(self, event: SessionEvent) -> None:
        if isinstance(event, Audio | RawModelEvent):
            return
        facts: dict[str, Any] = {"type": event.type, **asdict(event)}
        self._out.write(json.dumps(facts, ensure_ascii=False) + "\n")
        self._out.flush()

    def prompt(self) -> None:
        pass

    def typed(self) -> None:
        pass

    def end(self) -> None:
        pass


def _plain(text: str) -> str:
    """Without control characters: a model's words must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)


# Lines --------------------------------------------------------------------------------------------


class TerminalLines:
    """Lines of a file that may block, such as a terminal: read in a thread, when asked for.

    A daemon: nobody can wake a thread that reads a terminal, and the process must be able to end.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    async def next(self) -> str | None:
        return await in_thread(self._read, name="trunkline-chat-lines")

    def _read(self) -> str | None:
        try:
            text = self._file.readline()
        except (OSError, ValueError):  # closed under us
            return None
        return text.rstrip("\r\n") if text else None
