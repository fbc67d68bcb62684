"""The mistakes found while settings become values, each with its file and line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.errors import ConfigError
from app.settings import Origin, Settings

__all__ = ["Problems", "agent_place"]


def agent_place(settings: Settings, name: str) -> str:
    """The place of an agent in the settings; its name where it is written in Python alone."""
    if name in settings.agents:
        return settings.origin.place("agents", name)
    return f"agent {name!r}"


class Problems:
    """Collects the mistakes in settings that were read from `origin`."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._found: list[tuple[tuple[bool, str, int], str]] = []

    def add(self, path: tuple[str | int, ...], text: str) -> None:
        found = (self._origin.order(path), f"{self._origin.place(*path)}: {text}")
        if found not in self._found:
            self._found.append(found)

    @contextmanager
    def at(self, *path: str | int, prefix: str | tuple[str, ...] = "") -> Iterator[None]:
        """A ConfigError inside is a problem of the setting at `path`, and goes no further.

        `prefix`: how the message begins, or may begin, that names the setting in other words.
        """
        try:
            yield
        except ConfigError as error:
            text = error.message
            for words in (prefix,) if isinstance(prefix, str) else prefix:
                text = text.removeprefix(words)
            self.add(path, text)

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Raises ConfigError when there is a problem: a line for each, in the file's order."""
        if self._found:
            raise ConfigError("\n".join(text for _, text in sorted(self._found)))
