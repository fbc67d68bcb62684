"""Consent by keypad: tools that run only after the caller has pressed a key. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.item_history import HistoryEntry
from app.calls.actions import Decide, Intent
from app.events import Party

__all__ = ["KeypadConsent"]


@dataclass(slots=True)
class _Question:
    """The question for one tool, and what the agent had said before it."""

    prompt: str
    before: frozenset[str] = frozenset()


class KeypadConsent:
    """The questions that are open, one asked at a time."""

    def __init__(self, dialogue: Dialogue) -> None:
        self._dialogue = dialogue
        self._questions: dict[str, _Question] = {}

    @property
    def waiting(self) -> bool:
        """The next key answers a question."""
        return bool(self._questions)

    @property
    def asking(self) -> frozenset[str]:
        """The ids of the tool calls whose questions are open."""
        return frozenset(self._questions)

    def on_wanted(self, tool_call_id: str, prompt: str, now_ms: int) -> Sequence[Intent]:
        """A tool needs the caller's consent."""
        self._questions[tool_call_id] = _Question(prompt)
        return self._ask(now_ms) if len(self._questions) == 1 else []

    def ask_again(self, now_ms: int) -> Sequence[Intent]:
        """The model was lost over its words: a question that is open may be half heard."""
        return self._ask(now_ms) if self._questions else []

    def on_key(self, key: str, now_ms: int) -> Sequence[Intent]:
        """Take 1 for yes and 2 for no; any other key has the question asked again."""
        tool_call_id, question = next(iter(self._questions.items()))
        # A key that comes before any of the question was heard was meant for something else.
        heard = any(
            entry.heard_ms
            and entry.item_id not in question.before
            and _asks(entry, question.prompt)
            for entry in self._agent_entries()
        )
        if key not in ("1", "2") or not heard:
            return self._ask(now_ms)
        decided = Decide(tool_call_id, approved=key == "1")
        return [decided, *self.on_tool_done(tool_call_id, now_ms)]

    def on_tool_done(self, tool_call_id: str, now_ms: int) -> Sequence[Intent]:
        """A tool is settled: ask for the next one, where the caller was asked for this one."""
        first = next(iter(self._questions), None)
        question = self._questions.pop(tool_call_id, None)
        if question is not None:
            self._dialogue.responses.withdraw(question.prompt)
        return self._ask(now_ms) if self._questions and first == tool_call_id else []

    def _ask(self, now_ms: int) -> Sequence[Intent]:
        question = next(iter(self._questions.values()))
        question.before = frozenset(entry.item_id for entry in self._agent_entries())
        # Once is enough, however often a key was pressed.
        self._dialogue.responses.withdraw(question.prompt)
        return self._dialogue.say(question.prompt, now_ms)

    def _agent_entries(self) -> list[HistoryEntry]:
        entries = self._dialogue.transcript.messages()
        return [entry for entry in entries if entry.party is Party.AGENT]


def _asks(entry: HistoryEntry, prompt: str) -> bool:
    """True for words that ask the question; some servers do not say what they were asked to say."""
    opening, said = prompt.partition(":")[0].casefold(), entry.text.strip().casefold()
    return entry.sentence == prompt or (
        bool(said) and (said.startswith(opening) or opening.startswith(said))
    )
