"""The pure half of a session without a phone: a `Dialogue`, and the events to publish.

`app.calls.conversation.conversation` is its counterpart on the phone: a call plays sound and counts
silence, a session hands sound out and reports. `app.agents.session.agent_session` performs the
actions. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.agents.dialogue.actions import DialogueAction, GiveUp, Interrupt, Record, RunTool, ToVoice
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.item_history import HistoryEntry
from app.agents.guardrails.rules import CheckGuardrail
from app.agents.instructions import CallFacts
from app.agents.llm.question import OUT_OF_BAND_KEY
from app.agents.roster import Roster
from app.agents.session.events import (
    AgentEnd,
    AgentStart,
    Audio,
    AudioEnd,
    AudioInterrupted,
    GuardrailTrip,
    HandoffMade,
    HistoryAdded,
    HistoryItem,
    HistoryUpdated,
    InputTimeout,
    RawModelEvent,
    SessionError,
    SessionEvent,
    ToolEnd,
    ToolStart,
    UsageCounted,
    Utterance,
)
from app.agents.session.playback import Playback
from app.agents.tools.call_control import (
    CALL_TOOLS,
    END_CALL,
    read_call_tool,
    refused_call_tool,
    too_early,
)
from app.agents.tools.tool import ToolResult
from app.errors import ToolError
from app.events import CallCounters, GuardrailTripped, HandedOff, Party, TokenUsage, VoiceTrouble
from app.realtime.events import (
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    ErrorDetail,
    ErrorEvent,
    InputAudioCommitted,
    InputTimeoutTriggered,
    ItemCreate,
    ItemTruncate,
    Response,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
    SpeechStarted,
    SpeechStopped,
    TextDelta,
)

__all__ = ["EndSession", "Publish", "SessionAction", "SessionConversation"]


STALL_MS: Final = 10_000
"""A response that is silent for this long does not go on."""

_COMMIT_EMPTY: Final = "input_audio_buffer_commit_empty"


@dataclass(frozen=True, slots=True)
class Publish:
    """Give an event to the session's subscribers."""

    event: SessionEvent


@dataclass(frozen=True, slots=True)
class EndSession:
    """The agent has ended the conversation, and its last words are said."""


SessionAction = ToVoice | RunTool | CheckGuardrail | GiveUp | Publish | EndSession


