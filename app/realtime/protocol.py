"""One connection of the Realtime protocol, without the connection: text in, events out, and back.

`RealtimeProtocol` fills in event ids and refuses to send what the state does not allow. Its two
sides share it: a client of OpenAI, a server of our own engine. `ResponseGate` decides when a
`response.create` may go. Spelling is `app.realtime.dialect`'s, sockets and time are
`app.realtime.connection`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, Generic, Literal, TypeVar, cast, overload

from app.errors import LocalProtocolError
from app.realtime.dialect import (
    GA,
    Dialect,
)
from app.realtime.events import (
    ClientEvent,
    ErrorEvent,
    ResponseConfig,
    ServerEvent,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    Unknown,
)

__all__ = [
    "ALREADY_ACTIVE",
    "NOTHING",
    "Expired",
    "GateState",
    "Nothing",
    "ProtocolState",
    "RealtimeProtocol",
    "ResponseGate",
    "Side",
]

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class Side(StrEnum):
    """Which end of the connection we are."""

    CLIENT = "client"
    SERVER = "server"


class ProtocolState(StrEnum):
    """NEW until the session is agreed on, then CONFIGURED, CLOSED after `close()`.

    A client is configured by `session.updated`, a server by sending `session.created`.
    """

    NEW = "new"
    CONFIGURED = "configured"
    CLOSED = "closed"


class RealtimeProtocol(Generic[_In, _Out]):
    """Text to events and events to text, for one side of one connection.

    `RealtimeProtocol(Side.CLIENT)` receives server events and sends client events;
    `RealtimeProtocol(Side.SERVER)` the other way round.
    """

    @overload
    def __init__(
        self: RealtimeProtocol[ServerEvent, ClientEvent],
        side: Literal[Side.CLIENT],
        dialect: Dialect = GA,
    ) -> None: ...

    @overload
    def __init__(
        self: RealtimeProtocol[ClientEvent, ServerEvent],
        side: Literal[Side.SERVER],
        dialect: Dialect = GA,
    ) -> None: ...

    def __init__(self, side: Side, dialect: Dialect = GA) -> None:
        self.side: Final = side
        self.dialect: Final = dialect
        self.state = ProtocolState.NEW
        self.last_event_id = ""
        self._sent = 0

    def receive(self, text: str) -> _In:
        """Read one message of the peer.

        Raises:
            RemoteProtocolError: it breaks the protocol; the connection may go on.
            LocalProtocolError: the connection was closed by us.
        """
        if self.state is ProtocolState.CLOSED:
            raise LocalProtocolError("receive after close")
        if self.side is Side.SERVER:
            return cast(_In, self.dialect.decode_client(text))
        event = self.dialect.decode_server(text)
        if isinstance(event, SessionUpdated):
            self.state = ProtocolState.CONFIGURED
        return cast(_In, event)

    def send(self, event: _Out) -> str:
        """Write one event. Its id, its own or one made here, is then `last_event_id`.

        Raises:
            LocalProtocolError: not an event of this side, or not one that may be sent now.
        """
        self._check_may_send(event)
        event_id: str = getattr(event, "event_id", "")
        if not event_id:
            # An error names the event that caused it: every event needs an id of its own.
            self._sent += 1
            event_id = f"{'evt' if self.side is Side.CLIENT else 'event'}_{self._sent}"
        if self.side is Side.SERVER:
            text = self.dialect.encode_server(cast(ServerEvent, event), event_id)
            if isinstance(event, SessionCreated):
                self.state = ProtocolState.CONFIGURED
        else:
            text = self.dialect.encode_client(cast(ClientEvent, event), event_id)
        self.last_event_id = event_id
        return text

    def close(self) -> None:
        """No more events either way."""
        self.state = ProtocolState.CLOSED

    def _check_may_send(self, event: _Out) -> None:
        if self.state is ProtocolState.CONFIGURED:
            return
        first = (
            (SessionUpdate, Unknown) if self.side is Side.CLIENT else (SessionCreated, ErrorEvent)
        )
        if self.state is ProtocolState.CLOSED or not isinstance(event, first):
            raise LocalProtocolError(f"{type(event).__name__} sent in state {self.state}")


# Response gate ------------------------------------------------------------------------------------

ALREADY_ACTIVE: Final = "conversation_already_has_active_response"  # OpenAI's error code


class Nothing(Enum):
    """No request at all, where `None` is a request without overrides."""

    NOTHING = "nothing"

    def __repr__(self) -> str:
        return "NOTHING"

    def __bool__(self) -> bool:
        return False


NOTHING: Final = Nothing.NOTHING
Request = ResponseConfig | None


class GateState(StrEnum):
    """FREE -> REQUESTED -> ACTIVE -> CANCELLING -> FREE."""

    FREE = "free"
    REQUESTED = "requested"
    ACTIVE = "active"
    CANCELLING = "cancelling"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """The server left us waiting in `state`; `wanted` is the request that is still unanswered.

    `event_id` is that of our `response.create`, if one was waiting. The gate is free again.
    """

    state: GateState
    event_id: str
    wanted: Request | Nothing


def _merge(older: Request | Nothing, newer: Request | Nothing) -> Request | Nothing:
    """Two requests as one: the latest with overrides wins, a plain one never displaces it."""
    if isinstance(newer, Nothing) or (newer is None and not isinstance(older, Nothing)):
        return older
    return newer


class ResponseGate:
    """Lets one response at a time write to the conversation.

    A request made while a response runs waits for its `response.done`; several that wait become
    one. What the server starts by itself after a caller's turn occupies the gate too; a response
    outside the conversation (`conversation: "none"`) does not and needs no request. Responses are
    told apart by id, so a late `response.done` of an older one changes nothing.

        if gate.request(now_ms, config):
            gate.sent(await connection.send(ResponseCreate(config)), now_ms)
        ...
        wanted = gate.on_done(response_id)
        if wanted is not NOTHING:
            gate.sent(await connection.send(ResponseCreate(wanted)), now_ms)

    Where another task may receive before `send` returns, choose the event's id yourself and call
    `sent` first. A request is in flight from `request` (or from `on_done` and `on_error`, when
    they return it) until `response.created`, an error naming it, or the watchdog.
    """

    def __init__(self, *, watchdog_ms: int = 4_000) -> None:
        self.state = GateState.FREE
        self.active_response_id: str | None = None  # None while ACTIVE: one that we do not know
        self._watchdog_ms = watchdog_ms
        self._in_flight: Request | Nothing = NOTHING
        self._event_id = ""
        self._pending: Request | Nothing = NOTHING
        self._waiting_since_ms: int | None = None
        self._cancel_next = False

    @property
    def busy(self) -> bool:
        """Whether a request made now would have to wait."""
        return self.state is not GateState.FREE

    def runs(self, response_id: str) -> bool:
        """Whether this response is the one that runs, as far as we know."""
        running = self.state in {GateState.ACTIVE, GateState.CANCELLING}
        return running and self.active_response_id in {None, response_id}

    @property
    def cancels_next(self) -> bool:
        """Whether what was requested is to be cancelled as soon as it begins."""
        return self._cancel_next

    @property
    def has_pending(self) -> bool:
        """Whether a request waits for the response that runs."""
        return self._pending is not NOTHING

    def request(self, now_ms: int, config: ResponseConfig | None = None) -> bool:
        """Ask for a response: true to send `response.create` now, false when it has to wait."""
        if self.busy:
            self._pending = _merge(self._pending, config)
            return False
        self._launch(config)
        self._waiting_since_ms = now_ms
        return True

    def sent(self, event_id: str, now_ms: int) -> None:
        """The `response.create` in flight went out as `event_id`."""
        self._event_id = event_id
        if self.state is GateState.REQUESTED:
            self._waiting_since_ms = now_ms

    def on_created(self, response_id: str, *, out_of_band: bool = False) -> str | None:
        """`response.created`: returns the id if it is to be cancelled at once (see `cancel`)."""
        if out_of_band or response_id == self.active_response_id:
            return None
        # Ours or the server's own: the wire does not say. If ours comes second, its error does.
        self._enter(GateState.ACTIVE, response_id)
        if not self._cancel_next:
            return None
        return self.cancel()

    def on_done(self, response_id: str) -> Request | Nothing:
        """`response.done`: returns the request to send now, or `NOTHING`."""
        return self._release() if self.runs(response_id) else NOTHING

    def on_error(self, client_event_id: str | None, code: str | None) -> Request | Nothing:
        """An error of the server: returns the request to send now, or `NOTHING`.

        Only an error that names our `response.create` counts, or one without a name whose code
        can be about nothing else.
        """
        if isinstance(self._in_flight, Nothing):
            return NOTHING
        requested = self.state is GateState.REQUESTED
        named = bool(client_event_id) and client_event_id == self._event_id
        unnamed = requested and not client_event_id and code == ALREADY_ACTIVE
        if not (named or unnamed):
            return NOTHING
        unanswered, self._in_flight = self._in_flight, NOTHING
        if code == ALREADY_ACTIVE:
            self._pending = _merge(unanswered, self._pending)
            if requested or not self.busy:  # somebody's response runs, we missed whose
                self._enter(GateState.ACTIVE, None)
            return NOTHING
        return self._release() if requested else NOTHING

    def cancel(self) -> str | None:
        """Give up the response that runs: returns the id to cancel, if there is one to name.

        One that was requested and not yet created is cancelled as soon as it is: `on_created`
        returns its id then. Requests that wait are kept; see `drop_pending`.
        """
        if self.state is GateState.REQUESTED:
            self._cancel_next = True
        if self.state is not GateState.ACTIVE or self.active_response_id is None:
            return None
        self._enter(GateState.CANCELLING, self.active_response_id)
        return self.active_response_id

    def drop_pending(self) -> bool:
        """Forget the request that waits; true if there was one."""
        dropped = self.has_pending
        self._pending = NOTHING
        return dropped

    def on_tick(self, now_ms: int) -> Expired | Nothing:
        """The watchdog: a server that does not answer must not keep the gate shut.

        It watches a request without `response.created`, a cancel without `response.done`, and an
        active response whose id we never learned.
        """
        if self.state is GateState.FREE or (
            self.state is GateState.ACTIVE and self.active_response_id is not None
        ):
            return NOTHING
        if self._waiting_since_ms is None:
            self._waiting_since_ms = now_ms
        if now_ms - self._waiting_since_ms < self._watchdog_ms:
            return NOTHING
        unanswered = self._in_flight if self.state is GateState.REQUESTED else NOTHING
        expired = Expired(
            state=self.state,
            event_id=self._event_id,
            wanted=_merge(unanswered, self._pending),
        )
        self.reset()
        return expired

    def reset(self) -> None:
        """A fresh connection: nothing runs on it, and nothing was asked for."""
        self._in_flight = self._pending = NOTHING
        self._enter(GateState.FREE, None)

    def _launch(self, config: Request) -> None:
        self._enter(GateState.REQUESTED, None)
        self._in_flight = config
        self._event_id = ""

    def _release(self) -> Request | Nothing:
        """The way is free: launch what waits.

        What was in flight is remembered: if the response that ended was the server's own, the
        error that rejects ours may be still to come.
        """
        self._enter(GateState.FREE, None)
        wanted, self._pending = self._pending, NOTHING
        if not isinstance(wanted, Nothing):
            self._launch(wanted)
        return wanted

    def _enter(self, state: GateState, response_id: str | None) -> None:
        self.state = state
        self.active_response_id = response_id
        self._waiting_since_ms = None
        if state is not GateState.ACTIVE:
            self._cancel_next = False
