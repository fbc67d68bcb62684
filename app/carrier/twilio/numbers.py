"""Points the account's phone numbers at this server, and back again.

`wanted`, `differences` and the documents are pure; `Archive` keeps what a number was set to before,
one file for each number, readable by its owner only; `connect` and `restore` do the work by REST.
Twilio ignores a number's own addresses while it has an application or a trunk: connecting takes it
off both, restoring puts it back.

Follows Twilio phone-numbers/api/incomingphonenumber-resource (2010-04-01).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from app.carrier.base import Destination, Fallback
from app.carrier.destinations import destination
from app.carrier.twilio.forward import forward_document
from app.carrier.twilio.http import clean_text, refusal_document
from app.carrier.twilio.rest import NumberSetup, TwilioRest
from app.errors import CarrierRefused, ConfigError

__all__ = [
    "Archive",
    "Change",
    "Saved",
    "apply",
    "connect_plan",
    "default_fallback",
    "describe",
    "describe_setup",
    "dialed",
    "differences",
    "echo_url",
    "fallback_document",
    "find",
    "restore_plan",
]

_FIELDS: Final = (
    "voice_url",
    "voice_method",
    "voice_fallback_url",
    "voice_fallback_method",
    "status_callback",
    "status_callback_method",
    "voice_application_sid",
    "trunk_sid",
)
"""The parameters that are set and restored, in the library's spelling."""

_NUMBER: Final = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
_MODE: Final = 0o600
_ECHO: Final = "https://twimlets.com/echo?Twiml="
"""Twilio's service that answers with the TwiML of its own address (twilio.com/labs/twimlets/echo):
it keeps nothing and needs no account, and does not depend on this server."""
_MAX_URL_CHARS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One field of a number that is to be another."""

    field: str
    before: str
    after: str


def differences(setup: NumberSetup, wanted: Mapping[str, str]) -> list[Change]:
    """The changes that make `setup` as `wanted`, in a fixed order."""
    return [
        Change(field=name, before=getattr(setup, name), after=wanted[name])
        for name in _FIELDS
        if name in wanted and getattr(setup, name) != wanted[name]
    ]


def _values(setup: NumberSetup) -> dict[str, str]:
    return {name: getattr(setup, name) for name in _FIELDS}


def describe(changes: list[Change]) -> list[str]:
    """The changes as lines for a person."""
    width = max((len(change.field) for change in changes), default=0)
    return [
        f"{change.field:<{width}}  {_readable(change.before)} -> {_readable(change.after)}"
        for change in changes
    ]


def dialed(number: str) -> Destination:
    """A number that is named on the command line, as a destination for callers.

    Raises:
        ConfigError: calls must not go to it.
    """
    return destination("fallback", number, ring_s=25)


def fallback_document(
    to: Destination | None,
    message: str,
    our_number: str = "",
    *,
    voice: str | None = None,
    language: str | None = None,
) -> str:
    """Static TwiML for a number's Voice Fallback URL, to be kept outside of this server.

    Says the message and puts the caller through to `to`; without one it hangs up.
    """
    if to is None:
        return refusal_document(message, voice=voice, language=language)
    fallback = Fallback(to=to, caller_number="", our_number=our_number)
    return forward_document(fallback, message, voice=voice, language=language)


def echo_url(document: str) -> str:
    """The address at which Twilio's own echo service answers with `document`.

    Raises:
        ConfigError: it is too long for an address.
    """
    _, _, root = document.partition("?>")  # the declaration is 50 characters of an address
    url = f"{_ECHO}{quote(root or document, safe='')}"
    if len(url) > _MAX_URL_CHARS:
        raise ConfigError("the fallback is too long for an address: shorten what it says")
    return url


def default_fallback(setup: NumberSetup, saved: Saved | None, document: str) -> str | None:
    """The fallback of a number where none is named: Twilio's echo of `document`.

    None where the number has one that is not of our making, which stays.

    Raises:
        ConfigError: as for `echo_url`.
    """
    there = setup.voice_fallback_url
    ours = saved is not None and saved.connected.get("voice_fallback_url") == there
    if there and not (ours and there.startswith(_ECHO)):
        return None
    return echo_url(document)


def _readable(value: str) -> str:
    if value.startswith(_ECHO):
        value = " ".join(clean_text(unquote(value)).split())
    return value or "(not set)"


def describe_setup(setup: NumberSetup, our_url: str) -> list[str]:
    """A number and where its calls, fallbacks and reports go, as lines for a terminal."""
    calls = setup.trunk_sid or setup.voice_application_sid
    if calls:
        calls = f"to {calls}"
    elif setup.voice_url == our_url:
        calls = f"to this server, {our_url}"
    return [
        f"{setup.number}  {setup.name}",
        f"    calls     {calls or setup.voice_url or '(not set)'}",
        f"    fallback  {_readable(setup.voice_fallback_url)}",
        f"    status    {setup.status_callback or '(not set)'}",
    ]


# Former settings of a number ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """A number as it was, and as we left it."""

    former: Mapping[str, str]
    connected: Mapping[str, str]


class Archive:
    """Former setups, one JSON file for each number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, number: str) -> Path:
        """The file of a number's former setup.

        Raises:
            ConfigError: `number` is not a phone number, and would not be a file name either.
        """
        if not _NUMBER.fullmatch(number):
            raise ConfigError(f"{number!r} is not a number such as +15551234567")
        return self._folder / f"{number}.json"

    def load(self, number: str) -> Saved | None:
        """The saved setup; None when nothing was saved.

        Raises:
            ConfigError: the file cannot be read or was not written by `save`.
        """
        path = self.path(number)
        try:
            found: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from None
        parts = found if isinstance(found, dict) else {}
        former, connected = _texts(parts.get("former")), _texts(parts.get("connected"))
        if former is None or connected is None:
            raise ConfigError(f"{path}: is not a saved number setup")
        return Saved(former=former, connected=connected)

    def save(self, number: str, saved: Saved) -> Path:
        """Keep a setup: whole or not at all.

        Raises:
            ConfigError: it cannot be written.
        """
        path = self.path(number)
        text = json.dumps(
            {"number": number, "former": {**saved.former}, "connected": {**saved.connected}},
            indent=2,
        )
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _MODE)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            draft.replace(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error}") from None
        return path

    def forget(self, number: str) -> None:
        """Remove what was restored."""
        self.path(number).unlink(missing_ok=True)


