"""The start screen of `trunkline serve`: address, mode, voice and next steps."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from importlib.metadata import version

from app.installation import caller_command, command
from app.settings import (
    Mode,
    Settings,
    VoiceChoice,
    development_token_path,
    is_loopback,
    needed_open_files,
    notices,
    state_dir_problem,
)

__all__ = ["banner"]


def banner(settings: Settings, *, demo_options: str = "", open_files: int | None = None) -> str:
    """Describe the server that is about to start, and the next steps, on one screen.

    `demo_options` are the options with which `make demo` finds the server, `open_files` the
    system's limit; None means without a limit.
    """
    today = datetime.now(UTC).date()
    rows = [("listening", _listening(settings)), *_mode_rows(settings), *_voice_rows(settings)]
    rows += [("note", notice) for notice in notices(settings, today)]
    needed = needed_open_files(settings)
    if open_files is not None and open_files < needed:
        text = f"{open_files} open files are too few for limits.max_calls: run `ulimit -n {needed}`"
        rows.append(("note", text))
    if problem := state_dir_problem(settings):
        rows.append(("note", f"{problem[0]}, so nothing is kept: {problem[1]}"))
    rows += [
        ("next" if n == 0 else "", step)
        for n, step in enumerate(_next_steps(settings, demo_options))
    ]
    body = "\n".join(f"  {name:<10} {text}" for name, text in rows)
    return f"Trunkline {version('trunkline')}\n\n{body}\n"


def _listening(settings: Settings) -> str:
    host, port = settings.server.host, settings.server.port
    shown = f"[{host}]" if ":" in host else host
    scope = "this machine only" if is_loopback(host) else "every network that reaches this address"
    return f"http://{shown}:{port} ({scope})"


def _mode_rows(settings: Settings) -> list[tuple[str, str]]:
    if settings.mode is Mode.LIVE:
        return [("calls", f"from Twilio, to {settings.base_url}{settings.server.webhook_path}")]
    checked = f"signatures are checked against the token in {development_token_path(settings)}"
    if not settings.twilio.validate_signatures:
        checked = "SIGNATURES ARE NOT CHECKED: twilio.validate_signatures is false"
    return [("calls", "simulated ones: no Twilio credentials are set"), ("", checked)]


def _voice_rows(settings: Settings) -> list[tuple[str, str]]:
    model = settings.openai_realtime
    if settings.voice_choice is VoiceChoice.OPENAI:
        return [("voice", f"{model.model}, voice {model.voice}")]
    if settings.voice_choice is VoiceChoice.PIPELINE:
        return [("voice", f"pipeline: {settings.voice_name}")]
    why = "as configured" if settings.voice_model == "offline" else "no OpenAI key is set"
    return [
        ("voice", f"offline demo ({why}): the embedded receptionist, English only."),
        ("", "It answers set questions and takes messages; it does not follow instructions."),
    ]


def _towards_real_calls(settings: Settings) -> tuple[str, str]:
    needs = "keys, account and address for real calls"
    folder = settings.origin.folder
    if folder is not None and ((folder / ".env").exists() or not os.access(folder, os.W_OK)):
        return ".env", f"takes {needs}"
    return f"{command()} init", f"asks for {needs}"


def _next_steps(settings: Settings, demo_options: str) -> list[str]:
    if settings.mode is Mode.DEVELOPMENT:
        steps = [
            (caller_command(demo_options), "a simulated call, in a second terminal"),
            _towards_real_calls(settings),
            ("Ctrl-C", "stop"),
        ]
    else:
        steps = [
            (f"{command()} doctor", "checks keys, number and public address"),
            ("Ctrl-C", "stop; live calls may finish, a second Ctrl-C ends them"),
        ]
    # A long command does not push the others' words aside.
    width = max(len(what) for what, _ in steps if len(what) <= 30)
    return [f"{what:<{width}}  {why}" for what, why in steps]
