"""The commands serve, dial, chat, doctor and config; `numbers` has a module of its own.

Each command imports the code that it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import os
import shlex
import socket
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from app import logs
from app.cli.banner import banner
from app.cli.calls import calls_app
from app.cli.db import db_app
from app.cli.init import init
from app.cli.keys import keys_app
from app.cli.numbers import numbers_app
from app.cli.outbound import call, campaign_app, do_not_call_app
from app.cli.passwords import passwords_app
from app.cli.shared import (
    DEFAULT_CONFIG,
    EXIT_CONFIG,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigPath,
    echo,
    fail,
    find,
    load_settings,
    own_url,
    show,
    wrapped,
)
from app.credentials.api_keys import first_key, first_key_path
from app.credentials.console_logins import Logins
from app.errors import AppError, ConfigError
from app.installation import command
from app.settings import (
    Mode,
    Server,
    Settings,
    carrier_credentials,
    check_deployment,
    development_token_path,
    is_loopback,
    masked,
    open_files,
)
from app.settings.reader.secrets import hide_secrets

if TYPE_CHECKING:
    from app.assembly.agents.python_agents import WrittenAgents
    from app.cli.check import Checked
    from app.doctor.system_checks import CheckResult

__all__ = ["app", "banner", "main", "own_server"]

MOST_WORKERS: Final = 64
WORKER_CODE: Final = f"from {__name__} import main; main()"

logger = logging.getLogger(__name__)

app = typer.Typer(
    name="trunkline",
    help="Answers phone calls with a voice model, or with its own offline engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # its frames show local values, secrets among them
)
config_app = typer.Typer(help="Check and show the configuration.", no_args_is_help=True)
app.add_typer(config_app, name="config")
app.add_typer(numbers_app, name="numbers")
app.add_typer(db_app, name="db")
app.add_typer(keys_app, name="keys")
app.add_typer(passwords_app, name="passwords")
app.add_typer(calls_app, name="calls")
app.add_typer(campaign_app, name="campaign")
app.add_typer(do_not_call_app, name="do-not-call")
app.command()(call)
app.command()(init)


def main() -> None:
    """The entry point."""
    app()


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"trunkline {version('trunkline')}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Answers phone calls with a voice model, or with its own offline engine."""


# serve --------------------------------------------------------------------------------------------


AgentsPath = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODULE:NAME]", help="Agents written in Python, such as my_agents:roster."
    ),
]


