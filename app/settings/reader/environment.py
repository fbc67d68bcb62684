"""The sources of variables: the process environment, then `.env`, then a default.

`NAME_FILE` in place of `NAME` names a file that holds the value, as container secrets do; it is
looked at only for names that end in KEY, TOKEN, SECRET, PASSWORD or SID.

The `.env` file is the simple common ground of shells and `docker compose`: `NAME=value` lines,
`#` comments, an optional `export`, single quotes (as written) or double quotes (with `\\n`, `\\"`,
`\\\\`). Nothing is substituted inside it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.errors import ConfigError

__all__ = ["Environment", "parse_dotenv", "read_text"]


_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|SID)$")
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_QUOTED = re.compile(r"""(?:'([^']*)'|"((?:[^"\\]|\\.)*)")\s*(?:#.*)?""")
_ESCAPES: Final = {"n": "\n", "t": "\t", '"': '"', "\\": "\\", "$": "$"}
_MAX_BYTES: Final = 64 * 1024


def read_text(path: Path) -> str:
    """A small text file, without a byte order mark.

    Raises:
        ConfigError: it cannot be read, is not UTF-8 or is not small; the message names the path.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES * 8 + 1)
        if len(raw) > _MAX_BYTES * 8:
            raise ConfigError(f"{path}: too large")
        return raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text: save the file as UTF-8") from None


def parse_dotenv(text: str, *, name: str) -> dict[str, str]:
    """The variables of a `.env` file.

    Raises:
        ConfigError: the message names every line of another form.
    """
    found: dict[str, str] = {}
    problems: list[str] = []
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        value = _dotenv_value(match[2]) if match else None
        if match is None:
            problems.append(f"{name}:{number}: expected NAME=value")
        elif value is None:
            problems.append(f"{name}:{number}: {match[1]}: the quote is not closed")
        else:
            found[match[1]] = value
    if problems:
        raise ConfigError("\n".join(problems))
    return found


def _dotenv_value(text: str) -> str | None:
    if text[:1] not in ("'", '"'):
        return re.split(r"(?:^|\s+)#", text, maxsplit=1)[0].strip()
    match = _QUOTED.fullmatch(text)
    if match is None:
        return None
    if match[1] is not None:
        return str(match[1])
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[0]), match[2])


@dataclass(frozen=True, slots=True)
class Environment:
    """Looks variables up in order of precedence. An empty value counts as not set.

    `folder` is where `.env` is: relative paths in it start there, those of the process at its own.
    """

    process: Mapping[str, str]
    dotenv: Mapping[str, str]
    folder: Path = Path()

    def get(self, name: str) -> str | None:
        """The value of `name`, or `None`.

        Raises:
            ConfigError: `NAME_FILE` cannot be read, or both it and `NAME` are set in one place.
        """
        for source, folder in ((self.process, Path()), (self.dotenv, self.folder)):
            value = source.get(name, "")
            file = source.get(f"{name}_FILE", "") if _SECRET_NAME.search(name) else ""
            if value and file:
                raise ConfigError(f"{name} and {name}_FILE are both set: keep one of them")
            if value:
                return value
            if file:
                return self._from_file(name, folder / file)
        return None

    @staticmethod
    def _from_file(name: str, path: Path) -> str:
        try:
            value = read_text(path).rstrip("\r\n")
        except ConfigError as error:
            raise ConfigError(f"{name}_FILE: {error.message}") from None
        if not value:
            raise ConfigError(f"{name}_FILE: {path}: is empty")
        return value