def _texts(found: Any) -> dict[str, str] | None:
    if not isinstance(found, dict) or not set(found) <= set(_FIELDS):
        return None
    return found if all(isinstance(value, str) for value in found.values()) else None


# The work -----------------------------------------------------------------------------------------


async def find(rest: TwilioRest, number: str) -> NumberSetup:
    """The setup of one of the account's numbers.

    Raises:
        CarrierRefused: it is not the account's (`number_unknown`), or as for `TwilioRest`.
        CarrierUnavailable: as for `TwilioRest`.
    """
    setup = await rest.find_number(number)
    if setup is None:
        raise CarrierRefused(f"{number} is not a number of this account", code="number_unknown")
    return setup


def connect_plan(
    setup: NumberSetup, *, voice_url: str, status_url: str, fallback_url: str | None
) -> list[Change]:
    """The changes that bring calls to this server; without a fallback the present one stays."""
    wanted = {
        "voice_url": voice_url,
        "voice_method": "POST",
        "status_callback": status_url,
        "status_callback_method": "POST",
        "voice_application_sid": "",
        "trunk_sid": "",
    }
    if fallback_url is not None:
        # A file on a web server knows GET only.
        wanted |= {"voice_fallback_url": fallback_url, "voice_fallback_method": "GET"}
    return differences(setup, wanted)


def restore_plan(setup: NumberSetup, saved: Saved) -> tuple[list[Change], list[Change]]:
    """The changes that restore the former setup, and those made since, which would be lost."""
    return differences(setup, saved.former), differences(setup, saved.connected)


async def apply(
    rest: TwilioRest, archive: Archive, setup: NumberSetup, changes: list[Change], *, keep: bool
) -> NumberSetup:
    """Make the changes. With `keep` the former setup is saved first; else it is forgotten after.

    Raises:
        ConfigError: the former setup cannot be saved; nothing was changed.
        CarrierRefused, CarrierUnavailable: as for `TwilioRest.set_number`.
    """
    after = {change.field: change.after for change in changes}
    if keep:
        now = _values(setup)
        saved = archive.load(setup.number)
        former = now if saved is None else _former(now, saved)
        archive.save(setup.number, Saved(former=former, connected={**now, **after}))
    if changes:
        setup = await rest.set_number(setup.number_id, after)
    if not keep:
        archive.forget(setup.number)
    return setup


def _former(now: Mapping[str, str], saved: Saved) -> dict[str, str]:
    """The former value of each field that is as we left it."""
    return {
        name: saved.former.get(name, value) if saved.connected.get(name) == value else value
        for name, value in now.items()
    }
