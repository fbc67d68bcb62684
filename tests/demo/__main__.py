"""`make demo-agents`: one call in which agents do things, with the scripted model and offline.

`python -m tests.demo [scripted] [offline]`; what is heard is written to `var/`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from app.dial.leg import RealClock
from app.dial.report import CallPrinter, print_report
from app.errors import AppError
from tests.demo.demo_call import DemoResult, run_demo

MODELS: Final = {
    "scripted": "with a scripted Realtime server, as a voice model would do it",
    "offline": "with the offline engine, which follows its own dialogue",
}


def main() -> int:
    """Show the named models' calls, or both; 0 when all went as the scenario has it."""
    names = sys.argv[1:] or list(MODELS)
    console = Console()
    logging.disable(logging.CRITICAL)  # the conversation is the log
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise SystemExit(f"no such model: {', '.join(unknown)}; there are {', '.join(MODELS)}")
    good = True
    for name in names:
        console.rule(f"[bold]{name}[/]: {MODELS[name]}")
        try:
            shown = asyncio.run(_show(name, console))
        except AppError as error:
            console.print(f"[red]{escape(error.message)}[/]", highlight=False, soft_wrap=True)
            return 1
        except KeyboardInterrupt:
            return 130
        _print_event(shown, console)
        good = good and shown.ok
    return 0 if good else 1


async def _show(name: str, console: Console) -> DemoResult:
    out = Path("var") / f"demo-agents-{name}.wav"
    with tempfile.TemporaryDirectory() as state:
        return await run_demo(
            offline=name == "offline",
            printer=CallPrinter(console),
            out=out,
            state_dir=Path(state),
            clock=RealClock(),
        )


def _print_event(shown: DemoResult, console: Console) -> None:
    console.print()
    for step in shown.steps:
        console.print("[green]seen[/]    " if step.seen else "[red]missing[/] ", escape(step.what))
    console.print()
    print_report(shown.report, console)


if __name__ == "__main__":
    sys.exit(main())
