"""What a tool takes: Python signatures as JSON schemas, and arguments held against a schema.

Signatures are read with pydantic (the annotations) and a small reader of Google style docstrings
(the descriptions); arguments that a model sends are judged by jsonschema, draft 2020-12, which
also covers the schemas that people write in YAML and those of MCP servers. No schema is ever
fetched: a reference leads into the schema itself or is refused. Pure.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.exceptions import ValidationError as SchemaViolation
from jsonschema.validators import extend
from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import SchemaError as PydanticSchemaError
from pydantic_core import to_jsonable_python
from referencing import Registry
from referencing.exceptions import Unresolvable

from app.agents.linear_regex import LinearRegex
from app.errors import ConfigError, ToolArgsInvalid

__all__ = [
    "ArgumentCheck",
    "Signature",
    "bounded",
    "closed",
    "described",
    "parse_arguments",
    "read_signature",
    "read_type",
    "takes",
]

MAX_ARGUMENTS_CHARS: Final = 32_768
"""More than any tool of a phone call takes; what is longer is not even parsed."""

_MAX_MESSAGE_CHARS: Final = 240
_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Example|Examples|Note):")
_ENTRY = re.compile(r"^\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*)$")
_KEYS_OF_ANY_VALUE: Final = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")
_COMBINING: Final = frozenset(("allOf", "anyOf", "oneOf", "not", "$ref", "if"))


# Signatures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How a function is called by a model."""

    description: str
    parameters: Mapping[str, Any]
    context_parameter: str | None
    adapters: Mapping[str, TypeAdapter[Any]]

    def convert(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Checked JSON values as the types that the function asks for.

        Raises:
            ToolArgsInvalid: a value that JSON schema cannot judge, such as a date that is none.
        """
        converted = {}
        for name, value in arguments.items():
            try:
                converted[name] = self.adapters[name].validate_python(value)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, (name, *first["loc"])))
                raise ToolArgsInvalid(_short(f"{place}: {first['msg']}")) from error
        return converted


def read_signature(function: Callable[..., Any], context_type: type) -> Signature:
    """The JSON schema of a function's parameters; the first one may take the call's context.

    Raises:
        ConfigError: a parameter that JSON cannot express; the message names it and the remedy.
    """
    name = getattr(function, "__name__", "tool")
    if not inspect.isroutine(function):
        raise ConfigError(f"tool {name}: is no function; write one with `def` that calls it")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"tool {name}: a tool has one result; return it, and do not yield")
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise ConfigError(f"tool {name}: does not tell its parameters; wrap it in `def`") from error
    except NameError as error:
        raise ConfigError(
            f"tool {name}: the annotation {error.name!r} is not known where the function stands; "
            "define the type at the top of its module"
        ) from error
    summary, texts = described(inspect.getdoc(function) or "")
    context_parameter = None
    properties: dict[str, Any] = {}
    adapters: dict[str, TypeAdapter[Any]] = {}
    required = []
    for position, parameter in enumerate(parameters):
        place = f"tool {name}, parameter {parameter.name}"
        if hints.get(parameter.name) is context_type:
            if position:
                raise ConfigError(f"{place}: the context must be the first parameter")
            context_parameter = parameter.name
            continue
        _refuse_kind(parameter, place)
        if parameter.name not in hints:
            raise ConfigError(f"{place}: has no type; {_untyped(parameter.name)}")
        annotation = hints[parameter.name]
        if _names(annotation, context_type):  # else the model would say who calls
            raise ConfigError(f"{place}: the context stands alone, as `{context_type.__name__}`")
        adapter, schema = read_type(annotation, place)
        if text := _annotated_text(annotation) or texts.get(parameter.name):
            schema["description"] = text
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        else:
            schema["default"] = _plain_default(parameter.default, place)
        properties[parameter.name] = schema
        adapters[parameter.name] = adapter
    return Signature(
        description=summary,
        parameters={
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        context_parameter=context_parameter,
        adapters=adapters,
    )


def _untyped(name: str) -> str:
    if name in ("self", "cls"):
        return "take the method of an object, such as `tool(salon.book)`"
    return "annotate it, for example with `str`"


def _names(annotation: Any, wanted: type) -> bool:
    return annotation is wanted or any(_names(part, wanted) for part in get_args(annotation))


def _refuse_kind(parameter: inspect.Parameter, place: str) -> None:
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise ConfigError(f"{place}: a model cannot see what *args and **kwargs take; name them")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ConfigError(f"{place}: arguments come by name; remove the `/`")


def takes(function: Callable[..., Any], count: int) -> bool:
    """Whether a function can be called with so many arguments, as far as it tells."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature
        return True
    return True


def read_type(annotation: Any, place: str) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """The JSON schema of a type, closed, and what makes values of it.

    Raises:
        ConfigError: JSON cannot express it; `place` says where it stands.
    """
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        schema = adapter.json_schema()
    except PydanticUserError as error:
        reason = error.message.partition("\n")[0]
        raise ConfigError(f"{place}: its type has no JSON schema ({reason})") from error
    except PydanticSchemaError as error:  # such as a pattern that pydantic cannot search for
        raise ConfigError(_short(f"{place}: {' '.join(str(error).split())}")) from error
    definitions = schema.pop("$defs", {})
    inlined = _inline(schema, definitions, (), place)
    _refuse_vague(inlined, place)
    return adapter, closed(bounded(inlined))  # pydantic holds values to every pattern


def _inline(node: Any, definitions: Mapping[str, Any], path: tuple[str, ...], place: str) -> Any:
    """The schema with its definitions in place: not every model's reader follows references."""
    if isinstance(node, list):
        return [_inline(item, definitions, path, place) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = reference.removeprefix("#/$defs/")
        if target in path:
            raise ConfigError(f"{place}: {target} holds itself; a tool's arguments need an end")
        beside = {key: value for key, value in node.items() if key != "$ref"}
        return _inline({**definitions[target], **beside}, definitions, (*path, target), place)
    return {
        key: {name: _inline(item, definitions, path, place) for name, item in value.items()}
        if key == "properties"
        else _inline(value, definitions, path, place)
        for key, value in node.items()
        if key not in ("title", "discriminator")
    }


def _refuse_vague(node: Any, place: str) -> None:
    """A value of any shape tells the model nothing and lets everything through."""
    if not any(key in node for key in _KEYS_OF_ANY_VALUE):
        raise ConfigError(f"{place}: takes anything; say which type, for example `str`")
    if node.get("format") == "binary":
        raise ConfigError(f"{place}: JSON holds no bytes; take a `str`")
    for inner in node.get("properties", {}).values():
        _refuse_vague(inner, place)
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), Mapping):
            _refuse_vague(node[key], place)
    for key in ("anyOf", "oneOf", "allOf", "prefixItems"):
        for inner in node.get(key, ()):
            _refuse_vague(inner, place)
    if node.get("type") == "array" and not ("items" in node or "prefixItems" in node):
        raise ConfigError(f"{place}: say what the list holds, for example `list[str]`")


