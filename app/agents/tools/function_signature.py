"""Reads a Python function's signature and docstring as the schema of a tool."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import SchemaError as PydanticSchemaError
from pydantic_core import to_jsonable_python

from app.agents.tools.schema import bounded, closed, shortened
from app.errors import ConfigError, ToolArgsInvalid

__all__ = ["Signature", "described", "read_signature", "read_type"]


_SECTION = re.compile(r"^(Args|Arguments|Parameters|Returns|Yields|Raises|Example|Examples|Note):")
_ENTRY = re.compile(r"^\*{0,2}(\w+)(?: *\([^)]*\))?: *(.*)$")
_KEYS_OF_ANY_VALUE: Final = ("type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")

# Signatures -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A function as a model sees and calls it."""

    description: str
    parameters: Mapping[str, Any]
    context_parameter: str | None
    adapters: Mapping[str, TypeAdapter[Any]]

    def convert(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Checked JSON values as the types that the function asks for.

        Raises:
            ToolArgsInvalid: a value that JSON schema cannot check, such as February 30th.
        """
        converted = {}
        for name, value in arguments.items():
            try:
                converted[name] = self.adapters[name].validate_python(value)
            except ValidationError as error:
                first = error.errors(include_url=False, include_input=False)[0]
                place = ".".join(map(str, (name, *first["loc"])))
                raise ToolArgsInvalid(shortened(f"{place}: {first['msg']}")) from error
        return converted


def read_signature(function: Callable[..., Any], context_type: type) -> Signature:
    """The JSON schema of a function's parameters; the first one may take the call's context.

    Raises:
        ConfigError: a parameter that JSON cannot express; the message names it and the remedy.
    """
    name = getattr(function, "__name__", "tool")
    # A partial function counts as a routine since Python 3.14, and has no name.
    if not inspect.isroutine(function) or isinstance(function, functools.partial):
        raise ConfigError(f"tool {name}: is not a function; write one with `def` that calls it")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(f"tool {name}: a tool has one result; return it, and do not yield")
    try:
        hints = get_type_hints(function, include_extras=True)
        parameters = inspect.signature(function).parameters.values()
    except ValueError as error:
        raise ConfigError(f"tool {name}: does not name its parameters; wrap it in `def`") from error
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
            schema["default"] = _plain_default(parameter.default, adapter, place)
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


def read_type(annotation: Any, place: str) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    """The JSON schema of a type, closed, and the adapter that converts its values.

    Raises:
        ConfigError: JSON cannot express it; `place` begins the message.
    """
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(annotation)
        schema = adapter.json_schema()
    except PydanticUserError as error:
        reason = error.message.partition("\n")[0]
        raise ConfigError(f"{place}: its type has no JSON schema ({reason})") from error
    except PydanticSchemaError as error:  # such as a pattern that pydantic cannot search for
        raise ConfigError(shortened(f"{place}: {' '.join(str(error).split())}")) from error
    definitions = schema.pop("$defs", {})
    inlined = _inline(schema, definitions, (), place)
    _refuse_vague(inlined, place)
    return adapter, closed(bounded(inlined))  # pydantic holds values to every pattern


def _inline(node: Any, definitions: Mapping[str, Any], path: tuple[str, ...], place: str) -> Any:
    """The schema with its definitions inlined: not every model follows references."""
    if isinstance(node, list):
        return [_inline(item, definitions, path, place) for item in node]
    if not isinstance(node, dict):
        return node
    reference = node.get("$ref")
    if isinstance(reference, str):
        target = reference.removeprefix("#/$defs/")
        if target in path:
            raise ConfigError(f"{place}: {target} contains itself; a tool's arguments need an end")
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
    """Refuse a value of any shape: it says nothing to the model and lets everything through."""
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


def _plain_default(default: Any, adapter: TypeAdapter[Any], place: str) -> Any:
    if isinstance(default, FieldInfo):
        raise ConfigError(f"{place}: write `Annotated[..., Field(...)]`, and the default after `=`")
    try:
        plain = to_jsonable_python(default)
    except ValueError as error:  # PydanticSerializationError is one
        raise ConfigError(f"{place}: its default is not a JSON value; use None") from error
    # `day: str = None` is a habit, and says that nothing is told.
    if default is not None and not _fits(default, adapter):
        raise ConfigError(f"{place}: its default {default!r:.60} is not of its type")
    return plain


def _fits(value: Any, adapter: TypeAdapter[Any]) -> bool:
    try:
        adapter.validate_python(value)
    except ValidationError:
        return False
    return True


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
