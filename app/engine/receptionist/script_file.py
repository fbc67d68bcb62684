"""Reads the receptionist's dialogue from a file that an operator edits, and checks it whole.

All mistakes are told together, each with `file:line` and its cure: unknown keys and names, invalid
phrases, one phrase for two intents, placeholders such as `{prompt}` that nothing fills, states
that cannot be reached, keys used twice. `receptionist.yaml` documents the keys.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from app.engine.base import ToolUse
from app.engine.receptionist.grammar import expand, words_of
from app.engine.receptionist.script import CONFIRM, Act, Intent, Move, Script, State, Unheard
from app.errors import ConfigError
from app.settings.reader.environment import read_text
from app.settings.reader.strict_yaml import Mapping, Node, Scalar, Sequence, parse_yaml

__all__ = ["DEFAULT_SCRIPT", "FACTS", "load_script", "own_facts"]


DEFAULT_SCRIPT: Final = Path(__file__).with_name("receptionist.yaml")

FACTS: Final = frozenset(("business", "hours", "address"))
"""Facts that the settings may give, so that every dialogue may use them."""

_PLACEHOLDER: Final = re.compile(r"\{([^{}]*)\}")
_KEYS: Final = frozenset("0123456789*#ABCD")
_PHONES: Final = re.compile(r"[A-Z]{1,2}( [A-Z]{1,2})*")
_TOP: Final = (
    "facts", "greeting", "start", "before", "after", "intents", "everywhere", "states", "unheard",
    "pronunciations", "off_topic",
)  # fmt: skip
_MOVE: Final = (
    "key", "act", "say", "go", "quietly", "tool", "without_tool", "tool_done", "tool_failed",
)  # fmt: skip
_STATE: Final = ("prompt", "keys", "yes_no", "keeps_audio", "hears", "spoken", "not_kept")
_UNHEARD: Final = ("did_you_want", "again", "use_keys", "wrong_key", "give_up", "at_last")
_EVERYWHERE: Final = "intent of `everywhere`"


def load_script(path: Path = DEFAULT_SCRIPT) -> Script:
    """Read and check a dialogue.

    Raises:
        ConfigError: unreadable or wrong, with a line for each mistake.
    """
    return _script(path.name, read_text(path))


@lru_cache(maxsize=4)  # a command asks for its own and the demo's several times
def _script(name: str, text: str) -> Script:
    return _Reader(name, parse_yaml(text, name=name)).script()


def own_facts(script: Script) -> dict[str, str]:
    """The facts of a dialogue that are not the demo office's."""
    demo = load_script().facts
    return {name: fact for name, fact in script.facts.items() if fact != demo.get(name)}


_NOTHING: Final = Scalar("", 0, plain=True)
"""Stands for what is missing, which has been noted: it is read as empty without a word."""


