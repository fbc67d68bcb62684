"""`make demo-pipeline`: the call of `make demo`, answered by a chain over local stand-ins.

The server, the caller and the three stages are real programs on loopback; no key is needed. Printed
at the end: the time of each stage in each reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from app.carrier.base import CarrierCallId
from app.dial.carrier_http import Caller, Endpoints, Webhooks, http_client
from app.dial.leg import Clock, RealClock
from app.dial.report import CallPrinter, DialReport, print_report
from app.dial.script import ScriptedCaller, ScriptRun
from app.dial.simulated_call import SimulatedCall
from app.dial.speaking import Recording
from app.dial.speech import demo_script
from app.errors import AppError
from app.events import CallEvent, StagesTimed
from app.main import build
from app.settings import load
from app.settings.deployment import carrier_credentials
from app.web.server.serving import running
from tests.demo.chain import open_stages
from tests.fakes.waiting import time_limit

__all__ = ["DemoResult", "run_demo"]

CONFIG: Final = """
voice_model: pipeline
state_dir: {state}
server: {{port: 0}}
pipeline:
  stt: {{base_url: "{url}", model: stand-in-stt}}
  llm: {{base_url: "{url}", model: stand-in-llm}}
  tts: {{kind: openai, base_url: "{url}", model: stand-in-tts}}
agents:
  receptionist:
    instructions: You answer the telephone of an office.
    greeting: Good day, this is the office. How can I help you?
    tools: [end_call]
"""
AT_MOST_MS: Final = 120_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The caller's report and the server's events of one call."""

    report: DialReport
    events: list[CallEvent]

    @property
    def stages(self) -> list[StagesTimed]:
        """The times of the stages, reply by reply."""
        return [event for event in self.events if isinstance(event, StagesTimed)]


async def run_demo(printer: CallPrinter, out: Path, state_dir: Path, clock: Clock) -> DemoResult:
    """Place the call of `trunkline dial` against a server whose model is the chain."""
    async with contextlib.AsyncExitStack() as stack:
        stages = await stack.enter_async_context(open_stages())
        config = state_dir / "config.yaml"
        config.write_text(CONFIG.format(state=state_dir, url=f"{stages.url}/v1"))
        settings = load(config, {})
        built = build(settings)
        await stack.enter_async_context(running(built.server, own_signals=False))
        url = f"http://127.0.0.1:{built.server.port}"
        credentials = carrier_credentials(settings)
        caller = Caller(
            call_id="CA" + secrets.token_hex(16),
            account_id=credentials.account_sid,
            caller_number="+15005550006",
            called_number="+15005550001",
        )
        client = await stack.enter_async_context(http_client())
        endpoints = Endpoints.of(url, public_url=settings.server.public_url)
        recording = stack.enter_context(contextlib.closing(Recording(out)))
        steps, folder = demo_script()
        files = {file for step in steps if (file := getattr(step, "file", None))}
        call = SimulatedCall(
            caller,
            Webhooks(client, endpoints, credentials.auth_tokens[0], caller),
            ScriptedCaller(ScriptRun(steps), {file: folder.load(file) for file in files}, printer),
            printer=printer,
            recording=recording,
            clock=clock,
        )
        report = await call.run(endpoints.voice_url, at_most_ms=AT_MOST_MS)
        async with time_limit():
            follow = built.switchboard.follow(CarrierCallId(caller.call_id))
            events = [event async for event in follow]
        return DemoResult(report=report, events=events)


def main() -> int:
    """Show the call; 0 when it went as it should."""
    console = Console()
    logging.disable(logging.CRITICAL)  # the conversation is the log
    out = Path("var") / "demo-pipeline.wav"
    out.parent.mkdir(exist_ok=True)
    try:
        with tempfile.TemporaryDirectory() as state:
            shown = asyncio.run(run_demo(CallPrinter(console), out, Path(state), RealClock()))
    except AppError as error:
        console.print(f"[red]{escape(error.message)}[/]", highlight=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    console.print()
    print_report(shown.report, console)
    console.print("\n[bold]Stages, to the first answer of each[/]")
    for number, timed in enumerate(shown.stages, 1):
        times = "  ".join(f"{name} {ms:4d} ms" for name, ms in timed.stages_ms.items())
        console.print(f"  reply {number}  {times}", highlight=False)
    return 0 if shown.report.ok and shown.stages else 1


if __name__ == "__main__":
    sys.exit(main())
