"""The command line: what it prints, and with which code it ends."""

from __future__ import annotations

import ast
import io
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from app import cli
from app.cli.shared import wrapped
from app.credentials.api_keys import first_key_path
from app.settings import Settings, load

ACCOUNT = "AC" + "1" * 32
TOKEN = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"

runner = CliRunner()
COMMANDS = Path(cli.__file__).parent


def config_file(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("short", "short"),
        (
            "  note       a long text about a thing",
            "  note       a long text about a\n             thing",
        ),
        ("config.yaml:3: a text without a name", "config.yaml:3: a text\nwithout a name"),
        ("the file /a/path/of/more/than/a/line", "the file\n/a/path/of/more/than/a/line"),
        ("one\n\n  two   three", "one\n\n  two   three"),
        ("?     key: it could not be checked", "?     key: it could not be\n      checked"),
    ],
)
def test_a_terminal_gets_no_broken_words_and_a_pipe_no_breaks(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "24")
    assert wrapped(text, Terminal()) == shown
    assert wrapped(text, io.StringIO()) == text


AS_THEY_ARE = r"json\.dumps|masked|_fallback|token|f.*#login=|f.trunkline \{version"
"""Data for scripts and for copying, which a break would spoil."""


@pytest.mark.parametrize("path", sorted(COMMANDS.glob("*.py")), ids=lambda path: path.stem)
def test_sentences_are_printed_by_what_breaks_lines_and_with_commands_that_work(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "typer.echo":
            printed = ast.unparse(node.args[0])
            assert path.name == "shared.py" or re.match(AS_THEY_ARE, printed), printed
        elif isinstance(node, ast.JoinedStr):
            text = ast.unparse(node)
            assert not re.search(r"\btrunkline [a-z]", text), "begin it with `command()`"


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_no_color_is_obeyed(no_color: str, colored: bool, tmp_path: Path) -> None:
    environment = {"NO_COLOR": no_color}
    arguments = ["config", "check", "--config", str(tmp_path / "none.yaml")]
    result = runner.invoke(cli.app, arguments, env=environment, color=True)
    assert result.exit_code == 2
    assert ("\x1b[" in result.stderr) is colored


def test_every_command_is_in_the_help() -> None:
    result = runner.invoke(cli.app, ["--help"])
    assert result.exit_code == 0
    for command in ("init", "serve", "dial", "chat", "doctor", "numbers", "config"):
        assert command in result.output


def test_the_version_is_shown() -> None:
    result = runner.invoke(cli.app, ["--version"])
    assert result.exit_code == 0
    assert result.output.startswith("trunkline 0.")


@pytest.mark.parametrize(
    "command", [["serve"], ["doctor"], ["config", "check"], ["config", "show"]]
)
def test_a_wrong_configuration_ends_every_command_with_code_2(
    command: list[str], tmp_path: Path
) -> None:
    path = config_file(tmp_path, "server:\n  prot: 1\n")
    result = runner.invoke(cli.app, [*command, "--config", path])
    assert result.exit_code == 2
    assert 'config.yaml:2: server.prot: unknown key; did you mean "port"?' in result.output
    assert "Traceback" not in result.output


def test_a_file_that_is_not_there_or_may_not_be_reached_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    result = runner.invoke(cli.app, ["config", "check", "-c", str(missing)])
    assert (result.exit_code, "--config" in result.output) == (2, True)
    closed = tmp_path / "closed"
    closed.mkdir()
    path = config_file(closed, "")
    closed.chmod(0)
    try:
        if not os.access(path, os.R_OK):  # root may read everything
            result = runner.invoke(cli.app, ["config", "check", "-c", path])
            assert result.exit_code == 2
            assert "cannot be read: Permission denied" in result.output
    finally:
        closed.chmod(0o700)


@pytest.mark.offline_speech
def test_a_start_that_fails_makes_no_first_key(tmp_path: Path) -> None:
    """It would never be shown."""
    account = f"twilio: {{account_sid: {ACCOUNT}, auth_token: {'0123456789abcdef' * 2}}}\n"
    server = "server: {public_url: 'https://voice.acme.dev'}\n"
    path = config_file(tmp_path, f"{account}{server}voice_model: offline\n")
    result = runner.invoke(cli.app, ["serve", "-c", path])
    assert (result.exit_code, "offline.business" in result.output) == (2, True)
    assert not first_key_path(tmp_path / "var").exists()


def test_serve_says_why_it_does_not_start(tmp_path: Path) -> None:
    path = config_file(tmp_path, f"twilio:\n  account_sid: {ACCOUNT}\n  auth_token: {'f' * 32}\n")
    (tmp_path / ".env").write_text("OPENAI_APIKEY=sk-1\n")
    result = runner.invoke(cli.app, ["serve", "-c", path])
    assert result.exit_code == 2
    assert "Trunkline does not start:" in result.output
    assert (
        'OPENAI_APIKEY: nothing reads this variable; did you mean "OPENAI_API_KEY"?'
        in result.output
    )
    assert "PUBLIC_URL" in result.output
    assert "OPENAI_API_KEY" in result.output


def test_an_open_address_given_as_an_option_is_refused_like_one_in_the_file(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["serve", "-c", config_file(tmp_path, ""), "--host", "0.0.0.0"])
    assert result.exit_code == 2
    assert "server.host is 0.0.0.0" in result.output


@pytest.mark.offline_speech
@pytest.mark.parametrize("command", [["config", "check"], ["doctor"]])
def test_agents_written_in_python_are_checked_as_serve_would(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_file(tmp_path, "")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agents_to_check.py").write_text(
        "from trunkline import Agent\n"
        "good = [Agent(name='a', handoffs=['b']), Agent(name='b')]\n"
        "lost = Agent(name='a', handoffs=['nobody'])\n"
    )
    result = runner.invoke(cli.app, [*command, "agents_to_check:good", "-c", config])
    assert result.exit_code == 0, result.output
    result = runner.invoke(cli.app, [*command, "agents_to_check:lost", "-c", config])
    assert result.exit_code != 0
    assert "agents_to_check:lost: agent 'a': hands over to 'nobody'" in result.output


@pytest.mark.offline_speech
def test_check_says_that_a_configuration_is_right(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["config", "check", "-c", config_file(tmp_path, "")])
    assert result.exit_code == 0
    assert result.output.endswith("config.yaml: all right (development, voice: offline)\n")


def test_check_names_variables_and_functions_in_one_run(tmp_path: Path) -> None:
    (tmp_path / "salon_of_the_check.py").write_text("def fine(): ...\n")
    path = config_file(
        tmp_path,
        """\
server: {metrics_token: "${NOT_SET_ANYWHERE}"}
tools:
  one: {python: "salon_of_the_check:fine"}
  two: {python: "salon_of_the_check:fin"}
  three: {python: nonsense}
guardrails:
  four: {python: "no_such_module_anywhere:rule"}
""",
    )
    result = runner.invoke(cli.app, ["config", "check", "-c", path])
    assert result.exit_code == 2
    places = [line.partition(": ")[2] for line in result.output.splitlines()]
    assert [place.partition(" ")[0] for place in places] == [
        "NOT_SET_ANYWHERE",
        "tools.three.python:",
        "tools.two.python:",
        "guardrails.four.python:",
    ]


def test_check_names_what_will_be_retired(tmp_path: Path) -> None:
    path = config_file(
        tmp_path, "openai_realtime: {api_key: sk-proj-123456, model: gpt-realtime}\n"
    )
    result = runner.invoke(cli.app, ["config", "check", "-c", path])
    assert result.exit_code == 0
    assert "gpt-realtime w" in result.output
    assert "2027-01-20" in result.output


def test_show_masks_secrets(tmp_path: Path) -> None:
    path = config_file(tmp_path, "openai_realtime: {api_key: sk-proj-canary-0123456789}\n")
    result = runner.invoke(cli.app, ["config", "show", "-c", path])
    assert result.exit_code == 0
    assert "canary" not in result.output
    assert "api_key: '********************6789'" in result.output


def test_the_banner_of_a_development_server_tells_all_there_is_to_know() -> None:
    text = cli.banner(Settings())
    assert len(text.splitlines()) <= 20
    assert max(map(len, text.splitlines())) <= 100
    for part in (
        "http://127.0.0.1:8080 (this machine only)",
        "no Twilio credentials are set",
        "var/development_token",
        "offline demo (no OpenAI key is set)",
        "does not follow instructions",
        "make demo",
        "trunkline init",
    ):
        assert part in text


def test_the_banner_of_a_live_server_tells_where_calls_come_in() -> None:
    settings = Settings.model_validate(
        {
            "openai_realtime": {"api_key": "sk-proj-canary-0123"},
            "twilio": {"account_sid": f"AC{TOKEN}", "auth_token": TOKEN},
            "server": {"host": "0.0.0.0", "public_url": "https://voice.harbor-clinic.org"},
        }
    )
    text = cli.banner(settings)
    assert "from Twilio, to https://voice.harbor-clinic.org/twilio/voice" in text
    assert "gpt-realtime-2.1, voice marin" in text
    assert "trunkline doctor" in text
    assert "note" not in text
    assert "offline" not in text
    assert "canary" not in text


def test_the_banner_says_when_open_files_are_too_few() -> None:
    assert "ulimit -n 400" in cli.banner(Settings(), open_files=256)
    assert "ulimit" not in cli.banner(Settings(), open_files=400)
    assert "ulimit" not in cli.banner(Settings())


def test_the_start_screen_says_that_nothing_can_be_kept(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file where the folder should be")
    text = cli.banner(Settings(state_dir=tmp_path / "var"))
    assert f"note       {tmp_path / 'var'} cannot be written: " in text
    assert "set STATE_DIR to a folder" in text


def test_the_banner_says_when_signatures_are_not_checked() -> None:
    text = cli.banner(Settings.model_validate({"twilio": {"validate_signatures": False}}))
    assert "SIGNATURES ARE NOT CHECKED" in text
    assert "are checked" not in text


def test_the_banner_says_how_the_demo_finds_a_server_that_was_moved() -> None:
    text = cli.banner(Settings(), demo_options="--to http://127.0.0.1:9000")
    assert 'make demo ARGS="--to http://127.0.0.1:9000"' in text


@pytest.mark.parametrize("port", ["70000", "-1", "eighty"])
def test_a_port_that_is_none_is_refused(port: str, tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["serve", "-c", config_file(tmp_path, ""), "--port", port])
    assert result.exit_code == 2
    assert "--port" in result.output


@pytest.mark.offline_speech
def test_doctor_works_offline_and_says_what_it_could_not_check(tmp_path: Path) -> None:
    result = runner.invoke(cli.app, ["doctor", "-c", config_file(tmp_path, "")])
    assert "ok    configuration: can be started with" in result.output
    assert "?     Twilio: no carrier credentials" in result.output


@pytest.mark.offline_speech
def test_doctor_finds_what_would_keep_the_server_from_starting(tmp_path: Path) -> None:
    text = "offline: {voice: zz-none}\ntools: {t: {python: nowhere:at_all}}\n"
    result = runner.invoke(cli.app, ["doctor", "-c", config_file(tmp_path, text)])
    assert result.exit_code == 1
    assert "config.yaml:1: offline.voice: there is no voice 'zz-none'" in result.output
    assert "config.yaml:2: tools.t.python" in result.output
    assert "can be started with" not in result.output


@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["config", "check"]])
def test_parts_of_the_offline_engine_that_are_not_installed_are_named(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pocketsphinx", None)  # as if it could not be found
    result = runner.invoke(cli.app, [*command, "-c", config_file(tmp_path, "")])
    assert result.exit_code in (1, 2)
    assert "the offline engine lacks pocketsphinx: run " in result.output
    assert isinstance(result.exception, SystemExit)


def test_dial_with_wrong_options_ends_with_code_2(tmp_path: Path) -> None:
    path = config_file(tmp_path, "")
    result = runner.invoke(cli.app, ["dial", "-c", path, "--wav", "a.wav", "--script", "b.yaml"])
    assert result.exit_code == 2


def test_dial_finds_the_address_and_token_of_its_own_server(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("server: {port: 9000}\n")
    assert cli.own_server(load(path, {})) == {
        "to": "http://127.0.0.1:9000",
        "token_file": tmp_path / "var" / "development_token",
    }
    text = "server: {host: 0.0.0.0, public_url: https://voice.example.com}\n"
    path.write_text(f"{text}twilio: {{account_sid: {ACCOUNT}, auth_token: {'f' * 32}}}\n")
    assert cli.own_server(load(path, {})) == {
        "to": "http://127.0.0.1:8080",
        "public_url": "https://voice.example.com",
        "auth_token": "f" * 32,
        "account_sid": ACCOUNT,
    }


def test_passwords_are_set_listed_and_removed(tmp_path: Path) -> None:
    environment = {"STATE_DIR": str(tmp_path / "state")}
    config = ["-c", config_file(tmp_path, "")]

    def run(*arguments: str, typed: str = "") -> tuple[int, str]:
        command = ["passwords", *arguments, *config]
        result = runner.invoke(cli.app, command, input=typed, env=environment)
        return result.exit_code, result.output

    assert "nobody has a password" in run("list")[1]
    code, said = run("set", "mo", "--scope", "operator", typed="a long enough password\n")
    assert (code, said) == (0, "mo may log in as operator\n")
    assert "at least 12 characters" in run("set", "mo", typed="short\n")[1]
    assert run("list")[1].startswith("mo  operator  set 20")
    assert run("remove", "mo")[0] == 0
    assert run("remove", "mo")[0] == 1


def _commands(command: Any, path: str = "trunkline") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, f"{path} {name}")


def test_no_option_is_so_wide_that_its_help_breaks_it_at_80_columns() -> None:
    widths = {
        f"{path} {parameter.name}": max(map(len, [*parameter.opts, shown]))
        for path, command in _commands(typer.main.get_command(cli.app))
        for parameter in command.params
        for shown in [parameter.display_type_rich(typer.Context(command))]
    }
    assert len(widths) > 40
    assert {name: width for name, width in widths.items() if width > 24} == {}


def test_a_link_to_a_server_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        text = f"server: {{port: {listening.getsockname()[1]}}}\nstate_dir: state\n"
        command = ["console", "--config", config_file(tmp_path, text)]
        running = runner.invoke(cli.app, command)
    gone = runner.invoke(cli.app, command)
    assert (running.exit_code, gone.exit_code) == (0, 0)
    assert "#login=" in running.stdout and "#login=" in gone.stdout
    assert running.stderr == ""
    assert "no server answers" in gone.stderr and "serve`" in gone.stderr
