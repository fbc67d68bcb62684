"""The whole server on real sockets, for tests: phones at one end, a scripted model at the other.

    async with ScriptedVoiceServer() as voice, trunkline(voice) as app:
        async with app.twilio() as twilio:
            call = await twilio.call(app.url)
            await call.hear(ms=500)
            await call.hang_up()
        assert (await app.ended(call)).reason is EndReason.CALLER_HUNG_UP

It is built as `trunkline serve` builds it, from a `config.yaml`, in development mode. Leaving the
block proves that nothing is left: no call, task, socket, connection to the model or descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2

from app.calls.admission.switchboard import Switchboard
from app.calls.route import Diversion, Route
from app.carrier.base import CarrierCallId, IncomingCall
from app.events import CallEnded, CallEvent, CallSummary
from app.main import Trunkline, build
from app.realtime.dialect import BETA
from app.settings import Settings, carrier_credentials, load
from app.web.server.serving import running
from tests.fakes.carrier import FakeCall, FakeTwilio, Ringing
from tests.fakes.forked import KEPT
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import TIME_LIMIT_S, time_limit, until, within

__all__ = ["GREETING", "SPEED", "App", "Leftovers", "trunkline"]

GREETING: Final = "Good day, how can I help?"

SPEED: Final = 6.0
"""The pace at which callers live. The server does not know: its own clock is the real one."""

ALL_OVER_S: Final = 2.0
"""The promise: when any leg ends, all of the call has ended within this."""

_LOOKS_BEFORE_COLLECTING: Final = 20
"""Most sockets are closed by the next look; to collect takes longer than many tests."""

Event = TypeVar("Event")


@dataclass(frozen=True, slots=True)
class App:
    """A server that runs, and what its tests ask of it."""

    trunkline: Trunkline
    settings: Settings
    voice: ScriptedVoiceServer
    phones: list[FakeTwilio] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.trunkline.server.port}"

    @property
    def switchboard(self) -> Switchboard:
        return self.trunkline.switchboard

    @property
    def auth_token(self) -> str:
        return carrier_credentials(self.settings).auth_tokens[0]

    def twilio(self, speed: float = SPEED) -> FakeTwilio:
        """A carrier; that the server broke no rule on its calls is checked at the end."""
        credentials = carrier_credentials(self.settings)
        phone = FakeTwilio(
            auth_token=credentials.auth_tokens[0],
            account_sid=credentials.account_sid,
            speed=speed,
            public_url=self.settings.server.public_url,
        )
        self.phones.append(phone)
        return phone

    async def get(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False, timeout=TIME_LIMIT_S) as client:
            return await client.get(self.url + path)

    async def event(
        self,
        call: FakeCall | Ringing,
        kind: type[Event],
        where: Callable[[Event], bool] = lambda _: True,
    ) -> Event:
        """The first event of a kind, from the beginning of the call on."""
        async with time_limit():
            async for event in self.switchboard.follow(_id_of(call)):
                if isinstance(event, kind) and where(event):
                    return event
        raise AssertionError(f"the call ended without {kind.__name__}")

    async def ended(self, call: FakeCall | Ringing, *, within_s: float = ALL_OVER_S) -> CallSummary:
        """The end of the call, which must come by `within_s` from now."""
        return (await within(within_s, self.event(call, CallEnded))).summary

    async def events(self, call: FakeCall | Ringing) -> list[CallEvent]:
        """Everything that happened in a call that ends by itself."""
        async with time_limit():
            return [event async for event in self.switchboard.follow(_id_of(call))]


def _id_of(call: FakeCall | Ringing) -> CarrierCallId:
    ringing = call.ringing if isinstance(call, FakeCall) else call
    return CarrierCallId(ringing.caller.call_id)


@contextlib.asynccontextmanager
async def trunkline(
    voice: ScriptedVoiceServer,
    *,
    policy: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    written: Any = (),  # of Agent; `sections` may be passed as a mapping
    state_dir: Any = None,  # a path
    **sections: Mapping[str, Any],
) -> AsyncIterator[App]:
    """Run a server against `voice`.

    `sections` are sections of `config.yaml`, `model` is short for `openai_realtime`; with a section
    `offline` or `pipeline` the server's own engine talks, and `voice` is not called. `policy` are
    limits of calls that settings do not offer, or not as short as a test wants them; `written` are
    agents in Python. `state_dir` outlives the server.
    """
    left = Leftovers()
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) if state_dir is None else state_dir
        settings = _settings(kept, voice, {**sections, "openai_realtime": model or {}})
        built = build(settings, agents=written)
        if policy is not None:
            _change_policy(built.switchboard, policy)
        failure: BaseException | None = None
        async with running(built.server, own_signals=False):
            try:
                app = App(built, settings, voice)
                yield app
                await _all_calls_are_over(built, voice)
                for phone in app.phones:
                    for call in phone.calls:
                        call.assert_clean()
            except BaseException as error:  # raised below, and not as one of a task group
                failure = error
                built.server.stop()
                built.server.stop()  # twice: a failed test waits for no call
        if failure is not None:
            raise failure
        await left.are_gone()


def _change_policy(switchboard: Switchboard, policy: Mapping[str, Any]) -> None:
    route = switchboard._route

    def changed(incoming: IncomingCall) -> Route | Diversion:
        found = route(incoming)
        if isinstance(found, Diversion):
            return found
        return replace(found, policy=replace(found.policy, **policy))

    switchboard._route = changed
    if "duration_warning_ms" in policy:
        switchboard._drain_warning_s = policy["duration_warning_ms"] / 1000


def _settings(
    folder: Path, voice: ScriptedVoiceServer, sections: Mapping[str, Mapping[str, Any]]
) -> Settings:
    config: dict[str, Any] = {name: dict(section) for name, section in sections.items()}
    config.setdefault("store", "off")  # its tests turn it on; the others are quicker without
    kinds = ("offline", "pipeline")
    config["voice_model"] = next((kind for kind in kinds if kind in config), "openai")
    config["server"] = {"port": 0, **config.get("server", {})}
    config["openai_realtime"] = {
        "url": voice.url,
        "api_key": "sk-scripted-model",
        "dialect": "beta" if voice.dialect is BETA else "ga",
        "greeting": GREETING,
        **config["openai_realtime"],
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")
    return load(path, {})


async def _all_calls_are_over(built: Trunkline, voice: ScriptedVoiceServer) -> None:
    state = built.server.server_state
    await until(
        lambda: not built.switchboard.active and not voice.open_connections,
        within_s=ALL_OVER_S,
        what=lambda: f"{built.switchboard.active} calls and {voice.open_connections} connections",
    )
    await until(
        lambda: not state.connections,
        within_s=ALL_OVER_S,
        what=lambda: f"server sockets {state.connections}",
    )


class Leftovers:
    """Tasks and descriptors there were at first; what there is besides them later is a leak."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._descriptors = _descriptors()

    async def are_gone(self, within_s: float = ALL_OVER_S) -> None:
        await until(lambda: not self._new_tasks(), within_s=within_s, what=self._new_tasks)
        looks = itertools.count(1)

        def closed() -> bool:
            if self._new_descriptors() and next(looks) % _LOOKS_BEFORE_COLLECTING == 0:
                gc.collect()  # a socket in a cycle is closed with it
            return not self._new_descriptors()

        await until(closed, within_s=within_s, what=self._new_descriptors)

    def _new_tasks(self) -> set[asyncio.Task[Any]]:
        looking = asyncio.current_task()  # of a fixture, another one than before
        return {task for task in asyncio.all_tasks() - self._tasks if task is not looking}

    def _new_descriptors(self) -> dict[str, str]:
        now = _descriptors()
        return {number: now[number] for number in now.keys() - self._descriptors.keys()}


def _descriptors() -> dict[str, str]:
    folder = Path("/proc/self/fd")
    found = {}
    for number in os.listdir(folder) if folder.exists() else []:
        if int(number) in KEPT:
            continue
        with contextlib.suppress(OSError):  # that of the listing itself
            found[number] = os.readlink(folder / number)
    return found
