"""Shared parts of the commands: the option that names the configuration, and failing."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import textwrap
import threading
from pathlib import Path
from typing import Annotated, Final, NoReturn, TextIO

import typer

from app.errors import ConfigError
from app.installation import command
from app.network import use_network
from app.settings import Server, Settings, load

__all__ = [
    "DEFAULT_CONFIG",
    "EXIT_CONFIG",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "ConfigPath",
    "echo",
    "fail",
    "find",
    "load_settings",
    "own_url",
    "show",
    "wrapped",
]

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2
EXIT_INTERRUPTED: Final = 130

ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="TRUNKLINE_CONFIG", help="The configuration file."),
]
_SHOW_S: Final = 1.0
"""The wait for whoever reads what a command shows."""
_STYLE: Final = re.compile(r"\x1b\[[0-9;]*m")
_NAME: Final = re.compile(r" *(?:\S+ {2,})?")
DEFAULT_CONFIG: Final = Path("config.yaml")


def fail(text: str, code: int = EXIT_CONFIG) -> NoReturn:
    """End the command with a sentence on standard error."""
    # typer knows of terminals, but not of NO_COLOR (https://no-color.org).
    shown = wrapped(text, sys.stderr)
    show(shown if _no_color() else typer.style(shown, fg=typer.colors.RED), err=True)
    raise typer.Exit(code)


def show(text: str, *, err: bool = False) -> None:
    """Write a text, and go on where nobody takes it: a full disk, or a pipe that nobody reads."""
    stream = sys.stderr if err else sys.stdout
    try:
        stream.flush()
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):
        typer.echo(text, err=err)
        return
    shown = text if stream.isatty() else _STYLE.sub("", text)
    data = f"{shown}\n".encode(stream.encoding or "utf-8", "backslashreplace")
    # Past the stream's buffer: the interpreter waits for it when it ends.
    writer = threading.Thread(target=_write_all, args=(descriptor, data), daemon=True)
    writer.start()
    writer.join(_SHOW_S)


def _write_all(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]


def echo(text: str, *, err: bool = False) -> None:
    """Print lines, broken between words on a terminal."""
    typer.echo(wrapped(text, sys.stderr if err else sys.stdout), err=err)


def wrapped(text: str, stream: TextIO) -> str:
    """The text with its lines broken between words where `stream` is a terminal, and else as it is.

    A line goes on below its own text, or below what follows the name at its beginning.
    """
    if not stream.isatty():
        return text
    width = shutil.get_terminal_size().columns
    return "\n".join(_broken(line, width) for line in text.split("\n"))


def _broken(line: str, width: int) -> str:
    if len(line) <= width:
        return line
    found = _NAME.match(line)
    indent = len(found.group()) if found is not None else 0
    return textwrap.fill(
        line,
        max(width, indent + 20),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )


def _no_color() -> bool:
    return bool(os.environ.get("NO_COLOR"))


def find(path: Path) -> None:
    """End the command when the file does not exist."""
    # A parent folder that may not be entered is told below; before Python 3.14 Path.exists raises.
    if not os.path.exists(path) and os.access(path.parent, os.X_OK):
        fail(
            f"there is no {path}: start in the folder that holds it, or name it with --config. "
            f"`{command()} init` writes one here"
        )


def load_settings(path: Path) -> Settings:
    """Load the settings, or end the command with all their mistakes."""
    find(path)
    try:
        settings = load(path, os.environ)
    except ConfigError as error:
        fail(error.message)
    use_network(settings.network.rule)
    return settings


def own_url(server: Server) -> str:
    """The address at which this machine reaches the server of these settings."""
    host = "127.0.0.1" if server.host in ("0.0.0.0", "::") else server.host
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"
