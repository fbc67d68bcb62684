"""What a tool takes: Python signatures as JSON schemas, and arguments held against a schema.

Signatures are read with pydantic (the annotations) and a small reader of Google style docstrings
(the descriptions); arguments that a model sends are judged by jsonschema, draft 2020-12, which
also covers the schemas that people write in YAML and those of MCP servers. No schema is ever
fetched: a reference leads into the schema itself or is refused. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from functools import lru_cache, reduce
from typing import Any, Final

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.exceptions import ValidationError as SchemaViolation
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from app.agents.tools.pattern import LinearRegex
from app.errors import ConfigError, ToolArgsInvalid

__all__ = ["ArgumentCheck", "bounded", "closed", "parse_arguments"]


MAX_ARGUMENTS_CHARS: Final = 32_768
"""More than any tool of a phone call takes; what is longer is not even parsed."""

_MAX_MESSAGE_CHARS: Final = 240
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Example|Examples|Note):")
_ENTRY = re.compile(r"^\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*)$")
_KEYS_OF_ANY_VALUE: Final = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
_COMBINING: Final = frozenset(("allOf", "anyOf", "oneOf", "not", "$ref", "if"))


# Schemas ----------------------------------------------------------------------------------------


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its objects closed to properties that they do not name.

    An object that says itself what else it takes, or that is put together from several schemas,
    is left as it is.
    """
    copy: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            copy[key] = {
                name: closed(inner) if isinstance(inner, Mapping) else inner
                for name, inner in value.items()
            }
        elif key in ("default", "enum", "const", "examples"):
            copy[key] = value
        elif isinstance(value, Mapping):
            copy[key] = closed(value)
        elif isinstance(value, list | tuple):
            copy[key] = [closed(item) if isinstance(item, Mapping) else item for item in value]
        else:
            copy[key] = value
    if "properties" in copy and not _COMBINING & copy.keys():
        copy.setdefault("additionalProperties", False)
    return copy


def bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without patterns that we cannot search for; its author checks those.

    Servers of tools write in JavaScript's syntax, and look ahead in it.
    """
    copy = deepcopy(dict(schema))
    for error in _META.iter_errors(copy):
        *path, last = error.absolute_path or [""]
        if isinstance(error.cause, ConfigError) and last in _WITHOUT:
            holder = reduce(lambda node, key: node[key], path, copy)
            for word in _WITHOUT[str(last)]:
                holder.pop(word, None)
    return _without_rest(copy) if _judges_the_rest(copy) else copy


_WITHOUT: Final = {
    "pattern": ("pattern",),
    "patternProperties": ("patternProperties", "additionalProperties"),
}
"""What goes with a pattern that we cannot search for: without it the other would mean more."""


def _judges_the_rest(schema: Any) -> bool:
    """Whether names have patterns, and what no pattern has named is judged across subschemas.

    jsonschema would look for these patterns with Python's own matcher.
    """
    words = set(_words(schema))
    return {"patternProperties", "unevaluatedProperties"} <= words


def _words(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        yield from schema
    elif not isinstance(schema, list | tuple):
        return
    for part in schema.values() if isinstance(schema, Mapping) else schema:
        yield from _words(part)


def _without_rest(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        kept = {k: v for k, v in schema.items() if k != "unevaluatedProperties"}
        return {key: _without_rest(value) for key, value in kept.items()}
    return [_without_rest(part) for part in schema] if isinstance(schema, list) else schema


_FORMATS = FormatChecker(formats=())


@_FORMATS.checks("regex", raises=ConfigError)
def _is_pattern(value: object) -> bool:
    """A pattern that a caller's words cannot stop us with: see `app.agents.tools.pattern`."""
    return not isinstance(value, str) or bool(_linear(value))


@lru_cache(maxsize=1_000)
def _linear(pattern: str) -> LinearRegex:
    return LinearRegex(pattern, strict_end=True)  # as ECMA-262 has it, and so JSON schema


def _matches(
    validator: Any, pattern: str, text: object, _: Mapping[str, Any]
) -> Iterator[SchemaViolation]:
    if validator.is_type(text, "string") and not _linear(pattern).search(str(text)):
        yield SchemaViolation(f"{text!r} does not match {pattern!r}")


