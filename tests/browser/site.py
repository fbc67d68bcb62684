"""A server process that records, and a simulated call to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.console_logins import Logins
from tests.fakes.waiting import TIME_LIMIT_S

__all__ = ["SCRIPT", "Site", "dialing", "serving"]

SCRIPT: Final = '<img src=x onerror="window.ran=1"><script>window.ran=1</script>'
"""Words that must stay words, wherever a page shows them."""

CONFIG: Final = {
    "voice_model": "offline",
    "recording": {"enabled": True, "notice": "This call is being recorded."},
    "agents": {"desk": {"instructions": "Help.", "description": SCRIPT, "tools": ["find_slot"]}},
    "tools": {"find_slot": {"python": "desk_tools:find_slot", "description": SCRIPT}},
    "numbers": {"+15005550001": {"fallback": "shop"}},
    "destinations": {"shop": {"number": "+15005550099", "spoken": SCRIPT}},
}

TOOLS: Final = f"""\
def find_slot(people: int, name: str = "nobody", outside: bool = False) -> dict[str, object]:
    return {{"words": {SCRIPT!r}, "people": people, "name": name, "outside": outside}}
"""


@dataclass(frozen=True, slots=True)
class Site:
    """A server that runs."""

    url: str
    state_dir: Path
    environment: dict[str, str]

    @property
    def link(self) -> str:
        """An address that logs in, once."""
        return f"{self.url}/console#login={Logins(self.state_dir).make_link()}"


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Site]:
    """`trunkline serve` with the offline engine, recording, on a free port."""
    (folder / "config.yaml").write_text(json.dumps(CONFIG), encoding="utf-8")
    (folder / "desk_tools.py").write_text(TOOLS, encoding="utf-8")
    state_dir = folder / "state"
    environment = {
        **os.environ,
        "STATE_DIR": str(state_dir),
        "OPERATOR_TOKEN": "a token of operators",  # so that this machine needs a login too
        "SERVER_HOST": "127.0.0.1",
    }
    command = [sys.executable, "-m", "trunkline", "serve", "--port", "0"]
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        assert process.stdout is not None
        found = None
        for line in process.stdout:
            found = found or re.search(r"http://127\.0\.0\.1:\d+", line)
            if found and "/console" in line:
                break
        assert found, (folder / "log").read_text()
        yield Site(found[0], state_dir, environment)
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(TIME_LIMIT_S)
        process.kill()
        process.communicate()
        log.close()


@contextlib.contextmanager
def dialing(site: Site, folder: Path, *, most_s: int) -> Iterator[subprocess.Popen[bytes]]:
    """A simulated call, for at most so long."""
    command = [sys.executable, "-m", "trunkline", "dial", "--to", site.url]
    command += ["--at-most-s", str(most_s), "--out", str(folder / "dial.wav")]
    with (folder / "dial.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=site.state_dir.parent, env=site.environment, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(TIME_LIMIT_S)
