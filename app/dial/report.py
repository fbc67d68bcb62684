"""The report of a simulated call: figures and faults, as JSON or as a table, and live printing.

`CallPrinter` prints the call while it goes on; the rest are pure values.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.dial.faults import Fault
from app.dial.measures import BargeInMeasure, barge_ins, first_audio_ms, percentile, turn_latencies
from app.dial.stream import CarrierStream, StreamCounters
from app.dial.webhook import SpokenLine

__all__ = ["CallPrinter", "DialReport", "StreamMeasures", "report_table"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMeasures:
    """Figures of one media stream. A turn latency is None where no answer came.

    `answer_to_first_audio_ms` of a later stream starts at the stream itself.
    """

    answer_to_first_audio_ms: int | None = None
    turn_latencies_ms: tuple[int | None, ...] = ()
    barge_ins: tuple[BargeInMeasure, ...] = ()
    clears: int = 0
    agent_heard_ms: int = 0
    counters: StreamCounters = field(default_factory=StreamCounters)

    @classmethod
    def of(cls, stream: CarrierStream, answered_ms: int) -> StreamMeasures:
        """Measure a stream that is over; its TwiML arrived at `answered_ms`."""
        spans, utterances = stream.detector.spans, stream.player.utterances
        return cls(
            answer_to_first_audio_ms=first_audio_ms(spans, answered_ms),
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
        """Every field, with the computed figures that the table shows."""
        document = asdict(self)
        document["ok"] = self.ok
        for stream, measures in zip(document["streams"], self.streams, strict=True):
            stream["turn_latency_p50_ms"] = measures.turn_latency_p50_ms
            stream["turn_latency_p95_ms"] = measures.turn_latency_p95_ms
            stream["counters"]["agent_audio_ms"] = measures.counters.agent_audio_ms
        return document


def report_table(report: DialReport) -> Table:
    """Render the report for a person."""
    table = Table(title="The call in figures", title_justify="left", show_header=False)
    table.add_column("what", style="bold")
    table.add_column("figure", overflow="fold")
    for number, measures in enumerate(report.streams, 1):
        if len(report.streams) > 1:
            table.add_row(f"media stream {number}", "", style="dim")
        for name, figure in _stream_rows(measures):
            table.add_row(name, figure)
    table.add_row("webhook answered in", f"{report.webhook_ms} ms")
    table.add_row("call lasted", f"{report.duration_ms / 1000:.1f} s, ended by {report.ended_by}")
    table.add_row("protocol errors", f"[red]{len(report.faults)}[/]" if report.faults else "none")
    for fault in report.faults[:20]:
        table.add_row("", escape(f"at {fault.at_ms / 1000:.1f} s: {fault.code}: {fault.text}"))
    for failure in report.failures:
        table.add_row("[red]failed[/]", escape(failure))
    if report.recording is not None:
        table.add_row("recording", escape(f"{report.recording} (caller left, agent right)"))
    return table


def _stream_rows(measures: StreamMeasures) -> list[tuple[str, str]]:
    counters = measures.counters
    turns = measures.turn_latencies_ms
    unanswered = sum(ms is None for ms in turns)
    rows = [
        ("answer to first audio", _ms(measures.answer_to_first_audio_ms)),
        (
            "turn latency p50 / p95",
            f"{_ms(measures.turn_latency_p50_ms)} / {_ms(measures.turn_latency_p95_ms)}"
            f" ({len(turns) - unanswered} turns"
            + (f", {unanswered} without an answer)" * bool(unanswered) or ")"),
        ),
    ]
    for barge_in in measures.barge_ins:
        leaked = f", then {barge_in.leaked_ms} ms leaked" if barge_in.leaked_ms else ""
        stopped = (
            "the agent spoke on" if barge_in.reaction_ms is None else _ms(barge_in.reaction_ms)
        )
        rows.append(("barge-in reaction", stopped + leaked))
    discarded = counters.frames_discarded
    rows += [
        (
            "frames sent",
            f"{counters.frames_sent}" + (f", {discarded} lost: too slow" if discarded else ""),
        ),
        (
            "frames received",
            f"{counters.media_received} ({counters.agent_audio_ms / 1000:.1f} s of audio,"
            f" {measures.agent_heard_ms / 1000:.1f} s of sound heard)",
        ),
        (
            "marks received / returned",
            f"{counters.marks_received} / {counters.marks_returned}, {measures.clears} clear",
        ),
    ]
    return rows


def _ms(value: int | None) -> str:
    return "-" if value is None else f"{value} ms"


class CallPrinter:
    """Prints one line per event of a call; `None` as console prints nothing."""

    def __init__(self, console: Console | None) -> None:
        self._console = console

    def event(self, at_ms: int, text: str) -> None:
        """Print an event without speech: answered, a key, the end."""
        self._print(at_ms, "", f"[dim]{escape(text)}[/]")

    def caller(self, at_ms: int, text: str) -> None:
        self._print(at_ms, "[cyan]caller[/]", escape(text))

    def spoken(self, line: SpokenLine) -> None:
        """Print a line of the server's transcript: agent speech, or the caller's as recognized."""
        if line.who == "caller":
            heard = escape(line.text) if line.text else "[i]nothing[/]"
            mark = " (unverified)" if line.unverified else ""
            self._print(line.at_ms, "", f"[dim]the server understood: {heard}{mark}[/]")
        elif line.who != "agent":
            self.event(line.at_ms, line.text)
        elif line.cut_off:
            heard = escape(line.heard_text.strip())
            cut = f"{heard} [yellow]- cut off[/]" if heard else "[yellow]cut off unheard[/]"
            self._print(line.at_ms, "[green]agent[/] ", cut)
        else:
            self._print(line.at_ms, "[green]agent[/] ", escape(line.text))

    def agent_sound(self, at_ms: int, duration_ms: int) -> None:
        """Print that the agent spoke, for servers without a transcript."""
        text = f"[i](agent speaks {duration_ms / 1000:.1f} s)[/]"
        self._print(at_ms, "[green]agent[/] ", text)

    def _print(self, at_ms: int, who: str, text: str) -> None:
        if self._console is None:
            return
        minutes, tenths = divmod(max(0, at_ms) // 100, 600)
        clock = f"{minutes:02}:{tenths // 10:02}.{tenths % 10}"
        if not self._console.is_terminal:  # a file or a pipe gets one line per event, unwrapped
            self._console.print(
                f"{clock}  {who or '      '}  {text}", soft_wrap=True, highlight=False
            )
            return
        row = Table.grid(padding=(0, 2), expand=True)
        row.add_column(width=len(clock))
        row.add_column(width=len("caller"))
        row.add_column(ratio=1)  # a long text goes on below its beginning
        row.add_row(f"[dim]{clock}[/]", who.strip(), text)
        self._console.print(row, highlight=False)
