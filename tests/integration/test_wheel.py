"""The wheel in a project that has packages `app` and `audio` of its own: neither hides the other.

One wheel is built, as an installer builds it, and installed into a fresh environment. Trunkline's
dependencies come from the environment that runs the tests, so nothing is downloaded.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fakes.once import made_once

ROOT = Path(__file__).parents[2]


PROGRAM = '''
import asyncio, sys
from pathlib import Path

import app, app.tools, audio
import trunkline
from trunkline import Agent, AgentSession, SessionConfig, make_engine, tool
from trunkline.audio import PCM16_24K
from trunkline.events import AgentEnd, HistoryUpdated

assert app.OWNER == audio.OWNER == "the project"
assert "trunkline" in Path(trunkline.__file__).parts


@tool
def look_up(name: str) -> str:
    """Look somebody up."""
    return name


async def main() -> None:
    agent = Agent(name="A", session=SessionConfig(instructions="Be brief."), tools=(look_up,))
    engine = make_engine(max_sessions=1, workers=1)
    await engine.start()
    try:
        async with AgentSession(agent, engine.model()) as session:
            await session.send_message("When are you open?")
            async for event in session:
                if isinstance(event, AgentEnd):
                    break
            print([item.text for item in session.history])
    finally:
        await engine.close()


asyncio.run(main())
ours = {name for name in sys.modules if name.partition(".")[0] in ("app", "audio")}
assert ours == {"app", "app.tools", "audio"}
'''
CONFIG = """
agents:
  greeter: {instructions: Greet., tools: [look_up]}
tools:
  look_up: {python: "app.tools:look_up"}
logging: {format: json}
"""


@dataclass(frozen=True)
class Installed:
    """The environment that holds the wheel, and the project that uses it."""

    environment: Path
    project: Path
    wheel: Path
    sdist: Path

    def run(self, *command: str, folder: Path | None = None) -> str:
        """Run a program of the environment and return its output; the test fails if it does."""
        done = subprocess.run(
            [str(self.environment / "bin" / command[0]), *command[1:]],
            cwd=folder or self.project,
            env={"PATH": os.environ.get("PATH", ""), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = made_once(tmp_path_factory, "wheel", _install)
    [wheel], [sdist] = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return Installed(folder / "environment", folder / "project", wheel, sdist)


def _install(folder: Path) -> None:
    dist, environment, project = (folder / name for name in ("dist", "environment", "project"))
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(dist)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=100)
    [wheel] = dist.glob("*.whl")
    venv.create(environment, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment), "install", "--quiet"]
    subprocess.run(
        [*pip, "--disable-pip-version-check", "--no-index", "--no-deps", str(wheel)],
        check=True,
        timeout=100,
    )
    # A path in a .pth file is searched, but its own .pth files (the checkout's) are not read.
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    for name in ("app", "audio"):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text('OWNER = "the project"\n')
    (project / "app" / "tools.py").write_text(
        "from trunkline import tool\n\n\n@tool\ndef look_up(name: str) -> str:\n"
        '    """Look somebody up."""\n    return name\n'
    )
    (project / "program.py").write_text(PROGRAM)
    (project / "config.yaml").write_text(CONFIG)


def test_the_wheel_holds_one_package_with_its_data(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    top = {name.partition("/")[0].partition("-")[0] for name in names}
    assert top == {"trunkline", "trunkline_command.py"}
    for home, room in (("_app", "app"), ("_audio", "audio")):
        kept = {name.removeprefix(f"trunkline/{home}/") for name in names if f"/{home}/" in name}
        here = {
            str(path.relative_to(ROOT / room))
            for path in (ROOT / room).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert kept == here
    assert "trunkline/py.typed" in names


def test_no_module_of_the_wheel_imports_a_package_of_the_checkout(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        for name in wheel.namelist():
            if not name.endswith(".py"):
                continue
            for node in ast.walk(ast.parse(wheel.read(name))):
                if isinstance(node, ast.ImportFrom):
                    assert (node.module or "").partition(".")[0] not in ("app", "audio"), name
                elif isinstance(node, ast.Import):
                    assert not {a.name.partition(".")[0] for a in node.names} & {"app", "audio"}


def test_the_source_distribution_builds_the_same_wheel(
    installed: Installed, tmp_path: Path
) -> None:
    with tarfile.open(installed.sdist) as sources:
        sources.extractall(tmp_path, filter="data")
    [folder] = tmp_path.iterdir()
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=folder, check=True, capture_output=True, timeout=100)
    [again] = tmp_path.glob("*.whl")
    first, second = zipfile.ZipFile(installed.wheel), zipfile.ZipFile(again)
    assert {n: first.read(n) for n in first.namelist()} == {
        n: second.read(n) for n in second.namelist()
    }


@pytest.mark.offline_speech
def test_a_program_uses_its_own_app_and_an_agent_of_trunkline(installed: Installed) -> None:
    assert "We are open" in installed.run("python", "program.py")


@pytest.mark.offline_speech
def test_the_command_finds_the_functions_of_the_projects_app(installed: Installed) -> None:
    checked = installed.run("trunkline", "config", "check")
    assert "config.yaml" in checked
    assert installed.run("python", "-m", "trunkline", "--version") == installed.run(
        "trunkline", "--version"
    )


@pytest.mark.offline_speech
def test_the_command_starts_from_an_empty_folder(installed: Installed, tmp_path: Path) -> None:
    written = installed.run("trunkline", "init", folder=tmp_path)
    assert f"{installed.environment}/bin/trunkline serve" in written
    assert "all right" in installed.run("trunkline", "config", "check", folder=tmp_path)
    assert installed.run("trunkline", "chat", "--say", "Are you open?", folder=tmp_path)


@pytest.mark.offline_speech
def test_the_command_talks_offline(installed: Installed) -> None:
    said = installed.run("trunkline", "chat", "--say", "When are you open?", "--json")
    assert "open" in said


def test_trunkline_brings_no_package_app_of_its_own(installed: Installed, tmp_path: Path) -> None:
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('app', 'audio')])"
    assert installed.run("python", "-c", code, folder=tmp_path).split() == ["[None,", "None]"]


def test_a_line_of_the_log_names_the_same_logger_as_in_a_checkout(installed: Installed) -> None:
    code = (
        "import logging, sys\nfrom trunkline._app.logs import JsonFormatter, Redactor\n"
        "record = logging.LogRecord('trunkline._app.calls.call', 20, '', 1, 'm', (), None)\n"
        "print(JsonFormatter(Redactor()).format(record))"
    )
    assert '"logger": "app.calls.call"' in installed.run("python", "-c", code)
