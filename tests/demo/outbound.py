"""`make demo-outbound`: the server calls seven numbers, and finds out who, or what, answers each.

No key and no account: the offline engine talks, a stand-in takes the place of the carrier's REST
API and its phones, and callees are scripts that speak. Each call is printed while it goes on, and
kept in `var/demo-outbound`, where `trunkline calls explain` reads it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from app.errors import AppError
from app.events import (
    AgentSaid,
    AnswerJudged,
    CallEnded,
    CallEvent,
    CallNotAnswered,
    CallRinging,
    DisclosureHeard,
    ToolRan,
)
from app.installation import command
from tests.demo.callees import CALLEES, Callee, play
from tests.fakes.voice import ScriptedVoiceServer
from tests.fakes.waiting import until
from tests.integration.outbound_site import OutboundSite, outbound_site

__all__ = ["NOBODY", "DemoResult", "run_demo"]

FOLDER: Final = Path("var") / "demo-outbound"
DIALOGUE: Final = Path(__file__).with_suffix(".yaml")
MESSAGE: Final = "Please remember your appointment tomorrow at ten o'clock."
SCREENING: Final = "I am calling about an appointment."
RING_S: Final = 2.0
HANG_UP_S: Final = 20.0
"""A callee hangs up on an agent who has not done so by then."""

BUSY: Final = Callee("a busy line", ())
NOBODY: Final = Callee("nobody", ())
_ENDS: Final = {BUSY.name: ("busy", 486), NOBODY.name: ("no-answer", None)}

_EXPECTED: Final = {
    "a person": ("answered", "agent_hung_up"),
    "a mailbox with a beep": ("answered", "answered_by_voicemail"),
    "a mailbox without a beep": ("answered", "answered_by_voicemail"),
    "a phone that screens calls": ("answered", "agent_hung_up"),
    "a menu": ("answered", "answered_by_ivr"),
    BUSY.name: ("busy", "sip_486"),
    NOBODY.name: ("no_answer", "no_answer"),
}

Tell = Callable[[str, str], None]
"""Takes who speaks, and the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """A call that is over: what came of it, and how it is explained."""

    callee: Callee
    call_id: str
    outcome: tuple[str, str]
    explained: str

    @property
    def ok(self) -> bool:
        return self.outcome == _EXPECTED[self.callee.name]


async def run_demo(
    callees: Sequence[Callee], tell: Tell, state_dir: Path, *, at_once: bool = False
) -> list[DemoResult]:
    """Call each of them, one after the other or all at once; `tell` hears what happens."""
    answered_by = {"message": MESSAGE, "screening": SCREENING}
    outbound = {"answered_by": answered_by, "max_calls": len(callees)}
    offline = {"receptionist": str(DIALOGUE)}
    async with (
        ScriptedVoiceServer() as unused,
        outbound_site(
            unused,
            speed=1.0,
            state_dir=state_dir,
            offline=offline,
            agents={"caller": {}},
            outbound=outbound,
        ) as site,
    ):
        site.app.switchboard._observers += (lambda event: _tell(event, tell),)
        shown: list[asyncio.Task[DemoResult]] = []
        async with asyncio.TaskGroup() as tasks:
            for nth, callee in enumerate(callees):
                shown.append(tasks.create_task(_call(site, nth, callee, tell)))
                await (site.rings(nth) if at_once else shown[-1])
        return [one.result() for one in shown]


async def _call(site: OutboundSite, nth: int, callee: Callee, tell: Tell) -> DemoResult:
    tell("", callee.name)
    call_id = await site.placed(f"+1415555014{nth}")
    ringing = await site.rings(nth)
    if callee is not BUSY:
        await site.phones.ring(ringing.sid)
    if callee.name in _ENDS:
        await asyncio.sleep(RING_S)
        status, sip_code = _ENDS[callee.name]
        await site.ends(ringing, status, sip_code)
    else:
        call = await site.pick_up(ringing, answered_by=callee.detected)
        await play(call, callee, lambda said: tell(callee.name, _shown(said)))
        await until(lambda: call.over, within_s=HANG_UP_S)
    found = await site.outcome(call_id)
    await site.kept(call_id)
    explained = (await site.request("GET", f"/calls/{call_id}/explain")).text
    outcome = (str(found["outcome"]), str(found["code"]))
    return DemoResult(callee=callee, call_id=call_id, outcome=outcome, explained=explained)


def _shown(step: str) -> str:
    return "(beep)" if step.startswith("beep ") else step


def _tell(event: CallEvent, tell: Tell) -> None:
    match event:
        case CallRinging():
            tell("carrier", "the phone rings")
        case CallNotAnswered(reason=reason):
            tell("carrier", reason)
        case AnswerJudged():
            evidence = "; ".join(event.evidence)
            tell("verdict", f"{event.verdict} after {event.after_ms / 1000:.1f} s: {evidence}")
        case AgentSaid():
            tell("agent", event.heard_text if event.cut_off else event.text)
        case DisclosureHeard(by_mark=by_mark):
            proof = "the carrier's mark came back" if by_mark else "by the clock"
            tell("proof", f"the disclosure was heard to its end: {proof}")
        case ToolRan(name=name):
            tell("agent", f"calls {name}")
        case CallEnded(summary=summary):
            tell("end", summary.reason.value.replace("_", " "))
        case _:
            pass


def _printer(console: Console) -> Tell:
    def tell(party: str, words: str) -> None:
        if not party:
            console.rule(Text(words, "bold"))
        else:
            color = {"agent": "cyan", "verdict": "yellow", "proof": "green"}.get(party, "white")
            console.print(Text(f"{party[:26]:>26}  ", color), Text(words), sep="", soft_wrap=True)

    return tell


def main() -> int:
    """Show all calls; 0 when each went as it should."""
    console = Console(highlight=False)
    logging.disable(logging.CRITICAL)  # the conversation is the log
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    try:
        shown = asyncio.run(run_demo((*CALLEES, BUSY, NOBODY), _printer(console), FOLDER.resolve()))
    except AppError as error:
        console.print(Text(error.message, "red"))
        return 1
    except KeyboardInterrupt:
        return 130
    console.rule(Text("kept", "bold"))
    for one in shown:
        mark = Text("as expected  " if one.ok else "NOT expected ", "green" if one.ok else "red")
        console.print(mark, Text(f"{one.callee.name}: {' '.join(one.outcome)}"), sep="")
        told = f"{command()} calls explain {one.call_id} --database --config {FOLDER}/config.yaml"
        console.print(f"  {told}", soft_wrap=True)
    return 0 if all(one.ok and one.call_id in one.explained for one in shown) else 1


if __name__ == "__main__":
    sys.exit(main())
