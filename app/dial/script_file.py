"""Scripts on disk: YAML, a list of steps, read without guessing.

Pure. Scalars are taken as they are written (`yaml.compose` resolves nothing that is used here), so
`text: no` stays the word; each error names file and line.
"""

from __future__ import annotations

from typing import Any, Final

import yaml

from app.dial.script import (
    AwaitHangUp,
    AwaitReturn,
    BargeIn,
    HangUp,
    Listen,
    Press,
    Say,
    Step,
    Wait,
)
from app.errors import ConfigError

__all__ = ["load_script"]

# For each step: its fields and whether they are text (True) or a number. The first is required.
_FIELDS: Final[dict[str, dict[str, bool]]] = {
    "listen": {"quiet_ms": False, "at_most_ms": False},
    "say": {"file": True, "text": True},
    "barge_in": {"file": True, "text": True, "after_ms": False, "at_most_ms": False},
    "press": {"digits": True, "gap_ms": False},
    "wait": {"ms": False},
    "await_hang_up": {"at_most_ms": False},
    "await_return": {"at_most_ms": False},
    "hang_up": {},
}
_REQUIRED: Final = {"say": "file", "barge_in": "file", "press": "digits", "wait": "ms"}


def load_script(text: str, name: str) -> tuple[Step, ...]:
    """Steps from YAML: a list of one-key mappings such as `- say: {file: a.wav, text: hello}`.

    Raises:
        ConfigError: with `name:line`, what is wrong and what was expected.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or "cannot be read"
        hint = "; put texts in double quotes"
        raise ConfigError(f"{name}:{line}: not YAML: {problem}{hint}") from None
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise ConfigError(f"{name}:1: a script is a list of steps such as '- listen: {{}}'")
    return tuple(_read_step(node, name) for node in root.value)


def _read_step(node: yaml.Node, name: str) -> Step:
    if isinstance(node, yaml.ScalarNode):
        return _build_step(node.value, {}, f"{name}:{node.start_mark.line + 1}")
    if not isinstance(node, yaml.MappingNode) or len(node.value) != 1:
        raise _wrong(node, name, "a step is one word with its fields in braces")
    key, body = node.value[0]
    kind = key.value if isinstance(key, yaml.ScalarNode) else ""
    if kind not in _FIELDS:
        raise _wrong(key, name, f"unknown step {kind!r}; known: {', '.join(_FIELDS)}")
    if not isinstance(body, yaml.MappingNode):
        raise _wrong(body, name, f"{kind} needs its fields in braces: {kind}: {{...}}")
    fields: dict[str, Any] = {}
    for field_key, value in body.value:
        if not isinstance(field_key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            raise _wrong(value, name, f"{kind}: a field is a word, a text or a number")
        field_name = field_key.value
        if field_name not in _FIELDS[kind]:
            known = ", ".join(_FIELDS[kind]) or "none"
            raise _wrong(field_key, name, f"{kind}: unknown field {field_name!r}; known: {known}")
        if field_name in fields:
            raise _wrong(field_key, name, f"{kind}: {field_name} is given twice")
        if not _FIELDS[kind][field_name] and not (value.value.isascii() and value.value.isdigit()):
            raise _wrong(value, name, f"{kind}: {field_name} must be whole milliseconds")
        fields[field_name] = value.value if _FIELDS[kind][field_name] else int(value.value)
    return _build_step(kind, fields, f"{name}:{node.start_mark.line + 1}")


def _build_step(kind: str, fields: dict[str, Any], where: str) -> Step:
    if kind not in _FIELDS:
        raise ConfigError(f"{where}: unknown step {kind!r}; known: {', '.join(_FIELDS)}")
    required = _REQUIRED.get(kind)
    if required is not None and not fields.get(required):
        raise ConfigError(f"{where}: {kind} needs {required}")
    if kind == "press" and not set(str(fields["digits"])) <= set("0123456789*#ABCD"):
        raise ConfigError(f"{where}: press: digits may hold 0-9 * # A-D")
    kinds: dict[str, type[Step]] = {
        "listen": Listen,
        "say": Say,
        "barge_in": BargeIn,
        "press": Press,
        "wait": Wait,
        "await_hang_up": AwaitHangUp,
        "await_return": AwaitReturn,
        "hang_up": HangUp,
    }
    return kinds[kind](**fields)


def _wrong(node: yaml.Node, name: str, text: str) -> ConfigError:
    return ConfigError(f"{name}:{node.start_mark.line + 1}: {text}")