def _annotated_text(annotation: Any) -> str | None:
    """The words of `Annotated[int, "how many guests"]`."""
    if get_origin(annotation) is not Annotated:
        return None
    return next((extra for extra in get_args(annotation)[1:] if isinstance(extra, str)), None)


def _plain_default(default: Any, place: str) -> Any:
    if isinstance(default, FieldInfo):
        raise ConfigError(f"{place}: write `Annotated[..., Field(...)]`, and the default after `=`")
    try:
        plain = to_jsonable_python(default)
    except ValueError as error:  # PydanticSerializationError is one
        raise ConfigError(f"{place}: its default is not a JSON value; use None") from error
    return plain


def described(docstring: str) -> tuple[str, dict[str, str]]:
    """A Google style docstring as its description and the text of each argument."""
    summary: list[str] = []
    arguments: dict[str, str] = {}
    section, current, indent = "", "", 0
    for line in docstring.expandtabs().splitlines():
        text = line.strip()
        match = _SECTION.match(line)
        if match:
            section, current = match[1], ""
        elif section in ("Args", "Arguments", "Parameters") and text:
            depth = len(line) - len(line.lstrip())
            entry = _ENTRY.match(text)
            if depth == 0:
                section = "after"
            elif entry and (not current or depth <= indent):
                current, indent = entry[1], depth
                arguments[current] = entry[2]
            elif current:
                arguments[current] = f"{arguments[current]} {text}".strip()
        elif not section:
            summary.append(text)
    return re.sub(r"(?<!\n)\n(?!\n)", " ", "\n".join(summary)).strip(), arguments


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
    """A pattern that a caller's words cannot stop us with: see `app.agents.linear_regex`."""
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
