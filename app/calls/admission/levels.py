"""The level of both sides of live calls, for those who watch them, in all processes of a server.

A call is measured only while somebody asks, and only when they do: in between its sound is merely
kept in hand. The agent's sound is measured where the carrier plays it by now.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from app.bus import Bus, Message
from app.calls.admission.switchboard import Switchboard
from app.calls.call import Call
from app.events import CallId
from audio.format import AudioFormat
from audio.level import SILENCE_DBFS, peak_dbfs

__all__ = ["LEVELS_EVERY_S", "LiveLevels"]

LEVELS_EVERY_S: Final = 0.5
UNWATCHED_S: Final = 5.0
"""Nobody has asked for so long: calls are left alone."""
MAX_CALLS: Final = 1_000
WINDOW_S: Final = 0.06
"""The piece of the agent's sound that is measured; of the caller's it is the last frame."""
FRAME_AGE_S: Final = 0.2
_LEVELS: Final = "live_levels"


@dataclass(frozen=True, slots=True)
class _Piece:
    audio: bytes
    audio_format: AudioFormat
    at_s: float
    """The time at which it came, or begins to play."""


class _Meter:
    """Both sides of one call."""

    def __init__(self, call: Call, clock_s: Callable[[], float]) -> None:
        self.call = call
        self._clock_s = clock_s
        self._caller: _Piece | None = None
        self._agent: deque[_Piece] = deque()
        self._plays_until_s = 0.0
        self.leave = call.listen_in(self)

    def on_caller(self, audio: bytes, audio_format: AudioFormat) -> None:
        self._caller = _Piece(audio, audio_format, self._clock_s())

    def on_agent(self, audio: bytes, audio_format: AudioFormat) -> None:
        begins_s = max(self._plays_until_s, self._clock_s())
        self._plays_until_s = begins_s + len(audio) / audio_format.bytes_per_second
        self._agent.append(_Piece(audio, audio_format, begins_s))

    def on_clear(self) -> None:
        self._agent.clear()
        self._plays_until_s = 0.0

    def on_over(self) -> None:
        pass

    def levels(self) -> tuple[int, int]:
        """The peaks of caller and agent now, in dBFS."""
        now_s = self._clock_s()
        caller, agent = self._caller, self._agent
        if caller is not None and now_s - caller.at_s > FRAME_AGE_S:
            caller = None
        while len(agent) > 1 and agent[1].at_s <= now_s:
            agent.popleft()
        return _peak(caller, 0.0), _peak(agent[0], now_s - agent[0].at_s) if agent else _SILENT


_SILENT: Final = round(SILENCE_DBFS)


def _peak(piece: _Piece | None, from_s: float) -> int:
    if piece is None:
        return _SILENT
    wire = piece.audio_format
    start = wire.ms_to_bytes(max(0, round(from_s * 1000)))
    return round(
        peak_dbfs(piece.audio[start : start + wire.ms_to_bytes(round(WINDOW_S * 1000))], wire)
    )


class LiveLevels:
    """The levels of all live calls, measured once for all who watch."""

    def __init__(self, switchboard: Switchboard, bus: Bus) -> None:
        self._switchboard = switchboard
        self._bus = bus
        self._meters: dict[CallId, _Meter] = {}
        self._unwatched: asyncio.TimerHandle | None = None
        self._asking = asyncio.Lock()
        self._found, self._found_s = "", 0.0
        bus.respond(_LEVELS, self._own)

    async def shown(self) -> str:
        """The levels as JSON, at most `LEVELS_EVERY_S` old.

        `calls` has, by the id of each call, the peak levels of caller and agent in dBFS, and whose
        turn it is.
        """
        async with self._asking:
            now_s = asyncio.get_running_loop().time()
            if not self._found or now_s - self._found_s >= LEVELS_EVERY_S / 2:
                answers = await self._bus.gather(_LEVELS, {})
                calls = {name: one for answer in answers for name, one in answer["calls"].items()}
                self._found = json.dumps({"type": "levels", "calls": calls}, separators=(",", ":"))
                self._found_s = now_s
            return self._found

    async def _own(self, _: Message) -> Message:
        loop = asyncio.get_running_loop()
        if self._unwatched is not None:
            self._unwatched.cancel()
        self._unwatched = loop.call_later(UNWATCHED_S, self._leave_alone)
        live = {call.call_id: call for call in self._switchboard.calls()[:MAX_CALLS]}
        for gone in self._meters.keys() - live.keys():
            del self._meters[gone]
        for call_id in live.keys() - self._meters.keys():
            self._meters[call_id] = _Meter(live[call_id], loop.time)
        return {
            "calls": {
                call_id: [*meter.levels(), meter.call.turn]
                for call_id, meter in self._meters.items()
            }
        }

    def _leave_alone(self) -> None:
        for meter in self._meters.values():
            meter.leave()
        self._meters.clear()
