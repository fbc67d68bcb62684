"""Pipecat's chain over the same stand-ins, for `make bench ARGS=pipeline`.

A program of its own, run by the Python of another environment (`PIPECAT_PYTHON`), since Pipecat is
no dependency: `python pipecat_chain.py URL SESSIONS TURNS SPEECH_MS`. It prints one JSON object.
Turns end as in our chain, by loudness and silence; Smart Turn and the transport are left out, which
is in its favor. Written for pipecat-ai 1.14.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
import sys
from time import perf_counter, process_time
from typing import Any

from loguru import logger
from pipecat.audio.vad.vad_analyzer import VADAnalyzer, VADParams
from pipecat.frames.frames import EndFrame, InputAudioRawFrame, TTSAudioRawFrame, TTSStoppedFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    LLMContextAggregatorPair,
    LLMUserAggregatorParams,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.stt import OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.turns.user_start import VADUserTurnStartStrategy
from pipecat.turns.user_stop import SpeechTimeoutUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

__all__: list[str] = []

RATE_HZ = 16_000
FRAME_MS = 20
SILENCE_S = 0.5
QUIET_MS = 900


class LevelVad(VADAnalyzer):  # type: ignore[misc]
    """Speech is what is loud."""

    def num_frames_required(self) -> int:
        return RATE_HZ * FRAME_MS // 1000

    def voice_confidence(self, buffer: bytes) -> float:
        return float(max(map(abs, struct.unpack(f"<{len(buffer) // 2}h", buffer))) > 1_000)


class Listener(FrameProcessor):  # type: ignore[misc]
    """Notes when an answer's first sound comes."""

    def __init__(self) -> None:
        super().__init__()
        self.first_s: float | None = None
        self.sounded = asyncio.Event()
        self.ended = asyncio.Event()

    async def process_frame(self, frame: Any, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, TTSAudioRawFrame) and self.first_s is None:
            self.first_s = perf_counter()
            self.sounded.set()
        elif isinstance(frame, TTSStoppedFrame):
            self.ended.set()
        await self.push_frame(frame, direction)


def speech(ms: int) -> bytes:
    """A loud tone, int16 mono at 16 kHz."""
    count = ms * RATE_HZ // 1000
    loud = (round(10_000 * math.sin(2 * math.pi * 440 * at / RATE_HZ)) for at in range(count))
    return struct.pack(f"<{count}h", *loud)


async def session(
    runner: WorkerRunner, url: str, turns: int, speech_ms: int, after_s: float
) -> list[float]:
    """Speak some turns in real time; milliseconds from the last sound to that of each answer."""
    await asyncio.sleep(after_s)
    listener = Listener()
    server = {"api_key": "none", "base_url": f"{url}/v1"}
    strategies = UserTurnStrategies(
        start=[VADUserTurnStartStrategy()],
        stop=[SpeechTimeoutUserTurnStopStrategy(user_speech_timeout=0.0)],
    )
    params = VADParams(start_secs=0.02, stop_secs=SILENCE_S, min_volume=0.0)
    pair = LLMContextAggregatorPair(
        LLMContext(),
        user_params=LLMUserAggregatorParams(
            vad_analyzer=LevelVad(params=params), user_turn_strategies=strategies
        ),
    )
    stt = OpenAISTTService(settings=OpenAISTTService.Settings(model="stand-in"), **server)
    llm = OpenAILLMService(settings=OpenAILLMService.Settings(model="stand-in"), **server)
    tts = OpenAITTSService(settings=OpenAITTSService.Settings(voice="alloy"), **server)
    rates = PipelineParams(audio_in_sample_rate=RATE_HZ, audio_out_sample_rate=24_000)
    chain = Pipeline([stt, pair.user(), llm, tts, listener, pair.assistant()])
    worker = PipelineWorker(chain, params=rates, enable_rtvi=False, idle_timeout_secs=None)
    await runner.add_workers(worker)
    found: list[float] = []
    silence = bytes(2 * QUIET_MS * RATE_HZ // 1000)
    frame_bytes = 2 * RATE_HZ * FRAME_MS // 1000
    for _ in range(turns):
        listener.first_s, stopped_s = None, 0.0
        listener.sounded.clear()
        listener.ended.clear()
        sound = speech(speech_ms) + silence
        due_s = perf_counter()
        for at in range(0, len(sound), frame_bytes):
            if at == 2 * speech_ms * RATE_HZ // 1000:
                stopped_s = perf_counter()
            piece = sound[at : at + frame_bytes]
            await worker.queue_frame(
                InputAudioRawFrame(audio=piece, sample_rate=RATE_HZ, num_channels=1)
            )
            due_s += FRAME_MS / 1000
            await asyncio.sleep(max(0.0, due_s - perf_counter()))
        async with asyncio.timeout(20):
            await listener.sounded.wait()
            await listener.ended.wait()
        assert listener.first_s is not None
        found.append((listener.first_s - stopped_s) * 1000)
    await worker.queue_frame(EndFrame())
    return found


async def main(url: str, count: int, turns: int, speech_ms: int) -> None:
    """Measure so many sessions at once."""
    logger.remove()
    runner = WorkerRunner(handle_sigint=False)
    running = asyncio.create_task(runner.run(auto_end=False))
    await asyncio.sleep(0.5)
    cpu_s, began_s = process_time(), perf_counter()
    sessions = [session(runner, url, turns, speech_ms, n * 0.13) for n in range(count)]
    after_ms = sorted(ms for one in await asyncio.gather(*sessions) for ms in one)
    cpu_s, lasted_s = process_time() - cpu_s, perf_counter() - began_s
    print(  # noqa: T201 - the result
        json.dumps(
            {
                "turns": len(after_ms),
                "caller_stop_to_sound_ms_p50": round(after_ms[len(after_ms) // 2], 1),
                "cpu_per_session_second": round(cpu_s / lasted_s / count, 4),
            }
        ),
        flush=True,
    )
    await runner.cancel()
    await asyncio.wait([running], timeout=10)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
