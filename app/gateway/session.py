"""One session: an upstream found, a way between both sockets, its charges, and its end.

An upstream's refusal or death reaches the client as an `error` event and a close code; the table is
in docs/gateway.md. To the history a session is a call whose caller is a program.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from app.calls.recording.recorder import Recorder
from app.errors import VoiceClosed, VoiceError, VoiceRefused, VoiceUnavailable
from app.events import (
    SESSION_PREFIX,
    AgentSaid,
    CallAdmitted,
    CallCounters,
    CallEnded,
    CallerSaid,
    CallEvent,
    CallId,
    CallSummary,
    EndReason,
    StreamOpened,
    VoiceReady,
    VoiceTrouble,
)
from app.framing import FrameWriter
from app.gateway.access import Client, Ledger, Reservation
from app.gateway.bridge import Bridge
from app.gateway.channels import Channel
from app.gateway.conversion import Conversion
from app.gateway.duplex import ClientSocket, Duplex
from app.gateway.meter import Charge, Price, SessionMeter
from app.gateway.passthrough import DownlinkPassthrough, UplinkPassthrough
from app.gateway.pinning import Pins
from app.gateway.recording import SessionRecording
from app.gateway.wire import (
    GOING_AWAY,
    MONEY_SPENT,
    NORMAL,
    TIME_UP,
    PlainAppend,
    close_code_for,
    cut_reason,
    error_event,
    is_utf8,
    parse,
    redacted,
    render,
    server_type,
    sound_chars,
)
from app.realtime.connection import ClientTransport
from app.realtime.dialect import BETA, GA, Dialect
from app.realtime.fields import MalformedEvent
from app.realtime.wire_session import OTHER_SPELLING

__all__ = ["MOST_UNCHARGED", "Report", "Route", "Session"]

logger = logging.getLogger(__name__)

UNSUPPORTED_DATA: Final = 1003
NOT_UTF8: Final = 1007
UPSTREAM_CLOSE_S: Final = 3.0
MOST_UNCHARGED: Final = 16
UNCHARGED_CHARS: Final = 2**16
"""Responses wait for the next batch of charges, so many of a session and so large ones."""

_AUDIO: Final = frozenset({"response.output_audio.delta", "response.audio.delta"})
_SEEN: Final = frozenset(
    {
        "",  # not to be told without a parser
        "conversation.item.input_audio_transcription.completed",
        "error",
        "input_audio_buffer.speech_started",
        "response.audio_transcript.done",
        "response.output_audio_transcript.done",
        "session.created",
        "session.updated",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way to a model that clients may ask for; `price` is None where nothing is paid.

    `named`: by `gateway.models`, so that the model is not for the client to choose any more.
    """

    model: str
    upstream_model: str
    channels: Sequence[Channel]
    named: bool = True
    transcription: str = ""
    price: Price | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """The end of a session: `code` and `reason` of the close frame, `error` told before it."""

    code: int
    cause: EndReason
    reason: str = ""
    error: bytes | None = None


class Report:
    """Is told what happens in sessions."""

    def on_event(self, event: CallEvent) -> None:
        """An event for the history of calls."""

    def on_connected(self, channel: str, waited_s: float) -> None:
        """An upstream was reached."""

    def on_channel_failed(self, channel: str) -> None:
        """An upstream was not reached; the next one is tried."""

    def on_charge(
        self, session_id: str, client: Client, route: Route, channel: str, charge: Charge
    ) -> None:
        """Something is to be paid for."""

    def charge_later(self, charge: Callable[[], None]) -> None:
        """Responses have come, which `charge` will charge: in time for the next batch."""
        charge()


