"""The carrier seam: phone calls as the rest of Trunkline sees them.

A carrier turns signed webhooks into `IncomingCall` values, answers them, and opens a `MediaStream`
that gives `StreamEvent` values and takes agent audio. Message names, markup and signatures of a
real carrier stay in its own folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NewType, Protocol

from audio.format import PCMU_8K, AudioFormat

__all__ = [
    "CallControl",
    "CallDirection",
    "CallProgress",
    "CallerAudio",
    "CallerIdPolicy",
    "Carrier",
    "CarrierCallId",
    "Destination",
    "DestinationKind",
    "Dtmf",
    "Fallback",
    "IncomingCall",
    "LegAnswer",
    "LegOrder",
    "LegStatus",
    "MarkReached",
    "MediaStream",
    "NullListener",
    "PlacedReport",
    "PlacedStatus",
    "PlacementOrder",
    "PlacingCarrier",
    "PlacingPaths",
    "Screening",
    "StreamEvent",
    "StreamId",
    "StreamListener",
    "StreamStarted",
    "StreamStopped",
    "TransferId",
    "TransferOrder",
    "TransferOutcome",
    "TransferPaths",
    "TransferResult",
]

CarrierCallId = NewType("CarrierCallId", str)
StreamId = NewType("StreamId", str)
TransferId = NewType("TransferId", str)
"""Ours, unguessable, 8 to 64 URL-safe characters: it names one transfer in webhooks."""


class CallDirection(StrEnum):
    """The side that started the call."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CallProgress(StrEnum):
    """A call's progress at the carrier. Ordered by `rank`; a later report never goes back."""

    QUEUED = "queued"
    INITIATED = "initiated"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def ended(self) -> bool:
        return self.rank == 4

    @property
    def rank(self) -> int:
        return {"queued": 0, "initiated": 1, "ringing": 2, "in-progress": 3}.get(self.value, 4)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncomingCall:
    """A call that the carrier asks us to answer. Its numbers do not prove identity.

    The caller is the party that talks with the agent, and the called number is ours, also where the
    call was placed to them: `direction` says so.

    `caller_verified`: the network vouches that the caller may use `caller_number`. `ringing`: the
    carrier says that nobody has answered the call yet. `carried`: a carrier bills its minutes; a
    call from a page of the console has none.
    """

    carrier_call_id: CarrierCallId
    account_id: str
    caller_number: str
    called_number: str
    direction: CallDirection = CallDirection.INBOUND
    caller_verified: bool = False
    ringing: bool = False
    carried: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStarted:
    """The media stream is open; nothing may be sent before it."""

    stream_id: StreamId
    carrier_call_id: CarrierCallId
    account_id: str
    audio_format: AudioFormat = PCMU_8K
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallerAudio:
    """Caller audio in the stream's format; `timestamp_ms` counts from the stream's start."""

    payload: bytes
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Dtmf:
    """The caller pressed a key: one of `0-9 * # A-D`."""

    digit: str


@dataclass(frozen=True, slots=True)
class MarkReached:
    """Everything sent before the mark was played or cleared; only its name shows which."""

    name: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The stream is over. `hung_up` is False when the socket was lost without a stop message."""

    hung_up: bool


StreamEvent = StreamStarted | CallerAudio | Dtmf | MarkReached | StreamStopped


class DestinationKind(StrEnum):
    """The kinds of addresses."""

    NUMBER = "number"
    SIP = "sip"
    QUEUE = "queue"


class CallerIdPolicy(StrEnum):
    """The number that the person who is called sees."""

    OURS = "ours"
    CALLER = "caller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A named destination of transfers. Made from configuration, never by a model.

    `spoken` is the name as people say it, `description` tells a model what it is for. A person who
    is asked for a key hears `announcement` first. `ring_s` is how long it may ring; for a queue,
    how long the caller may wait. `screened` asks the person for a key before the two are
    connected. `warm`: the caller stays with the agent until the person has accepted.
    """

    name: str
    kind: DestinationKind
    address: str
    spoken: str = ""
    description: str = ""
    announcement: str = ""
    caller_id: CallerIdPolicy = CallerIdPolicy.OURS
    ring_s: int = 20
    extension: str = ""
    screened: bool = False
    detect_voicemail: bool = False
    warm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """The way to a destination for a caller whose agent is lost: the carrier connects them."""

    to: Destination
    caller_number: str
    our_number: str


class TransferOutcome(StrEnum):
    """The outcomes of a transfer. `canceled`: the caller was gone before they could be connected.

    `unknown`: it goes on without us, or somebody outside has ended it.
    """

    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no_answer"
    DECLINED = "declined"
    VOICEMAIL = "voicemail"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"


class Screening(StrEnum):
    """The answers of a person who was asked for a key."""

    ACCEPTED = "accepted"
    DECLINED = "declined"
    NO_KEY = "no_key"
    MACHINE = "machine"


@dataclass(frozen=True, slots=True)
class TransferResult:
    """An outcome, and what the carrier said that it was read from: words for a log."""

    outcome: TransferOutcome
    evidence: str


