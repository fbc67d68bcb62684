"""Signatures of requests: one that passes, and all that do not."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from twilio.request_validator import RequestValidator

from app.carrier.twilio.http import Form, SignatureChecker, sign_http
from app.errors import ConfigError, SignatureError

TOKEN = "12345"
PUBLIC = "https://mycompany.com"
PATH = "/myapp.php?foo=1&bar=2"
# The example of Twilio's page on webhook security, with its published answer.
EXAMPLE = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675309",
    "Digits": "1234",
    "From": "+14158675309",
    "To": "+18005551212",
}
ANSWER = "RSOYDt4T1cUTdK1PDd93/VVr8B8="


def checker(public_url: str = PUBLIC, *tokens: str) -> SignatureChecker:
    return SignatureChecker(tokens or (TOKEN,), public_url)


def refused(
    path: str, params: Form, signature: str | None, *, by: SignatureChecker | None = None
) -> bool:
    with pytest.raises(SignatureError):
        (by or checker()).check_http(path, params, signature)
    return True


def test_the_documented_example_gives_the_documented_signature() -> None:
    assert sign_http(TOKEN, PUBLIC + PATH, EXAMPLE) == ANSWER
    assert checker().check_http(PATH, EXAMPLE, ANSWER) == PUBLIC + PATH


@pytest.mark.parametrize(
    "signature",
    [None, "", " ", ANSWER[:-1], ANSWER + "=", ANSWER.lower(), "é" * 28, "\ud800", "x" * 100_000],
)
def test_malformed_signatures_are_refused_without_another_error(signature: str | None) -> None:
    assert refused(PATH, EXAMPLE, signature)
    with pytest.raises(SignatureError):
        checker().check_websocket("/media", signature)


def test_another_address_parameter_or_token_is_refused() -> None:
    assert refused("/other.php?foo=1&bar=2", EXAMPLE, ANSWER)
    assert refused("/myapp.php?foo=1", EXAMPLE, ANSWER)
    assert refused(PATH, {**EXAMPLE, "Digits": "1235"}, ANSWER)
    assert refused(PATH, {**EXAMPLE, "Extra": ""}, ANSWER)
    assert refused(PATH, {}, ANSWER)
    assert refused(PATH, EXAMPLE, ANSWER, by=checker(PUBLIC, "another token"))
    assert refused(PATH, EXAMPLE, ANSWER, by=checker("https://elsewhere.com"))
    assert refused(PATH, EXAMPLE, ANSWER, by=checker("http://mycompany.com"))
    assert refused(PUBLIC + PATH, EXAMPLE, ANSWER)
    assert refused("", EXAMPLE, ANSWER)


def test_a_get_request_signs_its_query_alone() -> None:
    signature = sign_http(TOKEN, PUBLIC + PATH)
    assert checker().check_http(PATH, {}, signature)
    assert refused("/myapp.php?foo=1&bar=3", {}, signature)


def test_two_tokens_are_taken_while_one_replaces_the_other() -> None:
    both = checker(PUBLIC, "new token", "old token")
    for token in ("new token", "old token"):
        assert both.check_http(PATH, EXAMPLE, sign_http(token, PUBLIC + PATH, EXAMPLE))
    assert refused(PATH, EXAMPLE, sign_http("older", PUBLIC + PATH, EXAMPLE), by=both)


@pytest.mark.parametrize(
    "signed",
    [
        "https://mycompany.com/voice",
        "https://mycompany.com/voice/",
        "https://mycompany.com:443/voice",
        "https://mycompany.com:443/voice/",
    ],
)
@pytest.mark.parametrize(
    "public_url", [PUBLIC, PUBLIC + "/", PUBLIC + ":443", "wss://mycompany.com"]
)
@pytest.mark.parametrize("path", ["/voice", "/voice/"])
def test_port_and_slash_may_be_spelled_either_way(signed: str, public_url: str, path: str) -> None:
    signature = sign_http(TOKEN, signed, EXAMPLE)
    assert checker(public_url).check_http(path, EXAMPLE, signature) == signed


@pytest.mark.parametrize("scheme", ["wss", "https"])
@pytest.mark.parametrize("host", ["mycompany.com", "mycompany.com:443"])
@pytest.mark.parametrize("path", ["/media", "/media/"])
def test_a_handshake_may_be_signed_as_wss_or_https(scheme: str, host: str, path: str) -> None:
    url = f"{scheme}://{host}{path}"
    assert checker().check_websocket("/media", sign_http(TOKEN, url)) == url


@pytest.mark.parametrize(
    "url",
    [
        "ws://mycompany.com/media",
        "http://mycompany.com/media",
        "wss://mycompany.com:80/media",
        "wss://mycompany.com/media//",
        "wss://mycompany.com/media?token=1",
        "wss://evil.example/media",
    ],
)
def test_a_handshake_for_another_address_is_refused(url: str) -> None:
    with pytest.raises(SignatureError):
        checker().check_websocket("/media", sign_http(TOKEN, url))


def test_a_webhook_may_not_be_signed_as_a_websocket() -> None:
    assert refused(PATH, {}, sign_http(TOKEN, "wss://mycompany.com" + PATH))


def test_a_port_and_a_path_of_our_own_are_kept() -> None:
    own = checker("https://mycompany.com:8443/phone/")
    for host in ("mycompany.com:8443", "mycompany.com"):
        url = f"https://{host}/phone/voice"
        assert own.check_http("/voice", {}, sign_http(TOKEN, url)) == url
    assert refused("/voice", {}, sign_http(TOKEN, "https://mycompany.com:443/phone/voice"), by=own)


def test_loopback_development_is_signed_without_tls() -> None:
    local = checker("http://127.0.0.1:8080")
    assert local.check_http("/v", {}, sign_http(TOKEN, "http://127.0.0.1:8080/v"))
    assert local.check_websocket("/m", sign_http(TOKEN, "ws://127.0.0.1:8080/m"))
    six = checker("http://[::1]:8080")
    assert six.check_http("/v", {}, sign_http(TOKEN, "http://[::1]:8080/v"))


def test_repeated_fields_are_signed_as_twilios_helper_signs_them() -> None:
    pairs = [("B", "2"), ("A", "y"), ("A", "x"), ("A", "y")]
    signature = sign_http(TOKEN, PUBLIC + "/v", pairs)
    message = (PUBLIC + "/v" + "AxAyB2").encode()
    expected = base64.b64encode(hmac.new(TOKEN.encode(), message, hashlib.sha1).digest())
    assert signature == expected.decode()
    assert checker().check_http("/v", pairs, signature)
    assert refused("/v", [*pairs, ("A", "z")], signature)
    assert refused("/v", dict(pairs), signature)


SHARED = "shared-key-of-its-own"
BY_KEY = "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"


@pytest.mark.parametrize(
    ("secret", "algorithm", "settings", "accepted"),
    [
        (TOKEN, "HMAC_SHA1", None, True),
        (TOKEN, "HMAC_SHA1", "", True),
        (TOKEN, "HMAC_SHA256", None, False),
        (TOKEN, "HMAC_SHA256", BY_KEY, False),  # a token is tried without the header alone
        (TOKEN, "HMAC_SHA1", "key=webhooks_sharedkey_1", False),
        (SHARED, "HMAC_SHA256", BY_KEY, True),
        (SHARED, "HMAC_SHA256", " algorithm=hmac_sha256 , key=webhooks_sharedkey_1", True),
        (SHARED, "HMAC_SHA1", "key=webhooks_sharedkey_1,algorithm=HMAC_SHA1", True),
        (SHARED, "HMAC_SHA1", "key=webhooks_sharedkey_1", True),
        (SHARED, "HMAC_SHA256", None, False),  # and a shared key with it alone
        (SHARED, "HMAC_SHA1", None, False),
        (SHARED, "HMAC_SHA1", BY_KEY, False),
        (SHARED, "HMAC_SHA256", "key=webhooks_sharedkey_1,algorithm=HMAC_MD5", False),
        (SHARED, "HMAC_SHA256", "algorithm=none", False),
        ("another", "HMAC_SHA256", BY_KEY, False),
        (SHARED + "-2", "HMAC_SHA256", BY_KEY, True),
    ],
)
def test_a_shared_key_opens_what_names_one_and_a_token_the_rest(
    secret: str, algorithm: str, settings: str | None, accepted: bool
) -> None:
    keyed = SignatureChecker((TOKEN,), PUBLIC, shared_keys=(SHARED, SHARED + "-2"))
    url, socket = PUBLIC + PATH, PUBLIC.replace("https", "wss") + "/media"
    validator = RequestValidator(secret)
    signed: str = validator.compute_signature(url, EXAMPLE, algorithm)
    handshake: str = validator.compute_signature(socket, {}, algorithm)
    if accepted:
        assert keyed.check_http(PATH, EXAMPLE, signed, settings=settings) == url
        assert keyed.check_websocket("/media", handshake, settings=settings) == socket
        return
    with pytest.raises(SignatureError):
        keyed.check_http(PATH, EXAMPLE, signed, settings=settings)
    with pytest.raises(SignatureError):
        keyed.check_websocket("/media", handshake, settings=settings)


def test_a_request_that_names_a_shared_key_says_so_where_none_is_set() -> None:
    for secret in (TOKEN, SHARED):
        signed: str = RequestValidator(secret).compute_signature(
            PUBLIC + PATH, EXAMPLE, "HMAC_SHA256"
        )
        with pytest.raises(SignatureError) as caught:
            checker().check_http(PATH, EXAMPLE, signed, settings=BY_KEY)
        assert caught.value.code == "no_shared_key"


@pytest.mark.parametrize("keys", [("",), ("good", ""), "good"])
def test_a_shared_key_may_not_be_empty(keys: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        SignatureChecker((TOKEN,), PUBLIC, shared_keys=keys)


def test_text_that_cannot_have_been_signed_is_refused() -> None:
    assert refused(PATH, {"From": "\ud800"}, ANSWER)
    assert refused("/\ud800", {}, ANSWER)


@pytest.mark.parametrize("tokens", [(), ("",), ("good", ""), "good"])
def test_a_checker_without_a_token_does_not_exist(tokens: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError):
        SignatureChecker(tokens, PUBLIC)


@pytest.mark.parametrize(
    "public_url",
    ["", "mycompany.com", "ftp://mycompany.com", "https://", "https://a:b@mycompany.com",
     "https://mycompany.com?x=1", "https://mycompany.com#x", "https://mycompany.com:port",
     "https://[::1"],
)  # fmt: skip
def test_a_public_address_that_is_not_one_is_refused_at_start(public_url: str) -> None:
    with pytest.raises(ConfigError):
        checker(public_url)
