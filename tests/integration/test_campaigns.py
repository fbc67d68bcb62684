"""Campaigns, and the commands and the function that have a server call people."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner, Result

import trunkline
from app.cli import app as command_line
from app.credentials.api_keys import Scope
from app.errors import CarrierUnavailable, PlacingRefused
from app.logs import JsonFormatter, Redactor
from app.realtime.events import ResponseCreate
from tests.fakes.ports import free_port
from tests.fakes.twilio_rest import ApiCall
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit, until
from tests.integration.outbound_site import CALLEE, OPERATOR, OutboundSite, outbound_site
from tests.integration.test_api import new_key
from tests.integration.test_examples import example

CONTACTS: Final = [f"+1415555010{nth}" for nth in range(5)]
CSV: Final = "\ufeffnumber,name\n" + "".join(f"{one},Jo\n" for one in (*CONTACTS, CONTACTS[0]))


@contextlib.asynccontextmanager
async def calling(
    fate: Callable[[ApiCall], str] = lambda _: "busy", **sections: Any
) -> AsyncIterator[OutboundSite]:
    """A server whose callees are busy, or what `fate` says; `answer` talks with the agent."""
    replies = [Reply(audio_ms=100, text="Hello.")] * 20
    async with (
        ScriptedVoiceServer(replies=replies) as voice,
        outbound_site(voice, **sections) as site,
        asyncio.TaskGroup() as phones,
    ):

        async def ring(ringing: ApiCall) -> None:
            await site.phones.ring(ringing.sid)
            if (status := fate(ringing)) != "answer":
                await site.ends(ringing, status)
                return
            call = await site.answer(ringing)
            await call.hang_up()

        site.api.placed = lambda ringing: void(phones.create_task(ring(ringing)))
        site.app.trunkline.outbound.campaigns._tick_s = 0.02
        yield site


def void(_: object) -> None:
    return None


async def run(site: OutboundSite, *args: str, key: str = OPERATOR) -> Result:
    """Run a command of `trunkline` beside the server."""
    options = ["--server", site.app.url, "--key", key]
    runner = CliRunner()
    return await asyncio.to_thread(lambda: runner.invoke(command_line, [*args, *options]))


async def printed(site: OutboundSite, *args: str, key: str = OPERATOR) -> str:
    result = await run(site, *args, key=key)
    assert result.exit_code == 0, result.output
    return result.stdout


async def state_of(site: OutboundSite, campaign_id: str) -> Mapping[str, Any]:
    found: dict[str, Any] = (await site.request("GET", f"/campaigns/{campaign_id}")).json()
    return found


async def until_it_is(site: OutboundSite, campaign_id: str, state: str) -> Mapping[str, Any]:
    async with time_limit():
        while True:
            found = await state_of(site, campaign_id)
            if found["state"] == state:
                return found
            await asyncio.sleep(0.05)


async def test_the_command_calls_somebody_and_tells_what_came_of_it() -> None:
    fates = {CALLEE: "busy", CONTACTS[0]: "answer"}
    async with calling(lambda ringing: fates[ringing.to]) as site:
        busy = await run(site, "call", CALLEE, "--agent", "caller", "--set", "name=Jo")
        assert (busy.exit_code, "busy: the line was busy" in busy.output) == (1, True)
        assert "trunkline calls explain call_" in busy.output
        answered = await printed(site, "call", CONTACTS[0], "--agent", "caller")
        assert "answered: caller hung up" in answered
        shown = await printed(site, "call", CALLEE, "--agent", "caller", "--json", "--no-wait")
        assert json.loads(shown)["number"] == CALLEE
        await until(lambda: not site.dialer.active)
        on_its_way = await printed(site, "call", CALLEE, "--agent", "caller", "--no-wait")
        assert "is on its way" in on_its_way
        await until(lambda: not site.dialer.active)
        refused = [
            (["--agent", "nobody"], 1, "there is no agent 'nobody'"),
            (["--agent", "caller", "--set", "age=7"], 1, "has no variable age"),
            (["--agent", "caller", "--set", "age"], 2, "write --set name=value"),
            (["--agent", "caller", "--time-zone", "Mars/Phobos"], 1, "no time zone Mars/Phobos"),
            (["--agent", "caller", "--time-zone", "America"], 1, "no time zone America"),
            (["--agent", "caller", "--purpose", "marketing"], 1, "needs consent on record"),
        ]
        for options, code, words in refused:
            result = await run(site, "call", CALLEE, *options)
            assert (result.exit_code, words in " ".join(result.output.split())) == (code, True)
        assert len(site.api.calls) == 4


async def test_the_do_not_call_list_by_its_commands() -> None:
    async with calling() as site:
        admin = new_key(site.app, Scope.ADMIN)
        await printed(site, "do-not-call", "add", CALLEE, "--reason", "asked us")
        listed = await printed(site, "do-not-call", "list")
        assert CALLEE in listed
        assert "asked us" in listed
        refused = await run(site, "call", CALLEE, "--agent", "caller")
        assert (refused.exit_code, "do-not-call list" in refused.output) == (1, True)
        part = await run(site, "do-not-call", "add", "4155550123")
        assert (part.exit_code, "write the whole number" in part.output) == (1, True)
        small = await run(site, "do-not-call", "remove", CALLEE)
        assert (small.exit_code, "needs the scope admin" in small.output) == (1, True)
        assert "off the list" in await printed(site, "do-not-call", "remove", CALLEE, key=admin)
        assert "was not on" in await printed(site, "do-not-call", "remove", CALLEE, key=admin)
        marketing = ["call", CALLEE, "--agent", "caller", "--purpose", "marketing", "--no-wait"]
        await printed(site, "do-not-call", "consent", CALLEE, "--source", "web form")
        await printed(site, *marketing)
        await until(lambda: not site.dialer.active)
        await printed(site, "do-not-call", "consent", CALLEE, "--withdrawn")
        assert (await run(site, *marketing)).exit_code == 1
        assert len(site.api.calls) == 1


async def test_a_campaign_is_made_paused_resumed_and_done(tmp_path: Path) -> None:
    contacts = tmp_path / "contacts.csv"
    contacts.write_text(CSV, encoding="utf-8")
    dialed: Counter[str] = Counter()
    go_on = asyncio.Event()

    def fate(ringing: ApiCall) -> str:
        dialed[ringing.to] += 1
        return "answer" if ringing.to == CONTACTS[4] else "busy"

    async with calling(fate) as site:
        options = ["--agent", "caller", "--attempts", "2", "--retry", "busy=0", "--max-calls", "1"]
        made = await printed(
            site, "campaign", "create", "reminders", str(contacts), *options, "--per-second", "500"
        )
        campaign_id = made.partition(":")[0]
        assert "5 contacts" in made
        assert not dialed
        place = site.dialer.place

        async def paused_after_one(order: Any) -> Any:
            attempt = await place(order)
            if dialed.total() == 1 and not go_on.is_set():
                await site.request("POST", f"/campaigns/{campaign_id}/pause")
            return attempt

        site.dialer.place = paused_after_one  # type: ignore[method-assign]
        assert "running" in await printed(site, "campaign", "resume", campaign_id)
        await until_it_is(site, campaign_id, "paused")
        await until(lambda: not site.dialer.active)
        calls = dialed.total()
        assert calls < 5
        assert "paused (by " in await printed(site, "campaign", "list")
        again = await run(site, "campaign", "pause", campaign_id)
        assert (again.exit_code, again.output.strip()) == (1, "The campaign is paused")
        assert dialed.total() == calls
        go_on.set()
        await printed(site, "campaign", "resume", campaign_id)
        done = await until_it_is(site, campaign_id, "done")
        assert done["contacts"] == {"done": 5, "outcome.answered": 1, "outcome.busy": 4}
        assert dialed == {**dict.fromkeys(CONTACTS[:4], 2), CONTACTS[4]: 1}
        shown = await printed(site, "campaign", "show", campaign_id)
        assert f"{CONTACTS[0]}  done  2 tries  busy  call_" in shown
        over = await run(site, "campaign", "cancel", campaign_id)
        assert (over.exit_code, over.output.strip()) == (1, "The campaign is done")
        # New contacts of a campaign that is done are called once it is resumed.
        path = f"/campaigns/{campaign_id}"
        late = {"csv": f"number,name\n{CALLEE},Jo\n{CONTACTS[0]},Jo\n"}
        added = (await site.request("POST", f"{path}/contacts", late)).json()
        assert added == {"given": 2, "added": 1, "repeated": 0}
        await printed(site, "campaign", "resume", campaign_id)
        assert (await until_it_is(site, campaign_id, "done"))["contacts"]["done"] == 6
        assert (dialed[CALLEE], dialed[CONTACTS[0]]) == (2, 2)
        other = await printed(site, "campaign", "create", "others", str(contacts), *options)
        other_id = other.partition(":")[0]
        await printed(site, "campaign", "cancel", other_id)
        refused = await site.request("POST", f"/campaigns/{other_id}/contacts", late)
        assert (refused.status_code, refused.json()["code"]) == (409, "campaign_state")


async def test_the_caps_of_a_campaign_hold() -> None:
    per_s, loop = 20.0, asyncio.get_running_loop()
    async with calling() as site:
        site.api.placed = void  # phones ring until their time
        place, begun_s = site.dialer.place, list[float]()

        async def noted(order: Any) -> Any:
            begun_s.append(loop.time())
            return await place(order)

        site.dialer.place = noted  # type: ignore[method-assign]
        body = {"name": "x", "agent": "caller", "csv": CSV, "attempts": 1}
        caps = {"calls_per_second": per_s, "max_calls": 2}
        made = (await site.request("POST", "/campaigns", {**body, **caps})).json()
        await site.request("POST", f"/campaigns/{made['campaign_id']}/resume")
        for nth in range(5):
            ringing = await site.rings(nth)
            assert len([one for one in site.api.calls.values() if one.status == "queued"]) <= 2
            assert len(begun_s) <= nth + 2
            await site.ends(ringing, "busy")
        await until_it_is(site, made["campaign_id"], "done")
    tick_s = site.app.trunkline.outbound.campaigns._tick_s
    for nth, at_s in enumerate(begun_s):
        assert at_s - begun_s[0] >= nth / per_s - tick_s - 0.001, begun_s


WRONG: Final[list[tuple[bytes, list[str], str]]] = [
    (b"phone\n1\n", [], "contacts.csv:1: expected names of columns"),
    (b"number,name\n4155,x\n+14155550101\n", [], "contacts.csv:3: 1 columns in place of 2"),
    ("number\nJörg\n".encode("cp1252"), [], "contacts.csv:2: byte 0xf6 is not UTF-8"),
    (b"number\n+14155550101\n", ["--encoding", "klingon"], "there is no such encoding"),
    (b"number\n", [], "contacts.csv: there are no contacts in it"),
    (b"number,age\n+14155550101,7\n", [], "has no variable age"),
    (CSV.encode(), ["--hours", "9-17"], "are not hours of one day"),
    (CSV.encode(), ["--hours", "22:00-23:00"], "are not within those of the server"),
    (CSV.encode(), ["--retry", "bussy=3"], "retry_s.bussy"),
]


async def test_a_campaign_with_something_wrong_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "contacts.csv"
    async with calling(outbound={"hours": "08:00-21:00"}) as site:
        for content, options, words in WRONG:
            path.write_bytes(content)
            create = ["campaign", "create", "x", str(path), "--agent", "caller", "--start"]
            result = await run(site, *create, *options)
            assert result.exit_code != 0
            assert words in " ".join(result.output.split()), result.output
        assert (await site.request("GET", "/campaigns")).json() == {"campaigns": []}


async def test_ten_thousand_contacts_in_another_encoding_become_a_campaign(tmp_path: Path) -> None:
    path = tmp_path / "contacts.csv"
    rows = [f'+1415{nth:07d};"Müller; ""Jo""\r\nJr"' for nth in range(10_000)]
    text = "\r\n".join(["number;name", "", *rows, ";", rows[7]])
    path.write_bytes(text.encode("utf-16"))
    async with calling() as site:
        made = await run(site, "campaign", "create", "x", str(path), "--agent", "caller")
        assert made.exit_code == 0, made.output
        assert "10000 contacts" in made.output
        assert "contacts.csv:20004: repeats the number of line 17" in made.output
        campaign_id = made.stdout.partition(":")[0]
        listed = await site.request("GET", f"/campaigns/{campaign_id}/contacts?limit=1000")
        last = listed.json()["contacts"][-1]
        assert (last["number"], last["variables"]) == (
            "+14150000999", {"name": 'Müller; "Jo"\r\nJr'}
        )  # fmt: skip
        status, answer = await post_file(site, campaign_id, path.read_bytes())
        assert (status, answer) == (200, {"given": 10_000, "added": 0, "repeated": 1})


# A file, its encoding, and the code or the contacts that come of it.
FILES: list[tuple[bytes, str, int, str | dict[str, int]]] = [
    ("number,name\n+14155550101,Jörg\n".encode("cp1252"), "", 422, "encoding_wrong"),
    (b"number\n+14155550101\n", "klingon", 422, "encoding_unknown"),
    (b"number\n4155\n", "", 422, "contacts_invalid"),
    (b"number,age\n+14155550101,7\n", "", 422, "variable_unknown"),
    (b"", "", 422, "contacts_invalid"),
    (b"n" * 10_000_001, "", 413, "body_too_large"),
    (
        "number,name\n+14155550101,Jörg\n".encode("cp1252"),
        "cp1252",
        200,
        {"given": 1, "added": 1, "repeated": 0},
    ),
]


async def post_file(
    site: OutboundSite, campaign_id: str, content: bytes, encoding: str = "", kind: str = "text/csv"
) -> tuple[int, Any]:
    answer = await site.client.post(
        f"{site.app.url}/api/v1/campaigns/{campaign_id}/contacts.csv",
        params={"encoding": encoding},
        content=content,
        headers={"authorization": f"Bearer {OPERATOR}", "content-type": kind},
    )
    found = answer.json()
    return answer.status_code, found if answer.status_code == 200 else found["code"]


async def test_a_file_of_contacts_is_taken_as_it_is() -> None:
    async with calling() as site:
        body = {"name": "x", "agent": "caller"}
        made = (await site.request("POST", "/campaigns", body)).json()
        for content, encoding, status, found in FILES:
            posted = await post_file(site, made["campaign_id"], content, encoding)
            assert posted == (status, found)
        for kind in ("application/json", "text/plain", ""):
            posted = await post_file(site, made["campaign_id"], b"number\n", kind=kind)
            assert posted == (415, "file_required")
        listed = await site.request("GET", f"/campaigns/{made['campaign_id']}/contacts")
        assert [one["variables"] for one in listed.json()["contacts"]] == [{"name": "Jörg"}]


async def test_a_campaign_pauses_by_itself_and_refuses_whom_the_policy_refuses() -> None:
    async with calling(lambda _: "failed") as site:
        listed = {"number": CONTACTS[0], "reason": "asked us"}
        await site.request("POST", "/do_not_call", listed)
        body = {"name": "x", "agent": "caller", "csv": CSV, "calls_per_second": 500, "max_calls": 1}
        made = (await site.request("POST", "/campaigns", {**body, "stop_after_failures": 2})).json()
        assert made["contacts"] == {"waiting": 5}
        await site.request("POST", f"/campaigns/{made['campaign_id']}/resume")
        tripped = await until_it_is(site, made["campaign_id"], "tripped")
        assert "2 calls failed one after the other" in tripped["reason"]
        assert tripped["contacts"] == {"refused": 1, "waiting": 4, "outcome.failed": 2}
        assert CONTACTS[0] not in {ringing.to for ringing in site.api.calls.values()}


async def test_nothing_that_is_known_of_callees_stands_in_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ours = ("app", "trunkline")
    for name in ours:
        caplog.set_level(logging.DEBUG, logger=name)
    listed, reached, lists = "+14155550177", CONTACTS[0], "canary-of-a-list"
    async with calling(lambda _: "answer") as site:
        await site.request("POST", "/do_not_call", {"number": listed, "reason": lists})
        await site.request("POST", "/consents", {"number": reached, "reason": "canary-of-consent"})
        body = {
            "name": "canary-of-a-name",
            "agent": "caller",
            "purpose": "marketing",
            "csv": f"number,name\n{reached},canary-of-a-variable\n{listed},Jo\n",
        }
        made = (await site.request("POST", "/campaigns", body)).json()
        await site.request("POST", f"/campaigns/{made['campaign_id']}/resume")
        done = await until_it_is(site, made["campaign_id"], "done")
        assert done["contacts"] == {"done": 1, "outcome.answered": 1, "refused": 1}
        asked = str(site.app.voice.latest.of(ResponseCreate)[0])
        assert "canary-of-a-variable" in asked
    formatter = JsonFormatter(Redactor())
    lines = [formatter.format(one) for one in caplog.records if one.name.startswith(ours)]
    assert any("call placed" in line for line in lines)
    for word in ("canary", listed[1:], reached[1:]):
        assert [line for line in lines if word in line] == []


@contextlib.asynccontextmanager
async def losing_the_first_answer(url: str) -> AsyncIterator[str]:
    """The address of a proxy that passes requests on, and loses the first answer."""
    port, lost = int(url.rpartition(":")[2]), 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal lost
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        inner_writer.write(await reader.read(65_536))
        answer = await inner_reader.read(65_536)
        lost += 1
        if lost > 1:
            writer.write(answer)
            await writer.drain()
        inner_writer.close()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_the_example_has_people_called_and_says_who_is_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    agents = {"reminder": {"variables": {"name": ""}, "greeting": "Am I speaking with {name}?"}}
    async with calling(agents=agents) as site:
        remind = example("place_calls").remind
        for number in (CALLEE, CALLEE, "+19005550123"):
            await remind(number, "Ms. Jones", server=site.app.url, key=OPERATOR)
        await until(lambda: not site.dialer.active)
        assert [ringing.to for ringing in site.api.calls.values()] == [CALLEE]
    first, again, refused = capsys.readouterr().out.splitlines()
    assert first == again and "trunkline calls explain call_" in first
    assert refused.startswith("+19005550123: not called: The number")


async def test_a_program_has_somebody_called_once_though_an_answer_is_lost() -> None:
    async with calling() as site, losing_the_first_answer(site.app.url) as url:
        call_id = await trunkline.place_call(
            CALLEE, agent="caller", variables={"name": "Jo"}, server=url, key=OPERATOR
        )
        assert (await site.outcome(call_id))["outcome"] == "busy"
        assert len(site.api.calls) == 1
        with pytest.raises(PlacingRefused) as refused:
            await trunkline.place_call("+19005550123", agent="caller", server=url, key=OPERATOR)
        assert refused.value.code == "number_kind_refused"
    with pytest.raises(CarrierUnavailable):
        nowhere = f"http://127.0.0.1:{free_port()}"
        await trunkline.place_call(CALLEE, agent="caller", server=nowhere)
