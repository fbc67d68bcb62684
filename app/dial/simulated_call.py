"""One simulated call, from the webhook to the last status callback.

The shell that performs TwiML as a carrier would: opens the stream where a `<Connect>` asks for it,
goes on with `action` or the next verb when the server closes it, and prints what it performs.
Follows Twilio voice/twiml/connect: a call does not end because a socket did, only because somebody
hung up or the TwiML ran out.
"""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final

from app.carrier.base import CarrierCallId, StreamId
from app.dial.carrier_http import Caller, SpokenLine, TwimlAnswer, Webhooks
from app.dial.faults import Fault, check_stream
from app.dial.leg import Clock, EndedBy, Leg, LegEnd, open_stream
from app.dial.report import CallPrinter, DialReport, StreamMeasures
from app.dial.script import ScriptedCaller
from app.dial.speaking import Recording
from app.dial.stream import CarrierStream, StreamIdentity
from app.dial.twiml import StreamOrder, Verb, stream_of
from app.dial.utterances import WINDOW_MS, audible_windows
from app.errors import DialError, RemoteProtocolError

__all__ = ["SimulatedCall"]

# The transcript's last lines may come after the stream; a feed that stays open is not waited for.
_FEED_GRACE_S: Final = 2
# TwiML that redirects for ever is ended; a carrier has such a limit as well.
_MAX_DOCUMENTS: Final = 10
# A hang-up that cuts off less than this is nothing that a caller would notice.
_CUT_NOTICED_MS: Final = 100

# Trunkline's close reason when the agent ended the call. It tells Twilio by REST as well, which a
# simulated carrier does not serve, so the reason stands in for that.
HUNG_UP: Final = "hung up"
_STREAM_OPENED: Final = "stream opened"
"""The line of Trunkline's transcript feed about it."""
_COMPLETED: Final = "completed"
_NOT_ANSWERED: Final = "nobody: it was not answered"


@dataclass(slots=True)
class _Outcome:
    """Everything that the call has shown so far."""

    ended_by: str = _NOT_ANSWERED
    streams: list[StreamMeasures] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    transcript: list[SpokenLine] = field(default_factory=list)


