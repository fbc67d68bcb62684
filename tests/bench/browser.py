"""The sound of the console in a real Chromium, against a server with the offline engine.

    python -m tests.bench browser

A minute's call in which the caller asks again and again: gaps in the agent's sound, how much later
than due each mark came back, and how much worse than the carrier's the page's sound is. A mark is
due when all sound before it has played, had it begun to play on arrival; the page waits up to 30 ms
before it begins, which counts as late here. Then a call that another page listens in to: how far
behind both sides are. A proxy between browser and server takes the time of every frame.

The sound is judged by PESQ (ITU-T P.862, narrow band) with the carrier's sound as reference: of
equal sounds it gives 4.55. `pip install -e .[bench]` brings it, and needs a C compiler.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from app.framing import FrameReader
from audio.g711 import decode_ulaw
from tests.fakes.ports import free_port

CALL_S: Final = 60
LISTEN_S: Final = 25
PHONE_HZ: Final = 8_000
GOALS: Final = {"pesq_below": 0.2, "underruns": 0, "mark_late_ms": 40, "listening_behind_ms": 300}
LOUD: Final = 0.06
QUIET_S: Final = 0.5
"""A sound that begins after so much silence is an onset."""

Samples = NDArray[np.float32]


class _Socket:
    """Both directions of one connection of the proxy, and its frames with their times."""

    def __init__(self, on_frame: Callable[[_Socket, str, dict[str, Any], float], None]) -> None:
        self.on_frame = on_frame
        self.readers: dict[str, FrameReader] = {}
        self.heads = {"up": b"", "down": b""}

    def feed(self, way: str, data: bytes) -> None:
        if way in self.readers:
            self.readers[way].feed(data)
            return
        self.heads[way] = (self.heads[way] + data)[-65_536:]
        head, end, rest = self.heads[way].partition(b"\r\n\r\n")
        wanted = b"sec-websocket-key" if way == "up" else b"sec-websocket-accept"
        if not end or wanted not in head.lower():
            return

        def on_text(text: bytes) -> None:
            self.on_frame(self, way, json.loads(text), time.time())

        self.readers[way] = FrameReader(
            _Always(),
            masked=way == "up",
            max_bytes=2**20,
            on_text=on_text,
            on_rest=lambda _: None,
            call_soon=lambda do: asyncio.get_running_loop().call_soon(do),
        )
        if rest:
            self.readers[way].feed(rest)


class _Always:
    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None: ...
    def resume_reading(self) -> None: ...


class Marks:
    """One stream as its carrier would play it: when marks are due, and the sound in time."""

    def __init__(self) -> None:
        self.plays_until_s = 0.0
        self.due_s: dict[str, float] = {}
        self.late_ms: list[float] = []
        self.cleared = 0
        self.played: list[tuple[float, bytes]] = []
        self.spoken: list[tuple[float, bytes]] = []

    def on_frame(self, way: str, message: dict[str, Any], now_s: float) -> None:
        match way, message["event"]:
            case "down", "media":
                sound = base64.b64decode(message["media"]["payload"])
                begins_s = max(self.plays_until_s, now_s)
                self.played.append((begins_s, sound))
                self.plays_until_s = begins_s + len(sound) / PHONE_HZ
            case "down", "mark":
                self.due_s[message["mark"]["name"]] = max(self.plays_until_s, now_s)
            case "down", "clear":
                self.cleared += len(self.due_s)
                self.due_s.clear()
                self.played = _cut(self.played, now_s)
                self.plays_until_s = now_s
            case "up", "mark" if message["mark"]["name"] in self.due_s:
                self.late_ms.append((now_s - self.due_s.pop(message["mark"]["name"])) * 1000)
            case "up", "media":
                self.spoken.append((now_s, base64.b64decode(message["media"]["payload"])))


def _cut(played: list[tuple[float, bytes]], now_s: float) -> list[tuple[float, bytes]]:
    heard = [(at, sound[: max(0, round((now_s - at) * PHONE_HZ))]) for at, sound in played]
    return [(at, sound) for at, sound in heard if sound]


class TimedProxy:
    """Carries bytes between browser and server in a thread of its own."""

    def __init__(self, port: int, to_port: int) -> None:
        self.port, self.to_port = port, to_port
        self.streams: list[Marks] = []
        self._of: dict[_Socket, Marks] = {}

    def _on_frame(self, socket: _Socket, way: str, message: dict[str, Any], now_s: float) -> None:
        if message["event"] == "start":
            self._of[socket] = Marks()
            self.streams.append(self._of[socket])
        elif socket in self._of:
            self._of[socket].on_frame(way, message, now_s)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        socket = _Socket(self._on_frame)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.to_port)

        async def pump(way: str, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65_536):
                    to.write(data)
                    socket.feed(way, data)
            to.close()

        with contextlib.suppress(asyncio.CancelledError):  # the end of the proxy
            await asyncio.gather(
                pump("up", reader, server_writer), pump("down", server_reader, writer)
            )

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever, daemon=True)
        thread.start()
        started = asyncio.start_server(self._accept, "127.0.0.1", self.port)
        asyncio.run_coroutine_threadsafe(started, loop).result()
        try:
            yield
        finally:
            asyncio.run_coroutine_threadsafe(_end_all(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()


async def _end_all() -> None:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


# What a page plays, as it goes to the sound card; and the times at which a sound begins.
_TAP: Final = """
registerProcessor("tap", class extends AudioWorkletProcessor {
  constructor({ processorOptions: { loud, quiet } }) {
    super();
    Object.assign(this, { loud, quiet: quiet * sampleRate, since: [Infinity, Infinity] });
  }
  process([channels]) {
    channels.forEach((samples, side) => samples.forEach((sample, n) => {
      if (Math.abs(sample) < this.loud) this.since[side]++;
      else {
        const at = Date.now() + (n / sampleRate) * 1000;
        if (this.since[side] > this.quiet) this.port.postMessage({ onset: [side, at] });
        this.since[side] = 0;
      }
    }));
    if (channels.length) this.port.postMessage({ samples: channels[0].slice() });
    return true;
  }
});
"""
_TAPPED: Final = """async ([name, script, loud, quiet]) => {
  const { context, player } = window[name];
  await context.audioWorklet.addModule(`data:text/javascript;base64,${script}`);
  const options = { numberOfOutputs: 0, processorOptions: { loud, quiet } };
  const tap = new AudioWorkletNode(context, "tap", options);
  const found = (window.tapped = { rate: context.sampleRate, blocks: [], onsets: [] });
  tap.port.onmessage = ({ data: { onset, samples } }) =>
    onset ? found.onsets.push(onset) : found.blocks.push(samples);
  player.node.connect(tap);
}"""
_SAMPLES: Final = """() => {
  const { rate, blocks } = window.tapped;
  const all = new Int16Array(blocks.length * 128);
  blocks.forEach((block, n) => block.forEach((x, m) => {
    all[n * 128 + m] = Math.max(-1, Math.min(1, x)) * 32767;
  }));
  let text = "";
  const bytes = new Uint8Array(all.buffer);
  for (let at = 0; at < bytes.length; at += 32768) {
    text += String.fromCharCode(...bytes.subarray(at, at + 32768));
  }
  return [rate, btoa(text)];
}"""


def tap(page: Any, name: str) -> None:
    """Take down what the player of `window[name]` plays."""
    script = base64.b64encode(_TAP.encode()).decode()
    page.evaluate(_TAPPED, [name, script, LOUD, QUIET_S])


def at_phone_rate(page: Any) -> Samples:
    """The samples of a tap at 8 kHz; what is above 4 kHz is gone."""
    rate, text = page.evaluate(_SAMPLES)
    samples = np.frombuffer(base64.b64decode(text), np.int16).astype(np.float32) / 32768
    count = len(samples) * PHONE_HZ // rate
    spectrum = np.fft.rfft(samples)[: count // 2 + 1]
    whole = np.fft.irfft(spectrum, count) * count / len(samples)
    return np.asarray(whole, np.float32)


def utterances(played: list[tuple[float, bytes]]) -> list[Samples]:
    """Stretches of a carrier's sound, of a second at least, that silence parts."""
    found: list[list[bytes]] = []
    ends_s = 0.0
    for at_s, sound in played:
        if at_s - ends_s > QUIET_S:
            found.append([])
        found[-1].append(sound)
        ends_s = at_s + len(sound) / PHONE_HZ
    whole = [decode_ulaw(b"".join(parts)).astype(np.float32) / np.float32(2**15) for parts in found]
    return [one for one in whole if len(one) > PHONE_HZ]


