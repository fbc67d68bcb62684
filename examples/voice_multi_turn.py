"""Several turns in one stream of sound, with a greeting: the turns are found by voice activity.

Runs offline, on recordings of a caller.
"""

# ruff: noqa: T201 - an example prints, and reads its files where it needs them

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from trunkline import SimpleWorkflow, StreamedAudioInput, VoicePipeline, offline_speech
from trunkline.audio import read_wav

DATA = Path(__file__).parents[1] / "app" / "dial" / "data"
FRAME = 160


class Memory:
    """Remembers the turns, as a workflow of your own would."""

    def __init__(self) -> None:
        self.turns: list[str] = []

    async def answer(self, text: str) -> AsyncIterator[str]:
        """Answer in pieces, as a text model writes them."""
        self.turns.append(text)
        yield f"That was turn {len(self.turns)}. "
        yield f"You said: {text}."


async def main() -> None:
    """Play recordings into the pipeline, and count what comes out."""
    memory = Memory()
    workflow = SimpleWorkflow(memory.answer, greeting="Hello! I am listening.")
    async with offline_speech() as (stt, tts):
        audio = StreamedAudioInput(frame_rate=8_000)
        result = await VoicePipeline(workflow, stt, tts).run(audio)
        async with asyncio.TaskGroup() as group:
            group.create_task(speak(audio, "hours.wav", "address.wav"))
            async for event in result.stream():
                if event.type == "voice_stream_event_lifecycle":
                    print(event.event)
                elif event.type == "voice_stream_event_error":
                    sys.exit(f"pipeline error: {event.error}")
    for turn in memory.turns:
        print(f"heard: {turn}")


async def speak(audio: StreamedAudioInput, *names: str) -> None:
    """Send recordings in frames of 20 ms, with a pause behind each; the last one ends abruptly."""
    for name in names:
        rate_hz, samples = read_wav(io.BytesIO((DATA / name).read_bytes()))
        assert rate_hz == 8_000
        for at in range(0, len(samples), FRAME):
            await audio.add_audio(samples[at : at + FRAME])
        for _ in range(50 if name != names[-1] else 0):
            await audio.add_audio(samples[:FRAME] * 0)
    await audio.add_audio(None)


if __name__ == "__main__":
    asyncio.run(main())
