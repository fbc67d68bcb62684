"""Talk with a Realtime model in a terminal, by a small client with callbacks.

    OPENAI_API_KEY=... python examples/realtime_handler.py

It needs a microphone and a speaker of your own: replace the two functions below. As they stand the
microphone is silence in real time and the speaker only counts.
"""

# ruff: noqa: T201 - an example prints

import asyncio
import os
import sys

from trunkline import OpenAIRealtimeHandler, VoiceError, WebSocketModel, probe


async def get_audio_from_microphone() -> bytes:
    """20 ms of mono int16 sound at 24 kHz: put your audio source here."""
    await asyncio.sleep(0.02)
    return bytes(960)


async def play_audio(audio: bytes) -> None:
    """Mono int16 sound at 24 kHz: put your audio output here."""
    print(f"Playing {len(audio)} bytes")


async def listen(handler: OpenAIRealtimeHandler) -> None:
    """Send what the microphone hears, at its own pace."""
    while True:
        await handler.send_audio(await get_audio_from_microphone())


async def speak(handler: OpenAIRealtimeHandler) -> None:
    """Play what the model says, as it comes."""
    while True:
        await play_audio(await handler.get_audio())


async def main(api_key: str) -> None:
    handler = OpenAIRealtimeHandler(api_key=api_key, voice="alloy")
    handler.set_callbacks(
        on_user_transcript=lambda text: print(f"User: {text}"),
        on_transcript=lambda text, is_final: print(f"AI: {text}") if is_final else None,
        on_interrupted=lambda: print("(stop your speaker here)"),
        on_error=lambda code, message: print(f"Error: {code} {message}"),
    )
    await handler.connect(initial_prompt="Hello! How can I help you today?")
    try:
        # Two tasks: neither the microphone nor the speaker waits for the other.
        await asyncio.gather(listen(handler), speak(handler))
    finally:
        await handler.disconnect()


def run() -> None:
    """Talk until Ctrl-C; skip it where a probe proves that the model fails by itself."""
    api_key = os.environ.get("OPENAI_API_KEY")
    if not api_key:
        sys.exit("Set OPENAI_API_KEY to a key from https://platform.openai.com/api-keys")
    try:
        asyncio.run(main(api_key))
    except KeyboardInterrupt:
        print("Goodbye.")
    except VoiceError as error:
        found = asyncio.run(probe(WebSocketModel.openai(api_key, "gpt-realtime-2.1")))
        if found.ok:
            sys.exit(f"The model cannot be talked with: {error.message} ({error.code})")
        print(f"SKIPPED: {found}")


if __name__ == "__main__":
    run()
