"""Stand-ins for servers of one stage, that differ from each other as the real ones do.

Each is a `Script` for `WebService`. `piecewise` writes an answer in pieces, with pauses, and may
cut it off.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import struct
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tests.fakes.engine_parts import speech
from tests.fakes.web_service import Asked, Script, answer

__all__ = [
    "PATHS",
    "chat_stream",
    "form_values",
    "piecewise",
    "routed",
    "silent",
    "speech_events",
    "sse",
    "transcript_events",
    "wav",
]

PATHS = ("/audio/transcriptions", "/chat/completions", "/responses", "/audio/speech")


def piecewise(*pieces: bytes, content_type: str, pause_s: float = 0.0, cut: bool = False) -> Script:
    """A chunked answer; `cut` closes the connection before its end."""

    async def write(_: Asked, writer: asyncio.StreamWriter) -> None:
        head = (
            f"HTTP/1.1 200 x\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        writer.write(head.encode())
        for piece in pieces:
            if piece:
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
            await asyncio.sleep(pause_s)
        if cut:
            writer.close()
            return
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    return write


def form_values(body: bytes, name: str) -> list[str]:
    """The values of a field in a multipart form."""
    field = re.compile(rf'name="{re.escape(name)}"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r]*)'.encode())
    return [value.decode() for value in field.findall(body)]


async def silent(_: Asked, __: asyncio.StreamWriter) -> None:
    """Take the request and never answer."""
    await asyncio.Event().wait()


def routed(**scripts: Script) -> Script:
    """One server for several stages: `stt`, `llm`, `responses`, `tts`, by the path."""
    by_path = dict(
        zip(PATHS, (scripts.get(n) for n in ("stt", "llm", "responses", "tts")), strict=True)
    )

    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        for path, script in by_path.items():
            if asked.target.endswith(path) and script is not None:
                await script(asked, writer)
                return
        await answer(b'{"error":{"message":"no such path"}}', status=404)(asked, writer)

    return write


def sse(*events: Mapping[str, Any] | str, cut: bool = False, pause_s: float = 0.0) -> Script:
    """Server-sent events, each its own piece; a text goes out as it is."""
    pieces = [
        (event if isinstance(event, str) else f"data: {json.dumps(event)}\n\n").encode()
        for event in events
    ]
    return piecewise(*pieces, content_type="text/event-stream", cut=cut, pause_s=pause_s)


def transcript_events(*deltas: str) -> Script:
    """As OpenAI streams a transcript."""
    whole = "".join(deltas)
    return sse(
        *({"type": "transcript.text.delta", "delta": delta} for delta in deltas),
        {"type": "transcript.text.done", "text": whole, "usage": {"type": "tokens"}},
    )


def chat_stream(
    *words: str, calls: Iterable[tuple[str, str]] = (), usage: tuple[int, int] | None = (20, 5)
) -> Script:
    """As OpenAI streams an answer: usage last, arguments in pieces, noise in the deltas."""
    return sse(*chat_events(*words, calls=calls, usage=usage), "data: [DONE]\n\n")


def chat_events(
    *words: str, calls: Iterable[tuple[str, str]] = (), usage: tuple[int, int] | None = (20, 5)
) -> list[dict[str, Any]]:
    """The events of `chat_stream`."""
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"role": "assistant"}}]}]
    for word in words:
        delta = {"content": word}
        events.append(
            {"choices": [{"index": 0, "delta": delta}], "obfuscation": "x9", "usage": None}
        )
    calls = list(calls)
    for index, (name, arguments) in enumerate(calls):
        half = len(arguments) // 2
        first = {"index": index, "id": f"call_{index}", "type": "function",
                 "function": {"name": name, "arguments": arguments[:half]}}  # fmt: skip
        rest = {"index": index, "function": {"arguments": arguments[half:]}}
        events += [{"choices": [{"delta": {"tool_calls": [piece]}}]} for piece in (first, rest)]
    reason = "tool_calls" if calls else "stop"
    events.append({"choices": [{"delta": {}, "finish_reason": reason}], "usage": None})
    if usage is not None:
        prompt, completion = usage
        used = {"prompt_tokens": prompt, "completion_tokens": completion}
        events.append({"choices": [], "usage": used})
    return events


def scripted_chat(reply: Callable[[dict[str, Any]], Script]) -> Script:
    """A text model that looks at the request's body."""

    async def write(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await reply(json.loads(asked.body))(asked, writer)

    return write


def wav(pcm16: bytes, rate_hz: int, *, channels: int = 1, size: int | None = None) -> bytes:
    """A WAV file; `size` is what its header claims."""
    length = len(pcm16) if size is None else size
    fmt = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * 2 * channels, 2 * channels, 16)
    extra = b"LIST" + struct.pack("<I", 4) + b"INFO"
    riff = b"RIFF" + struct.pack("<I", (36 + length) & 0xFFFFFFFF) + b"WAVE"
    head = riff + b"fmt " + struct.pack("<I", 16) + fmt + extra
    return head + b"data" + struct.pack("<I", length) + pcm16


def speech_events(pcm16: bytes, *, cut: bool = False) -> Script:
    """As OpenAI streams speech with `stream_format: sse`."""
    deltas: list[dict[str, Any]] = [
        {"type": "speech.audio.delta", "audio": base64.b64encode(pcm16[at : at + 4801]).decode()}
        for at in range(0, len(pcm16), 4801)
    ]
    end = [] if cut else [{"type": "speech.audio.done", "usage": {}}]
    return sse(*deltas, *end, cut=cut)


def spoken(text_ms: int = 400) -> bytes:
    """Sound of a sentence: int16 at 24 kHz."""
    return speech(text_ms, 24_000)
