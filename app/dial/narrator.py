"""Tells a call while it happens: who, when, what. A thin shell over a rich console."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.dial.webhook import SpokenLine

__all__ = ["Narrator"]


class Narrator:
    """Prints one line per thing that happened; `None` as console keeps it silent."""

    def __init__(self, console: Console | None) -> None:
        self._console = console

    def event(self, at_ms: int, text: str) -> None:
        """Something that nobody said: answered, a key, the end."""
        self._print(at_ms, "", f"[dim]{escape(text)}[/]")

    def caller(self, at_ms: int, text: str) -> None:
        self._print(at_ms, "[cyan]caller[/]", escape(text))

    def spoken(self, line: SpokenLine) -> None:
        """A line of the server's transcript: agent speech, or what it made of the caller's."""
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
        """For servers without a transcript."""
        text = f"[i](agent speaks {duration_ms / 1000:.1f} s)[/]"
        self._print(at_ms, "[green]agent[/] ", text)

    def _print(self, at_ms: int, who: str, text: str) -> None:
        if self._console is None:
            return
        minutes, tenths = divmod(max(0, at_ms) // 100, 600)
        clock = f"{minutes:02}:{tenths // 10:02}.{tenths % 10}"
        if not self._console.is_terminal:  # a line is a line for whoever reads it there
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
