"""The mind of a session without a phone: a `Dialogue`, and what its user is told of it.

The other half of the mind beside `app.calls.conversation`: where a call plays sound and counts
silence, a talk hands sound out and reports. `app.agents.session.session` performs its actions.
Pure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from app.agents.dialogue.actions import DialogueAction, GiveUp, Interrupt, Record, RunTool, ToVoice
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.history import HistoryEntry
from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.guardrails.rules import CheckGuardrail, GuardrailResult
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
)
from app.agents.session.playback import Hearing
from app.agents.tools.call_control import (
    CALL_TOOLS,
    END_CALL,
    read_call_tool,
    refused_call_tool,
    too_early,
)
from app.agents.tools.tool import ToolResult
from app.errors import ToolError
from app.events import CallCounters, GuardrailTripped, HandedOff, TokenUsage, VoiceTrouble
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

__all__ = ["Over", "Talk", "TalkAction", "Tell"]


STALL_MS: Final = 10_000
"""A response that is silent for so long will not go on."""

_COMMIT_EMPTY: Final = "input_audio_buffer_commit_empty"


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell the session's listeners."""

    event: SessionEvent


@dataclass(frozen=True, slots=True)
class Over:
    """The agent has ended the conversation, and has said what it had to say."""


TalkAction = ToVoice | RunTool | CheckGuardrail | GiveUp | Tell | Over


