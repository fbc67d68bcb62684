"""Guardrail checks in a conversation: when words are checked, and what follows from the result.

The agent's transcript is checked as it grows, the caller's once it is written down. Sentences that
the agent was given to say are not checked: they are the operator's own. The rules are
`app.agents.guardrails.rules`, cutting the sound belongs to whoever plays it. Pure.
"""

from __future__ import annotations

from typing import Final

from app.agents.agent import Agent
from app.agents.guardrails.rules import DEBOUNCE_CHARS, CheckGuardrail, GuardrailResult, Stop, Warn
from app.events import CallId, GuardrailTripped, Party

__all__ = ["Debounce", "GuardrailChecks", "feedback"]


MAX_STOPS_IN_A_ROW: Final = 3
"""After so many the agent waits for the caller to speak."""
_MAX_ITEMS: Final = 200


class GuardrailChecks:
    """The guardrail checks of one conversation."""

    def __init__(self, call_id: CallId) -> None:
        self._call_id = call_id
        self._debounces: dict[str, Debounce] = {}
        self._stopped: set[str] = set()
        self._warned: set[tuple[str, str]] = set()
        self._stops_in_a_row = 0

    def on_agent_text(
        self, agent: Agent, item_id: str, text: str, *, final: bool
    ) -> list[CheckGuardrail]:
        """The agent's transcript grew, or is whole."""
        if item_id in self._stopped or not _has_rules(agent, Party.AGENT):
            return []
        debounce = self._debounces.get(agent.name)
        if debounce is None:
            debounce = self._debounces[agent.name] = Debounce(agent.guardrail_every_chars)
        due = debounce.due(item_id, text, final=final)
        return [] if due is None else [_check(agent, Party.AGENT, item_id, due, final=final)]

    def on_caller_text(self, agent: Agent, item_id: str, text: str) -> list[CheckGuardrail]:
        """The caller's words were written down."""
        self._stops_in_a_row = 0
        if not text or not _has_rules(agent, Party.CALLER):
            return []
        return [_check(agent, Party.CALLER, item_id, text, final=True)]

    def on_result(
        self, check: CheckGuardrail, result: GuardrailResult, now_ms: int
    ) -> GuardrailTripped | None:
        """The event to record; `None` for words that pass, or were stopped before."""
        verdict, key = result.verdict, (check.item_id, result.rule)
        if check.item_id in self._stopped or not isinstance(verdict, Warn | Stop):
            return None
        stopped = isinstance(verdict, Stop)
        if stopped:
            self._stopped.add(check.item_id)
            self._stops_in_a_row += 1
        elif key in self._warned:
            return None
        self._warned.add(key)
        return GuardrailTripped(
            call_id=self._call_id,
            at_ms=now_ms,
            guardrail=result.rule,
            side=check.side,
            stopped=stopped,
            reason=verdict.reason,
            item_id=check.item_id,
        )

    @property
    def may_try_again(self) -> bool:
        """True where the agent is asked for other words; else it waits for the caller."""
        return self._stops_in_a_row < MAX_STOPS_IN_A_ROW

    @property
    def says_no_more(self) -> bool:
        """True where all tries are used up, and the caller is to be told so."""
        return self._stops_in_a_row == MAX_STOPS_IN_A_ROW


def feedback(side: Party, reason: str) -> str:
    """The note that tells the model of a stop: the reason, but not the rule's name."""
    why = f" ({reason})" if reason else ""
    if side is Party.AGENT:
        return (
            f"Your last words were stopped before the caller heard all of them: they are not "
            f"allowed here{why}. Do not say them again in other words; go on with what you may say."
        )
    return (
        f"The caller's last words ask for something that is not allowed here{why}. Do not answer "
        "them; say so politely and go on."
    )


def _has_rules(agent: Agent, side: Party) -> bool:
    return any(rule.side is side for rule in agent.guardrails)


def _check(agent: Agent, side: Party, item_id: str, text: str, *, final: bool) -> CheckGuardrail:
    return CheckGuardrail(side=side, item_id=item_id, text=text, final=final, agent=agent.name)


class Debounce:
    """Decides when a growing transcript is checked: each `every_chars` characters, and at its end.

    Half a word says something else than the whole ("pass" in "passenger"), so a text that still
    grows is checked up to its last whole word. `every_chars=0` checks whole items only.
    """

    def __init__(self, every_chars: int = DEBOUNCE_CHARS) -> None:
        self._every_chars = every_chars
        self._seen: dict[str, tuple[int, str]] = {}

    def due(self, item_id: str, text: str, *, final: bool) -> str | None:
        """The text to check now, if any; nothing is checked twice."""
        steps, last = self._seen.get(item_id, (0, ""))
        if final:
            self._seen[item_id] = (steps, text)
            self._forget_oldest()
            return text if text.strip() and text != last else None
        if not self._every_chars or len(text) // self._every_chars <= steps:
            return None
        whole = text[: _last_blank(text)]
        if not whole.strip():
            return None
        self._seen[item_id] = (len(text) // self._every_chars, whole)
        self._forget_oldest()
        return whole

    def _forget_oldest(self) -> None:
        if len(self._seen) > _MAX_ITEMS:
            del self._seen[next(iter(self._seen))]


def _last_blank(text: str) -> int:
    """The index of the last blank; scripts without blanks are checked whole."""
    stripped = len(text.rstrip())
    if stripped < len(text):
        return stripped
    blank = max(text.rfind(" "), text.rfind("\n"))
    return blank if blank > 0 else len(text)
