"""The demo's call: a whole server with the example's configuration, and what is around it.

The server is built as `trunkline serve` builds it. Around it stand, on loopback: the clinic's own
server, a stand-in for Twilio's REST API, a simulated caller, and the scripted voice model where the
offline engine is not the model.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app.carrier.base import CarrierCallId
from app.dial.carrier_http import Caller, Endpoints, TwimlAnswer, Webhooks, http_client
from app.dial.leg import Clock
from app.dial.report import CallPrinter, DialReport
from app.dial.script import ScriptedCaller, ScriptRun
from app.dial.simulated_call import SimulatedCall
from app.dial.speaking import Recording
from app.dial.speech import read_script
from app.engine.speech.synthesizer import WorkerSynthesizer
from app.events import CallEvent
from app.main import build
from app.settings import load
from app.web.server.serving import running
from tests.demo.clinic import Clinic
from tests.demo.scenario import HEARD, REPLIES, Step, steps
from tests.fakes.twilio_rest import ApiCall, TwilioApi
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import time_limit

__all__ = ["EXAMPLE", "DemoResult", "run_demo"]

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "clinic"
OURS: Final = "+15005550001"
AT_MOST_MS: Final = 180_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """One performance: the caller's report, the server's events, and what was to be seen."""

    report: DialReport
    events: list[CallEvent]
    appointments: list[dict[str, Any]]

    @property
    def steps(self) -> list[Step]:
        return steps(self.events, self.appointments)

    @property
    def ok(self) -> bool:
        return self.report.ok and all(step.seen for step in self.steps)


async def run_demo(
    *, offline: bool, printer: CallPrinter, out: Path, state_dir: Path, clock: Clock
) -> DemoResult:
    """Play the call of `examples/clinic/calls/call.yaml` against one of the two models."""
    with contextlib.closing(Recording(out)) as recording:
        async with contextlib.AsyncExitStack() as stack:
            api = await stack.enter_async_context(TwilioApi(numbers=[{"phone_number": OURS}]))
            clinic = await stack.enter_async_context(
                Clinic(lambda text: printer.event(call.elapsed_ms, text))
            )
            model = {} if offline else await stack.enter_async_context(_scripted_model())
            settings = load(
                EXAMPLE / "config.yaml",
                {
                    **model,
                    "VOICE_MODEL": "offline" if offline else "openai",
                    "CLINIC_URL": clinic.url,
                    "TWILIO_ACCOUNT_SID": api.account_sid,
                    "TWILIO_AUTH_TOKEN": api.auth_token,
                    "TWILIO_REST_URL": api.url,
                    "PUBLIC_URL": "https://voice.example.com",
                    "SERVER_PORT": "0",
                    "TRANSCRIPT_FEED": "on",
                    "STATE_DIR": str(state_dir),
                },
            )
            built = build(settings)
            await stack.enter_async_context(running(built.server, own_signals=False))
            url = f"http://127.0.0.1:{built.server.port}"
            caller = Caller(
                call_id="CA" + secrets.token_hex(16),
                account_id=api.account_sid,
                caller_number="+15005550006",
                called_number=OURS,
            )
            client = await stack.enter_async_context(http_client())
            endpoints = Endpoints.of(url, public_url=settings.server.public_url)
            steps, folder = read_script(EXAMPLE / "calls" / "call.yaml")
            files = {file for step in steps if (file := getattr(step, "file", None))}
            call = SimulatedCall(
                caller,
                Webhooks(client, endpoints, api.auth_token, caller),
                ScriptedCaller(
                    ScriptRun(steps), {file: folder.load(file) for file in files}, printer
                ),
                printer=printer,
                recording=recording,
                clock=clock,
                dial_status="no-answer",
            )
            api.add_call(caller.call_id)
            api.redirected = lambda told: call.redirect(_document(told, url))
            report = await call.run(endpoints.voice_url, at_most_ms=AT_MOST_MS)
            async with time_limit():
                follow = built.switchboard.follow(CarrierCallId(caller.call_id))
                events = [event async for event in follow]
            return DemoResult(report=report, events=events, appointments=clinic.appointments)


def _document(told: ApiCall, url: str) -> TwimlAnswer:
    return TwimlAnswer(url, told.verbs)


@contextlib.asynccontextmanager
async def _scripted_model() -> AsyncIterator[dict[str, str]]:
    """The scripted Realtime server, with a voice: what the settings are told of it."""
    synthesizer = WorkerSynthesizer()
    await synthesizer.start()

    async def speech(text: str) -> bytes:
        return b"".join([chunk async for chunk in synthesizer.speak(text, voice="en", speed=1.0)])

    try:
        async with ScriptedVoiceServer(replies=REPLIES, heard=HEARD, speech=speech) as server:
            yield {"REALTIME_URL": server.url, "OPENAI_API_KEY": "sk-scripted"}
    finally:
        await synthesizer.close()
