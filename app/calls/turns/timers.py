"""The timers of a call: inactivity, unproductive turns, the longest call, and holding.

It gathers the small machines of `app.calls.turns.inactivity` behind one clock and one question:
what is to be said into this moment, if anything? Saying it, and hanging up, are the conversation's
part. Pure.
"""

from __future__ import annotations

from typing import Final

from app.calls.actions import ClosingPrompt
from app.calls.policy import CallPolicy, InactivityTexts
from app.calls.turns.inactivity import ENDLESS_TURN, InactivityPrompts, Productivity, Prompt
from app.calls.turns.meaningful_words import meaningful_words
from app.calls.turns.turn_table import Turn
from app.events import EndReason

__all__ = ["CallTimers"]


_MINUTE_MS: Final = 60_000


class CallTimers:
    """The clocks of one call, which run while its caller is on a stream."""

    def __init__(self, policy: CallPolicy) -> None:
        self._policy = policy
        self._inactivity = _inactivity(policy)
        self._productivity = Productivity(policy.productivity)
        self._began_ms: int | None = None
        self.present = False
        """The caller is on a stream."""
        self._warned = False
        self._hold_until_ms: int | None = None
        self._costs: list[tuple[int, float]] = []  # of the last minute

    def begin(self, now_ms: int) -> None:
        """The caller is on a stream, for the first time or again: the clocks run."""
        self.present = True
        if self._began_ms is None:
            self._began_ms = now_ms

    def leave(self) -> None:
        """The caller was taken off the stream: nobody is there to be asked anything."""
        self.present = False

    # Events ---------------------------------------------------------------------------------------

    def on_state(self, turn: Turn, now_ms: int, *, drained: bool, busy: bool) -> None:
        """Say how things stand when they change; `busy`: a caller who is silent waits for us."""
        paused = busy or not self.present or self.on_hold(now_ms)
        self._inactivity.on_state(turn, now_ms, drained=drained, paused=paused)
        taken = turn is Turn.CALLER and not self.on_hold(now_ms)
        self._productivity.on_floor(now_ms, taken=taken)

    def on_caller_words(self, transcript: str, now_ms: int) -> None:
        """The caller's turn was transcribed; empty when it was not speech."""
        self._inactivity.on_caller_words(transcript, now_ms)
        if self.on_hold(now_ms) and not meaningful_words(transcript):
            return  # a caller who looks for something makes noises
        self._productivity.on_caller_turn(transcript, now_ms)
        if not self._productivity.unproductive_turns:
            self._hold_until_ms = None

    def on_caller_acted(self, now_ms: int) -> None:
        """The caller pressed a key, or spoke in a call without transcripts: somebody is there."""
        self._inactivity.on_key(now_ms)
        self._productivity.on_caller_acted()
        self._hold_until_ms = None

    # Holding ------------------------------------------------------------------------------------

    def hold(self, for_ms: int, now_ms: int) -> None:
        """Leave the caller alone until they speak or press a key, but not for ever."""
        self._hold_until_ms = now_ms + for_ms

    def on_hold(self, now_ms: int) -> bool:
        """The caller has asked for the silence."""
        return self._hold_until_ms is not None and now_ms < self._hold_until_ms

    # Prompts --------------------------------------------------------------------------------------

    def on_tick(self, now_ms: int, *, busy: bool) -> Prompt | ClosingPrompt | None:
        """Return what is due. `busy` as in `on_state`."""
        if self._began_ms is None or not self.present:
            return None
        policy = self._policy
        lasted_ms = now_ms - self._began_ms
        limit_ms, warning_ms = policy.max_duration_ms, policy.duration_warning_ms
        if limit_ms and lasted_ms >= limit_ms:
            return ClosingPrompt(EndReason.MAX_DURATION, policy.closing_prompt)
        exhausted = "" if busy or self.on_hold(now_ms) else self._productivity.exhausted(now_ms)
        if exhausted:
            # While there is a sound we could not be heard, and music waits for no goodbye.
            text = "" if exhausted == ENDLESS_TURN else policy.silence_closing_prompt
            return ClosingPrompt(EndReason.SILENCE, text, exhausted)
        # A limit that is shorter than its warning needs none: it would be the first words.
        due = 0 < warning_ms < limit_ms and lasted_ms >= limit_ms - warning_ms
        if due and (warning := self.last_minute()):
            return warning
        return self._inactivity.on_tick(now_ms)

    def on_cost(self, cost_usd: float, now_ms: int) -> Prompt | ClosingPrompt | None:
        """Return what is due to a call that has cost so much; ask every second or so.

        The warning comes when another minute like the last one would reach the limit.
        """
        most_usd = self._policy.max_cost_usd
        if not most_usd or not self.present:
            return None
        if cost_usd >= most_usd:
            return ClosingPrompt(EndReason.MAX_COST, self._policy.closing_prompt)
        costs = self._costs
        costs.append((now_ms, cost_usd))
        while now_ms - costs[0][0] > _MINUTE_MS:
            del costs[0]
        since_ms, before_usd = costs[0]
        if now_ms - since_ms < _MINUTE_MS // 4:
            return None  # too little is known of its pace
        a_minute_usd = (cost_usd - before_usd) * _MINUTE_MS / (now_ms - since_ms)
        return self.last_minute() if cost_usd + a_minute_usd >= most_usd else None

    def last_minute(self) -> Prompt | None:
        """Return the warning that the call will be over soon; only once, whatever ends it."""
        if self._warned or not self.present or not self._policy.duration_warning_ms:
            return None
        self._warned = True
        return Prompt(self._policy.duration_warning)


def _inactivity(policy: CallPolicy) -> InactivityPrompts:
    """Questions where the policy has them; else only the closing prompt, after one long silence."""
    texts, after_ms = policy.inactivity_texts, policy.inactivity_after_ms
    if after_ms and texts.prompts and not 0 < policy.silence_ms <= after_ms:
        return InactivityPrompts(texts, after_ms=after_ms)
    alone = InactivityTexts(prompts=(), closing_prompt=policy.silence_closing_prompt)
    return InactivityPrompts(alone, after_ms=policy.silence_ms)
