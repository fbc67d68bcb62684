"""Puts variables into a tree of settings: `${NAME}` and `${NAME:-default}`; `$${` is a plain `${`.

A variable that is not set and has no default is an error that names it. A variable's value is kept
as text and never read as YAML structure; `Filled` remembers it, so that a setting which wants a
number may still take the text for one while a token of digits stays the text that it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from app.errors import ConfigError
from app.settings.reader.environment import Environment
from app.settings.reader.strict_yaml import Mapping, Node, Scalar, resolve_plain

__all__ = ["Filled", "Path", "Plain", "fill"]


Path = tuple[str | int, ...]
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(slots=True)
class Filled:
    """Plain values, and what is known of each by its path.

    `lines` is where a key stands, `retyped` what a substituted text would be without quotes,
    `variables` which of the environment's it was made of.
    """

    values: dict[str, Plain] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    retyped: dict[Path, bool | int | float] = field(default_factory=dict)
    variables: dict[Path, list[str]] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


def fill(root: Mapping, environment: Environment) -> Filled:
    """Substitute everywhere; mistakes are collected in `problems` as line and text."""
    filled = Filled()
    for key, node in root.entries.items():
        filled.lines[(key,)] = root.key_lines[key]
        filled.values[key] = _plain(node, (key,), filled, environment)
    return filled


def _plain(node: Node, path: Path, filled: Filled, environment: Environment) -> Plain:
    filled.lines.setdefault(path, node.line)
    if isinstance(node, Scalar):
        return _scalar(node, path, filled, environment)
    if isinstance(node, Mapping):
        result: dict[str, Plain] = {}
        for key, child in node.entries.items():
            filled.lines[(*path, key)] = node.key_lines[key]
            result[key] = _plain(child, (*path, key), filled, environment)
        return result
    return [
        _plain(child, (*path, index), filled, environment) for index, child in enumerate(node.items)
    ]


def _scalar(node: Scalar, path: Path, filled: Filled, environment: Environment) -> Plain:
    if "${" not in node.text:
        return node.value
    substituted = False

    def replace(match: re.Match[str]) -> str:
        nonlocal substituted
        if match[0] == "$${":
            return "${"
        substituted = True
        name, value, default = _lookup(match[1], closed=bool(match[2]), environment=environment)
        if value is None:
            return default
        filled.variables.setdefault(path, []).append(name)
        return value

    try:
        text = _REFERENCE.sub(replace, node.text)
    except ConfigError as error:
        filled.problems.append((node.line, error.message))
        return None
    if node.plain and substituted:
        if not text:
            return None
        meaning = resolve_plain(text)
        if isinstance(meaning, bool | int | float):
            filled.retyped[path] = meaning
    return text


def _lookup(
    reference: str, *, closed: bool, environment: Environment
) -> tuple[str, str | None, str]:
    """Name, value if it is set, and default of a variable."""
    name, separator, default = reference.partition(":-")
    if not closed:
        raise ConfigError(f"${{{reference}: the closing brace is missing")
    if not _NAME.fullmatch(name):
        hint = ""
        if ":" in name:
            hint = ": write ${" + name.replace(":", ":-", 1) + "} for a default"
        raise ConfigError(f"${{{reference}}} is not a variable{hint}")
    value = environment.get(name)
    if value is None and not separator:
        raise ConfigError(f"{name} is not set: put it into the environment or .env")
    return name, value, default
