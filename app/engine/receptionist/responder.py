"""The offline receptionist: a directed dialogue over weak speech recognition.

It acts where both listeners heard the same, asks "Did you want ...?" where only one heard
something, and else prompts again: twice, then it offers the keypad, then a person. Yes and no are
never guessed, and digits come from the keypad only. It cannot follow a model's instructions.
Pure: the script says what it says and does; the object holds the state of the dialogue.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Final

from app.engine.base import Heard, Reply, ToolUse
from app.engine.receptionist.grammar import words_of
from app.engine.receptionist.script import CONFIRM, Act, Move, Script, State

__all__ = ["Receptionist"]


_KEYPAD: Final = re.compile(r"\[keypad\]\s*([0-9A-D*#]+)", re.IGNORECASE)
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_END_CALL: Final = "end_call"
_NOT_KEPT: Final = "Sorry, I could not keep your message."
_ANSWERED: Final = "answered"
_NO_ENTRY: Final = frozenset({"too_short", "nothing"})
"""Ends of Trunkline's tool `collect_digits` that bring no digits."""


class Receptionist:
    """The dialogue of one session.

    Without `tools_offered` every tool is tried, and one that fails is answered as a missing one.
    `facts` stand in for those of the script.
    """

    def __init__(
        self,
        script: Script,
        tools_offered: Collection[str] | None = None,
        *,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self.opened = False
        self._script = script
        self._facts = {**script.facts, **(facts or {})}
        self._tools = frozenset(tools_offered) if tools_offered is not None else None
        self._state = script.states[script.start]
        self._asked: tuple[State, str] | None = None
        """In `confirm`: the state to return to, and the intent that was asked about."""
        self._misses = 0
        self._gave_up = False
        self._said = ""
        self._calling: Move | None = None
        self._result: dict[str, object] = {}
        """The result of the last tool, whose values the next tool may take."""

    @property
    def context(self) -> str:
        return self._state.name

    @property
    def keeps_audio(self) -> bool:
        return self._state.keeps_audio

    def offer_tools(self, names: Collection[str]) -> None:
        """The session's tools changed."""
        self._tools = frozenset(names)

    def open(self) -> Reply:
        """Speak first."""
        self.opened = True
        return self._reply(self._script.greeting)

    def repeat(self) -> Reply:
        """Say the last words again."""
        return Reply(text=self._said) if self._said else self._reply("{prompt}")

    def hear(self, heard: Heard) -> Reply:
        """Answer a caller turn; nothing for a turn without words."""
        if not heard.transcript.strip():
            return Reply()
        if self._state.spoken is not None:
            return self._do(self._state.spoken)
        votes = list(heard.intents.values())
        found = {vote for vote in votes if vote is not None}
        if len(found) != 1:
            return self._missed()
        intent = found.pop()
        if all(vote == intent for vote in votes):
            return self._understood(intent)
        if self._state.yes_no or not self._script.intents[intent].confirm:
            return self._missed()
        return self._ask(intent)

    def read(self, text: str) -> Reply:
        """Answer typed text; `[keypad] 5` means that the caller pressed 5."""
        pressed = _KEYPAD.fullmatch(text.strip())
        if pressed is not None:
            return self._press(pressed.group(1))
        if not text.strip():
            return Reply()
        grammar = self._script.grammar.states[self._state.name]
        words = words_of(text)
        if self._state.spoken is not None:
            intent = grammar.exact(words)
            return self._do(self._state.spoken) if intent is None else self._understood(intent)
        intent = grammar.typed(words)
        return self._missed() if intent is None else self._understood(intent)

    def is_message(self, text: str) -> bool:
        """A typed message is the message, unless it is exactly one of the few commands."""
        if self._state.spoken is None or not text.strip() or _KEYPAD.fullmatch(text.strip()):
            return False
        return self._script.grammar.states[self._state.name].exact(words_of(text)) is None

    def not_kept(self) -> Reply:
        """Go on after a message that could not be kept."""
        lost = Move(say=_NOT_KEPT, go=self._script.start)
        return self._do(self._state.not_kept or lost)

    def tool_result(self, name: str, output: str) -> Reply:
        """Go on after a tool answered: as its move says, else with the state's prompt."""
        move, self._calling = self._calling, None
        if move is None or move.tool is None or move.tool.name != name:
            return Reply()
        failed, self._result = _failed(output), _values(output)
        if name == _END_CALL and not failed:
            return Reply()  # the goodbye was the last word
        following = move.tool_failed or move.without_tool if failed else move.tool_done
        return self._reply(self._state.prompt) if following is None else self._do(following)

    def _press(self, digits: str) -> Reply:
        # In a menu of single keys, the last of several keys in a row counts.
        intent = self._script.key(self._state.name, digits[-1].upper())
        if intent is None:
            return self._reply(self._script.unheard.wrong_key)
        return self._understood(intent)

    def _understood(self, intent: str) -> Reply:
        self._gave_up = False
        return self._act_on(intent)

    def _act_on(self, intent: str) -> Reply:
        move = self._script.move(self._state.name, intent)
        if move is None:  # an intent of another state: a recognizer that is out of step
            return self._missed()
        return self._do(move)

    def _do(self, move: Move) -> Reply:
        offered = self._tools is None or move.tool is None or move.tool.name in self._tools
        if not offered:
            if move.without_tool is not None:
                return self._do(move.without_tool)
            move = replace(move, tool=None)
        match move.act:
            case Act.REPEAT:
                self._misses = 0
                return self.repeat()
            case Act.HELP:
                self._misses = 0
                return self._reply("{prompt}")
            case Act.ACCEPT if self._asked is not None:
                state, intent = self._asked
                self._enter(state)
                return self._act_on(intent)
            case Act.DECLINE if self._asked is not None:
                misses = self._misses
                self._enter(self._asked[0])
                self._misses = misses
                return self._missed()
            case Act.GREET if not self.opened:
                return self.open()
            case _:
                return self._go(move)

    def _go(self, move: Move) -> Reply:
        text = move.say
        if move.go is not None:
            self._enter(self._script.states[move.go])
            # A move that speaks into a state without a question of its own is the question.
            if not move.quietly and (not move.say or not move.say.rstrip().endswith("?")):
                text = f"{move.say} {self._state.prompt}".strip()
        self._misses = 0
        self._calling = move if move.tool is not None else None
        reply = self._reply(text)
        return replace(reply, tools=(self._use(move.tool),)) if move.tool is not None else reply

    def _use(self, tool: ToolUse) -> ToolUse:
        """The call of a tool, with values of the last tool's result in its arguments."""
        arguments: dict[str, object] = {}
        for name, value in tool.arguments.items():
            taken = _PLACEHOLDER.fullmatch(value) if isinstance(value, str) else None
            if taken is None:
                arguments[name] = value
            elif taken.group(1) in self._result:
                arguments[name] = self._result[taken.group(1)]
        return ToolUse(name=tool.name, arguments=arguments)

    def _enter(self, state: State) -> None:
        self._state = state
        self._asked = None

    def _ask(self, intent: str) -> Reply:
        asked = self._state
        self._misses += 1
        self._state = self._script.states[CONFIRM]
        self._asked = (asked, intent)
        return self._reply(self._question(intent))

    def _question(self, intent: str) -> str:
        question = self._script.unheard.did_you_want
        return question.replace("{confirm}", self._script.intents[intent].confirm)

    def _missed(self) -> Reply:
        if not self.opened:  # most likely a hello
            return self.open()
        unheard = self._script.unheard
        self._misses += 1
        if self._misses <= len(unheard.again):
            return self._reply(unheard.again[self._misses - 1])
        if self._misses == len(unheard.again) + 1:
            return self._reply(unheard.use_keys)
        if self._asked is not None:
            self._enter(self._asked[0])
        last = unheard.at_last if self._gave_up else None
        self._gave_up = True
        return self._act_on(last or unheard.give_up)

    def _reply(self, text: str) -> Reply:
        self._said = self._fill(text)
        return Reply(text=self._said)

    def _fill(self, text: str) -> str:
        prompts = {"prompt": self._state.prompt, "keys": self._state.keys_prompt}
        if self._asked is not None:  # "Please say yes or no." means nothing without the question
            question = self._question(self._asked[1])
            prompts = {name: f"{question} {prompt}" for name, prompt in prompts.items()}
        return _filled(_filled(text, prompts), self._facts).strip()  # a prompt may hold facts


def _filled(text: str, values: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), text)


def _values(output: str) -> dict[str, object]:
    """The values of a tool's result, if it is an object."""
    try:
        value = json.loads(output)
    except ValueError:
        return {}
    if isinstance(value, dict) and isinstance(value.get("result"), dict):
        value = value["result"]  # as Trunkline wraps what a tool returns
    return value if isinstance(value, dict) else {}


def _failed(output: str) -> bool:
    """True if a tool reported failure: an error object, `ok: false`, or text that begins so.

    `outcome` comes from a transfer, and a caller who is still here was not put through; `end`
    comes from an entry of digits.
    """
    value = _values(output)
    if not value:
        return output.strip().lower().startswith(("error", "failed"))
    return (
        bool(value.get("error"))
        or value.get("ok") is False
        or value.get("status") == "failed"
        or value.get("outcome", _ANSWERED) != _ANSWERED
        or value.get("end") in _NO_ENTRY
    )
