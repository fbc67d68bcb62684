"""The configuration over the API: what it shows, and a reload beside a live call."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from app.agents.agent import Agent
from app.agents.tools.tool import Approval, ToolContext, tool
from app.assembly.build import Assembly
from app.credentials.api_keys import Scope
from app.errors import ToolFailed, VoiceUnavailable
from app.events import AgentSaid
from app.realtime import events as ev
from tests.fakes.stress import few_or
from tests.fakes.voice import Reply, ScriptedVoiceServer
from tests.fakes.waiting import time_limit, until
from tests.integration.server import App, trunkline
from tests.integration.test_api import OPERATORS, TOKEN, client, is_problem, new_key
from tests.integration.test_api_live import said

AGENTS = {
    "reception": {
        "instructions": "Be brief.",
        "description": "Answers",
        "handoffs": ["sales"],
        "variables": {"shop": "ours"},
    },
    "sales": {"instructions": "Sell.", "description": "Sells"},
}
SECTIONS: dict[str, Any] = {
    "server": TOKEN,
    "agents": AGENTS,
    "destinations": {"shop": {"number": "+15005550099", "spoken": "the shop"}},
    "numbers": {"+15005550001": {"agent": "sales", "fallback": "shop"}},
}


def file_of(app: App) -> Path:
    assert app.settings.origin.folder is not None
    return app.settings.origin.folder / "config.yaml"


def rewrite(app: App, change: Any) -> None:
    """Change the file that the server was started with."""
    file = file_of(app)
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))


async def test_the_changes_of_a_reload_are_shown_beforehand() -> None:
    async with (
        ScriptedVoiceServer() as voice,
        trunkline(voice, **SECTIONS) as app,
        client(app, new_key(app, Scope.ADMIN)) as admin,
    ):
        path = "/settings/changes"
        same = (await admin.get(path)).json()
        assert (same["diff"], same["problem"]) == ([], "")
        rewrite(app, lambda config: config["agents"]["sales"].update(instructions="Sell more."))
        changed = (await admin.get(path)).json()
        assert any(line.startswith("+") and "Sell more." in line for line in changed["diff"])
        assert OPERATORS not in str(changed)
        rewrite(app, lambda config: config.update(api={"live_clients": 7}))
        assert "restart" in (await admin.get(path)).json()["problem"]
        rewrite(app, lambda config: config.update(nonsense=1))
        wrong = (await admin.get(path)).json()
        assert wrong["diff"] == []
        assert "nonsense" in wrong["problem"]


async def test_agents_numbers_and_destinations_are_shown_and_secrets_are_not() -> None:
    async with ScriptedVoiceServer() as voice, trunkline(voice, **SECTIONS) as app:
        async with client(app, new_key(app, Scope.VIEWER)) as viewer:
            agents = (await viewer.get("/agents")).json()["agents"]
            assert [agent["name"] for agent in agents] == ["reception", "sales"]
            assert agents[0]["handoffs"] == ["sales"]
            assert agents[0]["variables"] == ["shop"]
            [number] = (await viewer.get("/numbers")).json()["numbers"]
            assert (number["number"], number["agent"]) == ("+15005550001", "sales")
            found = await viewer.get("/destinations")
            [shop] = found.json()["destinations"]
            assert shop == {"name": "shop", "spoken": "the shop", "warm": False}
            assert "+15005550099" not in found.text
        async with client(app, new_key(app, Scope.ADMIN)) as admin:
            shown = (await admin.get("/settings")).json()
            assert "Be brief." in shown["yaml"]
            for secret in ("sk-scripted-model", TOKEN["operator_token"]):
                assert secret not in shown["yaml"]
            metrics = (await app.trunkline.metrics.render()).decode()
            assert f'trunkline_configuration_info{{version="{shown["version"]}"}} 1.0' in metrics


async def test_the_next_call_is_routed_by_a_reloaded_file_and_a_live_one_keeps_its_own() -> None:
    replies = [Reply(text="First.", audio_ms=200), Reply(text="Second.", audio_ms=200)]
    async with (
        ScriptedVoiceServer(replies=[*replies, *replies]) as voice,
        trunkline(voice, **SECTIONS) as app,
        client(app, new_key(app, Scope.ADMIN)) as admin,
        app.twilio() as twilio,
    ):
        before = (await admin.get("/settings")).json()["version"]
        old = await twilio.call(app.url)
        await app.event(old, AgentSaid)
        rewrite(app, lambda config: config["agents"].pop("sales"))
        rewrite(app, lambda config: config["agents"]["reception"].update(instructions="New."))
        is_problem(await admin.post("/reload"), 409, "config_invalid")
        assert (await admin.get("/settings")).json()["version"] == before
        rewrite(app, lambda config: config["agents"]["reception"].pop("handoffs"))
        rewrite(app, lambda config: config.pop("numbers"))
        answer = await admin.post("/reload")
        assert answer.status_code == 200, answer.text
        assert answer.json()["version"] != before
        assert (await admin.post("/reload")).json() == answer.json()
        assert [a["name"] for a in (await admin.get("/agents")).json()["agents"]] == ["reception"]
        fresh = await twilio.call(app.url)
        await app.event(fresh, AgentSaid)
        assert "New." in str(voice.latest.of(ev.SessionUpdate)[0])
        await old.speak(0.4)
        await app.event(old, AgentSaid, partial(said, "Second."))
        for call in (old, fresh):
            await call.hang_up()
            await app.ended(call)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("server", "port", 1), ("limits", "max_calls", 3), ("twilio", "busy_message", "Later.")],
)
async def test_a_change_that_needs_a_restart_is_refused_with_its_place(
    section: str, key: str, value: Any
) -> None:
    async with (
        ScriptedVoiceServer() as voice,
        trunkline(voice, **SECTIONS) as app,
        client(app, new_key(app, Scope.ADMIN)) as admin,
    ):
        rewrite(app, lambda config: config.setdefault(section, {}).update({key: value}))
        answer = await admin.post("/reload")
        if section == "server":  # the port in use stays, whatever the file says
            assert answer.status_code == 200
            return
        is_problem(answer, 409, "restart_needed")
        assert "config.yaml:1: " in answer.json()["detail"]
        assert section in answer.json()["detail"]


async def until_other(admin: httpx2.AsyncClient, version: str) -> None:
    async with time_limit():
        while True:
            if (await admin.get("/settings")).json()["version"] != version:
                return
            await asyncio.sleep(0.1)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
async def test_the_hangup_signal_reloads_and_a_mistake_changes_nothing() -> None:
    async with (
        ScriptedVoiceServer() as voice,
        trunkline(voice, **SECTIONS) as app,
        client(app, new_key(app, Scope.ADMIN)) as admin,
    ):
        before = (await admin.get("/settings")).json()["version"]
        rewrite(app, lambda config: config["agents"]["sales"].update(instructions="Sell more."))
        os.kill(os.getpid(), signal.SIGHUP)
        await until_other(admin, before)
        rewrite(app, lambda config: config["agents"].update(sales={"instructoins": "x"}))
        now = (await admin.get("/settings")).json()["version"]
        os.kill(os.getpid(), signal.SIGHUP)
        is_problem(await admin.post("/reload"), 409, "config_invalid")
        assert (await admin.get("/settings")).json()["version"] == now


@pytest.mark.stress
@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
async def test_no_mutated_file_changes_anything_or_ends_a_call() -> None:
    dice = random.Random(7)
    sections = {**SECTIONS, "api": {"requests_per_s": 1_000}}
    replies = [Reply(text="First.", audio_ms=200), Reply(text="Second.", audio_ms=200)]
    async with (
        ScriptedVoiceServer(replies=replies) as voice,
        trunkline(voice, policy={"silence_ms": 0, "inactivity_after_ms": 0}, **sections) as app,
        client(app, new_key(app, Scope.ADMIN)) as admin,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        file = file_of(app)
        good = file.read_text()
        version = (await admin.get("/settings")).json()["version"]
        refused = 0
        for _ in range(few_or(25, 500)):
            file.write_text(mutated(good, dice))
            os.kill(os.getpid(), signal.SIGHUP)
            answer = await admin.post("/reload")  # has its turn behind the signal
            if answer.status_code == 200:  # what was mutated is a value, which may be any
                file.write_text(good)
                answer = await admin.post("/reload")
                assert answer.json()["version"] == version
                continue
            assert answer.json()["code"] in ("config_invalid", "restart_needed"), answer.text
            assert "config.yaml:" in answer.json()["detail"], answer.text
            assert (await admin.get("/settings")).json()["version"] == version
            refused += 1
        assert refused
        await call.speak(0.4)
        await app.event(call, AgentSaid, partial(said, "Second."))
        await call.hang_up()
        await app.ended(call)


def mutated(text: str, dice: random.Random) -> str:
    """The text with some letters replaced, or with a part missing, as an editor leaves it."""
    if dice.random() < 0.2:
        return text[: dice.randrange(len(text))]
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(len(text))
        noise = "".join(dice.choices("ab:- []{}#&*!|>'\"%@$~0\t\n\0\x85é", k=dice.randint(0, 4)))
        text = text[:at] + noise + text[at + len(noise) :]
    return text


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no such signal")
@pytest.mark.parametrize("error", [OSError("disk"), VoiceUnavailable("gone"), RuntimeError("bug")])
@pytest.mark.parametrize("part", ["load", "open"])
async def test_a_reload_that_fails_for_any_reason_ends_no_call(
    part: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> Any:
        raise error

    replies = [Reply(text="First.", audio_ms=200), Reply(text="Second.", audio_ms=200)]
    async with (
        ScriptedVoiceServer(replies=replies) as voice,
        trunkline(voice, **SECTIONS) as app,
        app.twilio() as twilio,
    ):
        call = await twilio.call(app.url)
        await app.event(call, AgentSaid)
        rewrite(app, lambda config: config["agents"]["sales"].update(instructions="Sell more."))
        with monkeypatch.context() as broken:
            if part == "load":
                broken.setattr("app.parts.load", fails)
            else:
                broken.setattr(Assembly, "open", fails)
            os.kill(os.getpid(), signal.SIGHUP)
            await until(lambda: "configuration was not reloaded" in caplog.text)
        await call.speak(0.4)
        await app.event(call, AgentSaid, partial(said, "Second."))
        await call.hang_up()
        await app.ended(call)


@tool(approval=Approval.OPERATOR)
def book_table(people: int, name: str = "nobody") -> str:
    """Book a table."""
    if people > 8:
        raise ToolFailed("We have no table for so many.")
    return f"<b>{people}</b> for {name}"


@tool
def whoami(context: ToolContext) -> dict[str, Any]:
    """Tell what is known of the caller."""
    return {"number": context.caller_number, "verified": context.caller_verified}


WRITTEN = [Agent(name="waiter", instructions="Serve.", tools=[book_table, whoami])]


@pytest.mark.parametrize(
    ("name", "trial", "expected"),
    [
        ("book_table", {"arguments": {"people": 2}}, '{"result": "<b>2</b> for nobody"}'),
        ("book_table", {"arguments": {"people": 9}}, "no table for so many"),
        ("book_table", {"arguments": {"people": "two"}}, "args_invalid"),
        ("book_table", {}, "args_invalid"),
        ("whoami", {"caller_number": "+15550100"}, '"number": "+15550100", "verified": false'),
    ],
    ids=str,
)
async def test_a_tool_is_tried_with_arguments_and_answers_as_to_its_model(
    waiter: httpx2.AsyncClient, name: str, trial: dict[str, Any], expected: str
) -> None:
    answer = await waiter.post(f"/agents/waiter/tools/{name}/try", json=trial)
    assert answer.status_code == 200, answer.text
    assert expected in f"{answer.json()['output']} {answer.json()['error']}"


async def test_a_trial_names_its_agent_and_tool_and_only_admins_vouch_for_a_caller(
    waiter: httpx2.AsyncClient,
) -> None:
    [shown, _] = (await waiter.get("/agents/waiter/tools")).json()["tools"]
    assert shown["name"] == "book_table"
    assert shown["approval"] == "operator"
    assert shown["parameters"]["properties"]["people"]["type"] == "integer"
    assert is_problem(await waiter.get("/agents/nobody/tools"), 404, "agent_unknown")
    for path in ("/agents/nobody/tools/whoami/try", "/agents/waiter/tools/nothing/try"):
        assert is_problem(await waiter.post(path, json={}), 404, "tool_unknown")
    vouched = await waiter.post("/agents/waiter/tools/whoami/try", json={"caller_verified": True})
    assert is_problem(vouched, 403, "scope_too_small")


@pytest.fixture
async def waiter() -> AsyncIterator[httpx2.AsyncClient]:
    """An operator of a server whose agent is written in Python."""
    async with (
        ScriptedVoiceServer() as voice,
        trunkline(voice, written=WRITTEN, server=TOKEN) as app,
        client(app, new_key(app, Scope.OPERATOR)) as operator,
    ):
        yield operator


async def test_doctor_checks_the_server_that_runs_and_says_what_to_do(
    waiter: httpx2.AsyncClient,
) -> None:
    found = (await waiter.post("/doctor")).json()
    results = {one["subject"]: one for one in found["results"]}
    assert results["state_dir"]["verdict"] == "good"
    assert any(name.startswith("voice model") for name in results), results
    assert "TWILIO_ACCOUNT_SID" in results["Twilio"]["remedy"]
    assert "sk-scripted-model" not in str(found)
    assert (await waiter.post("/doctor")).json() == found  # asked again at once: not done again


async def test_the_status_shows_each_process(waiter: httpx2.AsyncClient) -> None:
    status = (await waiter.get("/status")).json()
    [process] = status["processes"]
    assert (process["live"], process["capacity"]) == (0, status["capacity"])
    assert process["configuration"] == status["configuration"]