def quality(played: list[tuple[float, bytes]], heard: Samples) -> dict[str, Any]:
    """PESQ of each utterance as the page played it, against the carrier's sound."""
    try:
        from pesq import pesq
    except ImportError:
        return {"pesq": "not measured: pip install -e .[bench]"}
    scores = []
    for reference in utterances(played):
        size = len(heard) + len(reference)
        place = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(reference, size)), size)
        at = int(np.argmax(place[: len(heard)]))
        part = heard[at : at + len(reference)]
        if len(part) < len(reference):
            continue  # it began before the tap, or was not over
        scores.append(float(pesq(PHONE_HZ, reference, part, "nb")))
    best = float(pesq(PHONE_HZ, reference, reference, "nb"))
    return {
        "utterances": len(scores),
        "pesq_of_equal_sounds": round(best, 2),
        "pesq_median": round(float(np.median(scores)), 2),
        "pesq_least": round(min(scores), 2),
    }


def measure_sound(launch: Callable[..., Any], url: str, proxy: TimedProxy, folder: Path) -> Any:
    parts: list[str | float] = [6.0, "hours", 9.0, "address"]
    page = _talking(launch, url, folder, *parts * 5, 30.0)
    tap(page, "trunklinePhone")
    page.wait_for_timeout(CALL_S * 1000)
    underruns = page.evaluate("window.trunklinePhone.underruns")
    page.get_by_role("button", name="Hang up").click()
    marks = proxy.streams[-1]
    late = sorted(marks.late_ms)
    return {
        "call_s": CALL_S,
        "agent_sound_s": round(sum(len(sound) for _, sound in marks.played) / PHONE_HZ, 1),
        "underruns": underruns,
        "marks": len(late),
        "marks_cleared": marks.cleared,
        "mark_late_p50_ms": round(late[len(late) // 2]),
        "mark_late_p95_ms": round(late[int(len(late) * 0.95)]),
        "mark_late_max_ms": round(late[-1]),
        **quality(marks.played, at_phone_rate(page)),
    }


def measure_listening(launch: Callable[..., Any], url: str, proxy: TimedProxy, folder: Path) -> Any:
    parts: list[str | float] = [5.0, "hours"]
    page = _talking(launch, url, folder, *parts * 5, 30.0)
    call_id = page.evaluate("window.trunklinePhone.call.call_id")
    listener = _opened(launch(None), url, f"call/{call_id}")
    listener.get_by_role("button", name="Listen", exact=True).click()
    listener.get_by_text("You hear both sides").wait_for()
    tap(listener, "trunklineListener")
    listener.wait_for_timeout(LISTEN_S * 1000)
    heard = listener.evaluate("window.tapped.onsets")
    page.get_by_role("button", name="Hang up").click()
    marks = proxy.streams[-1]
    sides = {"caller": onsets(marks.spoken), "agent": onsets(marks.played)}
    return {
        f"{name}_behind_ms": behind([at for side, at in heard if side == n], sides[name])
        for n, name in enumerate(sides)
    }


def onsets(sound: list[tuple[float, bytes]]) -> list[float]:
    """The times, in milliseconds, at which it is loud after a silence."""
    found: list[float] = []
    loud_s = 0.0
    for at_s, ulaw in sound:
        for place in np.flatnonzero(np.abs(decode_ulaw(ulaw)) >= LOUD * 32768):
            now_s = at_s + int(place) / PHONE_HZ
            if now_s - loud_s > QUIET_S:
                found.append(now_s * 1000)
            loud_s = now_s
    return found


def behind(heard: list[float], sent: list[float]) -> list[int]:
    """For each onset that was heard, how long before that it was sent."""
    pairs = [(at, [one for one in sent if at - 2_000 < one <= at + 5]) for at in heard]
    return [round(at - before[-1]) for at, before in pairs if before]


def _talking(launch: Callable[..., Any], url: str, folder: Path, *words: str | float) -> Any:
    from tests.browser.conftest import spoken

    page = _opened(launch(spoken(folder / "caller.wav", *words)), url, "phone")
    page.get_by_role("button", name="Call", exact=True).click()
    page.get_by_text("talking").wait_for()
    return page


def _opened(browser: Any, url: str, view: str) -> Any:
    page = browser.new_page(bypass_csp=True)  # which lets no script in that is not the server's
    page.set_default_timeout(60_000)
    page.goto(f"{url}/console#/{view}")
    return page


def run() -> dict[str, Any]:
    """Measure both, one after the other; goals stand beside the figures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        return {"skipped": "no chromium is installed"}
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder, port = Path(name), free_port()
        proxy = TimedProxy(free_port(), port)
        settings = {"voice_model": "offline", "server": {"port": port}, "state_dir": name}
        (folder / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "trunkline", "serve", "--config", name + "/config.yaml"]
        with (folder / "log").open("wb") as log:
            server = subprocess.Popen(command, env=os.environ, stdout=log, stderr=log)

        def launch(microphone: Path | None) -> Any:
            options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
            if microphone is not None:
                options.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
            return driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", *options])

        try:
            _wait_for(port)
            with proxy.running():
                url = f"http://127.0.0.1:{proxy.port}"
                found = measure_sound(launch, url, proxy, folder)
                return {
                    "goals": GOALS,
                    "sound": found,
                    "listening": measure_listening(launch, url, proxy, folder),
                }
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int) -> None:
    import socket

    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.1)
    raise TimeoutError("the server does not answer")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(), indent=2) + "\n")
