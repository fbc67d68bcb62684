"""Schemas of Python signatures, and arguments held against schemas of any origin."""

from __future__ import annotations

import collections.abc
import functools
import time
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from app.agents.tools.function_signature import described
from app.agents.tools.schema import ArgumentCheck, bounded, closed, parse_arguments
from app.agents.tools.tool import Approval, Tool, ToolContext, tool
from app.errors import ConfigError, ToolArgsInvalid


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


@dataclass
class Guest:
    name: str
    age: int | None = None


class Visit(TypedDict):
    day: date
    requests: list[str]


class Node(BaseModel):
    children: list[Node]


async def book(
    context: ToolContext,
    guest: Guest,
    visits: list[Visit],
    size: Size = Size.SMALL,
    meal: Literal["lunch", "dinner"] | None = None,
    chairs: Annotated[int, Field(ge=1, le=9), "how many chairs"] = 2,
    prices: dict[str, float] | None = None,
) -> str:
    """Book a table
    for an evening.

    Only for this week.

    Args:
        guest: who comes,
            by name
        visits (list[Visit]): the days

    Returns:
        What was booked.
    """
    return f"{context.agent} {guest} {visits} {size} {meal} {chairs} {prices}"


def test_a_signature_and_its_docstring_become_a_closed_schema() -> None:
    assert tool(book).wire == {
        "type": "function",
        "name": "book",
        "description": "Book a table for an evening.\n\nOnly for this week.",
        "parameters": {
            "type": "object",
            "properties": {
                "guest": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "age": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None},
                    },
                    "required": ["name"],
                    "additionalProperties": False,
                    "description": "who comes, by name",
                },
                "visits": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {
                            "day": {"type": "string", "format": "date"},
                            "requests": {"type": "array", "items": {"type": "string"}},
                        },
                        "required": ["day", "requests"],
                        "additionalProperties": False,
                    },
                    "description": "the days",
                },
                "size": {"type": "string", "enum": ["small", "large"], "default": "small"},
                "meal": {
                    "anyOf": [{"type": "string", "enum": ["lunch", "dinner"]}, {"type": "null"}],
                    "default": None,
                },
                "chairs": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": 9,
                    "default": 2,
                    "description": "how many chairs",
                },
                "prices": {
                    "anyOf": [
                        {"type": "object", "additionalProperties": {"type": "number"}},
                        {"type": "null"},
                    ],
                    "default": None,
                },
            },
            "required": ["guest", "visits"],
            "additionalProperties": False,
        },
    }


def test_the_decorator_takes_the_fields_of_a_tool() -> None:
    @tool(name="look_up", description="Finds it.", timeout_ms=3_000, approval="keypad", reply=False)
    def anything(word: str) -> str:
        return word

    assert isinstance(anything, Tool)
    assert (anything.name, anything.description, anything.timeout_ms) == (
        "look_up",
        "Finds it.",
        3_000,
    )
    assert anything.approval is Approval.KEYPAD
    assert not anything.reply


def no_type(word) -> None:  # type: ignore[no-untyped-def]  # the point of it
    """Text."""


def star(*words: str) -> None:
    """Text."""


def keywords(**words: str) -> None:
    """Text."""


def positional(word: str, /) -> None:
    """Text."""


def anything_goes(word: Any) -> None:
    """Text."""


def vague_list(words: list) -> None:  # type: ignore[type-arg]  # the point of it
    """Text."""


def vague_inside(words: dict[str, list[Any]]) -> None:
    """Text."""


def raw(word: bytes) -> None:
    """Text."""


def function(word: collections.abc.Callable[[], None]) -> None:
    """Text."""


def a_class_of_its_own(word: ArgumentCheck) -> None:
    """Text."""


def endless(node: Node) -> None:
    """Text."""


def late_context(word: str, context: ToolContext) -> None:
    """Text."""


