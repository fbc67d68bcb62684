"""The addresses that a tool may connect to, and checks of URLs before they are resolved.

Refused are the IANA special-purpose registries of IPv4 and IPv6, and the metadata addresses of
clouds that lie outside of them. A list and not `ipaddress.is_global`, whose answers changed between
patch releases of Python 3.11 and 3.12. `app.http.client` connects.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final

import httpx2

from app.errors import ToolFailed
from app.threads import Slots, in_thread

__all__ = [
    "Resolve",
    "address_is_allowed",
    "check_url",
    "checked_addresses",
    "resolve_by_system",
    "url_refused",
]


IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

# Refused whatever the settings say: a machine reads its own secrets there.
_METADATA: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local: AWS, Azure, Google, Oracle and others at 169.254.169.254
        "fe80::/10",
        "168.63.129.16/32",  # Azure's wire server, a public address
        "100.100.100.200/32",  # Alibaba
        "192.0.0.192/32",  # Oracle, classic
        "fd00:ec2::254/128",  # AWS
        "fd20:ce::254/128",  # Google
    )
)
# Opened by `allow_private`: this machine and networks of one's own.
_PRIVATE: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",  # carrier-grade NAT, and overlay networks that borrow it
        "::1/128",
        "fc00::/7",
    )
)
_SPECIAL_V4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # "this host": connects to loopback on Linux
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Everything else of IPv6 is not global unicast: mapped and translated IPv4 (::ffff:0:0/96,
# 64:ff9b::/96), unique local, link-local, multicast.
_GLOBAL_V6: Final = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # IETF protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4: carries an IPv4 address of any kind
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
_RESOLVING: Final = Slots(64)
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")
_LAST_LABEL_IS_NUMBER = re.compile(r"(?:^|\.)(?:[0-9]+|0[xX][0-9a-fA-F]*)\.?$")


def address_is_allowed(address: IpAddress, *, allow_private: bool = False) -> bool:
    """True for a public address, and for a private one where that is allowed."""
    if any(address in network for network in _METADATA):
        return False
    if any(address in network for network in _PRIVATE):
        return allow_private
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _SPECIAL_V6)


_OF_YOUR_OWN: Final = "; allow_private: true opens a server of your own"


def check_url(url: str, *, allow_private: bool = False) -> httpx2.URL:
    """Check a URL by itself, before its name is resolved.

    Plain HTTP is for private addresses: on the open network it would show headers to everybody.

    Raises:
        ToolFailed: code `url_refused`.
    """
    try:
        parsed = httpx2.URL(url)
        host = parsed.raw_host.decode("ascii")
    except (httpx2.InvalidURL, UnicodeError) as error:
        raise url_refused("it cannot be read") from error
    if parsed.scheme not in ("https", "http"):
        raise url_refused("only https is allowed")
    if parsed.scheme == "http" and not allow_private:
        raise url_refused(f"it must be https{_OF_YOUR_OWN}")
    if parsed.userinfo:
        raise url_refused("it holds a user name; use a header")
    if not host or (parsed.port is not None and not 0 < parsed.port < 65_536):
        raise url_refused("it has no host, or an invalid port")
    address = _as_address(host)
    if address is None:
        if not _HOST_NAME.fullmatch(host):
            raise url_refused("its host is not a valid name")
        # "127.1", "0x7f000001" and "2130706433" are addresses to some resolvers.
        if _LAST_LABEL_IS_NUMBER.search(host):
            raise url_refused("its host is a number in disguise")
    elif not address_is_allowed(address, allow_private=allow_private):
        raise url_refused(f"its address is not a public one{_OF_YOUR_OWN}")
    return parsed


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    """The addresses of a name by the system's resolver, in its order.

    In threads of its own: those of the event loop are few, and a name whose servers are down would
    keep them from finding the voice model's.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await in_thread(ask, _RESOLVING.here)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def checked_addresses(
    url: httpx2.URL, resolve: Resolve, *, allow_private: bool = False
) -> list[str]:
    """The addresses of a checked URL's host, each of them allowed.

    One that is not allowed refuses the name: nobody mixes them by accident.

    Raises:
        ToolFailed: code `url_refused`, or `unreachable` for a name that has no address.
    """
    host = url.raw_host.decode("ascii")
    port = url.port or (443 if url.scheme == "https" else 80)
    literal = _as_address(host)
    try:
        found = [host.strip("[]")] if literal else await resolve(host, port)
    except (OSError, UnicodeError) as error:
        raise ToolFailed(
            "The service's name is not known.", code="unreachable", retryable=True
        ) from error
    addresses = [_as_address(text) for text in found]
    if not addresses:
        raise ToolFailed("The service has no address.", code="unreachable", retryable=True)
    if not all(
        a is not None and address_is_allowed(a, allow_private=allow_private) for a in addresses
    ):
        raise url_refused("its name leads to an address that is not public")
    return [str(address) for address in addresses]


def _as_address(text: str) -> IpAddress | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def url_refused(reason: str) -> ToolFailed:
    """The error for a URL that no tool may request."""
    return ToolFailed(f"The URL is refused: {reason}.", code="url_refused")
