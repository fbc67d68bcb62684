"""Signs requests as Twilio does, and says which URL to sign and which to connect to.

Pure. Follows Twilio usage/security: base64(HMAC-SHA1(auth token, URL + each form field's name and
value, sorted by name)). The websocket handshake is signed over the stream's own ws or wss URL.
Written apart from the server's check, so that a mistake in either is seen.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit, urlunsplit

__all__ = ["VOICE_PATH", "Endpoints", "sign"]

VOICE_PATH = "/twilio/voice"
_STATUS_PATH = "/twilio/status"


def sign(auth_token: str, url: str, form: Mapping[str, str] | None = None) -> str:
    """The X-Twilio-Signature of a request to `url`."""
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
        """From `--to`: a server's base, or the full URL of a voice webhook anywhere.

        Only Trunkline's own paths tell where status callbacks go; for another server there are
        none unless its TwiML asks for them.

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
            status_url=base + _STATUS_PATH if ours else None,
            base_url=base,
            public_base_url=(public_url or base).rstrip("/"),
        )

    def transcript_url(self, call_sid: str) -> str:
        return f"{self.base_url}/calls/{call_sid}/transcript"

    def as_public(self, url: str) -> str:
        """The URL that the server believes it was asked at: what the signature covers."""
        if url == self.base_url or url.startswith(self.base_url + "/"):
            return self.public_base_url + url[len(self.base_url) :]
        return url

    def as_reached(self, url: str) -> str:
        """Where to connect for a URL that the server gave: its public name led back to `--to`."""
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
