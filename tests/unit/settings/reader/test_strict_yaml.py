"""The strict reader takes this, refuses that, and says where."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ConfigError
from app.settings.reader.strict_yaml import Mapping, Node, Scalar, Sequence, parse_yaml


def values(node: Node) -> Any:
    match node:
        case Mapping():
            return {key: values(child) for key, child in node.entries.items()}
        case Sequence():
            return [values(child) for child in node.items]
        case Scalar():
            return node.value


def read(text: str) -> Any:
    return values(parse_yaml(text, name="c.yaml"))


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_yaml(text, name="c.yaml")
    return caught.value.message


NOT_PLAIN = "a no-break space, or another that is not plain: indent with spaces"


@pytest.mark.parametrize(
    "text",
    [
        "+15551234567", "0123", "17:30", "9:00", "NO", "no", "yes", "on", "Off", "2026-11-21",
        "0x1F", "0o17", "1_000", ".5", "5.", ".inf", ".nan", "=", "0b1", "1e", "12e03x",
    ],
)  # fmt: skip
def test_words_of_yaml_1_1_stay_text(text: str) -> None:
    assert read(f"key: {text}\n") == {"key": text}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5), ("-5", -5), ("0", 0), ("1.5", 1.5), ("-0.5", -0.5), ("1e3", 1000.0),
        ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ('"5"', "5"), ("'true'", "true"), ('""', ""), ("[1, a]", [1, "a"]), ("{a: 1}", {"a": 1}),
    ],
)  # fmt: skip
def test_plain_values_have_their_json_meaning(text: str, value: object) -> None:
    found = read(f"key: {text}\n")["key"]
    assert found == value
    assert type(found) is type(value)


def test_text_over_several_lines_is_kept() -> None:
    assert read("key: |\n  a\n  5\n") == {"key": "a\n5\n"}


def test_every_value_and_key_knows_its_line() -> None:
    root = parse_yaml("# c\na: 1\nb:\n  c:\n    - x\n    - y\n", name="c.yaml")
    assert root.key_lines == {"a": 2, "b": 3}
    b = root.entries["b"]
    assert isinstance(b, Mapping)
    assert b.key_lines == {"c": 4}
    c = b.entries["c"]
    assert isinstance(c, Sequence)
    assert [item.line for item in c.items] == [5, 6]


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n", "null\n"])
def test_a_file_without_values_is_empty(text: str) -> None:
    assert read(text) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: 2\na: 3\n", "c.yaml:3: a: given twice, first on line 1"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "c.yaml:3: merge keys"),
        ("a: !!python/object:os.system x\n", "c.yaml:1: tags such as"),
        ("a: !!str 5\n", "c.yaml:1: tags such as"),
        ("a: *nowhere\n", "c.yaml:1: the alias *nowhere has no anchor"),
        ("a: &a [*a]\n", "c.yaml:1: the alias *a has no anchor"),
        ("? [a, b]\n: 1\n", "c.yaml:1: a key must be plain text"),
        ("a: 1\n---\nb: 2\n", "c.yaml:2: a second document"),
        ("- a\n", "c.yaml:1: expected sections"),
        ("just words\n", "c.yaml:1: expected sections"),
        ("z: 0\na: [1, 2\nb: 3\n", "c.yaml:2: not valid YAML: the bracket that begins here"),
        ("z: 0\na: {b: 1\n\nc: 3\n", "c.yaml:2: not valid YAML: the bracket that begins here"),
        ("a:\n\t- b\n", "c.yaml:2: not valid YAML: a tab: indent with spaces"),
        *(
            (f"a:\n{space}{space}b: 1\n", f"c.yaml:2: {NOT_PLAIN}")
            for space in "\u00a0\u2003\u3000"
        ),
        *(
            (text, f'c.yaml:2: {begin}{quote} does not quote: write straight quotes, "..."')
            for quote in "\u201c\u201e\u2018\u00ab"
            for begin, text in (
                ("", f"a: 1\n{quote}b{quote}: 1\n"),
                ("not valid YAML: ", f"a:\n  b: {quote}Say: hello{quote}\n"),
            )
        ),
        ("a: {b: ${X}}\n", "c.yaml:1: not valid YAML: between { } and [ ] a variable needs"),
        ("a: 1\nb: 'c\nd: 2\n\n", "c.yaml:2: not valid YAML: the quote that begins here is not"),
        ("a: 1\nbb cc\nd: 2\n", "c.yaml:2: not valid YAML: expected `key: value`"),
        ("a:\n  b: 1\n   c: 2\n", "c.yaml:3: not valid YAML: a key where none can stand: check"),
        ("a:\n  b: 1\n c: 2\n", "c.yaml:3: not valid YAML: indented differently"),
        ("a: 1\nb: \x00\n", "c.yaml:2: holds a character that YAML does not allow"),
    ],
)
def test_refused_yaml_is_named_with_its_line(text: str, expected: str) -> None:
    assert refusal(text).startswith(expected)


def test_deep_nesting_is_refused() -> None:
    assert "nested deeper than 32" in refusal("a: " + "[" * 500)


def test_an_alias_bomb_is_refused() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than 20 aliases" in refusal("\n".join(rows))


def test_few_aliases_cannot_grow_without_bound_either() -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 8)]
    assert len(read("\n".join(rows))["a7"]) == 2
    wide = f"a: &a [{', '.join('x' * 900)}]\n" + "\n".join(f"b{n}: *a" for n in range(20))
    assert len(read(wide)) == 21
    wider = f"a: &a [{', '.join('x' * 1100)}]\n" + "\n".join(f"b{n}: *a" for n in range(20))
    assert "more than 20000 values" in refusal(wider)


def test_a_large_file_is_refused() -> None:
    assert "larger than 256 KiB" in refusal("# " + "x" * 300_000)


def test_too_many_values_are_refused() -> None:
    assert "more than 20000 values" in refusal("a: [" + "1," * 20_001 + "]")


@given(st.text(alphabet=st.sampled_from(list("ab: -[]{}#&*!|>'\"%@`,?\n\t\\$~<0.")), max_size=60))
def test_any_text_is_read_or_refused_by_name(text: str) -> None:
    try:
        parse_yaml(text, name="c.yaml")
    except ConfigError as error:
        assert error.message.startswith("c.yaml")


@given(st.text(max_size=60))
def test_any_unicode_is_read_or_refused_by_name(text: str) -> None:
    try:
        parse_yaml(f"key: {text}", name="c.yaml")
    except ConfigError as error:
        assert error.message.startswith("c.yaml")
