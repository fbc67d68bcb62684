"""Finds the Python functions that settings name, such as `salon:find_slot`.

Modules are looked for among what is installed, and then beside the configuration file. Importing
one runs the operator's code, at the start and never in a call: whatever it raises is a ConfigError
that says where.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from app.agents.tools.tool import Tool
from app.errors import ConfigError
from app.settings import Origin
from app.settings.reader.names import no_such

__all__ = ["find_function", "find_module", "function_problems"]


def function_problems(origin: Origin, functions: Mapping[tuple[str | int, ...], str]) -> list[str]:
    """The mistakes in functions that settings name, each with its line."""
    problems = []
    for place, path in functions.items():
        try:
            find_function(path, origin.folder)
        except ConfigError as error:
            problems.append(f"{origin.place(*place)}: {error.message}")
    return problems


def find_function(path: str, folder: Path | None) -> Any:
    """Import the function or the `Tool` at `package.module:name`.

    Raises:
        ConfigError: the module or function is not there, or importing it failed.
    """
    module_name, _, name = path.partition(":")
    module = find_module(module_name, folder, "beside the configuration file")
    found = getattr(module, name, None)
    if found is None:
        known = [one for one, value in vars(module).items() if _is_ours(value, module)]
        raise ConfigError(f"in {module_name}, {no_such('function', name, known)}")
    if not isinstance(found, Tool) and not callable(found):
        raise ConfigError(f"{path} is not a function")
    return found


def find_module(name: str, folder: Path | None, place: str) -> ModuleType:
    """Import a module that is installed, or lies in a folder that messages call `place`.

    Raises:
        ConfigError: it is not there, or importing it failed.
    """
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        nearest = name.removesuffix(".py").strip("./").replace("/", ".")
        hint = f": write {nearest}" if nearest else ""
        raise ConfigError(f"{name!r} is not the name of a Python module{hint}")
    if folder is not None:
        _look_into(folder)
    importlib.invalidate_caches()  # a file may have come since the process started
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or name
        if name == missing or name.startswith(f"{missing}."):
            raise ConfigError(
                f"there is no module {missing!r}, neither installed nor {place}"
            ) from error
        raise ConfigError(f"{name} needs {missing!r}, which is not installed") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{name} cannot be imported: {_told(error)}") from error


def _told(error: BaseException) -> str:
    """The place in the operator's own code, and what was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<", _OURS))
    ]
    # The line that called a library says more than a place inside of it.
    frames = [one for one in frames if not one.filename.startswith(_LIBRARIES)] or frames
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    if isinstance(error, ConfigError):
        return f"{where}{error.message}"
    return f"{where}{type(error).__name__}: {error}"


_OURS: Final = f"{Path(__file__).parents[2]}{os.sep}"
_LIBRARIES: Final = tuple(
    f"{sysconfig.get_path(kind)}{os.sep}" for kind in ("stdlib", "purelib", "platlib")
)


def _look_into(folder: Path) -> None:
    # At the end: nothing beside the configuration can stand in for a module that is installed.
    path = str(folder.resolve())
    if path not in sys.path:
        sys.path.append(path)


def _is_ours(value: object, module: ModuleType) -> bool:
    if isinstance(value, Tool):
        return True
    return callable(value) and getattr(value, "__module__", "") == module.__name__
