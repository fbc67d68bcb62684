"""`TwilioApi`: a local stand-in for Twilio's REST API, over real sockets.

Strict where the real one is lenient: a parameter that Twilio's document does not have, or a value
of another type, is answered with 400. Keeps the state of calls, conferences, numbers and messages,
and has scripted failures. What happens at the phones is played by `twilio_phones.Phones`, which
posts the webhooks; this file answers requests.

    async with TwilioApi() as api:
        rest = TwilioRest(api.account_sid, api.auth_token, base_url=api.url)
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from app.dial.twiml import Verb, parse_twiml
from app.errors import RemoteProtocolError
from tests.fakes.twilio_parameters import operation, twiml_fault

__all__ = ["ApiCall", "ApiConference", "ApiRequest", "Refusal", "Trouble", "TwilioApi"]

LIVE = ("queued", "initiated", "ringing", "in-progress")
_PATH = re.compile(
    r"/2010-04-01/Accounts/(?P<account>[^/.]+)"
    r"(?:/(?P<resource>[A-Za-z]+)(?:/(?P<sid>[^/.]+)(?:/(?P<sub>[A-Za-z]+)(?:/(?P<part>[^/.]+))?)?)?)?"
    r"\.json"
)
_NUMBER = dict.fromkeys(("voice_method", "voice_fallback_method", "status_callback_method"), "POST")
"""The settings of a number that nobody has set up."""
_E164 = re.compile(r"\+[1-9][0-9]{6,14}")
Form = Sequence[tuple[str, str]]
Answer = tuple[int, Any]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A scripted failure: an error body, a page, or no answer at all. `done`: the request worked,
    and only its answer is lost."""

    status: int | None
    code: int | None = None
    done: bool = False