def maybe_context(context: ToolContext | None, word: str) -> None:
    """Text."""


def field_default(count: int = Field(3, ge=1)) -> None:
    """Text."""


def generator() -> collections.abc.Iterator[str]:
    """Text."""
    yield "one"


async def stream() -> collections.abc.AsyncIterator[str]:
    """Text."""
    yield "one"


class Salon:
    def method(self, word: str) -> None:
        """Text."""


def unsearchable(word: Annotated[str, Field(pattern="a(?=b)")]) -> None:
    """Text."""


def odd_default(word: str = object()) -> None:  # type: ignore[assignment]  # the point of it
    """Text."""


def number_as_text(people: int = "two") -> None:  # type: ignore[assignment]  # the point of it
    """Text."""


def no_choice(size: Literal["small", "large"] = "huge") -> None:  # type: ignore[assignment]
    """Text."""


def habits(
    day: str = None,  # type: ignore[assignment]  # noqa: RUF013 - which people write
    price: float = 5,
    days: list[int] = (),  # type: ignore[assignment]
    size: Size = Size.SMALL,
) -> None:
    """Text."""


def test_defaults_that_python_converts_are_taken() -> None:
    assert tool(habits).parameters["required"] == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (no_type, "has no type"),
        (star, "args and"),
        (keywords, "args and"),
        (positional, "by name"),
        (anything_goes, "takes anything"),
        (vague_list, "takes anything"),
        (vague_inside, "takes anything"),
        (raw, "no bytes"),
        (function, "no JSON schema"),
        (a_class_of_its_own, "no JSON schema"),
        (endless, "contains itself"),
        (late_context, "first parameter"),
        (odd_default, "not a JSON value"),
        (number_as_text, "people: its default 'two' is not of its type"),
        (no_choice, "size: its default 'huge' is not of its type"),
        (maybe_context, "stands alone"),
        (field_default, "Annotated"),
        (generator, "one result"),
        (stream, "one result"),
        (Salon.method, "method of an object"),
        (unsearchable, "look-around"),
    ],
)
def test_what_json_cannot_express_is_refused_when_the_tool_is_made(wrong: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        tool(wrong)
    assert wrong.__name__ in caught.value.message


@pytest.mark.parametrize("wrong", [functools.partial(no_type, "x"), Salon(), Salon, max])
def test_an_object_that_is_not_a_function_is_refused_with_the_remedy(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="`def`"):
        tool(wrong)


def test_a_method_of_an_object_is_a_function_too() -> None:
    assert tool(Salon().method).parameters["required"] == ["word"]


def test_a_type_defined_inside_a_function_is_refused_with_the_remedy() -> None:
    class Inner(StrEnum):
        ONE = "one"

    def choose(which: Inner) -> None:
        """Text."""

    with pytest.raises(ConfigError, match="top of its module"):
        tool(choose)


def plain(word: str) -> str:
    """Text."""
    return word


def silent(word: str) -> str:
    return word


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "with space"}, "letters, digits"),
        ({"name": "x" * 65}, "letters, digits"),
        ({"timeout_ms": 0}, "above zero"),
        ({"max_output_chars": -1}, "above zero"),
        ({"timeout": 5}, "no option 'timeout'"),
        ({"run": print}, "no option 'run'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tool(**options)(plain)


def test_a_tool_without_a_description_is_refused() -> None:
    with pytest.raises(ConfigError, match="docstring"):
        tool(silent)


def test_a_docstring_without_arguments_is_all_description() -> None:
    assert described("One.\n\nTwo: three.") == ("One.\n\nTwo: three.", {})


def test_the_text_after_the_arguments_does_not_describe_one() -> None:
    text = "Do.\n\nArgs:\n    a: first\n    b (int, optional): second\n        line: two\nMore."
    assert described(text) == ("Do.", {"a": "first", "b": "second line: two"})


# Schemas that people and servers write ------------------------------------------------------------


def test_objects_are_closed_unless_they_say_what_else_they_take() -> None:
    inner = {"type": "object", "properties": {"x": {"type": "string"}}}
    combined = {"properties": {"x": {}}, "allOf": [{"required": ["x"]}]}
    schema = closed(
        {
            "type": "object",
            "properties": {
                "inner": inner,
                "list": {"type": "array", "items": inner},
                "open": {**inner, "additionalProperties": True},
                "combined": combined,
                "free": {"type": "object", "default": {"properties": {}}},
            },
        }
    )
    shut = {**inner, "additionalProperties": False}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["inner"] == shut
    assert schema["properties"]["list"]["items"] == shut
    assert schema["properties"]["open"]["additionalProperties"] is True
    assert schema["properties"]["combined"] == combined
    assert schema["properties"]["free"] == {"type": "object", "default": {"properties": {}}}


def test_a_property_may_be_called_like_a_word_of_the_schema_language() -> None:
    schema = closed({"type": "object", "properties": {"properties": {"type": "string"}}})
    check = ArgumentCheck(schema, "tool x")
    check.check({"properties": "yes"})
    with pytest.raises(ToolArgsInvalid):
        check.check({"type": "no"})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": "object", "required": "x"},
        {"type": "object", "patternProperties": 5},
    ],
)
def test_a_schema_that_is_not_of_an_object_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="tool x"):
        ArgumentCheck(schema, "tool x")


