"""Schemas that combine others, and schemas of older drafts."""

from __future__ import annotations

from typing import Any

import pytest

from app.agents.tools.schema import ArgumentCheck, closed, flattened
from app.agents.tools.tool import Tool
from app.errors import ConfigError, ToolArgsInvalid

A = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
B = {"type": "object", "properties": {"b": {"type": "string"}}, "required": ["b"]}

COMBINED: list[tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]] = [
    ({"allOf": [A, B]}, [{"a": "x", "b": "y"}], [{"a": "x"}, {}]),
    ({"anyOf": [A, B]}, [{"a": "x"}, {"b": "y"}, {"a": "x", "b": "y"}], [{}]),
    ({"oneOf": [A, B]}, [{"a": "x"}, {"b": "y"}], [{}, {"a": "x", "b": "y"}]),
    ({"not": A}, [{}, {"b": "y"}], [{"a": "x"}, {"a": "x", "b": "y"}]),
    (
        {"if": A, "then": B, "else": {"properties": {"c": {}}, "required": ["c"]}},
        [{"a": "x", "b": "y"}, {"c": 1}],
        [{"a": "x"}, {}],
    ),
    ({"dependentSchemas": {"a": B}}, [{}, {"a": "x", "b": "y"}], [{"a": "x"}]),
    (
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}], "$defs": {"a": A, "b": B}},
        [{"a": "x", "b": "y"}],
        [{"a": "x"}],
    ),
    (
        {"$ref": "#/$defs/a", "properties": {"b": {}}, "$defs": {"a": A}},
        [{"a": "x", "b": "y"}],
        [{"b": "y"}],
    ),
    ({"allOf": [{"oneOf": [A, B]}, {"properties": {"c": {}}}]}, [{"a": "x", "c": 1}], [{"c": 1}]),
]


@pytest.mark.parametrize("place", ["at the top", "in a property", "in a list"])
@pytest.mark.parametrize(("words", "good", "bad"), COMBINED)
def test_nothing_that_is_combined_is_closed(
    words: dict[str, Any], good: list[dict[str, Any]], bad: list[dict[str, Any]], place: str
) -> None:
    definitions = {"$defs": words.get("$defs", {})}
    inner = {"type": "object", **{k: v for k, v in words.items() if k != "$defs"}}

    def wrap(value: Any) -> Any:
        if place == "at the top":
            return value
        return {"p": value if place == "in a property" else [value]}

    schema = {**inner, **definitions}
    if place != "at the top":
        listed = {"type": "array", "items": inner}
        held = inner if place == "in a property" else listed
        schema = {"type": "object", "properties": {"p": held}, **definitions}
    check = ArgumentCheck(closed(schema), "tool x")
    for arguments in good:
        check.check(wrap(arguments))
    for arguments in bad:
        with pytest.raises(ToolArgsInvalid):
            check.check(wrap(arguments))


def test_an_object_beside_what_is_combined_is_closed() -> None:
    schema = closed({"type": "object", "properties": {"p": {"anyOf": [A, B]}, "q": A}})
    assert schema["additionalProperties"] is False
    assert schema["properties"]["q"]["additionalProperties"] is False
    assert schema["properties"]["p"] == {"anyOf": [A, B]}


def test_definitions_that_are_used_alone_are_closed() -> None:
    properties = {"p": {"$ref": "#/$defs/a"}}
    schema = closed({"type": "object", "properties": properties, "$defs": {"a": A}})
    assert schema["$defs"]["a"]["additionalProperties"] is False


@pytest.mark.parametrize(("words", "good", "bad"), COMBINED)
def test_the_model_is_offered_a_plain_object(
    words: dict[str, Any], good: list[dict[str, Any]], bad: list[dict[str, Any]]
) -> None:
    async def run(context: object, arguments: object) -> None: ...

    parameters = closed({"type": "object", **words})
    tool = Tool(name="x", description="X.", parameters=parameters, run=run)
    offered = tool.wire["parameters"]
    assert offered["type"] == "object"
    assert not offered.keys() & {"allOf", "anyOf", "oneOf", "not", "enum"}
    check = ArgumentCheck(offered, "tool x")
    for arguments in good:
        check.check(arguments)


def test_alternatives_are_offered_together_and_what_all_of_them_require_is_required() -> None:
    both = {"properties": {"id": {"type": "string"}}, "required": ["id"]}
    schema = {"type": "object", "allOf": [both], "oneOf": [A, B], "description": "Book."}
    assert flattened(schema) == {
        "type": "object",
        "description": "Book.",
        "properties": {name: {"type": "string"} for name in ("a", "b", "id")},
        "required": ["id"],
    }


def test_a_plain_schema_is_offered_as_it_is() -> None:
    schema = closed({"type": "object", "properties": {"p": {"anyOf": [A, B]}}})
    assert flattened(schema) == schema


@pytest.mark.parametrize("odd", [5, None, {}, "x", [5, None], [{"$ref": "#/$defs/none"}]])
@pytest.mark.parametrize("word", ["allOf", "anyOf", "oneOf"])
def test_any_combination_is_flattened(word: str, odd: Any) -> None:
    assert flattened({"type": "object", word: odd})["properties"] == {}


@pytest.mark.parametrize(
    ("schema", "words", "good", "bad"),
    [
        (
            "http://json-schema.org/draft-04/schema#",
            {"type": "number", "minimum": 3, "exclusiveMinimum": True},
            4,
            3,
        ),
        (
            "http://json-schema.org/draft-07/schema#",
            {"type": "array", "items": [{"type": "string"}], "additionalItems": False},
            ["x"],
            ["x", "y"],
        ),
        (
            "https://json-schema.org/draft-07/schema",
            {"type": "number", "exclusiveMinimum": 3},
            4,
            3,
        ),
        ("http://json-schema.org/draft-06/schema#", {"const": 1}, 1, 2),
        (
            "https://json-schema.org/draft/2019-09/schema",
            {"type": "array", "items": [{"type": "string"}], "additionalItems": False},
            ["x"],
            ["x", "y"],
        ),
        (
            "https://json-schema.org/draft/2020-12/schema",
            {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
            ["x"],
            ["x", "y"],
        ),
    ],
)
def test_a_schema_is_judged_by_its_own_draft(
    schema: str, words: dict[str, Any], good: Any, bad: Any
) -> None:
    check = ArgumentCheck(
        closed({"$schema": schema, "type": "object", "properties": {"p": words}}), "tool x"
    )
    check.check({"p": good})
    with pytest.raises(ToolArgsInvalid):
        check.check({"p": bad})


@pytest.mark.parametrize("schema", ["https://example.com/dialect", "", 5, "draft-03"])
def test_arguments_of_an_unknown_draft_are_left_to_the_server(schema: Any) -> None:
    check = ArgumentCheck({"$schema": schema, "type": "object", "properties": 7}, "tool x")
    check.check({"p": 3})


@pytest.mark.parametrize("draft", ["draft-04", "draft-06", "draft-07"])
def test_a_schema_that_its_own_draft_does_not_allow_is_refused(draft: str) -> None:
    schema = {"$schema": f"http://json-schema.org/{draft}/schema#", "type": "object"}
    for wrong in ({"required": "x"}, {"properties": {"p": {"type": 5}}}):
        with pytest.raises(ConfigError, match="not a JSON schema"):
            ArgumentCheck({**schema, **wrong}, "tool x")
