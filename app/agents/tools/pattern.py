"""Regular expressions that take time in proportion to the text, whatever the text is.

Python's own matcher backtracks: one wrong pattern and a patient caller hold up every call of the
process, and no timeout helps, since it keeps the interpreter while it matches. So patterns of
guardrails are read by Python's parser (the same syntax and flags) and run as an automaton, in the
manner of Thompson (1968), whose states are made as texts ask for them. What an automaton cannot do
is refused when the pattern is read: back-references, look-around, atomic groups. It answers
whether there is a match, not where. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable
from importlib import import_module
from typing import Any, Final

from app.errors import ConfigError

__all__ = ["LinearRegex"]


# Private to the standard library, and there from 3.11 on; the tests compare with `re` itself.
_parser: Any = import_module("re._parser")
_compiler: Any = import_module("re._compiler")

_MAX_STATES: Final = 1_000
_MAX_REMEMBERED: Final = 20_000
_MAX_PATTERN_CHARS: Final = 2_000
_PAUSE_AFTER_STEPS: Final = 2_000
"""Steps between two pauses of a scan: about a millisecond (see docs/agents.md)."""

_REFUSED: Final = {
    "GROUPREF": "refers back to a group",
    "GROUPREF_EXISTS": "depends on a group",
    "ASSERT": "looks ahead or behind",
    "ASSERT_NOT": "looks ahead or behind",
    "FAILURE": "looks ahead or behind",  # (?!), since 3.12
    "ATOMIC_GROUP": "has an atomic group",
    "POSSESSIVE_REPEAT": "has a possessive quantifier",
}
_TYPE_FLAGS: Final = re.ASCII | re.LOCALE | re.UNICODE
_ACCEPT: Final = 0

_States = frozenset[int]


class LinearRegex:
    """A pattern in Python's syntax; `search` is `re.search(...) is not None`, in linear time."""

    def __init__(self, pattern: str, flags: int = 0, *, strict_end: bool = False) -> None:
        """Read a pattern; with `strict_end`, `$` is the end and never before a last line break.

        Raises:
            ConfigError: not a pattern, too large, or not for an automaton.
        """
        if len(pattern) > _MAX_PATTERN_CHARS:
            raise ConfigError(f"a pattern has at most {_MAX_PATTERN_CHARS} characters")
        self.pattern = pattern
        try:
            parsed = _parser.parse(pattern, flags)
            self._states = _Automaton(strict_end=strict_end)
            start = self._states.build(parsed, int(parsed.state.flags), _ACCEPT)
        except (re.error, OverflowError) as error:
            raise ConfigError(f"pattern {pattern[:80]!r}: {error}") from error
        except RecursionError as error:
            raise ConfigError(f"pattern {pattern[:80]!r}: nested too deeply") from error
        self._start: _States = frozenset((start,))
        self._steps: dict[tuple[_States, tuple[bool, ...], str], _States | None] = {}
        self._work = 0

    def search(self, text: str) -> bool:
        """Whether the pattern matches anywhere in the text."""
        scan = self.scan(text)
        while True:
            try:
                next(scan)
            except StopIteration as done:
                return bool(done.value)

    def scan(self, text: str) -> Generator[None, None, bool]:
        """The same search with pauses, for whoever has other things to do meanwhile."""
        places = self._states.places
        waiting: _States = frozenset()
        for at in range(len(text) + 1):
            truths = tuple([place.holds(text, at) for place in places]) if places else ()
            key = (waiting, truths, text[at : at + 1])
            try:
                following = self._steps[key]
            except KeyError:
                following = self._step(*key)
            self._work += 1 + len(places)
            if self._work >= _PAUSE_AFTER_STEPS:
                self._work = 0
                yield
            if following is None:
                return True
            waiting = following
        return False

    def _step(self, waiting: _States, truths: tuple[bool, ...], char: str) -> _States | None:
        """The states behind one character; None when there is a match before it."""
        active = self._states.closure(self._start | waiting, truths)
        self._work += len(active) + 1
        following = None if _ACCEPT in active else self._states.behind(active, char)
        if len(self._steps) >= _MAX_REMEMBERED:
            self._steps.clear()
        self._steps[waiting, truths, char] = following
        return following


