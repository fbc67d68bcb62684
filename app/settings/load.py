"""Reads `config.yaml` into `Settings`, or reports every mistake in it at once.

Each problem is one line, `config.yaml:12: openai_realtime.voce: unknown key; did you mean "voice"?`
with the file and line where the value stands. Values of secrets are never shown.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from app.errors import ConfigError
from app.settings.former_keys import FORMER_SECTIONS, former_key
from app.settings.model import Settings
from app.settings.reader import interpolation
from app.settings.reader.dotenv import Dotenv, parse_dotenv
from app.settings.reader.environment import Environment, read_text
from app.settings.reader.interpolation import Filled, Plain
from app.settings.reader.names import did_you_mean, dotted
from app.settings.reader.origin import Origin
from app.settings.reader.renamed import with_new_names
from app.settings.reader.secrets import hide_secrets
from app.settings.reader.strict_yaml import parse_yaml, resolve_plain
from app.settings.reader.variables import misspelled, with_variables
from app.settings.references import broken_references
from app.settings.values import NO_BLANKS, FunctionPath

__all__ = ["load", "named_functions"]

_EXPECTED: Final = {
    "bool_type": "true or false",
    "dict_type": "keys and values",
    "float_type": "a number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "model_type": "keys and values",
    "string_type": "text",
    "tuple_type": "a list",
}
ENTRY: Final = "NAME"
"""Stands for the name of an entry of a table, such as that of an agent."""
_KINDS: Final = {*_EXPECTED, "literal_error"}


def load(path: Path, env: Mapping[str, str]) -> Settings:
    """Settings from the file at `path`, variables from `env` and the `.env` beside the file.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    try:
        filled, origin, environment = _read(path, env)
    except ConfigError as error:
        raise ConfigError(hide_secrets(error.message)) from None
    problems = [((False, path.name, line), text) for line, text in filled.problems]
    known = {line for line, _ in filled.problems}
    folder = path.parent
    settings: Settings | None = None
    try:
        settings = _validate(filled.values, folder)
    except ValidationError as error:
        if _retype(filled, error):
            try:
                settings = _validate(filled.values, folder)
            except ValidationError as second:
                error = second
        if settings is None:
            # A value that could not be filled in is absent: do not report its effects too.
            problems += [
                (origin.order(place), f"{origin.key(place)}: {text}" if place else text)
                for place, text in _problems(error, filled)
                if origin.where(place)[1] not in known
            ]
    problems += [
        (origin.order(place), f"{origin.key(place)}: {text}")
        for place, text in broken_references(filled.values)
    ]
    if problems or settings is None:
        lines = [f"{file}:{line or 1}: {text}" for (_, file, line), text in sorted(set(problems))]
        # A name that is nearly right may be the cause.
        lines += [f"note: {one}" for one in misspelled(environment, filled.referenced)]
        secrets = (*origin.secrets(), *environment.secrets())
        raise ConfigError(hide_secrets("\n".join(lines), secrets))
    return settings.read_from(origin)


def named_functions(
    path: Path, env: Mapping[str, str]
) -> tuple[Origin, dict[interpolation.Path, str]]:
    """The Python functions that a file names, also where the rest of it is wrong.

    Raises:
        ConfigError: the file cannot be read, or is not YAML.
    """
    filled, origin, _ = _read(path, env)
    found: dict[interpolation.Path, str] = {}
    for section, key in _FUNCTION_KEYS.items():
        table = filled.values.get(section)
        for name, entry in table.items() if isinstance(table, dict) else ():
            value = entry.get(key) if isinstance(entry, dict) else None
            with suppress(ValidationError):
                found[section, name, key] = _FUNCTION_PATH.validate_python(value, strict=True)
    return origin, found


_FUNCTION_PATH: Final = TypeAdapter[str](FunctionPath)
_FUNCTION_KEYS: Final = {"agents": "instructions_python", "tools": "python", "guardrails": "python"}


def _read(path: Path, env: Mapping[str, str]) -> tuple[Filled, Origin, Environment]:
    text = read_text(path)
    dotenv_path = path.parent / ".env"
    dotenv = (
        parse_dotenv(read_text(dotenv_path), name=str(dotenv_path))
        if dotenv_path.exists()
        else Dotenv()
    )
    environment = Environment(env, dotenv, path.parent)
    root, renames = with_new_names(parse_yaml(text, name=path.name))
    filled = interpolation.fill(with_variables(root, environment), environment)
    filled.problems += renames.clashes
    used = {part.variable for parts in filled.parts.values() for part in parts}
    origin = Origin(
        path.parent,
        path.name,
        filled.lines,
        filled.parts,
        {name: place for name in used if (place := environment.place(name))},
        renames.old_names,
        (
            *(f"{path.name}:{line}: {text}" for line, text in renames.used),
            *dotenv.notices,
            *misspelled(environment, filled.referenced),
        ),
    )
    return filled, origin, environment


