"""The explanation of one call, made of its events alone. Pure.

Every event becomes an entry of the timeline, except for those that say the same as another one. An
entry is a problem where something went wrong for the caller; the first of them stands on top. Times
are milliseconds since the call's admission.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from app.events import (
    SESSION_PREFIX,
    AgentSaid,
    AnalysisFailed,
    AnsweredBy,
    AnswerJudged,
    BargeIn,
    CallAdmitted,
    CallEnded,
    CallerSaid,
    CallLost,
    CallNotAnswered,
    CallPlaced,
    CallReviewed,
    CallRinging,
    CallTurnedAway,
    CarrierReported,
    CarrierVerdict,
    DisclosureHeard,
    FirstSound,
    GuardrailTripped,
    HandedOff,
    KeyPressed,
    MessageTaken,
    ModelInput,
    OperatorActed,
    OptedOut,
    RecordingStarted,
    RecordingStopped,
    SpeechResumed,
    StagesTimed,
    StreamOpened,
    TaskAnswered,
    TaskStarted,
    ToolApprovalRequired,
    ToolRan,
    TransferEnded,
    TransferStarted,
    TurnAnalyzed,
    TurnTimed,
    VoiceReady,
    VoiceReconnecting,
    VoiceTrouble,
)
from app.explain.faults import (
    AS_CONFIGURED,
    CONNECTION_LOST,
    end_fault,
    ending,
    tool_fault,
    transfer_fault,
    turned_away,
    voice_fault,
)

__all__ = ["SLOW_TURN_MS", "Entry", "Explanation", "Mark", "Timeline", "explain"]

SLOW_TURN_MS: Final = 2_500
"""Callers begin to ask whether somebody is there."""
SLOW_TOOL_MS: Final = 8_000
_CANCELLED: Final = {
    "interrupted": "given up: the caller went on",
    "call_over": "not finished: the call was over",
}


class Mark(StrEnum):
    """The weight of an entry."""

    PLAIN = ""
    NOTICE = "notice"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the timeline, with lines of detail below it and what to do about it."""

    at_ms: int
    text: str
    mark: Mark = Mark.PLAIN
    details: tuple[str, ...] = ()
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """A call in plain words. `problem` is the first thing that went wrong, if anything did."""

    call_id: str
    headline: str
    problem: Entry | None
    entries: tuple[Entry, ...]


def explain(events: Iterable[Any]) -> Explanation:
    """Explain a call from its events, in their order; those of unknown types are left out."""
    timeline = Timeline()
    for event in events:
        timeline.take(event)
    entries = tuple(sorted(timeline.entries, key=lambda entry: entry.at_ms))
    problem = next((entry for entry in entries if entry.mark is Mark.PROBLEM), None)
    return Explanation(
        call_id=timeline.call_id, headline=timeline.headline(), problem=problem, entries=entries
    )


