"""Agents that use tools and hand over, spoken to in writing and by sound.

    OPENAI_API_KEY=... python examples/realtime_agents.py

Without a key the offline engine answers; it follows no instructions, so it uses none of the tools.
Functions among `tools` are described to the model by their docstrings and types. `handoffs` are
agents to whom the model can hand over, by tools called `transfer_to_...`. Sound is a turn once it
is committed. A request that comes while the agent speaks waits for the agent to finish.
"""

# ruff: noqa: T201 - an example prints

import asyncio
from pathlib import Path

from quickstart import a_model, unless_upstream_fails  # beside this file

from trunkline import Agent, AgentSession, SessionConfig, Transcription, VoiceError, VoiceModel
from trunkline.audio import PCM16_24K, PCMU_8K, Transcoder, encode_ulaw, read_wav
from trunkline.events import (
    AgentEnd,
    AgentStart,
    Audio,
    AudioEnd,
    HandoffMade,
    SessionError,
    ToolEnd,
    ToolStart,
    Utterance,
)


def get_weather(city: str) -> str:
    """Get the current weather for a city."""
    return f"The weather in {city} is sunny, 22 degrees."


async def book_appointment(date: str, time: str, service: str) -> str:
    """Book an appointment.

    Args:
        date: The day, as YYYY-MM-DD.
        time: The time of day, as HH:MM.
        service: What it is for.
    """
    return f"Appointment booked for {service} on {date} at {time}."


# Without turn detection, `commit` ends a turn.
settings = SessionConfig(transcription=Transcription(model="gpt-transcribe"), turn_detection=None)

support = Agent(
    name="Tech Support",
    instructions="Handle technical troubleshooting.",
    voice="alloy",
    session=settings,
    description="Takes technical questions.",
)
greeter = Agent(
    name="Greeter",
    instructions="Greet callers. Route technical questions to Tech Support.",
    voice="alloy",
    session=settings,
    tools=[get_weather, book_appointment],
    handoffs=[support],
)


async def main(model: VoiceModel, recording: bytes) -> int:
    """Ask in writing, then by sound; the number of bytes that the agents have spoken."""
    spoken = 0
    async with AgentSession(greeter, model) as session:
        await session.send_message("What is the weather in Lisbon?")
        asked_by_sound = False
        async for event in session:
            match event:
                case AgentStart():
                    print(f"agent start: {event.agent}")
                case Audio(audio=sound):
                    spoken += len(sound)
                case AudioEnd():
                    print("audio segment completed")
                case ToolStart():
                    print(f"tool call: {event.tool} {event.arguments}")
                case ToolEnd():
                    print(f"tool output: {event.output}")
                case HandoffMade():
                    print(f"handoff: {event.from_agent} -> {event.to_agent}")
                case Utterance():
                    print(f"{event.party}: {event.text}")
                case SessionError():
                    raise VoiceError(event.message or "it failed", code=event.code)
                case AgentEnd() if not session.busy:
                    if asked_by_sound:
                        break
                    asked_by_sound = True
                    await speak(session, recording)
        print(f"you spoke last with {session.current_agent.name}")
    return spoken


async def speak(session: AgentSession, recording: bytes, chunk_bytes: int = 4_800) -> None:
    """Send a recording (mono int16, 24 kHz) in chunks of 100 ms; the last one ends the turn."""
    for at in range(0, len(recording), chunk_bytes):
        last = at + chunk_bytes >= len(recording)
        await session.send_audio(recording[at : at + chunk_bytes], commit=last)


def a_recording() -> bytes:
    """Somebody who asks for the nurse: put your own recording here."""
    with (Path(__file__).parent / "clinic/calls/nurse.wav").open("rb") as file:
        _rate_hz, samples = read_wav(file)  # 8 kHz, as on the telephone
    bridge = Transcoder(PCMU_8K, PCM16_24K)
    return bridge.push(encode_ulaw(samples)) + bridge.flush()


async def run() -> None:
    async with a_model() as model:
        await unless_upstream_fails(model, main(model, a_recording()))


if __name__ == "__main__":
    asyncio.run(run())
