"""A real browser and a real server, for tests of the console.

Chromium is Debian's, at `chromium` on the path; without it, or without the package that drives it,
every test here is skipped. The server is a process of its own, with the offline engine: it takes
its time, so that what a page plays is heard in time.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.ports import free_port

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the console is not tested: install playwright"
)

CALLER = Path(__file__).parents[1] / "data" / "caller"
NUMBER = "+15005550006"
WAIT_MS = 60_000


@dataclass(frozen=True, slots=True)
class Site:
    """A server that runs."""

    url: str
    folder: Path


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server in a process, as `trunkline serve` makes it; logins need nothing on this machine."""
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    settings = {
        "voice_model": "offline",
        "server": {"port": port},
        "numbers": {NUMBER: {}},
        "state_dir": str(folder / "state"),
    }
    (folder / "config.yaml").write_text(json.dumps(settings), encoding="utf-8")
    command = [sys.executable, "-m", "trunkline", "serve", "--config", str(folder / "config.yaml")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        yield Site(f"http://127.0.0.1:{port}", folder)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


Launch = Callable[[Path | None], Any]


# Not of the session: while it is open, its loop runs, and no other test could run one.
@pytest.fixture(scope="module")
def launch() -> Iterator[Launch]:
    """Start a browser whose microphone plays a WAV file once, or silence."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("the console is not tested: install chromium")
    with playwright.sync_playwright() as driver:
        browsers = []

        def started(microphone: Path | None = None) -> Any:
            options = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
            if microphone is not None:
                options.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
            browser = driver.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", *options]
            )
            browsers.append(browser)
            return browser

        yield started
        for browser in browsers:
            browser.close()


def open_page(browser: Any, site: Site, view: str) -> Any:
    """A page of the console that fails its test by an error of its scripts."""
    page = browser.new_page()
    page.set_default_timeout(WAIT_MS)
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    answer = None
    for _ in range(300):
        try:
            answer = page.goto(f"{site.url}/console#/{view}")
            break
        except playwright.Error:
            page.wait_for_timeout(200)
    assert answer is not None, (site.folder / "log").read_text()
    assert answer.ok, (site.folder / "log").read_text()
    return page


def spoken(path: Path, *parts: str | float) -> Path:
    """A WAV file of the caller's words, by the names of their files, and of pauses in seconds."""
    frames = b""
    for part in parts:
        if isinstance(part, str):
            with wave.open(str(CALLER / f"{part}.wav")) as words:
                rate = words.getframerate()
                frames += words.readframes(words.getnframes())
        else:
            frames += bytes(2 * round(8000 * part))
    with wave.open(str(path), "wb") as out:
        out.setparams((1, 2, rate, 0, "NONE", ""))
        out.writeframes(frames)
    return path