class LegAnswer(StrEnum):
    """The replies to a person who was asked for a key."""

    CONNECT = "connect"
    JOIN = "join"  # the same, where the caller is brought in by us
    DECLINE = "decline"
    TOO_LATE = "too_late"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegStatus:
    """The progress of a leg that we placed; `result` once it has ended."""

    leg_id: CarrierCallId
    progress: CallProgress
    result: TransferResult | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferPaths:
    """The paths of a carrier's webhooks about transfers."""

    over: str
    question: str
    keys: str
    machine: str
    leg: str
    conference: str
    queue_wait: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOrder:
    """A cold transfer: the caller leaves the stream and hears the destination ring."""

    transfer_id: TransferId
    carrier_call_id: CarrierCallId
    destination: Destination
    caller_number: str
    our_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LegOrder:
    """The consult leg of a warm transfer: a person is called, hears `prompt` and presses a key."""

    transfer_id: TransferId
    destination: Destination
    our_number: str
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementOrder:
    """A call to somebody, who is connected with an agent when they answer.

    `reference` is ours, 8 to 64 URL-safe characters: webhooks bring it. `machine_detection` is
    `fast`, `message_end` or `off`.
    """

    reference: str
    to: str
    from_number: str
    ring_s: int
    machine_detection: str = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedReport:
    """The carrier's report of a call that we placed.

    `code` and `reason` say, in the carrier's number and in plain words, why it came to nothing.
    """

    carrier_call_id: CarrierCallId
    progress: CallProgress
    code: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedStatus:
    """A call as the carrier lists it; `created_at` is Unix time."""

    carrier_call_id: CarrierCallId
    progress: CallProgress
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingPaths:
    """The paths of a carrier's webhooks about calls that we place; `reference` is in the query."""

    answer: str
    status: str
    machine: str


class PlacingCarrier(Protocol):
    """The requests of calls that we place.

    Raises `CarrierRefused` when nothing has happened, with `retryable` where that may change by
    itself, and `CarrierUnavailable` when the carrier did not answer, so that it may have.
    """

    async def place(self, order: PlacementOrder) -> CarrierCallId:
        """Call somebody. Sent once: a second request would ring a second time."""
        ...

    async def placed_to(self, number: str, from_number: str) -> list[PlacedStatus]:
        """The latest calls from one number to another, in any state."""
        ...

    async def placed_status(self, carrier_call_id: CarrierCallId) -> PlacedReport:
        """The state of a call."""
        ...

    async def cancel_leg(self, leg_id: CarrierCallId) -> None:
        """End a call, ringing or answered; one that is already gone is success."""
        ...


class StreamListener(Protocol):
    """Takes what comes on a stream, in the turn of the loop that read it. Waits for nothing."""

    def on_audio(self, payload: bytes, timestamp_ms: int) -> None:
        """Take caller audio, as in `CallerAudio`. Fifty times a second."""
        ...

    def on_event(self, event: StreamEvent) -> None:
        """Take anything else; `StreamStopped` is the last."""
        ...

    def on_writable(self) -> None:
        """The peer has caught up: a sender that said no may be asked again."""
        ...


class NullListener:
    """The listener of a stream that nobody listens to."""

    def on_audio(self, payload: bytes, timestamp_ms: int) -> None:
        pass

    def on_event(self, event: StreamEvent) -> None:
        pass

    def on_writable(self) -> None:
        pass


class MediaStream(Protocol):
    """One open media websocket.

    The senders wait for nothing. They return False, and have sent nothing, while the peer is
    behind or once it is gone; `on_writable` or the end of `deliver` follows.
    """

    started: StreamStarted
    """The stream's first event, already read when the stream is handed out."""

    async def deliver(self, listener: StreamListener) -> None:
        """Tell a listener all that comes; returns after `StreamStopped`.

        That is always the last event, also when the socket broke. A later listener replaces an
        earlier one.

        Raises:
            CarrierUnavailable: the peer has left what we send unread for too long.
            Exception: what the listener raised.
        """
        ...

    def send_audio(self, payload: bytes, mark: str | None = None) -> bool:
        """Send agent audio, and a mark behind it."""
        ...

    def clear(self) -> bool:
        """Drop what the carrier has not played; all outstanding marks come back."""
        ...

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the socket; safe to call twice."""
        ...


class Carrier(Protocol):
    """The requests of calls to a carrier, besides the stream."""

    async def hang_up(self, carrier_call_id: CarrierCallId) -> None:
        """End the call at the carrier; a call that is already gone is success.

        Raises:
            CarrierUnavailable: after the carrier's own retries.
            CarrierRefused: the carrier said no.
        """
        ...

    async def in_progress(self, carrier_call_id: CarrierCallId) -> bool:
        """True while the call goes on at the carrier, even when its stream is over.

        Raises:
            CarrierUnavailable, CarrierRefused: the carrier did not say.
        """
        ...


class CallControl(Carrier, Protocol):
    """Further requests about a live call.

    Every method raises `CarrierRefused` when the carrier said no (nothing has happened then) and
    `CarrierUnavailable` when it did not answer: only requests that may be sent twice are tried
    again, so after the others the call may or may not have been changed.
    """

    async def transfer(self, order: TransferOrder) -> None:
        """Send the caller to a destination; the stream stops. The outcome comes by webhook."""
        ...

    async def place_leg(self, order: LegOrder) -> CarrierCallId:
        """Call a person for a warm transfer; the caller's stream goes on meanwhile."""
        ...

    async def cancel_leg(self, leg_id: CarrierCallId) -> None:
        """End a leg, ringing or answered; one that is already gone is success."""
        ...

    async def join(self, carrier_call_id: CarrierCallId, transfer_id: TransferId) -> None:
        """Bring the caller together with the person who accepted; the stream stops."""
        ...

    async def redirect(
        self, carrier_call_id: CarrierCallId, token: str, fallback: Fallback | None = None
    ) -> None:
        """Put the call on a new stream, which brings `token`; the old one stops."""
        ...

    async def send_digits(
        self,
        carrier_call_id: CarrierCallId,
        digits: str,
        token: str,
        fallback: Fallback | None = None,
    ) -> None:
        """Send tones into the call; the stream stops, and a new one brings `token`."""
        ...

    async def send_sms(self, *, to_number: str, our_number: str, body: str) -> str:
        """Send a text message; its id at the carrier. The caller has checked the recipient."""
        ...