class Timeline:
    """The entries of one call, in the order of its events; `take` adds those of the next one."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.call_id = ""
        self._numbers = ("", "")
        self._agent = ""
        self._end = "the call goes on"
        self._turns = 0
        self._streamed = False
        self._tool_left: ToolRan | None = None
        self._placed = False
        self._verdict_ms = 0
        self._lost_ms: int | None = None
        self._trouble_code = ""

    def headline(self) -> str:
        caller, called = self._numbers
        if self._is_session:
            return f"session of {self._agent}: {self._end}"
        if not called:
            return self._end
        agent = f", agent {self._agent}" if self._agent else ""
        if self._placed:
            return f"{called} called {caller}{agent}: {self._end}"
        return f"{caller or 'unknown'} called {called}{agent}: {self._end}"

    @property
    def _party(self) -> str:
        """The word for the party that is not the agent."""
        if self._is_session:
            return "client"
        return "callee" if self._placed else "caller"

    @property
    def _is_session(self) -> bool:
        """A program talked over the gateway, and nobody called."""
        return self.call_id.startswith(SESSION_PREFIX)

    def _add(
        self,
        at_ms: int,
        text: str,
        mark: Mark = Mark.PLAIN,
        *,
        details: Sequence[str] = (),
        remedy: str = "",
    ) -> None:
        entry = Entry(at_ms=at_ms, text=text, mark=mark, details=tuple(details), remedy=remedy)
        self.entries.append(entry)

    def take(self, event: Any) -> None:
        """Add what an event says."""
        self.call_id = str(getattr(event, "call_id", self.call_id))
        match event:
            case CallAdmitted():
                self._numbers, self._agent = (event.caller_number, event.called_number), event.agent
                tools = f"; tools: {', '.join(event.tools)}" if event.tools else "; no tools"
                version = f"; configuration {event.configuration}" if event.configuration else ""
                what = "the call was answered" if self._placed else "call admitted"
                self._placed = event.direction == "outbound"
                if self._is_session:
                    self._add(0, f"session admitted for key {event.agent}")
                else:
                    self._add(0, f"{what} for agent {event.agent}{tools}{version}")
            case CallPlaced() | CallRinging() | CallNotAnswered() | CarrierVerdict():
                self._placing(event)
            case StreamOpened():
                again = " again" if self._streamed else ""
                self._streamed = True
                self._add(event.at_ms, f"the {self._party}'s sound flows{again}")
            case VoiceReady():
                self._ready(event)
            case FirstSound():
                self._first_sound(event)
            case CallerSaid():
                self._caller_said(event)
            case AgentSaid():
                self._agent_said(event)
            case StagesTimed(at_ms=at_ms, stages_ms=stages_ms):
                times = ", ".join(f"{name} {_s(ms)} s" for name, ms in stages_ms.items())
                self._add(at_ms, f"pipeline: {times}")
            case TurnTimed():
                self._turn(event)
            case BargeIn():
                unheard = event.sent_ms - event.heard_ms
                text = (
                    f"the {self._party} spoke over the agent: {_s(event.heard_ms)} s had been heard"
                )
                self._add(event.at_ms, f"{text}, {_s(unheard)} s was not")
            case SpeechResumed():
                self._add(event.at_ms, "that was a noise: the agent went on")
            case KeyPressed():
                hidden = event.digit == "."
                self._add(event.at_ms, "a key, not shown" if hidden else f"key {event.digit}")
            case _:
                self._take_more(event)

    def _take_more(self, event: Any) -> None:
        match event:
            case ModelInput():
                self._model_input(event)
            case AnswerJudged() | DisclosureHeard() | OptedOut():
                self._beginning(event)
            case ToolRan():
                self._tool(event)
            case ToolApprovalRequired():
                self._add(event.at_ms, f"tool {event.name} waits for {event.by}")
            case OperatorActed():
                what = f": {_quoted(event.text)}" if event.text else ""
                self._add(event.at_ms, f"operator {event.by}: {event.action}{what}")
            case HandedOff():
                self._add(event.at_ms, f"{event.from_agent} handed over to {event.to_agent}")
            case TransferStarted():
                how = "warm, the caller stays with the agent" if event.warm else "cold"
                self._add(event.at_ms, f"transfer to {event.destination} ({how})")
            case TransferEnded():
                self._transfer(event)
            case GuardrailTripped():
                self._tripped(event)
            case VoiceReconnecting():
                self._reconnecting(event)
            case VoiceTrouble():
                self._trouble(event)
            case MessageTaken():
                to = f" for {event.recipient}" if event.recipient else ""
                self._add(event.at_ms, f"message{to}: {_quoted(event.text)}")
            case TurnAnalyzed():
                self._add(event.at_ms, f"analysis: {event.analysis.intent or 'no intent'}")
            case AnalysisFailed():
                self._add(event.at_ms, f"the analysis failed: {event.code}", Mark.NOTICE)
            case TaskStarted():
                self._add(event.at_ms, f"task handed out: {_quoted(event.task.text)}")
            case TaskAnswered():
                failed = Mark.NOTICE if event.error else Mark.PLAIN
                text = event.error or _quoted(event.answer)
                self._add(event.at_ms, f"task answered: {text}", failed)
            case CallEnded():
                self._ended(event)
            case _:
                self._take_rest(event)

    def _take_rest(self, event: Any) -> None:
        match event:
            case CarrierReported():
                self._add(event.at_ms, f"the carrier reports: {event.status}")
            case RecordingStarted():
                self._add(event.at_ms, "the recording began")
            case RecordingStopped():
                self._recorded(event)
            case CallTurnedAway():
                self._turned_away(event)
            case CallLost():
                self._lost()
            case CallReviewed():
                self._add(self._latest_ms, "the call was reviewed")
            case _:
                pass

    def _tripped(self, event: GuardrailTripped) -> None:
        did = "stopped the agent" if event.stopped else "objected"
        text = f"guardrail {event.guardrail} {did}: what the {event.side} said"
        self._add(event.at_ms, text, Mark.NOTICE, details=[event.reason])

    def _placing(self, event: Any) -> None:
        """The way of a call that we place, before there is a conversation."""
        match event:
            case CallPlaced():
                self._placed = True
                self._numbers = (event.caller_number, event.called_number)
                self._agent = event.agent
                of = f", of campaign {event.campaign}" if event.campaign else ""
                how = (
                    "call taken over from a server that died" if event.taken_over else "call placed"
                )
                self._add(0, f"{how} ({event.purpose}{of})")
            case CallRinging():
                self._add(0, f"the phone rang {_s(event.after_ms)} s after that")
            case CarrierVerdict():
                text = f"the carrier's detector heard: {event.answered_by.replace('_', ' ')}"
                self._add(event.at_ms, f"{text}, {_s(event.after_ms)} s after the answer")
            case CallNotAnswered():
                if event.caller_number:
                    self._numbers = (event.caller_number, event.called_number)
                    self._agent = event.agent
                self._end = event.outcome.replace("_", " ")
                fault = event.outcome in ("failed", "unknown")
                mark = Mark.PROBLEM if fault else Mark.NOTICE
                text = f"no conversation: {event.reason}"
                self._add(event.after_ms, text, mark, details=[f"code {event.code}"])

    def _recorded(self, event: RecordingStopped) -> None:
        lost = f"; {_s(event.lost_ms)} s are missing" if event.lost_ms else ""
        text = f"the recording ended after {_s(event.duration_ms)} s: {event.reason}{lost}"
        whole = event.reason == "call_over" and not event.lost_ms
        self._add(event.at_ms, text, Mark.PLAIN if whole else Mark.NOTICE)

    def _turned_away(self, event: CallTurnedAway) -> None:
        text, remedy = turned_away(event.reason)
        self._numbers = (event.caller_number, event.called_number)
        to = event.put_through_to
        self._end = f"put through to {to}" if to else "no agent took the call"
        wanted = event.reason in ("closed", "not_in_percent")
        self._add(0, text, Mark.NOTICE if wanted else Mark.PROBLEM, remedy=remedy)

    def _lost(self) -> None:
        self._end = "lost"
        text = "The process that held the call ended without recording how the call did."
        remedy = "Look for a crash or a kill (out of memory) in the machine's log."
        self._add(self._latest_ms, text, Mark.PROBLEM, remedy=remedy)

    @property
    def _latest_ms(self) -> int:
        return max((entry.at_ms for entry in self.entries), default=0)

    # The model ----------------------------------------------------------------------------------

    def _ready(self, event: VoiceReady) -> None:
        what = f"model ready: {event.model}"
        if event.reconnected:
            lost_ms, self._lost_ms = self._lost_ms, None
            after = f" after {_s(event.at_ms - lost_ms)} s" if lost_ms is not None else ""
            what = f"model reconnected{after}"
        details = []
        if event.agent and not event.reconnected:
            voice = f", voice {event.voice}" if event.voice else ""
            tools = _count(len(event.tools), "tool")
            chars = _count(event.instructions_chars, "character")
            details.append(f"told: agent {event.agent}{voice}, {tools}, instructions of {chars}")
        if event.session_id:
            details.append(f"the model's own id of the session: {event.session_id}")
        if event.differing:
            details.append(f"it took other settings than it was told: {', '.join(event.differing)}")
        mark = Mark.NOTICE if event.differing else Mark.PLAIN
        self._add(event.at_ms, what.rstrip(": "), mark, details=details)

    def _beginning(self, event: AnswerJudged | DisclosureHeard | OptedOut) -> None:
        if isinstance(event, OptedOut):
            words = f": {_quoted(event.words)}" if event.words else ", as the model understood them"
            text = f"the {self._party} asked never to be called again{words}"
            self._add(event.at_ms, text, Mark.NOTICE)
            return
        if isinstance(event, AnswerJudged):
            again = f", not {event.before}" if event.before is not AnsweredBy.UNKNOWN else ""
            text = f"answered by {event.verdict}{again}, known after {_s(event.after_ms)} s"
            self._add(event.at_ms, text, details=event.evidence)
            self._verdict_ms = event.at_ms
            return
        proof = "the carrier's mark came back" if event.by_mark else "by the clock, without a mark"
        again = f", at try {event.tries}" if event.tries > 1 else ""
        text = f"heard to the end{again} ({proof}): {_quoted(event.text)}"
        self._add(event.at_ms, text, Mark.PLAIN if event.by_mark else Mark.NOTICE)

    def _first_sound(self, event: FirstSound) -> None:
        # In a placed call the agent waits for whoever answers.
        slow = event.after_ms > SLOW_TURN_MS and not self._placed
        text = (
            f"first sound of the agent, {_s(event.after_ms)} s after the {self._party} could hear"
        )
        self._add(event.at_ms, text, Mark.PROBLEM if slow else Mark.PLAIN)

    def _model_input(self, event: ModelInput) -> None:
        match event.what:
            case "truncated":
                text = f"the model was told that {_s(event.heard_ms or 0)} s of it had been heard"
            case "settings":
                text = f"the model was told other settings: {event.text}"
            case "asked":
                text = f"the model was asked for words: {_quoted(event.text)}"
            case _:
                text = f"the model was told: {_quoted(event.text)}"
        self._add(event.at_ms, text)

    def _reconnecting(self, event: VoiceReconnecting) -> None:
        self._lost_ms = event.at_ms
        if self._trouble_code == event.code:  # told already, with its remedy
            self._add(event.at_ms, "the model is connected to anew")
            return
        self._add(
            event.at_ms,
            CONNECTION_LOST[0],
            Mark.PROBLEM,
            details=[f"code {event.code}"],
            remedy=CONNECTION_LOST[1],
        )

    def _trouble(self, event: VoiceTrouble) -> None:
        self._trouble_code = event.code
        if event.benign:
            self._add(event.at_ms, f"the model objected to something small: {event.code}")
            return
        text, remedy = voice_fault(event.code)
        said = ": ".join(part for part in (event.code, event.where, event.message) if part)
        self._add(event.at_ms, text, Mark.PROBLEM, details=[f"code {said}"], remedy=remedy)

    # Turns --------------------------------------------------------------------------------------

    def _caller_said(self, event: CallerSaid) -> None:
        if event.failed:
            self._add(event.at_ms, f"{self._party}: (could not be transcribed)", Mark.NOTICE)
        elif event.text:
            unsure = " (the offline engine's guess)" if event.unverified else ""
            self._add(event.at_ms, f"{self._party}: {_quoted(event.text)}{unsure}")

    def _agent_said(self, event: AgentSaid) -> None:
        if not event.cut_off:
            self._add(event.at_ms, f"agent: {_quoted(event.text)}")
            return
        heard = event.heard_text.strip()
        unheard = event.text.removeprefix(event.heard_text).strip()
        text = f"agent, cut off: {_quoted(heard)}" if heard else "agent, cut off before a word"
        self._add(event.at_ms, text, details=[f"not heard: {_quoted(unheard)}"] if unheard else [])

    def _turn(self, event: TurnTimed) -> None:
        self._turns += 1
        at_ms, stopped_ms = event.turn_found_ms, event.caller_stopped_ms
        steps = (
            ("until the turn was found over", event.turn_found_ms),
            ("until the model began to answer", event.response_ms),
            ("until the model's first sound", event.model_sound_ms),
            ("until it was sent", event.sent_ms),
            ("until it was heard", event.heard_ms),
        )
        details, last_ms, before = [], stopped_ms, True
        for name, step_ms in steps:
            if step_ms is None:
                details.append(f"   --    {name}: it did not come to that")
                break
            before = before and step_ms >= last_ms
            details.append(f"{_s(max(0, step_ms - last_ms)):>6} s  {name}")
            last_ms = step_ms
        if event.transcript_ms is not None:
            after_ms = event.transcript_ms - stopped_ms
            details.append(f"{_s(after_ms):>6} s  transcript, beside these")
        heard_ms = event.heard_ms or event.sent_ms
        if heard_ms is None:
            asked = event.response_ms is None
            text = f"turn {self._turns}: no answer" + (" was begun" if asked else " was heard")
            self._add(at_ms, text, Mark.NOTICE, details=details)
            return
        waited_ms = heard_ms - stopped_ms
        # In a placed call the agent keeps silent until it is known who answered.
        slow = heard_ms - max(stopped_ms, self._verdict_ms) > SLOW_TURN_MS
        text = f"turn {self._turns}: the {self._party} waited {_s(waited_ms)} s for the answer"
        remedy = "The longest step below says where the time went." if slow else ""
        self._add(at_ms, text, Mark.PROBLEM if slow else Mark.PLAIN, details=details, remedy=remedy)

    # Tools, transfers, the end ------------------------------------------------------------------

    def _tool(self, event: ToolRan) -> None:
        took = f"{_s(event.duration_ms)} s"
        if event.error in _CANCELLED:
            self._tool_left = event if event.error == "call_over" else None
            text = f"tool {event.name} {_CANCELLED[event.error]} ({took})"
            self._add(event.at_ms, text, Mark.NOTICE)
        elif event.error:
            why, remedy = tool_fault(event.error)
            text = f"Tool {event.name} did not work: {why}."
            mark = Mark.NOTICE if event.error in AS_CONFIGURED else Mark.PROBLEM
            self._add(event.at_ms, text, mark, details=[event.error], remedy=remedy)
        else:
            slow = Mark.NOTICE if event.duration_ms > SLOW_TOOL_MS else Mark.PLAIN
            self._add(event.at_ms, f"tool {event.name} ran ({took})", slow)

    def _transfer(self, event: TransferEnded) -> None:
        if event.outcome in ("answered", "unknown"):
            self._add(event.at_ms, f"transfer to {event.destination}: {event.outcome}")
            return
        why, remedy = transfer_fault(event.outcome, event.evidence)
        text = f"The transfer to {event.destination} came to nothing: {why}."
        details = [f"evidence: {event.evidence}"] if event.evidence else []
        self._add(event.at_ms, text, Mark.PROBLEM, details=details, remedy=remedy)

    def _ended(self, event: CallEnded) -> None:
        summary = event.summary
        how = ending(summary.reason, self._party)
        detail = f" ({summary.detail})" if summary.detail else ""
        self._end = f"{how}{detail} after {_s(event.at_ms)} s"
        left = self._tool_left
        if left is not None and summary.reason == "caller_hung_up":
            after = f"after {_s(left.duration_ms)} s"
            text = f"The {self._party} hung up while tool {left.name} ran, {after}."
            remedy = "Have callers told that it takes a moment (filler), or make the tool faster."
            self._add(left.at_ms - 1, text, Mark.PROBLEM, remedy=remedy)
        if not self._streamed and summary.reason == "caller_hung_up":
            self._add(
                event.at_ms, f"the {self._party} hung up before the sound flowed", Mark.NOTICE
            )
        fault = end_fault(summary.reason)
        text = (
            f"call ended: {how} ({summary.reason.value}{summary.detail and ': '}{summary.detail})"
        )
        details = [*_losses(event), *_cost(event)]
        if fault is None:
            self._add(event.at_ms, text, details=details)
        else:
            why, remedy = fault
            self._add(event.at_ms, why, Mark.PROBLEM, details=[text, *details], remedy=remedy)


def _losses(event: CallEnded) -> list[str]:
    """Sound that went missing, which callers notice and no other event tells."""
    counters = event.summary.counters
    found = []
    if counters.gap_filled_ms + counters.stall_filled_ms > counters.caller_audio_ms * 0.02 + 200:
        lost_ms = counters.gap_filled_ms + counters.stall_filled_ms
        found.append(f"{_s(lost_ms)} s of the caller's sound was lost on its way to us")
    if counters.uplink_dropped_ms:
        dropped = _s(counters.uplink_dropped_ms)
        found.append(f"{dropped} s of the caller's sound was dropped: the model did not take it")
    if counters.voice_reconnects:
        found.append(f"the model's connection was lost {_count(counters.voice_reconnects, 'time')}")
    return found


def _cost(event: CallEnded) -> list[str]:
    """The cost of the call by class, and the prices that are missing in it."""
    summary = event.summary
    found = []
    if summary.costs:
        about = "about " if summary.cost_estimated else ""
        parts = ", ".join(f"{name} {usd:.4f}" for name, usd in summary.costs.items() if usd >= 5e-5)
        parts = parts or "less than 0.0001 each"
        found.append(f"cost: {about}${sum(summary.costs.values()):.4f} ({parts})")
    if summary.cost_unknown:
        missing = ", ".join(summary.cost_unknown)
        found.append(f"not in the cost, for want of a price in config.yaml: {missing}")
    return found


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _s(ms: int) -> str:
    return f"{ms / 1000:.2f}"


def _quoted(text: str) -> str:
    return f'"{" ".join(text.split())}"'
