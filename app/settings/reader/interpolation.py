"""Puts variables into a tree of settings: `${NAME}` and `${NAME:-default}`; `$${` is a plain `${`.

A variable that is not set and has no default is an error that names it. A variable's value is kept
as text and never read as YAML structure; `Filled` remembers it, so that a setting which wants a
number may still take the text for one while a token of digits stays the text that it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from app.errors import ConfigError
from app.settings.reader.environment import Environment
from app.settings.reader.names import NEAR_MISS, nearest
from app.settings.reader.secrets import hide_secrets
from app.settings.reader.strict_yaml import Mapping, Node, Scalar, resolve_plain

__all__ = ["Filled", "Part", "Path", "Plain", "fill"]


Path = tuple[str | int, ...]
Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a value: text of the file, or the value of a variable."""

    text: str = field(repr=False)
    variable: str = ""


@dataclass(slots=True)
class Filled:
    """Plain values, and what is known of each by its path.

    `lines` is where a key stands, `retyped` what a substituted text would be without quotes,
    `parts` what a value with variables was made of; a default is text of the file. `referenced`
    are the names of all variables in the file.
    """

    values: dict[str, Plain] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    retyped: dict[Path, bool | int | float] = field(default_factory=dict)
    parts: dict[Path, tuple[Part, ...]] = field(default_factory=dict)
    referenced: set[str] = field(default_factory=set)
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
    names = [match[1].partition(":-")[0] for match in _REFERENCE.finditer(node.text) if match[1]]
    filled.referenced.update(names)
    try:
        parts = tuple(_parts(node.text, environment))
    except ConfigError as error:
        filled.problems.append((node.line, error.message))
        return None
    text = "".join(part.text for part in parts)
    if any(part.variable for part in parts):
        filled.parts[path] = parts
    if node.plain and any(match[0] != "$${" for match in _REFERENCE.finditer(node.text)):
        if not text:
            return None
        meaning = resolve_plain(text)
        if isinstance(meaning, bool | int | float):
            filled.retyped[path] = meaning
    return text


def _parts(text: str, environment: Environment) -> Iterator[Part]:
    at = 0
    for match in _REFERENCE.finditer(text):
        if match.start() > at:
            yield Part(text[at : match.start()])
        at = match.end()
        is_escape = match[0] == "$${"
        yield Part("${") if is_escape else _lookup(match[1], bool(match[2]), environment)
    if at < len(text):
        yield Part(text[at:])


def _lookup(reference: str, closed: bool, environment: Environment) -> Part:
    """The value of a variable, else its default. No message shows more of it than its name."""
    name, separator, default = reference.partition(":-")
    if not closed:
        shown = found[0] if (found := _NAME.match(reference)) else ""
        raise ConfigError(f"${{{hide_secrets(shown)}...: the closing brace is missing")
    if not _NAME.fullmatch(name):
        before = name.partition(":")[0]
        if before != name and _NAME.fullmatch(before):
            begin = "${" + before
            raise ConfigError(
                f"{begin}:...}} is not a variable: for a default, write {begin}:-...}}"
            )
        raise ConfigError("${...} holds no name of a variable: letters, digits and _")
    value = environment.get(name)
    if value is not None:
        return Part(value, name)
    if not separator:
        raise ConfigError(
            f"{hide_secrets(name)} is not set: put it into the environment or .env"
            f"{_near_miss(name, environment)}"
        )
    return Part(default)


def _near_miss(name: str, environment: Environment) -> str:
    near = nearest(name, environment.dotenv.values, cutoff=NEAR_MISS)
    if near is None:
        return ""
    at = f"{environment.dotenv.name}:{environment.dotenv.lines[near]}"
    return f"; {at} leaves it empty" if near == name else f"; {at} sets {near}"