def test_a_reference_to_another_document_is_never_fetched() -> None:
    check = ArgumentCheck(
        {
            "type": "object",
            "properties": {"x": {"$ref": "http://127.0.0.1:9/secret.json"}},
        },
        "tool x",
    )
    with pytest.raises(ToolArgsInvalid, match="cannot be followed"):
        check.check({"x": 1})


EMAIL = r"^([a-zA-Z0-9]+[._-]?)+@example\.com$"
"""As people write them: Python's own matcher needs twice as long for every further letter."""


def with_pattern(pattern: str) -> dict[str, Any]:
    return {"type": "object", "properties": {"pattern": {"type": "string", "pattern": pattern}}}


def test_no_text_makes_a_pattern_slow() -> None:
    check = ArgumentCheck(with_pattern(EMAIL), "tool x")
    check.check({"pattern": "a.b-c@example.com"})
    with pytest.raises(ToolArgsInvalid, match='pattern: "aaa'):
        check.check({"pattern": "a" * 10_000 + "!"})


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("a(?=b)", r"properties\.pattern\.pattern: .*look-ahead"),
        (r"(a)\1", "backreferences"),
        ("(", "unclosed"),
    ],
)
def test_an_unsupported_pattern_is_refused_or_left_to_the_server(pattern: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ArgumentCheck(with_pattern(pattern), "tool x")
    check = ArgumentCheck(bounded(with_pattern(pattern)), "tool x")
    check.check({"pattern": "anything"})
    with pytest.raises(ToolArgsInvalid):
        check.check({"pattern": 7})


@pytest.mark.parametrize("pattern", ["^[0-9]+$", "^(?:[0-9]+|[a-z]+$)$"])
def test_a_pattern_ends_where_the_text_does(pattern: str) -> None:
    check = ArgumentCheck(with_pattern(pattern), "tool x")
    check.check({"pattern": "123"})
    with pytest.raises(ToolArgsInvalid):
        check.check({"pattern": "123\n"})


@pytest.mark.parametrize(("step", "fits"), [(0.01, True), (3, True), (7, False)])
def test_no_number_is_too_large_to_be_checked(step: float, fits: bool) -> None:
    schema = {"type": "object", "properties": {"x": {"type": "number", "multipleOf": step}}}
    check = ArgumentCheck(schema, "tool x")
    check.check({"x": 21})
    large = parse_arguments(f'{{"x": {"9" * 400}}}')
    if fits:
        check.check(large)
        return
    with pytest.raises(ToolArgsInvalid, match="multiple of"):
        check.check(large)


# Arguments on the wire ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  ", "{}"])
def test_no_arguments_are_an_empty_object(text: str) -> None:
    assert parse_arguments(text) == {}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        '"text"',
        "{",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": -Infinity}',
        '{"a": [1e999]}',
        '{"a": "\\ud800"}',
        '{"\\udfff": 1}',
        '{"id": 1, "id": 2}',
        '{"inner": {"id": 1, "id": 2}}',
        "[" * 30_000,
        '{"a": ' + "9" * 30_000 + "}",
        '{"a": "' + "x" * 40_000 + '"}',
    ],
)
def test_arguments_that_two_readers_would_read_differently_are_refused(text: str) -> None:
    with pytest.raises(ToolArgsInvalid):
        parse_arguments(text)


