"""A goodbye on its way: nothing hangs up before the caller has heard it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.agents.dialogue.actions import DialogueAction, RunTool, ToVoice
from app.agents.dialogue.dialogue import Dialogue
from app.calls.actions import UNHEARD, ClosingPrompt, End
from app.calls.conversation.call_tools import CallTools
from app.events import EndReason

__all__ = ["Goodbye"]


PLAYING_FACTOR: Final = 4
"""A goodbye that is being heard may take its time, but not for ever."""


class Goodbye:
    """The reason why a call is about to end, and how far its last words are."""

    def __init__(self, dialogue: Dialogue, tools: CallTools) -> None:
        self._dialogue = dialogue
        self._tools = tools
        self._closing: ClosingPrompt | None = None
        self._since_ms = 0
        self._requested = False
        self._spoken = False
        self._given_up: tuple[ClosingPrompt, bool, bool] | None = None

    @property
    def begun(self) -> bool:
        """The call is about to end."""
        return self._closing is not None

    @property
    def unspoken(self) -> bool:
        """The last words are still to be generated."""
        return self.begun and not self._spoken

    @property
    def said(self) -> bool:
        """The last words were generated: nothing comes after them."""
        return self.begun and self._spoken

    def begin(self, closing: ClosingPrompt, now_ms: int) -> None:
        """Prepare to end the call."""
        self._closing = closing
        self._since_ms = now_ms

    def say(self, now_ms: int) -> list[ToVoice]:
        """Have the closing prompt said; once more on a fresh connection."""
        self._requested = True
        return [] if self._closing is None else self._dialogue.say_last(self._closing.text, now_ms)

    def on_end_call(
        self, run: RunTool, detail: str, now_ms: int, *, spoken: bool
    ) -> Sequence[DialogueAction]:
        """The model hangs up, in its own words: `spoken` when they came along with the call."""
        self.begin(ClosingPrompt(EndReason.AGENT_HUNG_UP, "", detail), now_ms)
        self._requested, self._spoken = True, spoken
        output = {"ok": True, "note": "Say goodbye now if you have not yet."}
        return self._tools.answer(run, output, now_ms, reply=not spoken)

    @property
    def in_own_words(self) -> bool:
        """The model was left to find the last words."""
        return self._closing is not None and not self._closing.text

    def on_response_done(self) -> None:
        """The model has said all that it was asked for."""
        self._spoken = self._spoken or self._requested

    def on_caller_acted(self) -> None:
        """The caller pressed a key, or was transferred: the goodbye is off, for good."""
        self.on_caller_speech()
        self._given_up = None

    def on_caller_speech(self) -> None:
        """The caller has more to say: the agent does not hang up on them."""
        self._given_up = None
        closing = self._closing
        if closing is None:
            return
        # A caller who was silent is there after all; hold music (its detail says so) always speaks.
        silent = closing.reason is EndReason.SILENCE and not closing.detail
        if closing.reason is EndReason.AGENT_HUNG_UP or silent:
            self._given_up = (closing, self._requested, self._spoken)
            self._closing = None
            self._requested = self._spoken = False

    def on_false_interruption(self, now_ms: int) -> None:
        """It was not speech: the goodbye goes on, and has its time again."""
        if self._given_up is not None and self._closing is None:
            self._closing, self._requested, self._spoken = self._given_up
            self._since_ms = now_ms
        self._given_up = None

    def on_heard_out(self) -> list[End]:
        """The caller has heard everything: the call ends, if the goodbye was a part of it."""
        if self._closing is None or not self._spoken:
            return []
        return [End(self._closing.reason, self._closing.detail)]

    def instead_of(self, end: End) -> End:
        """The end of a call that hears nothing more: by the goodbye's own reason, once begun."""
        return end if self._closing is None else End(self._closing.reason, UNHEARD)

    def on_tick(self, now_ms: int, max_ms: int, *, playing: bool) -> list[End]:
        """End the call when its goodbye takes too long."""
        if self._closing is None:
            return []
        if now_ms - self._since_ms < max_ms * (PLAYING_FACTOR if playing else 1):
            return []
        detail = "goodbye_timeout" if playing or self._spoken else UNHEARD
        return [End(self._closing.reason, detail)]
