"""One real server and one real browser for all tests of the console.

Chromium is Debian's, at `chromium` on the path; without it, or without the package that drives it,
every test here is skipped. The server is a process of its own, with the offline engine: it takes
its time, so that what a page plays is heard in time. The microphone of a page is silent until the
test has it speak: what a person says follows what they hear, however slow the machine is.
"""

from __future__ import annotations

import asyncio
import base64
import shutil
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.site import Site, keep_scripts, serving
from tests.fakes.waiting import TIME_LIMIT_S

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

playwright = pytest.importorskip(
    "playwright.sync_api", reason="the console is not tested: install playwright"
)

CALLER = Path(__file__).parents[1] / "data" / "caller"

MICROPHONE = """
navigator.mediaDevices.getUserMedia = async () => {
  const context = new AudioContext();
  const microphone = context.createMediaStreamDestination();
  window.speak = async (wav) => {
    const bytes = Uint8Array.from(atob(wav), (letter) => letter.charCodeAt(0));
    const words = context.createBufferSource();
    words.buffer = await context.decodeAudioData(bytes.buffer);
    words.connect(microphone);
    words.start();
  };
  return microphone.stream;
};
"""


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server with a history in which everybody says scripts."""
    if shutil.which("chromium") is None:
        pytest.skip("the console is not tested: install chromium")
    folder = tmp_path_factory.mktemp("console")
    with ThreadPoolExecutor(1) as thread:  # the browser's own loop may run in this one
        database = folder / "state" / "calls.db"
        thread.submit(lambda: asyncio.run(keep_scripts(database))).result()
    with serving(folder) as found:
        yield found


# Not of the session: while it is open, its loop runs, and no other test could run one.
@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module")
def context(browser: Browser, site: Site) -> BrowserContext:
    """A person who has logged in."""
    playwright.expect.set_options(timeout=TIME_LIMIT_S * 1000)
    found = browser.new_context()
    found.set_default_timeout(TIME_LIMIT_S * 1000)
    found.add_init_script(MICROPHONE)
    page = found.new_page()
    page.goto(site.link)
    page.get_by_role("heading", name="Live calls").wait_for()
    page.close()
    return found


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Iterator[Any]:
    """A page of theirs."""
    found = open_page(context, site, "wall")
    yield found
    assert found.evaluate("window.ran") is None, "a script of somebody has run"
    found.close()
    assert found.faults == []


def open_page(context: BrowserContext, site: Site, view: str) -> Any:
    """A page that takes down scripts that fail, refusals of the policy, and dialogs."""
    page: Any = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("dialog", lambda dialog: page.faults.append(dialog.message))
    page.on(
        "console",
        lambda said: "Content Security Policy" in said.text and page.faults.append(said.text),
    )
    page.goto(f"{site.url}/console#/{view}")
    page.wait_for_selector("main h1")
    return page


def say(page: Page, words: str) -> None:
    """Have the page's microphone hear a clip of the caller, by the name of its file."""
    clip = base64.b64encode((CALLER / f"{words}.wav").read_bytes()).decode()
    page.evaluate("wav => window.speak(wav)", clip)


def until(page: Page, holds: str) -> None:
    """Look every 50 ms; the driver's own way has the page evaluate text, which it must not."""
    limit_s = time.monotonic() + TIME_LIMIT_S
    while time.monotonic() < limit_s:
        if page.evaluate(holds):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"never: {holds}")


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
