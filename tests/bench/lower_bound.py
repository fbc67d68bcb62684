"""The lower bound of the call benchmark: a relay on raw protocol objects.

The same sound conversion and the same JSON codec as the others, and nothing else: bytes come in at
`data_received` and leave by `transport.write`, with no framework, task or queue for a frame.

    python -m tests.bench.lower_bound PORT MODEL_URL
"""

from __future__ import annotations

import asyncio
import base64
import sys

import msgspec
import uvloop

from audio.format import PCM16_24K, PCMU_8K
from audio.transcoder import Transcoder
from tests.bench.relay import decode_event, decode_media
from tests.bench.wire import WireClient, WireServer

_encode = msgspec.json.Encoder().encode


class _Phone(WireServer):
    def __init__(self, model_url: str) -> None:
        super().__init__()
        self._up = Transcoder(PCMU_8K, PCM16_24K)
        self._model_url = model_url
        self._model: _Model | None = None
        self._connecting: asyncio.Task[None] | None = None
        self.stream_sid = ""

    def on_open(self) -> None:
        self._connecting = asyncio.create_task(self._connect())

    async def _connect(self) -> None:
        model = _Model(self._model_url, self)
        await model.connect()
        self._model = model

    def on_text(self, text: bytes) -> None:
        message = decode_media(text)
        if message.media is not None:
            if self._model is None:
                return
            sound = self._up.push(base64.b64decode(message.media.payload))
            append = {
                "type": "input_audio_buffer.append",
                "audio": base64.b64encode(sound).decode("ascii"),
            }
            self._model.send(_encode(append))
        elif message.event == "start":
            self.stream_sid = message.streamSid

    def on_end(self) -> None:
        if self._model is not None:
            self._model.transport.close()


class _Model(WireClient):
    def __init__(self, url: str, phone: _Phone) -> None:
        super().__init__(url)
        self._phone = phone
        self._down = Transcoder(PCM16_24K, PCMU_8K)

    def on_text(self, text: bytes) -> None:
        event = decode_event(text)
        if event.type != "response.output_audio.delta":
            return
        sound = self._down.push(base64.b64decode(event.delta))
        payload = base64.b64encode(sound).decode("ascii")
        message = {
            "event": "media",
            "streamSid": self._phone.stream_sid,
            "media": {"payload": payload},
        }
        self._phone.send(_encode(message))


async def _serve(port: int, model_url: str) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Phone(model_url), "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(int(sys.argv[1]), sys.argv[2]))
