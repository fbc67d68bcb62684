"""Twilio's REST API: calls, legs, messages, the account and its numbers.

I/O. Wraps twilio's client, which blocks and has no time limit of its own: each request runs in a
thread of its own, away from the event loop, and every try has a deadline. The library's async
client is not used, because it drops its configured time-out (twilio 9.13 `async_http_client.py`).
Errors of the library and of the network become ours by `faults.py`.

Requests that change nothing when they are sent twice are tried again. The others - a new call, a
message, a new document for a call - only when the first one cannot have been taken.

Follows Twilio api/call-resource, messaging/api/message-resource, api/account,
incoming-phone-numbers-resource (2010-04-01).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from twilio.base.exceptions import TwilioException
from twilio.http.http_client import TwilioHttpClient
from twilio.rest import Client

from app.carrier.base import CallProgress, CarrierCallId
from app.carrier.twilio.faults import (
    NEVER_DONE,
    NOT_FOUND,
    NOT_IN_PROGRESS,
    as_ours,
    network_failure,
)
from app.errors import CarrierRefused, CarrierUnavailable
from app.network import requests_session
from app.retry import retry
from app.threads import in_thread

__all__ = ["AccountState", "CallRequest", "CallRow", "LegRequest", "NumberSetup", "TwilioRest"]

logger = logging.getLogger(__name__)
# The library logs phone numbers in query strings at INFO, so that it is not let near our log.
_wire_logger = logging.getLogger(f"{__name__}.wire")
_wire_logger.setLevel(logging.WARNING)

_AT_ONCE: Final = 10
"""Requests on their way: as many connections as the client's pool keeps."""
_GOING_ON: Final = frozenset(progress.value for progress in CallProgress if not progress.ended)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberSetup:
    """The webhooks of one of the account's numbers; empty where nothing is set.

    An application or a trunk makes Twilio ignore all of the number's own voice addresses.
    """

    number: str
    number_id: str = ""
    name: str = ""
    voice_url: str = ""
    voice_method: str = ""
    voice_fallback_url: str = ""
    voice_fallback_method: str = ""
    status_callback: str = ""
    status_callback_method: str = ""
    voice_application_sid: str = ""
    trunk_sid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LegRequest:
    """A call to a person, with the document that they hear at once."""

    to: str
    from_number: str
    twiml: str
    ring_s: int
    status_url: str
    machine_url: str = ""
    extension: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRequest:
    """A call to somebody; `url` gives the document that they hear.

    Without a `machine_url` nobody listens for answering machines; `to_message_end` has the detector
    wait for the end of a machine's greeting.
    """

    to: str
    from_number: str
    url: str
    ring_s: int
    status_url: str
    machine_url: str = ""
    to_message_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRow:
    """A call as Twilio lists it; `created_at` is Unix time, 0 where it is not told."""

    carrier_call_id: CarrierCallId
    progress: CallProgress
    created_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """The account that our credentials open. `status` is `active`, `suspended` or `closed`."""

    account_id: str
    status: str
    kind: str


