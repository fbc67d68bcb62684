"""`trunkline init`: writes a starter configuration, and asks only for what it cannot know.

What stands in the environment is not asked for, nor copied into `.env`. Files that are there stay.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import typer

from app.cli.shared import echo, fail, wrapped
from app.errors import AppError
from app.installation import caller_command, command

__all__ = ["ask_for_values", "init", "local_time_zone", "starter", "starter_env"]

_STARTER: Final = """\
# The keys that most people set first. `trunkline config show` prints all others with their values,
# `trunkline config check` finds mistakes. Keys and addresses stand in .env beside this file.
openai_realtime:
  model: gpt-realtime-2.1
  voice: marin

# The agents that answer, by name; the first one answers the phone.
agents:
  assistant:
    greeting: Hello! How can I help you today?
    # {time} and {caller} stand for what is known of the call.
    instructions: >-
      You answer the telephone. It is {time}. Be friendly and brief: one or two short sentences at
      a time. Ask when something is unclear, and say goodbye before the call ends.
    time_zone: TIME_ZONE

limits:
  # What one call may take, and how many may talk at a time.
  max_duration_s: 1800
  max_calls: 20
"""
_ENV: Final = """\
# Holds secrets: keep it out of version control. `trunkline doctor` checks each of them.

# From https://platform.openai.com/api-keys
OPENAI_API_KEY={OPENAI_API_KEY}
# From https://console.twilio.com, "Account Info"
TWILIO_ACCOUNT_SID={TWILIO_ACCOUNT_SID}
TWILIO_AUTH_TOKEN={TWILIO_AUTH_TOKEN}
# Your number, with + and country code
TWILIO_PHONE_NUMBER={TWILIO_PHONE_NUMBER}
# The https address at which Twilio reaches this server
PUBLIC_URL={PUBLIC_URL}
"""
_NAMES: Final = re.findall(r"\{(\w+)\}", _ENV)


def init() -> None:
    """Write a starter config.yaml and .env in this folder; files that are there stay."""
    config, env = Path("config.yaml"), Path(".env")
    try:
        _write(config, starter(local_time_zone()), 0o644, "what the agent says; edit it")
        if os.path.lexists(env):
            echo(".env        is there and stays as it is")
        else:
            values = ask_for_values(os.environ) if sys.stdin.isatty() else {}
            text = starter_env(values)
            _write(env, text, 0o600, "keys and addresses, readable by you only")
    except OSError as error:
        fail(f"{error.filename}: cannot be written: {error.strerror}")
    steps = [
        (f"{command()} serve", "starts the server"),
        (caller_command(), "calls it, in a second terminal"),
        (f"{command()} doctor", "says what real calls still need"),
    ]
    width = max(len(what) for what, _ in steps)
    for n, (what, why) in enumerate(steps):
        echo(f"{'' if n else 'next':<11} {what:<{width}}  {why}")


def starter(time_zone: str) -> str:
    """The starter configuration, for callers in this zone."""
    return _STARTER.replace("TIME_ZONE", time_zone)


def starter_env(values: Mapping[str, str]) -> str:
    """The text of `.env`; what is not known stays empty."""
    return _ENV.format(**{name: values.get(name, "") for name in _NAMES})


def local_time_zone() -> str:
    """The machine's zone by its IANA name; UTC where it does not tell."""
    named = os.environ.get("TZ", "") or os.path.realpath("/etc/localtime").partition("zoneinfo/")[2]
    return named if re.fullmatch(r"\w+(/[\w+-]+)+", named) else "UTC"


def _write(path: Path, text: str, mode: int, what: str) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError:
        echo(f"{path!s:<11} is there and stays as it is")
        return
    with open(handle, "w", encoding="utf-8") as file:
        file.write(text)
    echo(f"{path!s:<11} written: {what}")


def ask_for_values(known: Mapping[str, str]) -> dict[str, str]:
    """The answers of whoever sits at the terminal; Enter leaves one for later."""
    values: dict[str, str] = {}

    def ask(name: str, hint: str) -> bool:
        """Ask for one value; True if there is one then."""
        if known.get(name) or known.get(f"{name}_FILE"):
            echo(f"{name}: taken from the environment")
            return True
        hidden = name.endswith(("KEY", "TOKEN"))
        prompt = f"{name} ({hint}; Enter for later)"
        shown = wrapped(prompt, sys.stdout)
        answer = typer.prompt(shown, default="", hide_input=hidden, show_default=False).strip()
        values[name] = "".join(answer.split())
        return bool(answer)

    ask("OPENAI_API_KEY", "from platform.openai.com/api-keys")
    if ask("TWILIO_ACCOUNT_SID", "from console.twilio.com") and ask("TWILIO_AUTH_TOKEN", "as well"):
        ask("PUBLIC_URL", "the https address where Twilio will reach this server")
        if not known.get("TWILIO_PHONE_NUMBER"):
            account = {**known, **{name: value for name, value in values.items() if value}}
            values["TWILIO_PHONE_NUMBER"] = asyncio.run(_own_number(account))
    return values


async def _own_number(account: Mapping[str, str]) -> str:
    """The account's number, if it has just one and tells."""
    from app.carrier.twilio.rest import TwilioRest

    sid, token = account.get("TWILIO_ACCOUNT_SID"), account.get("TWILIO_AUTH_TOKEN")
    if not sid or not token:  # in files of their own, which doctor reads
        return ""
    rest = TwilioRest(sid, token)
    try:
        setups = await rest.list_numbers()
    except AppError as error:
        echo(f"TWILIO_PHONE_NUMBER: left empty: {error.message}")
        return ""
    finally:
        await rest.aclose()
    if len(setups) != 1:
        echo(f"TWILIO_PHONE_NUMBER: left empty: the account has {len(setups)} numbers")
        return ""
    echo(f"TWILIO_PHONE_NUMBER: {setups[0].number}, the account's only one")
    return setups[0].number
