"""The way out of this process: which certificates are trusted, and through which proxy.

One rule for every client: the voice model, tools, MCP servers, webhooks, the carrier's REST API,
stages, the gateway's upstreams, traces, `doctor`, `dial`. It belongs to the process and not to a
client, so that none can be built without it (docs/decisions/0023). Settings give it by
`use_network`; a program without settings gets the environment's. PostgreSQL and Redis have TLS
options in their URLs and are left alone.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypedDict
from urllib.parse import urlsplit

from app.errors import ConfigError

if TYPE_CHECKING:
    from requests import Session

__all__ = [
    "ENVIRONMENT",
    "NONE",
    "Network",
    "check_proxy",
    "is_loopback",
    "proxy_for",
    "requests_session",
    "tls",
    "use_network",
    "websocket_options",
]

NONE: Final = "none"
ENVIRONMENT: Final = "environment"
"""In place of a proxy's URL: HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY decide."""
_CA_VARIABLES: Final = ("TRUNKLINE_CA_FILE", "SSL_CERT_FILE")
_PROXY_VARIABLE: Final = "TRUNKLINE_PROXY"
_REQUESTS_AT_ONCE: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The rule. `ca_file` None: `SSL_CERT_FILE`, else the certificates of this machine."""

    ca_file: Path | None = None
    proxy: str = NONE
    no_proxy: tuple[str, ...] = ()

    def problems(self) -> Iterator[tuple[str, str]]:
        """Each mistake: the field, and a sentence."""
        try:
            _ = self.context()
        except ConfigError as error:
            yield "ca_file", error.message
        for url in ("https://example.com", "http://example.com"):
            found = self.proxy_for(url)
            if found is not None and (problem := check_proxy(found)):
                named = "of the environment " if self.proxy == ENVIRONMENT else ""
                yield "proxy", f"the proxy {named}for {urlsplit(url).scheme} {problem}"
                return

    def context(self) -> ssl.SSLContext:
        """The certificates that clients trust.

        Raises:
            ConfigError: the file is not there, cannot be read, or holds no certificate.
        """
        named, path = _ca_file(self.ca_file)
        return _machine_context() if path is None else _file_context(named, path)

    def ignored_proxy(self) -> str:
        """The variable of the environment that names a proxy which is not used; else empty."""
        names = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
        found = (name for name in names if os.environ.get(name, "").strip())
        return next(found, "") if self.proxy == NONE else ""

    def proxy_for(self, url: str) -> str | None:
        """The proxy's URL for an http, https, ws or wss URL; None to connect directly.

        This machine itself is always reached directly.
        """
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if self.proxy == NONE or is_loopback(host):
            return None
        found, direct = self.proxy, self.no_proxy
        if self.proxy == ENVIRONMENT:
            secure = parts.scheme in ("https", "wss")
            found = _variable("https_proxy" if secure else "http_proxy") or _variable("all_proxy")
            direct = (*direct, *_variable("no_proxy").split(","))
        if not found or any(_covers(entry.strip().lower(), host, parts.port) for entry in direct):
            return None
        return found if "://" in found else f"http://{found}"


_in_use: Network | None = None


def use_network(network: Network | None) -> None:
    """Have every client of this process follow the rule; None: the environment's."""
    global _in_use
    _in_use = network


def _network() -> Network:
    return _in_use or Network(proxy=os.environ.get(_PROXY_VARIABLE, "").strip() or NONE)


def tls() -> ssl.SSLContext:
    """The certificates that clients of this process trust; one context for all of them.

    Raises:
        ConfigError: as `Network.context`.
    """
    return _network().context()


def proxy_for(url: str) -> str | None:
    """The proxy's URL for this one; None to connect directly."""
    return _network().proxy_for(url)


def check_proxy(url: str) -> str:
    """Say in words why a proxy's URL cannot be used, without showing it; empty when it can."""
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        return "has no URL such as http://proxy.example.com:3128"
    if parts.scheme not in ("http", "https"):
        return f"is a {parts.scheme}:// proxy: only http:// and https:// ones are supported"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return "has more in its URL than a host and a port"
    return ""


def is_loopback(host: str) -> bool:
    """True when `host` can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


# Clients ------------------------------------------------------------------------------------------


class WebsocketOptions(TypedDict, total=False):
    """Arguments of `websockets.connect`."""

    ssl: ssl.SSLContext | None
    proxy: str | None
    proxy_ssl: ssl.SSLContext


def websocket_options(url: str) -> WebsocketOptions:
    """The arguments of `websockets.connect` for a URL.

    Raises:
        ConfigError: as `tls`.
    """
    proxy = proxy_for(url)
    options = WebsocketOptions(ssl=tls() if url.startswith("wss:") else None, proxy=proxy)
    if proxy is not None and proxy.startswith("https:"):
        options["proxy_ssl"] = tls()
    return options


def requests_session(url: str) -> Session:
    """A session for the server at `url`, for packages that bring `requests`.

    Raises:
        ConfigError: as `tls`.
    """
    from requests import Session
    from requests.adapters import HTTPAdapter

    context = tls()

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **options: Any) -> None:
            super().init_poolmanager(*args, **options, ssl_context=context)

        def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
            return super().proxy_manager_for(
                proxy, **options, ssl_context=context, proxy_ssl_context=context
            )

        def cert_verify(self, conn: Any, url: str, verify: object, cert: object) -> None:
            """Leave the context as it is: the package would add certificates of its own."""
            conn.cert_reqs = "CERT_REQUIRED"

    session = Session()
    session.trust_env = False
    session.mount("https://", Adapter(pool_maxsize=_REQUESTS_AT_ONCE))
    if (proxy := proxy_for(url)) is not None:
        session.proxies = {"http": proxy, "https": proxy}
    return session


# Certificates -------------------------------------------------------------------------------------


def _ca_file(given: Path | None) -> tuple[str, Path | None]:
    """The name by which the file was given, and the file."""
    if given is not None:
        return _CA_VARIABLES[0], given
    for name in _CA_VARIABLES:
        if text := os.environ.get(name, "").strip():
            return name, Path(text)
    return "", None


@cache
def _machine_context() -> ssl.SSLContext:
    import httpx2  # knows where each system keeps them; needed for nothing else here

    return httpx2.create_ssl_context(trust_env=False)


@cache
def _file_context(named: str, path: Path) -> ssl.SSLContext:
    try:
        path.read_bytes()  # OpenSSL names no reason
        return ssl.create_default_context(cafile=path)
    except FileNotFoundError:
        problem = "does not exist"
    except ssl.SSLError:
        problem = "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
    except OSError as error:
        problem = f"cannot be read ({(error.strerror or 'error').lower()})"
    raise ConfigError(f"{named}: {path} {problem}")


# Proxies of the environment -----------------------------------------------------------------------


def _variable(name: str) -> str:
    """A variable, in lower case first, as curl reads it."""
    return (os.environ.get(name) or os.environ.get(name.upper()) or "").strip()


def _covers(entry: str, host: str, port: int | None) -> bool:
    """True if an entry of NO_PROXY means the host: `*`, a name and those below it, or a network."""
    name, _, its_port = entry.rpartition(":")
    if name and its_port.isdecimal() and ":" not in name:
        return int(its_port) == port and _covers(name, host, None)
    if entry == "*":
        return True
    name = entry.removeprefix("*").removeprefix(".")
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(name.strip("[]"), strict=False)
    except ValueError:
        return bool(name) and (host == name or host.endswith(f".{name}"))
