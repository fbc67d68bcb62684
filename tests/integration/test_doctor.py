"""`trunkline doctor` against servers on loopback that are healthy, wrong or not there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from typer.testing import CliRunner

from app import cli
from app.assembly import session_config
from app.carrier.twilio.signature import SIGNATURE_HEADER, sign_http
from app.doctor import system_checks as doctor
from app.doctor.system_checks import CheckResult, Verdict
from app.errors import VoiceRefused, VoiceUnavailable
from app.installation import command
from app.realtime.connection import VoiceConnection
from app.realtime.dialect import BETA, GA, Dialect
from app.realtime.events import (
    ErrorDetail,
    ErrorEvent,
    Response,
    ResponseCreate,
    ResponseDone,
    ResponseStatus,
    SessionConfig,
)
from app.realtime.websocket import WebSocketModel
from app.settings import Settings, check_deployment, load, notices
from tests.fakes.voice import Close, Emit, Expect, Reply, ScriptedVoiceServer, Step, Trouble

ACCOUNT = "AC" + "1" * 32
TOKEN = "f" * 32
NUMBER = "+15551234567"


class World:
    """Everything outside: Twilio's REST API and a running Trunkline, on one port."""

    def __init__(self) -> None:
        self.url = ""
        self.account_status = 200
        self.account = {"sid": ACCOUNT, "status": "active", "type": "Full"}
        self.voice_url: str | None = None
        self.fallback_url = "https://handler.example.com/f.xml"
        self.health_status = 200
        self.webhook_status = 403
        self.websocket_status = 403
        self.trusted_token = TOKEN
        self.requests: list[str] = []

    def get(self, path: str) -> tuple[int, Any]:
        if path == f"/2010-04-01/Accounts/{ACCOUNT}.json":
            return self.account_status, self.account
        if path == f"/2010-04-01/Accounts/{ACCOUNT}/IncomingPhoneNumbers.json":
            row = {
                "phone_number": NUMBER,
                "voice_url": self.voice_url,
                "voice_method": "POST",
                "voice_fallback_url": self.fallback_url,
            }
            rows = [] if self.voice_url is None else [row]
            return 200, {"incoming_phone_numbers": rows, "page": 0, "page_size": 20}
        if path == "/healthz":
            return self.health_status, {"status": "ok"}
        if path == "/twilio/media-stream":
            return self.websocket_status, {}
        return 404, {}

    def post(self, path: str, form: dict[str, str], signature: str) -> int:
        if path == "/twilio/voice":
            return self.webhook_status
        good = sign_http(self.trusted_token, self.url + path, form)
        return 204 if path == "/twilio/status" and signature == good else 403


@contextmanager
def serving(world: World) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: Any = None) -> None:
            content = b"" if body is None else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            self.close_connection = True

        def do_GET(self) -> None:
            world.requests.append(self.path)
            self.answer(*world.get(urlsplit(self.path).path))

        def do_HEAD(self) -> None:
            self.answer(200)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = dict(parse_qsl(body, keep_blank_values=True))
            self.answer(world.post(self.path, form, self.headers.get(SIGNATURE_HEADER, "")))

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with serving(made):
        made.voice_url = f"{made.url}/twilio/voice"
        yield made


def settings_for(world: World, **twilio: object) -> Settings:
    credentials = {"account_sid": ACCOUNT, "auth_token": TOKEN, "rest_url": world.url}
    return Settings.model_validate(
        {
            "voice_model": "offline",
            "twilio": {**credentials, "from_number": NUMBER, **twilio},
            "server": {"public_url": world.url},
        }
    )


def verdicts(results: list[CheckResult]) -> dict[str, Verdict]:
    return {result.subject: result.verdict for result in results}


async def test_a_healthy_account_and_server_are_found_good(world: World) -> None:
    settings = settings_for(world)
    results = await doctor.check_account(settings)
    results += await doctor.check_public_address(settings)
    results.append(await doctor.check_clock(world.url))
    assert verdicts(results) == dict.fromkeys(
        [
            "TWILIO_ACCOUNT_SID",
            NUMBER,
            "PUBLIC_URL",
            "voice webhook",
            "signatures",
            "media websocket",
            "clock",
        ],
        Verdict.GOOD,
    )
    assert not doctor.failed(results)


async def test_wrong_credentials_are_told_from_a_twilio_out_of_reach(world: World) -> None:
    world.account_status = 401
    [result] = await doctor.check_account(settings_for(world))
    assert result.verdict is Verdict.WRONG
    assert "does not accept" in result.text
    unreachable = settings_for(world, rest_url="http://127.0.0.1:9")
    [result] = await doctor.check_account(unreachable)
    assert result.verdict is Verdict.UNCHECKED


