"""The inputs of a session that await an answer: caller turns, typed text, tool output.

Pure. A response takes the open prompts, in order; the responder answers each. Caller turns become
answerable when they have been heard, typed text and tool output at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from app.engine.base import Heard, Reply, Responder

__all__ = [
    "SURE_SPEECH_MS",
    "UNCLEAR",
    "CallerTurn",
    "Prompt",
    "Prompts",
    "ToolOutput",
    "TypedText",
    "answer",
    "surely_worth_an_answer",
]


MAX_OPEN: Final = 100
"""Bounds a client that never asks for an answer."""
UNCLEAR: Final = Heard(transcript="[unclear]")
"""Stands for a turn that has to be answered although no word of it is known."""
SURE_SPEECH_MS: Final = 500
"""Speech that is hardly a cough or a click, although no word of it is known yet."""


@dataclass(slots=True, kw_only=True)
class CallerTurn:
    """A committed turn. `heard` is `None` while the recognizer works on it.

    `replies`: the session itself asks for a reply once it is heard (`create_response`).
    `never_empty`: worth an answer even when no word was understood: a recorded message, a silence
    that lasted too long, a turn that the recognizer failed on, or whose caller was told to wait.
    `is_message`: its audio is to be kept, and `kept` is `None` until it was, or could not be.
    `speech_ms` is `audio_ms` without the silence around what was said.
    """

    item_id: str
    audio_ms: int
    replies: bool
    speech_ms: int = 0
    never_empty: bool = False
    is_message: bool = False
    heard: Heard | None = None
    kept: bool | None = None

    @property
    def ready(self) -> bool:
        """All that an answer depends on is known."""
        return self.heard is not None and not (self.is_message and self.kept is None)

    @property
    def is_empty(self) -> bool:
        """Heard, and nothing was said: a noise must not make the agent talk."""
        heard = self.heard
        if heard is None or self.never_empty or heard.transcript.strip():
            return False
        return not any(heard.intents.values())


@dataclass(slots=True)
class TypedText:
    """A user message in text; `[keypad] 5` is a key. `kept` is `None` while it is being kept."""

    item_id: str
    text: str
    kept: bool | None = False

    @property
    def ready(self) -> bool:
        """All that an answer depends on is known."""
        return self.kept is not None


@dataclass(frozen=True, slots=True)
class ToolOutput:
    """The result of a function that the engine called."""

    item_id: str
    name: str
    output: str

    @property
    def ready(self) -> bool:
        """All that an answer depends on is known."""
        return True


Prompt = CallerTurn | TypedText | ToolOutput


class Prompts:
    """Open prompts in conversation order, and those still being heard or kept."""

    def __init__(self) -> None:
        self._open: list[Prompt] = []
        self._hearing: dict[str, CallerTurn] = {}
        self._keeping: dict[str, CallerTurn | TypedText] = {}

    def add(self, prompt: Prompt) -> None:
        """Put a new prompt behind the others."""
        self._open.append(prompt)
        del self._open[:-MAX_OPEN]
        if isinstance(prompt, CallerTurn) and prompt.heard is None:
            self._hearing[prompt.item_id] = prompt
        if not isinstance(prompt, ToolOutput) and prompt.kept is None and not _no_message(prompt):
            self._keeping[prompt.item_id] = prompt

    def kept(self, item_id: str, kept: bool) -> None:
        """Note whether a message was kept."""
        prompt = self._keeping.pop(item_id, None)
        if prompt is not None:
            prompt.kept = kept

    def heard(self, item_id: str, heard: Heard | None) -> CallerTurn | None:
        """Note a recognized turn (`None`: it failed); return None when that was known already.

        An empty turn is dropped. A failed one stays, since the caller did speak.
        """
        turn = self._hearing.pop(item_id, None)
        if turn is not None:
            turn.never_empty = turn.never_empty or heard is None
            turn.heard = heard or Heard(transcript="")
            if turn.is_empty:
                self.drop(item_id)
        return turn

    def drop(self, item_id: str) -> None:
        """Forget the prompt of an item that is gone or empty. Its recognition goes on."""
        self._open = [prompt for prompt in self._open if prompt.item_id != item_id]

    def answered(self) -> None:
        """Forget text and tool output so far: a replayed conversation has answered them."""
        self._open = [prompt for prompt in self._open if isinstance(prompt, CallerTurn)]

    def take(self) -> list[Prompt]:
        """All open prompts, for the response that will answer them."""
        taken, self._open = self._open, []
        return taken

    def put_back(self, prompts: Iterable[Prompt]) -> None:
        """Restore prompts whose response was interrupted before it answered them."""
        self._open[:0] = [p for p in prompts if not (isinstance(p, CallerTurn) and p.is_empty)]

    @property
    def being_heard(self) -> bool:
        """The recognizer still works on a turn, or a message is being kept."""
        return bool(self._hearing or self._keeping)

    @property
    def call_for_reply(self) -> bool:
        """A heard turn asks for a reply by itself, and nothing before it is still awaited."""
        return self._turn_replies and all(p.ready for p in self._open)

    @property
    def will_call_for_reply(self) -> bool:
        """As `call_for_reply`, as soon as turns that surely are speech have been heard."""
        return self._turn_replies and surely_worth_an_answer(self._open)

    @property
    def _turn_replies(self) -> bool:
        return any(turn.replies for turn in self._open if isinstance(turn, CallerTurn))


def surely_worth_an_answer(prompts: Iterable[Prompt]) -> bool:
    """True if what is still being heard of these is too long to be a noise."""
    return all(
        prompt.ready or (isinstance(prompt, CallerTurn) and prompt.speech_ms >= SURE_SPEECH_MS)
        for prompt in prompts
    )


def answer(responder: Responder, prompts: Iterable[Prompt]) -> Reply:
    """The responder's answers to these prompts as one reply.

    A message that was spoken in several turns is answered once, and not at all where the caller
    has gone on to something else by a key.
    """
    replies: list[Reply] = []
    message: Reply | None = None
    for prompt in prompts:
        match prompt:
            case CallerTurn(is_message=True) if not responder.keeps_audio:
                if message is None:  # the rest of one that has been answered
                    replies.append(responder.hear(UNCLEAR))
            case CallerTurn(is_message=True, kept=False):
                replies.append(responder.not_kept())
                message = replies[-1]
            case CallerTurn(heard=heard):
                understood = heard is not None and heard.transcript.strip()
                replies.append(responder.hear(heard if heard and understood else UNCLEAR))
                message = replies[-1] if prompt.is_message else message
            case TypedText(text=text):
                if message is not None and replies[-1] is message:
                    replies[-1] = Reply(tools=message.tools)
                lost = not prompt.kept and responder.keeps_audio and responder.is_message(text)
                replies.append(responder.not_kept() if lost else responder.read(text))
            case ToolOutput(name=name, output=output):
                replies.append(responder.tool_result(name, output))
    return Reply(
        text=" ".join(reply.text for reply in replies if reply.text),
        tools=tuple(tool for reply in replies for tool in reply.tools),
    )


def _no_message(prompt: CallerTurn | TypedText) -> bool:
    return isinstance(prompt, CallerTurn) and not prompt.is_message
