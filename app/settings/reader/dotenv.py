"""The `.env` file: the common ground of shells and `docker compose`.

`NAME=value` lines, `#` comments, an optional `export`, single quotes (as written) or double quotes
(with `\\n`, `\\"`, `\\\\`), either over several lines. Nothing is substituted inside it. A line of
another form is skipped with a notice that never shows it, since other programs read the file too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from app.errors import ConfigError

__all__ = ["Dotenv", "parse_dotenv"]

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=[^\S\n]*")
_WITH_COLON = re.compile(r"\s*(?:export\s+)?[A-Za-z_][A-Za-z0-9_]*\s*:\s")
_QUOTED = re.compile(r"""'([^']*)'|"((?:[^"\\]|\\.)*)\"""", re.DOTALL)
_BEHIND_QUOTE = re.compile(r"[^\S\n]*(?:#.*)?(?=\n|$)")
_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$", "\n": ""}


@dataclass(frozen=True, slots=True)
class Dotenv:
    """The variables of a `.env` file, the line of each, and notices about lines of other forms."""

    name: str = ".env"
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    lines: Mapping[str, int] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def parse_dotenv(text: str, *, name: str) -> Dotenv:
    """The variables of a `.env` file; of two lines with one name, the last counts.

    Raises:
        ConfigError: the message names every quote that is not closed.
    """
    text = re.sub(r"\r\n?", "\n", text)
    values: dict[str, str] = {}
    lines: dict[str, int] = {}
    notices: list[str] = []
    problems: list[str] = []
    at, number = 0, 0
    while at < len(text):
        number += 1
        end = text.find("\n", at) + 1 or len(text) + 1
        row = text[at : end - 1]
        found = _LINE.match(row)
        quoted = None
        if found is None:
            if row.strip() and not row.lstrip().startswith("#"):
                cure = "write = for :" if _WITH_COLON.match(row) else "expected NAME=value"
                notices.append(f"{name}:{number}: the line is ignored: {cure}")
        elif row[found.end() : found.end() + 1] not in ("'", '"'):
            values[found[1]] = re.split(r"(?:^|\s+)#", row[found.end() :], maxsplit=1)[0].strip()
            lines[found[1]] = number
        elif (quoted := _QUOTED.match(text, at + found.end())) is None or (
            rest := _BEHIND_QUOTE.match(text, quoted.end())
        ) is None:
            fault = "the quote is not closed"
            if quoted is not None and quoted.end() < end:
                fault = "there is text behind the closing quote: quote all of the value"
            problems.append(f"{name}:{number}: {found[1]}: {fault}")
        else:
            values[found[1]] = _unquoted(quoted)
            lines[found[1]] = number
            number += text.count("\n", at, rest.end())
            end = rest.end() + 1
        at = end
    if problems:
        raise ConfigError("\n".join(problems))
    return Dotenv(name, values, lines, tuple(notices))


def _unquoted(found: re.Match[str]) -> str:
    if found[1] is not None:
        return str(found[1])
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), found[2], flags=re.DOTALL)
