"""Places calls, follows them to their end, and takes over those of a process that died.

What may ring is written down first. A request that the carrier has not answered is never sent
again: the carrier is asked whether it has the call. A call is found again by the numbers it
connects and the time it was made, which name it, since one number has one live attempt at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.calls.hang_up import contain
from app.calls.outbound.pacing import Pace
from app.calls.outbound.policy import (
    NOT_ENABLED,
    CallingHours,
    Judgment,
    OutboundPolicy,
    Purpose,
    judge,
)
from app.calls.route import Route
from app.calls.switchboard import Admission, Switchboard, new_call_id
from app.carrier.base import (
    CallProgress,
    CarrierCallId,
    IncomingCall,
    PlacedReport,
    PlacementOrder,
    PlacingCarrier,
)
from app.errors import (
    CapacityError,
    CarrierError,
    CarrierRefused,
    CarrierUnavailable,
    ConfigError,
    PlacingRefused,
    StoreError,
    StoreUnavailable,
)
from app.events import (
    AnsweredBy,
    AnswerJudged,
    CallEnded,
    CallEvent,
    CallId,
    CallNotAnswered,
    CallPlaced,
    CallRinging,
    CarrierVerdict,
    OptedOut,
)
from app.store.outbound import (
    Attempt,
    AttemptState,
    CalleeFacts,
    Campaign,
    Contact,
    DialOutcome,
    OutboundStore,
)

__all__ = ["BY", "Dialer", "DialerOptions", "PlaceOrder"]

logger = logging.getLogger(__name__)

RING_SLACK_S: Final = 25.0
"""Twilio rings 5 s longer than it is told, and its reports take their time."""
ADMISSION_S: Final = 15.0
"""The carrier's limit for the answer of a webhook; a call without one by then has none."""
LOOK_UP_S: Final = (1.0, 3.0, 8.0, 15.0)
"""Pauses before the carrier is asked for a call that it may have. A request that timed out here may
be on its way for another 10 s."""
CLOCKS_S: Final = 3.0
"""The carrier tells whole seconds, by its own clock."""
STORE_RETRY_S: Final = 2.0
GIVE_UP_S: Final = 20.0
"""The time for phones to stop ringing when the server stops: longer than a REST request takes."""
SAVE_S: Final = 3.0
BY: Final = "answered_by_"
"""Begins the code of a call that was answered, and not by a person."""