async def test_a_suspended_account_is_wrong_and_a_trial_is_mentioned(world: World) -> None:
    world.account["status"] = "suspended"
    [result] = await doctor.check_account(settings_for(world))
    assert (result.verdict, result.text) == (Verdict.WRONG, "the account is suspended")
    world.account |= {"status": "active", "type": "Trial"}
    assert "a trial" in (await doctor.check_account(settings_for(world)))[0].text


async def test_a_number_of_another_server_is_shown_where_it_should_point(world: World) -> None:
    world.voice_url = "https://demo.twilio.com/welcome"
    _, result = await doctor.check_account(settings_for(world))
    assert result.verdict is Verdict.WRONG
    assert "points to https://demo.twilio.com/welcome" in result.text
    assert f"numbers connect {NUMBER}" in result.remedy
    assert result.remedy.endswith(f"{world.url}/twilio/voice")


async def test_a_number_without_a_fallback_is_worth_a_warning(world: World) -> None:
    world.fallback_url = ""
    _, result = await doctor.check_account(settings_for(world))
    assert result.verdict is Verdict.WARNING
    assert "no fallback" in result.text
    assert result.remedy == f"run `{command()} numbers connect {NUMBER}`"


async def test_a_number_of_another_account_is_wrong(world: World) -> None:
    world.voice_url = None
    _, result = await doctor.check_account(settings_for(world))
    assert (result.verdict, result.text) == (Verdict.WRONG, "is not a number of this account")


async def test_without_a_number_the_webhook_is_said_to_be_unchecked(world: World) -> None:
    _, result = await doctor.check_account(settings_for(world, from_number=None))
    assert result.verdict is Verdict.UNCHECKED


async def test_a_server_that_is_not_there_is_wrong(world: World) -> None:
    settings = settings_for(world).model_copy(
        update={"server": settings_for(world).server.model_copy(
            update={"public_url": "http://127.0.0.1:9"})}
    )  # fmt: skip
    [result] = await doctor.check_public_address(settings)
    assert result.verdict is Verdict.WRONG
    assert "cannot be reached" in result.text


@pytest.mark.parametrize(
    ("status", "expected"),
    [(502, "no Trunkline runs behind it"), (404, "something else runs there")],
)
async def test_something_else_at_the_address_is_told_apart(
    status: int, expected: str, world: World
) -> None:
    world.health_status = status
    [result] = await doctor.check_public_address(settings_for(world))
    assert result.verdict is Verdict.WRONG
    assert expected in result.text


@pytest.mark.parametrize(
    ("status", "expected"), [(200, "nobody signed"), (404, "HTTP 404 where 403 was expected")]
)
async def test_a_webhook_that_does_not_refuse_strangers_is_wrong(
    status: int, expected: str, world: World
) -> None:
    world.webhook_status = status
    results = await doctor.check_public_address(settings_for(world))
    assert verdicts(results)["voice webhook"] is Verdict.WRONG
    assert any(expected in result.text for result in results)


async def test_a_server_with_another_token_is_found_out(world: World) -> None:
    world.trusted_token = "e" * 32
    results = await doctor.check_public_address(settings_for(world))
    assert verdicts(results)["signatures"] is Verdict.WRONG


async def test_a_proxy_that_drops_websockets_is_found_out(world: World) -> None:
    world.websocket_status = 404
    results = await doctor.check_public_address(settings_for(world))
    [result] = [result for result in results if result.subject == "media websocket"]
    assert result.verdict is Verdict.WRONG
    assert "HTTP 404" in result.text


@pytest.mark.parametrize(("off_s", "verdict"), [(3600, Verdict.WRONG), (-3600, Verdict.WRONG)])
async def test_a_clock_that_is_an_hour_off_is_wrong(
    off_s: int, verdict: Verdict, world: World
) -> None:
    clock = await doctor.check_clock(
        world.url, now=lambda: datetime.now(UTC) + timedelta(seconds=off_s)
    )
    assert clock.verdict is verdict
    assert ("ahead" if off_s > 0 else "behind") in clock.text


async def test_without_another_clock_ours_is_unchecked() -> None:
    assert (await doctor.check_clock("http://127.0.0.1:9")).verdict is Verdict.UNCHECKED


class Refusing:
    """A voice model that can only say no."""

    name = "refusing"

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def connect(self, config: SessionConfig) -> VoiceConnection:
        raise self._error


