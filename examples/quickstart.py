"""A first voice agent: say something in writing, and read what it answers while it speaks.

    python examples/quickstart.py

With `OPENAI_API_KEY` set it talks with OpenAI's model, else with the offline engine, which needs no
key and answers set questions ("when are you open?").
"""

# ruff: noqa: T201 - an example prints

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager

from trunkline import (
    Agent,
    AgentSession,
    AppError,
    ServerVad,
    SessionConfig,
    Transcription,
    VoiceError,
    VoiceModel,
    WebSocketModel,
    make_engine,
    probe,
)

assistant = Agent(
    name="Assistant",
    instructions="You are a helpful voice assistant. Keep your answers brief and friendly.",
    session=SessionConfig(
        output_modalities=("audio",),
        transcription=Transcription(model="gpt-transcribe"),
        turn_detection=ServerVad(threshold=0.5, prefix_padding_ms=300, silence_duration_ms=200),
    ),
)


async def main(model: VoiceModel, question: str = "Hello! When are you open?") -> None:
    async with AgentSession(assistant, model) as session:
        await session.send_message(question)
        async for event in session:
            match event.type:
                case "said":
                    print(f"{'Assistant' if event.party == 'agent' else 'You'}: {event.text}")
                case "audio":
                    pass  # event.audio: mono int16 at 24 kHz, for your speaker
                case "audio_interrupted":
                    pass  # stop your speaker, and drop what it has not played
                case "error":
                    raise VoiceError(event.message or "it failed", code=event.code)
                case "agent_end":
                    break


@asynccontextmanager
async def a_model() -> AsyncIterator[VoiceModel]:
    """OpenAI's model where there is a key, else the offline engine in this process."""
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        yield WebSocketModel.openai(key, "gpt-realtime-2.1")
        return
    engine = make_engine(max_sessions=1, workers=1)
    await engine.start()
    try:
        yield engine.model()
    finally:
        await engine.close()


async def run() -> None:
    async with a_model() as model:
        await unless_upstream_fails(model, main(model))


async def unless_upstream_fails(model: VoiceModel, program: Coroutine[None, None, object]) -> None:
    """Run an example; skip it where a probe proves that the model fails by itself."""
    try:
        await program
    except AppError as error:
        found = await probe(model)
        if found.ok:
            sys.exit(f"The model cannot be talked with: {error.message} ({error.code})")
        print(f"SKIPPED: {found}")


if __name__ == "__main__":
    asyncio.run(run())
