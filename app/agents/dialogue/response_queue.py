"""What the agent is to say next: every reply that was asked for, one response at a time.

The gate (`app.realtime.protocol`) lets one response run and joins plain requests for a reply.
Requests with words of their own - a greeting, a notice, a filler - must not be joined: they wait
here, in order. While the caller speaks nothing of ours begins, and what the tools have found is
told in the answer to the caller's turn. Pure.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from app.agents.dialogue.actions import ToVoice
from app.realtime.events import (
    SAY_METADATA_KEY,
    Item,
    ItemCreate,
    Response,
    ResponseConfig,
    ResponseCreate,
    Unset,
)
from app.realtime.protocol import ALREADY_ACTIVE, Expired, GateState, Nothing, ResponseGate

__all__ = ["ResponseQueue", "ResponseRequest"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRequest:
    """A response that somebody wants. `config` is absent for a reply to what was said.

    `verbatim`: the words are ours, not the model's. An `optional` one is dropped where it would
    have to wait. `note` is what the model has to know for it.
    """

    config: ResponseConfig | None = None
    verbatim: bool = False
    optional: bool = False
    note: Item | None = None

    @property
    def sentence(self) -> str:
        """The words, where they are ours."""
        if not self.verbatim or self.config is None or isinstance(self.config.metadata, Unset):
            return ""
        return self.config.metadata.get(SAY_METADATA_KEY, "")


_REPLY = ResponseRequest()

MAX_TOOL_REPLIES: Final = 20
"""In a row, without a word of the caller: a model that goes on so would go on for ever."""


@dataclass(slots=True)
class _Claim:
    """Which of our requests the response that runs answers.

    `running` is as certain as it can be. `sentence` is also believed of a server that has never
    told whose a response is, and began this one when it was asked to. `unsaid`: a connection broke
    before ours began, and it waits for the next one.
    """

    running: ResponseRequest | None = None
    sentence: str = ""
    echoes: bool = False
    unsaid: bool = False

    def on_created(self, sent: ResponseRequest | None, response: Response) -> None:
        """A response began; `sent` is what was asked for and is not there yet."""
        self.echoes = self.echoes or SAY_METADATA_KEY in response.metadata
        self.running = sent if sent is not None and _is_ours(sent, response) else None
        claimed = self.running if self.echoes else sent
        self.sentence = "" if claimed is None else claimed.sentence


class ResponseQueue:
    """The replies of one conversation that were asked for and are not there yet."""

    def __init__(self, gate: ResponseGate, new_id: Callable[[str], str]) -> None:
        self.gate = gate
        self._claim = _Claim()
        self._tool_replies = 0
        self._new_id = new_id
        self._waiting: deque[ResponseRequest] = deque()
        self._for_quiet: deque[ResponseRequest] = deque()
        self._sent = _REPLY
        self._sent_id = ""
        self._plain_waits = False
        self._caller_speaks = False
        self._owed = False
        self._open = True

    @property
    def running(self) -> ResponseRequest | None:
        """The request that the response which runs answers, as far as we know."""
        return self._claim.running

    @property
    def sentence(self) -> str:
        """What the response that runs was told to say, word for word."""
        return self._claim.sentence

    # Asking -------------------------------------------------------------------------------------

    def ask(
        self, now_ms: int, request: ResponseRequest = _REPLY, *, first: bool = False
    ) -> list[ToVoice]:
        """Ask for a response: now, or as soon as it is its turn; `first`: before all that wait."""
        if request.config is None and not self._open:
            self._owed = True
        elif request.config is None:
            if self.gate.request(now_ms):
                return [self._create(request, now_ms)]
            self._plain_waits = True
        elif not request.optional or (self._open and not self.gate.busy):
            if first:
                self._waiting.appendleft(request)
            else:
                self._waiting.append(request)
            return self._next(now_ms)
        return []

    def ask_after_tools(self, now_ms: int) -> list[ToVoice]:
        """Ask for the reply to what tools have found; a caller who speaks is answered with it."""
        self._tool_replies += 1
        if self._caller_speaks:
            self._owed = True
            return []
        return self.ask(now_ms)

    def ask_when_quiet(self, request: ResponseRequest) -> None:
        """Keep a request until nobody speaks; its note is told then, ahead of it."""
        self._for_quiet.append(request)

    @property
    def waits_for_quiet(self) -> bool:
        """Something waits until nobody speaks."""
        return bool(self._for_quiet)

    def again(self, now_ms: int) -> list[ToVoice]:
        """Ask again for what the response that just failed was to say."""
        request = self.running or _REPLY
        return [] if request.optional else self.ask(now_ms, request)

    def forget(self) -> None:
        """Drop the plain reply and the optional words that wait; messages are kept."""
        self.gate.drop_pending()
        self._plain_waits = False
        self._waiting = deque(request for request in self._waiting if not request.optional)

    def withdraw(self, sentence: str) -> None:
        """Drop a sentence that still waits, however often it was asked for."""
        self._waiting = deque(one for one in self._waiting if one.sentence != sentence)

    def forget_all(self) -> None:
        """Drop everything that waits."""
        self.forget()
        self._waiting.clear()
        self._for_quiet.clear()
        self._owed = False

    # What happens -------------------------------------------------------------------------------

    def on_caller_speech(self) -> None:
        """The caller speaks: their turn will be answered, with all that is known by then."""
        self._caller_speaks = True
        self.forget()

    def on_caller_turn(self) -> None:
        """The caller's turn was taken into the conversation."""
        self.on_caller_words()
        self._caller_speaks = False

    def on_caller_words(self) -> None:
        """The caller has said or written something: what follows is for them."""
        self._tool_replies = 0

    @property
    def in_tool_loop(self) -> bool:
        """Tools were replied to again and again, and the caller has not said a word."""
        return self._tool_replies >= MAX_TOOL_REPLIES

    def on_quiet(self, now_ms: int, *, on_hold: bool = False) -> list[ToVoice]:
        """Nobody speaks and nothing is on its way: the moment for what has waited.

        What waits for a quiet moment does not end a silence that the caller has asked for.
        """
        self._caller_speaks = False
        if self._owed:
            self._owed = False
            return self.ask(now_ms)
        if not self._waiting and self._for_quiet and self._open and not on_hold:
            request = self._for_quiet.popleft()
            self._waiting.append(request)
            return [*self.tell(request), *self._next(now_ms)]
        return self._next(now_ms)

    def on_created(self, response: Response) -> str | None:
        """`response.created`: returns the id if it is to be cancelled at once."""
        requested = self.gate.state is GateState.REQUESTED
        self._claim.on_created(self._sent if requested else None, response)
        cancelled = self.gate.on_created(response.id)
        if cancelled is None and not self._caller_speaks:
            self._owed = False  # it knows of the tools' results: they were sent before it began
        return cancelled

    def on_done(self, response_id: str, now_ms: int) -> list[ToVoice]:
        """`response.done`: returns what is to be sent now."""
        return self._launch(self.gate.on_done(response_id), now_ms)

    def on_error(self, client_event_id: str | None, code: str, now_ms: int) -> list[ToVoice]:
        """An error of the model, which may be about a request of ours."""
        requested = self.gate.state is GateState.REQUESTED
        about_ours = client_event_id == self._sent_id if client_event_id else requested
        launched = self.gate.on_error(client_event_id, code)
        if not (about_ours and code == ALREADY_ACTIVE and self.gate.has_pending):
            return self._launch(launched, now_ms)
        self._claim.sentence = ""  # what runs is somebody else's
        if self._sent.config is None:
            self._plain_waits = True
            return []
        # The gate would join it with a plain reply that waits, and one of them would be lost.
        self.gate.drop_pending()
        if not self._sent.optional:
            self._waiting.appendleft(self._sent)
        if self._plain_waits:
            self.gate.request(now_ms)
        return []

    def expired(self, now_ms: int) -> Expired | None:
        """The watchdog of the gate: what the model left unanswered, if anything."""
        expired = self.gate.on_tick(now_ms)
        return None if isinstance(expired, Nothing) else expired

    def after_expiry(self, expired: Expired, now_ms: int) -> list[ToVoice]:
        """Ask again for what was unanswered, and go on with what waits behind it."""
        plain, self._plain_waits = self._plain_waits, False
        if expired.state is GateState.REQUESTED and not self._sent.optional:
            if self._sent.config is None:
                plain = True
            else:
                self._waiting.appendleft(self._sent)
        return (self.ask(now_ms) if plain else []) + self._next(now_ms)

    def on_lost(self, *, begun: bool) -> None:
        """The connection is gone: what is asked for waits for the next one.

        `begun`: something is known already of what the response that runs says.
        """
        unsaid = self._unsaid(begun=begun)
        self._claim.unsaid = unsaid is not None
        if unsaid is not None:
            self._owed = self._owed or self.gate.has_pending
            self._waiting.appendleft(unsaid)
        self._open = self._caller_speaks = False
        self.forget()
        self.gate.reset()

    def _unsaid(self, *, begun: bool) -> ResponseRequest | None:
        """Words that were asked for, are still wanted, and of which nothing was said."""
        if self.gate.state is GateState.REQUESTED and not self.gate.cancels_next:
            request: ResponseRequest | None = self._sent
        else:
            request = self.running if self.gate.state is GateState.ACTIVE and not begun else None
        return None if request is None or request.config is None or request.optional else request

    def on_reconnected(self, now_ms: int) -> list[ToVoice]:
        """A fresh connection: nothing runs on it; what waits is still wanted."""
        self.gate.reset()
        self._claim.running = None
        self._open = True
        actions = [told for request in self._waiting for told in self.tell(request)]
        if self._claim.unsaid:
            actions += self._next(now_ms)
        owed, self._owed, self._claim.unsaid = self._owed, False, False
        return actions + (self.ask(now_ms) if owed else [])

    def tell(self, request: ResponseRequest) -> list[ToVoice]:
        """What the model has to know for these words."""
        note = request.note
        return [] if note is None else [ToVoice(ItemCreate(replace(note, id=self._new_id("note"))))]

    def asks_for(self, request: ResponseRequest) -> bool:
        """Whether these words were asked for and have not begun."""
        return self.gate.state is GateState.REQUESTED and self._sent == request

    # Sending ------------------------------------------------------------------------------------

    def _launch(self, wanted: ResponseConfig | Nothing | None, now_ms: int) -> list[ToVoice]:
        if isinstance(wanted, Nothing):
            return self._next(now_ms)
        self._plain_waits = False
        return [self._create(_REPLY, now_ms)]

    def _next(self, now_ms: int) -> list[ToVoice]:
        if self.gate.busy or self._caller_speaks or not self._waiting or not self._open:
            return []
        request = self._waiting.popleft()
        self.gate.request(now_ms, request.config)
        return [self._create(request, now_ms)]

    def _create(self, request: ResponseRequest, now_ms: int) -> ToVoice:
        self._sent = request
        self._sent_id = self._new_id("ask")
        self.gate.sent(self._sent_id, now_ms)
        return ToVoice(ResponseCreate(request.config, self._sent_id))


def _is_ours(request: ResponseRequest, response: Response) -> bool:
    """Whether a response that began is the one we asked for, and not the server's own.

    A plain request cannot be told apart, and need not be.
    """
    if request.config is None or isinstance(request.config.metadata, Unset):
        return True
    said = request.config.metadata.get(SAY_METADATA_KEY)
    return response.metadata.get(SAY_METADATA_KEY) == said