@pytest.mark.parametrize(
    ("error", "verdict", "remedy"),
    [
        (VoiceRefused("no", code="invalid_api_key"), Verdict.WRONG, "OPENAI_API_KEY"),
        (VoiceRefused("no", code="model_not_found"), Verdict.WRONG, "openai_realtime.model"),
        (VoiceRefused("no", code="insufficient_quota"), Verdict.WRONG, "credit"),
        (VoiceRefused("no", code="new_code"), Verdict.WRONG, "openai_realtime settings"),
        (VoiceUnavailable("no", code="dns_failed"), Verdict.UNCHECKED, "network"),
    ],
)
async def test_why_the_model_refuses_comes_with_what_to_do(
    error: Exception, verdict: Verdict, remedy: str
) -> None:
    [result] = await doctor.check_voice_model(Refusing(error), SessionConfig())
    assert result.verdict is verdict
    assert remedy in result.remedy


async def test_without_credentials_the_rest_is_still_checked() -> None:
    results = [result async for result in doctor.run_checks(Settings(), problems=(), surprises=())]
    found = verdicts(results)
    assert found["configuration"] is Verdict.GOOD
    assert found["Twilio"] is Verdict.UNCHECKED


def test_too_few_open_files_for_the_calls_are_wrong() -> None:
    files, *_ = doctor.check_host(Settings(), open_files=256)
    assert files.verdict is Verdict.WRONG
    assert "ulimit -n 400" in files.remedy
    files, *_ = doctor.check_host(Settings(), open_files=400)
    assert files.verdict is Verdict.GOOD


