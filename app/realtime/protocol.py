"""One connection of the Realtime protocol, without the connection: text in, events out, and back.

`RealtimeProtocol` fills in ids and refuses to send what the state does not allow. Both sides use
it: the client of a voice model, and the server side of the offline engine. `ResponseGate` decides
when a `response.create` may go. Spelling is `app.realtime.dialect`'s, sockets and time are
`app.realtime.connection`'s.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any, Final, Generic, Literal, TypeVar, cast, overload

from app.errors import LocalProtocolError
from app.realtime.dialect import BETA, GA, Dialect
from app.realtime.events import (
    AudioDelta,
    AudioDone,
    AudioTranscriptDelta,
    AudioTranscriptDone,
    ClientEvent,
    ContentPartAdded,
    ContentPartDone,
    ErrorEvent,
    FunctionArgumentsDelta,
    FunctionArgumentsDone,
    InputAudioAppend,
    InputAudioCommitted,
    Item,
    ItemAdded,
    ItemCreate,
    ItemDelete,
    ItemDeleted,
    ItemDone,
    ItemRetrieve,
    ItemTruncate,
    ItemTruncated,
    OutputItemAdded,
    OutputItemDone,
    ResponseCancel,
    ResponseCreated,
    ResponseDone,
    ServerEvent,
    SessionCreated,
    SessionUpdate,
    SessionUpdated,
    SpeechStarted,
    TextDelta,
    TextDone,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
    Unknown,
)
from app.realtime.fields import MalformedEvent
from app.realtime.wire_session import OTHER_SPELLING

__all__ = [
    "ALREADY_ACTIVE",
    "GateState",
    "ProtocolState",
    "RealtimeProtocol",
    "Rejection",
    "ResponseGate",
    "Side",
]

_In = TypeVar("_In")
_Out = TypeVar("_Out")
_Placed = TypeVar("_Placed")
_Enclosing = TypeVar("_Enclosing", ResponseCreated, ResponseDone)


class Side(StrEnum):
    """The end of the connection that the protocol speaks for."""

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
        self.dialect = dialect
        self._dialect_settled = False
        self.state = ProtocolState.NEW
        self.last_event_id = ""
        self.oddities: list[str] = []
        """Differences from the protocol in what a server sent, for the reader to take away."""
        self._sent = 0
        self._ids = _Ids()
        self._own_names: set[type[ServerEvent]] = set()
        self._other_names: set[type[ServerEvent]] = set()

    def receive(self, text: str) -> _In:
        """Read one message of the peer.

        Raises:
            RemoteProtocolError: it breaks the protocol; the connection may go on.
            LocalProtocolError: the connection was closed by us.
        """
        if self.state is ProtocolState.CLOSED:
            raise LocalProtocolError("receive after close")
        if self.side is Side.SERVER:
            return cast(_In, self._receive_from_client(text))
        found: list[str] = []
        event = self._ids.fill(self._decode_server(text, found), found)
        if found:
            self.oddities += (f"{self._wire_type(event)}: {oddity}" for oddity in found)
        if isinstance(event, SessionUpdated):
            self.state = ProtocolState.CONFIGURED
        return cast(_In, event)

    def _decode_server(self, text: str, oddities: list[str]) -> ServerEvent:
        """Read an event of a server, which may name it as the other dialect does.

        Some name all or some events so. A delta under both names, which would be heard twice, is
        taken under the one that came first.
        """
        event = self.dialect.decode_server(text, oddities)
        if isinstance(event, Unknown):
            known = _other(self.dialect).decode_server(text, oddities)
            if isinstance(known, Unknown) or type(known) in self._own_names:
                return event
            oddities.append(f"type: named {event.type}")
            if isinstance(known, _Delta):
                self._other_names.add(type(known))
            return known
        if isinstance(event, _Delta):
            if type(event) in self._other_names:
                return Unknown(self._wire_type(event), {})
            self._own_names.add(type(event))
        return event

    def _receive_from_client(self, text: str) -> ClientEvent:
        """Read an event; the first `session.update` shows which dialect the client speaks."""
        try:
            event = self.dialect.decode_client(text)
        except MalformedEvent as error:
            if self._dialect_settled or error.code != OTHER_SPELLING:
                raise
            self.dialect = _other(self.dialect)
            event = self.dialect.decode_client(text)
        self._dialect_settled = self._dialect_settled or isinstance(event, SessionUpdate)
        return event

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
            told = self._ids.told(cast(ClientEvent, event))
            text = self.dialect.encode_client(told, event_id)
        self.last_event_id = event_id
        return text

    def append(self, audio: bytes) -> bytes:
        """Write an `InputAudioAppend`, UTF-8: what `send` does, at a fraction of the cost.

        Raises:
            LocalProtocolError: as `send`.
        """
        if self.state is not ProtocolState.CONFIGURED or self.side is not Side.CLIENT:
            return self.send(cast(_Out, InputAudioAppend(audio))).encode()
        self._sent += 1
        self.last_event_id = event_id = f"evt_{self._sent}"
        return self.dialect.encode_append(audio, event_id)

    def close(self) -> None:
        """No more events either way."""
        self.state = ProtocolState.CLOSED

    def _wire_type(self, event: ServerEvent) -> str:
        return self.dialect.server_type(type(event))

    def _check_may_send(self, event: _Out) -> None:
        if self.state is ProtocolState.CONFIGURED:
            return
        first = (
            (SessionUpdate, Unknown) if self.side is Side.CLIENT else (SessionCreated, ErrorEvent)
        )
        if self.state is ProtocolState.CLOSED or not isinstance(event, first):
            raise LocalProtocolError(f"{type(event).__name__} sent in state {self.state}")


_Delta = AudioDelta | AudioTranscriptDelta | TextDelta


def _other(dialect: Dialect) -> Dialect:
    return BETA if dialect is GA else GA


# Ids that a server leaves out, or uses again ------------------------------------------------------


class _Ids:
    """Fills in the ids that a server leaves out: they are those of what goes on.

    An event without a response id belongs to the response created last, one without an item id to
    the item that this response added last, a transcription to the caller's last item. A response
    whose creation had no id, or that of one that is over, keeps the one that is made for it,
    whatever later events call it. A piece whose item id no item of its response has belongs to the
    item added last. An item id that an earlier response had is given another name here, so that
    answers differ; the server is told its own.
    """

    def __init__(self) -> None:
        self._response_id = ""
        self._told_id = ""  # the server's own id of that response
        self._earlier_id = ""
        self._goes_on = ""  # the same, until it is over
        self._over: set[str] = set()  # the server's ids of responses that are over
        self._item_id = ""
        self._caller_item_id = ""
        self._made = 0
        self._owners: dict[str, str] = {}  # item id -> the response that had it first
        self._added: dict[str, str] = {}  # response -> the message that it added last
        self._not_added: dict[str, str] = {}  # response -> one that goes on and was never added
        self._names: dict[str, str] = {}  # item id that was used again -> its latest name
        self._server_ids: dict[str, str] = {}  # and back
        self._other_ids: dict[str, str] = {}  # item id -> that of the sound that came before it

    def fill(self, event: ServerEvent, oddities: list[str]) -> ServerEvent:
        """The event with all its ids; those that were missing are noted."""
        if (  # the usual case, fifty in a second
            isinstance(event, AudioDelta | AudioTranscriptDelta)
            and event.response_id
            and event.item_id
            and self._told_id == self._response_id
            and self._owners.get(event.item_id) == event.response_id
            and not self._other_ids
        ):
            if event.response_id == self._response_id:
                self._item_id = event.item_id
            return event
        if self._told_id != self._response_id and not isinstance(event, ResponseCreated):
            event = self._as_created(event)
        return self._apart(self._filled_in(event, oddities), oddities)

    def _filled_in(self, event: ServerEvent, oddities: list[str]) -> ServerEvent:
        match event:
            case ResponseCreated(response):
                if not response.id or (self._told_id, response.id) != (response.id, self._goes_on):
                    self._begin(response.id, oddities)
                if not response.id or response.id == self._response_id:
                    return self._with_response_id(event, oddities)
                return replace(event, response=replace(response, id=self._response_id))
            case ResponseDone(response):
                if response.id in {"", self._response_id} and self._goes_on:
                    self._over.add(self._goes_on)
                    self._goes_on = ""
                return self._with_response_id(event, oddities)
            case OutputItemAdded(item=item) | OutputItemDone(item=item):
                filled = self._filled(event, oddities, response_id=self._response_id)
                if filled.response_id == self._response_id and item.id:
                    self._item_id = item.id
                return filled
            case _ if isinstance(event, _MessagePiece):
                self._item_id = event.item_id or self._item_id or self._make("item")
                return self._filled(
                    event, oddities, response_id=self._response_id, item_id=self._item_id
                )
            case FunctionArgumentsDelta() | FunctionArgumentsDone():
                return self._filled(event, oddities, response_id=self._response_id)
            case SpeechStarted(item_id) | InputAudioCommitted(item_id) if item_id:
                self._caller_item_id = item_id
            case TranscriptionDelta() | TranscriptionCompleted() | TranscriptionFailed():
                return self._filled(event, oddities, item_id=self._caller_item_id)
            case _:
                pass
        return event

    def _begin(self, told_id: str, oddities: list[str]) -> None:
        """A response is created; its id may be that of one that is over."""
        self._earlier_id, self._told_id, self._goes_on = self._told_id, told_id, told_id
        self._response_id, self._item_id = told_id or self._make("response"), ""
        if told_id in self._over:
            oddities.append("response.id: used again")
            self._made += 1
            self._response_id = f"{told_id}@{self._made}"

    def _as_created(self, event: ServerEvent) -> ServerEvent:
        """The event under the id that was made for its response."""
        response = event.response if isinstance(event, ResponseDone) else None
        told: str = response.id if response else getattr(event, "response_id", "")
        if not told or self._told_id != told == self._earlier_id:
            return event
        self._told_id = self._told_id or told
        if told != self._told_id:
            return event
        if response:
            return replace(
                cast(ResponseDone, event), response=replace(response, id=self._response_id)
            )
        return cast(ServerEvent, replace(cast(Any, event), response_id=self._response_id))

    def _apart(self, event: ServerEvent, oddities: list[str]) -> ServerEvent:
        """The event with item ids that no other response has."""
        match event:
            case OutputItemAdded(response_id, _, item):
                return _with_item(event, self._add(item, response_id))
            case OutputItemDone(response_id, _, item):
                return _with_item(event, self._name(item.id, response_id))
            case ResponseDone(response) if response.output:
                output = tuple(
                    replace(item, id=self._name(item.id, response.id)) for item in response.output
                )
                same = output == response.output
                return event if same else replace(event, response=replace(response, output=output))
            case ItemAdded(item=item) | ItemDone(item=item) if self._names:
                return _with_item(event, self._names.get(item.id or "", item.id))
            case ItemTruncated(item_id) | ItemDeleted(item_id) if item_id in self._names:
                return replace(event, item_id=self._names[item_id])
            case FunctionArgumentsDelta() | FunctionArgumentsDone():
                name = self._name(event.item_id, event.response_id)
                return event if name == event.item_id else replace(event, item_id=name or "")
            case _ if isinstance(event, _MessagePiece):
                name = self._place(event, oddities)
                return event if name == event.item_id else replace(event, item_id=name)
            case _:
                return event

    def _add(self, item: Item, response_id: str) -> str | None:
        """The name of an item that its response adds, which sound may have come before."""
        sounding = self._not_added.pop(response_id, None)
        if item.type == "function_call" or not item.id:
            return self._name(item.id, response_id)
        if sounding is not None and sounding != item.id and response_id not in self._added:
            self._owners.setdefault(item.id, response_id)
            self._other_ids[item.id] = self._names[item.id] = sounding
            self._server_ids[sounding] = item.id
        name = self._name(item.id, response_id) or ""
        self._added[response_id] = name
        return name

    def _place(self, piece: _MessagePiece, oddities: list[str]) -> str:
        """The name of a piece's item; one that its response never added is the one added last."""
        item_id, response_id = piece.item_id, piece.response_id
        added = self._added.get(response_id)
        known = self._owners.get(item_id) == response_id or self._again(item_id, response_id)
        if added and not known:
            oddities.append("item_id: not of the response's items")
            return added
        name = self._name(item_id, response_id) or ""
        if not added and isinstance(piece, AudioDelta | AudioTranscriptDelta | TextDelta):
            self._not_added[response_id] = name
        else:
            self._not_added.pop(response_id, None)
        return name

    def _again(self, item_id: str, response_id: str) -> bool:
        return f"{item_id}@{response_id}" in self._server_ids

    def _name(self, item_id: str | None, response_id: str) -> str | None:
        if not item_id:
            return item_id
        if self._owners.setdefault(item_id, response_id) == response_id:
            return self._other_ids.get(item_id, item_id)
        name = f"{item_id}@{response_id}"
        self._names[item_id] = name
        self._server_ids.setdefault(name, item_id)
        return name

    def told(self, event: ClientEvent) -> ClientEvent:
        """The event with the server's own ids; without that of a response that it never named."""
        match event:
            case ResponseCancel(response_id) if response_id == self._response_id:
                return replace(event, response_id=self._told_id or None)
            case ItemTruncate(name) | ItemDelete(name) | ItemRetrieve(name):
                return replace(event, item_id=self._server_ids.get(name, name))
            case ItemCreate(previous_item_id=name) if name in self._server_ids:
                return replace(event, previous_item_id=self._server_ids[name])
            case _:
                return event

    def _with_response_id(self, event: _Enclosing, oddities: list[str]) -> _Enclosing:
        if event.response.id:
            return event
        oddities.append("response.id: missing")
        return replace(event, response=replace(event.response, id=self._response_id))

    @staticmethod
    def _filled(event: _Placed, oddities: list[str], **ids: str) -> _Placed:
        missing = {name: known for name, known in ids.items() if not getattr(event, name)}
        if not missing:
            return event
        oddities += (f"{name}: missing" for name in missing)
        return cast(_Placed, replace(cast(Any, event), **missing))

    def _make(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_without_id_{self._made}"


_MessagePiece = (
    ContentPartAdded
    | ContentPartDone
    | AudioDelta
    | AudioDone
    | AudioTranscriptDelta
    | AudioTranscriptDone
    | TextDelta
    | TextDone
)
"""Events about a part of a message."""


def _with_item(
    event: OutputItemAdded | OutputItemDone | ItemAdded | ItemDone, item_id: str | None
) -> ServerEvent:
    if event.item.id == item_id:
        return event
    return replace(event, item=replace(event.item, id=item_id))


# Response gate ------------------------------------------------------------------------------------

ALREADY_ACTIVE: Final = "conversation_already_has_active_response"  # OpenAI's error code


class GateState(StrEnum):
    """FREE -> REQUESTED -> ACTIVE -> CANCELLING -> FREE."""

    FREE = "free"
    REQUESTED = "requested"
    ACTIVE = "active"
    CANCELLING = "cancelling"


class Rejection(StrEnum):
    """The server's answer to a request that it turned down.

    OVERTAKEN: another response runs, so the request may be made again after it. REFUSED: for good.
    """

    OVERTAKEN = "overtaken"
    REFUSED = "refused"


class ResponseGate:
    """Lets one response at a time write to the conversation.

    What the server starts by itself after a caller's turn occupies the gate too; a response
    outside the conversation (`conversation: "none"`) does not and needs no request. Responses are
    told apart by id, so a late `response.done` of an older one changes nothing. What waits for the
    gate is kept by whoever asks: a call's is `app.agents.dialogue.response_queue`.

        if not gate.busy:
            gate.request(event_id, now_ms)
            await connection.send(ResponseCreate(config, event_id))

    A request is in flight from `request` until `response.created`, an error naming it, or the
    watchdog.
    """

    def __init__(self, *, watchdog_ms: int = 4_000) -> None:
        self.state = GateState.FREE
        self.active_response_id: str | None = None  # None while ACTIVE: one that we do not know
        self._watchdog_ms = watchdog_ms
        self._event_id = ""  # of the last request, until an error has named it
        self._waiting_since_ms: int | None = None
        self._cancel_next = False

    @property
    def busy(self) -> bool:
        """True while a response runs or was asked for: another one has to wait."""
        return self.state is not GateState.FREE

    def runs(self, response_id: str) -> bool:
        """True for the response that runs, as far as we know."""
        running = self.state in {GateState.ACTIVE, GateState.CANCELLING}
        return running and self.active_response_id in {None, response_id}

    @property
    def cancels_next(self) -> bool:
        """True where what was requested is to be cancelled as soon as it begins."""
        return self._cancel_next

    def request(self, event_id: str, now_ms: int) -> None:
        """A `response.create` goes out as `event_id`.

        Raises:
            LocalProtocolError: a response runs already, or was asked for.
        """
        if self.busy:
            raise LocalProtocolError(f"response requested in state {self.state}")
        self._enter(GateState.REQUESTED, None)
        self._event_id = event_id
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

    def on_done(self, response_id: str) -> None:
        """`response.done`: the gate is free, if that response held it."""
        if self.runs(response_id):
            self._enter(GateState.FREE, None)

    def on_error(self, client_event_id: str | None, code: str | None) -> Rejection | None:
        """An error of the server: tells whether it rejects what was requested.

        Only an error that names our `response.create` counts, or one without a name whose code
        can be about nothing else. One that names it may also come later: after the server's own
        response, which it met, has begun or even ended.
        """
        requested = self.state is GateState.REQUESTED
        named = bool(client_event_id) and client_event_id == self._event_id
        unnamed = requested and not client_event_id and code == ALREADY_ACTIVE
        if not (named or unnamed):
            return None
        self._event_id = ""
        if code == ALREADY_ACTIVE:
            if requested or not self.busy:  # somebody's response runs, we missed whose
                self._enter(GateState.ACTIVE, None)
            return Rejection.OVERTAKEN
        if requested:
            self._enter(GateState.FREE, None)
        return Rejection.REFUSED

    def cancel(self) -> str | None:
        """Give up the response that runs: returns the id to cancel, if there is one to name.

        One that was requested and not yet created is cancelled as soon as it is: `on_created`
        returns its id then.
        """
        if self.state is GateState.REQUESTED:
            self._cancel_next = True
        if self.state is not GateState.ACTIVE or self.active_response_id is None:
            return None
        self._enter(GateState.CANCELLING, self.active_response_id)
        return self.active_response_id

    def on_tick(self, now_ms: int) -> GateState | None:
        """The watchdog: returns the state in which the server left us; the gate is free again.

        It watches a request without `response.created`, a cancel without `response.done`, and an
        active response whose id we never learned.
        """
        if self.state is GateState.FREE or (
            self.state is GateState.ACTIVE and self.active_response_id is not None
        ):
            return None
        if self._waiting_since_ms is None:
            self._waiting_since_ms = now_ms
        if now_ms - self._waiting_since_ms < self._watchdog_ms:
            return None
        state = self.state
        self.reset()
        return state

    def reset(self) -> None:
        """Nothing runs and nothing was asked for, as on a fresh connection."""
        self._event_id = ""
        self._enter(GateState.FREE, None)

    def _enter(self, state: GateState, response_id: str | None) -> None:
        self.state = state
        self.active_response_id = response_id
        self._waiting_since_ms = None
        if state is not GateState.ACTIVE:
            self._cancel_next = False
