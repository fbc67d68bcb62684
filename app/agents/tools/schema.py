"""JSON schemas of tools, and arguments held against them.

A schema is of the draft that its `$schema` names, else of 2020-12.

Arguments that a model sends are checked by jsonschema-rs, also against schemas that people write
in YAML and those of MCP servers. Its linear regular expressions are used, and no schema is ever
fetched: a reference leads into the schema itself or nowhere. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import lru_cache, reduce
from itertools import chain
from typing import Any, Final, cast

from jsonschema_rs import (
    Draft4Validator,
    Draft6Validator,
    Draft7Validator,
    Draft201909Validator,
    Draft202012Validator,
    RegexOptions,
    ValidationError,
    ValidationErrorKind,
)

from app.agents.tools.pattern import LinearRegex
from app.errors import ConfigError, ToolArgsInvalid

__all__ = ["ArgumentCheck", "bounded", "closed", "flattened", "parse_arguments", "shortened"]


MAX_ARGUMENTS_CHARS: Final = 32_768
"""More than any tool of a phone call needs; a longer text is not even parsed."""

_MAX_MESSAGE_CHARS: Final = 240
_MAX_PATTERN_BYTES: Final = 1_000_000  # of the compiled automaton
_MAX_DEPTH: Final = 250
_COMBINED: Final = frozenset(
    ("allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentSchemas", "dependencies")
)
_COMBINING: Final = _COMBINED | {"$ref", "$dynamicRef", "unevaluatedProperties"}
_VERBATIM: Final = _COMBINED | {"default", "enum", "const", "examples", "contains", "propertyNames"}
_REFUSED_AT_TOP: Final = frozenset(("allOf", "anyOf", "oneOf", "not", "enum"))
"""As OpenAI says it: "schema must have type 'object' and not have" these "at the top level"."""


# Schemas ----------------------------------------------------------------------------------------


def closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its objects closed to properties that they do not name.

    An object that has `additionalProperties`, or that combines several schemas, stays as it is, and
    so does all that is combined: each part would refuse what the others name.
    """
    if _is_deep(schema):
        return dict(schema)
    return _closed(schema, definitions_too=not _combines_references(schema))


def _closed(schema: Mapping[str, Any], *, definitions_too: bool) -> dict[str, Any]:
    def close(part: Any) -> Any:
        if not isinstance(part, Mapping):
            return part
        return _closed(part, definitions_too=definitions_too)

    copy: dict[str, Any] = {}
    for key, value in schema.items():
        defines = key in ("$defs", "definitions")
        if key in _VERBATIM or (defines and not definitions_too):
            copy[key] = value
        elif isinstance(value, Mapping) and (defines or key in ("properties", "patternProperties")):
            copy[key] = {name: close(inner) for name, inner in value.items()}
        elif isinstance(value, list | tuple):
            copy[key] = [close(item) for item in value]
        else:
            copy[key] = close(value)
    if "properties" in copy and not _COMBINING & copy.keys():
        copy.setdefault("additionalProperties", False)
    return copy


def _combines_references(value: object, *, combined: bool = False) -> bool:
    """True where a definition is combined with other words: closed, it would refuse theirs."""
    if isinstance(value, list | tuple):
        return any(_combines_references(item, combined=combined) for item in value)
    if not isinstance(value, Mapping):
        return False
    if "$ref" in value and (combined or value.keys() & ("properties", "required")):
        return True
    return any(
        _combines_references(inner, combined=combined or key in _COMBINING)
        for key, inner in value.items()
    )


