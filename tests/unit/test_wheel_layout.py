"""The layout of the code in a wheel: imports are rewritten, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def _load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


HOOK = _load_hook()
MODULES = {"app.errors", "app.engine.worker", "audio.wav"}


def test_the_code_of_the_checkout_can_be_laid_out(tmp_path: Path) -> None:
    HOOK.lay_out(ROOT, tmp_path)
    code = (tmp_path / "trunkline" / "_app" / "cli" / "__init__.py").read_text(encoding="utf-8")
    assert "from trunkline._app.cli." in code
    assert {path.name for path in tmp_path.iterdir()} == {"trunkline", "trunkline_command.py"}


@pytest.mark.parametrize(
    ("code", "in_the_wheel"),
    [
        ("from app.errors import AppError", "from trunkline._app.errors import AppError"),
        ("from app import logs", "from trunkline._app import logs"),
        ("if x:\n    from audio import wav", "if x:\n    from trunkline._audio import wav"),
        ("from app.a import (\n    app,\n)", "from trunkline._app.a import (\n    app,\n)"),
        ("from apps import x\nfrom application.app import y", None),
        ('"""See `app.errors`."""\nx = "app"\napp.errors = 1', None),
        ('x = "pip install app.errors"', None),
        ('x = "audio.input.format"', None),
    ],
)
def test_imports_are_rewritten_and_nothing_else(code: str, in_the_wheel: str | None) -> None:
    assert HOOK.rewritten(code, MODULES) == (in_the_wheel or code)


@pytest.mark.parametrize(
    "code",
    [
        "import app.errors",
        "import os, audio.wav as wav",
        'run("app.engine.worker")',
        'x = "app.errors:AppError"',
    ],
)
def test_what_cannot_be_rewritten_stops_the_build_with_its_line(code: str) -> None:
    with pytest.raises(ValueError, match=r"^line 2: "):
        HOOK.rewritten(f"\n{code}", MODULES)
