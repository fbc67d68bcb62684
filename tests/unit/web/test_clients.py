"""Access: local clients, bearers of a token, pages of other sites."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from app.web.clients import AccessRule, bearer_token, is_foreign_site, is_local, same_secret


@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("127.0.0.1", "127.0.0.1:8080"),
        ("127.0.0.1", "localhost"),
        ("127.8.9.10", "localhost:8080"),
        ("::1", "[::1]:8080"),
        ("::ffff:127.0.0.1", "localhost:8080"),
    ],
)
def test_a_program_on_this_machine_is_local(client: str, host: str) -> None:
    assert is_local(client, Headers({"host": host}))


@pytest.mark.parametrize(
    ("client", "headers"),
    [
        ("203.0.113.9", {"host": "localhost"}),
        ("::ffff:203.0.113.9", {"host": "localhost"}),
        (None, {"host": "localhost"}),
        ("", {"host": "localhost"}),
        ("127.0.0.1", {}),
        ("127.0.0.1", {"host": "voice.example.com"}),
        ("127.0.0.1", {"host": "localhost.example.com"}),
        ("127.0.0.1", {"host": "localhost@example.com"}),
        ("127.0.0.1", {"host": "[::1"}),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "203.0.113.9"}),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=203.0.113.9"}),
        ("127.0.0.1", {"host": "localhost", "via": "1.1 proxy"}),
    ],
)
def test_anyone_who_came_another_way_is_not_local(
    client: str | None, headers: dict[str, str]
) -> None:
    assert not is_local(client, Headers(headers))


def test_two_hosts_are_one_too_many() -> None:
    raw = [(b"host", b"localhost"), (b"host", b"voice.example.com")]
    assert not is_local("127.0.0.1", Headers(raw=raw))


LOCAL_HEADS: list[dict[str, str]] = [
    {"host": "127.0.0.1:8080"},  # also what nginx sends by itself: it passes its own target as Host
    {"host": "localhost"},
    {"host": "[::1]:8080"},
]
OTHER_HEADS: list[dict[str, str]] = [
    {"host": "voice.example.com"},
    {"host": "127.0.0.1:8080", "x-forwarded-for": "203.0.113.9"},
    {"host": "localhost", "via": "2.0 Caddy"},
    {},
]


def _admitted(
    access: AccessRule, headers: dict[str, str], *, client: str = "127.0.0.1", bearer: str = ""
) -> bool:
    if bearer:
        headers = {**headers, "authorization": f"Bearer {bearer}"}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "headers": raw, "client": (client, 4711)}
    return access.admits(HTTPConnection(scope))


@pytest.mark.parametrize("headers", [*LOCAL_HEADS, *OTHER_HEADS])
@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "203.0.113.9"])
def test_a_route_without_a_token_is_open_to_nobody_once_the_internet_can_come(
    client: str, headers: dict[str, str]
) -> None:
    for bearer in ("", "a", "None"):
        assert not _admitted(AccessRule(), headers, client=client, bearer=bearer)


@pytest.mark.parametrize("open_to_local", [True, False])
@pytest.mark.parametrize("headers", [*LOCAL_HEADS, *OTHER_HEADS])
def test_a_route_with_a_token_is_open_to_its_bearers_only(
    headers: dict[str, str], open_to_local: bool
) -> None:
    access = AccessRule("secret", open_to_local)
    for client in ("127.0.0.1", "203.0.113.9"):
        assert _admitted(access, headers, client=client, bearer="secret")
        for wrong in ("", "secre", "secret2"):
            assert not _admitted(access, headers, client=client, bearer=wrong)


def test_a_route_for_this_machine_is_open_to_its_programs_only() -> None:
    access = AccessRule(open_to_local=True)
    assert all(_admitted(access, headers) for headers in LOCAL_HEADS)
    assert not any(_admitted(access, headers) for headers in OTHER_HEADS)
    assert not any(_admitted(access, headers, client="203.0.113.9") for headers in LOCAL_HEADS)


@pytest.mark.parametrize(
    "access",
    [
        AccessRule(),
        AccessRule(open_to_local=True),
        AccessRule("secret"),
        AccessRule("secret", True),
    ],
)
def test_a_page_of_another_site_is_admitted_nowhere(access: AccessRule) -> None:
    headers = {"host": "localhost:8080", "origin": "https://evil.example"}
    assert not _admitted(access, headers, bearer="secret")


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", ""),
        ("abc", ""),
        ("", ""),
    ],
)
def test_a_bearer_token_is_read(header: str, token: str) -> None:
    assert bearer_token({"authorization": header}) == token


def test_an_empty_secret_equals_nothing() -> None:
    assert not same_secret("", "")
    assert not same_secret("a", "")
    assert not same_secret("", "a")
    assert same_secret("käse", "käse")


@pytest.mark.parametrize(
    ("origin", "foreign"),
    [
        (None, False),
        ("http://localhost:8080", False),
        ("https://LOCALHOST:8080", False),
        ("http://localhost:9090", True),
        ("https://evil.example", True),
        ("null", True),
        ("", True),
        ("file://", True),
        ("http://[::1", True),
    ],
)
def test_a_page_of_another_site_is_foreign(origin: str | None, foreign: bool) -> None:
    headers = {"host": "localhost:8080"}
    if origin is not None:
        headers["origin"] = origin
    assert is_foreign_site(Headers(headers)) is foreign