def flattened(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema as a Realtime session takes it: at its top a plain object, combining nothing.

    The properties of all alternatives are offered together, and only what each of them requires is
    required. Arguments are still held against the schema itself.
    """
    if not _REFUSED_AT_TOP & schema.keys():
        return dict(schema)
    flat = {key: value for key, value in schema.items() if key not in _REFUSED_AT_TOP}
    properties, required = _merged(schema, schema, depth=8)
    flat["properties"] = properties
    flat.pop("required", None)
    if required:
        flat["required"] = sorted(required)
    return flat


def _merged(
    part: object, root: Mapping[str, Any], *, depth: int
) -> tuple[dict[str, Any], frozenset[str]]:
    """The properties that a schema names, with those of all its parts, and what it requires."""
    if not isinstance(part, Mapping) or not depth:
        return {}, frozenset()
    own, wanted = part.get("properties"), part.get("required")
    properties: dict[str, Any] = dict(own) if isinstance(own, Mapping) else {}
    required = frozenset(wanted) if isinstance(wanted, list | tuple) else frozenset()
    reference = part.get("$ref")
    inner: list[tuple[object, bool]] = []
    if isinstance(reference, str) and reference.startswith("#/"):
        inner.append((_referred(root, reference), True))
    inner += [(one, True) for one in _parts(part, "allOf")]
    for word in ("anyOf", "oneOf"):
        choices = [_merged(one, root, depth=depth - 1) for one in _parts(part, word)]
        for found, _ in choices:
            properties = {**found, **properties}
        if choices:
            required |= frozenset.intersection(*(needs for _, needs in choices))
    inner += [(part[word], False) for word in ("then", "else") if word in part]
    for one, always in inner:
        found, needs = _merged(one, root, depth=depth - 1)
        properties = {**found, **properties}
        required |= needs if always else frozenset()
    return properties, required.intersection(properties)


def _parts(schema: Mapping[str, Any], word: str) -> Sequence[object]:
    value = schema.get(word)
    return value if isinstance(value, list | tuple) else ()


def _referred(root: Mapping[str, Any], reference: str) -> object:
    found: object = root
    for name in reference[2:].split("/"):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def bounded(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The schema without patterns that take more than linear time; its author checks those.

    Servers of tools write in JavaScript's syntax, and look ahead in it.
    """
    if _is_deep(schema):
        return dict(schema)
    copy = deepcopy(dict(schema))
    rest_is_known = True
    wrong = filter(_is_about_a_pattern, _META.iter_errors(copy))
    # The deepest first: what holds one of them may go, too.
    for error in sorted(wrong, key=lambda error: len(error.instance_path), reverse=True):
        *path, word = error.instance_path
        holder: Any = reduce(lambda node, key: node[key], path, cast(Any, copy))
        holder.pop(word, None)
        if word == "patternProperties":  # without it these would refuse what it allowed
            holder.pop("additionalProperties", None)
            rest_is_known = False
    return copy if rest_is_known else _without_rest(copy)


def _without_rest(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        kept = {k: v for k, v in schema.items() if k != "unevaluatedProperties"}
        return {key: _without_rest(value) for key, value in kept.items()}
    return [_without_rest(part) for part in schema] if isinstance(schema, list) else schema


@lru_cache(maxsize=1_000)
def _is_linear(pattern: str) -> bool:
    try:
        _validator({"pattern": pattern})
    except ValueError:
        return False
    return True


def _is_about_a_pattern(error: ValidationError) -> bool:
    return error.kind.name in ("format", "propertyNames")  # the latter of patternProperties


def _validator(schema: Mapping[str, Any], kind: type[Any] = Draft202012Validator) -> Any:
    """Raises ValueError for an invalid schema, or one that refers to another document."""
    return kind(dict(schema), pattern_options=_PATTERNS, offline=True)


_PATTERNS: Final = RegexOptions(size_limit=_MAX_PATTERN_BYTES, dfa_size_limit=_MAX_PATTERN_BYTES)
_META: Final = Draft202012Validator(
    {"$ref": "https://json-schema.org/draft/2020-12/schema"},
    formats={"regex": _is_linear, "uri": lambda _: True, "uri-reference": lambda _: True},
    validate_formats=True,
    offline=True,
)


_DRAFTS: Final[dict[str, type[Any]]] = {
    "json-schema.org/draft-04/schema": Draft4Validator,
    "json-schema.org/draft-06/schema": Draft6Validator,
    "json-schema.org/draft-07/schema": Draft7Validator,
    "json-schema.org/draft/2019-09/schema": Draft201909Validator,
    "json-schema.org/draft/2020-12/schema": Draft202012Validator,
}


def _draft(schema: Mapping[str, Any]) -> type[Any] | None:
    """The draft by which a schema is judged, the newest where it names none; None if unknown."""
    named = schema.get("$schema")
    if named is None:
        return Draft202012Validator
    bare = str(named).strip().rstrip("#").removeprefix("https://").removeprefix("http://")
    return _DRAFTS.get(bare)


def _meta(draft: type[Any]) -> Any:
    [address] = [address for address, kind in _DRAFTS.items() if kind is draft]
    scheme = "https" if "/draft/" in address else "http"
    return draft({"$ref": f"{scheme}://{address}"}, offline=True)


class ArgumentCheck:
    """A tool's schema, ready to check arguments."""

    def __init__(self, parameters: Mapping[str, Any], place: str) -> None:
        """Raises ConfigError for what is not a JSON schema of an object."""
        if parameters.get("type") != "object":
            raise ConfigError(f"{place}: parameters must be a JSON schema of type object")
        if _is_deep(parameters):
            raise ConfigError(f"{place}: the schema is nested too deeply")
        self._validator: Any = None
        draft = _draft(parameters)
        self._left_to_server = draft is None
        try:
            if draft is Draft202012Validator:
                _META.validate(dict(parameters))
            else:
                for error in filter(_is_about_a_pattern, _META.iter_errors(dict(parameters))):
                    raise error
                if draft is not None:
                    _meta(draft).validate(dict(parameters))
            if draft is not None:
                with suppress(ValidationError):  # a reference leads out of the schema
                    self._validator = _validator(parameters, draft)
        except ValueError as error:
            message = f"{place}: not a JSON schema ({_reason(error)})"
            raise ConfigError(shortened(message)) from error

    def check(self, arguments: Mapping[str, Any]) -> None:
        """Raises ToolArgsInvalid, with a message from which the model can correct itself."""
        if self._left_to_server:
            return
        if self._validator is None:
            raise ToolArgsInvalid("the tool's own schema cannot be followed")
        if _is_deep(arguments):
            raise ToolArgsInvalid("nested too deeply")
        try:
            self._validator.validate(dict(arguments))
        except ValidationError as error:
            error = _deepest(error)
            at = ".".join(map(str, error.instance_path))
            raise ToolArgsInvalid(
                shortened(f"{at}: {error.message}" if at else error.message)
            ) from error
        except ValueError as error:
            raise ToolArgsInvalid("not a JSON value") from error


def _is_deep(value: object) -> bool:
    """True when a value is nested so deeply that the checks might run out of stack."""
    level = [value]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, Mapping | list | tuple)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
        ]
        if not level:
            return False
    return True


def _reason(error: ValueError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    message = error.message
    if _is_about_a_pattern(error):
        pattern = getattr(error.kind, "error", error).instance
        message = f"pattern {pattern!r} cannot be searched for in linear time"
        try:
            LinearRegex(str(pattern))
        except ConfigError as reason:  # of another reader, but with words
            message = reason.message
    return f"{'.'.join(map(str, error.instance_path)) or 'top'}: {message}"


def _deepest(error: ValidationError) -> ValidationError:
    """Of alternatives that all fail, the error that lies deepest: what was probably meant."""
    while isinstance(error.kind, ValidationErrorKind.AnyOf | ValidationErrorKind.OneOfNotValid):
        inner = max(chain.from_iterable(error.kind.context), key=lambda e: len(e.instance_path))
        if len(inner.instance_path) <= len(error.instance_path):
            break
        error = inner
    return error


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


def shortened(text: str) -> str:
    """A message with its middle left out where it quotes much."""
    half = _MAX_MESSAGE_CHARS // 2
    return text if len(text) <= _MAX_MESSAGE_CHARS else f"{text[:half]} ... {text[-half:]}"
