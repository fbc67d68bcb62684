"""Settings as YAML text for people to look at, which reads back as the same settings.

A secret that comes from a variable stands there as `${NAME}`, with its last four characters in a
comment; one that the file holds is masked. So are keys in URLs, bodies and arguments.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, SecretStr

from app.settings.model import Settings
from app.settings.reader.environment import is_secret_name
from app.settings.reader.origin import Origin, Place
from app.settings.reader.secrets import HIDDEN, hide_secrets, is_secret_label
from app.settings.reader.strict_yaml import resolve_plain
from app.settings.sections.realtime import SessionOverrides
from app.settings.sections.tools import ToolSettings
from app.settings.values import Section

__all__ = ["fingerprint", "masked"]


def masked(settings: Settings) -> str:
    """The configuration in force, as YAML that may be pasted into a bug report."""
    view = _View(settings.origin, settings.secrets())
    shown = view.of(settings, ())
    text: str = yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=96)
    return "".join(view.with_comment(line) for line in text.splitlines(keepends=True))


def fingerprint(settings: Settings) -> str:
    """Eight hexadecimal digits that differ where `masked` does, in a tenth of its time."""
    view = _View(settings.origin, settings.secrets())
    shown = json.dumps([view.of(settings, ()), view.ends], default=str)
    return hashlib.sha256(shown.encode()).hexdigest()[:8]


class _Dumper(yaml.SafeDumper):
    """Quotes what our reader, which follows YAML 1.2, would not take for text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(resolve_plain(text), str) else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


# A key that is absent in these is inherited: to show it would be to set it.
_OVERRIDES: Final = (SessionOverrides, ToolSettings)
_HARMLESS: Final = 8
"""Text beside a variable, such as `Bearer `, counts as not secret up to this length."""


class _View:
    """Makes plain values of settings, without secrets."""

    def __init__(self, origin: Origin, secrets: tuple[str, ...]) -> None:
        self._origin = origin
        self._secrets = secrets
        self.ends: dict[str, str] = {}

    def with_comment(self, line: str) -> str:
        """A line of YAML; behind a reference to a secret stands its end."""
        end = self.ends.get(line.strip().rpartition(": ")[2])
        return f"{line.rstrip()}  # {end}\n" if end else line

    def of(self, value: Any, path: Place, *, only_given: bool = False) -> Any:
        match value:
            case SecretStr():
                return self._secret(value.get_secret_value(), path)
            case BaseModel():
                only_given = only_given or isinstance(value, _OVERRIDES)
                left_out = value.without_effect() if isinstance(value, Section) else ()
                return {
                    name: self.of(getattr(value, name), (*path, name), only_given=only_given)
                    for name in type(value).model_fields
                    if (not only_given or name in value.model_fields_set) and name not in left_out
                }
            case dict():
                return {
                    key: self._secret(item, (*path, key))
                    if isinstance(item, str) and is_secret_label(key) and not _is_place(item)
                    else self.of(item, (*path, key), only_given=only_given)
                    for key, item in value.items()
                }
            case tuple() | list():
                return [
                    self._secret(item, (*path, at))
                    if isinstance(item, str) and at > 0 and _is_secret_option(value[at - 1])
                    else self.of(item, (*path, at), only_given=only_given)
                    for at, item in enumerate(value)
                ]
            case Path():
                return self._path(value, path)
            case str():
                return self._plain(value, path)
        return value

    def _plain(self, text: str, path: Place) -> str:
        parts = self._origin.parts.get(path, ())
        if any(is_secret_name(part.variable) for part in parts):
            return self._reference(path)
        hidden = hide_secrets(text, self._secrets)
        return self._reference(path) if parts and hidden != text else _escaped(hidden)

    def _path(self, value: Path, path: Place) -> str:
        folder = self._origin.folder
        inside = folder is not None and value.is_relative_to(folder)
        return self._plain(str(value.relative_to(folder) if inside and folder else value), path)

    def _secret(self, text: str, path: Place) -> str:
        # Four characters tell two keys apart; of a short secret they would tell too much. Both
        # masks are as long as our checks want a secret to be.
        mask = f"{'*' * 20}{text[-4:]}" if len(text) >= 20 else "*" * 8
        parts = self._origin.parts.get(path, ())
        beside = [part.text.strip() for part in parts if not part.variable]
        if not parts or any(len(piece) > _HARMLESS for piece in beside):
            return mask
        reference = self._reference(path)
        self.ends[reference] = mask[-8:] if len(text) >= 20 else HIDDEN
        return reference

    def _reference(self, path: Place) -> str:
        """The text of a value with its variables in place of what they hold."""
        return "".join(
            f"${{{part.variable}}}"
            if part.variable
            else _escaped(hide_secrets(part.text, self._secrets))
            for part in self._origin.parts[path]
        )


def _escaped(text: str) -> str:
    return text.replace("${", "$${")


def _is_place(text: str) -> bool:
    """True for a template's place, which a secret-sounding key may well have."""
    return text.startswith("{") and text.endswith("}")


def _is_secret_option(word: object) -> bool:
    return isinstance(word, str) and word.startswith("-") and is_secret_label(word)
