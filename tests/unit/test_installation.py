"""Remedies name commands that work where they are printed, and packages that can be installed."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from app import installation

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with an environment inside, that is not on the path."""
    command = tmp_path / ".venv" / "bin" / "trunkline"
    command.parent.mkdir(parents=True)
    command.write_text("")
    command.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRUNKLINE_COMMAND", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize(
    ("started", "typed"),
    [
        (".venv/bin/trunkline", ".venv/bin/trunkline"),
        ("{folder}/.venv/bin/trunkline", ".venv/bin/trunkline"),
        ("/opt/my tools/bin/trunkline", "'/opt/my tools/bin/trunkline'"),
        ("/opt/bin/trunkline.exe", "/opt/bin/trunkline.exe"),
        ("/usr/bin/pytest", "trunkline"),
    ],
)
def test_the_command_is_printed_as_it_is_typed_here(
    started: str, typed: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started.format(folder=folder)])
    assert installation.command() == typed
    assert installation.caller_command("--json") == f"{typed} dial --json"


def test_a_command_on_the_path_needs_no_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [".venv/bin/trunkline"])
    monkeypatch.setenv("PATH", str(folder / ".venv" / "bin"))
    assert installation.command() == "trunkline"
    assert installation.copy_command("dial.wav") is None  # it is here


def test_a_module_is_started_by_its_interpreter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["/lib/trunkline/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(folder / ".venv" / "bin" / "python"))
    assert installation.command() == ".venv/bin/python -m trunkline"


def test_a_container_says_how_it_is_reached(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_COMMAND", "docker compose exec trunkline trunkline")
    assert installation.command() == "docker compose exec trunkline trunkline"
    assert installation.caller_command() == "docker compose exec trunkline trunkline dial"
    copied = installation.copy_command("/data/dial.wav")
    assert copied == "docker compose cp trunkline:/data/dial.wav ."


def test_make_calls_the_server_in_the_checkout_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "make" not in installation.caller_command()
    monkeypatch.chdir(ROOT)
    assert installation.caller_command() == "make demo"
    assert installation.caller_command("--json") == 'make demo ARGS="--json"'


@pytest.mark.parametrize("extra", ["offline", "mcp", "postgres", "redis", "otel"])
def test_the_packages_of_an_extra_are_those_of_the_project(
    extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    wanted = {Requirement(line).name for line in PROJECT["optional-dependencies"][extra]}
    cure = installation.install_command(extra)
    assert all(name in cure for name in wanted)
    assert "trunkline" not in cure.partition(" install ")[2]


@pytest.mark.parametrize("page", [ROOT / "config.yaml", *sorted((ROOT / "docs").glob("*.md"))])
def test_pages_name_packages_that_an_index_has(page: Path) -> None:
    """No index has Trunkline; whatever has its name there is of somebody else."""
    known = {line for extra in PROJECT["optional-dependencies"].values() for line in extra}
    for line in page.read_text(encoding="utf-8").splitlines():
        for packages in re.findall(r"pip install ([^`#]*)", line):
            assert all(one in known or one[0] in "./-" for one in shlex.split(packages)), line


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("minor", [11, 12, 13, 14, 15])
def test_speech_is_promised_where_the_extra_brings_it(
    minor: int, machine: str, platform: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, minor, 0))
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("platform.machine", lambda: machine)
    here = {
        "python_version": f"3.{minor}",
        "sys_platform": platform,
        "platform_machine": machine,
    }
    brought = [
        need
        for need in map(Requirement, PROJECT["optional-dependencies"]["offline"])
        if need.name == "pocketsphinx" and (need.marker is None or need.marker.evaluate(here))
    ]
    assert len(brought) <= 1
    promised = "--only-binary" in installation.install_command("offline")
    assert promised == bool(brought)