class SessionConversation:
    """One conversation between an agent and the user of a session."""

    def __init__(
        self,
        roster: Roster,
        facts: CallFacts,
        *,
        price: Callable[[TokenUsage], float | None] = lambda _usage: None,
        plays_audio: bool = True,
    ) -> None:
        self.counters = CallCounters()
        self.dialogue = Dialogue(
            roster.first, facts.call_id, self.counters, roster=roster, facts=facts
        )
        self._price = price
        self._playback = Playback(plays=plays_audio)
        self._known: dict[str, HistoryItem] = {}
        self._said: set[str] = set()
        self._speaker: dict[str, str] = {}
        self._commits = 0
        self._caller_speaks = False
        self._reply_due = False
        self._ending = False
        self._spoke = False
        self._last_event_ms = 0

    # The user -------------------------------------------------------------------------------------

    def greet(self, now_ms: int) -> list[SessionAction]:
        """Have the agent speak first."""
        greeting = self.dialogue.active.greeting
        if greeting:
            return self.carry_out(self.dialogue.say(greeting, now_ms), now_ms)
        return self.carry_out(self.dialogue.responses.ask(now_ms), now_ms)

    def type_in(self, text: str, now_ms: int, *, reply: bool = True) -> list[SessionAction]:
        """The user has written something, which the agent answers with a `reply`."""
        self.counters.turns += 1
        return self.carry_out(self.dialogue.type_in(text, now_ms, reply=reply), now_ms)

    def on_commit(self) -> None:
        """The user's turn ends here; it is answered once the model has taken it."""
        self._commits += 1

    def interrupt(self, now_ms: int, heard_ms: int | None = None) -> list[SessionAction]:
        """Stop the agent; `heard_ms` of what plays now, where the player knows."""
        self.dialogue.responses.forget()
        dropped = self.dialogue.drop_response(server_cancels=False)
        return [*dropped, *self._cut(now_ms, heard_ms)]

    # The model ------------------------------------------------------------------------------------

    def on_ready(self, now_ms: int) -> list[SessionAction]:
        """A fresh connection after one that broke."""
        self._last_event_ms = now_ms
        actions = self.carry_out(self.dialogue.on_reconnected(now_ms), now_ms)
        # A fresh model does not know of a tool that runs: asked now, it would call it again.
        waits = self._reply_due and not self.dialogue.gate.busy
        self._reply_due = waits and self.dialogue.function_calls.running
        if waits and not self._reply_due:
            actions += self.carry_out(self.dialogue.responses.ask(now_ms), now_ms)
        return actions

    def on_lost(self) -> None:
        """The connection broke; the next one is asked for the reply that is due."""
        self._reply_due = self.dialogue.reply_due
        self._caller_speaks = False
        self._commits = 0
        self.counters.voice_reconnects += 1
        self.dialogue.on_lost()

    def on_voice(self, event: ServerEvent, now_ms: int) -> list[SessionAction]:
        """Take an event of the voice model."""
        self._last_event_ms = now_ms
        actions: list[SessionAction] = [Publish(RawModelEvent(event=event))]
        match event:
            case AudioDelta():
                return actions + self._on_audio(event, now_ms)
            case AudioDone(response_id=response_id, item_id=item_id):
                self._playback.finish(item_id)
                stale = self.dialogue.is_stale(response_id)
                return actions if stale else [*actions, Publish(AudioEnd(item_id=item_id))]
            case SpeechStarted():
                actions += self._on_speech_started(event, now_ms)
            case SpeechStopped():
                self._caller_speaks = False
                self.counters.turns += 1
            case InputAudioCommitted():
                actions += self._on_committed(event, now_ms)
            case ResponseCreated(response=response):
                actions += self._on_created(response)
                actions += self.carry_out(self.dialogue.on_voice(event, now_ms), now_ms)
            case ResponseDone(response=response):
                done = self.carry_out(self.dialogue.on_voice(event, now_ms), now_ms)
                actions += _with_message(done, response.error)
                actions += self._changes(self._items_of(event))
                return actions + self._on_done(response)
            case _:
                actions += self._on_other(event, now_ms)
        return actions + self._changes(self._items_of(event))

    def _on_other(self, event: ServerEvent, now_ms: int) -> list[SessionAction]:
        actions: list[SessionAction] = []
        self._spoke = self._spoke or isinstance(event, AudioTranscriptDelta | TextDelta)
        if isinstance(event, InputTimeoutTriggered):
            actions.append(Publish(InputTimeout(item_id=event.item_id)))
        elif isinstance(event, ErrorEvent) and event.error.code == _COMMIT_EMPTY:
            self._commits = max(0, self._commits - 1)
        done = self.carry_out(self.dialogue.on_voice(event, now_ms), now_ms)
        return actions + _with_message(done, event.error if isinstance(event, ErrorEvent) else None)

    def _on_audio(self, event: AudioDelta, now_ms: int) -> list[SessionAction]:
        sound = self.dialogue.active.agent.output_format
        whole = len(event.audio) - len(event.audio) % sound.bytes_per_sample
        ms = sound.bytes_to_ms(whole)
        if self.dialogue.is_stale(event.response_id):
            self.counters.stale_audio_dropped_ms += ms
            return []
        self.dialogue.on_sound(event.response_id, event.item_id, now_ms)
        self._playback.push(event.item_id, event.content_index, ms, now_ms)
        self.counters.agent_audio_ms += ms
        return [
            Publish(Audio(item_id=event.item_id, response_id=event.response_id, audio=event.audio))
        ]

    def _on_speech_started(self, event: SpeechStarted, now_ms: int) -> list[SessionAction]:
        self._caller_speaks = True
        self._ending = False
        actions = self.carry_out(self.dialogue.on_voice(event, now_ms), now_ms)
        detection = self.dialogue.active.agent.session.turn_detection
        server_cancels = bool(getattr(detection, "interrupt_response", True))
        actions += self.dialogue.drop_response(server_cancels=server_cancels)
        return actions + self._cut(now_ms)

    def _on_committed(self, event: InputAudioCommitted, now_ms: int) -> list[SessionAction]:
        self._caller_speaks = False
        actions = self.carry_out(self.dialogue.on_voice(event, now_ms), now_ms)
        detection = self.dialogue.active.agent.session.turn_detection
        by_us = self._commits > 0
        if by_us:
            self._commits -= 1
            self.counters.turns += 1
        if by_us or not getattr(detection, "create_response", True):
            actions += self.carry_out(self.dialogue.responses.ask(now_ms), now_ms)
        return actions

    def _on_created(self, response: Response) -> list[SessionAction]:
        if response.metadata.get(OUT_OF_BAND_KEY):
            return []
        self._spoke = self._reply_due = False
        agent = self._speaker[response.id] = self.dialogue.active.agent.name
        return [Publish(AgentStart(agent=agent, response_id=response.id))]

    def _on_done(self, response: Response) -> list[SessionAction]:
        actions: list[SessionAction] = []
        agent = self._speaker.pop(response.id, None)
        if agent is not None:
            status = response.status.value
            actions.append(Publish(AgentEnd(agent=agent, response_id=response.id, status=status)))
        if response.usage is not None:
            usage = self.dialogue.usage
            actions.append(Publish(UsageCounted(usage=usage, cost_usd=self._price(usage))))
        if self._ending and not self.busy:
            actions.append(EndSession())
        return actions

    # Tools, guardrails, time ----------------------------------------------------------------------

    def on_tool_done(self, run: RunTool, result: ToolResult, now_ms: int) -> list[SessionAction]:
        """A tool has answered."""
        ended = ToolEnd(
            agent=run.agent,
            tool=run.name,
            tool_call_id=run.tool_call_id,
            output=result.output,
            error=result.error,
            duration_ms=result.duration_ms,
        )
        reply = result.reply or self._reply_due
        done = self.dialogue.function_calls.on_tool_done(
            run.tool_call_id, result.output, now_ms, reply=reply
        )
        return [Publish(ended), *self.carry_out(done, now_ms)]

    def on_tool_slow(self, run: RunTool, filler: str, now_ms: int) -> list[SessionAction]:
        """A tool takes its time: say so, unless somebody speaks."""
        if self._caller_speaks or not self._playback.drained:
            return []
        return self.carry_out(
            self.dialogue.function_calls.on_tool_slow(run.tool_call_id, filler, now_ms), now_ms
        )

    def on_tick(self, now_ms: int) -> list[SessionAction]:
        """Call some times a second: what was heard, watchdogs, what waits for a quiet moment."""
        for heard in self._playback.take_heard(now_ms):
            self.dialogue.transcript.on_heard(heard.item_id, heard.heard_ms, heard.sent_ms)
        actions = self.carry_out(self.dialogue.on_tick(now_ms), now_ms)
        running = self.dialogue.gate.active_response_id is not None
        if running and now_ms - self._last_event_ms >= STALL_MS:
            self._last_event_ms = now_ms
            actions.append(GiveUp(code="response_stalled", retryable=True))
        if not self.busy and not self._caller_speaks and self._playback.drained:
            actions += self.carry_out(self.dialogue.responses.on_quiet(now_ms), now_ms)
        return actions

    # Plumbing -----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """True while a response runs or was requested, or a tool runs."""
        return self.dialogue.gate.busy or self.dialogue.function_calls.running

    @property
    def turn_over(self) -> bool:
        """True while nobody speaks, and nothing is asked for or about to be said."""
        return not (self.busy or self._caller_speaks or self.dialogue.responses.waits_to_reply)

    def carry_out(self, wanted: Sequence[DialogueAction], now_ms: int) -> list[SessionAction]:
        """Carry out actions of the dialogue; returns those of the session."""
        actions: list[SessionAction] = []
        for action in wanted:
            match action:
                case Interrupt():
                    actions += self._cut(now_ms)
                case Record(event=event):
                    actions += _published(event)
                case RunTool():
                    actions += self._on_call(action, now_ms)
                case ToVoice(event=ItemCreate(item=item)):
                    actions += [action, *self._changes([item.id or ""])]
                case _:
                    actions.append(action)
        return actions

    def _on_call(self, run: RunTool, now_ms: int) -> list[SessionAction]:
        started = ToolStart(
            agent=run.agent,
            tool=run.name,
            tool_call_id=run.tool_call_id,
            arguments=run.arguments,
        )
        actions: list[SessionAction] = [Publish(started)]
        ours = run.name in CALL_TOOLS and self.dialogue.active.agent.has_session_tool(run.name)
        if run.name != END_CALL and not ours:
            return [*actions, run]
        try:
            result = self._run_call_tool(run)
        except ToolError as error:
            result = ToolResult(output=refused_call_tool(error), error=error.code)
        return actions + self.on_tool_done(run, result, now_ms)

    def _run_call_tool(self, run: RunTool) -> ToolResult:
        """Run a tool of the call; only `end_call` needs no telephone."""
        if run.name != END_CALL:
            raise ToolError("There is no telephone line in this conversation.", code="no_line")
        if not self.counters.turns:
            raise too_early()
        read_call_tool(run.name, run.arguments)
        self._ending = True
        return ToolResult(output=json.dumps({"ok": True}), reply=not self._spoke)

    def _cut(self, now_ms: int, heard_ms: int | None = None) -> list[SessionAction]:
        """Stop what plays: the model forgets what was not heard of it."""
        for heard in self._playback.take_heard(now_ms):
            self.dialogue.transcript.on_heard(heard.item_id, heard.heard_ms, heard.sent_ms)
        actions: list[SessionAction] = []
        for cut in self._playback.interrupt(now_ms, heard_ms):
            self.dialogue.transcript.on_heard(cut.item_id, cut.heard_ms, cut.sent_ms, cut_off=True)
            actions.append(ToVoice(ItemTruncate(cut.item_id, cut.content_index, cut.heard_ms)))
            actions.append(Publish(AudioInterrupted(item_id=cut.item_id, heard_ms=cut.heard_ms)))
            actions += self._changes([cut.item_id])
        return actions

    def _changes(self, item_ids: Sequence[str]) -> list[SessionAction]:
        """Publish what is new about these items of the history."""
        actions: list[SessionAction] = []
        names = (self.dialogue.transcript.known_as(item_id) for item_id in item_ids)
        for item_id in dict.fromkeys(names):
            entry = self.dialogue.history.get(item_id)
            known = self._known.get(item_id)
            if entry is None:
                if known is not None:
                    del self._known[item_id]
                    actions.append(Publish(HistoryUpdated(item=known, removed=True)))
                continue
            item = HistoryItem.of(entry)
            if known is None:
                before = self.dialogue.history.before(item_id)
                actions.append(Publish(HistoryAdded(item=item, previous_item_id=before)))
            elif known != item:
                actions.append(Publish(HistoryUpdated(item=item)))
            self._known[item_id] = item
            actions += self._words(item, entry.response_id)
        return actions

    def _words(self, item: HistoryItem, response_id: str) -> list[SessionAction]:
        """Publish the words of an item once they are complete."""
        text = (item.heard_text if item.cut_off else item.text).strip()
        if item.party is None or not item.final or not text or item.item_id in self._said:
            return []
        self._said.add(item.item_id)
        speaks = item.party is Party.AGENT
        agent = self._speaker.get(response_id, self.dialogue.active.agent.name) if speaks else ""
        said = Utterance(
            party=item.party, text=text, item_id=item.item_id, agent=agent, cut_off=item.cut_off
        )
        return [Publish(said)]

    def _items_of(self, event: ServerEvent) -> list[str]:
        """The items that an event is about; a response that is over closes all of its own."""
        if isinstance(event, ResponseDone):
            response = event.response
            own = [e.item_id for e in self.dialogue.history if e.response_id == response.id]
            return [*own, *(item.id or "" for item in response.output)]
        item = getattr(event, "item", None)
        return [str(getattr(item, "id", "") or getattr(event, "item_id", "") or "")]

    def history(self) -> list[HistoryItem]:
        """The conversation so far, in its own order."""
        entries: list[HistoryEntry] = list(self.dialogue.history)
        return [HistoryItem.of(entry) for entry in entries]


def _with_message(actions: list[SessionAction], error: ErrorDetail | None) -> list[SessionAction]:
    """The actions, with the model's own message at the error that they publish."""
    if error is None:
        return actions
    return [
        Publish(replace(action.event, message=error.message))
        if isinstance(action, Publish) and isinstance(action.event, SessionError)
        else action
        for action in actions
    ]


def _published(event: object) -> list[SessionAction]:
    """The session event for something that the dialogue records."""
    match event:
        case HandedOff():
            made = HandoffMade(
                from_agent=event.from_agent, to_agent=event.to_agent, kept_voice=event.kept_voice
            )
            return [Publish(made)]
        case GuardrailTripped():
            trip = GuardrailTrip(
                guardrail=event.guardrail,
                side=event.side,
                stopped=event.stopped,
                reason=event.reason,
                item_id=event.item_id,
            )
            return [Publish(trip)]
        case VoiceTrouble():
            return [Publish(SessionError(code=event.code, benign=event.benign))]
        case _:
            return []