def _validate(values: dict[str, Plain], folder: Path) -> Settings:
    # A section that is absent or has no keys is validated like any other: its paths start at the
    # folder too. So is a table whose entries are all turned off.
    empty: dict[str, Plain] = {
        name: {}
        for name, field in Settings.model_fields.items()
        if _is_section(field.annotation) and values.get(name) is None
    }
    # As JSON: there, strict mode still takes text for a path and a list for a tuple.
    text = json.dumps({**values, **empty})
    return Settings.model_validate_json(text, context={"folder": folder})


def _is_section(annotation: Any) -> bool:
    return get_origin(annotation) is dict or _model_in(annotation) is annotation


def _retype(filled: Filled, error: ValidationError) -> bool:
    """Give variables that stand where text does not fit their meaning; True if any changed."""
    changed = False
    for detail in error.errors(include_url=False, include_context=False):
        path = _file_path(detail["loc"], filled)
        if path in filled.retyped and detail["type"] in _KINDS:
            _put(filled.values, path, filled.retyped.pop(path))
            changed = True
    return changed


def _put(values: Any, path: interpolation.Path, value: Plain) -> None:
    for step in path[:-1]:
        values = values[step]
    values[path[-1]] = value


def _file_path(location: tuple[int | str, ...], filled: Filled) -> interpolation.Path:
    """The part of a pydantic location that stands in the file: union branches do not."""
    path: interpolation.Path = ()
    for step in location:
        if (*path, step) in filled.lines:
            path = (*path, step)
    return path


def _problems(error: ValidationError, filled: Filled) -> Iterator[tuple[interpolation.Path, str]]:
    for path, details in _by_place(error, filled).items():
        yield path, _describe(details, path)


