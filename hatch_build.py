"""Lays the code out for the wheel: `app` and `audio` move under `trunkline`, as private packages.

A checkout keeps both at its top, where an editable install finds them. In a wheel they would hide,
or be hidden by, a package `app` of the project that installs it. So `app.x` becomes
`trunkline._app.x` there and `audio.x` becomes `trunkline._audio.x`. Beside the package is the
module that the command begins with. Only import statements are rewritten: code names its own
modules in strings by `__package__`, and a string that is the full name of one stops the build.
See docs/decisions/0009-one-package-in-the-wheel.md.
"""

from __future__ import annotations

import ast
import re
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

__all__ = ["HOMES", "WheelLayout", "lay_out", "rewritten"]

HOMES: Final = {"app": "trunkline._app", "audio": "trunkline._audio"}
"""The place of each package of the checkout in a wheel."""
COMMAND: Final = "trunkline_command.py"

_NOT_SHIPPED: Final = shutil.ignore_patterns("__pycache__", "*.pyc")


class WheelLayout(BuildHookInterface[Any]):
    """The hook that hatchling calls. An editable install uses the checkout as it is."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version != "standard":
            return
        laid_out = Path(self.directory) / "wheel-layout"
        lay_out(Path(self.root), laid_out)
        for name in ("trunkline", COMMAND):
            build_data["force_include"][str(laid_out / name)] = name

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        shutil.rmtree(Path(self.directory) / "wheel-layout", ignore_errors=True)


def lay_out(root: Path, target: Path) -> None:
    """Copy the code of the checkout `root` to `target`, as a wheel holds it."""
    shutil.rmtree(target, ignore_errors=True)
    modules = {
        ".".join(path.relative_to(root).with_suffix("").parts)
        for source in HOMES
        for path in (root / source).rglob("*.py")
    }
    for source, home in {"trunkline": "trunkline", **HOMES}.items():
        package = target.joinpath(*home.split("."))
        shutil.copytree(root / source, package, ignore=_NOT_SHIPPED, dirs_exist_ok=True)
    shutil.copy(root / COMMAND, target)
    for path in target.rglob("*.py"):
        code = path.read_text(encoding="utf-8")
        try:
            path.write_text(rewritten(code, modules), encoding="utf-8")
        except ValueError as error:
            raise ValueError(f"{path.relative_to(target)}: {error}") from None


def rewritten(code: str, modules: Collection[str]) -> str:
    """The code of a module with its imports of `app` and `audio` turned to their homes in a wheel.

    Raises:
        ValueError: one of `modules` is named in a way that cannot be rewritten; the message has the
            line.
    """
    rows = code.splitlines(keepends=True)
    tree = ast.parse(code)
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module), level=0) if _top(module) in HOMES:
                at, text = node.lineno - 1, rows[node.lineno - 1]
                start = node.col_offset
                head, tail = text[:start], text[start:]
                rows[at] = head + re.sub(r"^from\s+\w+", f"from {HOMES[_top(module)]}", tail)
            case ast.Import(names=names) if any(_top(name.name) in HOMES for name in names):
                raise ValueError(f"line {node.lineno}: write `from app import ...` instead")
            case ast.Constant(value=str(text)) if text.partition(":")[0] in modules:
                raise ValueError(f"line {node.lineno}: name {text!r} by __package__ instead")
    return "".join(rows)


def _top(module: str) -> str:
    return module.partition(".")[0]
