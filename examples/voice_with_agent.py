"""An agent with a tool, behind speech: its text model is OpenAI's, or any compatible server's.

    OPENAI_API_KEY=sk-... python examples/voice_with_agent.py
    OPENAI_BASE_URL=http://127.0.0.1:11434/v1 python examples/voice_with_agent.py llama3.2

The speech is the offline engine's; with `VoicePipeline(AgentWorkflow(agent))` it is OpenAI's too.
"""

# ruff: noqa: T201 - an example prints, and reads its files where it needs them

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from trunkline import (
    Agent,
    AgentWorkflow,
    AudioInput,
    ConfigError,
    VoiceError,
    VoicePipeline,
    offline_speech,
    tool,
)

QUESTION = Path(__file__).parents[1] / "app" / "dial" / "data" / "hours.wav"


@tool
def opening_hours(day: str) -> str:
    """Find the opening hours of a day."""
    return f"On {day} we are open from nine to five."


agent = Agent(
    name="Assistant",
    instructions="You are a helpful voice assistant. Answer in one sentence.",
    tools=[opening_hours],
)


async def main(model: str = "gpt-6-luna") -> None:
    """Answer a recording with the agent."""
    workflow = AgentWorkflow(agent, model)
    async with offline_speech() as (stt, tts):
        result = await VoicePipeline(workflow, stt, tts).run(
            AudioInput.from_wav(QUESTION.read_bytes())
        )
        samples = 0
        async for event in result.stream():
            if event.type == "voice_stream_event_audio":
                samples += len(event.data)
            elif event.type == "voice_stream_event_error":
                fault = await fault_of(model)
                if fault is None:
                    sys.exit(f"pipeline error: {event.error}")
                print(f"SKIPPED: the text model fails by itself: {fault.message} ({fault.code})")
                return
            else:
                print(event.event)
    print(f"{samples / 24_000:.1f} s of speech")


async def fault_of(model: str) -> VoiceError | None:
    """Ask the text model alone, outside of any conversation; None where it answers."""
    probe = AgentWorkflow(Agent(name="Probe"), model)
    try:
        async for _ in probe.run("Say OK."):
            pass
    except VoiceError as fault:
        return fault
    finally:
        await probe.close()
    return None


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except ConfigError as error:
        sys.exit(f"SKIPPED: {error.message}")
