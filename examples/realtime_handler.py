"""Talk with a Realtime model in a terminal: the seed system's example, with another import and key.

Needs `OPENAI_API_KEY`, and a microphone and a speaker of your own: replace the two functions below.
As they stand the microphone is silence in real time and the speaker only counts.
"""

# ruff: noqa: T201 - an example prints

import asyncio
import os

from trunkline import OpenAIRealtimeHandler


async def get_audio_from_microphone() -> bytes:
    """20 ms of mono int16 sound at 24 kHz: put your audio source here."""
    await asyncio.sleep(0.02)
    return bytes(960)


async def play_audio(audio: bytes) -> None:
    """Mono int16 sound at 24 kHz: put your audio output here."""
    print(f"Playing {len(audio)} bytes")


async def main() -> None:
    handler = OpenAIRealtimeHandler(
        api_key=os.environ["OPENAI_API_KEY"],
        voice="alloy",
    )

    # Set callbacks
    handler.set_callbacks(
        on_audio=lambda audio: print(f"Received {len(audio)} bytes"),
        on_user_transcript=lambda text: print(f"User: {text}"),
        on_transcript=lambda text, is_final: print(f"AI: {text}"),
    )

    # Connect
    await handler.connect(initial_prompt="Hello! How can I help you today?")

    # Send audio chunks
    while True:
        audio_chunk = await get_audio_from_microphone()  # Your audio source
        await handler.send_audio(audio_chunk)

        # Receive AI audio
        try:
            ai_audio = await asyncio.wait_for(handler.get_audio(), timeout=0.1)
            await play_audio(ai_audio)  # Your audio output
        except asyncio.TimeoutError:  # noqa: UP041 - kept as the seed wrote it
            pass


if __name__ == "__main__":
    asyncio.run(main())