def _match_names(
    validator: Any, patterns: Mapping[str, Any], given: Any, _: Mapping[str, Any]
) -> Iterator[SchemaViolation]:
    if not validator.is_type(given, "object"):
        return
    for pattern, schema in patterns.items():
        for name in filter(_linear(pattern).search, given):
            yield from validator.descend(given[name], schema, path=name, schema_path=pattern)


def _judge_others(
    validator: Any, others: Any, given: Any, schema: Mapping[str, Any]
) -> Iterator[SchemaViolation]:
    if not validator.is_type(given, "object"):
        return
    patterns = [_linear(pattern) for pattern in schema.get("patternProperties", ())]
    named = schema.get("properties", ())
    for name, value in given.items():
        if name in named or any(pattern.search(name) for pattern in patterns):
            continue
        if others is False:
            yield SchemaViolation(
                f"Additional properties are not allowed ({name!r} was unexpected)"
            )
        else:
            yield from validator.descend(value, others, path=name)


_META: Final = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=_FORMATS)
_Judge: Final[Any] = extend(
    Draft202012Validator,
    {
        "pattern": _matches,
        "patternProperties": _match_names,
        "additionalProperties": _judge_others,
    },
)  # type: ignore[no-untyped-call]


class ArgumentCheck:
    """A tool's schema, ready to judge arguments."""

    def __init__(self, parameters: Mapping[str, Any], place: str) -> None:
        """Raises ConfigError for what is no JSON schema of an object."""
        if parameters.get("type") != "object":
            raise ConfigError(f"{place}: parameters must be a JSON schema of type object")
        try:
            Draft202012Validator.check_schema(parameters, format_checker=_FORMATS)
        except SchemaError as error:
            at = ".".join(map(str, error.absolute_path)) or "top"
            reason = getattr(error.cause, "message", error.message)
            raise ConfigError(_short(f"{place}: not a JSON schema ({at}: {reason})")) from error
        if _judges_the_rest(parameters):
            raise ConfigError(f"{place}: patternProperties go with no unevaluatedProperties here")
        # An empty registry: jsonschema would otherwise fetch a reference from the network.
        self._validator = _Judge(parameters, registry=Registry())

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ToolArgsInvalid, with words by which the model can do better."""
        try:
            error = best_match(self._validator.iter_errors(arguments))
        except (Unresolvable, RecursionError) as failure:
            raise ToolArgsInvalid("the tool's own schema cannot be followed") from failure
        except OverflowError as failure:  # multipleOf
            raise ToolArgsInvalid("a number is too large") from failure
        if error is not None:
            at = ".".join(map(str, error.absolute_path))
            raise ToolArgsInvalid(_short(f"{at}: {error.message}" if at else error.message))


def parse_arguments(text: str) -> dict[str, Any]:
    """A function call's arguments as the wire has them: one JSON object.

    Stricter than JSON: a name given twice is refused, since two readers would differ on it, and
    so are NaN, Infinity, numbers that come out as one of them (`1e999`), and halves of characters
    (`"\\ud800"`), which no text can be sent with. An empty text is an empty object, as models send
    for no arguments.

    Raises:
        ToolArgsInvalid: anything else.
    """
    if len(text) > MAX_ARGUMENTS_CHARS:
        raise ToolArgsInvalid(f"longer than {MAX_ARGUMENTS_CHARS} characters")
    if not text.strip():
        return {}
    try:
        value = json.loads(text, object_pairs_hook=_unambiguous, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()  # what can be passed on
    except (ValueError, RecursionError) as error:
        raise ToolArgsInvalid("not valid JSON") from error
    if not isinstance(value, dict):
        raise ToolArgsInvalid("not a JSON object")
    return value


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ToolArgsInvalid("a name is given twice")
    return found


def _no_constant(name: str) -> None:
    raise ToolArgsInvalid(f"{name} is not JSON")


def _short(text: str) -> str:
    return text if len(text) <= _MAX_MESSAGE_CHARS else f"{text[:_MAX_MESSAGE_CHARS]}..."
