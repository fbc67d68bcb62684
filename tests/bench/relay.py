"""The baseline of the call benchmark: the least that can carry a call.

FastAPI, uvloop, msgspec and the same sound conversion, one socket each way and nothing else: no
signature, no admission, no marks, no barge-in, no transcript, no limits. What Trunkline costs
beyond it is what its services cost.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import sys

import msgspec
import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from audio.format import PCM16_24K, PCMU_8K
from audio.transcoder import Transcoder


class _Media(msgspec.Struct):
    payload: str


class _Message(msgspec.Struct):
    event: str
    streamSid: str = ""
    media: _Media | None = None


class _ServerEvent(msgspec.Struct):
    type: str
    delta: str = ""


decode_media = msgspec.json.Decoder(_Message).decode
decode_event = msgspec.json.Decoder(_ServerEvent).decode


def make_relay(model_url: str) -> FastAPI:
    """An application that relays `/twilio/media-stream` to the model at `model_url`."""
    app = FastAPI()
    encode = msgspec.json.Encoder().encode

    @app.websocket("/twilio/media-stream")
    async def relay(phone: WebSocket) -> None:
        await phone.accept()
        up, down = Transcoder(PCMU_8K, PCM16_24K), Transcoder(PCM16_24K, PCMU_8K)
        async with connect(model_url, compression=None, max_size=2**24) as model:
            stream_sid = ""

            async def to_phone() -> None:
                async for text in model:
                    event = decode_event(text)
                    if event.type != "response.output_audio.delta":
                        continue
                    sound = down.push(base64.b64decode(event.delta))
                    payload = base64.b64encode(sound).decode("ascii")
                    message = {
                        "event": "media",
                        "streamSid": stream_sid,
                        "media": {"payload": payload},
                    }
                    try:
                        await phone.send_text(encode(message).decode("ascii"))
                    except WebSocketDisconnect:  # the caller has hung up over the agent's words
                        return

            async with asyncio.TaskGroup() as both:
                task = both.create_task(to_phone())
                with contextlib.suppress(WebSocketDisconnect, ConnectionClosed):
                    while True:
                        message = decode_media(await phone.receive_text())
                        if message.media is not None:
                            sound = up.push(base64.b64decode(message.media.payload))
                            append = {
                                "type": "input_audio_buffer.append",
                                "audio": base64.b64encode(sound).decode("ascii"),
                            }
                            await model.send(encode(append).decode("ascii"))
                        elif message.event == "start":
                            stream_sid = message.streamSid
                        elif message.event == "stop":
                            break
                task.cancel()

    return app


def main() -> None:
    """`python -m tests.bench.relay PORT MODEL_URL`"""
    port, model_url = int(sys.argv[1]), sys.argv[2]
    uvicorn.run(
        make_relay(model_url),
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
