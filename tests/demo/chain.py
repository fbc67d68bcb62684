"""The stand-in servers of `make demo-pipeline`: three stages over real HTTP on loopback.

The transcriber wraps the offline recognizer, the voice the offline synthesizer, and the text model
answers by the words that it is given, streamed one by one as a real one does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from io import BytesIO
from typing import Any, Final

from app.engine.chain_assembly import offline_speech
from app.engine.stages.local import LocalTranscriber, LocalVoice
from app.errors import VoiceUnavailable
from audio.wav import read_wav
from tests.fakes.stage_servers import chat_stream, routed, scripted_chat
from tests.fakes.web_service import Asked, Script, WebService, answer

__all__ = ["open_stages", "receptionist"]

HOURS: Final = (
    "We are open Monday to Friday, from nine to five. On Saturdays we are open until noon,"
    " and on Sundays we are closed, I am sorry to say."
)
ADDRESS: Final = "We are at forty two Harbor Street, on the second floor."
GOODBYE: Final = "Thank you for calling. Goodbye!"
UNCLEAR: Final = "I can tell you our opening hours, or where we are."


def receptionist(body: dict[str, Any]) -> Script:
    """The answer to the last thing that the caller said."""
    if body["messages"][-1]["role"] == "tool":
        return _typed(UNCLEAR)  # `end_call` is never answered unless it failed
    said = next((m["content"] for m in reversed(body["messages"]) if m["role"] == "user"), "")
    words = said.lower()
    if "goodbye" in words or "thank" in words:
        calls = [("end_call", '{"reason": "caller_said_goodbye"}')] if body.get("tools") else []
        return _typed(GOODBYE, calls)
    if "hour" in words or "open" in words:
        return _typed(HOURS)
    if "where" in words or "located" in words or "address" in words:
        return _typed(ADDRESS)
    return _typed(UNCLEAR)


def _typed(text: str, calls: list[tuple[str, str]] | None = None) -> Script:
    return chat_stream(*(f"{word} " for word in text.split()), calls=calls or ())


@contextlib.asynccontextmanager
async def open_stages(
    reply: Callable[[dict[str, Any]], Script] = receptionist,
) -> AsyncIterator[WebService]:
    """One server of all three stages."""
    async with offline_speech() as (transcriber, voice):
        scripts = routed(stt=_transcribe(transcriber), llm=scripted_chat(reply), tts=_speak(voice))
        async with WebService(scripts) as server:
            yield server


def _transcribe(transcriber: LocalTranscriber) -> Script:
    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        rate_hz, samples = read_wav(BytesIO(asked.body[asked.body.index(b"RIFF") :]))
        assert rate_hz == 16_000
        try:
            text = await transcriber.transcribe(samples.astype("<i2").tobytes())
        except VoiceUnavailable:
            await answer(b"{}", status=503)(asked, writer)
            return
        await answer(json.dumps({"text": text}).encode())(asked, writer)

    return write


def _speak(voice: LocalVoice) -> Script:
    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        text = json.loads(asked.body)["input"]
        head = "HTTP/1.1 200 x\r\nContent-Type: audio/pcm\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        async for chunk in voice.speak(text, voice="alloy", speed=1.0):
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return write
