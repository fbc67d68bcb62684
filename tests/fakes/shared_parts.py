"""Parts of a server that depend on nothing a test does, made once for all servers of a process.

Most of the start of a server in a test went into them: the certificates that a client trusts, the
signatures of routes, the checks of their parameters, and the tables of a new database.
"""

from __future__ import annotations

import fcntl
import functools
import inspect
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, get_args

import fastapi._compat.v2
import fastapi.dependencies.models as classified
import fastapi.dependencies.utils as dependencies
import fastapi.routing as routing
import httpcore2
from fastapi._compat import ModelField
from fastapi.utils import create_model_field
from pydantic import TypeAdapter
from starlette.routing import compile_path

from app.store.sql.database import Database, _make_private

__all__ = ["share_parts"]


def share_parts() -> None:
    """Take the place of the functions that would make them anew, for good."""
    httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)
    fastapi._compat.v2.TypeAdapter = _shared_adapter  # type: ignore[attr-defined, assignment]
    dependencies.get_typed_signature = _shared_signature
    dependencies.analyze_param = _shared_analysis
    vars(classified)["_CallIdentity"] = _SharedIdentity
    vars(routing).update(
        get_typed_return_annotation=_shared_return_annotation,
        compile_path=functools.cache(compile_path),
        create_model_field=_shared_response_field,
    )
    Database.upgrade = _shared_upgrade  # type: ignore[assignment, method-assign]


_PLAIN = (bool, float, int, str, type(None))
_signatures: dict[tuple[CodeType, str], inspect.Signature] = {}
_typed_signature = dependencies.get_typed_signature


def _shared_signature(call: Callable[..., Any]) -> inspect.Signature:
    """Of a function that is made anew for each server, always the same one."""
    if not isinstance(call, FunctionType):
        return _typed_signature(call)
    defaults = (*(call.__defaults__ or ()), *(call.__kwdefaults__ or {}).values())
    if not all(type(default) in _PLAIN for default in defaults):
        return _typed_signature(call)
    key = (call.__code__, repr(defaults))
    return _signatures.get(key) or _signatures.setdefault(key, _typed_signature(call))


class _SharedIdentity:
    """A function to FastAPI's note of which are generators and coroutines: its code says so."""

    __slots__ = ("call", "key")

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call
        plain = isinstance(call, FunctionType) and not hasattr(call, "__wrapped__")
        self.key: object = call.__code__ if plain else id(call)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _SharedIdentity) and self.key == other.key


_returns: dict[CodeType, Any] = {}
_return_annotation = dependencies.get_typed_return_annotation


def _shared_return_annotation(call: Callable[..., Any]) -> Any:
    if not isinstance(call, FunctionType):
        return _return_annotation(call)
    if call.__code__ not in _returns:
        _returns[call.__code__] = _return_annotation(call)
    return _returns[call.__code__]


_response_fields: dict[tuple[str, int], tuple[Any, ModelField]] = {}


def _shared_response_field(*, name: str, type_: Any, mode: Any) -> ModelField:
    key = (name, id(type_))
    if key not in _response_fields:  # the type stays, so that no other gets its identity
        _response_fields[key] = type_, create_model_field(name=name, type_=type_, mode=mode)
    return _response_fields[key][1]


_analyses: dict[tuple[str, int, str, bool], tuple[Any, dependencies.ParamDetails]] = {}
_analyze = dependencies.analyze_param


def _shared_analysis(
    *, param_name: str, annotation: Any, value: Any, path_param_names: set[str]
) -> dependencies.ParamDetails:
    if value is not inspect.Parameter.empty and type(value) not in _PLAIN:
        return _analyze(
            param_name=param_name,
            annotation=annotation,
            value=value,
            path_param_names=path_param_names,
        )
    key = (param_name, id(annotation), repr(value), param_name in path_param_names)
    if key in _analyses:
        return _analyses[key][1]
    found = _analyze(
        param_name=param_name, annotation=annotation, value=value, path_param_names=path_param_names
    )
    if found.depends is None:
        _analyses[key] = annotation, found  # which keeps the identity from being given again
    return found


_adapters: dict[tuple[object, ...], TypeAdapter[Any]] = {}


def _shared_adapter(annotation: Any, config: Any = None) -> TypeAdapter[Any]:
    # FastAPI asks for `Annotated[type, ..., FieldInfo]`. The type is compared as such, since two
    # tests may each have a `Body` of their own; a field's facts are equal if their texts are.
    kind, *facts = get_args(annotation)
    key = (kind, repr(kind), repr(facts), repr(config))
    try:
        return _adapters[key]
    except KeyError:
        return _adapters.setdefault(key, TypeAdapter(annotation, config=config))
    except TypeError:  # a type that is not hashable
        return TypeAdapter(annotation, config=config)


_tables: list[bytes] = []
_upgrade = Database.upgrade


async def _shared_upgrade(database: Database, to: str = "heads") -> None:
    """Bring the tables up to date; a new SQLite file gets those that another one got before."""
    if database.path and to == "heads":
        path = Path(database.path)
        _make_private(path)
        if not path.stat().st_size:  # noqa: ASYNC240 - as quick as anything here
            _fill(path, await _new_tables())
    await _upgrade(database, to)


async def _new_tables() -> bytes:
    if not _tables:
        with tempfile.TemporaryDirectory() as folder:
            made = Database(Path(folder, "made.db"))
            await _upgrade(made)
            await made.close()
            _tables.append(Path(folder, "made.db").read_bytes())  # noqa: ASYNC240
    return _tables[0]


def _fill(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # another server may begin with the same file
        if not path.stat().st_size:
            file.write(content)