def _by_place(
    error: ValidationError, filled: Filled
) -> dict[interpolation.Path, list[ErrorDetails]]:
    """Errors by the place in the file; a union reports one for each branch that did not fit."""
    places: dict[interpolation.Path, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        path = _file_path(detail["loc"], filled)
        if detail["type"] == "missing":
            path = (*path, detail["loc"][-1])
        places.setdefault(path, []).append(detail)
    for path, details in list(places.items()):
        deeper = any(len(p) > len(path) and p[: len(path)] == path for p in places)
        if deeper and all(detail["type"] in _KINDS for detail in details):
            del places[path]  # the branch that got further into the value says more
    return places


def _describe(details: list[ErrorDetails], path: interpolation.Path) -> str:
    # Of a union, the branch that took the kind of the value says more.
    first = next((detail for detail in details if detail["type"] not in _KINDS), details[0])
    kind = first["type"]
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind == "missing":
        return "this key is missing"
    if all(detail["type"] in _KINDS for detail in details):
        return _expected(details)
    if kind == "value_error":
        return str(first.get("ctx", {})["error"])
    if kind == "string_pattern_mismatch" and first.get("ctx", {})["pattern"] == NO_BLANKS:
        return "must not be empty or hold spaces"
    return re.sub(r"^(Input|String) should ", "must ", first["msg"])


def _expected(details: list[ErrorDetails]) -> str:
    """`expected a or b; found c`, over the branches of a union."""
    found = details[0]["input"]
    wanted: list[str] = []
    names: list[str] = []
    for detail in details:
        if detail["type"] == "literal_error":
            choices = str(detail.get("ctx", {})["expected"])
            wanted.append(choices)
            names += [part.strip("'") for part in choices.replace(" or ", ", ").split(", ")]
        else:
            wanted.append(_EXPECTED[detail["type"]])
    text = f"expected {' or '.join(dict.fromkeys(wanted))}; found "
    if names and isinstance(found, str) and len(found) <= 20:
        return f"{text}{found!r}{did_you_mean(found, names)}"
    return f"{text}{_kind(found)}{_cure(found, wanted)}"


_YAML_1_1_WORDS: Final = {"yes": "true", "on": "true", "no": "false", "off": "false"}


_REMEDIES: Final = (
    # What is expected, what the text looks like, and what to do.
    ("keys and values", r"[\w-]+:[^ /]", "put a space after the colon"),
    ("a list", "", "write each entry on a line of its own, after `- `"),
    *(
        (kind, look, cure)
        for kind in ("a number", "a whole number", "true or false")
        for look, cure in (
            (r"\S+#", "put a space before the #"),
            (r"-?[0-9.]+ ?[a-zA-Z%]+$", "write the number alone, in the unit of the key's name"),
            (
                r"[+-]?[0-9][0-9,._ ]*$",
                "write it like 1500 or 0.5: no separators, no leading zeros",
            ),
        )
    ),
)


def _cure(found: object, wanted: list[str]) -> str:
    """The remedy for a value of the wrong kind, where it is plain what was meant."""
    if wanted == ["text"] and isinstance(found, int | float):
        return ": put it into quotes"
    if wanted == ["text"] and isinstance(found, dict):
        return ": put text with a colon or braces into quotes"
    if wanted == ["keys and values"] and isinstance(found, list | tuple):
        return ": write `key: value` lines without dashes"
    if "a whole number" in wanted and isinstance(found, float):
        return " with a decimal point"
    if not isinstance(found, str):
        return ""
    meant = _YAML_1_1_WORDS.get(found.lower())
    if meant and "true or false" in wanted:
        return f": write {meant}"
    meaning = resolve_plain(found)
    number = _is_number(meaning) and {"a number", "a whole number"} & {*wanted}
    truth = isinstance(meaning, bool) and "true or false" in wanted
    if number or truth:
        return ": take the quotes away"
    cures = (
        f": {cure}" for kind, look, cure in _REMEDIES if kind in wanted and re.match(look, found)
    )
    return next(cures, "")


def _unknown_key(path: interpolation.Path) -> str:
    name = str(path[-1])
    if len(path) == 1 and name in FORMER_SECTIONS:
        return "Trunkline has no such section: remove it"
    if answer := former_key(path):
        return f"unknown key; {answer}"
    siblings = _keys_at(path[:-1])
    hint = did_you_mean(name, siblings)
    if hint:
        return f"unknown key{hint}"
    if homes := _nearest_homes(path):
        return f"unknown key here; it belongs in {' or '.join(homes)}"
    # Such as openai for openai_realtime.
    longer = [key for key in siblings if {*name.split("_")} <= {*key.split("_")}]
    if len(longer) == 1:
        return f'unknown key; did you mean "{longer[0]}"?'
    return f"unknown key; known here: {', '.join(sorted(siblings))}"


def _nearest_homes(path: interpolation.Path) -> list[str]:
    """The sections that have the last key of `path`: those that share most of the way to it."""
    homes = sorted(_homes_of(str(path[-1]), Settings, ()))
    shared = max((_shared(home, path) for home in homes), default=0)
    homes = [home for home in homes if _shared(home, path) == shared]
    # A section of its own is the likelier place than one entry of a table.
    homes = [home for home in homes if ENTRY not in home[shared:]] or homes
    return [dotted((*path[:shared], *home[shared:])) for home in homes]


def _shared(home: tuple[str, ...], path: interpolation.Path) -> int:
    """The number of steps that both begin with; a name stands for any entry of its table."""
    pairs = zip(home, path[:-1], strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] in (ENTRY, pair[1]), pairs)))


def _homes_of(
    name: str, model: type[BaseModel], place: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    """The sections that have a key of this name."""
    for key, field in model.model_fields.items():
        if key == name and place:
            yield place
        if section := _model_in(field.annotation):
            entry = (ENTRY,) if get_origin(field.annotation) is dict else ()
            yield from _homes_of(name, section, (*place, key, *entry))


def _keys_at(path: interpolation.Path) -> list[str]:
    model: type[BaseModel] | None = Settings
    entry_is_next = False
    for step in path:
        if entry_is_next or model is None:
            entry_is_next = False
            continue
        field = model.model_fields.get(str(step))
        entry_is_next = field is not None and get_origin(field.annotation) is dict
        model = _model_in(field.annotation) if field else None
    return list(model.model_fields) if model else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation such as `X`, `X | None` or `dict[str, X]` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def _kind(value: object) -> str:
    """The kind of a value: never the value, since a misplaced secret must not reach a log."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list() | tuple():
            return "a list"
    return "keys and values"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
