"""The mind of a phone call: what the phone and the model say goes in, actions come out.

It holds a `Dialogue` and adds the phone. Each part decides one thing, and the conversation routes
events to them, moves the turn, and makes actions of what they ask for. Pure: no clock, no socket;
`now_ms` is monotonic and an argument. docs/architecture.md describes the order of a call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Final, assert_never

from app.agents.agent import Agent
from app.agents.dialogue.actions import GiveUp, Interrupt, Record, RunTool
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.messages import GOING_ON, SayMode, SayWhen
from app.agents.dialogue.response_kinds import REPLY, ResponseRequest
from app.agents.guardrails.rules import CheckGuardrail, GuardrailResult
from app.agents.instructions import CallFacts
from app.agents.roster import Roster
from app.agents.tools.call_control import (
    COLLECT_DIGITS,
    DO_NOT_CALL,
    END_CALL,
    HOLD,
    PAUSE_RECORDING,
    TAKE_MESSAGE,
    read_call_tool,
    too_early,
)
from app.calls.actions import Action, AppendAudio, ClosingPrompt, End, Intent, PlayAudio
from app.calls.conversation.call_tools import CallTools
from app.calls.conversation.do_not_call import OPTED_OUT, DoNotCall
from app.calls.conversation.first_words import FirstWords
from app.calls.conversation.floor import Floor
from app.calls.conversation.goodbye import Goodbye
from app.calls.conversation.latency import TurnLatency
from app.calls.conversation.message_taking import MessageTaking
from app.calls.conversation.model_watch import ModelWatch
from app.calls.conversation.supervision import Supervision
from app.calls.keypad.consent import KeypadConsent
from app.calls.keypad.keypad import Keypad
from app.calls.keypad.menu import KeypadMap
from app.calls.media.downlink import Downlink
from app.calls.media.false_interruption import FalseInterruption, Interrupted
from app.calls.media.ringback import Ringback
from app.calls.media.uplink import Uplink
from app.calls.outbound.answering import (
    CALLING_NOTE,
    PERSON_NOTE,
    Answering,
    Say,
    Step,
    Withdraw,
)
from app.calls.policy import CallPolicy
from app.calls.recording.notice import RecordingNotice
from app.calls.recording.tape import Tape
from app.calls.turns.meaningful_words import is_echo, meaningful_words
from app.calls.turns.protected_greeting import ProtectedGreeting
from app.calls.turns.timers import CallTimers
from app.calls.turns.turn_table import Turn, TurnEvent, Turns
from app.carrier.base import (
    CallerAudio,
    Dtmf,
    MarkReached,
    StreamEvent,
    StreamStarted,
    StreamStopped,
)
from app.errors import AppError
from app.events import (
    AnsweredBy,
    CallCounters,
    CallId,
    EndReason,
    FirstSound,
    KeyPressed,
    Party,
    StreamOpened,
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

__all__ = ["PROBE_MARK", "Conversation"]


GO_ON: Final = (
    "A noise on the line stopped you in the middle of a sentence; the caller said nothing. Go on "
    "exactly where you stopped, and do not begin anew."
)
STREAM_CHANGED: Final = (
    "The line was changed while you spoke, so the caller has not heard all of it. Go on from where "
    "they stopped hearing you."
)
PROBE_MARK: Final = "probe"
"""No mark of `Playout` is called that: its return is a sign of life and nothing else."""

_ECHO_TURNS: Final = 3


class Conversation:
    """One call between a caller and an agent."""

    def __init__(  # noqa: PLR0913 - facts of the call, by their names, in the one place
        self,
        call_id: CallId,
        agent: Agent,
        policy: CallPolicy,
        now_ms: int,
        *,
        roster: Roster | None = None,
        facts: CallFacts | None = None,
        keypads: Mapping[str, KeypadMap] | None = None,
        tape: Tape | None = None,
        notice: RecordingNotice | None = None,
        placed: bool = False,
    ) -> None:
        """`tape` takes the sound of the call, where it is recorded.

        `notice` is what the other party has to hear first, that of the tape unless given; `placed`:
        we have called, and do not know yet who has answered.
        """
        self.call_id = call_id
        self._tape = tape
        self.policy = policy
        self.counters = CallCounters()
        self.dialogue = Dialogue(agent, call_id, self.counters, roster=roster, facts=facts)
        self.turns = Turns(self.counters, now_ms)
        self.latency = TurnLatency()
        self._first_sound_recorded = False
        self.caller_speech_count = 0
        """Counts how often the caller has begun to speak; a noise does not count."""
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
            tape=tape,
        )
        self._ringback = Ringback()
        self._cut_off_by_stream: ResponseRequest | None = None
        self._supervision = Supervision(self.dialogue)
        self._timers = CallTimers(policy)
        self._notice = notice or (RecordingNotice("") if tape is None else tape.notice)
        self._downlink.notice = self._notice
        self._greeting = ProtectedGreeting(self.dialogue.active, notice=self._notice.pending)
        its_notice = self._notice  # a function that knew the conversation would make a circle
        self._greeting.required = lambda: its_notice.exact and its_notice.pending
        self._answering: Answering | None = None
        if placed and policy.answered_by is not None:
            rules, transcribed = policy.answered_by, agent.transcribed
            self._answering = Answering(call_id, rules, transcribed=transcribed)
            self.dialogue.active.unanswered = True
        self._message_speech_count = 0
        self._placed = placed
        self._model = ModelWatch(call_id, self.dialogue, self.turns, policy)
        self._tools = CallTools(call_id, self.dialogue, self._timers)
        self._do_not_call = DoNotCall(call_id, self.dialogue, self._tools, placed=placed)
        self._goodbye = Goodbye(self.dialogue, self._tools)
        self._consent = KeypadConsent(self.dialogue)
        self._keypad = Keypad(self.dialogue, self._tools, self._consent, keypads or {})
        self._messages = MessageTaking(call_id, self.dialogue, self._tools)
        self._first_words = FirstWords(call_id, self.dialogue, self._notice, self._keypad)
        self.floor = Floor(
            self.turns,
            dialogue=self.dialogue,
            timers=self._timers,
            downlink=self._downlink,
            false_interruption=self._false_interruption,
            model=self._model,
            keypad=self._keypad,
            goodbye=self._goodbye,
            supervision=self._supervision,
            answering=self._answering,
        )
        if tape is not None:
            keypad = self._keypad
            tape.private = lambda: keypad.entering

    # The phone ----------------------------------------------------------------------------------

    def on_stream(self, event: StreamEvent, now_ms: int) -> list[Action]:
        """Take an event of the carrier's media stream."""
        self._uplink.on_sign_of_life(now_ms)
        match event:
            case CallerAudio(payload, timestamp_ms):
                audio = self.on_caller_audio(payload, timestamp_ms, now_ms)
                return [AppendAudio(audio)] if audio else []
            case MarkReached(name):
                if not self._downlink.on_mark(name, now_ms):
                    return []
                # A mark inside of an item, as most are, settles nothing.
                over = self._downlink.item_over(now_ms) or self.floor.heard_out(now_ms)
                return self._on_played(now_ms) if over else []
            case Dtmf(digit):
                return self._on_key(digit, now_ms)
            case StreamStarted():
                return self._on_stream_started(event, now_ms)
            case StreamStopped(hung_up):
                return [End(EndReason.CALLER_HUNG_UP if hung_up else EndReason.CARRIER_LOST)]
            case _:
                assert_never(event)

    def on_caller_audio(self, payload: bytes, timestamp_ms: int, now_ms: int) -> bytes:
        """Take caller audio; what to append at the model, in its format. Fifty times a second."""
        if self._tape is not None:
            self._tape.on_caller(payload, timestamp_ms, now_ms)
        if self._answering is not None:
            self._answering.on_audio(payload)
        return self._uplink.push(payload, timestamp_ms, now_ms)

    def _on_stream_started(self, event: StreamStarted, now_ms: int) -> list[Action]:
        actions: list[Action] = []
        self.floor.end_rest()
        if event.audio_format != self._downlink.carrier_format:
            # Sound that waits for the stream was made for another format: it would be noise.
            actions = self.on_stream_left(now_ms, resumes=True)
        self.latency.on_stream(now_ms)
        self._downlink.on_stream_started(event.audio_format, now_ms)
        self._uplink = Uplink(event.audio_format, self._input_format, self.counters)
        self._uplink.on_sign_of_life(now_ms)
        self._timers.begin(now_ms)
        self._model.on_stream(now_ms)
        if self._answering is not None:
            self._answering.on_stream(now_ms)
        actions += [
            Record(StreamOpened(call_id=self.call_id, at_ms=now_ms)),
            *self._first_sound(now_ms),
        ]
        cut_off, self._cut_off_by_stream = self._cut_off_by_stream, None
        if cut_off is None:
            return actions
        if cut_off.config is None:
            return actions + self._resolve(self.dialogue.prompt(STREAM_CHANGED, now_ms), now_ms)
        return actions + self._resolve(self.dialogue.responses.ask(now_ms, cut_off), now_ms)

    def on_stream_left(self, now_ms: int, *, resumes: bool = False) -> list[Action]:
        """The caller was taken off the stream: cut what they miss; the next one starts anew.

        `resumes`: nobody in this call has asked for it, so the agent says there what is cut here.
        """
        if resumes and (self.turns.turn is Turn.AGENT or self.dialogue.gate.busy):
            self._cut_off_by_stream = self.dialogue.responses.running or REPLY
        actions = [*self.dialogue.drop_response(server_cancels=False), *self._stop_agent(now_ms)]
        self._downlink.on_stream_left()
        self._goodbye.on_caller_acted()
        self._timers.leave()
        self._uplink = Uplink(self._downlink.carrier_format, self._input_format, self.counters)
        return actions

    def _on_key(self, digit: str, now_ms: int) -> list[Action]:
        shown = self._keypad.shown(digit, now_ms)
        if self._tape is not None and shown != digit:
            self._tape.on_secret_key(now_ms)
        pressed = Record(KeyPressed(call_id=self.call_id, at_ms=now_ms, digit=shown))
        self._timers.on_caller_acted(now_ms)
        if self._keypad.absorbs(digit, now_ms):
            return [pressed]
        # A notice that the call is recorded goes on to its end.
        stops_agent = not (self._notice.pending and self._greeting.protects)
        actions: list[Action] = [pressed, *(self._interrupt(now_ms) if stops_agent else [])]
        self._goodbye.on_caller_acted()
        return actions + self._resolve(self._keypad.on_key(digit, now_ms), now_ms)

    # The connection to the model ----------------------------------------------------------------

    def on_voice_ready(self, now_ms: int, expires_in_ms: int | None) -> list[Action]:
        """The model has confirmed its session: greet, or go on where the conversation stands."""
        if not self._model.on_ready(now_ms, expires_in_ms):
            return self._go_on(now_ms)
        if self.floor.held:
            return self._resolve(self.dialogue.tell(CALLING_NOTE), now_ms)
        told = self.dialogue.tell(PERSON_NOTE) if self._placed else []
        return self._resolve([*told, *self._first_words.greet(now_ms)], now_ms)

    def _go_on(self, now_ms: int) -> list[Action]:
        waiting = self.turns.turn is Turn.THINKING or self._model.reply_due
        stands = f"{PERSON_NOTE} {GOING_ON}" if self._placed else GOING_ON
        stands = CALLING_NOTE if self.floor.held else stands
        actions = self._resolve(self.dialogue.on_reconnected(now_ms, stands), now_ms)
        if self.turns.turn is Turn.CALLER:
            # The new session has not heard how this turn began; its own detector takes over.
            self.floor.move(TurnEvent.NO_REPLY, now_ms)
        if self._goodbye.unspoken:
            if not self._goodbye.in_own_words:
                return actions + self._resolve(self._goodbye.say(now_ms), now_ms)
            waiting = True
        # A model that is asked while a tool runs, which it does not know of, would call it again.
        waiting = waiting and not self.dialogue.gate.busy
        self._model.reply_due = waiting and self.dialogue.function_calls.running
        if self._model.reply_due:
            actions += self._resolve(self._consent.ask_again(now_ms), now_ms)
        elif waiting:
            actions += self._resolve(self.dialogue.responses.ask(now_ms), now_ms)
        return actions

    def on_voice_lost(self, now_ms: int) -> list[Action]:
        """The connection broke. What the caller is hearing plays on; the rest is settled later."""
        self.floor.end_rest()
        self._model.on_lost()
        actions = self._downlink.on_voice_lost(now_ms)
        self.dialogue.on_lost()
        self._greeting.on_voice_lost()
        self.counters.voice_reconnects += 1
        return actions

    # The model's events -------------------------------------------------------------------------

    def on_voice(self, event: ServerEvent, now_ms: int) -> list[Action]:
        """Take an event of the voice model."""
        match event:
            case AudioDelta():
                return self._on_audio(event, now_ms)
            case AudioDone(item_id=item_id):
                if self.floor.undecided:
                    self._false_interruption.withhold(event)
                    return []
                return self._downlink.finish(item_id, now_ms)
            case SpeechStarted(item_id=item_id):
                self.dialogue.on_voice(event, now_ms)
                if self.floor.held and (self._greeting.protects or not self._leaves_message):
                    return []
                if self._greeting.on_speech_started():
                    return []
                return self._on_speech_started(item_id, now_ms)
            case SpeechStopped():
                return self._on_speech_stopped(now_ms)
            case InputAudioCommitted():
                actions = self._resolve(self.dialogue.on_voice(event, now_ms), now_ms)
                if self.floor.held:
                    return actions
                # A model that may not interrupt itself answers nobody who speaks over it.
                unanswered = self._greeting.protects and self.dialogue.gate.busy
                if unanswered or not getattr(self._turn_detection, "create_response", True):
                    actions += self._resolve(self.dialogue.responses.ask(now_ms), now_ms)
                return actions
            case ResponseCreated():
                return self._on_response_created(event, now_ms)
            case ResponseDone():
                return self._on_response_done(event, now_ms)
            case OutputItemDone(item=item) if item.type == "function_call":
                # The model acts on what it has heard: it is too late to call that a noise.
                superseded = self._on_decided(self._false_interruption.on_superseded(), now_ms)
                return superseded + self._resolve(self.dialogue.on_voice(event, now_ms), now_ms)
            case TranscriptionDelta() if self.policy.echo_guard:
                return []  # a part of the words does not show yet whose they are
            case TranscriptionDelta(item_id=item_id, delta=delta):
                decided = self._false_interruption.on_partial_transcript(item_id, delta)
                return self._on_decided(decided, now_ms)
            case SessionUpdated(session):
                # A later update can switch the format back: the caller would hear static.
                if session.output_format not in (UNSET, self._output_format):
                    return self._resolve([GiveUp(code="format_mismatch", retryable=False)], now_ms)
                return self._resolve(self.dialogue.on_voice(event, now_ms), now_ms)
            case TranscriptionCompleted() | TranscriptionFailed():
                return self._on_transcript(event, now_ms)
            case _:
                return self._resolve(self.dialogue.on_voice(event, now_ms), now_ms)

    def pause_ms(self) -> int:
        """The silence that proves to the model that a turn is over; 0 where it does not say."""
        pause_ms: int = getattr(self._turn_detection, "silence_duration_ms", 0)
        return pause_ms

    @property
    def _turn_detection(self) -> object:
        """The model's turn detection, which may change with the agent."""
        return self.dialogue.active.agent.session.turn_detection

    def _on_audio(self, event: AudioDelta, now_ms: int) -> list[Action]:
        if not event.audio:
            return []
        if self.dialogue.is_stale(event.response_id):
            self._note_dropped(event.audio)
            return []
        if self._false_interruption.undecided:
            self._false_interruption.withhold(event)
            return []
        if self._downlink.too_far_ahead(now_ms):
            return self._cut_short(event, now_ms)
        self._notice.on_sound(event.response_id, event.item_id)
        if self.turns.turn is not Turn.AGENT:
            self.latency.on_agent_audio(now_ms)
            self.floor.move(TurnEvent.FIRST_AUDIO, now_ms)
            return [*self._first_sound(now_ms), *self._downlink.push(event, now_ms)]
        if not self._greeting.double_talk:
            self.floor.go_on_resting(now_ms)
        return self._downlink.push(event, now_ms)

    def _note_dropped(self, audio: bytes) -> None:
        whole = len(audio) - len(audio) % self._output_format.bytes_per_sample
        self.counters.stale_audio_dropped_ms += self._output_format.bytes_to_ms(whole)

    def _cut_short(self, event: AudioDelta, now_ms: int) -> list[Action]:
        """End a response that has no end; what waits is played."""
        self._note_dropped(event.audio)
        if not self.dialogue.gate.runs(event.response_id):
            return []
        cut = [*self.dialogue.drop_response(server_cancels=False)]
        return [*cut, *self._downlink.finish(event.item_id, now_ms)]

    def _first_sound(self, now_ms: int) -> list[Action]:
        """Record the first sound, once there is one and a stream for it."""
        after_ms = self.latency.answer_to_first_audio_ms
        if self._first_sound_recorded or after_ms is None:
            return []
        self._first_sound_recorded = True
        return [Record(FirstSound(call_id=self.call_id, at_ms=now_ms, after_ms=after_ms))]

    def _on_response_created(self, event: ResponseCreated, now_ms: int) -> list[Action]:
        asked_for = self.dialogue.gate.busy
        self._model.on_response_created()
        actions = self._resolve(self.dialogue.on_voice(event, now_ms), now_ms)
        if self.taken_over and not self._goodbye.begun:
            return [*actions, *self.dialogue.drop_response(server_cancels=False)]
        self._notice.on_response(event.response.id, self.dialogue.responses.sentence)
        if not asked_for and (self.floor.held or self._false_interruption.answers_noise()):
            actions += self.dialogue.drop_response(server_cancels=False)
        return actions

    def _on_response_done(self, event: ResponseDone, now_ms: int) -> list[Action]:
        return (
            [] if self._downlink.keep_end(event, now_ms) else self._on_response_over(event, now_ms)
        )

    def _take_early_end(self, now_ms: int) -> list[Action]:
        event = self._downlink.take_end(now_ms)
        return [] if event is None else self._on_response_over(event, now_ms)

    def _on_response_over(self, event: ResponseDone, now_ms: int) -> list[Action]:
        actions: list[Action] = []
        if self._downlink.is_inaudible(event.response):
            event, actions = self._take_back(event.response, now_ms)
        for item in event.response.output:
            if item.id and item.type == "message" and not self.floor.undecided:
                actions += self._downlink.finish(item.id, now_ms)
        if event.response.status is ResponseStatus.COMPLETED:
            self._first_words.on_generated(event.response)
        stale = self.dialogue.is_stale(event.response.id)
        runs = self.dialogue.gate.runs(event.response.id)
        cancelled = event.response.status is ResponseStatus.CANCELLED
        actions += self._resolve(self.dialogue.on_voice(event, now_ms), now_ms)
        if not self.dialogue.gate.busy:
            self._goodbye.on_response_done()
        # One that nobody knows, or that the server cancelled by itself, leaves the caller waiting.
        # Nor has one that the connection is given up for answered anything.
        given_up = any(isinstance(action, GiveUp) for action in actions)
        if stale or (runs and not cancelled and not given_up):
            self.floor.on_no_reply(now_ms)
        return actions + self._on_played(now_ms)

    def _take_back(self, response: Response, now_ms: int) -> tuple[ResponseDone, list[Action]]:
        """Remove what could not be heard: it counts as a response that failed."""
        deleted = self._downlink.take_back(response)  # first: none of it becomes a transcript
        actions = self._stop_agent(now_ms) if self._downlink.plays_only(response) else []
        actions += deleted
        error = ErrorDetail(code="inaudible_response")
        failed = replace(response, status=ResponseStatus.FAILED, output=(), error=error)
        return ResponseDone(failed), actions

    # The caller's speech ------------------------------------------------------------------------

    def _on_speech_started(self, item_id: str, now_ms: int) -> list[Action]:
        if not self.floor.undecided:
            self._goodbye.on_caller_speech()
        self.dialogue.responses.forget()
        server_cancels = bool(getattr(self._turn_detection, "interrupt_response", False))
        # Without transcripts a cough cannot be told from a word.
        tracked = self.dialogue.active.agent.transcribed and not self._goodbye.begun
        actions = self._downlink.interrupt(
            now_ms, server_cancels=server_cancels, sound_id=item_id if tracked else None
        )
        self._false_interruption.on_speech_started(item_id)
        if not self.floor.undecided:
            self.caller_speech_count += 1
        self.floor.move(TurnEvent.SPEECH_STARTED, now_ms)
        return [*actions, *self._lines(now_ms)]

    def _on_speech_stopped(self, now_ms: int) -> list[Action]:
        self.counters.turns += 1
        if not self.dialogue.active.agent.transcribed:
            self._model.on_caller_words(in_doubt=True)
        if not self.dialogue.active.agent.transcribed:
            self._timers.on_caller_acted(now_ms)
        if self._greeting.on_speech_stopped() or (self.floor.held and not self._leaves_message):
            return []
        # The model's word comes after the pause that proved it; the caller waits from before.
        self.latency.on_caller_stopped(now_ms - self.pause_ms())
        self._model.on_caller_stopped(now_ms, self.pause_ms())
        self.floor.move(TurnEvent.SPEECH_STOPPED, now_ms)
        if self.taken_over:
            self.floor.move(TurnEvent.NO_REPLY, now_ms)  # a person answers
        return self._on_decided(self._false_interruption.on_speech_stopped(now_ms), now_ms)

    def _on_transcript(
        self, event: TranscriptionCompleted | TranscriptionFailed, now_ms: int
    ) -> list[Action]:
        actions = self._resolve(self.dialogue.on_voice(event, now_ms), now_ms)
        words = event.transcript.strip() if isinstance(event, TranscriptionCompleted) else ""
        if self._answering is not None:
            self._answering.on_words(event.item_id, words, now_ms)
        if self.policy.echo_guard and is_echo(words, self._last_said()):
            words = ""
        if isinstance(event, TranscriptionCompleted):
            self._timers.on_caller_words(words, now_ms)
        else:
            self._timers.on_caller_acted(now_ms)  # in doubt it was a caller
        if meaningful_words(words):
            self._model.on_caller_words()
            noted = self._do_not_call.on_words(event.item_id, words, now_ms)
            actions += noted
            if noted and not self.floor.held:  # else it is confirmed in place of the greeting
                actions += self._resolve(self.dialogue.prompt(OPTED_OUT, now_ms), now_ms)
            self._messages.on_caller_words(event.item_id, words)
            actions += self._resolve(self._keypad.on_caller_words(now_ms), now_ms)
        decided = self._false_interruption.on_transcript(event.item_id, words)
        if decided is not None:
            actions += self._on_decided(decided, now_ms)
        elif self._false_interruption.interrupts_late(event.item_id, words):
            actions += self._interrupt(now_ms)
            actions += self._resolve(self.dialogue.responses.ask(now_ms), now_ms)
        elif words or self.floor.undecided or self._model.answer_due:
            pass
        elif isinstance(event, TranscriptionFailed):
            pass  # in doubt it was a caller
        elif self.turns.turn is Turn.THINKING and not self.dialogue.gate.busy:
            self.floor.move(TurnEvent.NO_REPLY, now_ms)  # a noise: it gets no answer
        return [*actions, *self._lines(now_ms)]

    def _lines(self, now_ms: int) -> list[Action]:
        """Transcript lines that are settled, behind the proof of a notice that is among them.

        A process that dies between two records has kept the first: never words without their proof.
        """
        return [*self._first_words.prove(now_ms), *self.dialogue.lines(now_ms)]

    def _last_said(self) -> str:
        """The agent's last words, also those of a turn that was cut off."""
        said = [e.text for e in self.dialogue.transcript.messages() if e.party is Party.AGENT]
        return " ".join(said[-_ECHO_TURNS:])

    def _on_decided(self, outcome: Interrupted | None, now_ms: int) -> list[Action]:
        """It is known, or not yet, whether the sound that cut the agent off was the caller."""
        if outcome is None:
            return []
        if outcome is Interrupted.FALSE:
            self.counters.turns -= 1
            self.latency.forget_caller()
            self._goodbye.on_false_interruption(now_ms)
            self.floor.move(TurnEvent.FIRST_AUDIO, now_ms)
            return self._downlink.resume(now_ms)
        self.caller_speech_count += 1
        actions: list[Action] = []
        withheld = self._downlink.confirm_interruption()
        for event in withheld:
            actions += self.on_voice(event, now_ms)
        if self.dialogue.gate.active_response_id is None:
            for item_id in dict.fromkeys(event.item_id for event in withheld):
                actions += self._downlink.finish(item_id, now_ms)
        return actions + self._on_played(now_ms)

    # The agent's speech -------------------------------------------------------------------------

    def say(self, text: str, now_ms: int, *, mode: SayMode, when: SayWhen) -> list[Action]:
        """Have something said that neither side has asked for."""
        return self._resolve(self.dialogue.say(text, now_ms, mode=mode, when=when), now_ms)

    def instruct(self, text: str, now_ms: int) -> list[Action]:
        """Tell the model something that neither side has said, and have it speak."""
        return self._resolve(self.dialogue.prompt(text, now_ms), now_ms)

    def interrupt(self, now_ms: int) -> list[Action]:
        """Stop the agent for an operator, with everything that it was to say next."""
        self.dialogue.responses.forget_all()
        dropped = self.dialogue.drop_response(server_cancels=False)
        return [*dropped, *self._stop_agent(now_ms)]

    # The supervisor -----------------------------------------------------------------------------

    @property
    def taken_over(self) -> bool:
        """A person speaks to the caller in the agent's place."""
        return self._supervision.taken_over

    def whisper(self, text: str) -> list[Action]:
        """Tell the agent something that the caller does not hear; it says nothing because of it."""
        return [*self._supervision.whisper(text)]

    def take_over(self, now_ms: int) -> list[Action]:
        """A person speaks from now on: the agent falls silent, and listens."""
        listens = self._supervision.take_over(now_ms)
        actions = self.interrupt(now_ms)
        if self.turns.turn is Turn.THINKING:
            self.floor.move(TurnEvent.NO_REPLY, now_ms)
        return [*actions, *listens]

    def hand_back(self, now_ms: int) -> list[Action]:
        """The agent speaks again, and is told what it has missed."""
        return self._resolve(self._supervision.hand_back(now_ms), now_ms)

    def on_supervisor_audio(self, audio: bytes, now_ms: int) -> list[Action]:
        """Play the person's voice, mu-law at 8 kHz, to the caller; nothing unless they speak."""
        if not self.taken_over:
            return []
        sound = self._supervision.sound(audio, self._downlink.carrier_format)
        return self._downlink.play_tone(sound, now_ms)

    def say_goodbye(self, closing: ClosingPrompt, now_ms: int) -> list[Action]:
        """Have the closing prompt said, and end the call when it was heard (or cannot be)."""
        if self._goodbye.begun:
            return []
        self._goodbye.begin(closing, now_ms)
        end = End(closing.reason, closing.detail)
        if self.latency.stream_ms is None:
            return [end]
        if not self._model.ready:
            return [self._goodbye.instead_of(end)]
        if not closing.text:
            return [*self._interrupt(now_ms), end]
        return self._interrupt(now_ms) + self._resolve(self._goodbye.say(now_ms), now_ms)

    def warn_of_end(self, now_ms: int) -> list[Action]:
        """The call will be over soon, for a reason that nobody in it knows of."""
        warning = None if self._goodbye.begun else self._timers.last_minute()
        if warning is None:
            return []
        return self._resolve(self.dialogue.say(warning.text, now_ms), now_ms)

    def on_cost(self, cost_usd: float, now_ms: int) -> list[Action]:
        """The call has cost so much by now."""
        due = None if self._goodbye.begun else self._timers.on_cost(cost_usd, now_ms)
        if due is None:
            return []
        if isinstance(due, ClosingPrompt):
            return self.say_goodbye(due, now_ms)
        return self._resolve(self.dialogue.say(due.text, now_ms), now_ms)

    def _on_played(self, now_ms: int) -> list[Action]:
        """Something more was heard: settle items, and give the floor back when all is."""
        actions = self._downlink.settle(now_ms)
        if self._downlink.heard_an_item:
            actions += self._greeting.lift()
        if self.floor.heard_out(now_ms):
            if self.turns.turn is Turn.AGENT:
                self.floor.move(TurnEvent.DRAINED, now_ms)
            ended = self._goodbye.on_heard_out()
            actions += ended
            if not ended and self._false_interruption.take_unfinished():
                actions += self._resolve(self.dialogue.prompt(GO_ON, now_ms), now_ms)
        if self._greeting.take_double_talk():
            self.caller_speech_count += 1
            self.floor.move(TurnEvent.SPEECH_STARTED, now_ms)  # which they did long ago
        return [*self._lines(now_ms), *actions]

    def _interrupt(self, now_ms: int) -> list[Action]:
        """Stop the agent for a key or a prompt, which a noise cannot have caused."""
        stopped = self._downlink.interrupt(now_ms, server_cancels=False)
        return [*stopped, *self._lines(now_ms), *self._greeting.lift()]

    def _stop_agent(self, now_ms: int) -> list[Action]:
        """Stop the agent without the caller's doing; its response has been dropped already."""
        stopped = self._downlink.stop(now_ms)
        actions = [*stopped, *self._lines(now_ms), *self._greeting.lift()]
        if self.turns.turn is Turn.AGENT:
            self.floor.move(TurnEvent.DRAINED, now_ms)
        return actions

    # Tools and guardrails -----------------------------------------------------------------------

    def on_tool_done(
        self, tool_call_id: str, output: str, now_ms: int, *, reply: bool = True
    ) -> list[Action]:
        """A tool answered: the model hears of it, and speaks when all of its tools have."""
        asked = self._consent.on_tool_done(tool_call_id, now_ms)
        reply = (reply or self._model.reply_due) and not self._goodbye.said
        reply = reply and not self.taken_over
        done = self.dialogue.function_calls.on_tool_done(tool_call_id, output, now_ms, reply=reply)
        actions = self._resolve([*asked, *done], now_ms)
        self.floor.on_no_reply(now_ms)  # a tool may have nothing to say
        return actions

    def on_tool_slow(self, tool_call_id: str, filler: str, now_ms: int) -> list[Action]:
        """A tool takes its time: say so to a caller who waits in silence."""
        listens = self._timers.present and self._downlink.drained(now_ms)
        if self.turns.turn is Turn.CALLER or not listens or self._goodbye.begun or self.taken_over:
            return []
        said = self.dialogue.function_calls.on_tool_slow(tool_call_id, filler, now_ms)
        return self._resolve(said, now_ms)

    def on_consent_wanted(self, tool_call_id: str, prompt: str, now_ms: int) -> list[Action]:
        """A tool needs the caller's consent by keypad: the next key counts."""
        return self._resolve(self._consent.on_wanted(tool_call_id, prompt, now_ms), now_ms)

    def on_guardrail_result(
        self, check: CheckGuardrail, result: GuardrailResult, now_ms: int
    ) -> list[Action]:
        """The guardrails have looked at something that was said."""
        return self._resolve(self.dialogue.on_guardrail_result(check, result, now_ms), now_ms)

    def _run_call_tool(self, run: RunTool, now_ms: int) -> list[Action]:
        spoken = self.turns.turn is Turn.AGENT
        runs: Mapping[str, Callable[[RunTool, Mapping[str, Any], int, bool], Sequence[Intent]]] = {
            END_CALL: self._end_call,
            COLLECT_DIGITS: self._keypad.collect,
            DO_NOT_CALL: self._do_not_call.run,
            HOLD: self._tools.hold,
            PAUSE_RECORDING: self._pause_recording,
            TAKE_MESSAGE: self._messages.take,
        }
        try:
            arguments = read_call_tool(run.name, run.arguments)
            intents = runs[run.name](run, arguments, now_ms, spoken)
        except AppError as error:
            intents = self._tools.refuse(run, error, now_ms)
        actions = self._resolve(intents, now_ms)
        self.floor.on_no_reply(now_ms)
        return actions

    def on_messages_checked(self, run: RunTool, now_ms: int, *, can_keep: bool) -> list[Action]:
        """It is known whether a message that was begun can be kept."""
        actions = self._resolve(self._messages.on_checked(run, now_ms, can_keep=can_keep), now_ms)
        self.floor.on_no_reply(now_ms)
        return actions

    def _pause_recording(
        self, run: RunTool, arguments: Mapping[str, Any], now_ms: int, spoken: bool
    ) -> Sequence[Intent]:
        if self._tape is None:
            answer = {"ok": True, "note": "This call is not being recorded."}
        else:
            self.pause_recording(now_ms, paused=arguments["paused"])
            answer = {"ok": True, "recording": "paused" if self._tape.paused else "goes on"}
        return self._tools.answer(run, answer, now_ms, reply=not spoken)

    def pause_recording(self, now_ms: int, *, paused: bool) -> None:
        """Record silence from now on, or sound again."""
        self._downlink.record(now_ms)  # what was heard until now is kept, or not, as it was then
        if self._tape is not None:
            self._tape.paused = paused

    def _end_call(
        self, run: RunTool, arguments: Mapping[str, Any], now_ms: int, spoken: bool
    ) -> Sequence[Intent]:
        if not (self.counters.turns or self._keypad.used):
            raise too_early()
        return self._goodbye.on_end_call(run, arguments["reason"], now_ms, spoken=spoken)

    def _resolve(self, intents: Sequence[Intent], now_ms: int) -> list[Action]:
        """Make actions of what a part asks for: some of it is done here."""
        self.floor.end_rest()
        actions: list[Action] = []
        for intent in intents:
            if isinstance(intent, Interrupt):
                actions += self._stop_agent(now_ms)
            elif isinstance(intent, RunTool) and self._tools.runs(intent):
                actions += self._run_call_tool(intent, now_ms)
            elif isinstance(intent, ClosingPrompt):
                actions += self.say_goodbye(intent, now_ms)
            else:
                actions.append(intent)
        if self.turns.turn is Turn.IDLE and self.dialogue.gate.busy:
            self.floor.move(TurnEvent.ASKED, now_ms)
        return actions

    # Time ---------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int, *, ringing: bool = False) -> list[Action]:
        """Walk through `_TICK` up to a step that ends the call; call it some times a second.

        `ringing`: somebody is being called for the caller, who waits here.
        """
        if self.floor.rests(now_ms) and not ringing:
            return []
        self.floor.ringing = ringing
        actions: list[Action] = []
        for step in self._TICK:
            wanted = step(self, now_ms)
            if wanted:  # hardly ever
                actions += wanted
                if any(isinstance(action, End) for action in wanted):
                    break
        # Behind the steps, since what they ask for ends a rest, as do events of any other kind than
        # sound and marks.
        if not actions and self.floor.may_rest(now_ms, self._uplink):
            self.floor.rest(now_ms)
        return actions

    def _fill_uplink(self, now_ms: int) -> list[Action]:
        speaking = self.turns.turn is Turn.CALLER or self._greeting.double_talk
        filled = self._uplink.on_tick(now_ms, speaking=speaking)
        return [AppendAudio(filled)] if filled else []

    def _watch_stream(self, now_ms: int) -> list[Action]:
        if self._uplink.quiet_ms(now_ms) >= self.policy.stream_lost_ms:
            return [End(EndReason.CARRIER_LOST, "stream_silent")]
        # A carrier that is there returns a mark at once.
        due = self._uplink.probe_due(now_ms, self.policy.stream_probe_ms)
        return [PlayAudio(b"", PROBE_MARK)] if due else []

    def _decide_interruption(self, now_ms: int) -> list[Action]:
        return self._on_decided(self._false_interruption.on_tick(now_ms), now_ms)

    def _settle_playout(self, now_ms: int) -> list[Action]:
        if self.turns.turn is Turn.AGENT or self._goodbye.begun:
            return self._on_played(now_ms)
        return self._lines(now_ms)

    def _limit_goodbye(self, now_ms: int) -> list[Action]:
        playing = not self._downlink.drained(now_ms)
        return [*self._goodbye.on_tick(now_ms, self.policy.goodbye_max_ms, playing=playing)]

    def _watch_keypad(self, now_ms: int) -> list[Action]:
        heard_out = self.turns.turn is Turn.IDLE and self.floor.heard_out(now_ms)
        kept = self._messages.on_heard_out(now_ms) if heard_out else []
        keyed = self._keypad.on_tick(now_ms, heard_out=heard_out)
        return self._resolve([*kept, *keyed], now_ms)

    def _run_timers(self, now_ms: int) -> list[Action]:
        if self._goodbye.begun:
            return []
        busy = self.floor.update_timers(now_ms)
        due = self._timers.on_tick(now_ms, busy=busy)
        if due is None:
            return []
        if isinstance(due, ClosingPrompt):
            return self.say_goodbye(due, now_ms)
        return self._resolve(self.dialogue.say(due.text, now_ms), now_ms)

    def _watch_model(self, now_ms: int) -> list[Action]:
        actions: list[Action] = []
        if self._model.connected:
            actions += self._resolve(self.dialogue.on_tick(now_ms), now_ms)
            if actions and self.dialogue.gate.busy:
                self._model.on_asked_again(now_ms)
        audible_ms = self._downlink.last_audible_ms(now_ms)
        watched = self._model.on_tick(
            now_ms,
            waits=self.floor.caller_waits(self._uplink),
            loud=not self._uplink.hushed,
            audible_ms=audible_ms,
        )
        watched = [self._goodbye.instead_of(i) if isinstance(i, End) else i for i in watched]
        return actions + self._resolve(watched, now_ms)

    # A call that was placed ---------------------------------------------------------------------

    def on_carrier_detected(self, word: str) -> None:
        """The carrier's detector of machines has come to a result, as it spells it."""
        if self._answering is not None:
            self._answering.on_carrier(word)

    @property
    def answered_by(self) -> AnsweredBy:
        """The verdict so far about who has answered."""
        return AnsweredBy.UNKNOWN if self._answering is None else self._answering.verdict

    @property
    def _leaves_message(self) -> bool:
        return self._answering is not None and self._answering.leaves_message

    def _detect_answer(self, now_ms: int) -> list[Action]:
        answering = self._answering
        if answering is None or self._goodbye.begun or self.taken_over:
            return []
        if self._leaves_message and self.caller_speech_count > self._message_speech_count:
            answering.on_interrupted(now_ms)
        heard_out = (
            self.floor.heard_out(now_ms)
            and not self.floor.undecided
            and not self.dialogue.gate.busy
            and not self.dialogue.responses.waits_to_reply
        )
        steps = answering.on_tick(now_ms, ready=self._model.connected, heard_out=heard_out)
        return [action for step in steps for action in self._take_step(step, now_ms)]

    def _take_step(self, step: Step, now_ms: int) -> list[Action]:
        if isinstance(step, Withdraw):
            held = self.dialogue.active.hold_answers()
            stopped = self.interrupt(now_ms)
            if self.turns.turn in (Turn.CALLER, Turn.THINKING):
                self.floor.move(TurnEvent.NO_REPLY, now_ms)
            return stopped if held is None else [held, *stopped]
        if isinstance(step, Say):
            self._message_speech_count = self.caller_speech_count
        opted_out = self._do_not_call.asked
        said = self._first_words.on_answered(step, now_ms, opted_out=opted_out)
        return self._resolve(said, now_ms)

    # Words that have to be heard ----------------------------------------------------------------

    @property
    def _may_say_notice(self) -> bool:
        """Somebody is there who may hear it: in a call that we placed, not before it was begun."""
        return not self.floor.held or self._notice.tries > 0

    def _say_what_waits(self, now_ms: int) -> list[Action]:
        quiet = self.floor.quiet() and not self.dialogue.function_calls.running
        if not quiet or not self._model.ready or self._goodbye.begun or self.taken_over:
            return []
        if self._notice.pending and self._timers.present and self._may_say_notice:
            # It was cut off, by a lost connection or by something more urgent; or not said.
            said = self._first_words.say_notice(now_ms)
            if said:
                return self._resolve(said, now_ms)
        on_hold = self._timers.on_hold(now_ms)
        return self._resolve(self.dialogue.responses.on_quiet(now_ms, on_hold=on_hold), now_ms)

    def _ring(self, now_ms: int) -> list[Action]:
        transfer_rings = self.floor.ringing and self.turns.turn is not Turn.CALLER
        ringing = transfer_rings or (self._answering is None and self._model.rings(now_ms))
        if not ringing or not self.floor.heard_out(now_ms):
            self._ringback.stop()
            return []
        sound = self._ringback.on_tick(now_ms, self._downlink.carrier_format)
        return self._downlink.play_tone(sound, now_ms) if sound else []

    def _record_heard(self, now_ms: int) -> list[Action]:
        self._downlink.record(now_ms)
        return []

    _TICK: ClassVar[tuple[Callable[[Conversation, int], Sequence[Action]], ...]] = (
        _fill_uplink,  # first: a turn whose sound has stalled can only end by silence
        _watch_stream,  # without a carrier nothing below is heard
        _take_early_end,  # the steps below ask whether a response runs
        _decide_interruption,  # what is resumed here plays on, and is not drained below
        _settle_playout,  # marks that never come back: the steps below ask what was heard
        _limit_goodbye,  # behind that: a goodbye that was heard ends the call by its own reason
        _detect_answer,  # behind the playout: whether all of a message was heard
        _watch_keypad,  # time for keys and messages runs from when all was heard
        _run_timers,  # behind the keypad: a caller who is to press a key is not asked anything
        _watch_model,  # behind the timers: what they have said keeps a reply from being late
        _say_what_waits,  # only what has been left quiet by all of the above
        _ring,  # any words come before the tone
        _record_heard,
    )

    def on_call_over(self, now_ms: int) -> list[Action]:
        """Settle the transcript at what the caller has heard."""
        self._downlink.on_call_over(now_ms)
        messages, proof = self._messages.on_call_over(now_ms), self._first_words.prove(now_ms)
        return [*messages, *proof, *self.dialogue.on_call_over(now_ms)]
