"""Parts of libraries that depend on nothing a test does, made once for all servers of a process.

Three quarters of the start of a server in a test went into them: the certificates that a client
trusts, the signatures of routes, and the checks of their parameters.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any, get_args

import fastapi._compat.v2
import fastapi.dependencies.utils as dependencies
import httpcore2
from pydantic import TypeAdapter

__all__ = ["share_parts"]


def share_parts() -> None:
    """Take the place of the functions that would make them anew, for good."""
    httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)
    fastapi._compat.v2.TypeAdapter = _shared_adapter  # type: ignore[attr-defined, assignment]
    dependencies.get_typed_signature = _shared_signature
    dependencies.analyze_param = _shared_analysis


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
