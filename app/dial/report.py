"""The report of a simulated call: figures and faults, as JSON or as lines, and live printing.

`CallPrinter` prints the call while it goes on; the rest are pure values.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rich.console import Console
from rich.containers import Lines
from rich.text import Text

from app.dial.carrier_http import SpokenLine
from app.dial.faults import Fault
from app.dial.measures import BargeInMeasure, barge_ins, first_audio_ms, percentile, turn_latencies
from app.dial.speaking import FRAME_MS
from app.dial.stream import CarrierStream, StreamCounters
from app.installation import copy_command

__all__ = ["CallPrinter", "DialReport", "StreamMeasures", "print_report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMeasures:
    """Figures of one media stream. A turn latency is None where no answer came.

    `answer_to_first_audio_ms` starts with the stream, as in the server's log.
    """

    answer_to_first_audio_ms: int | None = None
    turn_latencies_ms: tuple[int | None, ...] = ()
    barge_ins: tuple[BargeInMeasure, ...] = ()
    clears: int = 0
    agent_heard_ms: int = 0
    counters: StreamCounters = field(default_factory=StreamCounters)

    @classmethod
    def of(cls, stream: CarrierStream) -> StreamMeasures:
        """Measure a stream that is over."""
        spans, utterances = stream.detector.spans, stream.player.utterances
        return cls(
            answer_to_first_audio_ms=first_audio_ms(spans, stream.start_ms),
            turn_latencies_ms=tuple(turn_latencies(utterances, spans)),
            barge_ins=tuple(barge_ins(utterances, spans, stream.clears)),
            clears=len(stream.clears),
            agent_heard_ms=sum(span.duration_ms for span in spans),
            counters=stream.counters,
        )

    @property
    def turn_latency_p50_ms(self) -> int | None:
        return percentile([ms for ms in self.turn_latencies_ms if ms is not None], 50)

    @property
    def turn_latency_p95_ms(self) -> int | None:
        return percentile([ms for ms in self.turn_latencies_ms if ms is not None], 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class DialReport:
    """The result of one simulated call.

    `failures` describe what went wrong in sentences, `faults` are the rules that the server broke.
    The call was good when there are neither.
    """

    call_id: str
    webhook_ms: int = 0
    duration_ms: int = 0
    ended_by: str = ""
    streams: tuple[StreamMeasures, ...] = ()
    faults: tuple[Fault, ...] = ()
    failures: tuple[str, ...] = ()
    transcript: tuple[SpokenLine, ...] = ()
    recording: str | None = None

    @property
    def ok(self) -> bool:
        return not self.failures and not self.faults

    def to_json(self) -> dict[str, Any]:
        """Every field, with the computed figures that people are shown."""
        document = asdict(self)
        document["ok"] = self.ok
        for stream, measures in zip(document["streams"], self.streams, strict=True):
            stream["turn_latency_p50_ms"] = measures.turn_latency_p50_ms
            stream["turn_latency_p95_ms"] = measures.turn_latency_p95_ms
            stream["counters"]["agent_audio_ms"] = measures.counters.agent_audio_ms
        return document


_PLAYERS: Final = (
    ("afplay",), ("pw-play",), ("paplay",), ("aplay",), ("ffplay", "-nodisp", "-autoexit"),
    ("play",),
)  # fmt: skip
"""Commands that play a WAV file, on macOS and Linux."""


def print_report(report: DialReport, console: Console) -> None:
    """Print the report for a person: a line for each figure."""
    rows = _rows(report)
    console.print("[bold]The call in figures[/]")
    width = max(len(name) for name, _ in rows)
    for name, figure in rows:
        style = "red" if name in _BAD and figure != "none" else ""
        _print_row(console, Text(f"  {name:<{width}}  ", style or "bold"), Text(figure, style))


_BAD: Final = frozenset(("rules broken", "failed"))


def _rows(report: DialReport) -> list[tuple[str, str]]:
    rows = []
    for number, measures in enumerate(report.streams, 1):
        if len(report.streams) > 1:
            rows.append((f"connection {number}", "of the call's sound"))
        rows += _stream_rows(measures)
    rows.append(("webhook answered in", f"{report.webhook_ms} ms"))
    rows.append(("call lasted", f"{report.duration_ms / 1000:.1f} s, ended by {report.ended_by}"))
    rows.append(("rules broken", str(len(report.faults) or "none")))
    for fault in report.faults[:20]:
        rows.append(("", f"at {fault.at_ms / 1000:.1f} s: {fault.code}: {fault.text}"))
    rows += [("failed", failure) for failure in report.failures]
    if report.recording is not None:
        rows.append(("recording", f"{report.recording} (the caller left, the agent right)"))
        copied = copy_command(report.recording)
        if copied is not None:
            rows.append(("copy it here", copied))
        rows.append(("listen to it", _play(report.recording)))
    return rows


def _play(path: str) -> str:
    found = next((command for command in _PLAYERS if shutil.which(command[0])), None)
    return shlex.join((*found, path)) if found else "with any program that plays WAV files"


def _stream_rows(measures: StreamMeasures) -> list[tuple[str, str]]:
    counters = measures.counters
    turns = measures.turn_latencies_ms
    unanswered = sum(ms is None for ms in turns)
    lost = f", {counters.frames_discarded} lost: too slow" if counters.frames_discarded else ""
    rows = [
        ("first sound of the agent", f"{_ms(measures.answer_to_first_audio_ms)} after the answer"),
        (
            "answers came after",
            f"{_ms(measures.turn_latency_p50_ms)} (half of them), "
            f"{_ms(measures.turn_latency_p95_ms)} (95 %) in {len(turns) - unanswered} turns"
            + f", and did not come in {unanswered}"
            * bool(unanswered),
        ),
    ]
    for barge_in in measures.barge_ins:
        leaked = f", then {barge_in.leaked_ms} ms leaked" if barge_in.leaked_ms else ""
        stopped = (
            "the agent spoke on" if barge_in.reaction_ms is None else _ms(barge_in.reaction_ms)
        )
        rows.append(("silent when interrupted", stopped + leaked))
    rows += [
        ("sound of the caller", f"{counters.frames_sent * FRAME_MS / 1000:.1f} s sent{lost}"),
        (
            "sound of the agent",
            f"{counters.agent_audio_ms / 1000:.1f} s received, "
            f"{measures.agent_heard_ms / 1000:.1f} s of it audible",
        ),
        (
            "playing confirmed",
            f"{counters.marks_returned} of {counters.marks_received} times, "
            + (f"cut short {_times(measures.clears)}" if measures.clears else "never cut short"),
        ),
    ]
    return rows


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"


_PLAIN: Final = {
    "stream opened": "the sound of the call is connected",
    "model ready": "the voice model is ready",
    "model reconnected": "the voice model is connected again",
    "barge-in": "the agent stops, since the caller speaks",
    "speech resumed": "the agent goes on: that was a noise",
    "call ended": "the call is over",
}
"""Lines of the transcript feed in the words of a reader who does not know telephony."""


class CallPrinter:
    """Prints one line per event of a call, in the order of time; `None` as console prints nothing.

    A line of the agent is known only when it was heard, and began before other things happened. So
    lines wait until `release`.
    """

    def __init__(self, console: Console | None) -> None:
        self._console = console
        self._waiting: list[tuple[int, Text, Text]] = []
        self._printed_ms = 0
        self.agent_told_ms = -1_000
        """The beginning of the latest words of the agent that are known."""

    def event(self, at_ms: int, text: str) -> None:
        """Print an event without speech: answered, a key, the end."""
        self._put(at_ms, Text(), Text(_PLAIN.get(text, text), "dim"))

    def caller(self, at_ms: int, text: str) -> None:
        self._put(at_ms, Text("caller", "cyan"), Text(text))

    def spoken(self, line: SpokenLine) -> None:
        """Print a line of the server's transcript: agent speech, or the caller's as recognized."""
        if line.who == "caller":
            understood = "made out" if line.unverified else "understood"
            heard = Text(line.text) if line.text else Text("nothing", "italic")
            self._put(line.at_ms, Text(), Text(f"the server {understood}: ", "dim") + heard)
        elif line.who != "agent":
            if line.text != "key pressed":  # "caller presses 4" has said it
                self.event(line.at_ms, line.text)
        elif line.cut_off:
            heard = Text(line.heard_text.strip())
            cut = (
                heard + Text(" - cut off", "yellow") if heard else Text("cut off unheard", "yellow")
            )
            self._put(line.at_ms, Text("agent", "green"), cut)
        else:
            self._put(line.at_ms, Text("agent", "green"), Text(line.text))

    def agent_sound(self, at_ms: int, duration_ms: int) -> None:
        """Print that the agent spoke, for servers without a transcript."""
        text = Text(f"(agent speaks {duration_ms / 1000:.1f} s)", "italic")
        self._put(at_ms, Text("agent", "green"), text)

    def release(self, until_ms: int | None = None) -> None:
        """Print what happened before `until_ms`: nothing earlier will come. Without it, all."""
        self._waiting.sort(key=lambda line: line[0])  # stable: what came first stays first
        while self._waiting and (until_ms is None or self._waiting[0][0] < until_ms):
            self._print(*self._waiting.pop(0))

    def _put(self, at_ms: int, who: Text, text: Text) -> None:
        if who.plain == "agent":
            self.agent_told_ms = max(self.agent_told_ms, at_ms)
        self._waiting.append((at_ms, who, text))

    def _print(self, at_ms: int, who: Text, text: Text) -> None:
        if self._console is None:
            return
        # Lines that come late, such as words that took long to make out, do not go back in time.
        at_ms = self._printed_ms = max(at_ms, self._printed_ms)
        minutes, tenths = divmod(at_ms // 100, 600)
        clock = Text(f"{minutes:02}:{tenths // 10:02}.{tenths % 10}  ", "dim")
        who.pad_right(len("caller") + 2 - len(who))
        _print_row(self._console, clock + who, text)


def _print_row(console: Console, name: Text, text: Text) -> None:
    """Print a text behind a name, and on a terminal further lines below its beginning.

    A file or a pipe gets one line. A word is never broken.
    """
    room = console.width - len(name) if console.is_terminal else 0
    for line in _broken(text, max(room, 20)) if room else [text]:
        line.rstrip()
        console.print(name + line, no_wrap=True, overflow="ignore", crop=False, highlight=False)
        name = Text(" " * len(name))


def _broken(text: Text, width: int) -> Lines:
    """The text in lines of at most `width`, but for longer words."""
    offsets, begin = [], 0
    for word in re.finditer(r"\S+", text.plain):
        if word.end() - begin > width and word.start() > begin:
            begin = word.start()
            offsets.append(begin)
    return text.divide(offsets)