@app.command()
def serve(
    agents: AgentsPath = None,
    config: ConfigPath = DEFAULT_CONFIG,
    host: Annotated[str | None, typer.Option(help="In place of server.host.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="In place of server.port.")
    ] = None,
    workers: Annotated[
        str | None, typer.Option(help="Processes, or auto. In place of server.workers.")
    ] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C; live calls may finish, a second signal ends them."""
    configured = load_settings(config)
    settings = _with_address(configured, host, port)
    count = _worker_count(settings.server.workers if workers is None else workers)
    if problems := check_deployment(settings):
        noted = [f"note: {notice}" for notice in settings.origin.notices]
        reasons = "\n".join(f"  {problem}" for problem in (*problems, *noted))
        fail(f"Trunkline does not start:\n{reasons}")
    from app.workers.worker_process import WorkerProcess

    try:
        worker = WorkerProcess.from_environment()
        supervises = count > 1 and worker is None
        written = () if supervises else _written_agents(agents)
        credentials = carrier_credentials(settings)
        redactor = logs.configure(
            level=settings.logging.level,
            format=settings.logging.format,
            secrets=settings.secrets(),
            show_personal=settings.logging.show_personal,
            spooled=True,
        )
        redactor.add(*credentials.auth_tokens, *credentials.shared_keys)

        def announce(bound: int) -> None:
            here = _with_address(settings, None, bound)
            options = _demo_options(config, configured, here)
            shown = banner(here, demo_options=options, open_files=open_files())
            show(wrapped(shown, sys.stdout))
            # Not before: of a start that fails, nobody would see it.
            token = _first_key(settings)
            if token is not None:
                redactor.add(token)
                show(wrapped(_first_key_shown(settings, token), sys.stdout))
            if settings.console.enabled:
                show(wrapped(_console_shown(here, redactor), sys.stdout))

        if supervises:
            raise typer.Exit(_supervise(settings, count, announce))
        # All that is made from here on stays: to collect meanwhile is a fifth of the start.
        # `app.main` turns collections on again, once calls are answered.
        gc.disable()
        from app.main import serve as run_server

        if worker is not None:
            raise typer.Exit(run_server(settings, lambda bound: None, written, worker))
        raise typer.Exit(run_server(settings, announce, written))
    except ConfigError as error:
        fail(hide_secrets(error.message, settings.secrets()))
    except AppError as error:
        fail(error.message, EXIT_FAILED)


def _first_key(settings: Settings) -> str | None:
    """The first key of the API, where it was made just now. Calls go on without one."""
    if settings.mode is not Mode.LIVE:
        return None
    try:
        return first_key(settings.state_dir)
    except ConfigError as error:
        logger.warning("api keys cannot be written", extra={"reason": error.message})
        return None


def _first_key_shown(settings: Settings, token: str) -> str:
    """The first key of the API, on a terminal; output that is kept somewhere gets its file."""
    path = first_key_path(settings.state_dir)
    what = f"  api key    for the HTTP API, admin, kept in {path}"
    return f"{what}:\n             {token}\n" if sys.stdout.isatty() else f"{what}\n"


def _console_shown(settings: Settings, redactor: logs.Redactor) -> str:
    """The way to the console: a link that opens it once, on a terminal only."""
    if "TRUNKLINE_COMMAND" in os.environ and is_loopback(settings.server.host):
        return ""  # no browser reaches into the container
    address = f"{own_url(settings.server)}/console"
    what = "  console   "
    if not sys.stdout.isatty():
        return f"{what} {address} (`{command()} console` prints a link that opens it)\n"
    try:
        link = Logins(settings.state_dir).make_link()
    except (ConfigError, OSError):
        return f"{what} {address}\n"
    redactor.add(link)
    return f"{what} {address}#login={link}\n             opens it once, within the hour\n"


@app.command()
def console(
    config: ConfigPath = DEFAULT_CONFIG,
    end_logins: Annotated[
        bool, typer.Option("--end-logins", help="End all logins and links first.")
    ] = False,
) -> None:
    """Print a link that opens the console of this configuration's server, once, as an admin."""
    settings = load_settings(config)
    if not settings.console.enabled:
        fail("console.enabled is false: there is no console")
    logins = Logins(settings.state_dir)
    try:
        if end_logins:
            echo(f"ended logins: {logins.close()}", err=True)
        url = own_url(settings.server)
        typer.echo(f"{url}/console#login={logins.make_link()}")
        if not _listens(url):
            echo(f"no server answers at {url} yet: start it with `{command()} serve`", err=True)
    except (ConfigError, OSError) as error:
        fail(f"logins cannot be kept: {error}", EXIT_FAILED)


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1):
            return True
    except OSError:
        return False


def _written_agents(path: str | None) -> WrittenAgents:
    """The agents written in Python that a command was given, from here or what is installed.

    Raises:
        ConfigError: they are not there, or do not fit together.
    """
    if path is None:
        return ()
    from app.assembly.agents.python_agents import find_agents

    return find_agents(path, Path.cwd())


def _worker_count(wanted: int | str) -> int:
    if wanted == "auto":
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    try:
        count = int(wanted)
    except ValueError:
        count = 0
    if not 1 <= count <= MOST_WORKERS:
        fail(f"--workers: {wanted} is neither auto nor a number from 1 to {MOST_WORKERS}")
    if count > 1 and not sys.platform.startswith("linux"):
        fail("server.workers: more than one process needs Linux; set it to 1")
    return count


def _supervise(settings: Settings, count: int, announce: Callable[[int], None]) -> int:
    """Run workers by the command that this process was started with.

    Raises:
        ConfigError: the address cannot be bound.
    """
    from app.web.server.listener import bind
    from app.workers.supervisor import supervise

    listener = bind(settings.server.host, settings.server.port)
    bound = int(listener.getsockname()[1])
    return supervise(
        [sys.executable, "-c", WORKER_CODE, *sys.argv[1:]],
        count=count,
        listener=listener,
        announce=lambda: announce(bound),
    )


def _with_address(settings: Settings, host: str | None, port: int | None) -> Settings:
    update = {key: value for key, value in (("host", host), ("port", port)) if value is not None}
    server = settings.server.model_copy(update=update)
    return settings.model_copy(update={"server": server})


def _demo_options(config: Path, configured: Settings, running: Settings) -> str:
    """The options with which `make demo` finds this server; none where the file says it all."""
    options = []
    if config != DEFAULT_CONFIG and os.environ.get("TRUNKLINE_CONFIG") != str(config):
        options.append(f"--config {shlex.quote(str(config))}")
    if running.server != configured.server:
        options.append(f"--to {own_url(running.server)}")
    return " ".join(options)


# dial ---------------------------------------------------------------------------------------------


@app.command()
def dial(  # noqa: PLR0913 - one parameter for each option of the command
    config: ConfigPath = DEFAULT_CONFIG,
    to: Annotated[
        str | None, typer.Option(help="A server, or a voice webhook. Default: this one.")
    ] = None,
    auth_token: Annotated[
        str | None,
        typer.Option(envvar="TRUNKLINE_DIAL_AUTH_TOKEN", help="What the server checks us with."),
    ] = None,
    account_sid: Annotated[str | None, typer.Option(help="The account to call as.")] = None,
    public_url: Annotated[
        str | None, typer.Option(help="The address that the server believes to have.")
    ] = None,
    caller: Annotated[str, typer.Option("--from", help="The caller's number.")] = "+15005550006",
    called: Annotated[str, typer.Option(help="The number that is called.")] = "+15005550001",
    wav: Annotated[
        list[Path] | None, typer.Option(help="A caller turn as WAV; may be repeated.")
    ] = None,
    script: Annotated[Path | None, typer.Option(help="A caller script.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The stereo recording. Default: dial.wav under state_dir."),
    ] = None,
    at_most_s: Annotated[int, typer.Option(help="Hang up after this many seconds.")] = 180,
    json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Call a server as Twilio would: speak, barge in, listen, hang up, measure."""
    from app.dial import DialOptions, run

    given = {"to": to, "auth_token": auth_token, "account_sid": account_sid}
    explicit = {name: value for name, value in given.items() if value is not None}
    # For a call to another server with a token of its own, our configuration has nothing to say.
    known: dict[str, Any] = {}
    state_dir = Path(os.environ.get("STATE_DIR", "var"))
    if to is None or auth_token is None:
        settings = load_settings(config)
        known, state_dir = own_server(settings), settings.state_dir
    if to is not None:
        known.pop("public_url", None)
    options = DialOptions(
        caller_number=caller,
        called_number=called,
        wavs=tuple(wav or ()),
        script=script,
        out=out or state_dir / "dial.wav",
        at_most_s=at_most_s,
        json=json,
    )
    options = dataclasses.replace(options, **{**known, **explicit})
    if public_url is not None:
        options = dataclasses.replace(options, public_url=public_url)
    raise typer.Exit(run(options))


def own_server(settings: Settings) -> dict[str, Any]:
    """The options with which `trunkline dial` calls this configuration's server."""
    server = settings.server
    to = own_url(server)
    if server.webhook_path != Server().webhook_path:
        to += server.webhook_path
    if settings.mode is Mode.DEVELOPMENT:
        return {"to": to, "token_file": development_token_path(settings)}
    try:
        credentials = carrier_credentials(settings)
    except ConfigError as error:
        fail(error.message)
    return {
        "to": to,
        "public_url": settings.base_url,
        "auth_token": credentials.auth_tokens[0],
        "account_sid": credentials.account_sid,
    }


# chat ---------------------------------------------------------------------------------------------


@app.command()
def chat(
    agents: AgentsPath = None,
    config: ConfigPath = DEFAULT_CONFIG,
    say: Annotated[
        str | None, typer.Option("--say", help="Say one thing, print the answer, and leave.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print events as JSON, one object per line.")
    ] = False,
    number: Annotated[
        str | None, typer.Option(help="As callers of this number of yours, with +.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Who answers, by name.")] = None,
) -> None:
    """Type to the agent that answers the phone. Works offline, without any key."""
    if say is not None and not say.strip():
        fail("--say: there are no words to say")
    settings = load_settings(config)
    from app.assembly.text_session import text_session
    from app.cli.chat import run

    logs.configure(
        level="WARNING",
        format="console",
        secrets=settings.secrets(),
        show_personal=settings.logging.show_personal,
    )
    try:
        session = text_session(
            settings,
            greets=say is None,
            number=number,
            agent=agent,
            agents=_written_agents(agents),
        )
        ended_well = asyncio.run(run(session, say=say, as_json=json))
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except AppError as error:
        fail(error.message, EXIT_CONFIG if isinstance(error, ConfigError) else EXIT_FAILED)
    raise typer.Exit(0 if ended_well else EXIT_FAILED)


# doctor -------------------------------------------------------------------------------------------


@app.command()
def doctor(
    agents: AgentsPath = None,
    config: ConfigPath = DEFAULT_CONFIG,
    say: Annotated[
        str | None,
        typer.Option("--say", help="Have the voice model answer this, and check nothing else."),
    ] = None,
) -> None:
    """Check everything that a real call needs, and say what is wrong and what to do."""
    from app.cli.check import check_config

    find(config)
    if say is not None:
        settings = load_settings(config)
        try:
            answered = asyncio.run(_say(settings, say))
        except ConfigError as error:
            fail(error.message)
        raise typer.Exit(0 if answered else EXIT_FAILED)
    checked = check_config(config, os.environ, agents)
    if checked.settings is None:
        fail("\n".join(checked.problems))
    raise typer.Exit(EXIT_FAILED if asyncio.run(_run_checks(checked.settings, checked)) else 0)


async def _say(settings: Settings, text: str) -> bool:
    """Ask each voice model outside of any call, and print what it answers."""
    from app.assembly.voice_models import offline_engine, voices_of_numbers
    from app.doctor import system_checks

    engine = offline_engine(settings)
    results = []
    try:
        if engine is not None:
            await engine.start()
        for voice in voices_of_numbers(settings) if engine is None else [engine.model()]:
            result = await system_checks.say(voice, text)
            results.append(result)
            _print_result(result)
    finally:
        if engine is not None:
            await engine.close()
    return all(result.verdict is system_checks.Verdict.GOOD for result in results)


async def _run_checks(settings: Settings, checked: Checked) -> bool:
    from app.doctor import system_checks
    from app.parts import run_all_checks

    results = []
    async for result in run_all_checks(
        settings, problems=checked.problems, surprises=checked.notices
    ):
        results.append(result)
        _print_result(result)
    wrong = system_checks.failed(results)
    echo(f"\n{system_checks.verdict_of(results)}")
    return wrong


_MARKS: Final = {"good": "ok  ", "warning": "note", "wrong": "BAD ", "unchecked": "?   "}


def _print_result(result: CheckResult) -> None:
    line = f"{_MARKS[result.verdict.value]}  {result.subject}: {result.text}"
    echo(line)
    if result.remedy:
        echo(f"      -> {result.remedy}")


# config -------------------------------------------------------------------------------------------


@config_app.command("check")
def config_check(agents: AgentsPath = None, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Check that the server would start with this configuration, and say why not."""
    from app.cli.check import check_config

    find(config)
    checked = check_config(config, os.environ, agents)
    for notice in checked.notices:
        echo(f"note: {notice}")
    settings = checked.settings
    if checked.problems or settings is None:
        fail("\n".join(checked.problems))
    echo(f"{config}: all right ({settings.mode}, voice: {settings.voice_choice})")


@config_app.command("show")
def config_show(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Print the configuration in force, as a file: defaults filled in, secrets masked."""
    typer.echo(masked(load_settings(config)), nl=False)
