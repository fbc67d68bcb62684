"""The file that settings were read from, so that later mistakes still name file and line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from app.settings.reader.names import dotted

__all__ = ["Origin"]


Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """A configuration file: its folder, its name, and the line of each setting in it.

    `old_keys` are notices about keys that were found under a former name.
    """

    folder: Path | None = None
    name: str = ""
    lines: Mapping[Place, int] = field(default_factory=dict, repr=False)
    old_keys: tuple[str, ...] = ()

    def line(self, path: Place) -> int:
        """The line of a setting, or of the nearest section around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)

    def place(self, *path: str | int) -> str:
        """`config.yaml:12: tools.book.python`; without a file only the setting."""
        line = self.line(path)
        return f"{self.name}:{line}: {dotted(path)}" if line else dotted(path)
