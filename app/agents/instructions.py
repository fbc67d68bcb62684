"""Instructions and greetings as templates: `{caller}`, `{number}`, `{time}` and call variables.

A placeholder is a name in braces; `{{` is a brace, and braces around anything else (JSON, say) are
text. An agent's templates are checked when the server starts. Values are put in once and not read
again: text of a caller or of another system cannot name a placeholder, and stays on its line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from app.errors import ConfigError
from app.events import CallId

__all__ = [
    "DAY_NAMES",
    "FACTS",
    "MONTH_NAMES",
    "CallFacts",
    "check_template",
    "check_time_zone",
    "fill",
    "spoken_time",
]

# Not by strftime: its names follow the locale of the process.
DAY_NAMES: Final = (
    "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
)  # fmt: skip
MONTH_NAMES: Final = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

FACTS: Final = ("caller", "number", "time")
"""Names that every template may use, beside the agent's variables."""

MAX_VALUE_CHARS: Final = 500

_NUMBER: Final = re.compile(
    r"(?:(?:sips?|tel):)?(\+[1-9][0-9]{6,14})(?:[@;:].*)?", re.ASCII | re.IGNORECASE
)
_PLACEHOLDER: Final = re.compile(r"\{\{|\{([A-Za-z_][A-Za-z0-9_]*)\}")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFacts:
    """Facts of a conversation, known before its first word. Numbers are claims of the network.

    `started_at` is Unix time, or zero if unknown. `variables` are this call's own values for names
    that its agent declares.
    """

    call_id: CallId
    caller_number: str | None = None
    called_number: str | None = None
    caller_verified: bool = False
    started_at: float = 0.0
    variables: Mapping[str, str] = field(default_factory=dict)

    def declared(self, variables: Mapping[str, str]) -> dict[str, str]:
        """The values of an agent's `variables`: this call's own, or the agent's defaults."""
        own = {name: value for name, value in self.variables.items() if name in variables}
        return {**variables, **own}

    def values(self, variables: Mapping[str, str], time_zone: str) -> dict[str, str]:
        """The value of each name that a template may use."""
        return {
            **self.declared(variables),
            "caller": _number_in(self.caller_number) or "anonymous",
            "number": _number_in(self.called_number) or "unknown",
            "time": spoken_time(self.started_at, time_zone),
        }


def _number_in(address: str | None) -> str:
    """The number of an address, or empty: the rest of it is free text that the caller chose."""
    found = _NUMBER.fullmatch(address or "")
    return found[1] if found else ""


def check_template(text: str, names: Collection[str], place: str) -> None:
    """Check that a template names nothing but `names`.

    Raises:
        ConfigError: it names something else; `place` says where the template stands.
    """
    for found in _PLACEHOLDER.finditer(text):
        name = found.group(1)
        if name is not None and name not in names:
            known = ", ".join(f"{{{known}}}" for known in sorted(names))
            raise ConfigError(
                f"{place}: there is no {{{name}}}; known are {known} (write {{{{ for a brace)"
            )


def fill(text: str, values: Mapping[str, str]) -> str:
    """The template with its values, in one pass; every name must be known."""

    def value_of(found: re.Match[str]) -> str:
        name = found.group(1)
        return "{" if name is None else _plain(values[name])

    return _PLACEHOLDER.sub(value_of, text)


def _plain(value: str) -> str:
    """A value on one line and of a bounded length: it cannot pass for instructions."""
    return _UNPRINTABLE.sub(" ", value)[:MAX_VALUE_CHARS].strip()


def check_time_zone(name: str, place: str) -> None:
    """Raise ConfigError for a time zone that does not exist."""
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"{place}: there is no time zone {name!r}") from error


def spoken_time(unix_s: float, time_zone: str) -> str:
    """A moment as a model reads it best: `Saturday, 21 November 2026, 14:05 (Europe/Zurich)`."""
    moment = datetime.fromtimestamp(unix_s, ZoneInfo(time_zone))
    day, month = DAY_NAMES[moment.weekday()], MONTH_NAMES[moment.month - 1]
    return f"{day}, {moment.day} {month} {moment.year}, {moment:%H:%M} ({time_zone})"
