"""A server process that records, and a simulated call to it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from app.credentials.console_logins import Logins
from app.events import (
    AgentSaid,
    CallAdmitted,
    CallEnded,
    CallEvent,
    CallId,
    CallNotAnswered,
    CallPlaced,
    CallTurnedAway,
)
from app.store.sql.store import SqlStore
from tests.fakes.call_events import call_events, filled, recorded
from tests.fakes.waiting import TIME_LIMIT_S

__all__ = ["SCRIPT", "Site", "dialing", "keep_scripts", "serving"]

SCRIPT: Final = '<img src=x onerror="window.ran=1"><script>window.ran=1</script>'
"""Words that must stay words, wherever a page shows them."""

ONCE: Final = {CallAdmitted, CallPlaced, CallNotAnswered, CallTurnedAway, CallEnded}
"""Events that make the row of a call, and come once."""

CONFIG: Final = {
    "voice_model": "offline",
    "recording": {"enabled": True, "notice": "This call is being recorded."},
    "agents": {"desk": {"instructions": "Help.", "description": SCRIPT, "tools": ["find_slot"]}},
    "tools": {"find_slot": {"python": "desk_tools:find_slot", "description": SCRIPT}},
    "numbers": {"+15005550001": {"fallback": "shop"}},
    "destinations": {"shop": {"number": "+15005550099", "spoken": SCRIPT}},
    # On a busy machine words may be known late; until then a sound might be taken for a noise.
    "limits": {"false_interruption_ms": 0},
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


async def keep_scripts(database: Path) -> None:
    """Keep a call in whose events every text is a script, and in which the agent is cut off."""
    store = SqlStore(database)
    await store.open()
    [admitted, *events, ended] = call_events("call_evil", said=[SCRIPT], answer=SCRIPT)
    of = CallId("call_evil")
    kinds = [kind for kind in typing.get_args(CallEvent) if kind not in ONCE]
    events += [replace(filled(kind, SCRIPT), call_id=of) for kind in kinds]
    events.append(
        AgentSaid(
            call_id=of,
            at_ms=2_400,
            item_id="y",
            text="We are open until nine.",
            heard_text="We are open",
            cut_off=True,
        )
    )
    admitted = replace(filled(CallAdmitted, SCRIPT), call_id=of)
    began = datetime.now(UTC) - timedelta(hours=30)
    await store.append(recorded([admitted, *events, ended], began=began), instance="a test")
    await store.add_note(of, SCRIPT, author=SCRIPT)
    await store.set_tags(of, [SCRIPT])
    await store.close()


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
