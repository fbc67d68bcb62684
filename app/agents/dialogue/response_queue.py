"""One queue for everything the agent is to say next, sent one response at a time.

`ResponseGate` (`app.realtime.protocol`) knows whether a response runs. Here is what waits for it,
in the order in which it will be said; the table in `app.agents.dialogue.response_kinds` says what
each kind of request waits for and what drops it. Pure.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from app.agents.dialogue.actions import ToVoice
from app.agents.dialogue.messages import ModelMessages
from app.agents.dialogue.response_kinds import REPLY, Kind, Moment, OnLoss, ResponseRequest
from app.realtime.events import (
    SAY_METADATA_KEY,
    ItemCreate,
    Response,
    ResponseConfig,
    ResponseCreate,
    Unset,
)
from app.realtime.protocol import GateState, Rejection, ResponseGate

__all__ = ["ResponseQueue"]


class ResponseQueue:
    """The responses of one conversation that were asked for and have not begun.

    `running` is the request that the current response answers, as far as that is certain.
    """

    def __init__(self, gate: ResponseGate, messages: ModelMessages) -> None:
        self.running: ResponseRequest | None = None
        self._gate = gate
        self._messages = messages
        self._waiting: list[ResponseRequest] = []
        self._told: dict[str, ResponseRequest] = {}  # by the event that created the note
        self._sent = REPLY
        self._assumed: ResponseRequest | None = None  # like `running`, but from timing alone
        self._server_echoes = False
        self._caller_speaks = False
        self._connected = True

    @property
    def sentence(self) -> str:
        """The words that the current response was told to say.

        A server that has never named a response is believed to have begun what it was asked for.
        """
        request = self.running if self._server_echoes else self._assumed
        return "" if request is None else request.sentence

    @property
    def waits_for_quiet(self) -> bool:
        """True while words wait for a quiet moment."""
        return any(request.kind is Kind.IDLE_MESSAGE for request in self._waiting)

    @property
    def waits_to_reply(self) -> bool:
        """True while something waits to be said that waits for no silence."""
        return any(request.kind is not Kind.IDLE_MESSAGE for request in self._waiting)

    def asks_for(self, request: ResponseRequest) -> bool:
        """True while these words are asked for and have not begun."""
        return self._gate.state is GateState.REQUESTED and self._sent.config == request.config

    # Asking -------------------------------------------------------------------------------------

    def ask(self, now_ms: int, request: ResponseRequest = REPLY) -> list[ToVoice]:
        """Ask for a response: it is sent now, or waits for its moment."""
        if request.kind is Kind.REPLY and not self._connected:
            request = _DEFERRED
        self._add(request)
        # One that waits for quiet is sent by `on_quiet`, and hurries nothing before it.
        waits = request.rules.begins_when >= Moment.QUIET
        sent = [] if waits else self._next(now_ms)
        if request.rules.optional:
            self._drop(lambda waiting: waiting is request)
        return sent

    def ask_after_tools(self, now_ms: int) -> list[ToVoice]:
        """Ask for the reply to what tools found."""
        return self.ask(now_ms, _DEFERRED if self._caller_speaks else REPLY)

    def ask_again(self, now_ms: int) -> list[ToVoice]:
        """Ask again for what the response that just failed was to say."""
        request = self.running or REPLY
        return [] if request.rules.optional else self.ask(now_ms, request)

    def tell(self, request: ResponseRequest) -> list[ToVoice]:
        """Send what the model has to know for a request."""
        if request.note is None:
            return []
        note_id = self._messages.new_id("sys")
        self._told[note_id] = request
        if len(self._told) > _REMEMBERED_NOTES:
            del self._told[next(iter(self._told))]
        return [self._messages.create(ItemCreate(replace(request.note, id=note_id)))]

    def forget(self) -> None:
        """Drop the reply that waits; words are kept."""
        self._drop(lambda request: request.rules.dropped_by_speech)

    def forget_all(self) -> None:
        """Drop everything that waits."""
        self._waiting.clear()
        self._told.clear()

    def withdraw(self, sentence: str) -> None:
        """Drop a sentence that still waits, however often it was asked for."""
        self._drop(lambda request: request.sentence == sentence)

    # Events -------------------------------------------------------------------------------------

    def on_caller_speech(self) -> None:
        """The caller speaks: their turn will be answered, with all that is known by then."""
        self._caller_speaks = True
        self.forget()

    def on_caller_turn(self) -> None:
        """The caller's turn was taken into the conversation."""
        self._caller_speaks = False

    def on_quiet(self, now_ms: int, *, on_hold: bool = False) -> list[ToVoice]:
        """Nobody speaks and nothing is on its way; `on_hold`: the caller asked for the silence."""
        self._caller_speaks = False
        return self._next(now_ms, Moment.QUIET if on_hold else Moment.IDLE)

    def on_created(self, response: Response) -> str | None:
        """`response.created`: returns the id if it is to be cancelled at once."""
        self._assumed = self._sent if self._gate.state is GateState.REQUESTED else None
        self._server_echoes = self._server_echoes or SAY_METADATA_KEY in response.metadata
        ours = self._assumed is not None and _answers(self._assumed, response)
        self.running = self._assumed if ours else None
        cancelled = self._gate.on_created(response.id)
        if cancelled is None and not self._caller_speaks:
            # It knows what the tools found: their output was sent before it began.
            self._drop(lambda request: request.kind is Kind.DEFERRED_REPLY)
        return cancelled

    def on_done(self, response_id: str, now_ms: int) -> list[ToVoice]:
        """`response.done`: returns what is to be sent now."""
        self._gate.on_done(response_id)
        return self._next(now_ms)

    def on_error(self, client_event_id: str | None, code: str, now_ms: int) -> list[ToVoice]:
        """An error of the model, which may reject what was asked for."""
        if self._gate.on_error(client_event_id, code) is Rejection.OVERTAKEN:
            self.running = self._assumed = None  # the server's own response runs
            self._put_back(self._sent)
        return self._next(now_ms)

    def on_note_refused(
        self, refused: ItemCreate, again: ItemCreate | None, now_ms: int
    ) -> list[ToVoice]:
        """The model refused what it has to know for a request; `again` is its next form, if any.

        A request that was sent by then is made once more, since its response knows nothing of it.
        What no item can tell is told by the instructions of the response itself.
        """
        request = self._told.pop(refused.event_id, None)
        if request is None:
            return []
        sent_as = better = request if request.config else REPLY
        if again is not None:
            self._told[again.event_id] = request
        else:
            text = " ".join(part.text or "" for part in refused.item.content)
            config = replace(request.config or ResponseConfig(), instructions=text)
            better = replace(request, note=None, config=config)
        if request.kind is Kind.REPLY and self._caller_speaks:  # their turn will be answered
            return []
        if sent_as in self._waiting:
            self._waiting[self._waiting.index(sent_as)] = better
            return []
        return self.ask(now_ms, better)

    def after_timeout(self, state: GateState, now_ms: int) -> list[ToVoice]:
        """Ask again for what was unanswered, and go on with what waits behind it."""
        if state is GateState.REQUESTED:
            self._put_back(self._sent)
        return self._next(now_ms)

    def on_lost(self, *, begun: bool) -> None:
        """The connection is gone; `begun`: some of the current response is known already."""
        lost = self._lost_message(begun=begun)
        if lost is not None and REPLY in self._waiting:
            self._add(_DEFERRED)  # else nobody asks for the reply: the lost message comes first
        self._drop(lambda request: request.rules.on_loss is OnLoss.DROPPED)
        if lost is not None:
            self._put_back(replace(lost, kind=Kind.RESUMED))
        self.running = None
        self._connected = self._caller_speaks = False
        self._told.clear()
        self._gate.reset()

    def on_reconnected(self, now_ms: int) -> list[ToVoice]:
        """A fresh connection: nothing runs on it, and it was told nothing of what waits."""
        self._connected = True
        resumes = any(request.rules.on_loss is OnLoss.SENT_FIRST for request in self._waiting)
        if _DEFERRED in self._waiting:
            self._drop(lambda request: request.kind is Kind.DEFERRED_REPLY)
            self._add(REPLY)
        told = [request for request in self._waiting if request.kind is not Kind.IDLE_MESSAGE]
        actions = [event for request in told for event in self.tell(request)]
        return actions + (self._next(now_ms) if resumes else [])

    def _lost_message(self, *, begun: bool) -> ResponseRequest | None:
        """A message that was asked for, is still wanted, and of which nothing was said."""
        if self._gate.state is GateState.REQUESTED and not self._gate.cancels_next:
            request: ResponseRequest | None = self._sent
        else:
            request = self.running if self._gate.state is GateState.ACTIVE and not begun else None
        if request is None or request.config is None or request.rules.optional:
            return None
        return request

    # Queue --------------------------------------------------------------------------------------

    def _add(self, request: ResponseRequest) -> None:
        if not (request.rules.joined and request in self._waiting):
            at = bisect_right(self._waiting, request.rank, key=_rank)
            self._waiting.insert(at, request)

    def _put_back(self, request: ResponseRequest) -> None:
        """Queue again, ahead of its kind, what was sent and came to nothing."""
        if not request.rules.optional and not (request.rules.joined and request in self._waiting):
            at = bisect_left(self._waiting, request.rank, key=_rank)
            self._waiting.insert(at, request)

    def _drop(self, unwanted: Callable[[ResponseRequest], bool]) -> None:
        self._waiting = [request for request in self._waiting if not unwanted(request)]

    def _next(self, now_ms: int, moment: Moment = Moment.CALLER_SILENT) -> list[ToVoice]:
        """Send the first request whose moment this is."""
        if self._gate.busy or not self._connected:
            return []
        if self._caller_speaks:
            moment = Moment.FREE
        due = (n for n, waiting in enumerate(self._waiting) if waiting.rules.begins_when <= moment)
        at = next(due, None)
        if at is None:
            return []
        request = self._waiting.pop(at)
        actions: list[ToVoice] = []
        if request.kind is Kind.IDLE_MESSAGE:  # its note was not told yet
            request = replace(request, kind=Kind.MESSAGE)
            actions = self.tell(request)
        self._sent = REPLY if request.kind is Kind.DEFERRED_REPLY else request
        event_id = self._messages.new_id("ask")
        self._gate.request(event_id, now_ms)
        return [*actions, ToVoice(ResponseCreate(request.config, event_id))]


_REMEMBERED_NOTES: Final = 100
_DEFERRED = ResponseRequest(kind=Kind.DEFERRED_REPLY)


def _rank(request: ResponseRequest) -> int:
    return request.rank


def _answers(request: ResponseRequest, response: Response) -> bool:
    """True for the response that was asked for, false for one that the server began by itself.

    A plain request cannot be told apart, and need not be.
    """
    if request.config is None or isinstance(request.config.metadata, Unset):
        return True
    said = request.config.metadata.get(SAY_METADATA_KEY)
    return response.metadata.get(SAY_METADATA_KEY) == said
