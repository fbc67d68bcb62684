"""Tells apart clients: this machine, the bearer of a token, a page of another site.

Pure checks on the head of a request. uvicorn's proxy headers are off, so `client` is the peer of
the socket: behind a proxy or a tunnel on the same machine that peer is 127.0.0.1 for the whole
internet. nginx, as it comes, adds no mark and sends the Host of its `proxy_pass`, so no head tells
its clients from this machine's own. A server that the internet reaches therefore opens to tokens
only (`AccessRule.open_to_local` is False). Elsewhere a request counts as local when its Host is a
loopback name as well and no proxy has left its mark.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

__all__ = ["AccessRule", "bearer_token", "is_foreign_site", "is_local", "same_secret"]

PROXY_MARKS = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "cf-connecting-ip",
)


@dataclass(frozen=True, slots=True)
class AccessRule:
    """The condition for one of the operator's routes.

    With a token, its bearers; without one, this machine where `open_to_local`, else nobody.
    """

    token: str = ""
    open_to_local: bool = False

    def admits(self, connection: HTTPConnection, *, token: str | None = None) -> bool:
        """Tell whether the client may enter; `token` in place of the bearer's, for browsers.

        Pages of other sites never may: their visitor's machine is not theirs.
        """
        headers = connection.headers
        if is_foreign_site(headers):
            return False
        if self.token:
            return same_secret(bearer_token(headers) if token is None else token, self.token)
        client = connection.client
        return self.open_to_local and is_local(client.host if client else None, headers)


def same_secret(given: str, expected: str) -> bool:
    """Compare in constant time; an empty secret equals nothing."""
    if not expected:
        return False
    return hmac.compare_digest(given.encode("utf-8"), expected.encode("utf-8"))


def bearer_token(headers: Mapping[str, str]) -> str:
    """The token of `Authorization: Bearer`, or an empty string."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def is_local(client_host: str | None, headers: Headers) -> bool:
    """True for a program on this machine that came to us directly."""
    if client_host is None or not _is_loopback(client_host):
        return False
    if any(mark in headers for mark in PROXY_MARKS):
        return False
    # One Host only (RFC 9112 section 3.2): of two, a proxy may have looked at the other.
    hosts = headers.getlist("host")
    return len(hosts) == 1 and _is_loopback(_host_name(hosts[0]))


def is_foreign_site(headers: Headers) -> bool:
    """True when a browser says that a page of another site makes this request.

    Programs send neither Origin nor Sec-Fetch-Site. A browser always sends an Origin for a
    websocket, and its page may be anyone's.
    """
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origins = headers.getlist("origin")
    host = headers.get("host", "").lower()
    return any(not host or _authority(origin) != host for origin in origins)


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
