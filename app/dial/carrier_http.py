"""The carrier's HTTP side: signed webhooks to a server, its TwiML and its transcript feed.

Turns every failure into a `DialError` in plain words. Form fields follow Twilio voice/twiml,
"Request parameters", and its status callbacks; signatures follow Twilio usage/security.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

import httpx2

from app.dial.twiml import Verb, parse_twiml
from app.errors import DialError
from app.http.routed import open_client
from app.installation import command
from app.paths import STATUS_PATH, VOICE_PATH

__all__ = [
    "Caller",
    "Endpoints",
    "SpokenLine",
    "TwimlAnswer",
    "Webhooks",
    "http_client",
    "parse_spoken_line",
    "sign",
]


# Twilio gives a webhook 15 s, a hard limit.
_WEBHOOK_TIMEOUT_S: Final = 15
_CONNECT_TIMEOUT_S: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """The ids and numbers of one call, as its webhooks give them."""

    call_id: str
    account_id: str
    caller_number: str
    called_number: str


@dataclass(frozen=True, slots=True)
class TwimlAnswer:
    """The verbs of a document and its URL, against which relative URLs inside are resolved."""

    url: str
    verbs: tuple[Verb, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SpokenLine:
    """One line of a server's transcript; `heard_text` belongs to an agent line that was cut off."""

    at_ms: int
    who: str
    text: str
    heard_text: str = ""
    cut_off: bool = False
    unverified: bool = False


def http_client() -> httpx2.AsyncClient:
    """Make a client for a server's webhooks."""
    return open_client(
        # A kept connection may close just as the next webhook, seconds later, is sent on it.
        httpx2.Limits(max_keepalive_connections=0),
        timeout=httpx2.Timeout(_WEBHOOK_TIMEOUT_S, connect=_CONNECT_TIMEOUT_S),
        headers={"User-Agent": "trunkline-dial"},
    )


class Webhooks:
    """The HTTP requests that a carrier makes about one call."""

    def __init__(
        self, client: httpx2.AsyncClient, endpoints: Endpoints, auth_token: str, caller: Caller
    ) -> None:
        self._client = client
        self._endpoints = endpoints
        self._auth_token = auth_token
        self._caller = caller
        self._reports = 0
        self.has_transcript = False

    async def ask(
        self, url: str, call_status: str, fields: Mapping[str, str] | None = None
    ) -> TwimlAnswer:
        """Post a webhook and read the TwiML.

        Raises:
            DialError: no answer, an error answer.
            RemoteProtocolError: an answer that is not TwiML.
        """
        response = await self._post(url, {**self._form(call_status), **(fields or {})})
        if response.status_code == 403:
            raise DialError(
                f"{url} refused our signature (HTTP 403): --auth-token must be the server's auth"
                " token, --account-sid its account, and --public-url the URL that it believes to"
                " be reached at",
                code="signature_refused",
            )
        if not response.is_success:
            raise DialError(
                f"{url} answered HTTP {response.status_code} instead of TwiML (Twilio 11200)",
                code="webhook_failed",
            )
        content_type = response.headers.get("content-type", "")
        return TwimlAnswer(url, parse_twiml(response.text, content_type))

    def handshake(self, base: str, url: str) -> tuple[str, str]:
        """Return the address to connect to for a stream's URL, and the handshake's signature."""
        absolute = urljoin(base, url)
        if absolute.startswith("http"):  # a relative URL: Twilio speaks websocket to it
            absolute = "ws" + self._endpoints.as_public(absolute).removeprefix("http")
        return self._endpoints.as_reached(absolute), sign(self._auth_token, absolute)

    def absolute(self, base: str, url: str) -> str:
        """Resolve a URL of TwiML to the address where the server is reached."""
        return self._endpoints.as_reached(urljoin(base, url))

    async def report(self, call_status: str, duration_s: int | None = None) -> int | None:
        """Post a status callback; return the HTTP status, None without a URL for callbacks.

        Raises:
            DialError: the server did not answer.
        """
        if self._endpoints.status_url is None:
            return None
        fields = self._form(call_status)
        fields["Timestamp"] = format_datetime(datetime.now(UTC))
        fields["CallbackSource"] = "call-progress-events"
        fields["SequenceNumber"] = str(self._reports)
        if duration_s is not None:
            fields["CallDuration"] = fields["Duration"] = str(duration_s)
        self._reports += 1
        return (await self._post(self._endpoints.status_url, fields)).status_code

    async def transcript(self) -> AsyncIterator[SpokenLine]:
        """Yield the server's transcript line by line; end at once when it has no such feed.

        `has_transcript` becomes True when the feed opens.
        """
        url = self._endpoints.transcript_url(self._caller.call_id)
        headers = {"X-Twilio-Signature": sign(self._auth_token, self._endpoints.as_public(url))}
        timeout = httpx2.Timeout(_CONNECT_TIMEOUT_S, read=None)
        try:
            async with self._client.stream("GET", url, headers=headers, timeout=timeout) as feed:
                if feed.status_code != 200:
                    return
                self.has_transcript = True
                async for row in feed.aiter_lines():
                    line = parse_spoken_line(row)
                    if line is not None:
                        yield line
        except httpx2.TransportError:
            return  # the call itself goes on; the report says what could be measured

    def _form(self, call_status: str) -> dict[str, str]:
        caller = self._caller
        return {
            "CallSid": caller.call_id,
            "AccountSid": caller.account_id,
            "From": caller.caller_number,
            "Caller": caller.caller_number,
            "To": caller.called_number,
            "Called": caller.called_number,
            "CallStatus": call_status,
            "Direction": "inbound",
            "ApiVersion": "2010-04-01",
        }

    async def _post(self, url: str, form: Mapping[str, str]) -> httpx2.Response:
        signature = sign(self._auth_token, self._endpoints.as_public(url), form)
        try:
            return await self._client.post(
                url, data=dict(form), headers={"X-Twilio-Signature": signature}
            )
        except httpx2.ConnectError as error:
            raise DialError(
                f"no server answers at {url}: start it with `{command()} serve`, or name it with "
                "--to",
                code="server_unreachable",
            ) from error
        except httpx2.TimeoutException as error:
            text = f"{url} did not answer within {_WEBHOOK_TIMEOUT_S} s (Twilio 11200)"
            raise DialError(text, code="webhook_failed") from error
        except httpx2.TransportError as error:
            detail = str(error) or type(error).__name__
            raise DialError(f"{url} broke off: {detail}", code="webhook_failed") from error