def test_a_dotenv_file_that_others_may_read_is_mentioned(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    dotenv = tmp_path / ".env"
    dotenv.write_text("")
    settings = load(tmp_path / "config.yaml", {})
    dotenv.chmod(0o644)
    result = next(one for one in doctor.check_host(settings) if one.subject == ".env")
    assert result.verdict is Verdict.WARNING
    assert result.remedy == f"chmod 600 {dotenv}"
    dotenv.chmod(0o600)
    assert ".env" not in [one.subject for one in doctor.check_host(settings)]


SESSION = session_config(Settings().openai_realtime)


async def asked(server: ScriptedVoiceServer, timeout_s: float = 10.0) -> list[CheckResult]:
    model = WebSocketModel(server.url, model="gpt-realtime-2.1", headers={"Authorization": "x"})
    return await doctor.check_voice_model(model, SESSION, timeout_s=timeout_s)


@pytest.mark.parametrize("dialect", [GA, BETA], ids=["ga", "beta"])
async def test_the_model_is_asked_for_one_line_of_text(dialect: Dialect) -> None:
    async with ScriptedVoiceServer(dialect=dialect) as server:
        model = WebSocketModel(server.url, model="gpt-realtime-2.1", dialect=dialect)
        results = await doctor.check_voice_model(model, SESSION)
        [request] = server.latest.of(ResponseCreate)
    assert [(one.verdict, one.text) for one in results] == [
        (Verdict.GOOD, "took the session as configured"),
        (Verdict.GOOD, "answered a line of text"),
    ]
    assert {one.subject for one in results} == {"voice model gpt-realtime-2.1"}
    assert request.response.output_modalities == ("text",)
    assert request.response.tool_choice == "none"


@pytest.mark.parametrize(
    ("code", "verdict", "remedy"),
    [
        ("insufficient_quota", Verdict.WRONG, "no credit left"),
        ("credit_balance_exhausted", Verdict.WRONG, "no credit left"),
        ("billing_hard_limit_reached", Verdict.WRONG, "spending limit"),
        ("model_not_found", Verdict.WRONG, "may not use openai_realtime.model"),
        ("rate_limit_exceeded", Verdict.UNCHECKED, "wait, or raise its limits"),
        ("server_error", Verdict.UNCHECKED, "try again"),
    ],
)
async def test_what_only_an_answer_shows_is_found(code: str, verdict: Verdict, remedy: str) -> None:
    async with ScriptedVoiceServer(replies=[Reply(error_code=code)]) as server:
        good, answer = await asked(server)
    assert good.verdict is Verdict.GOOD
    assert (answer.verdict, code in answer.text) == (verdict, True)
    assert remedy in answer.remedy


def refused(code: str) -> list[Step]:
    detail = ErrorDetail(type="invalid_request_error", code=code, message="no")
    return [Expect(ResponseCreate), Emit(ErrorEvent(detail))]


def cut(reason: str | None) -> list[Step]:
    status = ResponseStatus.CANCELLED if reason is None else ResponseStatus.INCOMPLETE
    response = Response(id="r", status=status, status_reason=reason)
    return [Expect(ResponseCreate), Emit(ResponseDone(response))]


@pytest.mark.parametrize(
    ("script", "verdict", "text"),
    [
        (
            refused("insufficient_quota"),
            Verdict.WRONG,
            "(quota: insufficient_quota, session sess",
        ),
        (
            refused("a_new_code"),
            Verdict.WRONG,
            "(protocol_incompatible: a_new_code",
        ),
        (
            refused("rate_limit_exceeded"),
            Verdict.UNCHECKED,
            "(quota: rate_limit",
        ),
        ([Expect(ResponseCreate), Close(1008, "insufficient_quota")], Verdict.WRONG, "quota"),
        ([Expect(ResponseCreate), Close(1011)], Verdict.UNCHECKED, "closed"),
        (cut("max_output_tokens"), Verdict.GOOD, "answered a line of text"),
        (cut(None), Verdict.WRONG, "refuses to answer (upstream_server_error: response_cancelled"),
    ],
)
async def test_each_way_of_not_answering_is_told(
    script: list[Step], verdict: Verdict, text: str
) -> None:
    async with ScriptedVoiceServer(script=script) as server:
        _, answer = await asked(server)
    assert answer.verdict is verdict
    assert text in answer.text


async def test_a_model_that_never_answers_is_wrong() -> None:
    async with ScriptedVoiceServer(replies=[Reply(never_starts=True)]) as server:
        _, answer = await asked(server, timeout_s=0.2)
    assert answer.verdict is Verdict.WRONG
    assert "did not answer within" in answer.text


@pytest.mark.parametrize(
    ("reply", "code", "printed"),
    [
        (Reply(text="Here."), 0, "Here. (session sess_fake)"),
        (Reply(error_code="x"), 1, "(upstream_server_error: x, session sess_fake)"),
    ],
)
async def test_doctor_says_something_to_the_model_and_prints_the_answer(
    reply: Reply, code: int, printed: str, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    async with ScriptedVoiceServer(replies=[reply]) as server:
        model = f"openai_realtime: {{url: {server.url}, api_key: sk-test-0123}}"
        config.write_text(f"voice_model: openai\n{model}\n")
        command = ["doctor", "-c", str(config), "--say", "Are you there?"]
        result = await asyncio.to_thread(CliRunner().invoke, cli.app, command)
        [request] = server.latest.of(ResponseCreate)
    assert printed in result.output
    assert result.exit_code == code
    assert request.response.input[0].content[0].text == "Are you there?"


async def test_settings_that_the_model_took_otherwise_are_named_and_it_is_asked_all_the_same() -> (
    None
):
    async with ScriptedVoiceServer(trouble=Trouble(confirm={"voice": "alloy"})) as server:
        other, answer = await asked(server)
    assert (other.verdict, other.text) == (Verdict.WARNING, "took other values for: voice")
    assert answer.verdict is Verdict.GOOD


def test_what_could_not_be_checked_is_named_at_the_end() -> None:
    good = doctor.CheckResult("a", Verdict.GOOD, "")
    unknown = doctor.CheckResult("b", Verdict.UNCHECKED, "")
    other = doctor.CheckResult("c", Verdict.UNCHECKED, "")
    wrong = doctor.CheckResult("d", Verdict.WRONG, "")
    assert doctor.verdict_of([good]) == "Nothing wrong was found."
    assert doctor.verdict_of([good, unknown, other, other]) == (
        "Not checked: b, c. The rest is right."
    )
    assert doctor.verdict_of([wrong]) == "Something is wrong: see the lines with BAD."
    assert doctor.verdict_of([good, unknown, wrong]) == (
        "Not checked: b. Something is wrong: see the lines with BAD."
    )


async def test_what_only_a_call_tries_is_named_as_not_checked() -> None:
    settings = Settings.model_validate(
        {
            "openai_realtime": {"api_key": "sk-proj-9876543210"},
            "tools": {
                "t": {"python": "m:f"},
                "book": {"description": "x", "http": {"url": "https://a.example.com"}},
            },
            "mcp_servers": {"m": {"command": "m"}},
            "analysis": {"endpoint": {"base_url": "https://a.example.com", "model": "m"}},
        }
    )
    results = [one async for one in doctor.run_checks(settings, problems=(), surprises=())]
    unchecked = [one for one in results if one.verdict is Verdict.UNCHECKED]
    assert [one.subject for one in unchecked] == [
        "transcription", "tools", "MCP servers", "analysis", "Twilio",
    ]  # fmt: skip
    assert unchecked[1].text == "no request is made for book"


def test_an_unfinished_configuration_is_named_before_anything_is_asked() -> None:
    settings = Settings.model_validate({"twilio": {"account_sid": ACCOUNT, "auth_token": "x" * 8}})
    results = doctor.check_settings(
        check_deployment(settings), notices(settings, date(2026, 11, 30))
    )
    assert [result.verdict for result in results] == [
        Verdict.WRONG,  # no public address
        Verdict.WRONG,  # no key
        Verdict.WARNING,  # an account and a token that are placeholders
        Verdict.WARNING,
    ]
    assert doctor.failed(results)
