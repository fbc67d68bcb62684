"""Access: local clients, bearers of a token, pages of other sites."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from app.web.access import bearer_token, is_foreign_site, is_local, same_secret


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
