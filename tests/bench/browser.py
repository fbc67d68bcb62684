"""The sound of the console's phone, in a real Chromium against a server with the offline engine.

    python -m tests.bench.browser

A minute's call in which the caller asks again and again. Figures: gaps in the agent's sound, and
how much later than due each mark came back. A mark is due when all sound before it has played, had
it begun to play on arrival; the page waits 60 to 80 ms before it begins, which counts as late here.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.browser.conftest import Site, open_page, spoken
from tests.fakes.ports import free_port

CALL_S = 60


class Marks:
    """The marks of one stream, by the frames of its socket."""

    def __init__(self) -> None:
        self.plays_until_s = 0.0
        self.due_s: dict[str, float] = {}
        self.late_ms: list[float] = []
        self.cleared = 0
        self.sound_ms = 0.0

    def watch(self, socket: Any) -> None:
        socket.on("framereceived", self.received)
        socket.on("framesent", self.sent)

    def received(self, text: str) -> None:
        message, now_s = json.loads(text), time.monotonic()
        if message["event"] == "media":
            lasts_s = len(base64.b64decode(message["media"]["payload"])) / 8000
            self.plays_until_s = max(self.plays_until_s, now_s) + lasts_s
            self.sound_ms += lasts_s * 1000
        elif message["event"] == "mark":
            self.due_s[message["mark"]["name"]] = max(self.plays_until_s, now_s)
        elif message["event"] == "clear":
            self.cleared += len(self.due_s)
            self.due_s.clear()
            self.plays_until_s = now_s

    def sent(self, text: str) -> None:
        message = json.loads(text)
        if message["event"] == "mark" and message["mark"]["name"] in self.due_s:
            due_s = self.due_s.pop(message["mark"]["name"])
            self.late_ms.append((time.monotonic() - due_s) * 1000)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        root, port = Path(folder), free_port()
        settings = {"voice_model": "offline", "server": {"port": port}, "state_dir": folder}
        (root / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")
        command = [sys.executable, "-m", "trunkline", "serve", "--config", folder + "/config.yaml"]
        with (root / "log").open("wb") as log:
            server = subprocess.Popen(command, env=os.environ, stdout=log, stderr=log)
        try:
            figures = measure(driver, Site(f"http://127.0.0.1:{port}", root))
            sys.stdout.write(json.dumps(figures, indent=2) + "\n")
        finally:
            server.terminate()
            server.wait()


def measure(driver: Any, site: Site) -> dict[str, Any]:
    parts: list[str | float] = [6.0, "hours", 9.0, "address"]
    words = spoken(site.folder / "caller.wav", *parts * 5, 30.0)
    browser = driver.chromium.launch(
        executable_path=shutil.which("chromium"),
        args=[
            "--no-sandbox",
            "--use-fake-device-for-media-stream",
            "--use-fake-ui-for-media-stream",
            f"--use-file-for-fake-audio-capture={words}%noloop",
        ],
    )
    page, marks = open_page(browser, site, "phone"), Marks()
    page.on("websocket", marks.watch)
    page.get_by_role("button", name="Call", exact=True).click()
    page.wait_for_timeout(CALL_S * 1000)
    underruns = page.evaluate("window.trunklinePhone.underruns")
    page.get_by_role("button", name="Hang up").click()
    browser.close()
    late = sorted(marks.late_ms)
    return {
        "call_s": CALL_S,
        "agent_sound_s": round(marks.sound_ms / 1000, 1),
        "underruns": underruns,
        "marks": len(late),
        "marks_cleared": marks.cleared,
        "mark_late_p50_ms": round(late[len(late) // 2]),
        "mark_late_p95_ms": round(late[int(len(late) * 0.95)]),
        "mark_late_max_ms": round(late[-1]),
    }


if __name__ == "__main__":
    main()