class Talk:
    """One conversation between an agent and whoever holds the session."""

    def __init__(
        self,
        book: Roster,
        facts: CallFacts,
        *,
        price: Callable[[TokenUsage], float | None] = lambda _usage: None,
        plays_audio: bool = True,
    ) -> None:
        self.counters = CallCounters()
        self.dialogue = Dialogue(book.first, facts.call_id, self.counters, roster=book, facts=facts)
        self._price = price
        self._hearing = Hearing(plays=plays_audio)
        self._known: dict[str, HistoryItem] = {}
        self._speaker: dict[str, str] = {}
        self._commits = 0
        self._caller_speaks = False
        self._owes_reply = False
        self._ending = False
        self._spoke = False
        self._last_event_ms = 0

    # What the user does -------------------------------------------------------------------------

    def greet(self, now_ms: int) -> list[TalkAction]:
        """Have the agent speak first."""
        greeting = self.dialogue.active.greeting
        if greeting:
            return self._carry(self.dialogue.say(greeting, now_ms), now_ms)
        return self._carry(self.dialogue.responses.ask(now_ms), now_ms)

    def type_in(self, text: str, now_ms: int, *, reply: bool = True) -> list[TalkAction]:
        """The user has written something, which the agent answers with a `reply`."""
        self.counters.turns += 1
        return self._carry(self.dialogue.type_in(text, now_ms, reply=reply), now_ms)

    def on_commit(self) -> None:
        """The user's turn ends here: it is to be answered once the model has taken it."""
        self._commits += 1

    def say(self, text: str, now_ms: int, *, mode: SayMode, when: SayWhen) -> list[TalkAction]:
        return self._carry(self.dialogue.say(text, now_ms, mode=mode, when=when), now_ms)

    def interrupt(self, now_ms: int, heard_ms: int | None = None) -> list[TalkAction]:
        """Stop the agent; `heard_ms` of what plays now, where the player knows."""
        self.dialogue.responses.forget()
        dropped = self.dialogue.drop_response(server_cancels=False)
        return [*dropped, *self._cut(now_ms, heard_ms)]

    def carry_out(self, actions: Sequence[DialogueAction], now_ms: int) -> list[TalkAction]:
        """Actions of the dialogue that were asked for from outside."""
        return self._carry(actions, now_ms)

    # What the model does ------------------------------------------------------------------------

    def on_ready(self, now_ms: int) -> list[TalkAction]:
        """A fresh connection after one that broke."""
        self._last_event_ms = now_ms
        actions = self._carry(self.dialogue.on_reconnected(now_ms), now_ms)
        # A model that is asked while a tool runs, which it was not told of, would call it again.
        waits = self._owes_reply and not self.dialogue.gate.busy
        self._owes_reply = waits and self.dialogue.function_calls.running
        if waits and not self._owes_reply:
            actions += self._carry(self.dialogue.responses.ask(now_ms), now_ms)
        return actions

    def on_lost(self) -> None:
        """The connection broke; what it owes is asked for on the next one."""
        self._owes_reply = self.dialogue.owes_words
        self._caller_speaks = False
        self._commits = 0
        self.counters.voice_reconnects += 1
        self.dialogue.on_lost()

    def on_voice(self, event: ServerEvent, now_ms: int) -> list[TalkAction]:
        """Take an event of the voice model."""
        self._last_event_ms = now_ms
        actions: list[TalkAction] = [Tell(RawModelEvent(event=event))]
        match event:
            case AudioDelta():
                return actions + self._on_audio(event, now_ms)
            case AudioDone(response_id=response_id, item_id=item_id):
                self._hearing.finish(item_id)
                stale = self.dialogue.is_stale(response_id)
                return actions if stale else [*actions, Tell(AudioEnd(item_id=item_id))]
            case SpeechStarted():
                actions += self._on_speech_started(event, now_ms)
            case SpeechStopped():
                self._caller_speaks = False
                self.counters.turns += 1
            case InputAudioCommitted():
                actions += self._on_committed(event, now_ms)
            case ResponseCreated(response=response):
                actions += self._on_created(response)
                actions += self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
            case ResponseDone(response=response):
                told = self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
                actions += _in_words(told, response.error)
                actions += self._on_done(response)
            case _:
                actions += self._on_other(event, now_ms)
        return actions + self._changes(_items_of(event))

    def _on_other(self, event: ServerEvent, now_ms: int) -> list[TalkAction]:
        actions: list[TalkAction] = []
        self._spoke = self._spoke or isinstance(event, AudioTranscriptDelta | TextDelta)
        if isinstance(event, InputTimeoutTriggered):
            actions.append(Tell(InputTimeout(item_id=event.item_id)))
        elif isinstance(event, ErrorEvent) and event.error.code == _COMMIT_EMPTY:
            self._commits = max(0, self._commits - 1)
        told = self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
        return actions + _in_words(told, event.error if isinstance(event, ErrorEvent) else None)

    def _on_audio(self, event: AudioDelta, now_ms: int) -> list[TalkAction]:
        sound = self.dialogue.active.agent.output_format
        whole = len(event.audio) - len(event.audio) % sound.bytes_per_sample
        ms = sound.bytes_to_ms(whole)
        if self.dialogue.is_stale(event.response_id):
            self.counters.stale_audio_dropped_ms += ms
            return []
        self.dialogue.on_sound(event.response_id, event.item_id)
        self._hearing.push(event.item_id, event.content_index, ms, now_ms)
        self.counters.agent_audio_ms += ms
        return [
            Tell(Audio(item_id=event.item_id, response_id=event.response_id, audio=event.audio))
        ]

    def _on_speech_started(self, event: SpeechStarted, now_ms: int) -> list[TalkAction]:
        self._caller_speaks = True
        self._ending = False
        actions = self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
        detection = self.dialogue.active.agent.session.turn_detection
        server_cancels = bool(getattr(detection, "interrupt_response", True))
        actions += self.dialogue.drop_response(server_cancels=server_cancels)
        return actions + self._cut(now_ms)

    def _on_committed(self, event: InputAudioCommitted, now_ms: int) -> list[TalkAction]:
        self._caller_speaks = False
        actions = self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
        detection = self.dialogue.active.agent.session.turn_detection
        by_us = self._commits > 0
        if by_us:
            self._commits -= 1
            self.counters.turns += 1
        if by_us or not getattr(detection, "create_response", True):
            actions += self._carry(self.dialogue.responses.ask(now_ms), now_ms)
        return actions

    def _on_created(self, response: Response) -> list[TalkAction]:
        if response.metadata.get(OUT_OF_BAND_KEY):
            return []
        self._spoke = self._owes_reply = False
        agent = self._speaker[response.id] = self.dialogue.active.agent.name
        return [Tell(AgentStart(agent=agent, response_id=response.id))]

    def _on_done(self, response: Response) -> list[TalkAction]:
        actions: list[TalkAction] = []
        agent = self._speaker.pop(response.id, None)
        if agent is not None:
            status = response.status.value
            actions.append(Tell(AgentEnd(agent=agent, response_id=response.id, status=status)))
        if response.usage is not None:
            usage = self.dialogue.usage
            actions.append(Tell(UsageCounted(usage=usage, cost_usd=self._price(usage))))
        if self._ending and not self.busy:
            actions.append(Over())
        return actions

    # What others do -----------------------------------------------------------------------------

    def on_tool_done(self, run: RunTool, result: ToolResult, now_ms: int) -> list[TalkAction]:
        """A tool has answered."""
        ended = ToolEnd(
            agent=run.agent,
            tool=run.name,
            tool_call_id=run.tool_call_id,
            output=result.output,
            error=result.error,
            duration_ms=result.duration_ms,
        )
        reply = result.reply or self._owes_reply
        done = self.dialogue.function_calls.on_tool_done(
            run.tool_call_id, result.output, now_ms, reply=reply
        )
        return [Tell(ended), *self._carry(done, now_ms)]

    def on_tool_slow(self, run: RunTool, filler: str, now_ms: int) -> list[TalkAction]:
        """A tool takes its time: say so, where nobody speaks."""
        if self._caller_speaks or not self._hearing.drained:
            return []
        return self._carry(
            self.dialogue.function_calls.on_tool_slow(run.tool_call_id, filler, now_ms), now_ms
        )

    def on_guardrail_result(
        self, check: CheckGuardrail, result: GuardrailResult, now_ms: int
    ) -> list[TalkAction]:
        """The guardrails have looked at something that was said."""
        return self._carry(self.dialogue.on_guardrail_result(check, result, now_ms), now_ms)

    def on_tick(self, now_ms: int) -> list[TalkAction]:
        """Call some times a second: what was heard, watchdogs, what waits for a quiet moment."""
        for heard in self._hearing.take_heard(now_ms):
            self.dialogue.transcript.on_heard(heard.item_id, heard.heard_ms, heard.sent_ms)
        actions = self._carry(self.dialogue.on_tick(now_ms), now_ms)
        running = self.dialogue.gate.active_response_id is not None
        if running and now_ms - self._last_event_ms >= STALL_MS:
            self._last_event_ms = now_ms
            actions.append(GiveUp(code="response_stalled", retryable=True))
        if not self.busy and not self._caller_speaks and self._hearing.drained:
            actions += self._carry(self.dialogue.responses.on_quiet(now_ms), now_ms)
        return actions

    # Plumbing -----------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """A response runs or was asked for, or a tool does."""
        return self.dialogue.gate.busy or self.dialogue.function_calls.running

    def _carry(self, wanted: Sequence[DialogueAction], now_ms: int) -> list[TalkAction]:
        """A dialogue's actions as a session's."""
        actions: list[TalkAction] = []
        for action in wanted:
            match action:
                case Interrupt():
                    actions += self._cut(now_ms)
                case Record(event=event):
                    actions += _told(event)
                case RunTool():
                    actions += self._on_call(action, now_ms)
                case ToVoice(event=ItemCreate(item=item)):
                    actions += [action, *self._changes([item.id or ""])]
                case _:
                    actions.append(action)
        return actions

    def _on_call(self, run: RunTool, now_ms: int) -> list[TalkAction]:
        started = ToolStart(
            agent=run.agent,
            tool=run.name,
            tool_call_id=run.tool_call_id,
            arguments=run.arguments,
        )
        actions: list[TalkAction] = [Tell(started)]
        ours = run.name in CALL_TOOLS and self.dialogue.active.agent.has_session_tool(run.name)
        if run.name != END_CALL and not ours:
            return [*actions, run]
        try:
            result = self._run_call_tool(run)
        except ToolError as error:
            result = ToolResult(output=refused_call_tool(error), error=error.code)
        return actions + self.on_tool_done(run, result, now_ms)

    def _run_call_tool(self, run: RunTool) -> ToolResult:
        """Of the tools of a call only one needs no telephone."""
        if run.name != END_CALL:
            raise ToolError("There is no telephone line in this conversation.", code="no_line")
        if not self.counters.turns:
            raise too_early()
        read_call_tool(run.name, run.arguments)
        self._ending = True
        return ToolResult(output=json.dumps({"ok": True}), reply=not self._spoke)

    def _cut(self, now_ms: int, heard_ms: int | None = None) -> list[TalkAction]:
        """Stop what plays: the model forgets what was not heard of it."""
        for heard in self._hearing.take_heard(now_ms):
            self.dialogue.transcript.on_heard(heard.item_id, heard.heard_ms, heard.sent_ms)
        actions: list[TalkAction] = []
        for cut in self._hearing.interrupt(now_ms, heard_ms):
            self.dialogue.transcript.on_heard(cut.item_id, cut.heard_ms, cut.sent_ms, cut_off=True)
            actions.append(ToVoice(ItemTruncate(cut.item_id, cut.content_index, cut.heard_ms)))
            actions.append(Tell(AudioInterrupted(item_id=cut.item_id, heard_ms=cut.heard_ms)))
            actions += self._changes([cut.item_id])
        return actions

    def _changes(self, item_ids: Sequence[str]) -> list[TalkAction]:
        """What is new about these items of the history."""
        actions: list[TalkAction] = []
        for item_id in dict.fromkeys(item_ids):
            entry = self.dialogue.history.get(item_id)
            known = self._known.get(item_id)
            if entry is None:
                if known is not None:
                    del self._known[item_id]
                    actions.append(Tell(HistoryUpdated(item=known, removed=True)))
                continue
            item = HistoryItem.of(entry)
            if known is None:
                before = self.dialogue.history.before(item_id)
                actions.append(Tell(HistoryAdded(item=item, previous_item_id=before)))
            elif known != item:
                actions.append(Tell(HistoryUpdated(item=item)))
            self._known[item_id] = item
        return actions

    def history(self) -> list[HistoryItem]:
        """The conversation so far, in its own order."""
        entries: list[HistoryEntry] = list(self.dialogue.history)
        return [HistoryItem.of(entry) for entry in entries]


