"""A conversation between a caller and agents, as far as no phone is concerned.

Events of the model and `now_ms` go in, actions come out. A dialogue is composed of parts, each of
which is asked directly: who speaks (`active`), what is said next (`responses`), function calls and
handoffs (`function_calls`), what was said (`transcript`, `history`) and failed responses
(`failures`). Here is what concerns more than one of them: events of the model, guardrail results,
and a fresh connection. What is heard, barge-in and keypads belong to
`app.calls.conversation.conversation`, a conversation without a phone to
`app.agents.session.session_conversation`; both hold a dialogue. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from app.agents.agent import Agent
from app.agents.dialogue.actions import DialogueAction, Interrupt, Record, ToVoice
from app.agents.dialogue.active_agent import ActiveAgent
from app.agents.dialogue.failures import ResponseFailures
from app.agents.dialogue.function_calls import FunctionCalls
from app.agents.dialogue.item_history import History
from app.agents.dialogue.messages import (
    AGAIN,
    GOING_ON,
    SAY_NO_MORE,
    ModelMessages,
    SayMode,
    SayWhen,
    caller_words,
    note,
    spoken,
    spoken_before,
)
from app.agents.dialogue.response_kinds import REPLY, Kind
from app.agents.dialogue.response_queue import ResponseQueue
from app.agents.dialogue.transcript import RunningResponse, Transcript
from app.agents.dialogue.usage_meter import UsageMeter
from app.agents.guardrails.checks import feedback
from app.agents.guardrails.rules import CheckGuardrail, GuardrailResult, Stop
from app.agents.instructions import CallFacts
from app.agents.llm.question import OUT_OF_BAND_KEY
from app.agents.roster import Roster
from app.events import CallCounters, CallId, TokenUsage
from app.realtime.events import (
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ErrorDetail,
    ErrorEvent,
    FunctionArgumentsDone,
    InputAudioCommitted,
    Item,
    ItemAdded,
    ItemCreate,
    ItemDeleted,
    OutputItemAdded,
    OutputItemDone,
    Response,
    ResponseCancel,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    SessionUpdated,
    SpeechStarted,
    TextDelta,
    TextDone,
    TranscriptionCompleted,
)
from app.realtime.protocol import GateState, ResponseGate

__all__ = ["Dialogue"]


_MAX_KEPT_NOTES: Final = 20
_KINDS: Final = {
    SayWhen.NOW: Kind.URGENT,
    SayWhen.AFTER_TURN: Kind.MESSAGE,
    SayWhen.IDLE: Kind.IDLE_MESSAGE,
}


class Dialogue:
    """One conversation with agents over one voice connection after another."""

    def __init__(
        self,
        agent: Agent,
        call_id: CallId,
        counters: CallCounters,
        *,
        roster: Roster | None = None,
        facts: CallFacts | None = None,
    ) -> None:
        """`roster` holds the agents that `agent` may hand over to.

        Raises:
            ConfigError: an agent that has not been checked in a roster before, and is wrong.
        """
        self.meter = UsageMeter()
        self._messages = ModelMessages()
        self.active = ActiveAgent(
            agent,
            roster or Roster([agent]),
            facts or CallFacts(call_id=call_id),
            self._messages.new_id,
        )
        self._counters = counters
        self.failures = ResponseFailures(call_id, counters)
        self.gate = ResponseGate()
        self.responses = ResponseQueue(self.gate, self._messages)
        self.history = History()
        self.transcript = Transcript(call_id, self.history)
        self.function_calls = FunctionCalls(
            self.active,
            messages=self._messages,
            gate=self.gate,
            responses=self.responses,
            failures=self.failures,
            history=self.history,
            counters=counters,
        )
        self._running: dict[str, RunningResponse] = {}
        self._stale: set[str] = set()
        self._kept_notes: deque[str] = deque(maxlen=_MAX_KEPT_NOTES)
        self._out_of_band: set[str] = set()

    # Asking for words ---------------------------------------------------------------------------

    def say(
        self,
        text: str,
        now_ms: int,
        *,
        mode: SayMode = SayMode.VERBATIM,
        when: SayWhen = SayWhen.AFTER_TURN,
    ) -> list[DialogueAction]:
        """Have a text spoken: word for word (as far as a model obeys), or as information."""
        request = spoken(text, mode, _KINDS[when])
        actions: list[DialogueAction] = []
        if when is SayWhen.NOW:
            self.responses.forget()
            actions += [Interrupt(), *self.drop_response(server_cancels=False)]
        # An idle message is not told before: an answer that comes first would say it as well.
        # A fresh connection is told of what waits for it anyway.
        if when is not SayWhen.IDLE and self._messages.connected:
            actions += self.responses.tell(request)
        return [*actions, *self.responses.ask(now_ms, request)]

    def say_before(self, text: str, now_ms: int) -> list[ToVoice]:
        """Have a notice spoken word for word, before the agent's first words."""
        return self.responses.ask(now_ms, spoken_before(text))

    def say_last(self, text: str, now_ms: int) -> list[ToVoice]:
        """Have a sentence spoken in place of everything that waits to be said."""
        self.responses.forget_all()
        request = spoken(text, SayMode.VERBATIM)
        return [] if self.responses.asks_for(request) else self.responses.ask(now_ms, request)

    def type_in(
        self, text: str, now_ms: int, *, in_transcript: bool = True, reply: bool = True
    ) -> list[DialogueAction]:
        """Give the model words of the caller that were typed or keyed, and have it answer.

        `in_transcript=False`: they stand for a key; the caller did not say them. `reply=False`:
        more of them follow.
        """
        self.function_calls.on_caller_words()
        item = caller_words(text, self._messages.new_id("msg"))
        entry = self.history.add(item, None, now_ms)
        entry.in_transcript = in_transcript
        actions: list[DialogueAction] = [*self._messages.tell(ItemCreate(item))]
        if reply:
            actions += self.responses.ask(now_ms)
        if not in_transcript:
            return actions
        checks = self.transcript.checks
        return actions + checks.on_caller_text(self.active.agent, entry.item_id, text)

    def prompt(self, text: str, now_ms: int) -> list[ToVoice]:
        """Tell the model something, and have it answer."""
        prompted = replace(REPLY, note=note(text, ""))
        told = self.responses.tell(prompted) if self._messages.connected else []
        return [*told, *self.responses.ask(now_ms)]

    def tell(self, text: str, *, keep: bool = False) -> list[ToVoice]:
        """Tell the model something that it is to know, without having it answer.

        `keep`: it is to know it on another connection as well.
        """
        if keep:
            self._kept_notes.append(text)
        return self._messages.tell(ItemCreate(note(text, self._messages.new_id("sys"))))

    # Stopping -----------------------------------------------------------------------------------

    def is_stale(self, response_id: str) -> bool:
        """True for a response that was interrupted: whatever still comes of it is dropped."""
        return response_id in self._stale

    def drop_response(self, *, server_cancels: bool) -> list[ToVoice]:
        """Give up the running response; cancel it where the server does not by itself."""
        response_id = self.gate.active_response_id
        if response_id is not None:
            self._stale.add(response_id)
            if server_cancels:
                return []
        cancelled = self.gate.cancel()  # one only asked for is cancelled when it begins
        return [] if cancelled is None else [ToVoice(ResponseCancel(cancelled))]

    def on_heard_after_all(
        self, item_id: str, from_ms: int, to_ms: int, sent_ms: int
    ) -> list[ToVoice]:
        """The caller has heard more of an item than the model was told."""
        new_id = self._messages.new_id("msg")
        create = self.transcript.heard_after_all(item_id, from_ms, to_ms, sent_ms, new_id)
        return [] if create is None else self._messages.tell(create)

    # Events -------------------------------------------------------------------------------------

    def on_voice(self, event: ServerEvent, now_ms: int) -> Sequence[DialogueAction]:
        """Take any event of the model that is not sound."""
        if getattr(event, "response_id", None) in self._out_of_band:
            return []
        match event:
            case AudioTranscriptDelta():
                self.active.on_sound()
                name = self._name(event.item_id, event.response_id, now_ms)
                if response := self._running.get(event.response_id):
                    response.written.add(name)
                return self._on_text(name, event.response_id, event.delta, final=False)
            case TextDelta():
                name = self._name(event.item_id, event.response_id, now_ms)
                return self._on_text(name, event.response_id, event.delta, final=False)
            case AudioTranscriptDone(transcript=text) | TextDone(text=text):
                name = self._name(event.item_id, event.response_id, now_ms)
                return self._on_text(name, event.response_id, text, final=True)
            case ResponseCreated(response):
                return self._on_response_created(response)
            case ResponseDone(response):
                return self._on_response_done(response, now_ms)
            case OutputItemAdded(response_id, _, item):
                self.transcript.on_item(self._own_item(item, response_id, now_ms), None, now_ms)
                return []
            case FunctionArgumentsDone(response_id):
                if response := self._running.get(response_id):
                    response.on_call(event)
                return []
            case ItemAdded(item=item, previous_item_id=previous_item_id):
                self.transcript.on_item(item, previous_item_id, now_ms)
                return []
            case OutputItemDone(response_id, _, item):
                return self._on_output_item_done(response_id, item, now_ms)
            case ItemDeleted(item_id):
                self.history.remove(item_id)
                return []
            case SessionUpdated():
                return self.function_calls.on_handed_over(self.active.on_updated(), now_ms)
            case ErrorEvent(error):
                return self._on_error(error, now_ms)
            case _:
                return self._on_caller(event, now_ms)

    def _on_caller(self, event: ServerEvent, now_ms: int) -> list[CheckGuardrail]:
        """Take an event about the caller."""
        match event:
            case SpeechStarted():
                self.responses.on_caller_speech()
            case InputAudioCommitted(item_id):
                self.meter.on_committed(item_id)
                self.responses.on_caller_turn()
                self.function_calls.on_caller_words()
            case TranscriptionCompleted():
                self.meter.on_transcription(event)
            case _:
                pass
        return self.transcript.on_caller(event, self.active.agent, now_ms)

    @property
    def _instructions(self) -> str:
        written = self.active.agent.session.instructions
        return written if isinstance(written, str) else ""

    @property
    def usage(self) -> TokenUsage:
        """The usage that the model has billed so far, or will."""
        return self.meter.total

    def on_sound(self, response_id: str, item_id: str, now_ms: int, *, sound_ms: int = 0) -> None:
        """Sound of an item, so many ms, was passed on to whoever plays it."""
        self.meter.on_sound(response_id, sound_ms)
        if response := self._running.get(response_id):
            response.sounded.add(self._name(item_id, response_id, now_ms))

    def _on_text(
        self, item_id: str, response_id: str, text: str, *, final: bool
    ) -> list[CheckGuardrail]:
        response = self._running.get(response_id)
        if response is not None:
            response.has_text = response.has_text or bool(text)
        # The words of a sentence are the operator's own; those of a stale one are not heard.
        unchecked = response is None or response.verbatim or self.is_stale(response_id)
        current = response_id == self.gate.active_response_id
        return self.transcript.on_text(
            item_id,
            text,
            final=final,
            checked_for=None if response is None or unchecked else response.agent,
            sentence=self.responses.sentence if current else "",
        )

    # Responses ----------------------------------------------------------------------------------

    def _on_response_created(self, response: Response) -> list[ToVoice]:
        self.meter.on_created(response.id)
        if response.metadata.get(OUT_OF_BAND_KEY):
            self._out_of_band.add(response.id)
            return []
        self._counters.responses += 1
        cancelled = self.responses.on_created(response)
        running = self.responses.running
        verbatim = running is not None and bool(running.sentence)
        self._running[response.id] = RunningResponse(self.active.agent, verbatim=verbatim)
        if cancelled is None:
            return []
        self._stale.add(cancelled)
        return [ToVoice(ResponseCancel(cancelled))]

    def _on_response_done(self, response: Response, now_ms: int) -> list[DialogueAction]:
        failed = response.status is ResponseStatus.FAILED
        self.meter.on_done(response.id, response.usage, self._instructions, failed=failed)
        if response.id in self._out_of_band:
            self._out_of_band.discard(response.id)
            return []
        # A response that does not hold the gate was dealt with before: it changes nothing.
        runs = self.gate.runs(response.id)
        actions: list[DialogueAction] = list(self.responses.on_done(response.id, now_ms))
        running = self._running.get(response.id) or RunningResponse(self.active.agent, False)
        failure = None
        if runs:
            failure = self.failures.on_response(
                response, now_ms, spoke=running.spoke, began=running.began
            )
        if failure is not None:
            actions += failure.actions
            actions += self.responses.ask_again(now_ms) if failure.goes_on else []
        for item in response.output:
            if response.status is ResponseStatus.COMPLETED:
                actions += self._on_output_item_done(response.id, item, now_ms)
        if response.status is ResponseStatus.COMPLETED:
            for call in running.calls.values():  # some servers send nothing else of a call
                actions += self._on_output_item_done(response.id, call, now_ms)
        for name in running.items:  # and never close an item
            if self.transcript.is_open(name):
                actions += self._on_text(name, response.id, "", final=True)
        self._running.pop(response.id, None)
        done = response.status is ResponseStatus.COMPLETED and not self.is_stale(response.id)
        if not done:
            self.transcript.on_response_dropped(running)
        return [*actions, *self.function_calls.ask_when_done(now_ms)]

    def _on_error(self, error: ErrorDetail, now_ms: int) -> list[DialogueAction]:
        tools = self.active.tools_of(error.client_event_id)
        failure = self.failures.on_error(error, now_ms, tools)
        actions: list[DialogueAction] = [*failure.actions]
        asked = self.responses.on_error(
            error.client_event_id, error.code or error.type or "unknown", now_ms
        )
        actions += self._create_again(error, now_ms)
        before = self.active.agent
        refused = self.active.on_error(error.client_event_id)
        actions += self.function_calls.on_handoff_refused(refused, error.code or error.type, now_ms)
        if refused is None and self.active.agent.name != before.name:
            # The change was recorded when it was made, so its undoing is recorded too.
            actions.append(Record(self.active.handed_over(before, self.active.agent, now_ms)))
        return [*actions, *asked] if failure.goes_on else actions

    def _create_again(self, error: ErrorDetail, now_ms: int) -> list[DialogueAction]:
        """Send an item again that the model has refused, and have it reply to that, too.

        One that it takes in no form is settled without: a response tells what a note would have.
        """
        refused = self._messages.refused_item(error.client_event_id)
        if refused is None or "duplicate" in (error.code or ""):  # the model has it already
            return []
        again, item = self._messages.in_another_form(refused), refused.item
        name = refused.event_id.removesuffix(AGAIN)
        self.transcript.on_refused(name, None if again is None else again.item)
        if again is None:
            return [*self.responses.on_note_refused(refused, None, now_ms)]
        wants_reply = item.type == "function_call_output" or item.role == "user"
        if again.item.role == "system" and wants_reply:
            actions: list[DialogueAction] = [*self.responses.tell(replace(REPLY, note=again.item))]
        else:
            actions = [*self._messages.tell(again)]
        actions += self.responses.on_note_refused(refused, again, now_ms)
        if item.type == "function_call_output":
            actions += self.function_calls.on_told_again(item.call_id or "", now_ms)
        elif item.role == "user" and self.gate.busy:  # what runs was asked for without it
            actions += self.responses.ask(now_ms)
        return actions

    @property
    def reply_due(self) -> bool:
        """True while a response runs, was asked for, or has failed and was not made good."""
        return self.gate.busy or self.failures.in_a_row > 0

    def _name(self, item_id: str, response_id: str, now_ms: int) -> str:
        """The name that the history has for the item of some words or sound."""
        response = self._running.get(response_id)
        if response is None:
            return item_id
        return self.transcript.name(item_id, response_id, response, now_ms, own=False)

    def _own_item(self, item: Item, response_id: str, now_ms: int) -> Item:
        """An item of a response, under the name that the history has for it."""
        response = self._running.get(response_id)
        if response is None or not item.id:
            return item
        if item.type == "message":
            name = self.transcript.name(item.id, response_id, response, now_ms, own=True)
            return replace(item, id=name)
        response.functions[item.id] = item.name or ""
        return item

    def _words_inside(self, item: Item, response_id: str) -> list[CheckGuardrail]:
        """Read the words of an item: some servers send no transcript events."""
        entry = self.history.get(item.id or "")
        words = "".join(part.transcript or part.text or "" for part in item.content)
        if entry is None or entry.text_final or not words:
            return []
        return self._on_text(entry.item_id, response_id, words, final=True)

    # Tools and handoffs -------------------------------------------------------------------------

    def _on_output_item_done(
        self, response_id: str, item: Item, now_ms: int
    ) -> list[DialogueAction]:
        response = self._running.get(response_id)
        if response is not None and item.id and item.type == "message":
            item = replace(item, id=self.transcript.ended(item.id, response))
        item = self._own_item(item, response_id, now_ms)
        self.transcript.on_item(item, None, now_ms)
        agent = self.active.agent if response is None else response.agent
        if item.type == "message":
            return [*self._words_inside(item, response_id)]
        if self.is_stale(response_id):
            return self.function_calls.on_dropped(item, response_id, agent, now_ms)
        return self.function_calls.on_item(item, response_id, agent, now_ms)

    # Guardrails ---------------------------------------------------------------------------------

    def on_guardrail_result(
        self, check: CheckGuardrail, result: GuardrailResult, now_ms: int
    ) -> list[DialogueAction]:
        """Act on the result of a check: words that are stopped are not heard to their end."""
        checks, verdict = self.transcript.checks, result.verdict
        tripped = checks.on_result(check, result, now_ms)
        if tripped is None:
            return []
        if not isinstance(verdict, Stop):
            return [Record(tripped)]
        self.responses.forget()  # the answer that waits is one to these words
        correction = note(feedback(check.side, verdict.reason), self._messages.new_id("sys"))
        actions: list[DialogueAction] = [
            Interrupt(),
            *self.drop_response(server_cancels=False),
            Record(tripped),
            *self._messages.tell(ItemCreate(correction)),
        ]
        if verdict.say:
            return actions + self.say(verdict.say, now_ms)
        if checks.may_try_again:
            return [*actions, *self.responses.ask(now_ms)]
        if checks.says_no_more:
            return [*actions, *self.responses.ask(now_ms, SAY_NO_MORE)]
        return actions  # which was stopped as well

    # Time and connections -----------------------------------------------------------------------

    def on_tick(self, now_ms: int) -> list[DialogueAction]:
        """Notice requests for a response or for settings that the model never answered."""
        if not self._messages.connected:
            return []
        handed_over = self.function_calls.on_handed_over(self.active.overdue(now_ms), now_ms)
        stuck = self.gate.on_tick(now_ms)
        if stuck is None:
            return handed_over
        unanswered = stuck is GateState.REQUESTED
        failure = self.failures.on_timeout(now_ms, unanswered=unanswered)
        actions = [*handed_over, *failure.actions]
        if not failure.goes_on:
            return actions
        return [*actions, *self.responses.after_timeout(stuck, now_ms)]

    def change_agent(self, agent: Agent, now_ms: int) -> list[DialogueAction]:
        """Hand over to another agent, without the model having asked for it."""
        from_agent, kept_voice = self.active.agent, self.active.kept_voice(agent)
        actions: list[DialogueAction] = [*self._messages.tell(self.active.change_to(agent).event)]
        if agent.name != from_agent.name or kept_voice:
            actions.append(Record(self.active.handed_over(from_agent, agent, now_ms, kept_voice)))
        return actions

    def on_lost(self) -> None:
        """The connection is gone: what is asked for from now on waits for the next one."""
        self._messages.connected = False
        self.meter.on_lost(self._instructions)
        running = self._running.get(self.gate.active_response_id or "")
        begun = running is not None and bool(running.sounded or running.written)
        self.responses.on_lost(begun=begun)

    def on_reconnected(self, now_ms: int, where_it_stands: str = GOING_ON) -> list[DialogueAction]:
        """A fresh connection: give it the conversation so far, and no second greeting."""
        if self._messages.connected:
            self.on_lost()  # the one before was renewed: it is over as one is that broke
        self._messages.on_reconnected()
        self._stale.clear()
        self._out_of_band.clear()
        for response in self._running.values():
            self.transcript.on_response_dropped(response)
        self._running.clear()
        replay = self.transcript.replay(self._messages.epoch)
        replay += [
            ItemCreate(note(text, self._messages.new_id("sys"))) for text in self._kept_notes
        ]
        going_on = note(where_it_stands, self._messages.new_id("sys"))
        update = self.active.caught_up()
        actions: list[DialogueAction] = [] if update is None else [update]
        actions += [self._messages.create(event) for event in (*replay, ItemCreate(going_on))]
        actions += self.function_calls.on_reconnected(now_ms)
        return [*actions, *self.responses.on_reconnected(now_ms)]

    # Transcript ---------------------------------------------------------------------------------

    def lines(self, now_ms: int) -> list[Record]:
        """Transcript lines that are settled, in the order of the conversation."""
        return self.transcript.lines(now_ms, unverified=self.active.agent.guesses)

    def on_call_over(self, now_ms: int) -> list[Record]:
        """The last lines: nothing more will be heard or transcribed."""
        self.history.close()
        self.meter.on_lost(self._instructions)
        return self.lines(now_ms + 1_000_000)