class _Automaton:
    """States by number: a character to read, a condition on the place, or a choice."""

    def __init__(self, *, strict_end: bool) -> None:
        self._strict_end = strict_end
        self._chars: dict[int, tuple[_Char, int]] = {}
        self._conditions: dict[int, tuple[int, int]] = {}
        self._choices: dict[int, list[int]] = {_ACCEPT: []}
        self._known_places: dict[tuple[str, int], int] = {}
        self.places: list[_Place] = []

    def _new(self) -> int:
        number = len(self._chars) + len(self._conditions) + len(self._choices)
        if number > _MAX_STATES:
            raise ConfigError("a pattern's repeats are too many: write smaller counts")
        return number

    def _choice(self, *following: int) -> int:
        number = self._new()
        self._choices[number] = list(following)
        return number

    def build(self, pattern: Iterable[Any], flags: int, following: int) -> int:
        """States for a parsed pattern in front of `following`; gives the first."""
        for node in reversed(list(pattern)):
            following = self._build_node(node, flags, following)
        return following

    def _build_node(self, node: Any, flags: int, following: int) -> int:
        kind, value = str(node[0].name), node[1]
        match kind:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                number = self._new()
                self._chars[number] = (_Char(node, flags), following)
                return number
            case "AT":
                number = self._new()
                if self._strict_end and value is _parser.AT_END and not flags & re.MULTILINE:
                    node = (node[0], _parser.AT_END_STRING)
                self._conditions[number] = (self._place(node, flags), following)
                return number
            case "SUBPATTERN":
                _, added, removed, inner = value
                return self.build(inner, _combined(flags, added, removed), following)
            case "BRANCH":
                return self._choice(*[self.build(inner, flags, following) for inner in value[1]])
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._build_repeat(value, flags, following)
            case _:
                reason = _REFUSED.get(kind, f"uses {kind}")
                raise ConfigError(
                    f"the pattern {reason}, which cannot be searched for in bounded time; "
                    "write it otherwise, or check it in Python"
                )

    def _place(self, node: Any, flags: int) -> int:
        """The condition by number: each is looked at once for a character, however often named."""
        key = (str(node), flags)
        if key not in self._known_places:
            self._known_places[key] = len(self.places)
            self.places.append(_Place(node, flags))
        return self._known_places[key]

    def _build_repeat(self, value: Any, flags: int, following: int) -> int:
        least, most, inner = value
        if most is _parser.MAXREPEAT:
            start = self._choice(following)
            self._choices[start].append(self.build(inner, flags, start))
        else:
            start = following
            for _ in range(most - least):
                start = self._choice(self.build(inner, flags, start), following)
        for _ in range(least):
            before = start
            start = self.build(inner, flags, start)
            if start == before:  # nothing inside: repeating it changes nothing
                break
        return start

    def closure(self, states: _States, truths: tuple[bool, ...]) -> set[int]:
        """All states that are reached without reading anything."""
        found: set[int] = set()
        todo = list(states)
        while todo:
            state = todo.pop()
            if state in found:
                continue
            found.add(state)
            if state in self._choices:
                todo += self._choices[state]
            elif state in self._conditions:
                place, following = self._conditions[state]
                if truths[place]:
                    todo.append(following)
        return found

    def behind(self, active: set[int], char: str) -> _States:
        """The states that follow when a character is read."""
        if not char:
            return frozenset()
        found = set()
        for state in active:
            edge = self._chars.get(state)
            if edge is not None and edge[0].takes(char):
                found.add(edge[1])
        return frozenset(found)


class _Char:
    """One character of a pattern, judged by Python's own matcher: case, classes, categories."""

    __slots__ = ("_known", "_one")

    def __init__(self, node: Any, flags: int) -> None:
        self._one = _compiled(node, flags)
        self._known: dict[str, bool] = {}

    def takes(self, char: str) -> bool:
        known = self._known.get(char)
        if known is None:
            if len(self._known) >= _MAX_REMEMBERED:
                self._known.clear()
            known = self._known[char] = self._one.match(char) is not None
        return known


class _Place:
    """A condition on a place of the text: start, end, word boundary."""

    __slots__ = ("_one",)

    def __init__(self, node: Any, flags: int) -> None:
        self._one = _compiled(node, flags)

    def holds(self, text: str, at: int) -> bool:
        return self._one.match(text, at) is not None


def _compiled(node: Any, flags: int) -> re.Pattern[str]:
    state = _parser.State()
    state.flags = flags
    compiled: re.Pattern[str] = _compiler.compile(_parser.SubPattern(state, [node]), flags)
    return compiled


def _combined(flags: int, added: int, removed: int) -> int:
    """The flags inside a group, such as `(?i:...)`."""
    if added & _TYPE_FLAGS:
        flags &= ~_TYPE_FLAGS
    return (flags | added) & ~removed