def _in_words(actions: list[TalkAction], error: ErrorDetail | None) -> list[TalkAction]:
    """The actions, with the model's own words at the error that they tell of."""
    if error is None:
        return actions
    return [
        Tell(replace(action.event, message=error.message))
        if isinstance(action, Tell) and isinstance(action.event, SessionError)
        else action
        for action in actions
    ]


def _told(event: object) -> list[TalkAction]:
    """What listeners are told of something that the dialogue records."""
    match event:
        case HandedOff():
            made = HandoffMade(
                from_agent=event.from_agent, to_agent=event.to_agent, kept_voice=event.kept_voice
            )
            return [Tell(made)]
        case GuardrailTripped():
            trip = GuardrailTrip(
                guardrail=event.guardrail,
                side=event.side,
                stopped=event.stopped,
                reason=event.reason,
                item_id=event.item_id,
            )
            return [Tell(trip)]
        case VoiceTrouble():
            return [Tell(SessionError(code=event.code, benign=event.benign))]
        case _:
            return []


def _items_of(event: ServerEvent) -> list[str]:
    """The items that an event is about."""
    if isinstance(event, ResponseDone):
        return [item.id or "" for item in event.response.output]
    item = getattr(event, "item", None)
    return [str(getattr(item, "id", "") or getattr(event, "item_id", "") or "")]
