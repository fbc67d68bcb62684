"""The tool `read_back`: checks what a caller spelled, and says how to confirm it.

Everyone mishears addresses, numbers and codes. The model passes on what it understood; the tool
checks the format and tells the model to read it back in words, the next time letter by letter, and
then to use another way (the keypad, a message). Attempts count for each kind in a conversation. The
tool speaks English; the agent puts it into the caller's language.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, Final

from app.agents.tools.tool import Tool, ToolContext
from app.errors import ToolArgsInvalid

__all__ = ["KINDS", "READ_BACK", "check_entry", "read_back_tool", "spelled"]


READ_BACK: Final = "read_back"

_EMAIL: Final = re.compile(r"[^@\s,;<>()\[\]\\\"]{1,64}@(?:[a-z0-9-]{1,63}\.)+[a-z]{2,63}", re.I)
_CODE: Final = re.compile(r"[A-Z0-9]{2,40}")
_KEPT: Final = 10_000
_WORDS: Final = (
    "Alfa Bravo Charlie Delta Echo Foxtrot Golf Hotel India Juliett Kilo Lima Mike November Oscar "
    "Papa Quebec Romeo Sierra Tango Uniform Victor Whiskey X-ray Yankee Zulu"
)
"""The ICAO spelling alphabet."""
_SPELLING: Final = {word[0].lower(): word for word in _WORDS.split(" ")}
_SIGNS: Final = {
    "@": "at", ".": "dot", "-": "hyphen", "_": "underscore", "+": "plus", " ": "space"
}  # fmt: skip


def _email(said: str) -> str:
    found = re.sub(
        r"\s+(at|dot)\s+", lambda m: "@" if m[1].lower() == "at" else ".", said, flags=re.I
    )
    found = re.sub(r"\s+", "", found)
    if not _EMAIL.fullmatch(found) or len(found) > 254:
        raise ToolArgsInvalid(
            "That is not an email address: it needs a name, an at sign and a domain."
        )
    name, _, domain = found.rpartition("@")
    return f"{name}@{domain.lower()}"


def _phone_number(said: str) -> str:
    digits = re.sub(r"[\s()./-]", "", said)
    if not re.fullmatch(r"\+?[0-9]{5,15}", digits):
        raise ToolArgsInvalid(
            "That is not a phone number: it has 5 to 15 digits, and maybe a plus."
        )
    return digits


def _code(said: str) -> str:
    found = re.sub(r"[\s-]", "", said).upper()
    if not _CODE.fullmatch(found):
        raise ToolArgsInvalid("That is not a code: it has 2 to 40 letters and digits.")
    return found


def _date(said: str) -> str:
    try:
        return date.fromisoformat(said.strip()).isoformat()
    except ValueError as error:
        raise ToolArgsInvalid(
            "That is not a date, such as 2026-12-31: ask for it again."
        ) from error


def _name(said: str) -> str:
    found = " ".join(said.split())
    if not found or not found.isprintable() or not any(map(str.isalpha, found)):
        raise ToolArgsInvalid("That is not a name.")
    return found


_CHECKS: Final = {
    "email": _email,
    "phone_number": _phone_number,
    "code": _code,
    "date": _date,
    "name": _name,
}
KINDS: Final = tuple(_CHECKS)
_BY_KEYPAD: Final = ("phone_number", "code")


def check_entry(kind: str, said: str) -> str:
    """The value in its usual form.

    Raises:
        ToolArgsInvalid: it is not of this kind; the message says why.
    """
    return _CHECKS[kind](said)


def spelled(value: str) -> str:
    """A value sign by sign: `a1@` is "A as in Alfa, 1, at"."""
    return ", ".join(
        f"{sign.upper()} as in {_SPELLING[sign.lower()]}"
        if sign.lower() in _SPELLING
        else _SIGNS.get(sign, sign)
        for sign in value
    )


def _in_words(kind: str, value: str) -> str:
    if kind == "email":
        return "".join(f" {_SIGNS[sign]} " if sign in "@." else sign for sign in value)
    if kind == "date":
        day = date.fromisoformat(value)
        return f"{day:%A}, {day:%B} {day.day}, {day.year}"
    return value if kind == "name" else " ".join(value)


def _instructions(kind: str, value: str, attempt: int) -> dict[str, Any]:
    if attempt == 1:
        read, then = _in_words(kind, value), "Read it back, and ask whether it is right."
    elif attempt == 2:
        read = _in_words(kind, value) if kind == "date" else spelled(value)
        then = "Read it back slowly, sign by sign, and ask whether it is right."
    else:
        read = ""
        then = (
            "Do not read it back again: have the caller key it in, if you have collect_digits."
            if kind in _BY_KEYPAD
            else "Do not read it back again: go on without it, and offer that somebody calls back."
        )
    return {"value": value, "read_back": read, "then": then}


def read_back_tool() -> Tool:
    """The tool, for all conversations of a process."""
    attempts: dict[tuple[str, str], int] = {}

    async def run(context: ToolContext, arguments: Mapping[str, Any]) -> dict[str, Any]:
        kind = arguments["kind"]
        value = check_entry(kind, arguments["value"])
        key = (context.call_id, kind)
        attempts[key] = attempts.pop(key, 0) + 1
        if len(attempts) > _KEPT:
            del attempts[next(iter(attempts))]
        return _instructions(kind, value, attempts[key])

    return Tool(
        name=READ_BACK,
        description=(
            "Check an email address, phone number, code, date or name that the caller has said, "
            "before you use it. Call it again whenever they correct it; it says how to confirm it."
        ),
        parameters={
            "type": "object",
            "properties": {
                "kind": {"type": "string", "enum": list(KINDS)},
                "value": {
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 254,
                    "description": "As you understood it; a date as YYYY-MM-DD.",
                },
            },
            "required": ["kind", "value"],
            "additionalProperties": False,
        },
        run=run,
        timeout_ms=1_000,
    )