@given(st.text(max_size=200))
def test_any_text_is_an_object_or_refused(text: str) -> None:
    try:
        assert isinstance(parse_arguments(text), dict)
    except ToolArgsInvalid as error:
        assert len(error.message) < 300


def with_names(**words: Any) -> dict[str, Any]:
    return {"type": "object", "patternProperties": {"^(a+)+$": {"type": "integer"}}, **words}


def test_patterns_of_names_take_no_more_time_than_others() -> None:
    check = ArgumentCheck(with_names(additionalProperties=False), "tool x")
    check.check({"aaa": 1})
    began = time.thread_time()
    for arguments in ({"a" * 10_000 + "b": 1}, {"aaa": "one"}):
        with pytest.raises(ToolArgsInvalid):
            check.check(arguments)
    assert time.thread_time() - began < 1


def test_other_names_are_checked_by_the_schema_for_them() -> None:
    check = ArgumentCheck(with_names(additionalProperties={"type": "string"}), "tool x")
    check.check({"aaa": 1, "b": "two"})
    with pytest.raises(ToolArgsInvalid, match=r"^b: 2 is not of type"):
        check.check({"aaa": 1, "b": 2})


def test_unsupported_patterns_of_names_are_left_to_the_server() -> None:
    pattern: dict[str, Any] = {"patternProperties": {"(?=a)": {}}}
    beside = {"type": "object", **pattern, "additionalProperties": False}
    around = {"type": "object", "allOf": [pattern], "unevaluatedProperties": False}
    inside = {"type": "object", "patternProperties": {"(?=a)": {"pattern": "(?=b)", **pattern}}}
    for schema in (beside, around, inside):
        with pytest.raises(ConfigError, match=r"patternProperties: .*look-ahead"):
            ArgumentCheck(schema, "tool x")
        ArgumentCheck(bounded(schema), "tool x").check({"b": 1})


def test_names_that_patterns_have_named_are_known_across_subschemas() -> None:
    check = ArgumentCheck(with_names(unevaluatedProperties=False), "tool x")
    check.check({"aaa": 1})
    with pytest.raises(ToolArgsInvalid, match="'b' was unexpected"):
        check.check({"aaa": 1, "b": 2})


def test_of_alternatives_the_deepest_error_is_reported() -> None:
    guest = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    schema = {"type": "object", "properties": {"x": {"anyOf": [{"type": "string"}, guest]}}}
    check = ArgumentCheck(schema, "tool x")
    with pytest.raises(ToolArgsInvalid, match=r'^x\.age: "ten" is not of type "integer"$'):
        check.check({"x": {"age": "ten"}})
    with pytest.raises(ToolArgsInvalid, match=r"^x: 7 is not valid under any"):
        check.check({"x": 7})


# Schemas that mean harm ---------------------------------------------------------------------------


def nested(depth: int, word: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", word: {"x": schema} if word == "properties" else schema}
    return schema


@pytest.mark.parametrize("word", ["properties", "not", "additionalProperties"])
def test_a_schema_that_is_nested_too_deeply_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"tool x: .*too deeply"):
        ArgumentCheck(nested(5_000, word), "tool x")


