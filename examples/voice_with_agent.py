"""An agent with a tool, behind speech: the text model is any server of `/v1/chat/completions`.

    LLM_URL=http://127.0.0.1:11434/v1 LLM_MODEL=llama3.2 python examples/voice_with_agent.py

Without `LLM_URL` it asks OpenAI, with OPENAI_API_KEY.
"""

# ruff: noqa: T201 - an example prints, and reads its files where it needs them

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from trunkline import (
    Agent,
    AgentWorkflow,
    AudioInput,
    ChatCompletions,
    StageSpec,
    StreamingHttp,
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


async def main(base_url: str, model: str, api_key: str = "") -> None:
    """Answer a recording with the agent."""
    spec = StageSpec(base_url=base_url, model=model, api_key=api_key)
    async with offline_speech() as (stt, tts), StreamingHttp() as http:
        text_model = ChatCompletions(spec, http)
        result = await VoicePipeline(AgentWorkflow(agent, text_model), stt, tts).run(
            AudioInput.from_wav(QUESTION.read_bytes())
        )
        samples = 0
        async for event in result.stream():
            if event.type == "voice_stream_event_audio":
                samples += len(event.data)
            elif event.type == "voice_stream_event_error":
                fault = await fault_of(text_model)
                if fault is None:
                    sys.exit(f"pipeline error: {event.error}")
                print(f"SKIPPED: the text model fails by itself: {fault.message} ({fault.code})")
                return
            else:
                print(event.event)
    print(f"{samples / 24_000:.1f} s of speech")


async def fault_of(text_model: ChatCompletions) -> VoiceError | None:
    """Ask the text model alone, outside of any conversation; None where it answers."""
    probe = AgentWorkflow(Agent(name="Probe"), text_model)
    try:
        async for _ in probe.run("Say OK."):
            pass
    except VoiceError as fault:
        return fault
    finally:
        await probe.close()
    return None


if __name__ == "__main__":
    url = os.environ.get("LLM_URL", "https://api.openai.com/v1")
    key = os.environ.get("LLM_API_KEY") or os.environ.get("OPENAI_API_KEY", "")
    if not key and "LLM_URL" not in os.environ:
        sys.exit("SKIPPED: set LLM_URL, or OPENAI_API_KEY")
    asyncio.run(main(url, os.environ.get("LLM_MODEL", "gpt-6-luna"), key))
