"""Places calls, and takes over those of a process that died.

What may ring is written down first; each call then takes its own course (`placed_call.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from app.calls.admission.switchboard import Admission, Switchboard, new_call_id
from app.calls.hang_up import contain
from app.calls.outbound.dial_policy import (
    NOT_ENABLED,
    CallingHours,
    DialDecision,
    OutboundPolicy,
    Purpose,
    decide,
)
from app.calls.outbound.pacing import Pace
from app.calls.outbound.placed_call import (
    STORE_RETRY_S,
    NextForContact,
    PlacedCall,
    PlacingMeans,
)
from app.calls.route import Route
from app.carrier.base import (
    CarrierCallId,
    IncomingCall,
    PlacedReport,
    PlacementOrder,
    PlacingCarrier,
)
from app.errors import ConfigError, PlacingRefused, StoreError
from app.events import CallEvent, CallId, OptedOut
from app.retry import retry
from app.store.outbound import Attempt, AttemptState, CalleeFacts, DialOutcome, OutboundStore

__all__ = ["Dialer", "DialerOptions", "PlaceOrder"]

logger = logging.getLogger(__name__)

RING_SLACK_S: Final = 25.0
"""Twilio rings 5 s longer than it is told, and its reports take their time."""
LOOK_UP_S: Final = (1.0, 3.0, 8.0, 15.0)
"""Pauses before the carrier is asked for a call that it may have. A request that timed out here may
be on its way for another 10 s."""
GIVE_UP_S: Final = 20.0
"""The time for phones to stop ringing when the server stops: longer than a REST request takes."""
SAVE_S: Final = 3.0


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
        self._placed: dict[str, PlacedCall] = {}
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
            placed.stop()

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

        def objection(facts: CalleeFacts) -> DialDecision | None:
            found = decide(
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
            wait_s = self._pace.take(asyncio.get_running_loop().time())
            self._start(placed, placed.dial(wait_s))
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

    def _hold(self, attempt: Attempt, *, adopted: bool = False) -> PlacedCall:
        options = self.options
        means = PlacingMeans(
            carrier=self._carrier,
            store=self.store,
            switchboard=self._switchboard,
            owner=self.owner,
            now=self.now,
            lose=self._lose,
            report_s=options.ring_s + options.ring_slack_s,
            look_up_s=options.look_up_s,
        )
        order = PlacementOrder(
            reference=attempt.call_id,
            to=attempt.number,
            from_number=attempt.from_number,
            ring_s=options.ring_s,
            machine_detection=options.machine_detection,
        )
        placed = PlacedCall(attempt, order, means, adopted=adopted)
        self._placed[attempt.call_id] = placed
        if self._stopping:
            placed.stop()
        return placed

    def _start(self, placed: PlacedCall, course: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            try:
                await contain("placed call", course)
                placed.give_up()
                await placed.save_end(self._next_for_contact)
            finally:
                self._placed.pop(placed.attempt.call_id, None)
                self._gone.set()

        self._job(run())

    def _job(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._tasks is not None
        job = self._tasks.create_task(work, name="placed call")
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    # Webhooks -----------------------------------------------------------------------------------

    async def on_answer(self, reference: str, incoming: IncomingCall) -> Admission | None:
        """Somebody has answered: connect them. None: hang up."""
        placed = await self._of(reference)
        if placed is None:
            return None
        attempt, before = placed.attempt, placed.admitted
        admission = placed.admit(incoming, lambda: self._route(attempt.agent, attempt.variables))
        if placed.admitted and not before:
            self._job(placed.note_answer())
        return admission

    async def on_status(self, reference: str, report: PlacedReport) -> None:
        """Take the carrier's report: in any order, repeated, of a call known or not."""
        placed = await self._of(reference)
        if placed is not None:
            placed.on_status(report)

    async def on_verdict(
        self, reference: str, carrier_call_id: CarrierCallId, answered_by: str, after_ms: int
    ) -> None:
        """Take what the carrier's detector says of who has answered."""
        placed = await self._of(reference)
        if placed is not None:
            placed.on_verdict(carrier_call_id, answered_by, after_ms)

    async def _of(self, reference: str) -> PlacedCall | None:
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
        if (placed := self._placed.get(event.call_id)) is not None:
            placed.observe(event)

    async def _list(self, event: OptedOut) -> None:
        """Put a callee on the do-not-call list, however long the store takes."""
        await retry(
            lambda: self.store.list_number(
                event.number, self.now(), "asked in a call", event.call_id
            ),
            first_delay_s=STORE_RETRY_S,
            max_backoff_s=STORE_RETRY_S,
            may_retry=lambda error: isinstance(error, StoreError),
            on_failure=lambda error, pause_s: logger.warning(
                "opt-out is not listed yet", extra={"reason": error.message}
            ),
        )

    # Calls of a process that is gone ------------------------------------------------------------

    async def _keep(self, store: OutboundStore) -> None:
        """Say that this process is alive, and take over what has nobody."""
        while True:
            try:
                await self._take_over(store)
            except StoreError as error:
                logger.warning("placed calls are not kept", extra={"reason": error.message})
            await asyncio.sleep(self.options.lease.total_seconds() / 4)

    async def _take_over(self, store: OutboundStore) -> None:
        now = self.now()
        await store.renew(self.owner, now)
        # Of our own, those whose writing was cut off when it was done already.
        held = [CallId(call_id) for call_id in self._placed]
        unseen_since = now - self.options.lease
        for attempt in await store.take_over(self.owner, held=held, unseen_since=unseen_since):
            if attempt.call_id not in self._placed and not self._stopping:
                self._adopt(attempt)

    def _adopt(self, attempt: Attempt) -> PlacedCall:
        if attempt.call_id in self._placed:
            return self._placed[attempt.call_id]
        facts = {"call_id": attempt.call_id, "state": attempt.state.value}
        logger.info("placed call taken over", extra=facts)
        self._resume(attempt.call_id, attempt.created_at)
        placed = self._hold(attempt, adopted=True)
        if attempt.state is not AttemptState.WAITING:
            placed.tell_placed()  # that it was told may have been lost
        self._start(placed, placed.go_on())
        return placed


_NOT_READY: Final = {
    "draining": "The server is shutting down",
    "at_capacity": "All lines are busy (limits.max_calls)",
    "overloaded": "The server is late with its calls (limits.max_lag_ms)",
    "over_budget": "The budget of the day is spent (budget.per_day_usd)",
}


def _refusal(found: DialDecision) -> PlacingRefused:
    assert found.code is not None
    not_before = None if found.not_before is None else found.not_before.isoformat()
    return PlacingRefused(found.reason, code=found.code.value, not_before=not_before)