def test_arguments_that_are_nested_too_deeply_are_refused() -> None:
    tree = {"type": "object", "properties": {"x": {"$ref": "#"}}, "additionalProperties": False}
    check = ArgumentCheck(tree, "tool x")
    for leaf, depth, said in (({}, 200, ""), ({"y": 1}, 200, "'y'"), ({}, 50_000, "too deeply")):
        arguments: dict[str, Any] = leaf
        for _ in range(depth):
            arguments = {"x": arguments}
        with pytest.raises(ToolArgsInvalid, match=said) if said else nullcontext():
            check.check(arguments)


@pytest.mark.parametrize(
    "words",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"$dynamicAnchor": "x", "allOf": [{"$dynamicRef": "#x"}]},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
        {"enum": [{}, *range(100_000)]},
        {"properties": {"x": {"enum": [f"value {n}" for n in range(100_000)]}}},
        {"properties": {f"name {n}": {"pattern": f"^{n}$"} for n in range(2_000)}},
        {"$schema": "http://127.0.0.1:9/schema.json", "$id": "http://127.0.0.1:9/id.json"},
    ],
)
def test_a_circular_or_long_schema_is_checked_quickly(words: dict[str, Any]) -> None:
    began = time.thread_time()
    check = ArgumentCheck({"type": "object", **words}, "tool x")
    check.check({})
    assert time.thread_time() - began < 2


@pytest.mark.parametrize("levels", [4, 18])
def test_a_schema_whose_references_multiply_fails_at_the_first_error(levels: int) -> None:
    twice = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    defs = {**twice, f"d{levels}": {"type": "string"}}
    words = {"properties": {"x": {"$ref": "#/$defs/d0"}}, "$defs": defs}
    check = ArgumentCheck({"type": "object", **words}, "tool x")
    began = time.thread_time()
    check.check({"x": "yes"})
    with pytest.raises(ToolArgsInvalid, match=r"^x: 7 is not of type"):
        check.check({"x": 7})
    assert time.thread_time() - began < 1


def test_long_lists_are_compared_quickly() -> None:
    check = ArgumentCheck({"type": "object", "properties": {"x": {"uniqueItems": True}}}, "tool x")
    items: list[Any] = [{"a": number} for number in range(3_000)]
    began = time.thread_time()
    check.check({"x": items})
    with pytest.raises(ToolArgsInvalid):
        check.check({"x": [*items, {"a": 0}]})
    assert time.thread_time() - began < 1


@pytest.mark.parametrize(
    "odd", [{1: 2}, {"properties": {"x": object()}}, {"title": "\ud800"}, {"enum": {1, 2}}]
)
def test_a_schema_that_is_not_json_is_refused(odd: dict[Any, Any]) -> None:
    with pytest.raises(ConfigError, match="tool x"):
        ArgumentCheck({"type": "object", **odd}, "tool x")


WORDS = (
    "type", "properties", "items", "anyOf", "not", "$ref", "$defs", "enum", "pattern", "minimum",
    "required", "$id", "patternProperties", "additionalProperties", "if", "then", "contains",
    "$dynamicRef", "format", "unevaluatedProperties",
)  # fmt: skip


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(["#", "object", "(", "#/a"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(WORDS),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.dictionaries(st.sampled_from(["a", "type"]), st.none() | st.integers() | st.text()),
)
def test_any_schema_is_refused_or_checks_any_arguments(words: Any, arguments: Any) -> None:
    schema = {"properties": {"a": words}, **(words if isinstance(words, dict) else {})}
    for made in (schema, bounded(schema)):
        try:
            ArgumentCheck({**made, "type": "object"}, "tool x").check(arguments)
        except (ConfigError, ToolArgsInvalid) as error:
            assert len(error.message) < 400
