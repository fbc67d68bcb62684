"""The receptionist's dialogue as values: states, intents and moves.

`load_script` (in `script_file.py`) makes one from a file that an operator can edit. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from app.engine.base import ToolUse
from app.engine.receptionist.grammar import Grammar, StateGrammar

__all__ = ["CONFIRM", "Act", "Intent", "Move", "Script", "State", "Unheard"]


CONFIRM = "confirm"
"""The state that "Did you want to ...?" is answered in."""


class Act(StrEnum):
    """An effect of a move besides speaking and going to a state."""

    NONE = "none"
    REPEAT = "repeat"
    HELP = "help"
    ACCEPT = "accept"
    DECLINE = "decline"
    GREET = "greet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The reaction to an intent.

    The state that it goes to speaks its prompt, unless `quietly` or something is said already
    that asks for the next turn. `without_tool` is done instead where the tool is not offered,
    `tool_done` after the tool worked, `tool_failed` after it reported failure.
    """

    act: Act = Act.NONE
    say: str = ""
    go: str | None = None
    quietly: bool = False
    tool: ToolUse | None = None
    without_tool: Move | None = None
    tool_done: Move | None = None
    tool_failed: Move | None = None

    @property
    def following(self) -> tuple[Move, ...]:
        """All moves that may be done in its place or after it, at any depth."""
        direct = (self.without_tool, self.tool_done, self.tool_failed)
        return tuple(each for move in direct if move for each in (move, *move.following))


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """Something that a caller may want, and its phrases. Without `confirm` it is not asked for."""

    name: str
    confirm: str
    phrases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A state of the dialogue.

    `spoken` is the move after a message where audio is kept, `not_kept` the one after a message
    that could not be.
    """

    name: str
    prompt: str
    keys_prompt: str
    moves: Mapping[str, Move]
    keys: Mapping[str, str]
    yes_no: bool = False
    keeps_audio: bool = False
    spoken: Move | None = None
    not_kept: Move | None = None

    @property
    def every_move(self) -> tuple[Move, ...]:
        """All moves that may be done in this state."""
        after = (self.spoken, self.not_kept)
        return (*self.moves.values(), *(move for move in after if move is not None))


@dataclass(frozen=True, slots=True, kw_only=True)
class Unheard:
    """The sentences for a turn that was not understood.

    `give_up` is the intent acted on after that, `at_last` the one after another round of it.
    """

    did_you_want: str
    again: tuple[str, ...]
    use_keys: str
    wrong_key: str
    give_up: str
    at_last: str | None = None


@dataclass(frozen=True, kw_only=True)  # no slots: the grammar is made when first asked for
class Script:
    """A whole dialogue, checked. Its texts hold `{names}` of facts for the responder to fill in."""

    facts: Mapping[str, str]
    tells: frozenset[str]
    """Those of `business`, `hours` and `address` that its texts use."""
    greeting: str
    start: str
    intents: Mapping[str, Intent]
    states: Mapping[str, State]
    everywhere: Mapping[str, Move]
    everywhere_keys: Mapping[str, str]
    unheard: Unheard
    before: tuple[str, ...]
    after: tuple[str, ...]
    off_topic: tuple[str, ...]
    pronunciations: Mapping[str, str]

    @cached_property
    def tools(self) -> frozenset[str]:
        """The tools that the dialogue can call."""
        own = [move for state in self.states.values() for move in state.every_move]
        every = [each for m in (*own, *self.everywhere.values()) for each in (m, *m.following)]
        return frozenset(move.tool.name for move in every if move.tool is not None)

    def move(self, state: str, intent: str) -> Move | None:
        """The move for `intent` in `state`: the state's own before the one for everywhere."""
        return self.states[state].moves.get(intent) or self.everywhere.get(intent)

    def key(self, state: str, digit: str) -> str | None:
        """The intent behind a key in `state`."""
        return self.states[state].keys.get(digit) or self.everywhere_keys.get(digit)

    @cached_property
    def grammar(self) -> Grammar:
        """The phrases that the recognizer listens for."""
        return Grammar({s.name: self._listens(s) for s in self.states.values()}, self.off_topic)

    def _listens(self, state: State) -> StateGrammar:
        names = dict.fromkeys((*state.moves, *self.everywhere))
        phrases = {name: self.intents[name].phrases for name in names}
        return StateGrammar(state.name, phrases, self.before, self.after, state.keeps_audio)
