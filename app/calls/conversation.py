"""The mind of a phone call: what the phone and the model say goes in, actions come out.

It holds a `Dialogue` and adds the phone: playout, barge-in, keypad, silence, goodbye, limits.
Pure: no clock, no socket; `now_ms` is monotonic and an argument. A call's order of things is
ARCHITECTURE section 4, drawn in docs/architecture.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final, assert_never

from app.agents.agent import Agent
from app.agents.dialogue.actions import GiveUp, Interrupt, Record, RunTool
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.guardrails.rules import CheckGuardrail, GuardrailResult
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.tools.call_control import (
    CALL_TOOLS,
    END_CALL,
    read_call_tool,
    refused_call_tool,
    too_early,
)
from app.calls.actions import Action, AppendAudio, End, PlayAudio, RenewVoice
from app.calls.goodbye import Ending
from app.calls.keypad.keypad import Keypad, Wanted
from app.calls.keypad.menu import KeypadMap
from app.calls.latency import TurnLatency
from app.calls.media.downlink import Downlink
from app.calls.media.false_interruption import FalseInterruption, Interrupted
from app.calls.media.ringback import Ringback
from app.calls.media.uplink import Uplink
from app.calls.model_watch import ModelWatch
from app.calls.policy import CallPolicy
from app.calls.turns.timers import CallTimers, ClosingPrompt
from app.calls.turns.turn_table import Turn, TurnEvent, Turns
from app.calls.turns.words import is_echo
from app.carrier.base import (
    CallerAudio,
    Dtmf,
    MarkReached,
    StreamEvent,
    StreamStarted,
    StreamStopped,
)
from app.errors import ToolError
from app.events import (
    CallCounters,
    CallId,
    EndReason,
    KeyPressed,
    Party,
    StreamOpened,
    VoiceTrouble,
)
from app.realtime.events import (
    UNSET,
    AudioDelta,
    AudioDone,
    ErrorDetail,
    InputAudioCommitted,
    OutputItemDone,
    Response,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    ServerEvent,
    SessionUpdated,
    SpeechStarted,
    SpeechStopped,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
)
from audio.format import PCMU_8K

__all__ = ["Conversation", "Exchange"]


GO_ON: Final = (
    "A noise on the line stopped you in the middle of a sentence; the caller said nothing. Go on "
    "exactly where you stopped, and do not begin anew."
)


class Exchange:
    """The parts of one call's mind, and what they do together."""

    def __init__(
        self,
        call_id: CallId,
        agent: Agent,
        policy: CallPolicy,
        now_ms: int,
        *,
        book: Roster | None = None,
        facts: CallFacts | None = None,
        keypads: Mapping[str, KeypadMap] | None = None,
    ) -> None:
        self.call_id = call_id
        self.policy = policy
        self.counters = CallCounters()
        self.dialogue = Dialogue(agent, call_id, self.counters, roster=book, facts=facts)
        self.turns = Turns(now_ms)
        self.latency = TurnLatency()
        self._input_format = agent.input_format
        self._output_format = agent.output_format
        self._uplink = Uplink(PCMU_8K, self._input_format, self.counters)
        self._false_interruption = FalseInterruption(policy.false_interruption_ms)
        self._downlink = Downlink(
            call_id,
            self.dialogue,
            self.counters,
            self._false_interruption,
            PCMU_8K,
            keep_ms=policy.resume_max_ms if policy.false_interruption_ms else 0,
        )
        self._timers = CallTimers(policy)
        self._ending = Ending()
        self._connection = ModelWatch(now_ms)
        # First words that nothing may interrupt; and whether the caller speaks over them now.
        self._protected = not agent.interruptible_greeting and agent.speaks_first is Party.AGENT
        self._spoken_over = False
        self.interjections = 0  # how often the caller took the floor; a cough does not count
        self.dialogue.active.uninterrupted = self._protected
        self._ringback = Ringback()
        self._ringing = False
        self._keypad = Keypad(call_id, self.dialogue, self._timers, keypads or {})

    # The floor ----------------------------------------------------------------------------------

    def heard_out(self, now_ms: int) -> bool:
        """Nothing of the agent is playing or on its way."""
        return self._downlink.drained(now_ms) and self.dialogue.gate.active_response_id is None

    @property
    def undecided(self) -> bool:
        """A sound has cut the agent off, and nobody knows yet whether it was the caller."""
        return self._false_interruption.undecided

    def quiet(self) -> bool:
        """Nobody speaks and nothing is on its way: a moment to change connections."""
        free = not self.dialogue.gate.busy and not self._false_interruption.undecided
        return free and self.turns.turn is Turn.IDLE

    def _owed(self, now_ms: int) -> bool:
        return self.dialogue.gate.busy or self.dialogue.function_calls.running

    @property
    def _busy(self) -> bool:
        """Whether a caller who waits in silence waits for us."""
        return (
            self.dialogue.gate.busy
            or self.dialogue.function_calls.running
            or self._keypad.waiting
            or self._false_interruption.undecided
            or self._ringing
            or not self._connection.ready
        )

    def _note_state(self, now_ms: int) -> None:
        drained = self._downlink.drained(now_ms)
        self._timers.on_state(self.turns.turn, now_ms, drained=drained, busy=self._busy)

    def _turn(self, event: TurnEvent, now_ms: int) -> None:
        if not self.turns.on_event(event, now_ms):
            self.counters.protocol_surprises += 1
        self._note_state(now_ms)

    # Speaking -----------------------------------------------------------------------------------

    def _after_playing(self, now_ms: int) -> list[Action]:
        """Something more was heard: settle items, and give the floor back when all is."""
        actions = self._downlink.settle(now_ms)
        if self._downlink.heard_an_item:
            actions += self._unprotect()
        if self.heard_out(now_ms):
            if self.turns.turn is Turn.AGENT:
                self._turn(TurnEvent.DRAINED, now_ms)
            if self._ending.reason is not None and self._ending.said:
                actions.append(End(self._ending.reason, self._ending.detail))
            elif self._false_interruption.unfinished and not self._false_interruption.undecided:
                self._false_interruption.unfinished = False
                actions += self._carry(self.dialogue.prompt(GO_ON, now_ms), now_ms)
        if self._spoken_over and not self._protected:
            self._spoken_over = False
            self.interjections += 1
            self._turn(TurnEvent.SPEECH_STARTED, now_ms)  # which they did long ago
        return [*self.dialogue.lines(now_ms), *actions]

    def _unprotect(self) -> list[Action]:
        """The first words are over: from here on the caller may interrupt."""
        if not self._protected:
            return []
        self._protected = False
        update = self.dialogue.active.let_interrupt()
        return [] if update is None else [update]

    def _interrupt(self, now_ms: int) -> list[Action]:
        """Stop the agent for a reason that is no sound: a key, words of our own."""
        return self._downlink.interrupt(now_ms, server_cancels=False) + self._unprotect()

    def _silence_agent(self, now_ms: int) -> list[Action]:
        """Stop the agent for a reason of ours; its response has been dropped already."""
        actions = self._downlink.stop(now_ms) + self._unprotect()
        if self.turns.turn is Turn.AGENT:
            self._turn(TurnEvent.DRAINED, now_ms)
        return actions

    # Tools --------------------------------------------------------------------------------------

    def on_tool_done(
        self, tool_call_id: str, output: str, now_ms: int, *, reply: bool = True
    ) -> list[Action]:
        """A tool answered: the model hears of it, and speaks when all of its tools have."""
        asked = self._keypad.on_tool_done(tool_call_id, now_ms)
        reply = reply or self._connection.owes_reply
        done = self.dialogue.function_calls.on_tool_done(tool_call_id, output, now_ms, reply=reply)
        actions = self._carry([*asked, *done], now_ms)
        if self.turns.turn is Turn.THINKING and not self._owed(now_ms):
            self._turn(TurnEvent.NO_REPLY, now_ms)  # a tool that has nothing to say
        return actions

    def on_tool_slow(self, tool_call_id: str, filler: str, now_ms: int) -> list[Action]:
        """A tool takes its time: say so to a caller who waits in silence."""
        listens = self._timers.present and self._downlink.drained(now_ms)
        if self.turns.turn is Turn.CALLER or not listens:
            return []
        return self._carry(
            self.dialogue.function_calls.on_tool_slow(tool_call_id, filler, now_ms), now_ms
        )

    def on_consent_wanted(self, tool_call_id: str, prompt: str, now_ms: int) -> list[Action]:
        """A tool needs the caller's consent by keypad: the next key counts."""
        wanted = self._keypad.on_consent_wanted(tool_call_id, prompt, now_ms)
        return self._carry(wanted, now_ms)

    def on_guardrail_result(
        self, check: CheckGuardrail, result: GuardrailResult, now_ms: int
    ) -> list[Action]:
        """The guardrails have looked at something that was said."""
        return self._carry(self.dialogue.on_guardrail_result(check, result, now_ms), now_ms)

    def say(self, text: str, now_ms: int, *, mode: SayMode, when: SayWhen) -> list[Action]:
        """Have something said that neither side has asked for."""
        return self._carry(self.dialogue.say(text, now_ms, mode=mode, when=when), now_ms)

    def _runs_here(self, run: RunTool) -> bool:
        """Tools of the phone side; a model that names one it was not given gets no such tool."""
        return run.name == END_CALL or (
            run.name in CALL_TOOLS and self.dialogue.active.agent.has_session_tool(run.name)
        )

    def _run_tool(self, run: RunTool, now_ms: int) -> list[Action]:
        if run.name == END_CALL:
            return self._end_call(run, now_ms)
        spoken = self.turns.turn is Turn.AGENT
        actions = self._carry(self._keypad.run(run, now_ms, spoken=spoken), now_ms)
        if self.turns.turn is Turn.THINKING and not self._owed(now_ms):
            self._turn(TurnEvent.NO_REPLY, now_ms)
        return actions

    def _end_call(self, run: RunTool, now_ms: int) -> list[Action]:
        """The model wants to hang up: once the goodbye is heard, unless the caller speaks."""
        try:
            if not (self.counters.turns or self._keypad.used):
                raise too_early()
            reason = read_call_tool(END_CALL, run.arguments)["reason"]
        except ToolError as error:
            refused = self.on_tool_done(run.tool_call_id, refused_call_tool(error), now_ms)
            return [self._keypad.ran(run, now_ms, now_ms, error=error.code), *refused]
        spoken = self.turns.turn is Turn.AGENT
        self._ending.begin(EndReason.AGENT_HUNG_UP, reason, now_ms)
        self._ending.said = spoken
        output = json.dumps({"ok": True, "note": "Say goodbye now if you have not yet."})
        self._ending.asked = True
        done = self.on_tool_done(run.tool_call_id, output, now_ms, reply=not spoken)
        return [self._keypad.ran(run, now_ms, now_ms), *done]

    # Endings ------------------------------------------------------------------------------------

    def farewell(self, reason: EndReason, text: str, now_ms: int, detail: str = "") -> list[Action]:
        """Say goodbye for us, and end the call when it was heard (or cannot be)."""
        if self._ending.reason is not None:
            return []
        self._ending.begin(reason, detail, now_ms)
        if not self._connection.ready or self.latency.stream_ms is None:
            return [End(reason, detail)]
        if not text:
            return [*self._interrupt(now_ms), End(reason, detail)]
        self._ending.text = text
        return self._interrupt(now_ms) + self._say_farewell(now_ms)

    def _say_farewell(self, now_ms: int) -> list[Action]:
        self._ending.asked = True
        return self._carry(self.dialogue.say_last(self._ending.text, now_ms), now_ms)

    # Plumbing -----------------------------------------------------------------------------------

    def _carry(self, wanted: Sequence[Wanted], now_ms: int) -> list[Action]:
        """Pass a dialogue's actions on; what the phone itself must do is done here."""
        actions: list[Action] = []
        for action in wanted:
            if isinstance(action, Interrupt):
                actions += self._silence_agent(now_ms)
            elif isinstance(action, RunTool) and self._runs_here(action):
                actions += self._run_tool(action, now_ms)
            elif isinstance(action, ClosingPrompt):
                actions += self.farewell(action.reason, action.text, now_ms, action.detail)
            else:
                actions.append(action)
        if self.turns.turn is Turn.IDLE and self.dialogue.gate.busy:
            self._turn(TurnEvent.ASKED, now_ms)
        return actions


