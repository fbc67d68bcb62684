"""The stream token: only ours, only for its call, only in time."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.carrier import token
from app.carrier.base import CarrierCallId
from app.errors import LocalProtocolError, SignatureError

SECRET = b"0123456789abcdef0123456789abcdef"
CALL = CarrierCallId("CA1")
URL_SAFE = string.ascii_letters + string.digits + "-_"


def issued(expires_at_s: int = 1_000) -> str:
    return token.issue(SECRET, CALL, "AC1", "nonce-0001", expires_at_s)


def test_a_token_gives_its_nonce_back() -> None:
    assert token.verify(SECRET, issued(), CALL, "AC1", 900) == "nonce-0001"


def test_a_token_needs_no_escaping_anywhere() -> None:
    assert set(issued()) <= set(URL_SAFE + ".")
    assert len(token.issue(SECRET, CALL, "AC1", "n" * 64, 999_999_999_999)) < 200


def test_clocks_may_differ_by_the_skew_and_no_more() -> None:
    assert token.verify(SECRET, issued(1_000), CALL, "AC1", 1_000 + token.SKEW_S)
    with pytest.raises(SignatureError) as caught:
        token.verify(SECRET, issued(1_000), CALL, "AC1", 1_001 + token.SKEW_S)
    assert caught.value.code == token.TOKEN_EXPIRED


@pytest.mark.parametrize(
    ("secret", "call", "account"),
    [
        (SECRET[::-1], "CA1", "AC1"),
        (SECRET, "CA2", "AC1"),
        (SECRET, "CA1", "AC2"),
        (SECRET, "CA1A", "C1"),
        (SECRET, "", ""),
        (SECRET, "\ud800", "AC1"),
    ],
)
def test_a_token_is_bound_to_secret_call_and_account(
    secret: bytes, call: str, account: str
) -> None:
    with pytest.raises(SignatureError) as caught:
        token.verify(secret, issued(), CarrierCallId(call), account, 900)
    assert caught.value.code == "signature_invalid"


@pytest.mark.parametrize(
    "text",
    ["", ".", "..", "1000.nonce-0001.", "é" * 60, "\ud800", issued() + "\n", " " + issued()],
)
def test_a_malformed_token_is_a_signature_error(text: str) -> None:
    with pytest.raises(SignatureError):
        token.verify(SECRET, text, CALL, "AC1", 900)


@given(place=st.integers(0, len(issued()) - 1), sign=st.sampled_from(URL_SAFE + ".é\0"))
def test_changing_any_character_breaks_a_token(place: int, sign: str) -> None:
    good = issued()
    bad = good[:place] + sign + good[place + 1 :]
    if bad == good:
        return
    with pytest.raises(SignatureError):
        token.verify(SECRET, bad, CALL, "AC1", 900)


@given(
    call=st.text(max_size=40),
    account=st.text(max_size=40),
    nonce=st.text(URL_SAFE, min_size=8, max_size=64),
    expires_at_s=st.integers(1, 10**12 - 1),
)
def test_every_token_that_we_issue_verifies(
    call: str, account: str, nonce: str, expires_at_s: int
) -> None:
    text = token.issue(SECRET, CarrierCallId(call), account, nonce, expires_at_s)
    assert token.verify(SECRET, text, CarrierCallId(call), account, expires_at_s) == nonce


@pytest.mark.parametrize(
    ("secret", "nonce", "expires_at_s"),
    [(b"short", "nonce-0001", 1), (SECRET, "short", 1), (SECRET, "a.b.c.d.e", 1),
     (SECRET, "nonce-0001", 0)],
)  # fmt: skip
def test_unsafe_tokens_are_not_issued(secret: bytes, nonce: str, expires_at_s: int) -> None:
    with pytest.raises(LocalProtocolError):
        token.issue(secret, CALL, "AC1", nonce, expires_at_s)