def parse_spoken_line(row: str) -> SpokenLine | None:
    """Parse a row of the feed; None for an unreadable one, such as a blank keep-alive."""
    try:
        line = json.loads(row)
        return SpokenLine(
            at_ms=int(line["at_ms"]),
            who=str(line["who"]),
            text=str(line["text"]),
            heard_text=str(line.get("heard_text") or ""),
            cut_off=bool(line.get("cut_off")),
            unverified=bool(line.get("unverified")),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def sign(auth_token: str, url: str, form: Mapping[str, str] | None = None) -> str:
    """Compute the X-Twilio-Signature of a request to `url`."""
    message = url + "".join(name + value for name, value in sorted((form or {}).items()))
    digest = hmac.new(auth_token.encode(), message.encode(), hashlib.sha1).digest()
    return base64.b64encode(digest).decode("ascii")


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """The URLs of one server: as it knows itself (`public`) and as it is reached here.

    A signature covers the public URL, which behind a tunnel or a proxy is not the one dialed.
    """

    voice_url: str
    status_url: str | None
    base_url: str
    public_base_url: str

    @classmethod
    def of(cls, to: str, *, public_url: str | None = None) -> Endpoints:
        """Derive them from `--to`: a server's base, or the full URL of a voice webhook anywhere.

        Status callbacks are posted only to Trunkline, whose path for them is known.

        Raises:
            ValueError: not an http or https URL.
        """
        parts = urlsplit(to)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{to!r} is not an http:// or https:// URL")
        ours = parts.path.rstrip("/") == "" or parts.path.endswith(VOICE_PATH)
        prefix = parts.path.removesuffix(VOICE_PATH).rstrip("/") if ours else ""
        base = urlunsplit((parts.scheme, parts.netloc, prefix, "", ""))
        return cls(
            voice_url=_without_fragment(parts, base + VOICE_PATH if ours else None),
            status_url=base + STATUS_PATH if ours else None,
            base_url=base,
            public_base_url=(public_url or base).rstrip("/"),
        )

    def transcript_url(self, call_sid: str) -> str:
        return f"{self.base_url}/calls/{call_sid}/transcript"

    def as_public(self, url: str) -> str:
        """Translate a URL to the server's public one, which the signature covers."""
        if url == self.base_url or url.startswith(self.base_url + "/"):
            return self.public_base_url + url[len(self.base_url) :]
        return url

    def as_reached(self, url: str) -> str:
        """Translate a public URL that the server gave to the address given by `--to`."""
        public, parts = urlsplit(self.public_base_url), urlsplit(url)
        if parts.netloc != public.netloc or public.netloc == urlsplit(self.base_url).netloc:
            return url
        base = urlsplit(self.base_url)
        secure = base.scheme == "https"
        scheme = {"ws": "wss" if secure else "ws", "wss": "wss" if secure else "ws"}.get(
            parts.scheme, base.scheme
        )
        path = base.path + parts.path.removeprefix(public.path)
        return urlunsplit((scheme, base.netloc, path, parts.query, ""))


def _without_fragment(parts: SplitResult, default: str | None) -> str:
    """Twilio keeps fragments (its connection overrides) to itself."""
    if default is not None:
        return f"{default}?{parts.query}" if parts.query else default
    return urlunsplit((parts.scheme, parts.netloc, parts.path, parts.query, ""))
