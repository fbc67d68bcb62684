"""One call: task groups around a `Conversation`.

A call connects the caller leg with the voice loop, ticks, and carries out the conversation's
actions. Any end - of a leg, by a limit, by an error - ends all of it: no task, socket or model
connection survives its call. The only way out is an `EndReason`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, assert_never

from app import logs
from app.agents.dialogue.actions import GiveUp, Record, RunTool, ToVoice
from app.agents.dialogue.messages import SayMode, SayWhen
from app.agents.dialogue.voice_loop import VoiceLoop
from app.agents.dialogue.voice_outbox import VoiceOutbox
from app.agents.guardrails.rules import CheckGuardrail
from app.agents.instructions import CallFacts
from app.agents.tools.tool import Approval
from app.calls.actions import (
    Action,
    AppendAudio,
    CheckMessages,
    Clear,
    ClosingPrompt,
    Decide,
    End,
    PlayAudio,
    RenewVoice,
    TransferCall,
)
from app.calls.background_work import BackgroundWork
from app.calls.billing import CallBill
from app.calls.caller_leg import CLOSE_S, LOST, CallerLeg, CallerState, Monitor
from app.calls.conversation.conversation import Conversation
from app.calls.hang_up import HangUpDeadline, close_caller_leg, contain, contained, settled_end
from app.calls.model_input import model_input
from app.calls.recording.call_recording import CallRecording
from app.calls.recording.notice import RecordingNotice
from app.calls.recording.recorder import Recorder
from app.calls.recording.tape import Tape
from app.calls.route import Route
from app.calls.ticker import Ticker
from app.calls.transfer.consult_leg import TransferControl
from app.calls.transfer.transfers import Transfers
from app.calls.turn_timer import TurnTimer
from app.carrier.base import CallControl, CallProgress, IncomingCall, MediaStream
from app.errors import CarrierError, ToolError, VoiceError, VoiceRefused
from app.events import (
    CallEnded,
    CallEvent,
    CallId,
    CallSummary,
    CarrierReported,
    Cost,
    EndReason,
    OperatorActed,
    StreamOpened,
    VoiceReady,
    VoiceReconnecting,
    VoiceTrouble,
)
from app.realtime.connection import Room, VoiceConnection
from app.realtime.events import AudioDelta, ServerEvent
from app.tasks import CancellableGroup, Event

__all__ = ["LOST", "Call"]


logger = logging.getLogger(__name__)

COST_EVERY_MS: Final = 2_000
_TRANSFER_OUTLASTS: Final = frozenset(
    {EndReason.DRAINED, EndReason.MAX_DURATION, EndReason.MAX_COST}
)
"""Ends that do not part a caller from the person they were transferred to."""
LONGEST_MS: Final = 86_400_000
"""Longest call with the caller away, where no limit is set: a day."""
LOOK_EVERY_MS: Final = 300_000
"""Time between two questions to the carrier whether a call goes on whose caller is away: the report
of its end may be lost."""


class Call:
    """A live call, from its admission to its last event."""

    def __init__(  # noqa: PLR0913 - its means, by their names, in the one place that makes calls
        self,
        call_id: CallId,
        incoming: IncomingCall,
        route: Route,
        *,
        carrier: CallControl,
        record: Callable[[CallEvent], None],
        issue_token: Callable[[], str],
        take_sms: Callable[[], bool],
        ticker: Ticker,
        recorder: Recorder | None = None,
        on_spent: Callable[[float], None] = lambda usd: None,
    ) -> None:
        """`issue_token` makes the token that the call's next media stream brings.

        `take_sms` counts a text message; False when it may not be sent. `recorder` is there where
        calls can be recorded; the route says which of them are. `on_spent` takes the US dollars
        that the call has cost since it was last called.
        """
        self.call_id = call_id
        self.incoming = incoming
        self._route = route
        self._carrier = carrier
        self._on_record = record
        self._timer = TurnTimer(call_id, record)
        self._on_spent = on_spent
        self._spent_usd = 0.0
        self._cost = Cost()
        self._cost_at_ms = self._looked_ms = 0
        self._bill = CallBill(route.price, incoming.direction, carried=incoming.carried)
        self._ticker = ticker
        self._began_ns = time.monotonic_ns()
        self._started_at = time.time()
        agent, policy = route.agent, route.policy
        self.recording: CallRecording | None = None
        self._conversation = self._make_conversation(recorder)
        self._work = BackgroundWork(
            self._conversation,
            record=self._record,
            perform=self._perform,
            now_ms=self._now_ms,
            analysis=route.analysis,
        )
        self.tools = self._work.tools
        counters = self._conversation.counters
        self._to_voice = VoiceOutbox(agent.input_format, policy.uplink_max_ms, counters)
        self._caller_leg = CallerLeg(
            self._conversation,
            self._timer,
            max_ms=policy.downlink_max_ms,
            perform=self._perform,
            append=self._append,
            end=self.end,
            now_ms=self._now_ms,
            claim_ms=policy.claim_deadline_ms,
        )
        self._transfers = self._make_transfers(issue_token, take_sms)
        self._deadline = HangUpDeadline()
        self._end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        self._over = Event()
        self._session_id = ""
        self._voice = VoiceLoop(
            route.model,
            self._conversation.dialogue,
            self._to_voice.take,
            self,
            budget_s=policy.voice_budget_ms / 1000,
        )
        self._tasks: asyncio.TaskGroup | None = None
        self._last_status: dict[str, Any] | None = None  # of a call that has let go of its parts

    def _make_conversation(self, recorder: Recorder | None) -> Conversation:
        """Make the call's decisions and, where it is recorded, the recording that hears them."""
        incoming, route, policy = self.incoming, self._route, self._route.policy
        facts = CallFacts(
            call_id=self.call_id,
            caller_number=incoming.caller_number or None,
            called_number=incoming.called_number or None,
            caller_verified=incoming.caller_verified,
            started_at=self._started_at,
            variables=route.variables,
        )
        wanted = policy.recording if recorder is not None else None
        placed = incoming.direction == "outbound"
        disclosure = policy.disclosure.placed if placed else policy.disclosure.taken
        notice_texts = (disclosure, "" if wanted is None else wanted.notice)
        notice = RecordingNotice(" ".join(filter(None, notice_texts)), exact=bool(disclosure))
        tape = None if wanted is None else Tape(notice)
        if recorder is not None and tape is not None:
            self.recording = CallRecording(
                self.call_id,
                tape,
                recorder,
                facts={"admitted_at": self._started_at},
                record=self._record,
                now_ms=self._now_ms,
            )
        return Conversation(
            self.call_id,
            route.agent,
            policy,
            0,
            roster=route.roster,
            facts=facts,
            keypads=route.keypads,
            tape=tape,
            notice=notice,
            placed=placed,
        )

    def _make_transfers(
        self, issue_token: Callable[[], str], take_sms: Callable[[], bool]
    ) -> Transfers:
        return Transfers(
            self.call_id,
            self.incoming,
            TransferControl(
                carrier=self._carrier,
                destinations=self._route.destinations,
                issue_token=issue_token,
                take_sms=take_sms,
                fallback=self._route.fallback_of(self.incoming),
                claim_ms=self._route.policy.claim_deadline_ms,
                hear_out_ms=self._route.policy.goodbye_max_ms,
                now_ms=self._now_ms,
                end=self.end,
                record=self._record,
                on_sms=self._bill.on_sms,
            ),
            self._caller_leg,
            heard_out=self._heard_out,
            caller_speech_count=lambda: self._conversation.caller_speech_count,
        )

    # The outside --------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        return self._over.is_set()

    @property
    def age_ms(self) -> int:
        """Milliseconds since the call's admission."""
        return self._now_ms()

    @property
    def ending(self) -> bool:
        """The call is over, or has nothing left to do but close what is open."""
        return self._end.done()

    async def attach(self, stream: MediaStream) -> None:
        """Attach a media stream to the call, and wait until its socket may go."""
        if self.ending:
            stream.close(LOST)  # the markup behind the stream speaks to the caller
            return
        await self._caller_leg.attach(stream)

    def on_asked_again(self, token: str) -> None:
        """The carrier has asked for the call's document again: its stream, with this token, takes
        the caller from wherever they are.
        """
        if not self._end.done():
            self._transfers.on_caller_taken_back(token)
            self._caller_leg.expect_successor(self._route.policy.claim_deadline_ms)

    def end(self, reason: EndReason, detail: str = "") -> None:
        """End the call now. The first reason counts."""
        if not self._end.done():
            if self._caller_leg.away and reason in _TRANSFER_OUTLASTS:
                # People are talking with each other: the carrier needs us for nothing.
                reason, detail = EndReason.TRANSFERRED, reason.value
            elif reason is EndReason.CALLER_HUNG_UP and (
                destination := self._transfers.connected_to
            ):
                reason, detail = EndReason.TRANSFERRED, destination
            self._end.set_result(End(reason, detail))

    def cut_off(self, *, ending_too: bool = True) -> None:
        """End the call without a goodbye: the process is about to stop.

        `ending_too`: hurry a call that is ending already as well.
        """
        if ending_too or not self._end.done():
            self._deadline.hurry()
        self.end(EndReason.DRAINED)

    def warn_of_end(self) -> None:
        """Warn the caller that the call ends soon."""
        if not self._end.done():
            with contained("warning"):
                self._perform(self._conversation.warn_of_end(self._now_ms()))

    def say_goodbye(self, reason: EndReason) -> None:
        """End the call after a spoken goodbye, if the agent can still speak."""
        if self._end.done():
            return
        if self._caller_leg.away:
            self.end(reason)
        else:
            now_ms = self._now_ms()
            with contained("goodbye"):
                closing = ClosingPrompt(reason, self._route.policy.closing_prompt)
                self._perform(self._conversation.say_goodbye(closing, now_ms))
                return
            self.end(EndReason.INTERNAL_ERROR, "goodbye")

    def say(
        self,
        text: str,
        *,
        mode: SayMode = SayMode.VERBATIM,
        when: SayWhen = SayWhen.AFTER_TURN,
    ) -> None:
        """Have the agent say a text that neither side has asked for."""
        if not self._end.done():
            self._perform(self._conversation.say(text, self._now_ms(), mode=mode, when=when))

    def note_reported(self, progress: CallProgress) -> None:
        """Record a report of the carrier."""
        at_ms = self._now_ms()
        self._record(CarrierReported(call_id=self.call_id, at_ms=at_ms, status=progress.value))

    # The operator -------------------------------------------------------------------------------

    def on_carrier_detected(self, word: str) -> None:
        """The carrier's detector of machines has come to a result about a call that was placed."""
        if not self._end.done():
            self._conversation.on_carrier_detected(word)

    def note_operator(self, action: str, by: str, text: str = "") -> None:
        """Record that an operator steers the call."""
        at_ms = self._now_ms()
        acted = OperatorActed(call_id=self.call_id, at_ms=at_ms, action=action, by=by, text=text)
        self._record(acted)

    def instruct(self, text: str) -> None:
        """Tell the model something, and have it speak."""
        if not self._end.done():
            self._perform(self._conversation.instruct(text, self._now_ms()))

    def interrupt(self) -> None:
        """Stop the agent, with everything that it was to say next."""
        if not self._end.done():
            self._perform(self._conversation.interrupt(self._now_ms()))

    def pause_recording(self, *, paused: bool) -> None:
        """Record silence from now on, or sound again."""
        if not self._end.done():
            self._conversation.pause_recording(self._now_ms(), paused=paused)

    def listen_in(self, monitor: Monitor) -> Callable[[], None]:
        """Have a monitor hear both sides, until the returned function is called."""
        if self._end.done():
            return lambda: None
        leg = self._caller_leg
        leg.monitors = (*leg.monitors, monitor)

        def leave() -> None:
            leg.monitors = tuple(each for each in leg.monitors if each is not monitor)

        return leave

    def whisper(self, text: str) -> None:
        """Tell the agent something that the caller does not hear."""
        if not self._end.done():
            self._perform(self._conversation.whisper(text))

    def take_over(self) -> bool:
        """Have a person speak in the agent's place; False where one does already."""
        if self._end.done() or self._conversation.taken_over:
            return False
        self._perform(self._conversation.take_over(self._now_ms()))
        return True

    def hand_back(self) -> None:
        """Have the agent speak again."""
        if not self._end.done():
            self._perform(self._conversation.hand_back(self._now_ms()))

    def speak(self, audio: bytes) -> None:
        """Play the voice of whoever has taken over, mu-law at 8 kHz."""
        if not self._end.done():
            self._perform(self._conversation.on_supervisor_audio(audio, self._now_ms()))

    def transfer(self, destination: str) -> None:
        """Begin to transfer the caller; the agent is told when that comes to nothing.

        Raises:
            ToolError: the destination is unknown, the line is busy, or the call is over.
        """
        if self._end.done():
            raise ToolError("The call is over.", code="call_over")
        self._transfers.check(destination)
        self._work.transfer(self._transfers, destination)

    @property
    def transfers(self) -> Transfers | None:
        """The call's transfers; None once it has let go of them."""
        return None if self._last_status is not None else self._transfers

    @property
    def turn(self) -> str:
        """The name of the turn that the turn table is in."""
        last = self._last_status
        return self._conversation.turns.turn.value if last is None else str(last["turn"])

    def status(self) -> dict[str, Any]:
        """The call at this moment, or at its end, as plain values."""
        if self._last_status is not None:
            return self._last_status
        conversation = self._conversation
        facts = conversation.dialogue.active.facts
        started_at = datetime.fromtimestamp(self._started_at, UTC)
        return {
            "call_id": self.call_id,
            "carrier_call_id": self.incoming.carrier_call_id,
            "caller_number": facts.caller_number or "",
            "called_number": facts.called_number or "",
            "agent": conversation.dialogue.active.agent.name,
            "model": self._route.model.name,
            "started_at": started_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration_ms": self._now_ms(),
            "turn": self.turn,
            "caller": self._caller_leg.state.value,
            "model_connected": self._voice.connected,
            "ending": self.ending,
            "taken_over": conversation.taken_over,
            "answered_by": conversation.answered_by.value,
            "turns": conversation.counters.turns,
            "barge_ins": conversation.counters.barge_ins,
            "approvals": len(self.tools.waiting(Approval.OPERATOR)),
            "recording": self._recording_state(),
            "cost_usd": round(self._spent_usd, 6),
            "costs": dict(self._cost.classes),
            "cost_unknown": list(self._cost.unknown),
            "cost_estimated": self._cost.estimated,
        }

    def _recording_state(self) -> str:
        if self.recording is None or not self.recording.goes_on:
            return "off"
        return "paused" if self.recording.paused else "on"

    async def run(self) -> None:
        """Hold the call until it is over and its tasks are gone. Raises nothing but cancellation.

        The last event is recorded earlier: a tool may ignore its cancellation for a while.
        """
        logs.call_id.set(self.call_id)
        try:
            async with CancellableGroup() as work:
                await self._hold(work)
        except* Exception as errors:  # of a background task, which has ended the call
            logger.error("call failed", exc_info=errors)
        self._let_go_of_parts()

    def _let_go_of_parts(self) -> None:
        """They know the call, and only a garbage collector would free the circle.

        Whoever holds the call for longer may still ask it everything that is public.
        """
        self._last_status = self.status()
        self.tools.on_over()
        del self._conversation, self._caller_leg, self._voice, self._work, self._transfers
        self.recording = None

    async def _hold(self, work: CancellableGroup) -> None:
        failure: End | None = None
        try:
            async with CancellableGroup() as tasks:
                self._tasks = tasks
                self._work.open(work)
                tasks.create_task(self._talk_with_model())
                tasks.create_task(self._caller_leg.run())
                tasks.create_task(self._keep_ticking())
                await asyncio.shield(self._end)
                tasks.cancel()
        except* Exception as errors:  # the outermost boundary of a call
            error: Exception = errors
            while isinstance(error, ExceptionGroup):  # of the voice loop's own group
                error = error.exceptions[0]
            failure = End(EndReason.INTERNAL_ERROR, type(error).__name__)
            logger.error("call failed", exc_info=errors)
        finally:
            self._tasks = None
            with contained("work"):
                self._work.close()
            work.cancel()
            self.end(EndReason.INTERNAL_ERROR)  # unless it has ended for another reason
            await self._finish(failure or self._end.result(), work)

    def _heard_out(self) -> bool:
        floor = self._conversation.floor
        return floor.heard_out(self._now_ms()) and not floor.undecided

    def _now_ms(self) -> int:
        return (time.monotonic_ns() - self._began_ns) // 1_000_000

    def _record(self, event: CallEvent) -> None:
        if self.over:
            return  # the end was the last event
        if isinstance(event, VoiceTrouble) and not event.session_id:
            event = replace(event, session_id=self._session_id)
        with contained("event"):  # whatever counts it, its readers have it
            self._bill.on_event(event)
            self._timer.on_event(event)
        self._on_record(event)
        if self.recording is not None and isinstance(event, StreamOpened):
            self.recording.begin()

    # Actions ------------------------------------------------------------------------------------

    def _perform(self, actions: Sequence[Action]) -> None:
        """Carry out the conversation's actions in order. Never waits."""
        for action in actions:
            match action:
                case AppendAudio(audio):
                    self._append(audio)
                case PlayAudio():
                    self._caller_leg.outbox.put(action)
                case ToVoice(event):
                    self._to_voice.put(event)
                    if (told := model_input(event, self.call_id, self._now_ms())) is not None:
                        self._record(told)
                case Record(event):
                    self._record(event)
                case Clear():
                    self._caller_leg.clear(action)
                case RunTool():
                    self._work.run_tool(action)
                case CheckGuardrail():
                    self._work.check(action)
                case Decide(tool_call_id, approved):
                    self._work.tools.decide(tool_call_id, approved=approved)
                case CheckMessages():
                    self._work.check_messages(action, self._route.can_keep_messages)
                case TransferCall(destination):
                    self._work.transfer(self._transfers, destination)
                case GiveUp():
                    self._give_up(action)
                case RenewVoice():
                    if self._tasks is not None:
                        self._tasks.create_task(self._renew_voice())
                case End(reason, detail):
                    self.end(reason, detail)
                case _:
                    assert_never(action)

    def _append(self, audio: bytes, burst: bool = False) -> None:
        """Send caller audio at once where the model's socket keeps up, else through the outbox.

        The frames of a `burst` go through it too: they leave in fewer messages.
        """
        connection = self._voice.connection
        at_once = self._to_voice.idle and not burst
        if at_once and connection is not None and connection.append_at_once(audio):
            self._conversation.counters.appends_sent += 1
        else:
            self._to_voice.put_audio(audio)

    def _give_up(self, action: GiveUp) -> None:
        if not action.retryable:
            reason = VoiceRefused("the model failed a response for good", code=action.code)
            self._route.model.note_refused(reason)
            self.end(EndReason.VOICE_LOST, action.code)
        else:
            self._voice.give_up(action)

    async def _keep_ticking(self) -> None:
        """Have the shared timer call, until the call ends or a tick fails."""
        failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def tick() -> None:
            try:
                self._tick()
            except Exception as error:
                if not failed.done():
                    failed.set_exception(error)

        with self._ticker.each(tick):
            await failed

    def _tick(self) -> None:
        now_ms, ringing = self._now_ms(), self._transfers.rings
        if self._conversation.floor.rests(now_ms) and not ringing:
            return
        if self._caller_leg.away:
            self._watch_away()
            self._conversation.floor.rest(now_ms)  # people talk without us
        else:
            self._perform(self._conversation.on_tick(now_ms, ringing=ringing))
        if self.recording is not None:
            self.recording.on_tick()
        self._watch_cost()

    def _watch_cost(self) -> None:
        """Count what was spent, and end a call that costs too much."""
        now_ms = self._now_ms()
        if now_ms - self._cost_at_ms < COST_EVERY_MS:
            return
        self._cost_at_ms = now_ms
        with contained("price"):
            cost_usd = self._spend(self.cost())
            limit_usd = self._route.policy.max_cost_usd
            if not self._caller_leg.away:
                self._perform(self._conversation.on_cost(cost_usd, now_ms))
            elif 0 < limit_usd <= cost_usd:
                self.end(EndReason.MAX_COST)

    def cost(self) -> Cost:
        """The cost of the call so far."""
        if self._last_status is not None:
            return self._cost
        return self._bill.cost(self._conversation.dialogue.usage, self._now_ms())

    def _spend(self, cost: Cost) -> float:
        """Pass on what was spent since the last time; returns all of it, as far as it is known."""
        self._cost = cost
        cost_usd = sum(cost.classes.values())
        self._on_spent(cost_usd - self._spent_usd)
        self._spent_usd = cost_usd
        return cost_usd

    def _watch_away(self) -> None:
        """Limit the length of a call whose caller is away; no other limit applies then."""
        now_ms = self._now_ms()
        if now_ms >= (self._route.policy.max_duration_ms or LONGEST_MS):
            self.end(EndReason.MAX_DURATION)
        elif now_ms - self._looked_ms >= LOOK_EVERY_MS and self._tasks is not None:
            self._looked_ms = now_ms
            self._tasks.create_task(self._look_for_caller())

    async def _look_for_caller(self) -> None:
        """End a call that the carrier has not any more: nothing else would, for hours."""
        with contained("look"), contextlib.suppress(CarrierError):
            known = await self._carrier.in_progress(self.incoming.carrier_call_id)
            if not known and self._caller_leg.away:
                self.end(EndReason.TRANSFERRED, "not_reported")

    # Model --------------------------------------------------------------------------------------

    async def _talk_with_model(self) -> None:
        """Talk with the model until it is lost for good."""
        try:
            code = (await self._voice.run()).code
        except VoiceError as error:
            code = error.code
            self._trouble(error)
            logger.warning(
                "voice model refused the call",
                extra={"code": code, "reason": error.message, "model": self._route.model.name},
            )
        self.end(EndReason.VOICE_LOST, code)

    @property
    def present(self) -> bool:
        """For the voice loop: a model that is lost while the caller is away can be replaced."""
        return not self._caller_leg.away

    def on_voice_ready(self, connection: VoiceConnection, *, reconnected: bool) -> None:
        """For the voice loop."""
        now_ms = self._now_ms()
        self._session_id = connection.session.id or ""
        self._record(
            VoiceReady(
                call_id=self.call_id,
                at_ms=now_ms,
                waited_ms=now_ms,
                session_id=self._session_id,
                reconnected=reconnected,
                differing=connection.differences,
                **self._told_at_start(),
            )
        )
        self._bill.on_connected(now_ms)
        if reconnected:
            self._to_voice.forget_events()  # the dialogue is replayed
        expires_at = connection.session.expires_at
        expires_in_ms = None if expires_at is None else round((expires_at - time.time()) * 1000)
        self._perform(self._conversation.on_voice_ready(now_ms, expires_in_ms))

    def _told_at_start(self) -> dict[str, Any]:
        """The settings that a connection begins with, for those who look for a mistake in them."""
        active = self._conversation.dialogue.active
        session = active.opening()
        return {
            "model": self._route.model.name,
            "agent": active.agent.name,
            "voice": active.agent.voice or "",
            "tools": self._route.roster.tool_names(active.agent),
            "instructions_chars": len(str(session.instructions or "")),
        }

    @property
    def voice_room(self) -> Room:
        """For the voice loop: a carrier that is behind has the model wait."""
        return self._caller_leg.outbox

    def on_voice(self, event: ServerEvent) -> None:
        """For the voice loop."""
        now_ms = self._now_ms()
        self._timer.on_voice(event, now_ms, self._conversation.pause_ms)
        if isinstance(event, AudioDelta):  # most events, and of no interest to the others below
            self._perform(self._conversation.on_voice(event, now_ms))
            return
        completed = self._conversation.dialogue.failures.completed
        self._work.on_voice(event)
        self._perform(self._conversation.on_voice(event, now_ms))
        self._work.after_voice(event)
        if self._conversation.dialogue.failures.completed != completed:
            self._route.model.note_success()

    async def on_voice_lost(self, code: str, session_id: str) -> None:
        """For the voice loop."""
        now_ms = self._now_ms()
        self._record(
            VoiceReconnecting(call_id=self.call_id, at_ms=now_ms, code=code, session_id=session_id)
        )
        self._work.ask.on_voice_lost()
        self._bill.on_disconnected(now_ms)
        self._perform(self._conversation.on_voice_lost(now_ms))
        await self._caller_leg.until(
            CallerState.ATTACHED, CallerState.LEAVING, CallerState.EXPECTED
        )

    async def _renew_voice(self) -> None:
        try:
            await self._voice.renew(self._conversation.floor.quiet)
        except VoiceError as error:
            self._trouble(error)

    def _trouble(self, error: VoiceError) -> None:
        self._record(
            VoiceTrouble(
                call_id=self.call_id,
                at_ms=self._now_ms(),
                code=error.code,
                benign=False,
                session_id=error.session_id,
                message=error.message,
            )
        )

    # The end ------------------------------------------------------------------------------------

    async def _finish(self, end: End, work: CancellableGroup) -> None:
        """Hang up and close both sockets; the model's is closed at once, whatever REST does."""
        with contained("transcript"):
            self._timer.settle(self._now_ms())
            self._perform_last()
        try:
            async with asyncio.TaskGroup() as closing:
                closing.create_task(contain("model", self._voice.close()))
                closing.create_task(work.gone(CLOSE_S))
                closing.create_task(contain("transfers", self._transfers.close(end.reason)))
                if self.recording is not None:
                    closing.create_task(contain("recording", self.recording.closed()))
                carrier, call_id = self._carrier, self.incoming.carrier_call_id
                closing.create_task(
                    close_caller_leg(end, self._caller_leg, carrier, call_id, self._deadline)
                )
                end = await settled_end(end, carrier, call_id)
        finally:  # also when the process has no time left for it
            if self.recording is not None:
                with contained("recording"):
                    self.recording.settle()
            summary = self._least_summary(end)
            with contained("summary"):
                summary = self._summarize(end)
            with contained("record"):
                self._record(
                    CallEnded(call_id=self.call_id, at_ms=summary.duration_ms, summary=summary)
                )
            self._over.set()
            self._caller_leg.release()

    def _perform_last(self) -> None:
        for action in self._conversation.on_call_over(self._now_ms()):
            if isinstance(action, Record):
                self._record(action.event)
        if self.recording is not None:
            self.recording.close()

    def _least_summary(self, end: End) -> CallSummary:
        """The end in one line, of nothing that could fail."""
        return CallSummary(
            call_id=self.call_id,
            carrier_call_id=self.incoming.carrier_call_id,
            agent=self._route.agent.name,
            model=self._route.model.name,
            reason=end.reason,
            detail=end.detail,
            duration_ms=self._now_ms(),
            session_id=self._session_id,
        )

    def _summarize(self, end: End) -> CallSummary:
        watch = self._conversation.latency
        counters = replace(self._conversation.counters)
        counters.protocol_surprises += self._voice.oddities
        now_ms = self._now_ms()
        tokens = self._conversation.dialogue.usage
        cost = Cost(model_known=False)
        with contained("price"):
            cost = self._bill.cost(tokens, now_ms)
            self._spend(cost)
        return replace(
            self._least_summary(end),
            agent=self._conversation.dialogue.active.agent.name,
            duration_ms=now_ms,
            answer_to_first_audio_ms=watch.answer_to_first_audio_ms,
            turn_latency_p50_ms=watch.turn_latency_ms(0.5),
            turn_latency_p95_ms=watch.turn_latency_ms(0.95),
            barge_in_reaction_max_ms=max(watch.reactions_ms, default=None),
            counters=counters,
            usage=self._bill.usage(tokens, now_ms),
            carrier=self._bill.carrier(now_ms),
            cost_usd=cost.total_usd,
            costs=cost.classes,
            cost_unknown=cost.unknown,
            cost_estimated=cost.estimated,
            recording_file="" if self.recording is None else self.recording.file,
            recording_end="" if self.recording is None else self.recording.end,
        )
