"""The sources of variables: the process environment, then `.env`, then a default.

`NAME_FILE` in place of `NAME` names a file that holds the value, as container secrets do; it is
looked at only for names that end in KEY, TOKEN, SECRET, PASSWORD or SID.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from app.errors import ConfigError
from app.settings.reader.dotenv import Dotenv

__all__ = ["Environment", "is_secret_name", "read_text"]


_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|SID)$")
_MAX_BYTES: Final = 64 * 1024


def is_secret_name(name: str) -> bool:
    """True for the name of a variable that holds a secret; the name of an account does not."""
    return _SECRET_NAME.search(name) is not None and not name.endswith("ACCOUNT_SID")


def read_text(path: Path) -> str:
    """A small text file, without a byte order mark.

    Raises:
        ConfigError: it cannot be read, is not UTF-8 or is not small; the message names the path.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES * 8 + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > _MAX_BYTES * 8:
        raise ConfigError(f"{path}: too large")
    # PowerShell 5 writes UTF-16 by default. Without its mark, every other byte of plain text is 0.
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or 3 * raw.count(0) > len(raw):
        raise ConfigError(f"{path}: is UTF-16 text: save the file as UTF-8")
    if b"\0" in raw:
        line = raw.count(b"\n", 0, raw.index(0)) + 1
        raise ConfigError(f"{path}:{line}: holds a NUL byte: delete it, or write the file anew")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8 text: save the file as UTF-8") from None


@dataclass(frozen=True, slots=True)
class Environment:
    """Looks variables up in order of precedence. An empty value counts as not set.

    `folder` is where `.env` is: relative paths in it start there, those of the process at its own.
    """

    process: Mapping[str, str] = field(default_factory=dict, repr=False)
    dotenv: Dotenv = field(default_factory=Dotenv)
    folder: Path = Path()

    def get(self, name: str) -> str | None:
        """The value of `name`, or `None`.

        Raises:
            ConfigError: `NAME_FILE` cannot be read, or both it and `NAME` are set in one place.
        """
        for source, folder in self._sources():
            value = source.get(name, "")
            file = source.get(f"{name}_FILE", "") if _SECRET_NAME.search(name) else ""
            if value and file:
                raise ConfigError(f"{name} and {name}_FILE are both set: keep one of them")
            if value:
                return value
            if file:
                return self._from_file(name, folder / file)
        return None

    def place(self, name: str) -> tuple[str, int] | None:
        """File and line where the variable is set; None if that is not `.env`."""
        keys = (name, f"{name}_FILE") if _SECRET_NAME.search(name) else (name,)
        if any(self.process.get(key) for key in keys):
            return None
        lines = [self.dotenv.lines[key] for key in keys if self.dotenv.values.get(key)]
        return (self.dotenv.name, lines[0]) if lines else None

    def names(self) -> set[str]:
        """The names of all variables that are set."""
        return {name for source, _ in self._sources() for name, value in source.items() if value}

    def secrets(self) -> tuple[str, ...]:
        """The values in `.env` whose names say that they are secret."""
        return tuple(v for name, v in self.dotenv.values.items() if is_secret_name(name))

    def _sources(self) -> tuple[tuple[Mapping[str, str], Path], ...]:
        return (self.process, Path()), (self.dotenv.values, self.folder)

    @staticmethod
    def _from_file(name: str, path: Path) -> str:
        try:
            value = read_text(path).rstrip("\r\n")
        except ConfigError as error:
            raise ConfigError(f"{name}_FILE: {error.message}") from None
        if not value:
            raise ConfigError(f"{name}_FILE: {path}: is empty")
        return value