NextForContact = Callable[[Contact, Campaign], Contact]
_OUTCOMES: Final = {
    CallProgress.BUSY: DialOutcome.BUSY,
    CallProgress.NO_ANSWER: DialOutcome.NO_ANSWER,
    CallProgress.CANCELED: DialOutcome.CANCELED,
    CallProgress.FAILED: DialOutcome.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceOrder:
    """A call that somebody wants placed. `variables` reach the agent's templates and tools as data.

    `time_zone` is the callee's, where it is known better than by the number; `hours` narrow those
    of the policy.
    """

    number: str
    agent: str
    variables: Mapping[str, str] = field(default_factory=dict)
    purpose: Purpose = Purpose.SERVICE
    from_number: str = ""
    time_zone: str | None = None
    hours: CallingHours | None = None
    campaign_id: str = ""
    contact_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DialerOptions:
    """The way in which calls are placed.

    `lease` is how long a process that says nothing keeps its attempts.
    """

    from_number: str = ""
    ring_s: int = 30
    machine_detection: str = "off"
    max_calls: int = 10
    per_s: float = 1.0
    lease: timedelta = timedelta(seconds=15)
    look_up_s: Sequence[float] = LOOK_UP_S
    ring_slack_s: float = RING_SLACK_S


@dataclass(slots=True, eq=False)
class _End:
    outcome: DialOutcome
    code: str
    reason: str


@dataclass(slots=True, eq=False)
class _Placed:
    """An attempt of this process."""

    attempt: Attempt
    order: PlacementOrder
    began_s: float
    adopted: bool = False
    carrier_call_id: CarrierCallId | None = None
    rang: bool = False
    admitted: bool = False
    answered_by: AnsweredBy = AnsweredBy.UNKNOWN
    end: _End | None = None
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def after_ms(self) -> int:
        return round((asyncio.get_running_loop().time() - self.began_s) * 1000)

    async def until(self, holds: Callable[[], bool], limit_s: float | None) -> bool:
        """Wait until something is true of it; False when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not holds():
                    self.news.clear()
                    await self.news.wait()
        return holds()


class Dialer:
    """The placed calls of one process."""

    def __init__(  # noqa: PLR0913 - its means, by their names
        self,
        *,
        policy: OutboundPolicy,
        options: DialerOptions,
        carrier: PlacingCarrier,
        store: OutboundStore | None,
        switchboard: Switchboard,
        route: Callable[[str, Mapping[str, str]], Route],
        owner: str,
        resume: Callable[[CallId, datetime], None] = lambda call_id, begun_at: None,
        lose: Callable[[CallId], None] = lambda call_id: None,
        next_for_contact: Callable[[DialOutcome, str, datetime], NextForContact] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`route` finds an agent for a call with these variables; it raises ConfigError.

        `resume` is told of each call that is taken over, and when it was begun; `lose` of those
        whose conversation had ended with the process that began them.
        `next_for_contact` says what is next for the contact of a campaign after an outcome.
        """
        self.policy = policy
        self.options = options
        self._carrier = carrier
        self._store = store
        self._switchboard = switchboard
        self._route = route
        self.owner = owner
        self._resume, self._lose = resume, lose
        self._next_for_contact = next_for_contact
        self.now = now
        self._pace = Pace(options.per_s)
        self._placed: dict[str, _Placed] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()
        self._stopping = False

    # The outside --------------------------------------------------------------------------------

    @property
    def store(self) -> OutboundStore:
        """The store of placed calls. Raises PlacingRefused: nothing is."""
        if self._store is None:
            raise PlacingRefused(
                "Placed calls need the history of calls: set store in config.yaml", code="no_store"
            )
        return self._store

    @property
    def keeps(self) -> bool:
        """True where there is a store."""
        return self._store is not None

    @property
    def active(self) -> int:
        """Attempts of this process that have not ended."""
        return len(self._placed)

    def knows(self, reference: str) -> bool:
        """Tell whether a webhook of a placed call is for this process."""
        return reference in self._placed

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Dialer]:
        """Place and follow calls inside this block."""
        if not self.policy.enabled or self._store is None:
            yield self
            return
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            keeper = tasks.create_task(self._keep(self._store), name="placed calls")
            try:
                yield self
            finally:
                self._begin_stop()
                keeper.cancel()
                await self._finish(SAVE_S)
                for job in self._jobs:
                    job.cancel()
                self._tasks = None
        with contextlib.suppress(StoreError):
            await self._store.leave(self.owner)

    async def stop(self) -> None:
        """Place no more calls, and give up those that nobody has answered yet."""
        self._begin_stop()
        await self._finish(GIVE_UP_S, but_conversations=True)

    def _begin_stop(self) -> None:
        self._stopping = True
        for placed in self._placed.values():
            placed.news.set()

    async def _finish(self, limit_s: float, *, but_conversations: bool = False) -> None:
        """Wait until all calls have ended and are written down."""

        def left() -> bool:
            return any(not (but_conversations and one.admitted) for one in self._placed.values())

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while left():
                    self._gone.clear()
                    await self._gone.wait()

    async def place(self, order: PlaceOrder) -> Attempt:
        """Have somebody called. Returns as soon as the call is written down.

        Raises:
            PlacingRefused: it is not placed, with the reason.
            StoreError: the store does not answer, or the contact is being called.
        """
        self.check_ready()
        self.check_agent(order.agent, order.variables)
        store, from_number = self.store, order.from_number or self.options.from_number
        if from_number not in self.policy.own_numbers:
            text = "There is no number of ours to call from: set outbound.from_number"
            raise PlacingRefused(text, code="no_from_number")
        attempt = Attempt(
            call_id=new_call_id(),
            number=order.number,
            from_number=from_number,
            agent=order.agent,
            variables=dict(order.variables),
            purpose=order.purpose.value,
            created_at=self.now(),
            owner=self.owner,
            campaign_id=order.campaign_id,
            contact_id=order.contact_id,
        )

        policy = replace(self.policy, hours=self.policy.hours.within(order.hours))

        def objection(facts: CalleeFacts) -> Judgment | None:
            found = judge(
                order.number, order.purpose, self.now(), policy, facts, order.time_zone or None
            )
            return None if found.allowed else found

        # Held before anything is awaited: of many requests at once no more than fit are let in.
        placed = self._hold(attempt)
        begun = False
        try:
            refused = await store.begin(attempt, objection)
            if refused is not None:
                raise _refusal(refused)
            self._start(placed, self._dial(placed))
            begun = True
        finally:
            if not begun:
                self._placed.pop(attempt.call_id, None)
        return attempt

    def check_ready(self) -> None:
        """Raise PlacingRefused unless a call could be placed now."""
        if not self.policy.enabled:
            raise PlacingRefused(NOT_ENABLED, code="outbound_not_enabled")
        if self._stopping or self._tasks is None:
            raise PlacingRefused("The server is shutting down", code="draining")
        for reason in self._switchboard.reasons_not_ready():
            raise PlacingRefused(_NOT_READY[reason], code=reason)
        if self.active >= self.options.max_calls:
            text = f"{self.active} placed calls are under way (outbound.max_calls)"
            raise PlacingRefused(text, code="outbound_at_capacity")

    def check_agent(self, agent: str, variables: Mapping[str, str]) -> None:
        """Raise PlacingRefused unless there is such an agent with such variables."""
        try:
            declared = self._route(agent, variables).agent.variables
        except ConfigError as error:
            raise PlacingRefused(error.message, code="agent_unknown") from error
        for name in variables:
            if name not in declared:
                known = ", ".join(sorted(declared)) or "none"
                text = f"Agent {agent} has no variable {name[:64]}; it has {known}"
                raise PlacingRefused(text, code="variable_unknown")

    def _hold(self, attempt: Attempt, *, adopted: bool = False) -> _Placed:
        order = PlacementOrder(
            reference=attempt.call_id,
            to=attempt.number,
            from_number=attempt.from_number,
            ring_s=self.options.ring_s,
            machine_detection=self.options.machine_detection,
        )
        began_s = asyncio.get_running_loop().time()
        placed = _Placed(attempt, order, began_s, adopted=adopted)
        placed.carrier_call_id = CarrierCallId(attempt.carrier_call_id) or None
        self._placed[attempt.call_id] = placed
        return placed

    def _start(self, placed: _Placed, work: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await contain("placed call", work)
                if placed.end is None:
                    self._end(placed, DialOutcome.UNKNOWN, "internal_error", "it failed here")
                await self._save_end(placed)
            finally:
                self._placed.pop(placed.attempt.call_id, None)
                self._gone.set()

        self._job(run())

    def _job(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        job = self._tasks.create_task(work, name="placed call")
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    # One call -----------------------------------------------------------------------------------

    async def _dial(self, placed: _Placed) -> None:
        attempt, store = placed.attempt, self.store
        wait_s = self._pace.take(asyncio.get_running_loop().time())
        if await placed.until(lambda: self._stopping, wait_s):
            self._end(placed, DialOutcome.NOT_DIALED, "draining", "the server was shutting down")
            return
        placed.began_s = asyncio.get_running_loop().time()
        sent_at = self.now()
        try:
            # A process that stood still may have lost it: the other one says what becomes of it.
            mine = await store.sent(attempt.call_id, sent_at, self.owner)
        except StoreError as error:
            # Without it a successor would not know that somebody may be ringing.
            self._end(placed, DialOutcome.NOT_DIALED, error.code, "the store does not answer")
            return
        if not mine:
            text = "another process took it over before it was dialed"
            placed.end = _End(DialOutcome.NOT_DIALED, "taken_over", text)  # that one tells of it
            return
        self._tell_placed(attempt)
        try:
            self._take_id(placed, await self._carrier.place(placed.order))
        except CarrierRefused as error:
            self._end(placed, DialOutcome.FAILED, error.code, error.message)
            return
        except CarrierUnavailable as error:
            logger.warning("no answer to a placed call", extra={"code": error.code})
            if not await self._look_up(placed, sent_at):
                text = "the carrier did not answer, and has no such call"
                self._end(placed, DialOutcome.UNKNOWN, error.code, text)
                return
        with contextlib.suppress(StoreError):  # found again by its numbers
            await store.placed(attempt.call_id, placed.carrier_call_id or "")
        await self._follow(placed)

    def _tell_placed(self, attempt: Attempt, *, taken_over: bool = False) -> None:
        self._switchboard.tell(
            CallPlaced(
                call_id=attempt.call_id,
                caller_number=attempt.number,
                called_number=attempt.from_number,
                agent=attempt.agent,
                purpose=attempt.purpose,
                campaign=attempt.campaign_id,
                taken_over=taken_over,
            )
        )

    def _take_id(self, placed: _Placed, carrier_call_id: CarrierCallId) -> None:
        placed.carrier_call_id = placed.carrier_call_id or carrier_call_id
        placed.news.set()

    async def _look_up(self, placed: _Placed, sent_at: datetime) -> bool:
        """Find out whether the carrier has a call; a webhook of it may say so first."""
        attempt = placed.attempt
        for pause_s in self.options.look_up_s:
            known = await placed.until(lambda: placed.carrier_call_id is not None, pause_s)
            if known or placed.end is not None:
                return True
            try:
                rows = await self._carrier.placed_to(attempt.number, attempt.from_number)
                since = sent_at - timedelta(days=1)
                others = await self.store.known_carrier_ids(attempt.number, since)
            except (CarrierError, StoreError):
                continue
            after_s = sent_at.timestamp() - CLOCKS_S
            for row in rows:
                if row.created_at >= after_s and row.carrier_call_id not in others:
                    logger.info("placed call found", extra={"call_id": attempt.call_id})
                    self._take_id(placed, row.carrier_call_id)
                    return True
        return False

    async def _follow(self, placed: _Placed) -> None:
        """Wait for the end of a call that the carrier has; ask for it where no report comes."""
        limit_s = self.options.ring_s + self.options.ring_slack_s
        await placed.until(
            lambda: placed.admitted or placed.end is not None or self._stopping, limit_s
        )
        if not placed.admitted and placed.end is None:
            await self._ask_how(placed)
        # The switchboard bounds how long a conversation lasts.
        await placed.until(lambda: placed.end is not None, None)

    async def _ask_how(self, placed: _Placed) -> None:
        """The carrier has told nothing in time, or we stop: ask, and let the phone ring no more."""
        carrier_call_id = placed.carrier_call_id
        assert carrier_call_id is not None
        progress = None
        with contextlib.suppress(CarrierError):
            report = await self._carrier.placed_status(carrier_call_id)
            progress = report.progress
            self._take_report(placed, report)
        if placed.end is None and progress is CallProgress.IN_PROGRESS:
            # It was answered just now, or its webhook got lost.
            await placed.until(lambda: placed.admitted or placed.end is not None, ADMISSION_S)
        if placed.admitted or placed.end is not None:
            return
        try:
            await self._carrier.cancel_leg(carrier_call_id)
        except CarrierError as error:
            text = "the carrier does not say what came of it"
            self._end(placed, DialOutcome.UNKNOWN, error.code, text)
            return
        if self._stopping:
            self._end(placed, DialOutcome.CANCELED, "draining", "the server was shutting down")
        elif progress is CallProgress.QUEUED:
            text = "the carrier kept it in its queue: lower outbound.calls_per_second"
            self._end(placed, DialOutcome.FAILED, "carrier_queue", text)
        elif progress is CallProgress.IN_PROGRESS and placed.adopted:
            self._end(placed, DialOutcome.ANSWERED, "lost", "")
        elif progress is CallProgress.IN_PROGRESS:
            text = "answered, but the carrier never asked this server for the agent"
            self._end(placed, DialOutcome.FAILED, "answer_not_asked", text)
        else:
            self._end(placed, DialOutcome.NO_ANSWER, "ring_limit", "nobody answered")

    def _end(self, placed: _Placed, outcome: DialOutcome, code: str, reason: str) -> None:
        """Settle what came of a call; the first to know counts."""
        if placed.end is not None:
            return
        placed.end = _End(outcome, code, reason)
        placed.news.set()
        attempt = placed.attempt
        if outcome is DialOutcome.ANSWERED and placed.adopted and not placed.admitted:
            self._lose(attempt.call_id)
        if outcome is DialOutcome.ANSWERED:
            return
        self._switchboard.tell(
            CallNotAnswered(
                call_id=attempt.call_id,
                carrier_call_id=placed.carrier_call_id or "",
                outcome=outcome.value,  # type: ignore[arg-type]
                code=code,
                reason=reason,
                after_ms=placed.after_ms(),
                caller_number=attempt.number,
                called_number=attempt.from_number,
                agent=attempt.agent,
            )
        )

    async def _save_end(self, placed: _Placed) -> None:
        """Write down what came of a call, however long the store does not answer."""
        end, attempt = placed.end, placed.attempt
        assert end is not None
        contact = None
        if attempt.contact_id is not None and self._next_for_contact is not None:
            contact = self._next_for_contact(end.outcome, end.code, self.now())
        while True:
            try:
                await self.store.ended(
                    attempt.call_id, self.now(), end.outcome, end.code, end.reason, contact
                )
                return
            except StoreUnavailable as error:
                logger.warning("placed call not saved yet", extra={"reason": error.message})
            if self._stopping:
                return  # a successor asks the carrier about it
            await asyncio.sleep(STORE_RETRY_S)

    # Webhooks -----------------------------------------------------------------------------------

    async def on_answer(self, reference: str, incoming: IncomingCall) -> Admission | None:
        """Somebody has answered: connect them. None: hang up."""
        placed = await self._of(reference)
        if placed is None or placed.end is not None:
            return None
        self._take_id(placed, incoming.carrier_call_id)
        if placed.carrier_call_id != incoming.carrier_call_id:
            return None
        attempt = placed.attempt
        try:
            route = self._route(attempt.agent, attempt.variables)
            admission = self._switchboard.admit_placed(incoming, attempt.call_id, route)
        except (CapacityError, ConfigError) as error:
            self._end(placed, DialOutcome.FAILED, error.code, f"answered, but {error.message}")
            return None
        if not placed.admitted:
            placed.admitted = True
            placed.news.set()
            self._job(self._note_answer(placed))
        return admission

    async def _note_answer(self, placed: _Placed) -> None:
        with contextlib.suppress(StoreError):
            await self.store.answered(placed.attempt.call_id, placed.carrier_call_id or "")

    async def on_status(self, reference: str, report: PlacedReport) -> None:
        """Take the carrier's report: in any order, repeated, of a call known or not."""
        placed = await self._of(reference)
        if placed is None:
            return
        self._take_id(placed, report.carrier_call_id)
        if placed.carrier_call_id == report.carrier_call_id:
            self._take_report(placed, report)

    def _take_report(self, placed: _Placed, report: PlacedReport) -> None:
        self._switchboard.report(report.carrier_call_id, report.progress)
        if report.progress is CallProgress.RINGING and not placed.rang and placed.end is None:
            placed.rang = True
            self._switchboard.tell(
                CallRinging(
                    call_id=placed.attempt.call_id,
                    carrier_call_id=report.carrier_call_id,
                    after_ms=placed.after_ms(),
                )
            )
        if not report.progress.ended or placed.admitted:
            return  # of a conversation, its own end counts
        if report.progress is CallProgress.COMPLETED:
            if placed.adopted:  # somebody has talked with the process before this one, or may have
                self._end(placed, DialOutcome.ANSWERED, "lost", "")
            else:
                text = "answered, and gone before the agent was connected"
                self._end(placed, DialOutcome.FAILED, "gone_at_once", text)
        else:
            self._end(placed, _OUTCOMES[report.progress], report.code, report.reason)

    async def on_verdict(
        self, reference: str, carrier_call_id: CarrierCallId, answered_by: str, after_ms: int
    ) -> None:
        """Take what the carrier's detector says of who has answered."""
        placed = await self._of(reference)
        if placed is not None and placed.carrier_call_id in (None, carrier_call_id):
            call_id = placed.attempt.call_id
            call = self._switchboard.call(call_id)
            at_ms = 0 if call is None else call.age_ms
            self._switchboard.tell(
                CarrierVerdict(
                    call_id=call_id, at_ms=at_ms, answered_by=answered_by, after_ms=after_ms
                )
            )
            if call is not None:
                call.on_carrier_detected(answered_by)

    async def _of(self, reference: str) -> _Placed | None:
        """The call of a webhook; one of another process is taken over, since that is gone.

        A process that lives has answered the webhook itself.
        """
        placed = self._placed.get(reference)
        if placed is not None or self._tasks is None or self._store is None:
            return placed
        try:
            async with asyncio.timeout(STORE_RETRY_S):
                attempt = await self._store.take(CallId(reference), self.owner)
        except (StoreError, TimeoutError):
            return None
        return None if attempt is None else self._adopt(attempt)

    def observe(self, event: CallEvent) -> None:
        """Be told of conversations that have ended, and of callees who want no more of them."""
        if isinstance(event, OptedOut) and self._tasks is not None and not self._stopping:
            self._job(self._list(event))
        placed = self._placed.get(event.call_id)
        if placed is not None and isinstance(event, AnswerJudged):
            placed.answered_by = event.verdict
        elif placed is not None and isinstance(event, CallEnded):
            reached = placed.answered_by in (AnsweredBy.HUMAN, AnsweredBy.UNKNOWN)
            code = event.summary.reason.value if reached else f"{BY}{placed.answered_by}"
            reason = "" if reached else f"by no person: {placed.answered_by}"
            self._end(placed, DialOutcome.ANSWERED, code, reason)

    async def _list(self, event: OptedOut) -> None:
        """Put a callee on the do-not-call list, however long the store takes."""
        while True:
            try:
                await self.store.list_number(
                    event.number, self.now(), "asked in a call", event.call_id
                )
                return
            except StoreError as error:
                logger.warning("opt-out is not listed yet", extra={"reason": error.message})
            await asyncio.sleep(STORE_RETRY_S)

    # Calls of a process that is gone ------------------------------------------------------------

    async def _keep(self, store: OutboundStore) -> None:
        """Say that this process is alive, and take over what others have left."""
        while True:
            now = self.now()
            try:
                await store.renew(self.owner, now)
                unseen_since = now - self.options.lease
                for attempt in await store.take_over(self.owner, unseen_since=unseen_since):
                    if attempt.call_id not in self._placed and not self._stopping:
                        self._adopt(attempt)
            except StoreError as error:
                logger.warning("placed calls are not kept", extra={"reason": error.message})
            await asyncio.sleep(self.options.lease.total_seconds() / 4)

    def _adopt(self, attempt: Attempt) -> _Placed:
        if attempt.call_id in self._placed:
            return self._placed[attempt.call_id]
        facts = {"call_id": attempt.call_id, "state": attempt.state.value}
        logger.info("placed call taken over", extra=facts)
        self._resume(attempt.call_id, attempt.created_at)
        if attempt.state is not AttemptState.WAITING:
            self._tell_placed(attempt, taken_over=True)  # that it was told may have been lost
        placed = self._hold(attempt, adopted=True)
        self._start(placed, self._go_on(placed))
        return placed

    async def _go_on(self, placed: _Placed) -> None:
        attempt = placed.attempt
        if attempt.state is AttemptState.WAITING:
            text = "the server ended before it was dialed"
            self._end(placed, DialOutcome.NOT_DIALED, "server_ended", text)
            return
        sent_at = attempt.sent_at or attempt.created_at
        if placed.carrier_call_id is None and not await self._look_up(placed, sent_at):
            # Nobody can send that request any more.
            text = "the server ended while it was dialing, and the carrier has no such call"
            self._end(placed, DialOutcome.NOT_DIALED, "never_sent", text)
            return
        with contextlib.suppress(StoreError):
            await self.store.placed(attempt.call_id, placed.carrier_call_id or "")
        if placed.admitted or placed.end is not None:
            await self._follow(placed)
            return
        assert placed.carrier_call_id is not None
        try:
            report = await self._carrier.placed_status(placed.carrier_call_id)
        except CarrierError:
            await self._follow(placed)
            return
        self._take_report(placed, report)
        if report.progress is CallProgress.IN_PROGRESS and attempt.state is AttemptState.ANSWERED:
            # Its conversation ended with its process; the carrier says so to the callee.
            self._end(placed, DialOutcome.ANSWERED, "lost", "")
        await self._follow(placed)


_NOT_READY: Final = {
    "draining": "The server is shutting down",
    "at_capacity": "All lines are busy (limits.max_calls)",
    "over_budget": "The budget of the day is spent (budget.per_day_usd)",
}


def _refusal(found: Judgment) -> PlacingRefused:
    assert found.code is not None
    not_before = None if found.not_before is None else found.not_before.isoformat()
    return PlacingRefused(found.reason, code=found.code.value, not_before=not_before)
