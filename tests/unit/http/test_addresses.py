"""Addresses and URLs that a tool may connect to."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Sequence
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ToolFailed
from app.http.addresses import address_is_allowed, check_url, checked_addresses, resolve_by_system
from tests.fakes.waiting import time_limit

PUBLIC = ["93.184.216.34", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111"]
PRIVATE = [
    "127.0.0.1",
    "127.255.255.254",
    "10.0.0.5",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "::1",
    "fc00::1",
    "fdff::1",
]
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "fd00:ec2::254",
    "fd20:ce::254",
    "fe80::1",
    "0.0.0.0",
    "0.1.2.3",
    "192.0.2.1",
    "198.18.0.1",
    "203.0.113.9",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "3fff::1",
    "5f00::1",
    "fec0::1",
    "ff02::1",
]


@pytest.mark.parametrize("text", PUBLIC)
def test_public_addresses_are_allowed(text: str) -> None:
    assert address_is_allowed(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", PRIVATE)
def test_private_addresses_are_allowed_only_where_the_settings_say_so(text: str) -> None:
    assert not address_is_allowed(ipaddress.ip_address(text))
    assert address_is_allowed(ipaddress.ip_address(text), allow_private=True)


@pytest.mark.parametrize("text", NEVER)
def test_metadata_and_reserved_addresses_are_never_allowed(text: str) -> None:
    assert not address_is_allowed(ipaddress.ip_address(text))
    assert not address_is_allowed(ipaddress.ip_address(text), allow_private=True)


@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_no_address_is_allowed_that_python_knows_to_be_private(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    if address.is_private or address.is_multicast or address.is_loopback or address.is_link_local:
        assert not address_is_allowed(address)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_inside_an_ipv6_one_is_refused(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "64:ff9b::", "64:ff9b:1::", "::"):
        outer = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address))
        assert not address_is_allowed(outer)
    in_6to4 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("2002::")) | int(address) << 80)
    assert not address_is_allowed(in_6to4)


@pytest.mark.parametrize(
    "url",
    [
        "http://shop.example/",
        "ftp://shop.example/",
        "file:///etc/passwd",
        "gopher://shop.example/",
        "//shop.example/",
        "shop.example",
        "https://",
        "https:///path",
        "https://user:secret@shop.example/",
        "https://shop.example:0/",
        "https://shop.example:99999/",
        "https://2130706433/",
        "https://017700000001/",
        "https://0x7f000001/",
        "https://0x7F.1/",
        "https://127.1/",
        "https://shop.0x/",
        "https://10.0.0.5./",
        "https://1.2.3/",
        "https://127。0。0。1/",
        "https://[::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[::ffff:a00:1]/",
        "https://①②⑦.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://shop.example\r\nX: 1/",
    ],
)
def test_an_invalid_url_is_refused_before_its_name_is_resolved(url: str) -> None:
    with pytest.raises(ToolFailed) as caught:
        check_url(url)
    assert caught.value.code == "url_refused"
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("url", ["https://shop.example/a?b=c", "https://93.184.216.34:8443/"])
def test_a_public_https_url_is_read(url: str) -> None:
    assert str(check_url(url)) == url


def test_plain_http_and_private_addresses_open_together_but_metadata_does_not() -> None:
    assert check_url("http://10.0.0.5/", allow_private=True).host == "10.0.0.5"
    with pytest.raises(ToolFailed):
        check_url("http://169.254.169.254/", allow_private=True)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (["93.184.216.34", "10.0.0.5"], "url_refused"),
        (["2606:4700::1111", "::1"], "url_refused"),
        (["fe80::1%eth0"], "url_refused"),
        (["not an address"], "url_refused"),
        ([], "unreachable"),
        (OSError("no such name"), "unreachable"),
        (UnicodeError("label too long"), "unreachable"),
    ],
)
async def test_one_refused_address_refuses_the_name(
    found: list[str] | Exception, code: str
) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        assert (host, port) == ("shop.example", 443)
        if isinstance(found, Exception):
            raise found
        return found

    with pytest.raises(ToolFailed) as caught:
        await checked_addresses(httpx2.URL("https://shop.example/"), resolve)
    assert caught.value.code == code


async def test_an_address_in_the_url_is_not_resolved() -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        raise AssertionError("resolved")

    url = httpx2.URL("https://[2606:4700::1111]/")
    assert await checked_addresses(url, resolve) == ["2606:4700::1111"]


async def test_a_slow_name_does_not_delay_the_resolving_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, answered = threading.Event(), threading.Event()
    ask = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host == "down.example":
            asked.set()
            answered.wait(60)
        return ask("127.0.0.1", *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        async with asyncio.TaskGroup() as tasks:
            asking = [tasks.create_task(resolve_by_system("down.example", 443)) for _ in range(40)]
            async with time_limit():
                await asyncio.to_thread(asked.wait)
                assert await asyncio.get_running_loop().getaddrinfo("up.example", 443)
            answered.set()
            async with time_limit():
                assert [await task for task in asking] == [["127.0.0.1"]] * 40
    finally:
        answered.set()
