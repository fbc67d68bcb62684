"""What a call does of itself: speaks, stops, runs tools, says goodbye, gives the floor on.

The half of a `Conversation` that acts: it holds the parts of the mind and turns wishes into
actions. What happens to a call - the phone's events, the model's, and time - comes in at
`app.calls.conversation`. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from app.agents.actions import CheckGuardrail, Interrupt, RunTool
from app.agents.agent import Agent
from app.agents.book import AgentBook
from app.agents.call_tools import (
    CALL_TOOLS,
    END_CALL,
    read_call_tool,
    refused_call_tool,
    too_early,
)
from app.agents.dialogue import Dialogue
from app.agents.guardrails import Judgement
from app.agents.instructions import CallFacts
from app.agents.words import SayMode, SayWhen
from app.calls.actions import Action, End
from app.calls.ending import Ending
from app.calls.handset import Handset, Wanted
from app.calls.manners import Farewell, Manners
from app.calls.menu import KeypadMap
from app.calls.policy import CallPolicy
from app.calls.ringback import Ringback
from app.calls.speech import Speech
from app.calls.stopwatch import Stopwatch
from app.calls.turns import Turn, TurnEvent, Turns
from app.calls.uplink import Uplink
from app.calls.voice_link import VoiceLink
from app.errors import ToolError
from app.events import CallCounters, CallId, EndReason, Party
from audio.format import PCMU_8K, AudioFormat

__all__ = ["Exchange"]

GO_ON: Final = (
    "A noise on the line stopped you in the middle of a sentence; the caller said nothing. Go on "
    "exactly where you stopped, and do not begin anew."
)


class Exchange:
    """The parts of one call's mind, and what they do together."""

    def __init__(
        self,
        call_id: CallId,
        agent: Agent,
        policy: CallPolicy,
        now_ms: int,
        *,
        book: AgentBook | None = None,
        facts: CallFacts | None = None,
        keypads: Mapping[str, KeypadMap] | None = None,
    ) -> None:
        self.call_id = call_id
        self.policy = policy
        self.counters = CallCounters()
        self.dialogue = Dialogue(agent, call_id, self.counters, book=book, facts=facts)
        self.turns = Turns(now_ms)
        self.stopwatch = Stopwatch()
        self._carrier_format: AudioFormat = PCMU_8K
        self._input_format = agent.input_format
        self._output_format = agent.output_format
        self._uplink = Uplink(self._carrier_format, self._input_format, self.counters)
        self._speech = Speech(call_id, self.dialogue, self.counters, policy, self._carrier_format)
        self._manners = Manners(policy)
        self._ending = Ending()
        self._connection = VoiceLink(now_ms)
        # First words that nothing may interrupt; and whether the caller speaks over them now.
        self._protected = not agent.interruptible_greeting and agent.speaks_first is Party.AGENT
        self._spoken_over = False
        self.interjections = 0  # how often the caller took the floor; a cough does not count
        self.dialogue.cast.uninterrupted = self._protected
        self._ringback = Ringback()
        self._ringing = False
        self._handset = Handset(call_id, self.dialogue, self._manners, keypads or {})

    # The floor ----------------------------------------------------------------------------------

    def heard_out(self, now_ms: int) -> bool:
        """Nothing of the agent is playing or on its way."""
        return (
            self._speech.playout.drained(now_ms) and self.dialogue.gate.active_response_id is None
        )

    @property
    def undecided(self) -> bool:
        """A sound has cut the agent off, and nobody knows yet whether it was the caller."""
        return self._speech.resumption.open

    def quiet(self) -> bool:
        """Nobody speaks and nothing is on its way: a moment to change connections."""
        free = not self.dialogue.gate.busy and not self._speech.resumption.open
        return free and self.turns.turn is Turn.IDLE

    def _owed(self, now_ms: int) -> bool:
        return self.dialogue.gate.busy or self.dialogue.tools_running

    @property
    def _busy(self) -> bool:
        """Whether a caller who waits in silence waits for us."""
        return (
            self.dialogue.gate.busy
            or self.dialogue.tools_running
            or self._handset.waiting
            or self._speech.resumption.open
            or self._ringing
            or not self._connection.ready
        )

    def _note_state(self, now_ms: int) -> None:
        drained = self._speech.playout.drained(now_ms)
        self._manners.on_state(self.turns.turn, now_ms, drained=drained, busy=self._busy)

    def _turn(self, event: TurnEvent, now_ms: int) -> None:
        if not self.turns.on_event(event, now_ms):
            self.counters.protocol_surprises += 1
        self._note_state(now_ms)

    # Speaking -----------------------------------------------------------------------------------

    def _after_playing(self, now_ms: int) -> list[Action]:
        """Something more was heard: settle items, and give the floor back when all is."""
        actions = self._speech.settle(now_ms)
        if self._speech.items_over:
            actions += self._unprotect()
        if self.heard_out(now_ms):
            if self.turns.turn is Turn.AGENT:
                self._turn(TurnEvent.DRAINED, now_ms)
            if self._ending.reason is not None and self._ending.said:
                actions.append(End(self._ending.reason, self._ending.detail))
            elif self._speech.resumption.unfinished and not self._speech.resumption.open:
                self._speech.resumption.unfinished = False
                actions += self._carry(self.dialogue.prompt(GO_ON, now_ms), now_ms)
        if self._spoken_over and not self._protected:
            self._spoken_over = False
            self.interjections += 1
            self._turn(TurnEvent.SPEECH_STARTED, now_ms)  # which they did long ago
        return [*self.dialogue.lines(now_ms), *actions]

    def _unprotect(self) -> list[Action]:
        """The first words are over: from here on the caller may interrupt."""
        if not self._protected:
            return []
        self._protected = False
        update = self.dialogue.cast.let_interrupt()
        return [] if update is None else [update]

    def _interrupt(self, now_ms: int) -> list[Action]:
        """Stop the agent for a reason that is no sound: a key, words of our own."""
        return self._speech.interrupt(now_ms, server_cancels=False) + self._unprotect()

    def _silence_agent(self, now_ms: int) -> list[Action]:
        """Stop the agent for a reason of ours; its response has been dropped already."""
        actions = self._speech.silence(now_ms) + self._unprotect()
        if self.turns.turn is Turn.AGENT:
            self._turn(TurnEvent.DRAINED, now_ms)
        return actions

    # Tools --------------------------------------------------------------------------------------

    def on_tool_done(
        self, tool_call_id: str, output: str, now_ms: int, *, reply: bool = True
    ) -> list[Action]:
        """A tool answered: the model hears of it, and speaks when all of its tools have."""
        asked = self._handset.on_tool_done(tool_call_id, now_ms)
        reply = reply or self._connection.owes_reply
        done = self.dialogue.on_tool_done(tool_call_id, output, now_ms, reply=reply)
        actions = self._carry([*asked, *done], now_ms)
        if self.turns.turn is Turn.THINKING and not self._owed(now_ms):
            self._turn(TurnEvent.NO_REPLY, now_ms)  # a tool that has nothing to say
        return actions

    def on_tool_slow(self, tool_call_id: str, filler: str, now_ms: int) -> list[Action]:
        """A tool takes its time: say so to a caller who waits in silence."""
        listens = self._manners.present and self._speech.playout.drained(now_ms)
        if self.turns.turn is Turn.CALLER or not listens:
            return []
        return self._carry(self.dialogue.on_tool_slow(tool_call_id, filler, now_ms), now_ms)

    def on_consent_wanted(self, tool_call_id: str, prompt: str, now_ms: int) -> list[Action]:
        """A tool needs the caller's consent by keypad: the next key counts."""
        wanted = self._handset.on_consent_wanted(tool_call_id, prompt, now_ms)
        return self._carry(wanted, now_ms)

    def on_judgement(
        self, check: CheckGuardrail, judgement: Judgement, now_ms: int
    ) -> list[Action]:
        """The guardrails have looked at something that was said."""
        return self._carry(self.dialogue.on_judgement(check, judgement, now_ms), now_ms)

    def say(self, text: str, now_ms: int, *, mode: SayMode, when: SayWhen) -> list[Action]:
        """Have something said that neither side has asked for."""
        return self._carry(self.dialogue.say(text, now_ms, mode=mode, when=when), now_ms)

    def _runs_here(self, run: RunTool) -> bool:
        """Tools of the phone side; a model that names one it was not given gets no such tool."""
        return run.name == END_CALL or (
            run.name in CALL_TOOLS and self.dialogue.agent.has_session_tool(run.name)
        )

    def _run_tool(self, run: RunTool, now_ms: int) -> list[Action]:
        if run.name == END_CALL:
            return self._end_call(run, now_ms)
        spoken = self.turns.turn is Turn.AGENT
        actions = self._carry(self._handset.run(run, now_ms, spoken=spoken), now_ms)
        if self.turns.turn is Turn.THINKING and not self._owed(now_ms):
            self._turn(TurnEvent.NO_REPLY, now_ms)
        return actions

    def _end_call(self, run: RunTool, now_ms: int) -> list[Action]:
        """The model wants to hang up: once the goodbye is heard, unless the caller speaks."""
        try:
            if not (self.counters.turns or self._handset.used):
                raise too_early()
            reason = read_call_tool(END_CALL, run.arguments)["reason"]
        except ToolError as error:
            refused = self.on_tool_done(run.tool_call_id, refused_call_tool(error), now_ms)
            return [self._handset.ran(run, now_ms, now_ms, error=error.code), *refused]
        spoken = self.turns.turn is Turn.AGENT
        self._ending.begin(EndReason.AGENT_HUNG_UP, reason, now_ms)
        self._ending.said = spoken
        output = json.dumps({"ok": True, "note": "Say goodbye now if you have not yet."})
        self._ending.asked = True
        done = self.on_tool_done(run.tool_call_id, output, now_ms, reply=not spoken)
        return [self._handset.ran(run, now_ms, now_ms), *done]

    # Endings ------------------------------------------------------------------------------------

    def farewell(self, reason: EndReason, text: str, now_ms: int, detail: str = "") -> list[Action]:
        """Say goodbye for us, and end the call when it was heard (or cannot be)."""
        if self._ending.reason is not None:
            return []
        self._ending.begin(reason, detail, now_ms)
        if not self._connection.ready or self.stopwatch.stream_ms is None:
            return [End(reason, detail)]
        if not text:
            return [*self._interrupt(now_ms), End(reason, detail)]
        self._ending.text = text
        return self._interrupt(now_ms) + self._say_farewell(now_ms)

    def _say_farewell(self, now_ms: int) -> list[Action]:
        self._ending.asked = True
        return self._carry(self.dialogue.say_last(self._ending.text, now_ms), now_ms)

    # Plumbing -----------------------------------------------------------------------------------

    def _carry(self, wanted: Sequence[Wanted], now_ms: int) -> list[Action]:
        """Pass a dialogue's actions on; what the phone itself must do is done here."""
        actions: list[Action] = []
        for action in wanted:
            if isinstance(action, Interrupt):
                actions += self._silence_agent(now_ms)
            elif isinstance(action, RunTool) and self._runs_here(action):
                actions += self._run_tool(action, now_ms)
            elif isinstance(action, Farewell):
                actions += self.farewell(action.reason, action.text, now_ms, action.detail)
            else:
                actions.append(action)
        if self.turns.turn is Turn.IDLE and self.dialogue.gate.busy:
            self._turn(TurnEvent.ASKED, now_ms)
        return actions