PROBE_MARK: Final = "probe"
"""No mark of `Playout` is called that: its return is a sign of life and nothing else."""

_ECHO_TURNS: Final = 3


class Conversation(Exchange):
    """One call between a caller and an agent."""

    @property
    def _vad(self) -> object:
        """How the model finds turns, which may change with the agent."""
        return self.dialogue.active.agent.session.turn_detection

    # Phone --------------------------------------------------------------------------------------

    def on_stream(self, event: StreamEvent, now_ms: int) -> list[Action]:
        """Take an event of the carrier's media stream."""
        self._uplink.on_sign_of_life(now_ms)
        match event:
            case CallerAudio(payload, timestamp_ms):
                audio = self._uplink.push(payload, timestamp_ms, now_ms)
                return [AppendAudio(audio)] if audio else []
            case MarkReached(name):
                return self._on_mark(name, now_ms)
            case Dtmf(digit):
                return self._on_key(digit, now_ms)
            case StreamStarted():
                return self._on_stream_started(event, now_ms)
            case StreamStopped(hung_up):
                reason = EndReason.CALLER_HUNG_UP if hung_up else EndReason.CARRIER_LOST
                return [End(reason)]
            case _:
                assert_never(event)

    def _on_stream_started(self, event: StreamStarted, now_ms: int) -> list[Action]:
        self.latency.on_stream(now_ms)
        self._downlink.on_stream_started(event.audio_format, now_ms)
        self._uplink = Uplink(event.audio_format, self._input_format, self.counters)
        self._uplink.on_sign_of_life(now_ms)
        self._timers.begin(now_ms)
        return [Record(StreamOpened(call_id=self.call_id, at_ms=now_ms))]

    def on_stream_left(self, now_ms: int) -> list[Action]:
        """The caller was taken off the stream: cut what they miss; the next one starts anew."""
        actions = [*self.dialogue.drop_response(server_cancels=False), *self._silence_agent(now_ms)]
        self._downlink.on_stream_left()
        self._ending.on_caller_acted()
        self._timers.leave()
        self._uplink = Uplink(self._downlink.carrier_format, self._input_format, self.counters)
        return actions

    def _on_mark(self, name: str, now_ms: int) -> list[Action]:
        if not self._downlink.on_mark(name, now_ms):
            return []
        return self._after_playing(now_ms)

    def _on_key(self, digit: str, now_ms: int) -> list[Action]:
        shown = self._keypad.shown(digit, now_ms)
        pressed = Record(KeyPressed(call_id=self.call_id, at_ms=now_ms, digit=shown))
        self._timers.on_caller_acted(now_ms)
        if self._keypad.absorbs(digit, now_ms):
            return [pressed]
        actions: list[Action] = [pressed, *self._interrupt(now_ms)]
        self._ending.on_caller_acted()
        return actions + self._carry(self._keypad.on_key(digit, now_ms), now_ms)

    # Model --------------------------------------------------------------------------------------

    def on_voice_ready(self, now_ms: int, expires_in_ms: int | None) -> list[Action]:
        """The model has confirmed its session: greet, or go on where the conversation stands."""
        first = self._connection.on_ready(now_ms, expires_in_ms, self.policy)
        if first:
            if self.dialogue.active.agent.speaks_first is Party.CALLER:
                return []
            greeting = self.dialogue.active.greeting
            menu = self._keypad.open_menu(now_ms, greeting or "")
            if menu is not None:
                return self._carry(menu, now_ms)
            if greeting:
                return self._carry(self.dialogue.say(greeting, now_ms), now_ms)
            return self._carry(self.dialogue.responses.ask(now_ms), now_ms)
        waiting = self.turns.turn is Turn.THINKING or self._connection.owes_reply
        actions = self._carry(self.dialogue.on_reconnected(now_ms), now_ms)
        if self.turns.turn is Turn.CALLER:
            # The new session has not heard how this turn began; its own detector takes over.
            self._turn(TurnEvent.NO_REPLY, now_ms)
        if self._ending.reason is not None and not self._ending.said:
            if self._ending.text:
                return actions + self._say_farewell(now_ms)
            waiting = True  # the goodbye is in the model's own words
        # A model that is asked while a tool runs, which it was not told of, would call it again.
        waiting = waiting and not self.dialogue.gate.busy
        self._connection.owes_reply = waiting and self.dialogue.function_calls.running
        if self._connection.owes_reply:
            actions += self._carry(self._keypad.ask_again(now_ms), now_ms)
        elif waiting:
            actions += self._carry(self.dialogue.responses.ask(now_ms), now_ms)
        return actions

    def on_voice_lost(self, now_ms: int) -> list[Action]:
        """The connection broke. What the caller is hearing plays on; the rest is settled later."""
        self._connection.owes_reply = self.dialogue.owes_words
        actions = self._downlink.on_voice_lost(now_ms)
        self.dialogue.on_lost()
        self._unprotect()  # the next session is opened as one that may be interrupted
        self._spoken_over = False  # nobody will hear this caller's end of speech
        self.counters.voice_reconnects += 1
        return actions

    def on_voice(self, event: ServerEvent, now_ms: int) -> list[Action]:
        """Take an event of the voice model."""
        self._connection.last_event_ms = now_ms
        match event:
            case AudioDelta():
                return self._on_audio(event, now_ms)
            case AudioDone(item_id=item_id):
                if self._false_interruption.undecided:
                    self._false_interruption.hold(event)
                    return []
                return self._downlink.finish(item_id, now_ms)
            case SpeechStarted(item_id=item_id):
                self.dialogue.on_voice(event, now_ms)
                if self._protected:
                    self._spoken_over = True
                    return []
                return self._on_speech_started(item_id, now_ms)
            case SpeechStopped():
                return self._on_speech_stopped(now_ms)
            case InputAudioCommitted():
                actions = self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
                # A model that may not interrupt itself answers nobody who speaks over it.
                unanswered = self._protected and self.dialogue.gate.busy
                if unanswered or not getattr(self._vad, "create_response", True):
                    actions += self._carry(self.dialogue.responses.ask(now_ms), now_ms)
                return actions
            case ResponseCreated():
                return self._on_response_created(event, now_ms)
            case ResponseDone():
                return self._on_response_done(event, now_ms)
            case OutputItemDone(item=item) if item.type == "function_call":
                # The model acts on what it has heard: it is too late to call that nothing.
                overtaken = self._decided(self._false_interruption.on_overtaken(), now_ms)
                return overtaken + self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
            case TranscriptionDelta() if self.policy.echo_guard:
                return []  # some words do not tell yet whose they are
            case TranscriptionDelta(item_id=item_id, delta=delta):
                return self._decided(
                    self._false_interruption.on_partial_transcript(item_id, delta), now_ms
                )
            case SessionUpdated(session):
                # A later update can switch the format back: static in the caller's ear.
                if session.output_format not in (UNSET, self._output_format):
                    return self._carry([GiveUp(code="format_mismatch", retryable=False)], now_ms)
                return self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
            case TranscriptionCompleted() | TranscriptionFailed():
                return self._on_transcript(event, now_ms)
            case _:
                return self._carry(self.dialogue.on_voice(event, now_ms), now_ms)

    def _on_speech_stopped(self, now_ms: int) -> list[Action]:
        self.counters.turns += 1
        if not self.dialogue.active.agent.transcribed:
            self._timers.on_caller_acted(now_ms)
        if self._protected:
            self._spoken_over = False
            return []
        self.latency.on_caller_stopped(now_ms)
        self._turn(TurnEvent.SPEECH_STOPPED, now_ms)
        return self._decided(self._false_interruption.on_speech_stopped(now_ms), now_ms)

    def _on_transcript(
        self, event: TranscriptionCompleted | TranscriptionFailed, now_ms: int
    ) -> list[Action]:
        actions = self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
        words = event.transcript.strip() if isinstance(event, TranscriptionCompleted) else ""
        if self.policy.echo_guard and is_echo(words, self._last_said()):
            words = ""
        if isinstance(event, TranscriptionCompleted):
            self._timers.on_caller_words(words, now_ms)
        else:
            self._timers.on_caller_acted(now_ms)  # in doubt it was a caller
        if words:
            self._connection.reply_asked = False
            actions += self._carry(
                self._keypad.on_caller_words(event.item_id, words, now_ms), now_ms
            )
        decided = self._false_interruption.on_transcript(event.item_id, words)
        if decided is not None:
            actions += self._decided(decided, now_ms)
        elif self._false_interruption.interrupts_late(event.item_id, words):
            actions += self._interrupt(now_ms)
            actions += self._carry(self.dialogue.responses.ask(now_ms), now_ms)
        elif words or self._false_interruption.undecided:
            pass
        elif self.turns.turn is Turn.THINKING and not self.dialogue.gate.busy:
            self._turn(TurnEvent.NO_REPLY, now_ms)  # a noise: nobody owes an answer
        return [*actions, *self.dialogue.lines(now_ms)]

    def _last_said(self) -> str:
        """The agent's last words, also those of a turn that was cut off."""
        said = [e.text for e in self.dialogue.transcript.messages() if e.party is Party.AGENT]
        return " ".join(said[-_ECHO_TURNS:])

    def _on_audio(self, event: AudioDelta, now_ms: int) -> list[Action]:
        if self.dialogue.is_stale(event.response_id):
            self.counters.stale_audio_dropped_ms += self._output_format.bytes_to_ms(
                len(event.audio) - len(event.audio) % self._output_format.bytes_per_sample
            )
            return []
        if self._false_interruption.undecided:
            self._false_interruption.hold(event)
            return []
        if self.turns.turn is not Turn.AGENT:
            self.latency.on_agent_audio(now_ms)
            self._turn(TurnEvent.FIRST_AUDIO, now_ms)
        return self._downlink.push(event, now_ms)

    def _on_response_created(self, event: ResponseCreated, now_ms: int) -> list[Action]:
        ours = self.dialogue.gate.busy
        self._connection.owes_reply = False
        actions = self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
        if self._false_interruption.reply_expected and not ours:
            self._false_interruption.reply_expected = False
            if (
                not self._false_interruption.undecided
            ):  # the answer to a noise, after that was settled
                actions += self.dialogue.drop_response(server_cancels=False)
        return actions

    def _on_response_done(self, event: ResponseDone, now_ms: int) -> list[Action]:
        actions: list[Action] = []
        if self._downlink.is_inaudible(event.response):
            event, actions = self._take_back(event.response, now_ms)
        for item in event.response.output:
            if item.id and item.type == "message" and not self._false_interruption.undecided:
                actions += self._downlink.finish(item.id, now_ms)
        stale = self.dialogue.is_stale(event.response.id)
        actions += self._carry(self.dialogue.on_voice(event, now_ms), now_ms)
        if not stale:
            self._connection.reply_asked = False
        if self._ending.asked and not self.dialogue.gate.busy:
            self._ending.said = True
        if self.turns.turn is Turn.THINKING and not self._owed(now_ms):
            self._turn(TurnEvent.NO_REPLY, now_ms)
        return actions + self._after_playing(now_ms)

    def _take_back(self, response: Response, now_ms: int) -> tuple[ResponseDone, list[Action]]:
        """Remove what could not be heard: it counts as a response that failed."""
        deleted = self._downlink.take_back(response)  # first: none of it becomes a transcript
        actions = self._silence_agent(now_ms) if self._downlink.plays_only(response) else []
        actions += deleted
        error = ErrorDetail(code="inaudible_response")
        failed = replace(response, status=ResponseStatus.FAILED, output=(), error=error)
        return ResponseDone(failed), actions

    # Barge-in -----------------------------------------------------------------------------------

    def _on_speech_started(self, item_id: str, now_ms: int) -> list[Action]:
        if not self._false_interruption.undecided:
            self._ending.on_caller_speech()
        self.dialogue.responses.forget()
        self._connection.reply_asked = False
        server_cancels = bool(getattr(self._vad, "interrupt_response", False))
        # Without transcripts nobody can tell a cough from a word.
        tracked = self.dialogue.active.agent.transcribed and self._ending.reason is None
        actions = self._downlink.interrupt(
            now_ms, server_cancels=server_cancels, sound_id=item_id if tracked else None
        )
        self._false_interruption.on_speech_started(item_id)
        if not self.undecided:
            self.interjections += 1
        self._turn(TurnEvent.SPEECH_STARTED, now_ms)
        return actions

    def _decided(self, outcome: Interrupted | None, now_ms: int) -> list[Action]:
        """Whether the sound that cut the agent off was a caller is known now."""
        if outcome is None:
            return []
        if outcome is Interrupted.FALSE:
            self.counters.turns -= 1
            self.latency.forget_caller()
            self._ending.on_false_alarm(now_ms)
            self._turn(TurnEvent.FIRST_AUDIO, now_ms)
            return self._downlink.resume(now_ms)
        self.interjections += 1
        actions: list[Action] = []
        held = self._downlink.confirm()
        for event in held:
            actions += self.on_voice(event, now_ms)
        if self.dialogue.gate.active_response_id is None:
            for item_id in dict.fromkeys(event.item_id for event in held):
                actions += self._downlink.finish(item_id, now_ms)
        return actions + self._after_playing(now_ms)

    # Time ---------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int, *, ringing: bool = False) -> list[Action]:
        """Call some times a second: stalls, silence, limits, overdue marks, watchdogs.

        `ringing`: somebody is being called for the caller, who waits here.
        """
        self._ringing = ringing
        speaking = self.turns.turn is Turn.CALLER or self._spoken_over
        filled = self._uplink.on_tick(now_ms, speaking=speaking)
        actions: list[Action] = [AppendAudio(filled)] if filled else []
        actions += self._watch_stream(now_ms)
        actions += self._decided(self._false_interruption.on_tick(now_ms), now_ms)
        if self.turns.turn is Turn.AGENT or self._ending.reason is not None:
            actions += self._after_playing(now_ms)
        else:
            actions += self.dialogue.lines(now_ms)
        # A goodbye that is being heard may take its time, but not for ever.
        patience = 1 if self._downlink.drained(now_ms) else 4
        if self._ending.overdue(now_ms, patience * self.policy.goodbye_cap_ms):
            return [
                *actions,
                End(self._ending.reason or EndReason.AGENT_HUNG_UP, "goodbye_timeout"),
            ]
        heard_out = self.heard_out(now_ms) and self.turns.turn is Turn.IDLE
        actions += self._carry(self._keypad.on_tick(now_ms, heard_out=heard_out), now_ms)
        actions += self._mind_manners(now_ms)
        if self._connection.ready:
            actions += self._carry(self.dialogue.on_tick(now_ms), now_ms)
            actions += self._watch_model(now_ms)
            if (
                self.quiet()
                and not self.dialogue.function_calls.running
                and self._ending.reason is None
            ):
                on_hold = self._timers.on_hold(now_ms)
                actions += self._carry(
                    self.dialogue.responses.on_quiet(now_ms, on_hold=on_hold), now_ms
                )
        return [*actions, *self._ring(now_ms)]

    def _ring(self, now_ms: int) -> list[Action]:
        """Let the caller hear the phone ring, as long as nobody speaks."""
        if not self._ringing or self.turns.turn is Turn.CALLER or not self.heard_out(now_ms):
            self._ringback.stop()
            return []
        sound = self._ringback.on_tick(now_ms, self._downlink.carrier_format)
        return [PlayAudio(sound, None)] if sound else []

    def _watch_stream(self, now_ms: int) -> list[Action]:
        """A carrier that sends nothing at all: a live one returns a mark at once."""
        quiet_ms = self._uplink.quiet_ms(now_ms)
        if quiet_ms >= self.policy.stream_lost_ms:
            return [End(EndReason.CARRIER_LOST, "stream_silent")]
        if quiet_ms < self.policy.stream_probe_ms or self._uplink.probed:
            return []
        self._uplink.probed = True
        return [PlayAudio(b"", PROBE_MARK)]

    def _mind_manners(self, now_ms: int) -> list[Action]:
        """Ask, warn or say goodbye, where the silence or the length of the call wants it."""
        if self._ending.reason is not None:
            return []
        self._note_state(now_ms)
        wanted = self._timers.on_tick(now_ms, busy=self._busy)
        if wanted is None:
            return []
        if isinstance(wanted, ClosingPrompt):
            return self.farewell(wanted.reason, wanted.text, now_ms, wanted.detail)
        return self._carry(self.dialogue.say(wanted.text, now_ms), now_ms)

    def warn_of_end(self, now_ms: int) -> list[Action]:
        """The call will be over soon, for a reason that nobody in it knows of."""
        remark = None if self._ending.reason is not None else self._timers.last_minute()
        return [] if remark is None else self._carry(self.dialogue.say(remark.text, now_ms), now_ms)

    def _watch_model(self, now_ms: int) -> list[Action]:
        """A caller who waits for a silent model: ask once more, then give the connection up."""
        link = self._connection
        if self.dialogue.gate.active_response_id is not None:
            quiet_ms = now_ms - link.last_event_ms
            # A model that has sent all of a long answer is silent too, but it has said done.
            if quiet_ms >= self.policy.stall_deadline_ms:
                link.last_event_ms = now_ms
                return self._replace_connection("response_stalled", now_ms)
        elif self.turns.turn is Turn.THINKING and not self._owed(now_ms):
            if now_ms - self.turns.since_ms < self.policy.reply_deadline_ms:
                return []
            if link.reply_asked:
                return self._replace_connection("no_reply", now_ms)
            link.reply_asked = True
            self.turns.since_ms = now_ms
            return self._carry(self.dialogue.responses.ask(now_ms), now_ms)
        if link.renewal_due(now_ms) and self.turns.turn is Turn.IDLE and not self._owed(now_ms):
            link.renew_at_ms = now_ms + 30_000  # should it fail, try again in a while
            return [RenewVoice()]
        return []

    def _replace_connection(self, code: str, now_ms: int) -> list[Action]:
        """Give up a model that is silent: it reports no error that would say why."""
        trouble = VoiceTrouble(call_id=self.call_id, at_ms=now_ms, code=code, benign=False)
        return [Record(trouble), *self._carry([GiveUp(code=code, retryable=True)], now_ms)]

    def on_call_over(self, now_ms: int) -> list[Action]:
        """Settle the transcript at what the caller has heard."""
        self._downlink.on_call_over(now_ms)
        return [*self._keypad.on_call_over(now_ms), *self.dialogue.on_call_over(now_ms)]
