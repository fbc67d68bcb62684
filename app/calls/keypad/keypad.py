"""The caller's keypad: keys, and who waits for them.

A key belongs to the first that waits for it: an entry of digits, a tool that needs consent, the
menu, the agent's keypad map, and only then the model. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, assert_never

from app.agents.dialogue.actions import RunTool
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import ClosingPrompt, Intent, TransferCall
from app.calls.conversation.call_tools import CallTools
from app.calls.keypad import menu
from app.calls.keypad.consent import KeypadConsent
from app.calls.keypad.digits import Collected, CollectionEnd, DigitCollection, DigitRequest
from app.calls.keypad.menu import KeypadMap, KeypadMenu
from app.errors import ToolArgsInvalid
from app.events import EndReason, Party

__all__ = ["Keypad"]


LATE_DIGITS_MS: Final = 10_000
"""A caller who looks at a card while they key takes longer than an entry waits; none this long."""

_NOTES: Final = {
    CollectionEnd.COMPLETE: "",
    CollectionEnd.TOO_SHORT: "The caller stopped too early. Ask again, or go on without.",
    CollectionEnd.NOTHING: "The caller pressed no key. Ask again, or go on without.",
    CollectionEnd.CANCELLED: "The caller spoke instead.",
}


@dataclass(slots=True)
class _Entry:
    """An entry of digits on its way to the tool call that wants it."""

    run: RunTool
    since_ms: int
    collection: DigitCollection
    started: bool = False


class Keypad:
    """The keys of one call."""

    def __init__(
        self,
        dialogue: Dialogue,
        tools: CallTools,
        consent: KeypadConsent,
        maps: Mapping[str, KeypadMap],
    ) -> None:
        """`maps` are those of the agents, by name."""
        self._dialogue = dialogue
        self._tools = tools
        self._consent = consent
        self._maps = maps
        self._entry: _Entry | None = None
        self._late_terminator: tuple[str, int] | None = None
        self._late_digits: tuple[DigitCollection, int] | None = None
        self._menu: KeypadMenu | None = None
        self.used = False
        """The caller has pressed a key."""

    @property
    def waiting(self) -> bool:
        """A key is awaited: a caller who is silent is not asked whether they are there."""
        return self._consent.waiting or self._entry is not None or self._menu is not None

    @property
    def asking(self) -> frozenset[str]:
        """The ids of the tool calls that the caller's keys answer."""
        entry = frozenset() if self._entry is None else {self._entry.run.tool_call_id}
        return self._consent.asking | entry

    @property
    def entering(self) -> bool:
        """Digits are being entered, which nobody else may know."""
        return self._entry is not None

    @property
    def _map(self) -> KeypadMap | None:
        return self._maps.get(self._dialogue.active.agent.name)

    # Keys ---------------------------------------------------------------------------------------

    def shown(self, key: str, now_ms: int) -> str:
        """Return what may be recorded of a key.

        Those that come late, or one too many, are still a part of what was to be entered.
        """
        if self._entry is not None:
            return self._entry.collection.shown(key)
        if self._late_digits is None or now_ms > self._late_digits[1]:
            return key
        collection, _ = self._late_digits
        self._late_digits = collection, now_ms + LATE_DIGITS_MS
        return collection.shown(key)

    def absorbs(self, key: str, now_ms: int) -> bool:
        """True for the terminator of an entry that its last digit has ended already.

        Callers press it as they were asked to: it wants nothing, and stops nobody.
        """
        late, self._late_terminator = self._late_terminator, None
        return late is not None and key == late[0] and now_ms <= late[1]

    def on_key(self, key: str, now_ms: int) -> Sequence[Intent]:
        """Give a key to the first that waits for it."""
        self.used = True
        if self._entry is not None:
            collection = self._entry.collection
            ended = key == collection.request.terminator  # by the caller, who is done then
            return self._collected(collection.on_key(key, now_ms), now_ms, ended=ended)
        if self._consent.waiting:
            return self._consent.on_key(key, now_ms)
        if self._menu is not None:
            return self._in_menu(self._menu.on_key(key), now_ms)
        action = None if self._map is None else self._map.actions.get(key)
        if action is None:
            return self._dialogue.type_in(f"[keypad] {key}", now_ms, in_transcript=False)
        return self._act(action, now_ms)

    def on_caller_words(self, now_ms: int) -> Sequence[Intent]:
        """The caller speaks instead: keys are not waited for any more."""
        self._menu = None  # its keys do what the agent's map says again
        # A caller who speaks while they key goes on keying: else the rest of a PIN were not masked.
        if self._entry is None or self._entry.collection.begun:
            return []
        return self._collected(self._entry.collection.cancel(), now_ms, ended=True)

    def on_tick(self, now_ms: int, *, heard_out: bool) -> Sequence[Intent]:
        """Time for keys runs from when the caller has heard what to press."""
        entry = self._entry
        if entry is None:
            if self._menu is None or not heard_out:
                return []
            self._menu.on_heard(now_ms)
            return self._in_menu(self._menu.on_tick(now_ms), now_ms)
        if heard_out and not entry.started:
            entry.started = True
            entry.collection.start(now_ms)
        return self._collected(entry.collection.on_tick(now_ms), now_ms)

    # Menus and maps -----------------------------------------------------------------------------

    def open_menu(self, now_ms: int, before: str = "") -> Sequence[Intent] | None:
        """Speak the agent's menu, with its first words `before`; `None` where it has none."""
        keypad = self._map
        if keypad is None or keypad.menu is None:
            return None
        self._menu = KeypadMenu(keypad, keypad.menu)
        return self._dialogue.say(f"{before} {keypad.menu.prompt}".strip(), now_ms)

    def _in_menu(self, action: menu.KeyAction | None, now_ms: int) -> Sequence[Intent]:
        if self._menu is not None and self._menu.done:
            self._menu = None
        return [] if action is None else self._act(action, now_ms)

    def _act(self, action: menu.KeyAction, now_ms: int) -> Sequence[Intent]:
        dialogue = self._dialogue
        match action:
            case menu.Say(text):
                return dialogue.say(text, now_ms)
            case menu.Transfer(destination):
                return [TransferCall(destination)]
            case menu.ToAgent(name):
                changed = dialogue.change_agent(dialogue.active.roster[name], now_ms)
                spoken = self.open_menu(now_ms)
                return [*changed, *(dialogue.responses.ask(now_ms) if spoken is None else spoken)]
            case menu.HangUp(text):
                return [ClosingPrompt(EndReason.AGENT_HUNG_UP, text or "", "keypad")]
            case menu.Repeat():
                return self._repeat(now_ms)
            case _:
                assert_never(action)

    def _repeat(self, now_ms: int) -> Sequence[Intent]:
        entries = self._dialogue.transcript.messages()
        said = [entry.text for entry in entries if entry.party is Party.AGENT and entry.text]
        text = said[-1] if said else self._dialogue.active.greeting
        return self._dialogue.say(text, now_ms) if text else self._dialogue.responses.ask(now_ms)

    # Digits -------------------------------------------------------------------------------------

    def collect(
        self, run: RunTool, arguments: Mapping[str, Any], now_ms: int, _spoken: bool
    ) -> Sequence[Intent]:
        """Begin an entry of digits, which answers the tool call when it is done."""
        if self._entry is not None:
            raise ToolArgsInvalid("The caller is entering digits already.")
        if arguments.get("min_digits", 1) > arguments["max_digits"]:
            raise ToolArgsInvalid("min_digits is not more than max_digits.")
        request = DigitRequest(
            min_digits=arguments.get("min_digits", 1),
            max_digits=arguments["max_digits"],
            terminator=arguments.get("terminator", "#"),
            clear="" if arguments.get("terminator") == "*" else "*",
            first_ms=1_000 * arguments.get("wait_seconds", 8),
        )
        self._entry = _Entry(run, now_ms, DigitCollection(request))
        return []

    def _collected(
        self, collected: Collected | None, now_ms: int, *, ended: bool = False
    ) -> Sequence[Intent]:
        """Answer with a finished entry; `ended`: the caller knows that it is."""
        entry = self._entry
        if collected is None or entry is None:
            return []
        self._entry = None
        request = entry.collection.request
        self._late_digits = None if ended else (entry.collection, now_ms + LATE_DIGITS_MS)
        if len(collected.digits) == request.max_digits:
            self._late_terminator = (request.terminator, now_ms + request.between_ms)
        output = {"digits": collected.digits, "end": collected.end.value}
        if note := _NOTES[collected.end]:
            output["note"] = note
        # A caller who speaks is answered for what they say.
        reply = collected.end is not CollectionEnd.CANCELLED
        return self._tools.answer(entry.run, output, now_ms, since_ms=entry.since_ms, reply=reply)
