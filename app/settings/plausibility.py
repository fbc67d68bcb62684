"""Values that are valid and look wrong: placeholders, and addresses that Twilio cannot reach."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from app.settings.model import Mode, Settings
from app.settings.reader.origin import Place
from app.settings.values import is_loopback

__all__ = ["implausible"]

Found = Iterator[tuple[Place, str]]

_TWILIO_AUTH_TOKEN: Final = re.compile(r"[0-9a-f]{32}")
_PLACEHOLDER: Final = re.compile(
    r"^(?:sk-)?(?:my|the|some|a)[-_ ]|your[-_ ]|change[-_ ]?me|replace[-_ ]?me|placeholder|example|"
    r"^insert|^todo|^dummy|^secret|^password|^(?:sk-)?0?12345678|<.*>|\.\.\.|\*{3}|x{6}|(?P<one>.)(?P=one){9}",
    re.IGNORECASE,
)
_NOT_PUBLIC: Final = (
    ".local",
    ".localdomain",
    ".internal",
    ".lan",
    ".home.arpa",
    ".test",
    ".invalid",
)
_EXAMPLES: Final = ("example.com", "example.org", "example.net", ".example")  # RFC 2606
_HTTPS_PORT: Final = 443
_AUTH_TOKENS: Final = (("twilio", "auth_token"), ("twilio", "auth_token_secondary"))


def implausible(settings: Settings) -> Found:
    """Each such value: where it stands, and what to do."""
    yield from _placeholders(settings)
    if (name := settings.network.rule.ignored_proxy()) and settings.network.proxy is None:
        yield (
            ("network", "proxy"),
            f"{name} is set and not used: set it to environment, or to none for no such notice",
        )
    if settings.mode is Mode.LIVE:
        yield from _unreachable(settings)


def _placeholders(settings: Settings) -> Found:
    model, twilio, server = settings.openai_realtime, settings.twilio, settings.server
    secrets: dict[Place, SecretStr | None] = {
        ("openai_realtime", "api_key"): model.api_key,
        **{("openai_realtime", "headers", name): value for name, value in model.headers.items()},
        ("twilio", "auth_token"): twilio.auth_token,
        ("twilio", "auth_token_secondary"): twilio.auth_token_secondary,
        ("twilio", "shared_key"): twilio.shared_key,
        ("twilio", "shared_key_secondary"): twilio.shared_key_secondary,
        ("server", "operator_token"): server.operator_token,
        ("server", "metrics_token"): server.metrics_token,
        ("offline", "realtime_token"): settings.offline.realtime_token,
    }
    for place, secret in secrets.items():
        text = secret.get_secret_value() if secret is not None else ""
        if text and _PLACEHOLDER.search(text):
            yield place, "looks like a placeholder: put the real value there"
        elif text and place in _AUTH_TOKENS and not _TWILIO_AUTH_TOKEN.fullmatch(text):
            yield place, "does not look like a token of Twilio, 32 of 0-9 and a-f: copy it again"
        elif text and place[1] == "api_key" and model.is_openai and not text.startswith("sk-"):
            yield place, "does not look like a key of OpenAI, sk-...: copy it again"
    if twilio.account_sid and _PLACEHOLDER.search(twilio.account_sid):
        yield ("twilio", "account_sid"), "looks like a placeholder: put the real value there"


def _unreachable(settings: Settings) -> Found:
    place = ("server", "public_url")
    parts = urlsplit(settings.server.public_url or "")
    host, port = (parts.hostname or "").rstrip("."), parts.port
    if not host or is_loopback(host):
        return  # refused by `check_deployment`
    if host.endswith(_EXAMPLES):
        yield place, "is an address from an example: set it to your own"
    elif not _is_public(host):
        yield place, f"Twilio cannot reach {host}: it is known in your own network only"
    if port not in (None, _HTTPS_PORT):  # Twilio voice/twiml/stream: url
        yield place, f"Twilio opens media streams on port 443 only, not {port}: remove the port"


def _is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith(_NOT_PUBLIC)
