"""Shared parts of the commands: the option that names the configuration, and failing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from app.errors import ConfigError
from app.installation import command
from app.settings import (
    Settings,
    load,
)

__all__ = [
    "DEFAULT_CONFIG",
    "EXIT_CONFIG",
    "EXIT_FAILED",
    "EXIT_INTERRUPTED",
    "ConfigPath",
    "fail",
    "find",
    "load_settings",
]

EXIT_FAILED: Final = 1
EXIT_CONFIG: Final = 2
EXIT_INTERRUPTED: Final = 130

ConfigPath = Annotated[
    Path,
    typer.Option("--config", "-c", envvar="TRUNKLINE_CONFIG", help="The configuration file."),
]
DEFAULT_CONFIG: Final = Path("config.yaml")


def fail(text: str, code: int = EXIT_CONFIG) -> NoReturn:
    """End the command with a sentence on standard error."""
    typer.secho(text, err=True, fg=typer.colors.RED)
    raise typer.Exit(code)


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
        return load(path, os.environ)
    except ConfigError as error:
        fail(error.message)
