"""The words of a conversation as they become known: items, texts, transcript lines, a replay.

Keeps the `History` up to date and has guardrails check new words. Which responses still count is
known to the dialogue. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from app.agents.agent import Agent
from app.agents.dialogue.actions import Record
from app.agents.dialogue.item_history import History, HistoryEntry
from app.agents.dialogue.messages import agent_words
from app.agents.guardrails.checks import GuardrailChecks
from app.agents.guardrails.rules import CheckGuardrail
from app.events import AgentSaid, CallerSaid, CallId, Party
from app.realtime.events import (
    FunctionArgumentsDone,
    InputAudioCommitted,
    Item,
    ItemCreate,
    ServerEvent,
    SpeechStarted,
    TranscriptionCompleted,
    TranscriptionFailed,
)

__all__ = ["RunningResponse", "Transcript"]


@dataclass(slots=True)
class RunningResponse:
    """A response that runs, and the agent who speaks in it; `verbatim`: in words it was given.

    `written` holds its items whose words have come, `sounded` those whose sound was passed on,
    `ended` those that are complete,
    `calls` the function calls that are complete, by call id. All items go by their names in the
    history.
    """

    agent: Agent
    verbatim: bool
    items: list[str] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    sounded: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    calls: dict[str, Item] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    has_text: bool = False

    @property
    def spoke(self) -> bool:
        """True once words or sound of it have come."""
        return self.has_text or bool(self.written or self.sounded)

    @property
    def began(self) -> bool:
        """True once anything of it has come."""
        return self.spoke or bool(self.items or self.calls or self.functions)

    def on_call(self, event: FunctionArgumentsDone) -> None:
        """A call's arguments are complete; some servers send nothing else of it."""
        self.calls[event.call_id] = Item(
            type="function_call",
            id=event.item_id or event.call_id,
            call_id=event.call_id,
            name=event.name or self.functions.get(event.item_id),
            arguments=event.arguments,
        )


