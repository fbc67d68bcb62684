"""The agent who speaks in a conversation, and the changes of its settings that are on their way.

A handoff changes the session's settings first; once the model has confirmed them it gets the tool's
output, and may speak. A session keeps the voice of its first sound, so a later agent speaks with
it. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from app.agents.agent import Agent
from app.agents.dialogue.actions import ToVoice
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.events import HandedOff
from app.realtime.events import SemanticVad, ServerVad, SessionConfig, SessionUpdate, Unset

__all__ = ["ActiveAgent", "Handoff"]


CONFIRM_MS: Final = 3_000
"""A model that has not refused its new settings by then has taken them: some never confirm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Update:
    """A `session.update` on its way, and the agent to return to when it is refused."""

    event_id: str
    change: SessionConfig
    before: Agent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """A handoff that the model asked for and has not confirmed yet.

    `update_id` is the event id of the `session.update`; an error that names it undoes the handoff.
    `kept_voice` is the session's voice, where it is too late for the new agent's own. `given` is
    the input that the model gave with the handoff.
    """

    tool_call_id: str
    from_agent: Agent
    to_agent: Agent
    update_id: str
    since_ms: int
    kept_voice: str = ""
    given: Mapping[str, Any] | None = None

    def output(self) -> str:
        """The tool's output once the model's settings have changed."""
        note = "You speak with the caller from here on. Go on without greeting again."
        told: dict[str, Any] = {"agent": self.to_agent.name, "note": note}
        if self.given is not None:
            told["given"] = dict(self.given)
        return json.dumps(told, ensure_ascii=False)

    def failed_output(self, code: str) -> str:
        """The tool's output where the model kept its settings."""
        return json.dumps({"error": "The handoff failed; go on yourself.", "code": code})