class Session:
    """One client's session."""

    def __init__(
        self,
        client: Client,
        route: Route,
        dialect: Dialect,
        *,
        ledger: Ledger,
        reservation: Reservation,
        report: Report,
        max_session_s: int,
        recorder: Recorder | None = None,
    ) -> None:
        """`recorder`: keeps the sound of both sides."""
        self.id = f"{SESSION_PREFIX}{time.time_ns() // 1_000_000:012x}{secrets.token_hex(5)}"
        self._client = client
        self._route = route
        self._dialect = dialect
        self._ledger = ledger
        self._reservation = reservation
        self._report = report
        self._limit_s = min(max_session_s, client.max_session_s or max_session_s)
        price = route.price
        self._meter = None if price is None else SessionMeter(price, route.transcription)
        self._pins: Pins | None = None
        self._remote = False
        self._bridge: Bridge | None = None
        self._upstream_dialect = dialect
        self._dialect_known = True
        self._conversion: Conversion | None = None
        self._channel = ""
        self._upstream_session = ""
        self._is_plain_append = PlainAppend()
        self._up: UplinkPassthrough | None = None
        self._down: DownlinkPassthrough | None = None
        self._began_s = time.monotonic()
        self._over = asyncio.Event()
        self._end: _End | None = None
        self._in_chars = self._out_chars = 0  # base64 since the last response
        self._limited = ledger.limited(client)
        self._uncharged: list[tuple[str, int, int]] = []
        self._responses = 0
        self._errors = 0
        self._recording: SessionRecording | None = None
        if recorder is not None:
            self._recording = SessionRecording(
                self._call_id, recorder, record=self._tell, now_ms=self._now_ms
            )

    # The course ---------------------------------------------------------------------------------

    async def run(self, socket: ClientSocket) -> None:
        """Serve a client whose socket is open."""
        duplex = Duplex(
            socket,
            from_client=self._from_client,
            from_upstream=self._from_upstream,
            on_binary=lambda: self._finish(
                _End(
                    code=UNSUPPORTED_DATA, cause=EndReason.CALLER_HUNG_UP, reason="events are text"
                )
            ),
        )
        self._duplex = duplex
        self._tell(
            CallAdmitted(
                call_id=self._call_id,
                carrier_call_id=self.id,
                caller_number="",
                called_number="",
                agent=self._client.key_name,
            )
        )
        upstream: ClientTransport | None = None
        try:
            async with asyncio.TaskGroup() as group:
                timer = asyncio.get_running_loop().call_later(self._limit_s, self._on_time_up)
                leaving: asyncio.Task[None] | None = None
                try:
                    upstream = await self._connected(group)
                    if upstream is not None:
                        serving = group.create_task(
                            self._serving(duplex, upstream, socket.frame_writer)
                        )
                        leaving = group.create_task(self._leaving(duplex))
                        await self._over.wait()
                        serving.cancel()
                finally:
                    timer.cancel()
                    if leaving is not None:
                        leaving.cancel()
                    if upstream is not None:
                        await self._close_upstream(upstream)
        finally:
            await self._close(socket, duplex)

    async def _connected(self, group: asyncio.TaskGroup) -> ClientTransport | None:
        try:
            return await self._connect(group)
        except (VoiceRefused, VoiceUnavailable) as error:
            self._finish(_failed(error))
            return None

    async def _connect(self, group: asyncio.TaskGroup) -> ClientTransport:
        """Open the first channel that can be opened.

        Raises:
            VoiceRefused, VoiceUnavailable: none can; the error is the last one's.
        """
        failed: VoiceRefused | VoiceUnavailable | None = None
        for channel in self._route.channels:
            began_s = time.monotonic()
            try:
                upstream = await channel.open(self._route.upstream_model, self._dialect, group)
            except (VoiceRefused, VoiceUnavailable) as error:
                failed = error
                self._report.on_channel_failed(channel.name)
                logger.warning(
                    "gateway channel failed",
                    extra={"session_id": self.id, "channel": channel.name, "code": error.code},
                )
                continue
            self._report.on_connected(channel.name, time.monotonic() - began_s)
            self._channel = channel.name
            self._translate(channel.dialect(self._dialect))
            self._conversion = Conversion(channel.formats) if channel.formats else None
            pinned = self._route.transcription
            self._remote = channel.remote
            if channel.remote or self._route.named:
                self._pins = Pins(pinned if channel.remote else "", self._conversion)
            await self._begin(upstream)
            self._dialect_known = not channel.remote  # the engine finds out by itself
            return upstream
        assert failed is not None  # a route has at least one channel
        raise failed

    def _translate(self, upstream: Dialect) -> None:
        self._upstream_dialect = upstream
        self._bridge = None if upstream is self._dialect else Bridge(self._dialect, upstream)

    async def _begin(self, upstream: ClientTransport) -> None:
        """Give the session what a client's secret holds, and formats that its upstream has."""
        begin = [dict(self._client.session)]
        if self._conversion is not None:
            begin.insert(0, self._conversion.first_formats(self._dialect))
        for wanted in begin:
            if not wanted.keys() - {"type", "model"}:
                continue
            text: bytes | None = render(
                {"type": "session.update", "event_id": "event_gateway_begin", "session": wanted}
            )
            text = self._from_client(text or b"")
            if text is not None:
                with contextlib.suppress(VoiceClosed):
                    await upstream.send(text.decode())

    async def _serving(
        self, duplex: Duplex, upstream: ClientTransport, frame_writer: FrameWriter
    ) -> None:
        self._tell(StreamOpened(call_id=self._call_id, at_ms=self._now_ms()))
        if self._recording is not None:
            self._recording.begin()
        elif self._conversion is None and upstream.frame_writer is not None:
            self._up = UplinkPassthrough(upstream.frame_writer)
            if self._bridge is None:  # the dialects have different names for a delta
                self._down = DownlinkPassthrough(frame_writer)
        try:
            await duplex.run(upstream, up=self._up, down=self._down)
        except* VoiceClosed as ended:
            error = ended.exceptions[0]
            assert isinstance(error, VoiceClosed)
            self._finish(_died(error))

    async def _leaving(self, duplex: Duplex) -> None:
        code = await duplex.left()
        self._finish(_End(code=code, cause=EndReason.CALLER_HUNG_UP))

    def _on_time_up(self) -> None:
        self._finish(
            _told_end(
                TIME_UP,
                EndReason.MAX_DURATION,
                "session_time_up",
                "The session has reached its longest time",
            )
        )

    def drain(self) -> None:
        """End the session because the server stops."""
        self._finish(
            _told_end(
                GOING_AWAY,
                EndReason.DRAINED,
                "server_draining",
                "The server is restarting: connect again",
            )
        )

    def _finish(self, end: _End) -> None:
        if self._end is None:
            self._end = end
            self._over.set()

    async def _close_upstream(self, upstream: ClientTransport) -> None:
        end = self._end
        client_left = end is not None and end.cause is EndReason.CALLER_HUNG_UP
        code = end.code if end is not None and client_left else NORMAL
        sendable = code in (1000, 1001) or 3000 <= code < 5000
        with contextlib.suppress(TimeoutError, VoiceClosed):
            async with asyncio.timeout(UPSTREAM_CLOSE_S):
                await upstream.close(code if sendable else NORMAL)

    async def _close(self, socket: ClientSocket, duplex: Duplex) -> None:
        end = self._end or _told_end(
            1011, EndReason.INTERNAL_ERROR, "internal_error", "The gateway failed"
        )
        self._charge_responses()
        if self._meter is not None:
            self._count_frames()
            self._meter.add_sound(self._in_chars, self._out_chars)
            if (charge := self._meter.at_end()) is not None:
                self._settle(charge)
        if self._recording is not None:
            self._recording.close()
        if end.error is not None:
            duplex.tell(end.error)
            await duplex.flush()
        socket.close(end.code, cut_reason(redacted(end.reason)))
        if self._recording is not None:
            await self._recording.closed()
        self._tell(
            CallEnded(call_id=self._call_id, at_ms=self._now_ms(), summary=self._summary(end))
        )

    # From the client ----------------------------------------------------------------------------

    def _from_client(self, text: bytes) -> bytes | None:
        if self._is_plain_append(text):
            if self._conversion is not None:
                text = self._conversion.append(text)
            self._take_sound(text)
            return text  # the event is spelled alike in both dialects
        if not is_utf8(text):  # RFC 6455, section 8.1
            self._finish(
                _End(code=NOT_UTF8, cause=EndReason.CALLER_HUNG_UP, reason="events are UTF-8")
            )
            return None
        if not self._dialect_known:
            self._look_for_dialect(text)
        if self._bridge is not None:
            try:
                translated = self._bridge.to_upstream(text)
            except MalformedEvent as error:
                self._duplex.tell(
                    error_event(error.code, error.message, kind="invalid_request_error")
                )
                return None
            if translated is None:
                return None
            text = translated
        if self._pins is None:
            return text
        pinned = self._pins.apply(text)
        if pinned is None:
            self._duplex.tell(
                error_event(
                    "invalid_json", "The event is no JSON object", kind="invalid_request_error"
                )
            )
        elif b"input_audio_buffer.append" in pinned[:200]:
            self._take_sound(pinned)
        return pinned

    def _look_for_dialect(self, text: bytes) -> None:
        """The first `session.update` shows the dialect of a client, whatever its headers say."""
        event = parse(text)
        if event is None or event.get("type") != "session.update":
            return
        self._dialect_known = True
        try:
            self._dialect.decode_client(text.decode())
        except MalformedEvent as error:
            if error.code != OTHER_SPELLING:
                return
            self._dialect = GA if self._dialect is BETA else BETA
            self._translate(self._upstream_dialect)
            if self._down is not None:
                self._count_frames()
                self._down.stop()

    def _take_sound(self, text: bytes) -> None:
        """Count and record an append of the client, as the upstream gets it."""
        self._in_chars += sound_chars(text, "audio")
        if self._recording is not None:
            self._recording.sound_in(text)

    # From the upstream --------------------------------------------------------------------------

    def _from_upstream(self, text: str) -> bytes | None:
        kind = server_type(text)
        if kind in _AUDIO:
            self._out_chars += sound_chars(text, "delta")
            if self._recording is not None:
                self._recording.sound_out(text)
            if self._conversion is not None:
                text = self._conversion.delta(text)
        else:
            if kind == "response.done":
                self._on_response_done(text)
            elif kind in _SEEN and (event := parse(text)) is not None:
                text = self._look(event, text)
            if self._conversion is not None:
                text = self._conversion.to_client(text)
        if self._bridge is not None:
            translated = self._bridge.to_client(text)
            return None if translated is None else translated.encode("utf-8", "replace")
        return text.encode("utf-8", "replace")

    def _look(self, event: dict[str, Any], text: str) -> str:
        match event.get("type"):
            case "session.created" | "session.updated":
                self._on_session(event)
            case "input_audio_buffer.speech_started":
                if self._recording is not None:
                    self._recording.on_interrupted()
            case "response.done":
                self._on_response_done(text)
            case "conversation.item.input_audio_transcription.completed":
                if self._meter is not None and (charge := self._meter.on_transcription(event)):
                    self._settle(charge)
                self._tell(
                    CallerSaid(
                        call_id=self._call_id,
                        at_ms=self._now_ms(),
                        item_id=str(event.get("item_id") or ""),
                        text=str(event.get("transcript") or ""),
                        unverified=not self._remote,
                    )
                )
            case "response.audio_transcript.done" | "response.output_audio_transcript.done":
                said = str(event.get("transcript") or "")
                # The gateway does not know how much of it was played.
                self._tell(
                    AgentSaid(
                        call_id=self._call_id,
                        at_ms=self._now_ms(),
                        item_id=str(event.get("item_id") or ""),
                        text=said,
                        heard_text=said,
                    )
                )
            case "error":
                return self._on_error(event, text)
            case kind if kind in _AUDIO:
                self._out_chars += sound_chars(text, "delta")
        return text

    def _on_session(self, event: dict[str, Any]) -> None:
        session = event.get("session")
        if self._meter is not None:
            self._charge_responses()  # which were made in the format before
            self._meter.on_session(session)
        if self._recording is not None:
            self._recording.on_session(session)
        if event.get("type") != "session.created" or self._upstream_session:
            return
        found = session if isinstance(session, dict) else {}
        self._upstream_session = str(found.get("id") or "unknown")[:100]
        logger.info(
            "gateway session connected",
            extra={
                "session_id": self.id,
                "channel": self._channel,
                "upstream_session": self._upstream_session,
            },
        )
        now_ms = self._now_ms()
        self._tell(
            VoiceReady(
                call_id=self._call_id,
                at_ms=now_ms,
                waited_ms=now_ms,
                session_id=self._upstream_session,
                model=self._route.model,
                agent=self._client.key_name,
            )
        )

    def _on_response_done(self, text: str) -> None:
        """Note a response. It is charged at once where its price may end the session.

        Else the next batch of charges begins with it: alone, it would find the code for that, and
        for its price, out of the processor's cache, and cost five times as much.
        """
        self._count_frames()
        self._uncharged.append((text, self._in_chars, self._out_chars))
        self._in_chars = self._out_chars = 0
        waiting = len(self._uncharged)
        if self._limited or waiting == MOST_UNCHARGED or len(text) > UNCHARGED_CHARS:
            self._charge_responses()
        elif waiting == 1:
            self._report.charge_later(self._charge_responses)

    def _charge_responses(self) -> None:
        uncharged, self._uncharged = self._uncharged, []
        for text, in_chars, out_chars in uncharged:
            if self._meter is not None:
                self._meter.add_sound(in_chars, out_chars)
            if (event := parse(text)) is None:
                continue
            self._responses += 1
            if self._meter is not None and (
                charge := self._meter.on_response_done(event.get("response"))
            ):
                self._settle(charge)

    def _count_frames(self) -> None:
        """Count the sound that has passed in its frames."""
        if self._up is not None:
            self._in_chars += self._up.chars
            self._up.chars = 0
        if self._down is not None:
            self._out_chars += self._down.chars
            self._down.chars = 0

    def _on_error(self, event: dict[str, Any], text: str) -> str:
        self._errors += 1
        given = event.get("error")
        error: dict[str, Any] = given if isinstance(given, dict) else {}
        code = str(error.get("code") or error.get("type") or "")[:100]
        self._tell(
            VoiceTrouble(
                call_id=self._call_id,
                at_ms=self._now_ms(),
                code=code,
                benign=False,
                session_id=self._upstream_session,
            )
        )
        message = error.get("message")
        if not isinstance(message, str) or (clean := redacted(message)) == message:
            return text
        return render({**event, "error": {**error, "message": clean}}).decode()

    # Money and events ---------------------------------------------------------------------------

    def _settle(self, charge: Charge) -> None:
        self._report.on_charge(self.id, self._client, self._route, self._channel, charge)
        if not self._ledger.spend(self._client, self._reservation, charge.cost_usd or 0.0):
            self._finish(
                _told_end(
                    MONEY_SPENT,
                    EndReason.MAX_COST,
                    "budget_spent",
                    "The budget of this session, key or day is spent",
                )
            )

    @property
    def _call_id(self) -> CallId:
        return CallId(self.id)

    def _now_ms(self) -> int:
        return round((time.monotonic() - self._began_s) * 1_000)

    def _tell(self, event: CallEvent) -> None:
        self._report.on_event(event)

    def _summary(self, end: _End) -> CallSummary:
        meter = self._meter
        counters = CallCounters(responses=self._responses, voice_errors=self._errors)
        cost = 0.0 if meter is None else meter.spent_usd
        facts: dict[str, Any] = {}
        if meter is not None:
            facts = {"usage": meter.total, "cost_estimated": meter.estimated}
            if meter.unpriced:
                facts["cost_unknown"] = (f"prices.{self._route.model}",)
        return CallSummary(
            call_id=self._call_id,
            carrier_call_id=self.id,
            agent=self._client.key_name,
            model=self._route.model,
            reason=end.cause,
            session_id=self._upstream_session,
            duration_ms=self._now_ms(),
            counters=counters,
            cost_usd=None if meter is not None and meter.unpriced else round(cost, 9),
            recording_file="" if self._recording is None else self._recording.file,
            recording_end="" if self._recording is None else self._recording.end,
            detail=f"gateway, channel {self._channel or 'none'}, closed with {end.code}",
            **facts,
        )


def _told_end(code: int, cause: EndReason, error_code: str, message: str) -> _End:
    return _End(code=code, cause=cause, reason=message, error=error_event(error_code, message))


def _failed(error: VoiceError) -> _End:
    """No channel could be opened. The message is ours, and holds no peer's text."""
    return _told_end(close_code_for(error), EndReason.VOICE_LOST, error.code, error.message)


def _died(error: VoiceClosed) -> _End:
    code = close_code_for(error)
    if error.close_code == NORMAL:
        return _End(code=NORMAL, cause=EndReason.AGENT_HUNG_UP)
    return _told_end(code, EndReason.VOICE_LOST, error.code, error.message)