class Transcript:
    """The words of one conversation."""

    def __init__(self, call_id: CallId, history: History) -> None:
        self.checks = GuardrailChecks(call_id)
        self._call_id = call_id
        self._history = history
        self._replayed: set[str] = set()
        self._continued: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._again: dict[str, deque[str]] = {}
        self._speech_started_ms: dict[str, int] = {}

    def on_item(self, item: Item, previous_item_id: str | None, now_ms: int) -> None:
        """The model has put an item into the conversation, or changed one."""
        if not item.id or item.id in self._replayed or item.role == "system":
            return
        text = any(part.type in {"input_text", "output_text", "text"} for part in item.content)
        again = self._again.get(item.role or "")
        if text and again and self._history.get(item.id) is None:
            name = again.popleft()
            self._names[item.id] = name
            if name in self._replayed:
                self._replayed.add(item.id)
            return
        self._history.add(item, previous_item_id, now_ms)

    def name(
        self, item_id: str, response_id: str, response: RunningResponse, now_ms: int, *, own: bool
    ) -> str:
        """The name that the history has for a message of a response.

        Usually its id. But some servers give each piece of an answer an id of its own: unless such
        an id is an item's (`own`), the piece belongs to the answer's first item.
        """
        name = self._names.get(item_id, item_id)
        entry = self._history.get(name)
        if entry is None and response.items and not own:
            self._names[item_id] = response.items[0]
            return response.items[0]
        if entry is None:
            item = Item(type="message", id=name, role="assistant")
            entry = self._history.add(item, None, now_ms)
        entry.kind, entry.party = "message", Party.AGENT  # whatever its creation called it
        entry.response_id = response_id
        if name not in response.items:
            response.items.append(name)
        return name

    def ended(self, item_id: str, response: RunningResponse) -> str:
        """The id of a message that is complete; of another that still goes on if it never began."""
        began = self._history.get(self.known_as(item_id)) is not None
        going_on = [name for name in response.items if name not in response.ended]
        found = item_id if began or not going_on else going_on[0]
        response.ended.add(self.known_as(found))
        return found

    def known_as(self, item_id: str) -> str:
        """The name that the history has for an item now."""
        return self._names.get(item_id, item_id)

    def on_refused(self, name: str, again: Item | None) -> None:
        """The model refused an item; `again`, without an id, comes back under the server's."""
        for names in self._again.values():
            if name in names:
                names.remove(name)
        if again is not None and again.id is None and again.role in {"user", "assistant"}:
            self._again.setdefault(again.role, deque()).append(name)

    def is_open(self, name: str) -> bool:
        """True for an item with words that may not be all."""
        entry = self._history.get(name)
        return entry is not None and bool(entry.text) and not entry.text_final

    def on_text(
        self,
        item_id: str,
        text: str,
        *,
        final: bool,
        checked_for: Agent | None,
        sentence: str = "",
    ) -> list[CheckGuardrail]:
        """The agent has said something, which is checked by the guardrails of `checked_for`.

        `sentence`: the words that the agent was told to say.
        """
        entry = self._history.get(item_id)
        if entry is None:
            return []
        entry.sentence = sentence
        entry.on_text(text, final=final)
        if checked_for is None:
            return []
        return self.checks.on_agent_text(checked_for, item_id, entry.text, final=final)

    def on_caller(self, event: ServerEvent, agent: Agent, now_ms: int) -> list[CheckGuardrail]:
        """Take an event about the caller's words."""
        match event:
            case SpeechStarted(item_id=item_id):
                self._speech_started_ms = {item_id: now_ms}
            case InputAudioCommitted(item_id, previous_item_id):
                began_ms = self._speech_started_ms.pop(item_id, now_ms)
                self._history.expect_caller(item_id, previous_item_id, began_ms)
            case TranscriptionCompleted(item_id=item_id):
                entry = self._history.expect_caller(item_id, None, now_ms)
                entry.on_text(event.transcript.strip(), final=True)
                return self.checks.on_caller_text(agent, item_id, entry.text)
            case TranscriptionFailed(item_id=item_id):
                entry = self._history.expect_caller(item_id, None, now_ms)
                entry.failed = True
                entry.on_text("", final=True)
            case _:
                pass
        return []

    def on_heard(self, item_id: str, heard_ms: int, sent_ms: int, *, cut_off: bool = False) -> None:
        """The caller has heard so much of an item and will hear no more of it."""
        entry = self._history.get(self._names.get(item_id, item_id))
        if entry is not None:
            entry.on_heard(heard_ms, sent_ms, cut_off=cut_off)

    def on_response_dropped(self, response: RunningResponse) -> None:
        """A response has come to nothing: words of it that never became sound were not heard."""
        for item_id in response.written - response.sounded:
            self.on_heard(item_id, 0, 0, cut_off=True)

    def heard_after_all(
        self, item_id: str, from_ms: int, to_ms: int, sent_ms: int, new_id: str
    ) -> ItemCreate | None:
        """Words of a truncated item that were heard later, as an item of text behind it.

        A truncation cannot be taken back, and audio of the assistant cannot be created
        (openai-realtime, section 2).
        """
        entry = self._history.get(self._names.get(item_id, item_id))
        words = "" if entry is None else entry.words_between(from_ms, to_ms, sent_ms)
        if not words:
            return None
        before = self._continued.get(item_id, item_id)
        self._continued[item_id] = new_id
        self._replayed.add(new_id)  # its words stand in the line of the item itself
        return ItemCreate(agent_words(words, new_id), before)

    def replay(self, epoch: int) -> list[ItemCreate]:
        """The conversation for a fresh connection; the old one will add nothing to it."""
        self._history.seal()
        self._again.clear()
        items = self._history.replay(f"replay_{epoch}")
        self._replayed = {create.item.id or "" for create in items}
        return items

    def lines(self, now_ms: int, *, unverified: bool = False) -> list[Record]:
        """Transcript lines that are settled, in the order of the conversation."""
        return [
            Record(_line(entry, self._call_id, now_ms, unverified=unverified))
            for entry in self._history.settled_lines(now_ms)
            if entry.text or entry.failed
        ]

    def messages(self) -> Sequence[HistoryEntry]:
        """All messages of the transcript so far, in the conversation's order."""
        return [entry for entry in self._history if entry.kind == "message" and entry.in_transcript]


def _line(
    entry: HistoryEntry, call_id: CallId, now_ms: int, *, unverified: bool = False
) -> AgentSaid | CallerSaid:
    """A settled transcript line as an event; `unverified`: a caller's words are a guess."""
    at_ms = min(entry.at_ms, now_ms)
    if entry.party is Party.AGENT:
        return AgentSaid(
            call_id=call_id,
            at_ms=at_ms,
            item_id=entry.item_id,
            text=entry.text.strip(),  # of words that were cut off, a space may be the last
            heard_text=entry.heard_text.strip(),
            cut_off=entry.cut_off,
        )
    return CallerSaid(
        call_id=call_id,
        at_ms=at_ms,
        item_id=entry.item_id,
        text=entry.text,
        failed=entry.failed,
        unverified=unverified,
    )