class Refusal(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = {
            "code": code,
            "message": message,
            "more_info": f"https://www.twilio.com/docs/errors/{code}",
            "status": status,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiRequest:
    """A request as it came in; `path` without version and account."""

    method: str
    path: str
    form: list[tuple[str, str]]

    @property
    def fields(self) -> dict[str, Any]:
        """The form by name; a repeated name has a list."""
        found: dict[str, Any] = {}
        for name, value in self.form:
            if name not in found:
                found[name] = value
            else:
                known = found[name]
                found[name] = [*known, value] if isinstance(known, list) else [known, value]
        return found


@dataclass(slots=True, kw_only=True)
class ApiCall:
    """A call at the stand-in. `documents` are all that it was told to do, the last one now."""

    sid: str
    to: str
    from_: str
    status: str = "queued"
    direction: str = "outbound-api"
    options: dict[str, list[str]] = field(default_factory=dict)
    documents: list[str] = field(default_factory=list)
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def verbs(self) -> tuple[Verb, ...]:
        return parse_twiml(self.documents[-1], "text/xml") if self.documents else ()

    def option(self, name: str) -> str:
        return self.options.get(name, [""])[0]


@dataclass(slots=True, kw_only=True)
class ApiConference:
    """A conference; `participants` maps a call to the attributes of its `<Conference>`."""

    sid: str
    name: str
    status: str = "init"
    participants: dict[str, dict[str, str]] = field(default_factory=dict)


class TwilioApi:
    """One account with its `numbers`; `redirected` is told of each call with a new document, and
    `placed` of each new one."""

    def __init__(
        self,
        *,
        account_sid: str = "AC" + "1" * 32,
        auth_token: str = "f" * 32,
        numbers: Sequence[dict[str, str]] = (),
    ) -> None:
        self.account_sid = account_sid
        self.auth_token = auth_token
        self.url = ""
        self.calls: dict[str, ApiCall] = {}
        self.conferences: dict[str, ApiConference] = {}
        self.messages: list[dict[str, Any]] = []
        self.requests: list[ApiRequest] = []
        self.troubles: deque[Trouble] = deque()
        self.keeps_alive = True  # connections, for the next request
        self.placed: Callable[[ApiCall], None] = lambda _call: None
        self.redirected: Callable[[ApiCall], None] = lambda _call: None
        self.numbers = {
            f"PN{n:032d}": {"sid": f"PN{n:032d}", **_NUMBER, **row}
            for n, row in enumerate(numbers, 1)
        }
        self._open: set[asyncio.Task[None]] = set()
        self._made = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    # Set up by tests ------------------------------------------------------------------------------

    def fail(self, status: int | None, code: int | None = None, *, times: int = 1) -> None:
        """The next requests fail; without a status they are never answered."""
        self.troubles.extend([Trouble(status, code)] * times)

    def lose_answer(self, status: int | None = None) -> None:
        """The next request is carried out, but its answer never comes, or is a page of a proxy."""
        self.troubles.append(Trouble(status, done=True))

    def drop(self) -> None:
        """Close every connection: who waits for a lost answer waits no longer."""
        for task in self._open:
            task.cancel()

    def add_call(self, sid: str, *, status: str = "in-progress") -> ApiCall:
        """A call that came in."""
        call = ApiCall(
            sid=sid, to="+15551230002", from_="+14155550123", status=status, direction="inbound"
        )
        self.calls[sid] = call
        return call

    # HTTP ---------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = (await reader.readexactly(int(headers.get("content-length", 0)))).decode()
        trouble = self.troubles.popleft() if self.troubles else None
        status, content = self._answer(method, target, headers, body, trouble)
        if trouble is not None and trouble.status is None:
            await reader.read()  # until the client gives up
            return False
        text = content if isinstance(content, str) else json.dumps(content)
        kind = "text/html" if isinstance(content, str) else "application/json"
        writer.write(
            f"HTTP/1.1 {status} x\r\nContent-Type: {kind}\r\n"
            f"Content-Length: {len(text)}\r\n"
            f"Connection: {'keep-alive' if self.keeps_alive else 'close'}\r\n\r\n{text}".encode()
        )
        await writer.drain()
        return self.keeps_alive

    def _answer(
        self, method: str, target: str, headers: dict[str, str], body: str, trouble: Trouble | None
    ) -> Answer:
        address = urlsplit(target)
        fields = parse_qsl(
            address.query if method == "GET" else body, keep_blank_values=True, strict_parsing=False
        )
        _, _, path = address.path.partition(f"/Accounts/{self.account_sid}")
        self.requests.append(
            ApiRequest(method=method, path=path.removesuffix(".json"), form=fields)
        )
        try:
            if trouble is not None and not trouble.done:
                if trouble.status is None or trouble.code is None:
                    return trouble.status or 0, "<html>something is wrong</html>"
                raise Refusal(trouble.status, trouble.code, "scripted")
            self._authenticate(headers.get("authorization", ""))
            answer = self._route(method, address.path, fields)
            if trouble is not None and trouble.status is not None:
                return trouble.status, "<html>something is wrong</html>"
            return answer
        except Refusal as refusal:
            return refusal.status, refusal.body

    def _authenticate(self, given: str) -> None:
        expected = base64.b64encode(f"{self.account_sid}:{self.auth_token}".encode()).decode()
        if given != f"Basic {expected}":
            raise Refusal(401, 20003, "Authenticate")

    def _route(self, method: str, path: str, form: Form) -> Answer:
        found = _PATH.fullmatch(unquote(path))
        if found is None or found["account"] != self.account_sid:
            raise Refusal(404, 20404, "The requested resource was not found")
        if found["resource"] is None:
            return 200, {"sid": self.account_sid, "status": "active", "type": "Full"}
        sub, part = found["sub"], found["part"]
        resource, sid = (sub, part) if sub else (found["resource"], found["sid"])
        verb = _verb(method, single=sid is not None)
        if verb in ("create", "update", "list"):
            try:
                fault = operation(resource, verb).fault(form)
            except KeyError:
                raise Refusal(404, 20404, f"no resource {resource}") from None
            if fault is not None:
                raise Refusal(400, 20001, fault)
        answer: Callable[..., Answer] = getattr(self, f"_{verb}_{resource}")
        return answer(form, *(x for x in (found["sid"] if sub else None, sid) if x is not None))

    # Calls --------------------------------------------------------------------------------------

    def _create_Calls(self, form: Form) -> Answer:
        fields = dict(form)
        if fields["From"] not in {row["phone_number"] for row in self.numbers.values()}:
            raise Refusal(400, 21210, "'From' phone number is not verified")
        if not (_E164.fullmatch(fields["To"]) or fields["To"].startswith(("sip:", "sips:"))):
            raise Refusal(400, 21211, "Invalid 'To' Phone Number")
        call = ApiCall(sid=self._sid("CA"), to=fields["To"], from_=fields["From"])
        for name, value in form:
            call.options.setdefault(name, []).append(value)
        if "Twiml" in fields:
            call.documents.append(_document(fields["Twiml"]))
        elif "Url" not in fields:
            raise Refusal(400, 21205, "Url, Twiml or ApplicationSid is needed")
        self.calls[call.sid] = call
        self.placed(call)
        return 201, _call_row(call)

    def _update_Calls(self, form: Form, sid: str) -> Answer:
        call, fields = self._call(sid), dict(form)
        if call.status not in LIVE:
            raise Refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
        if fields.get("Status") == "completed":
            call.status = "completed" if call.status == "in-progress" else "canceled"
        elif fields.get("Status") == "canceled" and call.status != "in-progress":
            call.status = "canceled"
        elif "Twiml" in fields:
            if call.status != "in-progress":
                raise Refusal(400, 21220, "Call is not in-progress. Cannot redirect.")
            call.documents.append(_document(fields["Twiml"]))
            self.redirected(call)
        return 200, _call_row(call)

    def _list_Calls(self, form: Form) -> Answer:
        fields = dict(form)
        rows = [
            _call_row(call)
            for call in reversed(self.calls.values())
            if fields.get("To", call.to) == call.to
            and fields.get("From", call.from_) == call.from_
            and fields.get("Status", call.status) == call.status
        ]
        return 200, _page("calls", rows)

    def _fetch_Calls(self, _: Form, sid: str) -> Answer:
        return 200, _call_row(self._call(sid))

    def _call(self, sid: str) -> ApiCall:
        if sid not in self.calls:
            raise Refusal(404, 20404, f"The requested resource /Calls/{sid} was not found")
        return self.calls[sid]

    # Conferences --------------------------------------------------------------------------------

    def _list_Conferences(self, form: Form) -> Answer:
        fields = dict(form)
        rows = [
            _conference_row(found)
            for found in self.conferences.values()
            if fields.get("FriendlyName", found.name) == found.name
            and fields.get("Status", found.status) == found.status
        ]
        return 200, _page("conferences", rows)

    def _fetch_Conferences(self, _: Form, sid: str) -> Answer:
        return 200, _conference_row(self._conference(sid))

    def _update_Conferences(self, form: Form, sid: str) -> Answer:
        found = self._conference(sid)
        if dict(form).get("Status") == "completed":
            found.status = "completed"
            found.participants.clear()
        return 200, _conference_row(found)

    def _list_Participants(self, _: Form, conference: str) -> Answer:
        found = self._conference(conference)
        rows = [_participant_row(found, sid) for sid in found.participants]
        return 200, _page("participants", rows)

    def _create_Participants(self, form: Form, conference: str) -> Answer:
        fields = dict(form)
        found = self.conferences.get(conference) or self.conference_named(conference)
        call = ApiCall(sid=self._sid("CA"), to=fields["To"], from_=fields["From"])
        self.calls[call.sid] = call
        found.participants[call.sid] = {"participantLabel": fields.get("Label", "")}
        return 201, _participant_row(found, call.sid)

    def _update_Participants(self, form: Form, conference: str, sid: str) -> Answer:
        found = self._participant(conference, sid)
        found.participants[sid] |= dict(form)
        return 200, _participant_row(found, sid)

    def _delete_Participants(self, _: Form, conference: str, sid: str) -> Answer:
        del self._participant(conference, sid).participants[sid]
        return 204, ""

    def conference_named(self, name: str) -> ApiConference:
        """The conference of this name that is not over; made when there is none."""
        for found in self.conferences.values():
            if found.name == name and found.status != "completed":
                return found
        made = ApiConference(sid=self._sid("CF"), name=name)
        self.conferences[made.sid] = made
        return made

    def _conference(self, sid: str) -> ApiConference:
        if sid not in self.conferences:
            raise Refusal(404, 20404, f"The requested resource /Conferences/{sid} was not found")
        return self.conferences[sid]

    def _participant(self, conference: str, sid: str) -> ApiConference:
        found = self._conference(conference)
        if sid not in found.participants:
            raise Refusal(404, 20404, f"participant {sid} was not found")
        return found

    # Numbers and messages -----------------------------------------------------------------------

    def _list_IncomingPhoneNumbers(self, form: Form) -> Answer:
        wanted = dict(form).get("PhoneNumber", "")
        rows = [row for row in self.numbers.values() if wanted in row["phone_number"]]
        return 200, _page("incoming_phone_numbers", rows)

    def _fetch_IncomingPhoneNumbers(self, _: Form, sid: str) -> Answer:
        return 200, self._number(sid)

    def _update_IncomingPhoneNumbers(self, form: Form, sid: str) -> Answer:
        row = self._number(sid)
        for name, value in form:
            row[re.sub(r"(?<!^)([A-Z])", r"_\1", name).lower()] = value
        return 200, row

    def _number(self, sid: str) -> dict[str, str]:
        if sid not in self.numbers:
            raise Refusal(404, 20404, f"number {sid} was not found")
        return self.numbers[sid]

    def _create_Messages(self, form: Form) -> Answer:
        fields = dict(form)
        if fields.get("From") not in {row["phone_number"] for row in self.numbers.values()}:
            raise Refusal(400, 21606, "The 'From' number cannot be used")
        if not _E164.fullmatch(fields["To"]):
            raise Refusal(400, 21211, "Invalid 'To' Phone Number")
        if not 1 <= len(fields.get("Body", "")) <= 1600:
            raise Refusal(400, 21617, "The message body is empty or too long")
        row = {"sid": self._sid("SM"), "status": "queued", "to": fields["To"]}
        self.messages.append({**row, "from": fields["From"], "body": fields["Body"]})
        return 201, row

    def _sid(self, prefix: str) -> str:
        self._made += 1
        return f"{prefix}{self._made:032x}"


def _verb(method: str, *, single: bool) -> str:
    if method == "DELETE":
        return "delete"
    if method == "GET":
        return "fetch" if single else "list"
    return "update" if single else "create"


def _document(text: str) -> str:
    """TwiML of a request, as Twilio takes it (voice/api/call-resource)."""
    if len(text) > 4000:
        raise Refusal(400, 20001, "Twiml is longer than 4000 characters")
    try:
        fault = twiml_fault(parse_twiml(text, "text/xml"))
    except RemoteProtocolError as error:
        raise Refusal(400, 12100, error.message) from error
    if fault is not None:
        raise Refusal(400, 12200, fault)
    return text


def _page(name: str, rows: list[Any]) -> dict[str, Any]:
    return {name: rows, "page": 0, "page_size": 50, "next_page_uri": None}


def _call_row(call: ApiCall) -> dict[str, Any]:
    return {
        "sid": call.sid,
        "status": call.status,
        "to": call.to,
        "from": call.from_,
        "direction": call.direction,
        "date_created": format_datetime(call.created_at),
    }


def _conference_row(found: ApiConference) -> dict[str, Any]:
    return {"sid": found.sid, "friendly_name": found.name, "status": found.status}


def _participant_row(found: ApiConference, sid: str) -> dict[str, Any]:
    label = found.participants[sid].get("participantLabel", "")
    return {"call_sid": sid, "conference_sid": found.sid, "label": label}
