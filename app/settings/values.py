"""The kinds of values that settings are made of: numbers, addresses, secrets, paths, names.

Each error names what was expected. The sections are in the files beside this one.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import SplitResult, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import phonenumbers
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    SecretStr,
    ValidationInfo,
)

from app.network import is_loopback
from app.settings.reader.names import nearest

__all__ = [
    "NO_BLANKS",
    "AccountSid",
    "Blank",
    "FilePath",
    "FunctionPath",
    "HeaderName",
    "HeaderValue",
    "Language",
    "Name",
    "OptionalSecret",
    "PhoneNumber",
    "PublicUrl",
    "RestUrl",
    "Secret",
    "Section",
    "Spoken",
    "Text",
    "TimeZone",
    "UrlPath",
    "WebsocketUrl",
    "is_loopback",
    "is_openai",
]


_WHOLE_NUMBER: Final = "write the whole number with + and country code, such as +15551234567"


def is_openai(url: str) -> bool:
    """True for OpenAI's own address, whose models are known."""
    return urlsplit(url).hostname == "api.openai.com"


def _blank_is_absent(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _no_bare_number(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        raise ValueError(f"{value} is not a phone number: {_WHOLE_NUMBER}")
    return value


def _language(code: str) -> str:
    if not re.fullmatch(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*", code):
        raise ValueError(f"{code!r} is not a language code such as en")
    return code


def _e164(number: str) -> str:
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", number):
        # Anything else may be a secret in the wrong place, which is not repeated.
        shown = repr(number) if re.fullmatch(r"[0-9+() ./-]{1,25}", number) else "this"
        if "@" in number:
            raise ValueError("this is not a phone number: a SIP address stands under sip")
        if near := _near_number(number):
            raise ValueError(f'{shown} is not a whole phone number; did you mean "{near}"?')
        raise ValueError(f"{shown} is not a phone number: {_WHOLE_NUMBER}")
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException:
        raise ValueError(f"{number} has no known country code") from None
    # Possible, not valid: the length and the country are checked, ranges change too often.
    if not phonenumbers.is_possible_number(parsed):
        raise ValueError(f"{number} is too short or too long for its country")
    return number


def _near_number(written: str) -> str | None:
    """A number that is written as people write it, if it is whole."""
    text = re.sub(r"\(0\)|[() ./-]|^tel:", "", written.strip())
    digits = re.sub(r"^(\+|00|011)", "", text)
    if not re.fullmatch(r"[1-9][0-9]{6,14}", digits):
        return None
    try:
        parsed = phonenumbers.parse(f"+{digits}", None)
    except phonenumbers.NumberParseException:
        return None
    return f"+{digits}" if phonenumbers.is_valid_number(parsed) else None


def _account_sid(sid: str) -> str:
    if not re.fullmatch(r"AC[0-9a-fA-F]{32}", sid):
        raise ValueError("expected a Twilio account SID: AC and 32 hexadecimal digits")
    return sid


def _secret(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if len(text) < 8:
        raise ValueError("too short for a secret: at least 8 characters")
    if text != text.strip() or not text.isprintable():
        raise ValueError("holds spaces, line breaks or control characters at its ends or inside")
    return secret


def _public_url(text: str) -> str:
    parts = _split_url(text, "https", "http")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError(f"must be https: carriers and callers reach it over the internet: {text}")
    return text.rstrip("/")


def _websocket_url(text: str) -> str:
    _split_url(text, "wss", "ws")
    return text


def _rest_url(text: str) -> str:
    parts = _split_url(text, "https", "http")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("must be https: it carries the auth token")
    return text.rstrip("/")


def _split_url(text: str, *schemes: str) -> SplitResult:
    expected = f"expected {schemes[0]}://host, such as {schemes[0]}://voice.example.com"
    try:
        parts = urlsplit(text)
        _ = parts.port  # a port that is not a number raises here
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in schemes or not parts.hostname or parts.fragment:
        raise ValueError(expected)
    if parts.username is not None:
        raise ValueError("must not hold a user name or password")
    if parts.query and schemes[0] == "https":
        raise ValueError("must not hold a query")
    return parts


def _url_path(path: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", path):
        raise ValueError(f"expected a path such as /twilio/voice; found {path!r}")
    return path


def _beside_config(path: object, info: ValidationInfo) -> Path:
    """Relative paths start at the folder of the configuration file, not at the shell's."""
    if not isinstance(path, str | Path) or not str(path):
        raise ValueError("expected a path")
    folder = (info.context or {}).get("folder")
    return Path(path) if folder is None else Path(folder) / path


def _function_path(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", text, re.ASCII):
        raise ValueError(f"expected package.module:function; found {text!r}")
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        if near := _near_zone(name):
            raise ValueError(f'{name[:60]!r} is not a time zone; did you mean "{near}"?') from None
        raise ValueError(
            f"{name[:60]!r} is not a time zone such as America/New_York, or this system has no "
            "time zone data (install tzdata)"
        ) from None
    return name


_ZONES_OF_ABBREVIATIONS: Final = {
    "pst": "America/Los_Angeles",
    "pdt": "America/Los_Angeles",
    "mdt": "America/Denver",
    "cst": "America/Chicago",
    "cdt": "America/Chicago",
    "edt": "America/New_York",
    "bst": "Europe/London",
    "cest": "Europe/Berlin",
    "ist": "Asia/Kolkata",
    "jst": "Asia/Tokyo",
    "sgt": "Asia/Singapore",
    "aest": "Australia/Sydney",
    "utc+0": "UTC",
    "z": "UTC",
}


def _near_zone(name: str) -> str | None:
    """The zone that was probably meant: by its city, an abbreviation, or nearly the same name."""
    wanted = re.sub(r"\s+", "_", name.strip()).lower()
    if wanted in _ZONES_OF_ABBREVIATIONS:
        return _ZONES_OF_ABBREVIATIONS[wanted]
    zones = sorted(available_timezones())
    of_city = [zone for zone in zones if zone.lower().rpartition("/")[2] == wanted]
    return of_city[0] if of_city else nearest(wanted, zones, cutoff=_LIKE_ZONE)


_LIKE_ZONE: Final = 0.75


def _header_value(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?", secret.get_secret_value()):
        raise ValueError("expected plain text without line breaks, and without spaces around it")
    return secret


Blank = BeforeValidator(_blank_is_absent)
FunctionPath = Annotated[str, AfterValidator(_function_path)]
TimeZone = Annotated[str, AfterValidator(_time_zone)]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]  # RFC 9110, 5.6.2
HeaderValue = Annotated[SecretStr, AfterValidator(_header_value)]
AccountSid = Annotated[str, AfterValidator(_account_sid)]
PublicUrl = Annotated[str, AfterValidator(_public_url)]
RestUrl = Annotated[str, AfterValidator(_rest_url)]
WebsocketUrl = Annotated[str, AfterValidator(_websocket_url)]
PhoneNumber = Annotated[str, BeforeValidator(_no_bare_number), AfterValidator(_e164)]
Secret = Annotated[SecretStr, AfterValidator(_secret)]
OptionalSecret = Annotated[Secret | None, Blank]
UrlPath = Annotated[str, AfterValidator(_url_path)]
FilePath = Annotated[Path, PlainValidator(_beside_config)]
Text = Annotated[str, Field(min_length=1)]
NO_BLANKS: Final = r"^\S+$"
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=NO_BLANKS)]
Language = Annotated[str, AfterValidator(_language)]
Spoken = Annotated[str, Field(min_length=1, max_length=500)]  # OpenAI: 512 per metadata value


class Section(BaseModel):
    """Strict, frozen, and every key known."""

    # No input in errors: an error must not show a secret.
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, validate_default=True
    )

    def without_effect(self) -> Collection[str]:
        """Keys that do nothing beside the values of the others, and so may not be given."""
        return ()
