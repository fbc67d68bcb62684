"""The file that settings were read from, so that later mistakes still name file and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.settings.reader.environment import is_secret_name
from app.settings.reader.interpolation import Part
from app.settings.reader.names import dotted

__all__ = ["Origin", "Place"]


Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """A configuration file: its folder, its name, and the line of each setting in it.

    `parts` are the pieces of values that hold variables, `variables` where `.env` sets them,
    `old_names` the former names under which keys were found, `notices` what the reader noticed.
    """

    folder: Path | None = None
    name: str = ""
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False)
    parts: Mapping[Place, tuple[Part, ...]] = field(default_factory=dict, repr=False)
    variables: Mapping[str, tuple[str, int]] = field(default_factory=dict, repr=False)
    old_names: Mapping[Place, str] = field(default_factory=dict, repr=False)
    notices: tuple[str, ...] = ()

    def where(self, path: Place) -> tuple[str, int]:
        """File and line of a setting: of its variable in `.env`, else of itself or its section."""
        for name in self._variables_of(path):
            if name in self.variables:
                return self.variables[name]
        while path and path not in self.lines:
            path = path[:-1]
        return self.name, self.lines.get(path, 0)

    def key(self, path: Place) -> str:
        """The setting as the file names it, with the variables that it was made of."""
        written = tuple(
            self.old_names.get(path[: depth + 1], step) for depth, step in enumerate(path)
        )
        names = ", ".join(self._variables_of(path))
        return f"{dotted(written)} (from {names})" if names else dotted(written)

    def place(self, *path: str | int) -> str:
        """`config.yaml:12: tools.book.python`; without a file only the setting."""
        file, line = self.where(path)
        return f"{file}:{line}: {self.key(path)}" if line else self.key(path)

    def prefix(self, *path: str | int) -> str:
        """`.env:3: ` before a sentence that names the setting itself; empty without a file."""
        file, line = self.where(path)
        return f"{file}:{line}: " if line else ""

    def order(self, path: Place) -> tuple[bool, str, int]:
        """Sorts settings: by line, those of `.env` after those of the file."""
        file, line = self.where(path)
        return file != self.name, file, line

    def secrets(self) -> tuple[str, ...]:
        """The values of variables whose names say that they are secret."""
        parts = (part for parts in self.parts.values() for part in parts)
        return tuple({part.text: None for part in parts if is_secret_name(part.variable)})

    def _variables_of(self, path: Place) -> list[str]:
        parts = self.parts.get(path, ())
        return list(dict.fromkeys(part.variable for part in parts if part.variable))
