"""The live calls of this process: admit, claim, report, drain.

A call is admitted when its signed webhook arrives: it gets a one-use token bound to the carrier's
call id, and its voice connection is opened at once, so that the model is ready when the media
stream is. The stream that brings the token claims the call. Strangers reach neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from app.agents.tools.invocation import ApprovalRequest
from app.agents.tools.tool import Approval
from app.calls.admission.allowances import Allowances
from app.calls.admission.budget import Budget
from app.calls.admission.seen_calls import SeenCalls
from app.calls.call import LOST, Call
from app.calls.hang_up import contained
from app.calls.observers.feed import Feed
from app.calls.recording.recorder import Recorder
from app.calls.route import Diversion, Route
from app.calls.ticker import Ticker
from app.calls.transfer.transfer_reports import TransferReports
from app.calls.transfer.transfers import Transfers
from app.carrier import token as stream_token
from app.carrier.base import (
    CallControl,
    CallProgress,
    CarrierCallId,
    Destination,
    Fallback,
    IncomingCall,
    MediaStream,
    StreamStarted,
    TransferId,
)
from app.errors import CapacityError, CarrierError, SignatureError
from app.events import (
    CallAdmitted,
    CallEnded,
    CallEvent,
    CallId,
    CallTurnedAway,
    EndReason,
)

__all__ = ["Admission", "CallOver", "PeerProcesses", "Switchboard", "new_call_id"]

logger = logging.getLogger(__name__)

TOKEN_LIFE_S: Final = 60
REMEMBERED: Final = 2_000
"""Ended calls that a repeated webhook or a used token is still recognized by."""
FEEDS_KEPT: Final = 100
"""Ended calls whose events can still be read; of older ones only the end is kept."""
GOODBYE_S: Final = 8.0
CUT_OFF_S: Final = 1.0
"""The time for calls that are cut off to hang up and close their sockets."""
LAST_REPORTS_S: Final = 0.7
"""Part of the second in which the process should be gone after its last call."""


class PeerProcesses(Protocol):
    """Other processes of this server: their calls count towards the same capacity."""

    @property
    def active(self) -> int:
        """Their calls."""
        ...

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        """None of them lets a call in inside this block."""
        ...

    def report(self, active: int) -> None:
        """Take the number of calls of this process."""
        ...


class _NoPeers:
    active = 0

    def deciding(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def report(self, active: int) -> None:
        pass


class CallOver:
    """A call that has ended, in so little memory that many can be remembered."""

    async def attach(self, stream: MediaStream) -> None:
        """The stream came too late: the markup behind it speaks to the caller."""
        stream.close(LOST)


@dataclass(slots=True)
class Admission:
    """A call that was let in."""

    call_id: CallId
    token: str
    call: Call | CallOver
    feed: Feed
    fallback: Fallback | None = None
    used: bool = False
    progress: CallProgress | None = None


class Switchboard:
    """Admission, claim and drain of the calls of one process."""

    def __init__(  # noqa: PLR0913 - the means of all calls, by their names
        self,
        *,
        route: Callable[[IncomingCall], Route | Diversion],
        carrier: CallControl,
        capacity: int,
        token_life_s: int = TOKEN_LIFE_S,
        drain_warning_s: float = 60,
        allowances: Allowances | None = None,
        observers: Sequence[Callable[[CallEvent], None]] = (),
        recorder: Recorder | None = None,
        budget: Budget,
        peers: PeerProcesses | None = None,
        seen: SeenCalls | None = None,
        overloaded: Callable[[], bool] = lambda: False,
    ) -> None:
        """`drain_warning_s`: callers are warned this long before a drain ends their calls.

        `capacity` is that of the server, `peers` are its other processes; `seen` are the calls
        that copies of their webhooks are recognized by. While the process is `overloaded`, it takes
        no more of them.
        """
        self._overloaded = overloaded
        self._seen = seen or SeenCalls()
        self._recorder = recorder
        self._budget = budget
        self.capacity = capacity
        self.draining = False
        self.transfer_reports = TransferReports(
            lambda: filter(None, (call.transfers for call in self._live.values())), self._end_leg
        )
        self._route = route
        self._carrier = carrier
        self._drain_warning_s = drain_warning_s
        self._observers = tuple(observers)
        self._allowances = allowances or Allowances()
        self._peers = peers or _NoPeers()
        self._tokens = _StreamTokens(token_life_s)
        self._admissions: dict[CarrierCallId, Admission] = {}
        self._ended: deque[CarrierCallId] = deque()
        self._turned_away: deque[CarrierCallId] = deque(maxlen=REMEMBERED)
        self._live: dict[CallId, Call] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._changed = asyncio.Event()
        self._ticker = Ticker()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Switchboard]:
        """Take calls inside this block; leaving it ends those that are left."""
        async with self._seen.open(), asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            try:
                yield self
            finally:
                self.draining = True
                self._cut_off()

    @property
    def active(self) -> int:
        """Calls that were admitted and are not over."""
        return len(self._live)

    def reasons_not_ready(self) -> list[str]:
        """The reasons why the next call would be refused; empty when it would be taken."""
        reasons = []
        if self.draining:
            reasons.append("draining")
        if self.active + self._peers.active >= self.capacity:
            reasons.append("at_capacity")
        if self._budget.exhausted:
            reasons.append("over_budget")
        if self._overloaded():
            reasons.append("overloaded")
        return reasons

    # One call -----------------------------------------------------------------------------------

    def admit(self, incoming: IncomingCall) -> Admission | Diversion:
        """Let a call in and start to connect its model. Instant.

        The carrier may ask for a call again at any time: a request came twice, or somebody has sent
        the call through its webhook once more. While the call is live it is the same call, with a
        token that is good for one more stream; after its end it is another conversation.

        Raises:
            SignatureError: an old webhook, of a call that is over at the carrier.
            CapacityError: full (`at_capacity`), late (`overloaded`), spent (`over_budget`) or
                shutting down (`draining`), and no fallback; or the caller or our number has had
                enough (`caller_limit`, `number_limit`).
        """
        known = self._admissions.get(incoming.carrier_call_id)
        live = None if known is None or isinstance(known.call, CallOver) else known.call
        if known is not None and live is not None and not live.ending:
            if known.used:
                self._renew_token(known, incoming)
            live.on_asked_again(known.token)
            logger.info("call asked for again", extra={"call_id": live.call_id})
            return known
        over = known is not None and known.progress is not None and known.progress.ended
        if over or (incoming.ringing and incoming.carrier_call_id in self._seen):
            raise SignatureError("the call was answered long ago", code="webhook_replayed")
        now_s = time.monotonic()
        # Before routes and fallbacks: whoever they lead to is called at our cost as well.
        try:
            self._allowances.check_call(incoming, now_s)
        except CapacityError as error:
            self._turn_away(incoming, error.code, None)
            raise
        route = self._route(incoming)
        if isinstance(route, Diversion):
            self._turn_away(incoming, route.code, route.to)
            if route.to is not None:
                self._allowances.begin(incoming, None, now_s)
            return route
        if self.draining or self._tasks is None:
            return self._no_room(incoming, route, "the server is shutting down", "draining")
        if self._budget.exhausted:
            return self._no_room(incoming, route, "the budget of the day is spent", "over_budget")
        if self._overloaded():
            return self._no_room(incoming, route, "the server is late with its calls", "overloaded")
        with self._peers.deciding():
            others = self._peers.active
            # One that ends makes room for its next.
            if self.active + others - (live is not None) >= self.capacity:
                return self._no_room(incoming, route, "all lines are busy", "at_capacity")
            return self._let_in(incoming, route, self._tasks)

    def admit_placed(self, incoming: IncomingCall, call_id: CallId, route: Route) -> Admission:
        """Let in a call that was placed, when somebody answers it. May come again, as for `admit`.

        Raises:
            CapacityError: as for `admit`, whatever fallback the route has.
        """
        known = self._admissions.get(incoming.carrier_call_id)
        if known is not None:
            if known.used and isinstance(known.call, Call):
                self._renew_token(known, incoming)
            return known
        if self.draining or self._tasks is None:
            raise CapacityError("the server is shutting down", code="draining")
        if self._budget.exhausted:
            raise CapacityError("the budget of the day is spent", code="over_budget")
        with self._peers.deciding():
            if self.active + self._peers.active >= self.capacity:
                raise CapacityError("all lines are busy", code="at_capacity")
            return self._let_in(incoming, route, self._tasks, call_id)

    def _let_in(
        self,
        incoming: IncomingCall,
        route: Route,
        tasks: asyncio.TaskGroup,
        call_id: CallId | None = None,
    ) -> Admission:
        call_id = call_id or new_call_id()
        feed = Feed()
        call = Call(
            call_id,
            incoming,
            route,
            carrier=self._carrier,
            record=lambda event: self._record(feed, event),
            issue_token=lambda: self._renew_token(admission, incoming),
            take_sms=lambda: self._allowances.take_sms(incoming, time.monotonic()),
            ticker=self._ticker,
            recorder=self._recorder,
            on_spent=self._budget.spend,
        )
        token = self._tokens.issue(incoming)
        admission = Admission(call_id, token, call, feed, route.fallback_of(incoming))
        if incoming.carrier_call_id in self._ended:
            self._ended.remove(incoming.carrier_call_id)
        self._admissions[incoming.carrier_call_id] = admission
        self._live[call_id] = call
        self._allowances.begin(incoming, call_id, time.monotonic())
        self._peers.report(self.active)
        self._record(
            feed,
            CallAdmitted(
                call_id=call_id,
                carrier_call_id=incoming.carrier_call_id,
                caller_number=incoming.caller_number,
                called_number=incoming.called_number,
                agent=route.agent.name,
                tools=route.roster.tool_names(route.agent),
                configuration=route.configuration,
                direction=incoming.direction.value,
            ),
        )
        tasks.create_task(self._hold(call), name=f"call {call_id}")
        return admission

    def _no_room(self, incoming: IncomingCall, route: Route, message: str, code: str) -> Diversion:
        self._turn_away(incoming, code, route.fallback)
        if route.fallback is None:
            raise CapacityError(message, code=code)
        return Diversion(code, to=route.fallback)

    def _turn_away(self, incoming: IncomingCall, code: str, to: Destination | None) -> None:
        if incoming.carrier_call_id in self._turned_away:  # a webhook that came twice
            return
        self._turned_away.append(incoming.carrier_call_id)
        self.tell(
            CallTurnedAway(
                call_id=new_call_id(),
                carrier_call_id=incoming.carrier_call_id,
                caller_number=incoming.caller_number,
                called_number=incoming.called_number,
                reason=code,
                put_through_to="" if to is None else to.name,
            )
        )

    async def _hold(self, call: Call) -> None:
        try:
            await call.run()
        except asyncio.CancelledError:
            raise
        except BaseException:  # it would end the group, and with it every other call
            logger.exception("call failed", extra={"call_id": call.call_id})
        finally:
            self._let_go(call.call_id)

    def _let_go(self, call_id: CallId) -> None:
        """The call is over, whether or not a task of it still has to notice."""
        call = self._live.pop(call_id, None)
        if call is None:
            return
        self._allowances.end(call_id, time.monotonic())
        self._peers.report(self.active)
        carrier_call_id = call.incoming.carrier_call_id
        admission = self._admissions[carrier_call_id]
        if admission.call is call:  # else the carrier's call has gone on to another conversation
            admission.call = CallOver()
            self._ended.append(carrier_call_id)
            self._forget_old()
        self._changed.set()

    def _renew_token(self, admission: Admission, incoming: IncomingCall) -> str:
        """A token for the next stream of a call; the ones before it open nothing any more."""
        admission.token = self._tokens.issue(incoming)
        admission.used = False
        return admission.token

    def claim(self, started: StreamStarted) -> Call | CallOver:
        """The call that a media stream belongs to. A token opens one stream, once.

        Raises:
            SignatureError: no token, a forged, foreign or expired one, or one that was used.
        """
        token = started.parameters.get("token", "")
        self._tokens.verify(token, started)
        admission = self._admissions.get(started.carrier_call_id)
        if (
            admission is None
            or admission.used
            or not secrets.compare_digest(admission.token, token)
        ):
            raise SignatureError("the stream token was used before", code="token_used")
        admission.used = True
        self._seen.add(started.carrier_call_id)
        return admission.call

    def report(self, carrier_call_id: CarrierCallId, progress: CallProgress) -> None:
        """Take the carrier's report of a call: in any order, repeated, of a call known or not."""
        admission = self._admissions.get(carrier_call_id)
        if admission is None:
            return
        if admission.progress is not None and progress.rank <= admission.progress.rank:
            return
        admission.progress = progress
        self._changed.set()
        if isinstance(admission.call, Call):
            admission.call.note_reported(progress)
            # The media socket usually says it first; where it cannot, this does.
            if progress.ended and (transfers := admission.call.transfers) is not None:
                transfers.on_caller_gone(f"carrier_reported_{progress.value}")

    def knows(self, carrier_call_id: CarrierCallId | None, transfer_id: TransferId) -> bool:
        """Tell whether a report of such a call or transfer is for this process."""
        return carrier_call_id in self._admissions or self.transfer_reports.knows(transfer_id)

    def follow(self, carrier_call_id: CarrierCallId) -> AsyncIterator[CallEvent]:
        """The events of a call as they happen, from its beginning to its end.

        Raises:
            KeyError: the call is not known.
        """
        return self._admissions[carrier_call_id].feed.follow()

    def call(self, call_id: CallId) -> Call | None:
        """A live call by its id."""
        return self._live.get(call_id)

    def calls(self) -> list[Call]:
        """All live calls, oldest first."""
        return list(self._live.values())

    def hang_up(self, call_id: CallId) -> bool:
        """End a live call for an operator; False when it is not live."""
        call = self._live.get(call_id)
        if call is None:
            return False
        call.end(EndReason.OPERATOR_HUNG_UP)
        return True

    def fallback(self, carrier_call_id: CarrierCallId) -> Fallback | None:
        """The way to the fallback for a caller whose agent is lost."""
        admission = self._admissions.get(carrier_call_id)
        return None if admission is None else admission.fallback

    # Approvals ----------------------------------------------------------------------------------

    def approvals(self) -> list[ApprovalRequest]:
        """The tools of all calls that wait for an operator."""
        return [
            wanted
            for call in self._live.values()
            for wanted in call.tools.waiting(Approval.OPERATOR)
        ]

    def approve(
        self,
        call_id: CallId,
        tool_call_id: str,
        *,
        approved: bool,
        always: bool = False,
        message: str = "",
    ) -> bool:
        """Answer a tool that waits for an operator; False when none waits there.

        A refusal gives `message` to the model.
        """
        call = self._live.get(call_id)
        if call is None or tool_call_id not in {
            wanted.context.tool_call_id for wanted in call.tools.waiting(Approval.OPERATOR)
        }:
            return False
        return call.tools.decide(tool_call_id, approved=approved, always=always, message=message)

    # Transfers ----------------------------------------------------------------------------------

    def transfers_of(self, call_id: CallId) -> Transfers | None:
        """The transfers of a live call, for its tools."""
        call = self._live.get(call_id)
        return None if call is None else call.transfers

    def _end_leg(self, leg_id: CarrierCallId) -> None:
        async def end() -> None:
            with contextlib.suppress(CarrierError):  # tried three times; it rings out by itself
                await self._carrier.cancel_leg(leg_id)

        if self._tasks is not None:
            self._tasks.create_task(end(), name="end a leg")

    # All calls ----------------------------------------------------------------------------------

    async def drain(self, limit_s: float) -> None:
        """Take no more calls and wait for the live ones; past the limit, say goodbye to them.

        Cancelled, it ends them at once.
        """
        self.draining = True
        logger.info("draining", extra={"active": self.active, "limit_s": limit_s})
        try:
            await self._let_calls_finish(limit_s)
            self._cut_off(ending_too=False)  # those whose goodbye was never spoken
            await self._until(self._idle)
            await self._hear_last_reports()
        except asyncio.CancelledError:
            self._cut_off()
            await self._idle_within(CUT_OFF_S)
            raise
        logger.info("drained")

    def _cut_off(self, *, ending_too: bool = True) -> None:
        for call in list(self._live.values()):
            call.cut_off(ending_too=ending_too)

    async def _let_calls_finish(self, limit_s: float) -> None:
        warning_s = self._drain_warning_s
        if 0 < warning_s < limit_s:
            await self._idle_within(limit_s - warning_s)
            for call in list(self._live.values()):
                call.warn_of_end()
            limit_s = warning_s
        await self._idle_within(limit_s)
        for call in list(self._live.values()):
            call.say_goodbye(EndReason.DRAINED)
        await self._idle_within(GOODBYE_S)

    async def _idle_within(self, limit_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._until(self._idle)

    async def _hear_last_reports(self) -> None:
        """Wait for the reports of calls that have just ended, which come right after it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_REPORTS_S):
                await self._until(
                    lambda: not any(_report_due(known) for known in self._admissions.values())
                )

    def _idle(self) -> bool:
        return not self._live

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Wait until a call's end or a carrier's report has made something true."""
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def _record(self, feed: Feed, event: CallEvent) -> None:
        feed.put(event)
        if isinstance(event, CallEnded):
            self._let_go(event.call_id)
        self.tell(event)

    def tell(self, event: CallEvent) -> None:
        """Tell all observers of an event."""
        for observe in self._observers:
            with contained("observer"):
                observe(event)

    def _forget_old(self) -> None:
        """By the order in which calls ended: one that lasts for hours holds no other back."""
        if len(self._ended) > FEEDS_KEPT:
            self._admissions[self._ended[-FEEDS_KEPT - 1]].feed.forget()
        if len(self._ended) > REMEMBERED:
            del self._admissions[self._ended.popleft()]


class _StreamTokens:
    """Tokens of this process: signed with a key that is nowhere else, and short-lived.

    No other clock has a say in them, so they keep to the one that nobody sets.
    """

    def __init__(self, life_s: int) -> None:
        self._life_s = life_s
        self._secret = secrets.token_bytes(32)

    def issue(self, incoming: IncomingCall) -> str:
        return stream_token.issue(
            self._secret,
            incoming.carrier_call_id,
            incoming.account_id,
            nonce=secrets.token_urlsafe(12),
            expires_at_s=int(time.monotonic()) + self._life_s,
        )

    def verify(self, token: str, started: StreamStarted) -> None:
        """Raises SignatureError unless the token is ours, of this call, and still valid."""
        stream_token.verify(
            self._secret,
            token,
            started.carrier_call_id,
            started.account_id,
            now_s=int(time.monotonic()),
        )


def _report_due(admission: Admission) -> bool:
    """A call whose beginning was reported, and whose end was not."""
    return admission.progress is not None and not admission.progress.ended


def new_call_id() -> CallId:
    """Sortable by time: 48 bits of milliseconds, 40 random ones."""
    return CallId(f"call_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(5)}")
