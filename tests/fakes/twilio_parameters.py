"""Parameters of Twilio's REST API: names, types and duty, read from its own client.

The client is generated from Twilio's OpenAPI document: each `_create`, `_update` and `page` builds
one table of wire names, and its signature tells type and duty. Both are read from its source, so
that a parameter that Twilio does not have cannot pass a test here. The same goes for TwiML: the
client has a method for each verb that may stand in another, whose arguments are its attributes.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any

from twilio.rest.api.v2010.account import call, conference, incoming_phone_number, message
from twilio.rest.api.v2010.account.conference import participant
from twilio.twiml import voice_response

from app.dial.twiml import Verb

__all__ = ["Operation", "Parameter", "operation", "twiml_fault"]

_MODULES: dict[str, tuple[ModuleType, str]] = {
    "Calls": (call, "Call"),
    "Conferences": (conference, "Conference"),
    "Participants": (participant, "Participant"),
    "IncomingPhoneNumbers": (incoming_phone_number, "IncomingPhoneNumber"),
    "Messages": (message, "Message"),
}
_INTEGER = re.compile(r"-?[0-9]+")
_METHODS = frozenset({"GET", "POST"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter. `kind`: text, integer, boolean, or a closed set of `words`."""

    name: str
    kind: str = "text"
    required: bool = False
    repeated: bool = False
    words: frozenset[str] = frozenset()

    def fault(self, values: Sequence[str]) -> str | None:
        """The fault of the values that came; None when they are right."""
        if len(values) > 1 and not self.repeated:
            return f"{self.name} is given more than once"
        for value in values:
            if self.kind == "integer" and not _INTEGER.fullmatch(value):
                return f"{self.name} is not an integer: {value!r}"
            if self.kind == "boolean" and value not in ("true", "false"):
                return f"{self.name} is not true or false: {value!r}"
            if self.words and value not in self.words:
                return f"{self.name} is not one of {sorted(self.words)}: {value!r}"
        return None


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of the API and what it takes."""

    parameters: Mapping[str, Parameter]

    def fault(self, form: Sequence[tuple[str, str]]) -> str | None:
        """The first thing that Twilio's document does not allow."""
        given: dict[str, list[str]] = {}
        for name, value in form:
            given.setdefault(name, []).append(value)
        for name, values in given.items():
            if name not in self.parameters:
                return f"there is no parameter {name}"
            if fault := self.parameters[name].fault(values):
                return fault
        for name, parameter in self.parameters.items():
            if parameter.required and name not in given:
                return f"{name} is missing"
        return None


@cache
def operation(resource: str, verb: str) -> Operation:
    """`verb` is create, update or list; `resource` is spelled as in the address."""
    module, stem = _MODULES[resource]
    if verb == "update":
        function = getattr(module, f"{stem}Context")._update
    else:
        function = getattr(
            getattr(module, f"{stem}List"), "_create" if verb == "create" else "page"
        )
    signature = inspect.signature(function, eval_str=False)
    found = {}
    for wire, argument in _table(function).items():
        # `PageToken` and its like are the client's own; they are arguments too.
        given = signature.parameters[argument]
        required = given.default is inspect.Parameter.empty
        found[wire] = _parameter(module, wire, str(given.annotation), required=required)
    return Operation(found)


def _table(function: Any) -> dict[str, str]:
    """Wire name to argument, from the dictionary that the function hands to `values.of`."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "of"
            and isinstance(node.args[0], ast.Dict)
            and node.args[0].keys
        ):
            table = node.args[0]
            return {
                key.value: _argument(value)
                for key, value in zip(table.keys, table.values, strict=True)
                if isinstance(key, ast.Constant) and isinstance(key.value, str)
            }
    raise AssertionError(f"{function} has no table of parameters")


def _argument(node: ast.expr) -> str:
    """`to`, `serialize.boolean_to_string(record)` and `serialize.map(event, ...)` name one."""
    if isinstance(node, ast.Call):
        node = node.args[0]
    assert isinstance(node, ast.Name), ast.dump(node)
    return node.id


def _parameter(module: ModuleType, wire: str, annotation: str, *, required: bool) -> Parameter:
    words: frozenset[str] = frozenset()
    kind = "text"
    if "bool" in annotation:
        kind = "boolean"
    elif "int" in annotation.replace("Union", ""):
        kind = "integer"
    elif match := re.search(r"(\w+Instance)\.(\w+)", annotation):
        closed = getattr(getattr(module, match[1]), match[2])
        words = frozenset(v for k, v in vars(closed).items() if k.isupper())
        kind = "word"
    elif wire.endswith("Method"):  # of a type in the document that the client does not tell
        kind, words = "word", _METHODS
    return Parameter(
        name=wire,
        kind=kind,
        required=required,
        repeated="List[" in annotation,
        words=words,
    )


def twiml_fault(verbs: Sequence[Verb], inside: str = "VoiceResponse") -> str | None:
    """The first verb or attribute of a document that Twilio does not have at its place."""
    # Twilio ignores what it does not know; the client renders any keyword that it is given.
    known = _nouns(inside)
    for verb in verbs:
        attributes = known.get(verb.name)
        if attributes is None:
            return f"there is no <{verb.name}> in a <{inside}>"
        for name, value in verb.attributes.items():
            if name not in attributes:
                return f"<{verb.name}> has no {name}"
            if name.lower().endswith("method") and value not in _METHODS:
                return f"{name} of <{verb.name}> is not GET or POST: {value!r}"
        if fault := twiml_fault(verb.children, verb.name):
            return fault
    return None


@cache
def _nouns(inside: str) -> Mapping[str, frozenset[str]]:
    """The children that may stand in a verb, with its attributes."""
    methods = vars(getattr(voice_response, inside))
    names = {method.replace("_", ""): method for method in methods if not method.startswith("_")}
    return {
        name: frozenset(
            re.sub(r"_(\w)", lambda found: found[1].upper(), argument)
            for argument in inspect.signature(methods[names[name.lower()]]).parameters
        )
        for name, kind in vars(voice_response).items()
        if inspect.isclass(kind) and name.lower() in names
    }