class TwilioRest:
    """Requests of one account, each with a deadline, tried again where that can help."""

    def __init__(
        self,
        account_id: str,
        auth_token: str,
        *,
        base_url: str | None = None,
        timeout_s: float = 10.0,
        attempts: int = 3,
        first_delay_s: float = 0.5,
        budget_s: float = 12.0,
    ) -> None:
        """Pauses between attempts double from `first_delay_s` on.

        `timeout_s` bounds one attempt, `budget_s` all of them: who waits for a hang-up must know
        soon enough to end the call in another way.

        `base_url` replaces https://api.twilio.com; without it TWILIO_REGION and TWILIO_EDGE of the
        environment are honored, as twilio's client does.
        """
        self._account_id = account_id
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._first_delay_s = first_delay_s
        self._budget_s = budget_s
        self._http = TwilioHttpClient(timeout=timeout_s, logger=_wire_logger)
        self._http.session = requests_session(base_url or "https://api.twilio.com")
        # An empty mapping would be taken for none, and the environment would rewrite the address.
        environment = None if base_url is None else {"TWILIO_ACCOUNT_SID": account_id}
        self._client = Client(
            account_id, auth_token, http_client=self._http, environment=environment
        )
        if base_url is not None:
            self._client.api.base_url = base_url.rstrip("/")
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def hang_up(self, carrier_call_id: CarrierCallId) -> None:
        """End a call; one that is already gone is success.

        Raises:
            CarrierUnavailable: after all tries.
            CarrierRefused: the carrier said no.
        """
        try:
            await self._end(carrier_call_id, "completed")
        except CarrierRefused as error:
            if error.code not in (NOT_FOUND, NOT_IN_PROGRESS):
                raise
            logger.debug("call was already gone", extra={"carrier_call_id": carrier_call_id})

    async def in_progress(self, carrier_call_id: CarrierCallId) -> bool:
        """True while a call is not over.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `hang_up`.
        """
        try:
            row = await self._request(lambda: self._call(carrier_call_id).fetch())
        except CarrierRefused as error:
            if error.code != NOT_FOUND:
                raise
            return False
        return str(row.status) in _GOING_ON

    async def redirect(self, carrier_call_id: CarrierCallId, twiml: str) -> None:
        """Give a live call another document; what it does now is broken off. Sent once.

        Raises:
            CarrierRefused: also when the call is gone (`twilio_20404`, `twilio_21220`).
            CarrierUnavailable: unless the code is in `NEVER_DONE`, it may have happened.
        """
        await self._request(
            lambda: self._call(carrier_call_id).update(twiml=twiml), repeatable=False
        )

    async def place_leg(self, leg: LegRequest) -> CarrierCallId:
        """Call somebody. Sent once: a second request would ring a second time.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `redirect`.
        """
        options: dict[str, Any] = {
            "to": leg.to,
            "from_": leg.from_number,
            "twiml": leg.twiml,
            "timeout": leg.ring_s,
            "status_callback": leg.status_url,
            "status_callback_method": "POST",
            "status_callback_event": ["initiated", "ringing", "answered", "completed"],
        }
        if leg.extension:
            options["send_digits"] = leg.extension
        if leg.machine_url:
            options |= {
                "machine_detection": "Enable",
                # Else the document waits for the verdict: seconds of silence for a person.
                "async_amd": "true",
                "async_amd_status_callback": leg.machine_url,
                "async_amd_status_callback_method": "POST",
            }
        row = await self._request(lambda: self._client.calls.create(**options), repeatable=False)
        return CarrierCallId(str(row.sid))

    async def place_call(self, call: CallRequest) -> CarrierCallId:
        """Call somebody, who hears the document at an address of ours. Sent once.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `redirect`.
        """
        options: dict[str, Any] = {
            "to": call.to,
            "from_": call.from_number,
            "url": call.url,
            "method": "POST",
            "timeout": call.ring_s,
            "status_callback": call.status_url,
            "status_callback_method": "POST",
            "status_callback_event": ["initiated", "ringing", "answered", "completed"],
        }
        if call.machine_url:
            options |= {
                "machine_detection": "DetectMessageEnd" if call.to_message_end else "Enable",
                # Else the document waits for the verdict: seconds of silence for a person.
                "async_amd": "true",
                "async_amd_status_callback": call.machine_url,
                "async_amd_status_callback_method": "POST",
            }
        row = await self._request(lambda: self._client.calls.create(**options), repeatable=False)
        return CarrierCallId(str(row.sid))

    async def calls_between(self, from_number: str, to: str) -> list[CallRow]:
        """The latest calls from one number to another.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `hang_up`.
        """
        rows = await self._request(
            lambda: self._client.calls.list(to=to, from_=from_number, limit=20)
        )
        return [_call_row(row) for row in rows]

    async def call_row(self, carrier_call_id: CarrierCallId) -> CallRow:
        """A call as it is now.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `hang_up`.
        """
        return _call_row(await self._request(lambda: self._call(carrier_call_id).fetch()))

    async def cancel_leg(self, leg_id: CarrierCallId) -> None:
        """End a leg, ringing or answered; one that is already gone is success.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `hang_up`.
        """
        # `completed` ends a call in any state; where it is refused, `canceled` still takes one
        # that is queued. In the other order a person who picks up in between would be kept.
        for status in ("completed", "canceled"):
            try:
                await self._end(leg_id, status)
                return
            except CarrierRefused as error:
                if error.code == NOT_FOUND:
                    return
                if error.code != NOT_IN_PROGRESS:
                    raise

    async def send_sms(self, *, to_number: str, from_number: str, body: str) -> str:
        """Send a text message; its id. Sent once: a second request is a second message.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `redirect`.
        """
        row = await self._request(
            lambda: self._client.messages.create(to=to_number, from_=from_number, body=body),
            repeatable=False,
        )
        return str(row.sid)

    async def list_numbers(self) -> list[NumberSetup]:
        """All numbers of the account and how they are set up.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `hang_up`.
        """
        rows = await self._request(lambda: self._client.incoming_phone_numbers.list(page_size=200))
        return [_number_setup(row) for row in rows]

    async def set_number(self, number_id: str, changes: Mapping[str, str]) -> NumberSetup:
        """Change the named fields of a number's setup, and no others; the setup afterwards.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `hang_up`.
        """
        row = await self._request(
            lambda: self._client.incoming_phone_numbers(number_id).update(**changes)
        )
        return _number_setup(row)

    async def find_number(self, number: str) -> NumberSetup | None:
        """The setup of one of the account's numbers; None when it is not the account's.

        Raises:
            CarrierUnavailable, CarrierRefused: as for `hang_up`.
        """
        found = await self._request(
            lambda: self._client.incoming_phone_numbers.list(phone_number=number, limit=20)
        )
        # The filter of the API matches parts of numbers as well.
        for row in found:
            if row.phone_number == number:
                return _number_setup(row)
        return None

    async def check_account(self) -> AccountState:
        """The account behind the credentials.

        Raises:
            CarrierRefused: the credentials are wrong.
            CarrierUnavailable: the carrier could not be asked.
        """
        row = await self._request(lambda: self._client.api.accounts(self._account_id).fetch())
        return AccountState(
            account_id=str(row.sid), status=str(row.status or ""), kind=str(row.type or "")
        )

    async def aclose(self) -> None:
        """Close idle connections; requests that still run end by their own time limit."""
        self._http.session.close()

    async def _end(self, carrier_call_id: CarrierCallId, status: str) -> None:
        await self._request(lambda: self._call(carrier_call_id).update(status=status))

    def _call(self, carrier_call_id: CarrierCallId) -> Any:
        return self._client.calls(carrier_call_id)

    async def _request(self, send: Callable[[], _T], *, repeatable: bool = True) -> _T:
        """Send, and again after a failure that may pass; `repeatable` when twice is as once."""
        try:
            return await retry(
                lambda: self._try(send),
                attempts=self._attempts,
                first_delay_s=self._first_delay_s,
                budget_s=self._budget_s,
                may_retry=lambda error: (
                    error.retryable and (repeatable or error.code in NEVER_DONE)
                ),
            )
        except TimeoutError as error:
            raise CarrierUnavailable("Twilio did not answer in time", code="timeout") from error

    async def _try(self, send: Callable[[], _T]) -> _T:
        try:
            # The client's own limit counts from byte to byte; this one counts from the start.
            async with self._turn, asyncio.timeout(self._timeout_s):
                return await in_thread(send, name="twilio-rest")
        except TimeoutError as error:
            raise CarrierUnavailable("Twilio did not answer in time", code="timeout") from error
        except TwilioException as error:
            raise as_ours(error) from error
        except OSError as error:  # requests' exceptions are all of this kind
            raise network_failure(error) from error
        except ValueError as error:  # a proxy's page in place of JSON
            raise CarrierUnavailable("Twilio's answer is not JSON", code="garbled") from error


def _call_row(row: Any) -> CallRow:
    created = row.date_created
    try:
        progress = CallProgress(str(row.status))
    except ValueError as error:
        raise CarrierUnavailable("Twilio's answer names no known state", code="garbled") from error
    return CallRow(
        carrier_call_id=CarrierCallId(str(row.sid)),
        progress=progress,
        created_at=created.timestamp() if created is not None else 0.0,
    )


def _number_setup(row: Any) -> NumberSetup:
    return NumberSetup(
        number=row.phone_number or "",
        number_id=row.sid or "",
        name=row.friendly_name or "",
        voice_url=row.voice_url or "",
        voice_method=row.voice_method or "",
        voice_fallback_url=row.voice_fallback_url or "",
        voice_fallback_method=row.voice_fallback_method or "",
        status_callback=row.status_callback or "",
        status_callback_method=row.status_callback_method or "",
        voice_application_sid=row.voice_application_sid or "",
        trunk_sid=row.trunk_sid or "",
    )