class SimulatedCall:
    """One call in progress.

    `dial_status` is how a `<Dial>` ends (Twilio's `DialCallStatus`); without it, the simulation
    ends there.
    """

    def __init__(
        self,
        caller: Caller,
        webhooks: Webhooks,
        scripted: ScriptedCaller,
        *,
        printer: CallPrinter,
        recording: Recording | None,
        clock: Clock,
        dial_status: str | None = None,
    ) -> None:
        self._caller = caller
        self._webhooks = webhooks
        self._scripted = scripted
        self._printer = printer
        self._recording = recording
        self._clock = clock
        self._dial_status = dial_status
        self._leg: Leg | None = None
        self._redirected: TwimlAnswer | None = None
        self._answered_ms = clock.now_ms()
        self._server_zero_ms = self._answered_ms
        self._outcome = _Outcome()

    async def run(self, voice_url: str, *, at_most_ms: int) -> DialReport:
        """Ring, perform what the server answers, report the end."""
        asked_ms = self._clock.now_ms()
        try:
            answer = await self._webhooks.ask(voice_url, "ringing")
        except (DialError, RemoteProtocolError) as error:
            self._outcome.failures.append(error.message)
            return self._report(webhook_ms=self._clock.now_ms() - asked_ms)
        self._answered_ms = self._clock.now_ms()
        webhook_ms = self._answered_ms - asked_ms
        # The server counts from the webhook; the start of the stream tells when exactly that was.
        self._server_zero_ms = asked_ms
        self._scripted.answered(self._answered_ms, at_most_ms=at_most_ms)
        self._print_event(f"{voice_url} answered")
        async with asyncio.TaskGroup() as group:
            feed = group.create_task(self._follow_transcript())
            group.create_task(self._callback("in-progress"))
            await self._perform(answer)
            await asyncio.wait([feed], timeout=_FEED_GRACE_S)
            feed.cancel()
        await self._callback(_COMPLETED, self.elapsed_ms // 1000)
        self._printer.release()
        self._check_script()
        return self._report(webhook_ms=webhook_ms)

    def redirect(self, document: TwimlAnswer) -> None:
        """Leave the stream for another document, as when the account updates the call by REST."""
        self._redirected = document
        if self._leg is not None:
            self._leg.hang_up()

    async def _perform(self, answer: TwimlAnswer) -> None:
        """Perform one document after another until one ends the call."""
        following: TwimlAnswer | None = answer
        try:
            for _ in range(_MAX_DOCUMENTS):
                if following is None:
                    return
                following = await self._perform_document(following)
            self._outcome.failures.append(
                f"the TwiML went on to more than {_MAX_DOCUMENTS} documents"
            )
        except (DialError, RemoteProtocolError) as error:
            self._outcome.failures.append(error.message)
            self._outcome.ended_by = "an error"

    async def _perform_document(self, answer: TwimlAnswer) -> TwimlAnswer | None:
        """Perform each verb; return the document to go on with, None when the call is over."""
        if self._outcome.ended_by == _NOT_ANSWERED:
            self._outcome.ended_by = "the carrier: the TwiML was at its end"
        for verb in answer.verbs:
            order = stream_of(verb)
            if order is not None:
                end = await self._stream(order, answer.url)
                if self._redirected is not None:
                    document, self._redirected = self._redirected, None
                    return document
                if end is not None and end.by is EndedBy.CALLER:
                    self._outcome.ended_by = "caller"
                    return None
                if end is not None:
                    self._outcome.ended_by = (
                        "agent" if end.by is EndedBy.AGENT else "a lost connection"
                    )
                if end is not None and end.reason == HUNG_UP:
                    return None
                if order.action is not None:
                    url = self._webhooks.absolute(answer.url, order.action)
                    return await self._webhooks.ask(url, "in-progress")
                continue
            if verb.name == "Redirect":
                url = self._webhooks.absolute(answer.url, verb.text)
                return await self._webhooks.ask(url, "in-progress")
            action = verb.attributes.get("action")
            if verb.name == "Dial" and self._dial_status is not None and action is not None:
                return await self._dial(verb, self._webhooks.absolute(answer.url, action))
            if self._perform_verb(verb):
                return None
        return None

    async def _dial(self, verb: Verb, action_url: str) -> TwimlAnswer:
        """End a `<Dial>` at once, with the status that was given for it."""
        status = self._dial_status or ""
        self._print_event(f"the carrier rings {_dialed(verb)}: {status}")
        return await self._webhooks.ask(action_url, "in-progress", {"DialCallStatus": status})

    def _perform_verb(self, verb: Verb) -> bool:
        """Print what the caller would hear; return True when the call is over."""
        match verb.name:
            case "Say":
                self._print_event(f'the carrier says: "{verb.text}"')
            case "Hangup" | "Reject":
                self._print_event("the server's TwiML hangs up")
                if not self._outcome.streams:
                    self._outcome.ended_by = "the server's TwiML"
                return True
            case "Dial" | "Refer" | "Enqueue":
                self._print_event(
                    f"the carrier transfers the call to {_dialed(verb)}; the simulation ends here"
                )
                self._outcome.ended_by = "a transfer"
                return True
            case "Pause":
                self._print_event(
                    f"the carrier is silent for {verb.attributes.get('length', '1')} s"
                )
            case _:
                self._print_event(f"<{verb.name}> is not simulated")
        return False

    async def _stream(self, order: StreamOrder, base_url: str) -> LegEnd | None:
        """Open a stream and run it to its end; None when it could not be opened."""
        self._outcome.faults += check_stream(order)
        url, signature = self._webhooks.handshake(base_url, order.url)
        try:
            socket = await open_stream(url, signature)
        except DialError as error:
            self._outcome.failures.append(error.message)
            self._print_event(error.message)
            return None
        identity = StreamIdentity(
            stream_id=StreamId("MZ" + secrets.token_hex(16)),
            call_id=CarrierCallId(self._caller.call_id),
            account_id=self._caller.account_id,
            parameters=order.parameters,
        )
        start_ms = self._clock.now_ms()
        if self._recording is not None:
            self._recording.begin_stream(start_ms - self._answered_ms)
        stream = CarrierStream(identity, start_ms, recorder=self._recording)
        self._leg = leg = Leg(socket, stream, self._clock)
        end = await leg.run(partial(self._on_frame, leg))
        self._leg = None
        stream.detector.flush()
        self._scripted.print_agent_sound(leg, self._clock.now_ms())
        self._stream_over(stream, end)
        return end

    def _on_frame(self, leg: Leg, now_ms: int) -> None:
        self._scripted.has_transcript = self._webhooks.has_transcript
        self._scripted.on_frame(leg, now_ms)

    def _stream_over(self, stream: CarrierStream, end: LegEnd) -> None:
        self._outcome.streams.append(StreamMeasures.of(stream))
        self._outcome.faults += stream.faults
        if not stream.counters.media_received:
            self._outcome.failures.append("the agent was never heard: no media message came")
        elif not stream.detector.spans:
            self._outcome.failures.append("the agent was never heard: all its audio was silence")
        if end.by is EndedBy.LOST:
            why = f": {end.reason}" if end.reason else ""
            self._outcome.failures.append(
                f"the server dropped the stream (code {end.close_code}{why})"
            )
        if end.by is EndedBy.AGENT:
            self._print_event("the agent hangs up")
            cut_ms = sum(audible_windows(stream.playout.unheard)) * WINDOW_MS
            if cut_ms >= _CUT_NOTICED_MS:
                self._outcome.failures.append(
                    f"the agent hung up on its own words: {cut_ms} ms unheard"
                )

    def _check_script(self) -> None:
        self._outcome.failures += self._scripted.problems
        if not self._outcome.streams and not self._outcome.failures:
            self._outcome.failures.append("the server opened no media stream for the call")
        elif self._outcome.streams and self._scripted.utterances_left:
            self._outcome.failures.append(
                f"the call was over before the caller had said everything:"
                f" {self._scripted.utterances_left} more to say"
            )

    async def _callback(self, call_status: str, duration_s: int | None = None) -> None:
        try:
            status = await self._webhooks.report(call_status, duration_s)
        except DialError as error:
            if call_status == _COMPLETED:  # it may have been stopped, and waited for this call only
                self._print_event(f"the server took no report of the end: {error.message}")
            else:
                self._outcome.failures.append(f"status callback {call_status}: {error.message}")
            return
        if status is not None and status >= 400 and status != 404:
            self._outcome.failures.append(f"status callback {call_status}: answered HTTP {status}")

    async def _follow_transcript(self) -> None:
        async for line in self._webhooks.transcript():
            self._outcome.transcript.append(line)
            if line.text == _STREAM_OPENED and self._leg is not None and not self._outcome.streams:
                self._server_zero_ms = self._leg.stream.start_ms - line.at_ms
            at_ms = line.at_ms + self._server_zero_ms - self._answered_ms
            self._printer.spoken(replace(line, at_ms=max(0, at_ms)))

    def _print_event(self, text: str) -> None:
        self._printer.event(self.elapsed_ms, text)

    @property
    def elapsed_ms(self) -> int:
        """The time since the call was answered."""
        return self._clock.now_ms() - self._answered_ms

    def _report(self, *, webhook_ms: int) -> DialReport:
        return DialReport(
            call_id=self._caller.call_id,
            webhook_ms=webhook_ms,
            duration_ms=self.elapsed_ms,
            ended_by=self._outcome.ended_by,
            streams=tuple(self._outcome.streams),
            faults=tuple(self._outcome.faults),
            failures=tuple(self._outcome.failures),
            transcript=tuple(self._outcome.transcript),
        )


def _dialed(verb: Verb) -> str:
    return " ".join([verb.text, *(noun.text for noun in verb.children)]).strip()
