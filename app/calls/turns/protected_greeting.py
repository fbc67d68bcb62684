"""First words that nothing may interrupt, and callers who speak over them. Pure."""

from __future__ import annotations

from collections.abc import Callable

from app.agents.dialogue.actions import ToVoice
from app.agents.dialogue.active_agent import ActiveAgent
from app.events import Party

__all__ = ["ProtectedGreeting"]


class ProtectedGreeting:
    """Keeps the caller's speech from interrupting, until the first words were heard or stopped."""

    def __init__(self, active: ActiveAgent, *, notice: bool = False) -> None:
        """`notice`: the first words are, or begin with, one that the caller has to hear."""
        self._active = active
        agent = active.agent
        protected = not agent.interruptible_greeting and agent.speaks_first is Party.AGENT
        self.protects = protected or notice
        """Nothing may interrupt the agent now."""
        self.double_talk = False
        """The caller speaks over the greeting."""
        self.required: Callable[[], bool] = lambda: False
        """True while words that the caller has to hear are not heard: until then, no lifting."""
        active.uninterrupted = self.protects

    def on_speech_started(self) -> bool:
        """The caller begins to speak; True when that interrupts nothing."""
        if self.protects:
            self.double_talk = True
        return self.protects

    def on_speech_stopped(self) -> bool:
        """The caller has spoken; True when that took no turn."""
        if self.protects:
            self.double_talk = False
        return self.protects

    def lift(self) -> list[ToVoice]:
        """The first words are over: from here on the caller may interrupt."""
        if not self.protects or self.required():
            return []
        self.protects = False
        update = self._active.let_interrupt()
        return [] if update is None else [update]

    def take_double_talk(self) -> bool:
        """True once, for a caller who goes on speaking when the greeting is over."""
        goes_on = self.double_talk and not self.protects
        if goes_on:
            self.double_talk = False
        return goes_on

    def on_voice_lost(self) -> None:
        """The next session is opened as one that may be interrupted."""
        self.lift()
        self.double_talk = False  # nobody will hear the end of this caller's speech
