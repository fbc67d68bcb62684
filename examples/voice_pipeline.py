"""Speech in, a function, speech out: one turn, without a key.

Writes `said.wav`. With servers of your own in place of the offline speech:

    stt = HttpTranscriber(StageSpec(base_url="http://127.0.0.1:8000/v1", model="whisper"), http)
    tts = HttpVoice(StageSpec(base_url="http://127.0.0.1:8880/v1", model="kokoro"), http)
"""

# ruff: noqa: T201, ASYNC240 - an example prints, and reads its files where it needs them

from __future__ import annotations

import asyncio
import sys
import wave
from pathlib import Path

from trunkline import AudioInput, SimpleWorkflow, VoicePipeline, offline_speech

QUESTION = Path(__file__).parents[1] / "app" / "dial" / "data" / "hours.wav"


async def main(question: Path = QUESTION, out: Path | None = None) -> None:
    """Answer a recording."""
    workflow = SimpleWorkflow(lambda text: f"You said: {text}.")
    sound = []
    async with offline_speech() as (stt, tts):
        pipeline = VoicePipeline(workflow, stt, tts)
        result = await pipeline.run(AudioInput.from_wav(question.read_bytes()))
        async for event in result.stream():
            if event.type == "voice_stream_event_audio":
                sound.append(event.data.tobytes())
            elif event.type == "voice_stream_event_error":
                sys.exit(f"pipeline error: {event.error}")
            else:
                print(event.event)
    spoken = b"".join(sound)
    print(f"{len(spoken) / 48_000:.1f} s of speech")
    if out is not None:
        with wave.open(str(out), "wb") as file:
            file.setparams((1, 2, 24_000, 0, "NONE", ""))
            file.writeframes(spoken)


if __name__ == "__main__":
    asyncio.run(main(out=Path("said.wav")))
