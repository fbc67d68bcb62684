"""A conversation's items in their own order, and the transcript that grows out of them.

Items are kept in the order that the model gives them (`previous_item_id`), never in the order in
which transcripts arrive: a caller's words are transcribed by another model and often come after
the answer to them. A transcript line is given out once it is settled and everything before it is,
so that readers see the conversation as it was held. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from app.agents.dialogue.messages import agent_words, caller_words
from app.events import Party
from app.realtime.events import Item, ItemCreate

__all__ = ["History", "HistoryEntry"]


LATE_TRANSCRIPT_MS: Final = 3_000
"""The time that a missing caller transcript may hold back the lines behind it."""

_MAX_ENTRIES: Final = 2_000
_MAX_CHARS: Final = 100_000
"""Of what is said piece by piece in one item: a model may go on for ever."""


@dataclass(slots=True)
class HistoryEntry:
    """One item. `settled`: its text will not change any more; `reported`: its line was given out.

    `sentence` holds the words that the agent was told to say with it. An item that is not
    `in_transcript` stands for a key.
    """

    item_id: str
    kind: str
    party: Party | None
    at_ms: int
    text: str = ""
    heard_text: str = ""
    text_final: bool = False
    heard_ms: int | None = None
    sent_ms: int = 0
    cut_off: bool = False
    failed: bool = False
    in_transcript: bool = True
    reported: bool = False
    sentence: str = ""
    response_id: str = ""
    tool_call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | None = None

    @property
    def settled(self) -> bool:
        if self.kind != "message" or not self.in_transcript:
            return True
        if self.party is Party.AGENT:
            return self.heard_ms is not None and (self.text_final or self.cut_off)
        return self.text_final

    def on_heard(self, heard_ms: int, sent_ms: int, *, cut_off: bool) -> None:
        """The caller has heard so much of it and will hear no more."""
        self.heard_ms = heard_ms
        self.sent_ms = sent_ms
        self.cut_off = cut_off
        self._cut_text()

    def on_text(self, text: str, *, final: bool) -> None:
        """Add more text, or with `final` set the whole of it; no text never erases one."""
        if final:
            self.text = text or self.text
            self.text_final = True
        elif len(self.text) < _MAX_CHARS:
            self.text = (self.text + text)[:_MAX_CHARS]
        else:
            return
        self._cut_text()

    def words_between(self, from_ms: int, to_ms: int, sent_ms: int) -> str:
        """Estimate the words of a stretch of its audio, as the heard text is estimated."""
        words = self.text.split()
        first, last = (len(words) * ms // sent_ms if sent_ms else 0 for ms in (from_ms, to_ms))
        return " ".join(words[first:last])

    def _cut_text(self) -> None:
        """Estimate the heard text: the same share of the words as of the audio."""
        if not self.cut_off:
            self.heard_text = self.text
            return
        words = self.text.split()
        heard_ms = self.heard_ms or 0
        count = len(words) * heard_ms // self.sent_ms if self.sent_ms else 0
        self.heard_text = " ".join(words[:count])


class History:
    """The items of one conversation, by id and in order."""

    def __init__(self) -> None:
        self._entries: list[HistoryEntry] = []
        self._by_id: dict[str, HistoryEntry] = {}
        self._blocked_since_ms: int | None = None
        self._reported = 0  # entries at the beginning that were given out, and need no look

    def __iter__(self) -> Iterator[HistoryEntry]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, item_id: str) -> HistoryEntry | None:
        return self._by_id.get(item_id)

    def before(self, item_id: str) -> str | None:
        """The item that stands before this one."""
        at = self._entries.index(self._by_id[item_id])
        return self._entries[at - 1].item_id if at else None

    def add(self, item: Item, previous_item_id: str | None, now_ms: int) -> HistoryEntry:
        """Insert an item behind the one that the model names; a known one is only updated."""
        item_id = item.id or ""
        entry = self._by_id.get(item_id)
        if entry is None and item.type in {"function_call", "function_call_output"}:
            known = self._call(item.call_id, item.type)
            if known is not None:  # told again, under another id, to a connection that lacked it
                return known
        if entry is None:
            entry = HistoryEntry(item_id, item.type, _party(item), now_ms)
            self._insert(entry, previous_item_id)
        if item.type == "function_call":
            entry.tool_call_id = item.call_id or entry.tool_call_id
            entry.name = item.name or entry.name
            entry.arguments = item.arguments or entry.arguments
        elif item.type == "function_call_output":
            entry.tool_call_id = item.call_id or entry.tool_call_id
            entry.output = item.output
        elif entry.party is Party.CALLER:
            typed = "".join(part.text or "" for part in item.content if part.type == "input_text")
            if typed:
                entry.on_text(typed, final=True)
        return entry

    def _call(self, tool_call_id: str | None, kind: str) -> HistoryEntry | None:
        """The function call that has this id, or its output."""
        calls = (entry for entry in self._entries if entry.kind == kind)
        return next((e for e in calls if tool_call_id and e.tool_call_id == tool_call_id), None)

    def _insert(self, entry: HistoryEntry, previous_item_id: str | None) -> None:
        at = len(self._entries)
        if previous_item_id and previous_item_id in self._by_id:
            at = self._entries.index(self._by_id[previous_item_id]) + 1
        self._entries.insert(at, entry)
        self._by_id[entry.item_id] = entry
        if len(self._entries) > _MAX_ENTRIES:
            del self._by_id[self._entries.pop(0).item_id]
        self._reported = 0

    def expect_caller(
        self, item_id: str, previous_item_id: str | None, now_ms: int
    ) -> HistoryEntry:
        """The caller's turn was closed: keep its place until the transcript comes."""
        item = Item(type="message", id=item_id, role="user")
        return self.add(item, previous_item_id, now_ms)

    def remove(self, item_id: str) -> None:
        entry = self._by_id.pop(item_id, None)
        if entry is not None:
            self._entries.remove(entry)
            self._reported = 0

    def settled_lines(self, now_ms: int) -> list[HistoryEntry]:
        """Lines that can be given out now, in order; each is given out once.

        A line that is not settled holds back those behind it, but not for longer than
        `LATE_TRANSCRIPT_MS`; it is given out when it settles.
        """
        lines: list[HistoryEntry] = []
        waiting = False
        entries = self._entries
        while self._reported < len(entries) and entries[self._reported].reported:
            self._reported += 1
        for entry in islice(entries, self._reported, None):
            if entry.reported:
                continue
            if entry.settled:
                if waiting and not self._overdue(now_ms):
                    break
                entry.reported = True
                if entry.kind == "message" and entry.in_transcript:
                    lines.append(entry)
            else:
                waiting = True
        if not waiting:
            self._blocked_since_ms = None
        return lines

    def _overdue(self, now_ms: int) -> bool:
        if self._blocked_since_ms is None:
            self._blocked_since_ms = now_ms
        return now_ms - self._blocked_since_ms >= LATE_TRANSCRIPT_MS

    def seal(self) -> None:
        """The connection is lost: no more text will come for what it began."""
        for entry in self._entries:
            if entry.kind == "message" and not entry.text_final:
                entry.text_final = True
                entry.failed = entry.party is Party.CALLER and not entry.text

    def close(self) -> None:
        """The call is over: what is not settled will not be."""
        for entry in self._entries:
            if entry.party is Party.AGENT and entry.heard_ms is None:
                entry.on_heard(entry.sent_ms, entry.sent_ms, cut_off=False)
            entry.text_final = True

    def replay(self, prefix: str) -> list[ItemCreate]:
        """The conversation as items for a fresh session; what was not heard is left out.

        Assistant audio cannot be recreated, so its text is (openai-realtime, section 2).
        """
        creates: list[ItemCreate] = []
        outputs = {e.tool_call_id for e in self._entries if e.kind == "function_call_output"}
        for entry in self._entries:
            item = _replayed(entry, f"{prefix}_{len(creates)}", outputs)
            if item is not None:
                creates.append(ItemCreate(item))
        return creates


def _party(item: Item) -> Party | None:
    if item.type != "message":
        return None
    return {"user": Party.CALLER, "assistant": Party.AGENT}.get(item.role or "")


def _replayed(entry: HistoryEntry, item_id: str, outputs: set[str]) -> Item | None:
    if entry.kind == "function_call":
        if entry.tool_call_id not in outputs:
            return None
        return Item(
            type="function_call",
            id=f"fc_{item_id}",
            call_id=entry.tool_call_id,
            name=entry.name,
            arguments=entry.arguments or "{}",
        )
    if entry.kind == "function_call_output":
        return Item(
            type="function_call_output",
            id=f"fco_{item_id}",
            call_id=entry.tool_call_id,
            output=entry.output or "",
        )
    text = entry.heard_text if entry.party is Party.AGENT else entry.text
    if entry.kind != "message" or entry.party is None or not text:
        return None
    item_id = f"msg_{item_id}"
    return agent_words(text, item_id) if entry.party is Party.AGENT else caller_words(text, item_id)
