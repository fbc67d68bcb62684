"""`trunkline numbers` against the stand-in: list, connect, restore, and what goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from typer.testing import CliRunner, Result

from app import cli
from app.carrier.twilio.numbers import Archive
from app.carrier.twilio.rest import TwilioRest
from app.dial.twiml import parse_twiml
from app.errors import CarrierError
from app.settings import Settings
from tests.fakes.twilio_rest import TwilioApi

NUMBER = "+15551230002"
DEMO = "https://demo.example.com/voice.xml"
VOICE = "https://voice.example.com/twilio/voice"
STATUS = "https://voice.example.com/twilio/status"

Run = Callable[..., Awaitable[Result]]


@asynccontextmanager
async def account(
    folder: Path, *, public_url: str = "public_url: https://voice.example.com"
) -> AsyncIterator[tuple[TwilioApi, Run, Archive]]:
    numbers = [
        {
            "phone_number": NUMBER,
            "friendly_name": "Front",
            "voice_url": DEMO,
            "voice_method": "GET",
        },
        {"phone_number": NUMBER + "3", "voice_application_sid": "AP1"},
    ]
    async with TwilioApi(numbers=numbers) as api:
        config = folder / "config.yaml"
        config.write_text(
            f"server: {{{public_url}}}\n"
            f"twilio:\n  account_sid: {api.account_sid}\n  auth_token: {api.auth_token}\n"
            f"  rest_url: {api.url}\n"
        )

        async def run(*words: str) -> Result:
            # The command has an event loop of its own.
            arguments = ["numbers", *words, "-c", str(config)]
            return await asyncio.to_thread(lambda: CliRunner().invoke(cli.app, arguments))

        yield api, run, Archive(folder / "var" / "numbers")


def row(api: TwilioApi) -> dict[str, str]:
    return api.numbers["PN" + "0" * 31 + "1"]


async def test_numbers_are_listed_with_their_webhooks(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, _):
        result = await run("list")
        assert result.exit_code == 0
        assert f"{NUMBER}  Front" in result.output
        assert f"calls     {DEMO}" in result.output
        assert "calls     to AP1" in result.output
        row(api)["voice_url"] = VOICE
        assert f"to this server, {VOICE}" in (await run("list")).output
        api.numbers.clear()
        assert "no numbers" in (await run("list")).output


async def test_a_dry_run_shows_the_difference_and_changes_nothing(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, archive):
        before = dict(row(api))
        result = await run("connect", NUMBER, "--dry-run")
        assert result.exit_code == 0
        assert f"{DEMO} -> {VOICE}" in result.output
        assert f"(not set) -> {STATUS}" in result.output
        assert "nothing was changed" in result.output
        # Shown as it is heard, and not as an address spells it.
        assert "Twiml=<Response><Say>Sorry, all lines are busy" in result.output
        assert row(api) == before
        assert {request.method for request in api.requests} == {"GET"}
        assert archive.load(NUMBER) is None


async def test_a_number_is_connected_and_restored(tmp_path: Path) -> None:
    fallback = "https://handler.example.com/f.xml"
    async with account(tmp_path) as (api, run, archive):
        before = dict(row(api))
        result = await run("connect", NUMBER, "--fallback-url", fallback)
        assert result.exit_code == 0, result.output
        assert api.requests[-1].fields == {
            "VoiceUrl": VOICE,
            "VoiceMethod": "POST",
            "VoiceFallbackUrl": fallback,
            "VoiceFallbackMethod": "GET",
            "StatusCallback": STATUS,
        }
        assert (row(api)["voice_url"], row(api)["status_callback"]) == (VOICE, STATUS)
        # Again: nothing to do, and what is kept is still the real former setup.
        again = await run("connect", NUMBER)
        assert "already points here" in again.output
        assert (await run("restore", NUMBER, "--dry-run")).exit_code == 0
        restored = await run("restore", NUMBER)
        assert restored.exit_code == 0, restored.output
        assert f"{VOICE} -> {DEMO}" in restored.output
        assert {name: value for name, value in row(api).items() if value} == before
        assert archive.load(NUMBER) is None


@asynccontextmanager
async def connected(folder: Path, fallback: str) -> AsyncIterator[tuple[TwilioApi, Run, Path]]:
    """A number that was connected with the fallback destination `fallback` of two."""
    async with account(folder) as (api, run, _):
        config = folder / "config.yaml"
        config.write_text(
            config.read_text()
            + "openai_realtime: {api_key: a key of the model}\n"
            + "destinations: {one: {number: +14155550101}, two: {number: +14155550102}}\n"
            + f"numbers: {{{NUMBER}: {{fallback: {fallback}}}}}\n"
        )
        result = await run("connect", NUMBER)
        assert result.exit_code == 0, result.output
        yield api, run, config


def heard(address: str) -> list[tuple[str, str]]:
    """The verbs that the echo service reads from its address, and what each says or dials."""
    where = urlsplit(address)
    assert (where.scheme, where.netloc, where.path) == ("https", "twimlets.com", "/echo")
    [document] = parse_qs(where.query)["Twiml"]
    return [
        (verb.name, verb.text or "".join(noun.text for noun in verb.children))
        for verb in parse_twiml(document, "text/xml")
    ]


async def test_the_fallback_is_heard_without_this_server_and_nothing_to_set_up(
    tmp_path: Path,
) -> None:
    async with connected(tmp_path, "one") as (api, run, config):
        assert row(api)["voice_fallback_method"] == "GET"
        assert heard(row(api)["voice_fallback_url"]) == [
            ("Say", "One moment please, we are connecting you."),
            ("Dial", "+14155550101"),
            ("Hangup", ""),
        ]
        assert "already points here" in (await run("connect", NUMBER)).output
        # Another destination, another document: the address was ours to change.
        config.write_text(config.read_text().replace("fallback: one", "fallback: two"))
        await run("connect", NUMBER, "--say", "Augenblick & bitte.")
        assert heard(row(api)["voice_fallback_url"])[:2] == [
            ("Say", "Augenblick & bitte."),
            ("Dial", "+14155550102"),
        ]
        assert "fallback  https://twimlets.com/echo?Twiml=<Response>" in (await run("list")).output
        await run("restore", NUMBER)
        assert row(api)["voice_fallback_url"] == ""


@pytest.mark.parametrize(
    "there",
    ["https://handler.example.com/f.xml", "https://twimlets.com/echo?Twiml=%3CResponse%2F%3E"],
)
async def test_a_fallback_that_somebody_else_set_stays(there: str, tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, _):
        row(api)["voice_fallback_url"] = there
        result = await run("connect", NUMBER)
        assert result.exit_code == 0
        assert f"keeps its own fallback, {there}" in result.output
        assert row(api)["voice_fallback_url"] == there
    async with connected(tmp_path, "one") as (api, run, _):
        row(api)["voice_fallback_url"] = there
        assert (await run("connect", NUMBER)).exit_code == 0
        assert row(api)["voice_fallback_url"] == there


async def test_a_fallback_that_fits_no_address_is_refused_before_anything_changes(
    tmp_path: Path,
) -> None:
    async with account(tmp_path) as (api, run, _):
        result = await run("connect", NUMBER, "--say", "word " * 400)
        assert result.exit_code == 2
        assert "shorten what it says" in result.output
        assert {request.method for request in api.requests} == {"GET"}


async def test_a_second_connect_keeps_the_first_former_setup(tmp_path: Path) -> None:
    async with account(tmp_path) as (_, run, archive):
        await run("connect", NUMBER)
        await run("connect", NUMBER, "--fallback-url", "https://handler.example.com/f.xml")
        saved = archive.load(NUMBER)
        assert saved is not None
        assert saved.former["voice_url"] == DEMO


async def test_a_setup_that_somebody_made_in_between_is_the_one_to_go_back_to(
    tmp_path: Path,
) -> None:
    async with account(tmp_path) as (api, run, archive):
        await run("connect", NUMBER)
        row(api)["voice_url"] = "https://other.example.com"
        noted = await run("restore", NUMBER, "--dry-run")
        assert "changed by somebody since, to https://other.example.com" in noted.output
        await run("connect", NUMBER)
        saved = archive.load(NUMBER)
        assert saved is not None
        assert saved.former["voice_url"] == "https://other.example.com"


async def test_a_fallback_that_is_set_by_hand_leaves_the_rest_of_the_former_setup(
    tmp_path: Path,
) -> None:
    by_hand = "https://handler.example.com/f.xml"
    async with account(tmp_path) as (api, run, _):
        await run("connect", NUMBER)
        row(api)["voice_fallback_url"] = by_hand
        row(api)["status_callback"] = ""  # so that connecting again has something to do
        await run("connect", NUMBER)
        restored = await run("restore", NUMBER)
        assert (row(api)["voice_url"], row(api)["voice_method"]) == (DEMO, "GET")
        assert row(api)["voice_fallback_url"] == by_hand
        assert "note" not in restored.output


async def test_a_number_is_taken_off_its_application_and_put_back(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, _):
        other = api.numbers["PN" + "0" * 31 + "2"]
        assert (await run("connect", NUMBER + "3")).exit_code == 0
        assert other["voice_application_sid"] == ""
        assert (await run("restore", NUMBER + "3")).exit_code == 0
        assert other["voice_application_sid"] == "AP1"


async def test_a_setup_that_cannot_be_saved_is_not_changed(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, _):
        (tmp_path / "var").mkdir()
        (tmp_path / "var" / "numbers").write_text("a file")
        result = await run("connect", NUMBER)
        assert result.exit_code == 2
        assert row(api)["voice_url"] == DEMO


async def test_a_number_of_somebody_else_is_not_looked_for_further(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, archive):
        result = await run("connect", "+15559999999")
        assert result.exit_code == 1
        assert "is not a number of this account" in result.output
        assert [request.method for request in api.requests] == ["GET"]
        assert archive.load("+15559999999") is None


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, 20003, "does not accept the account's credentials"),
        (404, 20404, "no such call or number"),
        (400, 21210, "neither the account's nor verified"),
        (400, 21421, "not one that can be set up"),
    ],
)
async def test_refusals_are_in_plain_words(
    status: int, code: int, words: str, tmp_path: Path
) -> None:
    async with account(tmp_path) as (api, run, _):
        api.fail(status, code)
        result = await run("connect", NUMBER)
        assert result.exit_code == 1
        assert words in result.output
        assert f"twilio_{code}" in result.output
        assert "Traceback" not in result.output


async def test_a_change_is_tried_again_since_twice_is_as_once(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, _, __):
        rest = TwilioRest(
            api.account_sid, api.auth_token, base_url=api.url, timeout_s=0.3, first_delay_s=0.0
        )
        try:
            api.fail(500, 20500)
            api.lose_answer()
            setup = await rest.set_number("PN" + "0" * 31 + "1", {"voice_url": VOICE})
            assert setup.voice_url == VOICE
            assert len(api.requests) == 3
            api.fail(429, 20429, times=3)
            with pytest.raises(CarrierError, match="fewer requests"):
                await rest.list_numbers()
        finally:
            await rest.aclose()


async def test_without_an_address_or_account_there_is_nothing_to_connect(tmp_path: Path) -> None:
    async with account(tmp_path, public_url="port: 8080") as (api, run, _):
        result = await run("connect", NUMBER)
        assert result.exit_code == 2
        assert "PUBLIC_URL" in result.output
        assert api.requests == []
    (tmp_path / "config.yaml").write_text("")
    arguments = ["numbers", "list", "-c", str(tmp_path / "config.yaml")]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 2
    assert "TWILIO_ACCOUNT_SID" in result.output


async def test_the_fallback_must_be_on_another_host_and_encrypted(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, _):
        result = await run("connect", NUMBER, "--fallback-url", "http://handler.example.com")
        assert result.exit_code == 2
        other = "https://handler.example.com/f.xml"
        result = await run("connect", NUMBER, "--fallback-url", other, "--say", "Hello.")
        assert result.exit_code == 2
        assert api.requests == []


async def test_there_is_nothing_to_restore_where_nothing_was_connected(tmp_path: Path) -> None:
    async with account(tmp_path) as (api, run, _):
        result = await run("restore", NUMBER)
        assert result.exit_code == 2
        assert "nothing to restore" in result.output
        assert (await run("restore", "../../x")).exit_code == 2
        assert api.requests == []


def test_the_fallback_document_is_printed() -> None:
    runner = CliRunner()
    result = runner.invoke(cli.app, ["numbers", "fallback", "--to", "+14155550123"])
    assert result.exit_code == 0
    assert [verb.name for verb in parse_twiml(result.output, "text/xml")] == [
        "Say",
        "Dial",
        "Hangup",
    ]
    neither = runner.invoke(cli.app, ["numbers", "fallback"])
    assert neither.exit_code == 2
    refused = runner.invoke(cli.app, ["numbers", "fallback", "--to", "+19005550100"])
    assert refused.exit_code == 2
    assert "premium" in refused.output


def test_the_fallback_of_the_configuration_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        f"""\
openai_realtime: {{api_key: a key of the model}}
destinations: {{pbx: {{sip: "sip:desk@pbx.example.com", ring_s: 40}}}}
numbers: {{{NUMBER}: {{fallback: pbx}}, "+15551230009": {{}}}}
"""
    )
    runner = CliRunner()
    command = ["numbers", "fallback", "--config", str(path)]
    printed = runner.invoke(cli.app, [*command, NUMBER, "--say", "One moment."])
    assert printed.exit_code == 0, printed.output
    say, dial, end = parse_twiml(printed.output, "text/xml")
    assert (say.text, end.name) == ("One moment.", "Hangup")
    assert [(noun.name, noun.text) for noun in dial.children] == [
        ("Sip", "sip:desk@pbx.example.com")
    ]
    assert (dial.attributes["timeout"], dial.attributes["callerId"]) == ("40", NUMBER)
    nobody = runner.invoke(cli.app, [*command, "+15551230009"])
    assert nobody.exit_code == 0
    assert "names no fallback of +15551230009" in nobody.stderr
    say, end = parse_twiml(nobody.stdout, "text/xml")
    assert (say.text, end.name) == (Settings().twilio.busy_message, "Hangup")


def test_the_fallback_is_said_in_the_voice_and_language_of_the_operators_sentences(
    tmp_path: Path,
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("twilio: {say_voice: Polly.Vicki-Neural, say_language: de-DE}\n")
    printed = CliRunner().invoke(
        cli.app, ["numbers", "fallback", "--to", "+14155550123", "--config", str(path)]
    )
    say = parse_twiml(printed.output, "text/xml")[0]
    assert say.attributes == {"voice": "Polly.Vicki-Neural", "language": "de-DE"}
