"""A strict YAML reader for files that people write: every value knows its file and line.

Reads one document from the events of `yaml.parse`, so that nothing is built before it was checked.
Scalars follow YAML 1.2's JSON schema, narrowed: `true`, `false`, `null` and plain decimal numbers.
`+15551234567`, `0123`, `17:30`, `NO` and dates stay text, which YAML 1.1 would all turn into
something else. Refused with file and line: tags, duplicate keys, merge keys, keys that are not
text, more than one document, more than 256 KiB, 32 levels, 20 aliases or 20,000 values.

Knows nothing of settings; `app.settings.reader.interpolation` substitutes variables into the tree.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import yaml

from app.errors import ConfigError

__all__ = ["Mapping", "Node", "Scalar", "Sequence", "parse_yaml", "resolve_plain"]


_MAX_BYTES: Final = 256 * 1024
_MAX_DEPTH: Final = 32
_MAX_ALIASES: Final = 20
_MAX_NODES: Final = 20_000

_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")
_FLOAT = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORDS: Final[dict[str, bool | None]] = {
    # YAML 1.2 core schema, section 10.3.2: these spellings and no others.
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value as written. `plain` means without quotes: only then is it more than text."""

    text: str
    line: int
    plain: bool

    @property
    def value(self) -> str | int | float | bool | None:
        return resolve_plain(self.text) if self.plain else self.text


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """Keys in the order of the file; `key_lines` holds the line of each."""

    entries: dict[str, Node]
    key_lines: dict[str, int]
    line: int


Node = Scalar | Sequence | Mapping


def resolve_plain(text: str) -> str | int | float | bool | None:
    """The meaning of a value without quotes."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def parse_yaml(text: str, *, name: str) -> Mapping:
    """Read one document whose top is a mapping; an empty document is an empty mapping.

    Raises:
        ConfigError: with `name:line` and the reason.
    """
    if len(text.encode("utf-8", "surrogatepass")) > _MAX_BYTES:
        raise ConfigError(f"{name}: larger than {_MAX_BYTES // 1024} KiB")
    try:
        root = _Reader(name, yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        raise ConfigError(_in_plain_words(error, text, name)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise ConfigError(f"{name}:{line}: holds a character that YAML does not allow") from None
    if isinstance(root, Scalar) and root.value is None:
        return Mapping({}, {}, root.line)
    if not isinstance(root, Mapping):
        raise ConfigError(f"{name}:{root.line}: expected sections such as `server:`")
    return root


# The words of PyYAML (begin of its context, part of its problem), and the remedy. With a
# context, the line is the one where that began: PyYAML finds out further down only.
_REMEDIES: Final = (
    ("", "'\\t' that cannot start any token", "a tab: indent with spaces"),
    ("while scanning a quoted", "end of stream", "the quote that begins here is not closed"),
    ("while scanning a simple key", "could not find expected ':'", "expected `key: value`"),
    (
        "",
        "mapping values are not allowed here",
        "a key where none can stand: check the indentation, and put text with a colon into quotes",
    ),
    ("", "expected <block end>", "indented differently from the lines before it"),
    ("while parsing a flow", "expected ','", "the bracket that begins here is not closed"),
)


def _typographic(first: str) -> str:
    """The remedy for a sign that word processors and web pages put in place of a plain one."""
    if first.isascii():
        return ""
    if first.isspace():
        return "a no-break space, or another that is not plain: indent with spaces"
    if "QUOTATION MARK" in unicodedata.name(first, ""):
        return f'{first} does not quote: write straight quotes, "..."'
    return ""


def _in_plain_words(error: yaml.MarkedYAMLError, text: str, name: str) -> str:
    context, problem = error.context or "", error.problem or ""
    mark, said = error.problem_mark or error.context_mark, problem
    for begin, part, remedy in _REMEDIES:
        if context.startswith(begin) and part in problem:
            mark, said = (error.context_mark if begin else None) or mark, remedy
            break
    if mark is None:
        return f"{name}: not valid YAML: {said}"
    rows = text.splitlines()[mark.line : mark.line + 1]
    if context.startswith("while parsing a flow") and "${" in "".join(rows):
        said = 'between { } and [ ] a variable needs quotes: "${NAME}"'
    elif value := re.search(r":\s+(.)", "".join(rows)):
        said = _typographic(value[1]) or said
    return f"{name}:{mark.line + 1}: not valid YAML: {said}"


class _Reader:
    """Builds the tree from parse events and counts what it builds."""

    def __init__(self, name: str, events: Iterator[yaml.Event]) -> None:
        self._name = name
        self._events = events
        self._anchors: dict[str, Node] = {}
        self._aliases = 0
        self._nodes = 0

    def document(self) -> Node:
        self._next()  # stream start
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            return Scalar("", 1, plain=True)
        root = self._node(self._next(), depth=0)
        self._next()  # document end
        if not isinstance(event := self._next(), yaml.StreamEndEvent):
            raise self._error(event, "a second document; one file holds one")
        return root

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _error(self, event: yaml.Event, text: str) -> ConfigError:
        return ConfigError(f"{self._name}:{_line(event)}: {text}")

    def _node(self, event: yaml.Event, *, depth: int) -> Node:
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            raise self._error(event, f"more than {_MAX_NODES} values")
        if depth > _MAX_DEPTH:
            raise self._error(event, f"nested deeper than {_MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        if tag := getattr(event, "tag", None):
            raise self._error(event, f"tags such as {tag} are not used here")
        node: Node
        if isinstance(event, yaml.ScalarEvent):
            node = Scalar(event.value, _line(event), plain=event.style is None)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._sequence(event, depth)
        else:
            node = self._mapping(event, depth)
        if anchor := getattr(event, "anchor", None):
            self._anchors[anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent) -> Node:
        self._aliases += 1
        if self._aliases > _MAX_ALIASES:
            raise self._error(event, f"more than {_MAX_ALIASES} aliases")
        target = self._anchors.get(event.anchor or "")
        if target is None:
            raise self._error(event, f"the alias *{event.anchor} has no anchor above it")
        # A node that holds aliases could be referred to again and grow by powers: count it whole.
        self._nodes += _size(target)
        if self._nodes > _MAX_NODES:
            raise self._error(event, f"more than {_MAX_NODES} values")
        return target

    def _sequence(self, start: yaml.Event, depth: int) -> Sequence:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, depth=depth + 1))
        return Sequence(tuple(items), _line(start))

    def _mapping(self, start: yaml.Event, depth: int) -> Mapping:
        entries: dict[str, Node] = {}
        lines: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._key(event)
            if key in entries:
                first = lines[key]
                raise self._error(event, f"{key}: given twice, first on line {first}")
            lines[key] = _line(event)
            entries[key] = self._node(self._next(), depth=depth + 1)
        return Mapping(entries, lines, _line(start))

    def _key(self, event: yaml.Event) -> str:
        if not isinstance(event, yaml.ScalarEvent) or event.tag is not None or event.anchor:
            raise self._error(event, "a key must be plain text")
        if event.value and (remedy := _typographic(event.value[0])):
            raise self._error(event, remedy)
        if event.value == "<<":
            raise self._error(event, "merge keys (<<) are not used here: write the keys out")
        return str(event.value)


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1 if event.start_mark else 1


def _size(node: Node) -> int:
    match node:
        case Sequence():
            return 1 + sum(_size(item) for item in node.items)
        case Mapping():
            return 1 + sum(_size(item) for item in node.entries.values())
        case Scalar():
            return 1