class ActiveAgent:
    """The agent of one conversation, and the roster it may hand over to.

    `uninterrupted`: the session is opened so that the caller cannot interrupt the greeting.
    `listens_only`: it answers nobody by itself, since a person speaks in its place.
    `unanswered`: it is opened so that the model answers nobody until it is asked to.
    """

    def __init__(
        self, agent: Agent, roster: Roster, facts: CallFacts, new_id: Callable[[str], str]
    ) -> None:
        self.agent = agent
        self.roster = roster
        self.facts = facts
        self.handoff: Handoff | None = None
        self.uninterrupted = False
        self.listens_only = False
        self.unanswered = False
        self._new_id = new_id
        self._updates: list[_Update] = []
        self._voice: str | None = None
        self._opened_for: Agent | None = None

    def opening(self) -> SessionConfig:
        """The settings to open a connection with; the agent may change before it is open."""
        self._opened_for = self.agent
        return self.session

    @property
    def session(self) -> SessionConfig:
        """The settings of the agent who speaks."""
        session = self.roster.session(self.agent, self.facts)
        detection = self._held_back(session.turn_detection)
        if detection is not session.turn_detection:
            session = replace(session, turn_detection=detection)
        return replace(session, voice=self._voice) if self._voice else session

    def let_interrupt(self) -> ToVoice | None:
        """The greeting is over: the caller may interrupt, if the agent's settings say so."""
        detection = self.agent.session.turn_detection
        held, self.uninterrupted = self.uninterrupted, False
        interrupts = isinstance(detection, ServerVad | SemanticVad) and detection.interrupt_response
        return self._listen(detection) if held and interrupts else None

    def let_answer(self) -> ToVoice | None:
        """The model may answer the caller by itself, if the agent's settings say so."""
        detection = self.agent.session.turn_detection
        held, self.unanswered = self.unanswered, False
        answers = isinstance(detection, ServerVad | SemanticVad) and detection.create_response
        return self._listen(detection) if held and answers else None

    def hold_answers(self) -> ToVoice | None:
        """The model may answer nobody any more, until it is asked to."""
        detection = self.agent.session.turn_detection
        held, self.unanswered = self.unanswered, True
        answers = isinstance(detection, ServerVad | SemanticVad) and detection.create_response
        return self._listen(detection) if answers and not held else None

    def _held_back(self, detection: Any) -> Any:
        """Turn detection without what the model may not do yet."""
        if isinstance(detection, ServerVad | SemanticVad):
            if self.uninterrupted and detection.interrupt_response is not False:
                # Else the model itself would stop at the caller's first sound.
                detection = replace(detection, interrupt_response=False)
            silent = self.unanswered or self.listens_only
            if silent and detection.create_response is not False:
                detection = replace(detection, create_response=False)
        return detection

    def _listen(self, detection: Any) -> ToVoice:
        detection = self._held_back(detection)
        update_id = self._new_id("listen")
        change = SessionConfig(turn_detection=detection)
        self._updates.append(_Update(event_id=update_id, change=change))
        return ToVoice(SessionUpdate(change, update_id))

    def listen_only(self, only: bool) -> ToVoice | None:
        """Have the session answer nobody by itself, or as its settings say."""
        self.listens_only = only
        detection = self.roster.session(self.agent, self.facts).turn_detection
        if not isinstance(detection, ServerVad | SemanticVad):
            return None  # it never answers by itself
        return self._listen(detection)

    @property
    def greeting(self) -> str | None:
        return self.roster.greeting(self.agent, self.facts)

    def on_sound(self) -> None:
        """The session has made a sound: its voice cannot change any more."""
        if self._voice is None:
            self._voice = self.agent.voice

    def hand_over(
        self,
        tool_call_id: str,
        to_agent: Agent,
        now_ms: int,
        given: Mapping[str, Any] | None = None,
    ) -> ToVoice:
        """Begin a handoff; `given` is the input that the model gave with it."""
        from_agent = self.agent
        update = self.change_to(to_agent)
        self.handoff = Handoff(
            tool_call_id=tool_call_id,
            from_agent=from_agent,
            to_agent=to_agent,
            update_id=self._updates[-1].event_id,
            since_ms=now_ms,
            kept_voice=self.kept_voice(to_agent),
            given=given,
        )
        return update

    def kept_voice(self, to_agent: Agent) -> str:
        """The voice that an agent has to go on with, where it is too late for its own."""
        late = bool(self._voice and to_agent.voice and to_agent.voice != self._voice)
        return (self._voice or "") if late else ""

    def handed_over(
        self, from_agent: Agent, to_agent: Agent, now_ms: int, kept_voice: str = ""
    ) -> HandedOff:
        """The event that records a change of agents."""
        return HandedOff(
            call_id=self.facts.call_id,
            at_ms=now_ms,
            from_agent=from_agent.name,
            to_agent=to_agent.name,
            kept_voice=kept_voice,
        )

    def change_to(self, to_agent: Agent) -> ToVoice:
        """Change the session's settings to those of another agent."""
        spoken = self._voice is not None
        change = self.roster.change(self.agent, to_agent, self.facts, spoken=spoken)
        update_id = self._new_id("agent")
        self._updates.append(_Update(event_id=update_id, change=change, before=self.agent))
        self.agent = to_agent
        return ToVoice(SessionUpdate(change, update_id))

    def on_updated(self) -> Handoff | None:
        """The model confirmed the oldest change; returns the handoff that is done with it."""
        if not self._updates:
            return None
        return self._take_handoff(self._updates.pop(0).event_id)

    def tools_of(self, update_id: str | None) -> tuple[Mapping[str, Any], ...]:
        """The tools of a change that is on its way; without an id, of the oldest that has some."""
        for update in self._updates:
            tools = update.change.tools
            if update_id in (None, update.event_id) and not isinstance(tools, Unset):
                return tools
        return ()

    def on_error(self, client_event_id: str | None) -> Handoff | None:
        """Undo a change that the model refused; returns the handoff that failed with it."""
        for at, update in enumerate(self._updates):
            if update.event_id == client_event_id:
                del self._updates[at]
                if update.before is not None:
                    self._undo(update.before, at)
                return self._take_handoff(update.event_id)
        return None

    def _undo(self, before: Agent, at: int) -> None:
        """Return to an agent, unless another took over since: then undoing that returns to it."""
        for later in range(at, len(self._updates)):
            if self._updates[later].before is not None:
                self._updates[later] = replace(self._updates[later], before=before)
                return
        self.agent = before

    def overdue(self, now_ms: int) -> Handoff | None:
        """The handoff that the model has had time enough to refuse."""
        handoff = self.handoff
        if handoff is None or now_ms - handoff.since_ms < CONFIRM_MS:
            return None
        return self._take_handoff(handoff.update_id)

    def caught_up(self) -> ToVoice | None:
        """The change for a fresh session that was opened for another agent than speaks now."""
        self._updates.clear()
        opened_for, self._opened_for = self._opened_for, None
        if opened_for is None or opened_for is self.agent:
            return None
        spoken = self._voice is not None
        change = self.roster.change(opened_for, self.agent, self.facts, spoken=spoken)
        update_id = self._new_id("agent")
        self._updates.append(_Update(event_id=update_id, change=change))
        return ToVoice(SessionUpdate(change, update_id))

    def on_reconnected(self) -> Handoff | None:
        """A fresh session has the settings of the agent who speaks now; returns the handoff."""
        handoff, self.handoff = self.handoff, None
        return handoff

    def _take_handoff(self, update_id: str) -> Handoff | None:
        handoff = self.handoff
        if handoff is None or handoff.update_id != update_id:
            return None
        self.handoff = None
        return handoff
