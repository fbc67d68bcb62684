"""The caller's keypad and what an agent does with the phone: digits, holding, messages.

A key belongs to whoever waits for it: an entry of digits, a tool that needs consent, the agent's
keypad map, and only then the model. The tools of `app.agents.tools.call_control` but `end_call` run
here. What comes out is carried by the conversation. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from app.agents.dialogue.actions import DialogueAction, Record, RunTool
from app.agents.dialogue.dialogue import Dialogue
from app.agents.dialogue.history import Entry
from app.agents.tools.call_control import COLLECT_DIGITS, HOLD, read_call_tool, refused_call_tool
from app.calls.actions import Action, Decide, TransferCall
from app.calls.keypad import menu
from app.calls.keypad.digits import Collected, CollectionEnd, DigitCollection, DigitRequest
from app.calls.keypad.menu import KeypadMap, KeypadMenu
from app.calls.turns.timers import CallTimers, ClosingPrompt
from app.calls.turns.words import meaningful_words
from app.errors import AppError, ToolArgsInvalid
from app.events import CallId, EndReason, MessageTaken, Party, ToolRan

__all__ = ["Keypad", "Wanted"]


Wanted = DialogueAction | Action | ClosingPrompt

HOLD_S: Final = 120
LATE_WORDS_MS: Final = 5_000
"""So long a message that was answered waits for transcripts; in most cases they take a second."""
LATE_DIGITS_MS: Final = 10_000
"""Who looks at a card while they key takes longer than an entry waits; longer than this, nobody."""

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


@dataclass(slots=True)
class _Message:
    """A message on its way: people pause while they leave one, and each pause ends a turn."""

    recipient: str
    item_id: str = ""
    texts: list[str] = field(default_factory=list)
    answered_ms: int | None = None


@dataclass(slots=True)
class _Consent:
    """The question for a tool that needs consent, and what the agent had said before it."""

    prompt: str
    before: frozenset[str] = frozenset()


class Keypad:
    """The keys and the phone-side tools of one call."""

    def __init__(
        self,
        call_id: CallId,
        dialogue: Dialogue,
        timers: CallTimers,
        keypads: Mapping[str, KeypadMap],
    ) -> None:
        """`keypads` are the maps of the agents, by name."""
        self._call_id = call_id
        self._dialogue = dialogue
        self._timers = timers
        self._keypads = keypads
        self._consents: dict[str, _Consent] = {}
        self._entry: _Entry | None = None
        self._late_terminator: tuple[str, int] | None = None
        self._late_digits: tuple[DigitCollection, int] | None = None
        self._message: _Message | None = None
        self._menu: KeypadMenu | None = None
        self.used = False

    @property
    def waiting(self) -> bool:
        """Somebody waits for a key: a caller who is silent is not asked whether they are there."""
        return bool(self._consents) or self._entry is not None or self._menu is not None

    # Menus --------------------------------------------------------------------------------------

    def open_menu(self, now_ms: int, before: str = "") -> Sequence[Wanted] | None:
        """Speak the agent's menu, with its first words `before`; `None` where it has none."""
        keypad = self._keypads.get(self._dialogue.active.agent.name)
        if keypad is None or keypad.menu is None:
            return None
        self._menu = KeypadMenu(keypad, keypad.menu)
        return self._dialogue.say(f"{before} {keypad.menu.prompt}".strip(), now_ms)

    def _in_menu(self, action: menu.KeyAction | None, now_ms: int) -> Sequence[Wanted]:
        if self._menu is not None and self._menu.done:
            self._menu = None
        return [] if action is None else self._act(action, now_ms)

    # Keys ---------------------------------------------------------------------------------------

    def shown(self, key: str, now_ms: int) -> str:
        """What may be recorded of a key.

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
        """Whether a key is the terminator of an entry that its last digit has ended already.

        Callers press what they were told to: it is neither a wish nor a reason to stop the agent.
        """
        late, self._late_terminator = self._late_terminator, None
        return late is not None and key == late[0] and now_ms <= late[1]

    def on_key(self, key: str, now_ms: int) -> Sequence[Wanted]:
        """Give a key to whoever it is for."""
        self.used = True
        if self._entry is not None:
            collection = self._entry.collection
            ended = key == collection.request.terminator  # by the caller, who is done then
            return self._collected(collection.on_key(key, now_ms), now_ms, ended=ended)
        if self._consents:
            return self._on_consent_key(key, now_ms)
        if self._menu is not None:
            return self._in_menu(self._menu.on_key(key), now_ms)
        keypad = self._keypads.get(self._dialogue.active.agent.name)
        action = None if keypad is None else keypad.on_key(key)
        if action is None:
            return self._dialogue.type_in(f"[keypad] {key}", now_ms, quiet=True)
        return self._act(action, now_ms)

    def _act(self, action: menu.KeyAction, now_ms: int) -> Sequence[Wanted]:
        dialogue = self._dialogue
        match action:
            case menu.Say(text):
                return dialogue.say(text, now_ms)
            case menu.Transfer(destination):
                return [TransferCall(destination)]
            case menu.ToAgent(name):
                changed = dialogue.change_agent(dialogue.active.roster[name], now_ms)
                spoken = self.open_menu(now_ms)
                return [*changed, *(self._ask(now_ms) if spoken is None else spoken)]
            case menu.HangUp(text):
                return [ClosingPrompt(EndReason.AGENT_HUNG_UP, text or "", "keypad")]
            case menu.Repeat():
                return self._repeat(now_ms)
            case _:
                assert_never(action)

    def _repeat(self, now_ms: int) -> Sequence[Wanted]:
        said = [line.text for line in self._agent_lines() if line.text]
        text = said[-1] if said else self._dialogue.active.greeting
        return self._dialogue.say(text, now_ms) if text else self._ask(now_ms)

    def _ask(self, now_ms: int) -> Sequence[Wanted]:
        return self._dialogue.responses.ask(now_ms)

    # Consent ------------------------------------------------------------------------------------

    def on_consent_wanted(self, tool_call_id: str, prompt: str, now_ms: int) -> Sequence[Wanted]:
        """A tool needs the caller's consent: one is asked for at a time, and a key answers."""
        self._consents[tool_call_id] = _Consent(prompt)
        return self._ask_consent(now_ms) if len(self._consents) == 1 else []

    def ask_again(self, now_ms: int) -> Sequence[Wanted]:
        """The model was lost over its words: a question that is open may be half heard."""
        return self._ask_consent(now_ms) if self._consents else []

    def _ask_consent(self, now_ms: int) -> Sequence[Wanted]:
        consent = next(iter(self._consents.values()))
        consent.before = frozenset(line.item_id for line in self._agent_lines())
        self._dialogue.responses.withdraw(
            consent.prompt
        )  # once is enough, however often a key was pressed
        return self._dialogue.say(consent.prompt, now_ms)

    def _on_consent_key(self, key: str, now_ms: int) -> Sequence[Wanted]:
        tool_call_id, consent = next(iter(self._consents.items()))
        # A key that comes before any of the question was heard was meant for something else.
        heard = any(
            line.heard_ms and line.item_id not in consent.before and _asks(line, consent.prompt)
            for line in self._agent_lines()
        )
        if key not in ("1", "2") or not heard:
            return self._ask_consent(now_ms)
        decided = Decide(tool_call_id, approved=key == "1")
        return [decided, *self._ask_next_consent(tool_call_id, now_ms)]

    def _ask_next_consent(self, settled: str, now_ms: int) -> Sequence[Wanted]:
        """Go on to the tool behind the one that is settled, where the caller was asked for that."""
        first = next(iter(self._consents), None)
        consent = self._consents.pop(settled, None)
        if consent is not None:
            self._dialogue.responses.withdraw(consent.prompt)
        return self._ask_consent(now_ms) if self._consents and first == settled else []

    def _agent_lines(self) -> list[Entry]:
        return [line for line in self._dialogue.transcript.messages() if line.party is Party.AGENT]

    def on_tool_done(self, tool_call_id: str, now_ms: int) -> Sequence[Wanted]:
        """A tool has its answer: nobody's consent is needed for it any more."""
        return self._ask_next_consent(tool_call_id, now_ms)

    # Tools --------------------------------------------------------------------------------------

    def run(self, run: RunTool, now_ms: int, *, spoken: bool) -> Sequence[Wanted]:
        """Run a tool of ours; `spoken`: the agent has said something along with it."""
        try:
            arguments = read_call_tool(run.name, run.arguments)
            match run.name:
                case name if name == COLLECT_DIGITS:
                    return self._collect(run, arguments, now_ms)
                case name if name == HOLD:
                    return self._hold(run, arguments, now_ms)
                case _:
                    return self._take_message(run, arguments, now_ms, spoken=spoken)
        except AppError as error:
            return [
                self.ran(run, now_ms, now_ms, error=error.code),
                *self._dialogue.function_calls.on_tool_done(
                    run.tool_call_id, refused_call_tool(error), now_ms
                ),
            ]

    def ran(self, run: RunTool, since_ms: int, now_ms: int, *, error: str = "") -> Record:
        """What is told of a tool that has its answer."""
        event = ToolRan(
            call_id=self._call_id,
            at_ms=now_ms,
            name=run.name,
            duration_ms=now_ms - since_ms,
            error=error,
        )
        return Record(event)

    def _collect(self, run: RunTool, arguments: Mapping[str, Any], now_ms: int) -> Sequence[Wanted]:
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

    def _hold(self, run: RunTool, arguments: Mapping[str, Any], now_ms: int) -> Sequence[Wanted]:
        self._timers.hold(1_000 * arguments.get("seconds", HOLD_S), now_ms)
        phrase = arguments.get("phrase", "").strip()
        said = self._dialogue.say(phrase, now_ms) if phrase else []
        note = "You wait now. The caller speaks first."
        return [*said, *self._answer(run, now_ms, {"ok": True, "note": note}, now_ms, reply=False)]

    def _take_message(
        self, run: RunTool, arguments: Mapping[str, Any], now_ms: int, *, spoken: bool
    ) -> Sequence[Wanted]:
        if not self._dialogue.active.agent.transcribed:
            raise ToolArgsInvalid("What the caller says is not written down in this call.")
        before = self._keep_message(now_ms)
        self._message = _Message(arguments.get("recipient", ""))
        note = "What the caller says next is kept. Ask for it now if you have not yet."
        answer = {"ok": True, "note": note}
        return [*before, *self._answer(run, now_ms, answer, now_ms, reply=not spoken)]

    def _keep_message(self, now_ms: int) -> list[Record]:
        """The caller has said all of it, if they have said anything."""
        message = self._message
        if message is None or not message.texts:
            return []
        self._message = None
        event = MessageTaken(
            call_id=self._call_id,
            at_ms=now_ms,
            item_id=message.item_id,
            recipient=message.recipient,
            text=" ".join(message.texts),
        )
        return [Record(event)]

    def _answer(
        self,
        run: RunTool,
        since_ms: int,
        output: Mapping[str, Any],
        now_ms: int,
        *,
        reply: bool = True,
    ) -> Sequence[Wanted]:
        text = json.dumps(dict(output), ensure_ascii=False)
        done = self._dialogue.function_calls.on_tool_done(
            run.tool_call_id, text, now_ms, reply=reply
        )
        return [self.ran(run, since_ms, now_ms), *done]

    # What happens -------------------------------------------------------------------------------

    def on_caller_words(self, item_id: str, text: str, now_ms: int) -> Sequence[Wanted]:
        """The caller has spoken: a message, or words in place of digits."""
        if not meaningful_words(text):
            return []
        wanted: list[Wanted] = []
        self._menu = None  # who talks is talked with; the keys do what they did
        # Who speaks while they key goes on keying: the rest of a PIN would be read by everybody.
        if self._entry is not None and not self._entry.collection.begun:
            wanted += self._collected(self._entry.collection.cancel(), now_ms, ended=True)
        if self._message is not None:
            self._message.item_id = self._message.item_id or item_id
            self._message.texts.append(text)
            self._message.answered_ms = None
        return wanted

    def on_tick(self, now_ms: int, *, heard_out: bool) -> Sequence[Wanted]:
        """Time for digits runs from when the caller has heard what to enter.

        A message ends where the caller has heard the answer to it and says no more, and all that
        they have said is written down.
        """
        waits = not heard_out or self._unwritten(now_ms)
        kept = [] if waits else self._keep_message(now_ms)
        return [*kept, *self._on_tick(now_ms, heard_out=heard_out)]

    def _unwritten(self, now_ms: int) -> bool:
        """The message was answered, and words of it may still be on their way."""
        message = self._message
        if message is None:  # asked at every tick of every call: before the transcript is copied
            return False
        lines = self._dialogue.transcript.messages()
        if all(line.text_final for line in lines if line.party is Party.CALLER):
            return False
        if message.answered_ms is None:
            message.answered_ms = now_ms
        return now_ms - message.answered_ms < LATE_WORDS_MS

    def on_call_over(self, now_ms: int) -> list[Record]:
        """Who hangs up behind a message has left it all the same."""
        return self._keep_message(now_ms)

    def _on_tick(self, now_ms: int, *, heard_out: bool) -> Sequence[Wanted]:
        entry = self._entry
        if self._menu is not None and entry is None and heard_out:
            self._menu.on_heard(now_ms)
            return self._in_menu(self._menu.on_tick(now_ms), now_ms)
        if entry is None:
            return []
        if heard_out and not entry.started:
            entry.started = True
            entry.collection.start(now_ms)
        return self._collected(entry.collection.on_tick(now_ms), now_ms)

    def _collected(
        self, collected: Collected | None, now_ms: int, *, ended: bool = False
    ) -> Sequence[Wanted]:
        """Give out a finished entry; `ended`: the caller knows that it is."""
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
        # Who speaks is answered for what they say.
        reply = collected.end is not CollectionEnd.CANCELLED
        return self._answer(entry.run, entry.since_ms, output, now_ms, reply=reply)


def _asks(line: Entry, prompt: str) -> bool:
    """Whether a line is a question of ours; some servers do not say what they were asked to say."""
    opening, said = prompt.partition(":")[0].casefold(), line.text.strip().casefold()
    return line.sentence == prompt or (
        bool(said) and (said.startswith(opening) or opening.startswith(said))
    )
