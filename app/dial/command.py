"""The command `trunkline dial`: its options and its output.

`dial` makes one call and returns its report, `run` is the command around it. The options come from
`app.cli`, the call itself is `call.SimulatedCall`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape

from app.dial.carrier_http import Caller, Endpoints, Webhooks, http_client
from app.dial.leg import Clock, RealClock
from app.dial.report import CallPrinter, DialReport, print_report
from app.dial.script import ScriptedCaller, ScriptRun, Step, turns_script
from app.dial.simulated_call import SimulatedCall
from app.dial.speaking import Recording
from app.dial.speech import SpeechFolder, demo_script, read_script
from app.errors import ConfigError
from app.installation import command

__all__ = ["DEFAULT_TO", "DialOptions", "dial", "run"]

DEFAULT_TO: Final = "http://127.0.0.1:8080"
# The account of a server without carrier credentials: app.settings.DEVELOPMENT_ACCOUNT_SID.
_DEVELOPMENT_ACCOUNT: Final = "AC" + "0" * 32
_EXIT_FAILED: Final = 1
_EXIT_USAGE: Final = 2
_EXIT_INTERRUPTED: Final = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class DialOptions:
    """The options of `trunkline dial`.

    `to` is a server's base URL or the full URL of a voice webhook; `public_url` the URL that the
    server believes to be reached at, when that is another. `auth_token` None reads the development
    token that a local server keeps in `token_file`. Without `wavs` and `script` the packaged demo
    call is made. The call is hung up after `at_most_s`.
    """

    to: str = DEFAULT_TO
    public_url: str | None = None
    auth_token: str | None = None
    token_file: Path = Path("var/development_token")
    account_sid: str = _DEVELOPMENT_ACCOUNT
    caller_number: str = "+15005550006"
    called_number: str = "+15005550001"
    wavs: tuple[Path, ...] = ()
    script: Path | None = None
    out: Path | None = Path("var/dial.wav")
    at_most_s: int = 180
    json: bool = False


def run(options: DialOptions) -> int:
    """Make the call and print it; return the exit code: 0 good, 1 not, 2 wrong options."""
    printer = CallPrinter(None if options.json else Console())
    try:
        report = asyncio.run(dial(options, printer))
    except ConfigError as error:
        _complain(error.message)
        return _EXIT_USAGE
    except KeyboardInterrupt:
        _complain("interrupted: the call was dropped")
        return _EXIT_INTERRUPTED
    if options.json:
        sys.stdout.write(json.dumps(report.to_json(), indent=2) + "\n")
    elif report.streams:
        print_report(report, Console())
    else:
        for failure in report.failures:
            _complain(failure)
    return 0 if report.ok else _EXIT_FAILED


def _complain(text: str) -> None:
    """Print a sentence on standard error; only a terminal breaks it, between words."""
    console = Console(stderr=True)
    console.print(escape(text), style="red", highlight=False, soft_wrap=not console.is_terminal)


async def dial(
    options: DialOptions, printer: CallPrinter | None = None, *, clock: Clock | None = None
) -> DialReport:
    """Make the call and measure it. The report names everything that goes wrong on the way.

    Raises:
        ConfigError: an option, a script or a WAV file is wrong; nothing was dialed.
    """
    steps, speech = _script(options)
    try:
        endpoints = Endpoints.of(options.to, public_url=options.public_url)
    except ValueError as error:
        raise ConfigError(f"--to: {error}") from error
    token = options.auth_token or _development_token(options.token_file)
    caller = Caller(
        call_id="CA" + secrets.token_hex(16),
        account_id=options.account_sid,
        caller_number=options.caller_number,
        called_number=options.called_number,
    )
    printer = printer or CallPrinter(None)
    recording = Recording(options.out) if options.out is not None else None
    try:
        async with http_client() as client:
            call = SimulatedCall(
                caller,
                Webhooks(client, endpoints, token, caller),
                ScriptedCaller(ScriptRun(steps), speech, printer),
                printer=printer,
                recording=recording,
                clock=clock or RealClock(),
            )
            report = await call.run(endpoints.voice_url, at_most_ms=options.at_most_s * 1000)
    finally:
        if recording is not None:
            recording.close()
    return replace(report, recording=str(options.out)) if recording and report.streams else report


def _script(options: DialOptions) -> tuple[tuple[Step, ...], dict[str, bytes]]:
    """Read the steps and the speech of every file in them, before anything is dialed."""
    if options.script is not None and options.wavs:
        raise ConfigError("--script and --wav exclude each other")
    if options.script is not None:
        steps, folder = read_script(options.script)
    elif options.wavs:
        steps, folder = turns_script(tuple(map(str, options.wavs))), SpeechFolder(Path())
    else:
        steps, folder = demo_script()
    files = {file for step in steps if (file := getattr(step, "file", None)) is not None}
    return steps, {file: folder.load(file) for file in sorted(files)}


def _development_token(path: Path) -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token:
        raise ConfigError(
            f"no auth token: {path} is not there. Start the local server with `{command()} serve`,"
            " which makes it, or give --auth-token"
        )
    return token
