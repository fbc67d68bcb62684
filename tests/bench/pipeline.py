"""The chained engine beyond its stages: stand-ins of known delay, so many sessions at once.

The stand-ins are one server in a process of its own; transcript, first word and first sound come
150, 300 and 100 ms after they were asked for. Sessions speak in real time, in frames of 20 ms,
a little apart. Measured at the client: from the last sound of its words to the first of the answer;
the chain's own is what remains without the stages and the silence that makes them begin. Behind it,
where `PIPECAT_PYTHON` names one, Pipecat's chain does the same (`pipecat_chain.py`).
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import statistics
import subprocess
from multiprocessing.connection import Connection
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Final

from app.engine.chain_assembly import ChainStages, make_chain_engine
from app.engine.server import Engine
from app.engine.stages.base import StageSpec
from app.engine.stages.text_models import ChatCompletions
from app.engine.stages.text_to_speech import HttpVoice
from app.engine.stages.transcriptions import HttpTranscriber
from app.http.streaming import StreamingHttp
from app.realtime import events as ev
from audio.format import PCM16_24K
from tests.fakes.engine_parts import LevelDetector, quiet, speech
from tests.fakes.stage_servers import chat_stream, piecewise, routed
from tests.fakes.web_service import Asked, Script, WebService, answer

__all__ = ["run"]

DELAYS_S: Final = {"stt": 0.150, "llm": 0.300, "tts": 0.100}
TURNS: Final = 4
SPEECH_MS: Final = 800
FRAME_BYTES: Final = 960
LIKELY_END_MS: Final = 64
"""The default of `pipeline.vad.likely_end_ms`."""


def run(counts: tuple[int, ...] = (1, 20)) -> dict[str, Any]:
    """Measure so many sessions at once."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,))
    server.start()
    try:
        url = ours.recv()
        found: dict[str, Any] = {
            f"{count}, {name}": asyncio.run(_measure(count, url, likely_end_ms))
            for count in counts
            for name, likely_end_ms in (("proven ends", 0), ("likely ends", LIKELY_END_MS))
        }
        return found | _beside_pipecat(url, counts, found)
    finally:
        ours.send("stop")
        server.join()


def _beside_pipecat(
    url: str, counts: tuple[int, ...], ours: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Pipecat's chain over the same server, and what share of its CPU time ours takes."""
    python = os.environ.get("PIPECAT_PYTHON")
    if not python:
        return {
            "pipecat": "SKIPPED: PIPECAT_PYTHON is the Python of a venv with pipecat-ai[openai]"
        }
    found: dict[str, Any] = {}
    for count in counts:
        arguments = [url, str(count), str(TURNS), str(SPEECH_MS)]
        done = subprocess.run(
            [python, str(Path(__file__).with_name("pipecat_chain.py")), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=300,
        )
        theirs = json.loads(done.stdout.splitlines()[-1])
        cpu = ours[f"{count}, proven ends"]["cpu_per_session_second"]
        share = round(cpu / theirs["cpu_per_session_second"], 2)
        found[f"{count}, pipecat"] = {**theirs, "our_share_of_its_cpu": share}
    return found


def _serve(pipe: Connection) -> None:
    asyncio.run(_stand_ins(pipe))


async def _stand_ins(pipe: Connection) -> None:
    words = chat_stream("We are open today. ", "Is there anything else?")
    sound = piecewise(speech(900, 24_000), content_type="audio/pcm")
    scripts = routed(
        stt=_late(DELAYS_S["stt"], answer(b'{"text": "Are you open?"}')),
        llm=_late(DELAYS_S["llm"], words),
        tts=_late(DELAYS_S["tts"], sound),
    )
    async with WebService(scripts) as service:
        pipe.send(service.url)
        await asyncio.to_thread(pipe.recv)


def _late(delay_s: float, script: Script) -> Script:
    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay_s)
        await script(asked, writer)

    return write


async def _measure(count: int, url: str, likely_end_ms: int) -> dict[str, Any]:
    # Of the silence only what comes before the stages begin is in the time.
    silence_ms = likely_end_ms or ev.ServerVad().silence_duration_ms
    known_ms = silence_ms + 1000 * sum(DELAYS_S.values())
    spec = StageSpec(base_url=url, model="stand-in")
    async with StreamingHttp() as http:
        engine = make_chain_engine(
            ChainStages(
                stt=[HttpTranscriber(spec, http)],
                llm=[ChatCompletions(spec, http)],
                tts=[HttpVoice(spec, http)],
            ),
            max_sessions=count,
            likely_end_ms=likely_end_ms,
            make_detector=LevelDetector,
        )
        await engine.start()
        try:
            cpu_s, began_s = process_time(), perf_counter()
            sessions = [_session(engine, index * 0.13) for index in range(count)]
            after_ms = sorted(ms for one in await asyncio.gather(*sessions) for ms in one)
            cpu_s, lasted_s = process_time() - cpu_s, perf_counter() - began_s
        finally:
            await engine.close()
    return {
        "turns": len(after_ms),
        "caller_stop_to_sound_ms_p50": round(statistics.median(after_ms), 1),
        "beyond_stages_ms_p50": round(statistics.median(after_ms) - known_ms, 1),
        "beyond_stages_ms_p99": round(after_ms[int(0.99 * (len(after_ms) - 1))] - known_ms, 1),
        "cpu_per_session_second": round(cpu_s / lasted_s / count, 4),
    }


async def _session(engine: Engine, after_s: float) -> list[float]:
    """Speak some turns in real time; milliseconds from the last sound to that of each answer."""
    await asyncio.sleep(after_s)
    config = ev.SessionConfig(input_format=PCM16_24K, turn_detection=ev.ServerVad())
    connection = await engine.model().connect(config)
    found: list[float] = []
    answered = asyncio.Event()
    stopped_s: float | None = None

    async def read() -> None:
        nonlocal stopped_s
        async for event in connection:
            if isinstance(event, ev.AudioDelta) and stopped_s is not None:
                found.append((perf_counter() - stopped_s) * 1000)
                stopped_s = None
            elif isinstance(event, ev.ResponseDone):
                answered.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        for _ in range(TURNS):
            answered.clear()
            sound = speech(SPEECH_MS, 24_000) + quiet(900, 24_000)
            due_s = perf_counter()
            for at in range(0, len(sound), FRAME_BYTES):
                if at == SPEECH_MS * 48:  # all of the words have been sent
                    stopped_s = perf_counter()
                await connection.send(ev.InputAudioAppend(sound[at : at + FRAME_BYTES]))
                due_s += 0.020
                await asyncio.sleep(max(0.0, due_s - perf_counter()))
            await answered.wait()
        await connection.close()
    return found