class _Reader:
    """One file being read. Later parts look names up in earlier ones.

    A mistake is noted, and the value read as empty, so that all are found in one go.
    """

    def __init__(self, name: str, root: Mapping) -> None:
        self._mistakes: set[tuple[int, str]] = set()
        self._name = name
        self._root = root
        self._facts: dict[str, str] = {}
        self._told: set[str] = set()
        self._intents: dict[str, Intent] = {}
        self._states: tuple[str, ...] = ()

    def script(self) -> Script:
        self._only(self._root, _TOP)
        facts = self._entry(self._root, "facts")
        if facts is not None:
            self._facts = {name: self._text(node) for name, node in self._map(facts).items()}
        self._intents = {
            name: self._intent(name, node)
            for name, node in self._map(self._need(self._root, "intents")).items()
        }
        states = self._map(self._need(self._root, "states"))
        self._states = tuple(states)
        everywhere, keys = self._moves(self._need(self._root, "everywhere"))
        self._no_twins(self._need(self._root, "everywhere"), everywhere)
        script = Script(
            facts=self._facts,
            tells=FACTS,
            greeting=self._said(self._need(self._root, "greeting"), {"prompt"}),
            start=self._name_of(self._need(self._root, "start"), self._states, "state"),
            intents=self._intents,
            states={name: self._state(name, node) for name, node in states.items()},
            everywhere=everywhere,
            everywhere_keys=keys,
            unheard=self._unheard(self._need(self._root, "unheard"), everywhere),
            before=self._phrases(self._entry(self._root, "before")),
            after=self._phrases(self._entry(self._root, "after")),
            off_topic=self._off_topic(self._entry(self._root, "off_topic")),
            pronunciations=self._pronunciations(self._entry(self._root, "pronunciations")),
        )
        if not self._mistakes:  # of a part with a mistake, nobody knows where it leads
            if CONFIRM not in script.states or not script.states[CONFIRM].yes_no:
                line = self._root.key_lines["states"]
                self._note(line, f"needs a state `{CONFIRM}` with `yes_no`")
            self._all_reached(script, states)
        if self._mistakes:
            lines = [f"{self._name}:{line}: {text}" for line, text in sorted(self._mistakes)]
            raise ConfigError("\n".join(lines))
        return replace(script, tells=FACTS & self._told)

    def _all_reached(self, script: Script, nodes: dict[str, Node]) -> None:
        """A state that no move goes to is a slip of the pen."""
        moves = [move for state in script.states.values() for move in state.every_move]
        reached = {script.start, CONFIRM}
        for move in (*moves, *script.everywhere.values()):
            reached |= {m.go for m in (move, *move.following) if m.go}
        for name, node in nodes.items():
            if name not in reached:
                self._note(node.line, f"nothing goes to the state `{name}`")

    def _intent(self, name: str, node: Node) -> Intent:
        entries = self._only(node, ("confirm", "phrases"))
        phrases = self._phrases(self._need(entries, "phrases"))
        if not phrases and "phrases" in entries.entries:
            self._note(node.line, f"the intent `{name}` has no phrases")
        confirm = self._entry(entries, "confirm")
        return Intent(
            name=name,
            confirm=self._said(confirm, ()) if confirm is not None else "",
            phrases=phrases,
        )

    def _state(self, name: str, node: Node) -> State:
        entries = self._only(node, _STATE)
        moves, keys = self._moves(self._need(entries, "hears"))
        spoken = self._entry(entries, "spoken")
        not_kept = self._entry(entries, "not_kept")
        keeps_audio = self._flag(entries, "keeps_audio")
        if keeps_audio != (spoken is not None):
            self._note(node.line, "`keeps_audio: true` and `spoken` belong together")
        if not_kept is not None and not keeps_audio:
            self._note(not_kept.line, "`not_kept` needs `keeps_audio: true`")
        self._no_twins(node, moves)
        return State(
            name=name,
            prompt=self._said(self._need(entries, "prompt"), ()),
            keys_prompt=self._said(self._need(entries, "keys"), ()),
            moves=moves,
            keys=keys,
            yes_no=self._flag(entries, "yes_no"),
            keeps_audio=keeps_audio,
            spoken=self._move(spoken) if spoken is not None else None,
            not_kept=self._move(not_kept) if not_kept is not None else None,
        )

    def _no_twins(self, node: Node, moves: dict[str, Move]) -> None:
        owner: dict[str, str] = {}
        for intent in self._intents.keys() & moves.keys():
            for sentence in (s for p in self._intents[intent].phrases for s in expand(p)):
                if owner.setdefault(sentence, intent) != intent:
                    self._note(
                        node.line, f'"{sentence}" means both `{owner[sentence]}` and `{intent}`'
                    )

    def _moves(self, node: Node) -> tuple[dict[str, Move], dict[str, str]]:
        moves: dict[str, Move] = {}
        keys: dict[str, str] = {}
        top = self._mapping(node)
        for name, entry in top.entries.items():
            self._known(name, self._intents, "intent", top.key_lines[name])
            moves[name] = self._move(entry)
            key = self._entry(self._mapping(entry), "key")
            if key is None:
                continue
            for one in key.items if isinstance(key, Sequence) else (key,):
                digit = self._text(one)
                if digit and digit not in _KEYS:
                    self._note(one.line, f'`key: "{digit}"` is not a telephone key')
                if digit in keys:
                    self._note(one.line, f"key {digit} is used for `{keys[digit]}` already")
                keys[digit] = name
        return moves, keys

    def _move(self, node: Node) -> Move:
        entries = self._only(node, _MOVE)
        act, say = self._entry(entries, "act"), self._entry(entries, "say")
        go, tool = self._entry(entries, "go"), self._entry(entries, "tool")
        without, done, failed = (
            self._entry(entries, key) for key in ("without_tool", "tool_done", "tool_failed")
        )
        if act is None and say is None and go is None and tool is None:
            self._note(node.line, "does nothing: give it `say`, `go`, `act` or `tool`")
        if tool is None and any(move is not None for move in (without, done, failed)):
            self._note(node.line, "`without_tool`, `tool_done` and `tool_failed` need a `tool`")
        acts = tuple(name.value for name in Act if name is not Act.NONE)
        return Move(
            act=Act(self._name_of(act, acts, "act") or Act.NONE) if act else Act.NONE,
            say=self._said(say, ()) if say is not None else "",
            go=self._name_of(go, self._states, "state") if go is not None else None,
            quietly=self._flag(entries, "quietly"),
            tool=self._tool(tool) if tool is not None else None,
            without_tool=self._move(without) if without is not None else None,
            tool_done=self._move(done) if done is not None else None,
            tool_failed=self._move(failed) if failed is not None else None,
        )

    def _tool(self, node: Node) -> ToolUse:
        entries = self._only(node, ("name", "arguments"))
        given = self._entry(entries, "arguments")
        arguments: dict[str, object] = {}
        if given is not None:
            for name, value in self._map(given).items():
                if isinstance(value, Scalar):
                    arguments[name] = value.value
                else:
                    self._note(value.line, f"the argument `{name}` must be a text or a number")
        return ToolUse(name=self._text(self._need(entries, "name")), arguments=arguments)

    def _unheard(self, node: Node, everywhere: dict[str, Move]) -> Unheard:
        entries = self._only(node, _UNHEARD)
        ask = self._need(entries, "did_you_want")
        question = self._said(ask, {"confirm"})
        if question and "{confirm}" not in question:
            self._note(ask.line, "the question must hold {confirm}")
        again = self._items(self._need(entries, "again"))
        last = self._entry(entries, "at_last")
        return Unheard(
            did_you_want=question,
            again=tuple(self._said(item, {"prompt", "keys"}) for item in again),
            use_keys=self._said(self._need(entries, "use_keys"), {"prompt", "keys"}),
            wrong_key=self._said(self._need(entries, "wrong_key"), {"prompt", "keys"}),
            give_up=self._name_of(self._need(entries, "give_up"), everywhere, _EVERYWHERE),
            at_last=self._name_of(last, everywhere, _EVERYWHERE) if last is not None else None,
        )

    def _phrases(self, node: Node | None) -> tuple[str, ...]:
        phrases: list[str] = []
        for item in self._items(node) if node is not None else ():
            phrase = " ".join(self._text(item).split())
            try:
                expand(phrase)
            except ValueError as error:
                if phrase:
                    self._note(item.line, f'the phrase "{phrase}": {error}')
                continue
            phrases.append(phrase)
        return tuple(phrases)

    def _off_topic(self, node: Node | None) -> tuple[str, ...]:
        lines = self._items(node) if node is not None else ()
        for line in lines:
            if (text := self._text(line)) and not words_of(text):
                self._note(line.line, "expected a sentence")
        return tuple(self._text(line) for line in lines)

    def _pronunciations(self, node: Node | None) -> dict[str, str]:
        said: dict[str, str] = {}
        for word, phones in self._map(node).items() if node is not None else ():
            if words_of(word) != (word,):
                self._note(phones.line, f'"{word}" is not one word in lower case')
            said[word] = self._text(phones)
            if said[word] and not _PHONES.fullmatch(said[word]):
                self._note(phones.line, f'"{said[word]}" are not phones such as "HH AH L OW"')
        return said

    def _said(self, node: Node, placeholders: Iterable[str]) -> str:
        """Text to be spoken, with placeholders for facts and for `placeholders`."""
        allowed = set(placeholders) | FACTS
        text = " ".join(self._text(node).split())
        for placeholder in _PLACEHOLDER.findall(text):
            self._told.add(placeholder)
            if placeholder not in allowed and placeholder not in self._facts:
                self._known(placeholder, allowed | set(self._facts), "placeholder", node.line)
        return text

    def _flag(self, entries: Mapping, key: str) -> bool:
        node = self._entry(entries, key)
        if node is None:
            return False
        value = node.value if isinstance(node, Scalar) else None
        if isinstance(value, bool):
            return value
        self._note(node.line, f"`{key}` must be true or false")
        return False

    def _name_of(self, node: Node, known: Iterable[str], kind: str) -> str:
        """The name at `node`; empty if it is not one of `known`."""
        name = self._text(node)
        return name if name and self._known(name, known, kind, node.line) else ""

    def _known(self, name: str, known: Iterable[str], kind: str, line: int) -> bool:
        names = sorted(known)
        if name in names:
            return True
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(names) or 'none'}"
        self._note(line, f"no {kind} is called `{name}`{hint}")
        return False

    def _only(self, node: Node, keys: tuple[str, ...]) -> Mapping:
        mapping = self._mapping(node)
        for key in mapping.entries:
            self._known(key, keys, "key", mapping.key_lines[key])
        return mapping

    def _need(self, mapping: Mapping, key: str) -> Node:
        node = mapping.entries.get(key)
        if node is None and mapping.line:
            self._note(mapping.line, f"`{key}` is missing")
        return node or _NOTHING

    def _entry(self, mapping: Mapping, key: str) -> Node | None:
        return mapping.entries.get(key)

    def _mapping(self, node: Node) -> Mapping:
        if isinstance(node, Mapping):
            return node
        if node is not _NOTHING:
            self._note(node.line, "expected `name: value` lines")
        return Mapping({}, {}, 0)

    def _map(self, node: Node) -> dict[str, Node]:
        return self._mapping(node).entries

    def _items(self, node: Node) -> tuple[Node, ...]:
        if isinstance(node, Sequence):
            return node.items
        if node is not _NOTHING:
            self._note(node.line, "expected a list, one `- ` per line")
        return ()

    def _text(self, node: Node) -> str:
        if isinstance(node, Scalar) and node.text:
            return node.text
        if node is not _NOTHING:
            self._note(node.line, "expected a text")
        return ""

    def _note(self, line: int, message: str) -> None:
        self._mistakes.add((line, message))
