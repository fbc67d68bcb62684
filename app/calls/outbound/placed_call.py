"""One call that is placed: its request to the carrier, its ringing, and what comes of it.

A request that the carrier has not answered is never sent again: the carrier is asked whether it has
the call. A call is found again by the numbers it connects and the time it was made, which name it,
since one number has one live attempt at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from app.calls.admission.switchboard import Admission, Switchboard
from app.calls.route import Route
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
)
from app.retry import retry
from app.store.outbound import (
    Attempt,
    AttemptState,
    Campaign,
    Contact,
    DialOutcome,
    OutboundStore,
)

__all__ = ["BY", "STORE_RETRY_S", "NextForContact", "PlacedCall", "PlacingMeans"]

logger = logging.getLogger(__name__)

ADMISSION_S: Final = 15.0
"""The carrier's limit for the answer of a webhook; a call without one by then has none."""
CLOCKS_S: Final = 3.0
"""The carrier tells whole seconds, by its own clock."""
STORE_RETRY_S: Final = 2.0
"""Pause between attempts to write down what must not be lost."""
BY: Final = "answered_by_"
"""Begins the code of a call that was answered, and not by a person."""

NextForContact = Callable[[Contact, Campaign], Contact]
_OUTCOMES: Final[Mapping[CallProgress, DialOutcome]] = {
    CallProgress.BUSY: DialOutcome.BUSY,
    CallProgress.NO_ANSWER: DialOutcome.NO_ANSWER,
    CallProgress.CANCELED: DialOutcome.CANCELED,
    CallProgress.FAILED: DialOutcome.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacingMeans:
    """Everything that a placed call asks or tells.

    `report_s` is the wait for a report of the carrier, `look_up_s` are the pauses before it is
    asked for a call that it may have. `lose` is told of a call whose conversation had ended with
    the process that began it.
    """

    carrier: PlacingCarrier
    store: OutboundStore
    switchboard: Switchboard
    owner: str
    now: Callable[[], datetime]
    lose: Callable[[CallId], None]
    report_s: float
    look_up_s: Sequence[float]


@dataclass(frozen=True, slots=True)
class _End:
    outcome: DialOutcome
    code: str
    reason: str


class PlacedCall:
    """An attempt of this process, on its way to an end.

    `dial` or `go_on` is its course, from the request or from where another process has left it.
    Webhooks and the events of its conversation come in beside that.
    """

    def __init__(
        self, attempt: Attempt, order: PlacementOrder, means: PlacingMeans, *, adopted: bool
    ) -> None:
        """`adopted`: another process, which is gone, has begun it."""
        self.attempt = attempt
        self.admitted = False
        """The callee talks with the agent, or has."""
        self._order = order
        self._means = means
        self._adopted = adopted
        self._carrier_call_id = CarrierCallId(attempt.carrier_call_id) or None
        self._began_s = asyncio.get_running_loop().time()
        self._rang = False
        self._stopping = False
        self._answered_by = AnsweredBy.UNKNOWN
        self._end: _End | None = None
        self._news = asyncio.Event()

    # Its course ---------------------------------------------------------------------------------

    async def dial(self, wait_s: float) -> None:
        """Wait for its turn, have it placed, and follow it to its end."""
        attempt, store = self.attempt, self._means.store
        if await self._until(lambda: self._stopping, wait_s):
            self._settle(DialOutcome.NOT_DIALED, "draining", "the server was shutting down")
            return
        self._began_s = asyncio.get_running_loop().time()
        sent_at = self._means.now()
        try:
            # A process that stood still may have lost it: the other one says what becomes of it.
            mine = await store.sent(attempt.call_id, sent_at, self._means.owner)
        except StoreError as error:
            # Without it a successor would not know that somebody may be ringing.
            self._settle(DialOutcome.NOT_DIALED, error.code, "the store does not answer")
            return
        if not mine:
            text = "another process took it over before it was dialed"
            self._end = _End(DialOutcome.NOT_DIALED, "taken_over", text)  # that one tells of it
            return
        self.tell_placed()
        try:
            self._take_id(await self._means.carrier.place(self._order))
        except CarrierRefused as error:
            self._settle(DialOutcome.FAILED, error.code, error.message)
            return
        except CarrierUnavailable as error:
            logger.warning("no answer to a placed call", extra={"code": error.code})
            if not await self._look_up(sent_at):
                text = "the carrier did not answer, and has no such call"
                self._settle(DialOutcome.UNKNOWN, error.code, text)
                return
        with contextlib.suppress(StoreError):  # found again by its numbers
            await store.placed(attempt.call_id, self._carrier_call_id or "")
        await self._follow()

    async def go_on(self) -> None:
        """Find out what has become of it, and follow it to its end."""
        attempt = self.attempt
        if attempt.state is AttemptState.WAITING:
            text = "its server ended, or its request was cut off, before it was dialed"
            self._settle(DialOutcome.NOT_DIALED, "server_ended", text)
            return
        if self._carrier_call_id is None and not await self._look_up(
            attempt.sent_at or attempt.created_at
        ):
            # Nobody can send that request any more.
            text = "the server ended while it was dialing, and the carrier has no such call"
            self._settle(DialOutcome.NOT_DIALED, "never_sent", text)
            return
        with contextlib.suppress(StoreError):
            await self._means.store.placed(attempt.call_id, self._carrier_call_id or "")
        if not self.admitted and self._end is None:
            await self._ask_once()
        await self._follow()

    async def _ask_once(self) -> None:
        assert self._carrier_call_id is not None
        try:
            report = await self._means.carrier.placed_status(self._carrier_call_id)
        except CarrierError:
            return
        self._take_report(report)
        talked = self.attempt.state is AttemptState.ANSWERED
        if report.progress is CallProgress.IN_PROGRESS and talked:
            # Its conversation ended with its process; the carrier says so to the callee.
            self._settle(DialOutcome.ANSWERED, "lost", "")

    async def _look_up(self, sent_at: datetime) -> bool:
        """Find out whether the carrier has it; a webhook of it may say so first."""
        attempt = self.attempt
        for pause_s in self._means.look_up_s:
            known = await self._until(lambda: self._carrier_call_id is not None, pause_s)
            if known or self._end is not None:
                return True
            try:
                rows = await self._means.carrier.placed_to(attempt.number, attempt.from_number)
                since = sent_at - timedelta(days=1)
                others = await self._means.store.known_carrier_ids(attempt.number, since)
            except (CarrierError, StoreError):
                continue
            after_s = sent_at.timestamp() - CLOCKS_S
            for row in rows:
                if row.created_at >= after_s and row.carrier_call_id not in others:
                    logger.info("placed call found", extra={"call_id": attempt.call_id})
                    self._take_id(row.carrier_call_id)
                    return True
        return False

    async def _follow(self) -> None:
        """Wait for the end of a call that the carrier has; ask for it where no report comes."""
        await self._until(
            lambda: self.admitted or self._end is not None or self._stopping, self._means.report_s
        )
        if not self.admitted and self._end is None:
            await self._ask_how()
        # The switchboard bounds how long a conversation lasts.
        await self._until(lambda: self._end is not None, None)

    async def _ask_how(self) -> None:
        """The carrier has told nothing in time, or we stop: ask, and let the phone ring no more."""
        carrier_call_id = self._carrier_call_id
        assert carrier_call_id is not None
        progress = None
        with contextlib.suppress(CarrierError):
            report = await self._means.carrier.placed_status(carrier_call_id)
            progress = report.progress
            self._take_report(report)
        if self._end is None and progress is CallProgress.IN_PROGRESS:
            # It was answered just now, or its webhook got lost.
            await self._until(lambda: self.admitted or self._end is not None, ADMISSION_S)
        if self.admitted or self._end is not None:
            return
        try:
            await self._means.carrier.cancel_leg(carrier_call_id)
        except CarrierError as error:
            text = "the carrier does not say what came of it"
            self._settle(DialOutcome.UNKNOWN, error.code, text)
            return
        self._settle(*self._unreported(progress))

    def _unreported(self, progress: CallProgress | None) -> tuple[DialOutcome, str, str]:
        """The end of a call that was canceled, since no report of it came."""
        if self._stopping:
            return DialOutcome.CANCELED, "draining", "the server was shutting down"
        if progress is CallProgress.QUEUED:
            text = "the carrier kept it in its queue: lower outbound.calls_per_second"
            return DialOutcome.FAILED, "carrier_queue", text
        if progress is CallProgress.IN_PROGRESS and self._adopted:
            return DialOutcome.ANSWERED, "lost", ""
        if progress is CallProgress.IN_PROGRESS:
            text = "answered, but the carrier never asked this server for the agent"
            return DialOutcome.FAILED, "answer_not_asked", text
        return DialOutcome.NO_ANSWER, "ring_limit", "nobody answered"

    async def _until(self, holds: Callable[[], bool], limit_s: float | None) -> bool:
        """Wait until something is true of it; False when the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not holds():
                    self._news.clear()
                    await self._news.wait()
        return holds()

    def stop(self) -> None:
        """Give it up, unless somebody has answered."""
        self._stopping = True
        self._news.set()

    # Its end ------------------------------------------------------------------------------------

    def give_up(self) -> None:
        """Settle what has no end yet, since its course has failed here."""
        self._settle(DialOutcome.UNKNOWN, "internal_error", "it failed here")

    def _settle(self, outcome: DialOutcome, code: str, reason: str) -> None:
        """Settle what came of it; the first to know counts."""
        if self._end is not None:
            return
        self._end = _End(outcome, code, reason)
        self._news.set()
        attempt = self.attempt
        if outcome is DialOutcome.ANSWERED:
            if self._adopted and not self.admitted:
                self._means.lose(attempt.call_id)
            return
        self._means.switchboard.tell(
            CallNotAnswered(
                call_id=attempt.call_id,
                carrier_call_id=self._carrier_call_id or "",
                outcome=outcome.value,  # type: ignore[arg-type]
                code=code,
                reason=reason,
                after_ms=self._after_ms(),
                caller_number=attempt.number,
                called_number=attempt.from_number,
                agent=attempt.agent,
            )
        )

    async def save_end(
        self, next_for_contact: Callable[[DialOutcome, str, datetime], NextForContact] | None
    ) -> None:
        """Write down what came of it, however long the store does not answer."""
        end, attempt, now = self._end, self.attempt, self._means.now
        assert end is not None
        contact = None
        if attempt.contact_id is not None and next_for_contact is not None:
            contact = next_for_contact(end.outcome, end.code, now())
        with contextlib.suppress(StoreUnavailable):  # a successor asks the carrier about it
            await retry(
                lambda: self._means.store.ended(
                    attempt.call_id, now(), end.outcome, end.code, end.reason, contact
                ),
                first_delay_s=STORE_RETRY_S,
                max_backoff_s=STORE_RETRY_S,
                may_retry=lambda error: error.retryable and not self._stopping,
                on_failure=lambda error, pause_s: logger.warning(
                    "placed call not saved yet", extra={"reason": error.message}
                ),
            )

    def tell_placed(self) -> None:
        """Tell that the carrier is about to be asked; of one that was taken over, once more."""
        attempt = self.attempt
        self._means.switchboard.tell(
            CallPlaced(
                call_id=attempt.call_id,
                caller_number=attempt.number,
                called_number=attempt.from_number,
                agent=attempt.agent,
                purpose=attempt.purpose,
                campaign=attempt.campaign_id,
                taken_over=self._adopted,
            )
        )

    # Webhooks -----------------------------------------------------------------------------------

    def admit(self, incoming: IncomingCall, find_route: Callable[[], Route]) -> Admission | None:
        """Somebody has answered: connect them. None: hang up."""
        if self._end is not None or not self._takes_id(incoming.carrier_call_id):
            return None
        call_id = self.attempt.call_id
        try:
            admission = self._means.switchboard.admit_placed(incoming, call_id, find_route())
        except (CapacityError, ConfigError) as error:
            self._settle(DialOutcome.FAILED, error.code, f"answered, but {error.message}")
            return None
        self.admitted = True
        self._news.set()
        return admission

    async def note_answer(self) -> None:
        """Write down that somebody has answered."""
        with contextlib.suppress(StoreError):
            await self._means.store.answered(self.attempt.call_id, self._carrier_call_id or "")

    def on_status(self, report: PlacedReport) -> None:
        """Take the carrier's report: in any order, repeated."""
        if self._takes_id(report.carrier_call_id):
            self._take_report(report)

    def _takes_id(self, carrier_call_id: CarrierCallId) -> bool:
        self._take_id(carrier_call_id)
        return self._carrier_call_id == carrier_call_id

    def _take_id(self, carrier_call_id: CarrierCallId) -> None:
        self._carrier_call_id = self._carrier_call_id or carrier_call_id
        self._news.set()

    def _take_report(self, report: PlacedReport) -> None:
        self._means.switchboard.report(report.carrier_call_id, report.progress)
        if report.progress is CallProgress.RINGING and not self._rang and self._end is None:
            self._rang = True
            self._means.switchboard.tell(
                CallRinging(
                    call_id=self.attempt.call_id,
                    carrier_call_id=report.carrier_call_id,
                    after_ms=self._after_ms(),
                )
            )
        if not report.progress.ended or self.admitted:
            return  # of a conversation, its own end counts
        if report.progress is not CallProgress.COMPLETED:
            self._settle(_OUTCOMES[report.progress], report.code, report.reason)
        elif self._adopted:  # somebody has talked with the process before this one, or may have
            self._settle(DialOutcome.ANSWERED, "lost", "")
        else:
            text = "answered, and gone before the agent was connected"
            self._settle(DialOutcome.FAILED, "gone_at_once", text)

    def on_verdict(self, carrier_call_id: CarrierCallId, answered_by: str, after_ms: int) -> None:
        """Take what the carrier's detector says of who has answered."""
        if self._carrier_call_id not in (None, carrier_call_id):
            return
        call_id = self.attempt.call_id
        call = self._means.switchboard.call(call_id)
        at_ms = 0 if call is None else call.age_ms
        self._means.switchboard.tell(
            CarrierVerdict(call_id=call_id, at_ms=at_ms, answered_by=answered_by, after_ms=after_ms)
        )
        if call is not None:
            call.on_carrier_detected(answered_by)

    def observe(self, event: CallEvent) -> None:
        """Be told of its conversation."""
        if isinstance(event, AnswerJudged):
            self._answered_by = event.verdict
        elif isinstance(event, CallEnded):
            reached = self._answered_by in (AnsweredBy.HUMAN, AnsweredBy.UNKNOWN)
            code = event.summary.reason.value if reached else f"{BY}{self._answered_by}"
            reason = "" if reached else f"by no person: {self._answered_by}"
            self._settle(DialOutcome.ANSWERED, code, reason)

    def _after_ms(self) -> int:
        return round((asyncio.get_running_loop().time() - self._began_s) * 1000)
