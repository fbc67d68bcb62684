"""Twilio's side of the HTTP edge: signatures, forms, documents and paths.

`app.web.phone` knows routes and sockets and no carrier; `TwilioWebhooks` knows Twilio and no route.
Everything is checked against the configured public address, never against a Host header.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from app.carrier.base import (
    CallProgress,
    CarrierCallId,
    Destination,
    Fallback,
    IncomingCall,
    LegAnswer,
    LegStatus,
    MediaStream,
    PlacedReport,
    Screening,
    TransferId,
    TransferResult,
)
from app.carrier.twilio.carrier import MessageTransport, open_stream
from app.carrier.twilio.forward import forward_document
from app.carrier.twilio.http import (
    SIGNATURE_HEADER,
    SIGNATURE_SETTINGS_HEADER,
    TWIML_CONTENT_TYPE,
    SignatureChecker,
    parse_form,
    read_incoming,
    read_status,
    refusal_document,
)
from app.carrier.twilio.placing import PLACING_PATHS, read_placed, read_verdict
from app.carrier.twilio.transfer import (
    CALLER_LABEL,
    TRANSFER_PATHS,
    Site,
    after_transfer_document,
    answer_document,
    queue_wait_document,
    return_document,
    whisper_document,
)
from app.carrier.twilio.transfer_reports import (
    AnsweredBy,
    ConferenceEvent,
    dial_result,
    leg_status,
    read_conference,
    read_dial,
    read_keys,
    read_leg,
    read_machine,
    read_queue_wait,
)

__all__ = ["TwilioWebhooks"]


class TwilioWebhooks:
    """One Twilio account. Asks for the `site` late: a port of 0 is known once it is bound."""

    content_type = TWIML_CONTENT_TYPE
    transfer_paths = TRANSFER_PATHS
    placing_paths = PLACING_PATHS

    def __init__(
        self,
        *,
        auth_tokens: Sequence[str],
        shared_keys: Sequence[str] = (),
        account_id: str,
        site: Callable[[], Site],
        validate: bool = True,
        start_deadline_s: float = 5.0,
    ) -> None:
        self._auth_tokens, self._shared_keys = tuple(auth_tokens), tuple(shared_keys)
        self._account_id = account_id
        self._site = site
        self._validate = validate  # only a server that nobody else can reach may do without
        self._start_deadline_s = start_deadline_s
        self._checker: SignatureChecker | None = None

    @property
    def _signatures(self) -> SignatureChecker:
        if self._checker is None:
            self._checker = SignatureChecker(
                self._auth_tokens, self._site().base_url, shared_keys=self._shared_keys
            )
        return self._checker

    def check_http(
        self, path_and_query: str, form: Sequence[tuple[str, str]], headers: Mapping[str, str]
    ) -> None:
        """Raises SignatureError unless Twilio has signed this request. `path_and_query` is raw."""
        if not self._validate:
            return
        self._signatures.check_http(
            path_and_query,
            form,
            headers.get(SIGNATURE_HEADER.lower()),
            settings=headers.get(SIGNATURE_SETTINGS_HEADER.lower()),
        )

    def check_websocket(self, path: str, headers: Mapping[str, str]) -> None:
        """Raises SignatureError unless Twilio has signed this handshake."""
        if not self._validate:
            return
        self._signatures.check_websocket(
            path,
            headers.get(SIGNATURE_HEADER.lower()),
            settings=headers.get(SIGNATURE_SETTINGS_HEADER.lower()),
        )

    def parse_form(self, body: bytes) -> list[tuple[str, str]]:
        return parse_form(body)

    def call_of(self, form: Sequence[tuple[str, str]]) -> CarrierCallId | None:
        """The call that a request is about, whatever else it says."""
        return next((CarrierCallId(value) for name, value in form if name == "CallSid"), None)

    def read_incoming(self, form: Sequence[tuple[str, str]]) -> IncomingCall:
        return read_incoming(form, expect_account=self._account_id)

    def read_status(self, form: Sequence[tuple[str, str]]) -> tuple[CarrierCallId, CallProgress]:
        """The call that a status callback is about, and how far it is."""
        report = read_status(form, expect_account=self._account_id)
        return report.carrier_call_id, report.progress

    def answer(self, token: str, fallback: Fallback | None = None) -> str:
        """TwiML that connects the call to our media socket, and to `fallback` when that is lost."""
        return return_document(self._site(), token, fallback)

    def refuse(self) -> str:
        """TwiML that says why nobody can answer now."""
        return self._refusal(self._site(), "")

    def divert(self, incoming: IncomingCall, say: str | None, to: Destination | None) -> str:
        """TwiML for a call that no agent answers: a sentence, a way to somebody else, or both."""
        site = self._site()
        if to is None:
            return self._refusal(site, say or "")
        fallback = Fallback(
            to=to,
            caller_number=incoming.caller_number,
            our_number=site.ours(incoming.called_number),
        )
        return forward_document(fallback, say or "", voice=site.voice, language=site.language)

    def _refusal(self, site: Site, say: str) -> str:
        return refusal_document(say or site.busy_message, voice=site.voice, language=site.language)

    # Transfers ----------------------------------------------------------------------------------

    def read_transfer_over(
        self, form: Sequence[tuple[str, str]], screening: Screening | None
    ) -> tuple[CarrierCallId, TransferResult]:
        """The call whose cold transfer is over, and how it ended."""
        report = read_dial(form, expect_account=self._account_id)
        return report.carrier_call_id, dial_result(report, screening)

    def read_person_keys(self, form: Sequence[tuple[str, str]]) -> tuple[CarrierCallId, str]:
        """The leg of a person, and what they keyed in; empty for nothing."""
        report = read_keys(form, expect_account=self._account_id)
        return report.leg_id, report.digits

    def read_machine_answered(self, form: Sequence[tuple[str, str]]) -> CarrierCallId | None:
        """The leg that a machine picked up, where the detector is sure of one."""
        report = read_machine(form, expect_account=self._account_id)
        return report.leg_id if report.answered_by is AnsweredBy.MACHINE else None

    def read_leg_status(self, form: Sequence[tuple[str, str]]) -> LegStatus:
        """The progress of a leg that we have placed."""
        return leg_status(read_leg(form, expect_account=self._account_id))

    def read_caller_joined(self, form: Sequence[tuple[str, str]]) -> bool:
        """True when the event of a conference is the caller's arrival."""
        report = read_conference(form, expect_account=self._account_id)
        return report.event is ConferenceEvent.JOINED and report.label == CALLER_LABEL

    def read_queue_wait(self, form: Sequence[tuple[str, str]]) -> int:
        return read_queue_wait(form, expect_account=self._account_id)

    def after_transfer(self, token: str | None, fallback: Fallback | None = None) -> str:
        """TwiML for a caller whose transfer is over: the agent again, or the end."""
        return after_transfer_document(self._site(), token, fallback)

    def ask_person(self, prompt: str, transfer_id: TransferId) -> str:
        """TwiML that asks a person for a key before a cold transfer connects them."""
        return whisper_document(prompt, transfer_id, self._site())

    def answer_person(self, answer: LegAnswer, transfer_id: TransferId) -> str:
        """TwiML that follows the person's key."""
        return answer_document(answer, transfer_id, self._site())

    def queue_wait(self, waited_s: int, limit_s: int) -> str:
        """TwiML for a caller in a queue."""
        return queue_wait_document(waited_s, limit_s)

    # Calls that we place ------------------------------------------------------------------------

    def read_placed(self, form: Sequence[tuple[str, str]]) -> PlacedReport:
        """The progress of a call that we have placed."""
        return read_placed(form, expect_account=self._account_id)

    def read_verdict(self, form: Sequence[tuple[str, str]]) -> tuple[CarrierCallId, str, int]:
        """The call, what the detector says has answered, and for how many ms it listened."""
        return read_verdict(form, expect_account=self._account_id)

    def hang_up(self) -> str:
        """TwiML that ends a call without a word."""
        return after_transfer_document(self._site(), None)

    async def open_stream(self, transport: MessageTransport) -> MediaStream:
        """The stream of an accepted socket, read up to its start."""
        return await open_stream(
            transport, start_deadline_s=self._start_deadline_s, expect_account=self._account_id
        )
