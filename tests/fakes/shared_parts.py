"""Parts of libraries that depend on nothing a test does, made once for all servers of a process.

Two thirds of the start of a server in a test went into them: the certificates that a client trusts,
and the checks of the parameters of each route.
"""

from __future__ import annotations

import functools
from typing import Any, get_args

import fastapi._compat.v2
import httpcore2
from pydantic import TypeAdapter

__all__ = ["share_parts"]


def share_parts() -> None:
    """Take the place of the functions that would make them anew, for good."""
    httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)
    fastapi._compat.v2.TypeAdapter = _shared_adapter  # type: ignore[attr-defined, assignment]


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
