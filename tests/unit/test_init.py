"""`trunkline init`: the files that it writes, and what it asks for."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app import cli
from app.carrier.twilio.rest import NumberSetup, TwilioRest
from app.cli.init import ask_for_values, local_time_zone, starter, starter_env
from app.errors import CarrierUnavailable
from app.settings import load

runner = CliRunner()
ACCOUNT = "AC" + "1" * 32
TOKEN = "f" * 32
NUMBER = "+15551234567"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.offline_speech
def test_what_is_written_starts_a_server_and_is_safe_from_others(folder: Path) -> None:
    result = runner.invoke(cli.app, ["init"])
    assert result.exit_code == 0, result.output
    assert len((folder / "config.yaml").read_text().splitlines()) <= 25
    assert stat.S_IMODE((folder / ".env").stat().st_mode) == 0o600
    checked = runner.invoke(cli.app, ["config", "check"])
    assert checked.exit_code == 0
    assert checked.output == "config.yaml: all right (development, voice: offline)\n"


def test_a_command_without_a_configuration_names_init() -> None:
    for command in ("serve", "doctor", "dial", "chat"):
        result = runner.invoke(cli.app, [command])
        assert result.exit_code == 2
        assert "trunkline init` writes one" in result.output


def test_files_that_are_there_stay(folder: Path) -> None:
    (folder / "config.yaml").write_text("limits: {max_calls: 3}\n")
    (folder / ".env").write_text("SERVER_PORT=9000\n")
    result = runner.invoke(cli.app, ["init"])
    assert result.exit_code == 0
    assert result.output.count("stays as it is") == 2
    assert load(folder / "config.yaml", {}).server.port == 9000


def answers(monkeypatch: pytest.MonkeyPatch, given: dict[str, str]) -> list[str]:
    """Answer what is asked; the names in the order in which they were asked for."""
    asked: list[str] = []

    def prompt(text: str, *, hide_input: bool, **_others: object) -> str:
        name = text.partition(" ")[0]
        asked.append(name)
        assert hide_input == (name in ("OPENAI_API_KEY", "TWILIO_AUTH_TOKEN"))
        return given.get(name, "")

    monkeypatch.setattr("typer.prompt", prompt)
    return asked


def numbers(monkeypatch: pytest.MonkeyPatch, *found: str) -> None:
    async def list_numbers(self: TwilioRest) -> list[NumberSetup]:
        return [NumberSetup(number=number) for number in found]

    monkeypatch.setattr(TwilioRest, "list_numbers", list_numbers)


ALL = {
    "OPENAI_API_KEY": " sk-proj-1\n",
    "TWILIO_ACCOUNT_SID": ACCOUNT,
    "TWILIO_AUTH_TOKEN": TOKEN,
    "PUBLIC_URL": "https://voice.example.com",
}


def test_answers_make_a_server_for_real_calls(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers(monkeypatch, ALL)
    numbers(monkeypatch, NUMBER)
    (folder / "config.yaml").write_text(starter("Europe/Zurich"))
    (folder / ".env").write_text(starter_env(ask_for_values({})))
    settings = load(folder / "config.yaml", {})
    assert settings.mode == "live"
    assert settings.twilio.from_number == NUMBER
    assert settings.server.public_url == "https://voice.example.com"
    assert settings.openai_realtime.api_key is not None
    assert settings.openai_realtime.api_key.get_secret_value() == "sk-proj-1"
    assert settings.agents["assistant"].time_zone == "Europe/Zurich"


@pytest.mark.parametrize(
    ("known", "given", "asked"),
    [
        ({}, {}, ["OPENAI_API_KEY", "TWILIO_ACCOUNT_SID"]),
        ({"OPENAI_API_KEY": "sk-1"}, {}, ["TWILIO_ACCOUNT_SID"]),
        ({"OPENAI_API_KEY_FILE": "/run/key"}, {}, ["TWILIO_ACCOUNT_SID"]),
        (ALL, {}, []),
        ({}, ALL, list(ALL)),
        ({}, {**ALL, "TWILIO_AUTH_TOKEN": ""}, list(ALL)[:3]),
    ],
)
def test_only_what_is_not_known_is_asked_for(
    known: dict[str, str],
    given: dict[str, str],
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    numbers(monkeypatch, NUMBER)
    found = answers(monkeypatch, given)
    values = ask_for_values(known)
    assert found == asked
    assert not known.keys() & values.keys(), "the environment is not copied"


@pytest.mark.parametrize("found", [[], [NUMBER, "+15551230000"]])
def test_a_number_is_taken_only_if_there_is_no_choice(
    found: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, ALL)
    numbers(monkeypatch, *found)
    assert ask_for_values({})["TWILIO_PHONE_NUMBER"] == ""
    assert f"the account has {len(found)} numbers" in capsys.readouterr().out


def test_an_account_that_does_not_answer_costs_the_number_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fails(self: TwilioRest) -> list[NumberSetup]:
        raise CarrierUnavailable("Twilio did not answer")

    answers(monkeypatch, ALL)
    monkeypatch.setattr(TwilioRest, "list_numbers", fails)
    assert ask_for_values({})["TWILIO_AUTH_TOKEN"] == TOKEN
    assert "left empty: Twilio did not answer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("variable", "zone"),
    [
        ("America/Argentina/Buenos_Aires", "America/Argentina/Buenos_Aires"),
        ("Etc/GMT+5", "Etc/GMT+5"),
        ("CET-1CEST", "UTC"),
        (":/etc/localtime", "UTC"),
    ],
)
def test_the_zone_is_one_that_the_configuration_takes(
    variable: str, zone: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", variable)
    assert local_time_zone() == zone
    (folder / "config.yaml").write_text(starter(zone))
    load(folder / "config.yaml", {})
