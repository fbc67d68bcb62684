"""Variables: where they come from, in which order, and what a `.env` file may hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.errors import ConfigError
from app.settings.reader.dotenv import Dotenv, parse_dotenv
from app.settings.reader.environment import Environment, read_text
from app.settings.reader.interpolation import Filled, fill
from app.settings.reader.strict_yaml import parse_yaml


def filled(text: str, **variables: str) -> Filled:
    return fill(parse_yaml(text, name="c.yaml"), Environment(variables))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=b", "b"),
        ("A = b c ", "b c"),
        ("export A=b", "b"),
        ("A=b # comment", "b"),
        ("A=b#c", "b#c"),
        ("A=#c", ""),
        ("A=", ""),
        ("A='b # c'", "b # c"),
        (r"A='b\n'", r"b\n"),
        (r'A="b\n\"c\" \\ \$"', 'b\n"c" \\ $'),
        ('A="b" # comment', "b"),
        ("A=b=c==", "b=c=="),
        ("A=${B}", "${B}"),
    ],
)
def test_a_dotenv_line_gives_its_value(line: str, value: str) -> None:
    assert parse_dotenv(f"# first\n\n{line}\n", name=".env").values == {"A": value}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('A="b\nc"\n', "b\nc"),
        ("A='b\n c # d\n'\n", "b\n c # d\n"),
        ('A="b\n\\"c\\"\n" # comment\n', 'b\n"c"\n'),
        ('A="b\r\nc"\r\n', "b\nc"),
        ('A="b\\\nc"\n', "bc"),
        ("A=b\rZ=1", "b"),
    ],
)
def test_a_quote_may_go_over_several_lines(text: str, value: str) -> None:
    found = parse_dotenv(f"{text}\nB=2\n", name=".env")
    assert (found.values["A"], found.values["B"]) == (value, "2")
    assert found.lines["B"] == len(re.split("\r\n?|\n", text)) + 1
    assert not found.notices


@pytest.mark.parametrize(
    ("line", "cure"),
    [
        ("canary", "expected NAME=value"),
        ("export canary", "expected NAME=value"),
        ("9C=canary", "expected NAME=value"),
        ("MY-KEY=canary", "expected NAME=value"),
        ("[canary]", "expected NAME=value"),
        ("<<<<<<< HEAD canary", "expected NAME=value"),
        ("OPENAI_API_KEY: canary", "write = for :"),
    ],
)
def test_a_line_that_cannot_be_a_variable_is_skipped_with_a_notice(line: str, cure: str) -> None:
    found = parse_dotenv(f"A=1\n{line}\nB=2\n", name=".env")
    assert found.values == {"A": "1", "B": "2"}
    assert found.notices == (f".env:2: the line is ignored: {cure}",)


def test_every_quote_that_is_not_closed_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_dotenv('A=1\nno value\nB="open\nC=\'it\'s open\nD="4"\n', name=".env")
    assert caught.value.message.splitlines() == [
        ".env:3: B: the quote is not closed",
        ".env:4: C: there is text behind the closing quote: quote all of the value",
    ]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("A=1\n".encode("utf-16"), "env: is UTF-16 text: save the file as UTF-8"),
        ("A=1\n".encode("utf-16-be"), "env: is UTF-16 text"),
        ("A=1\n".encode("utf-32"), "env: is UTF-16 text"),
        (b"A=1\nB=a\0b and more\n", "env:2: holds a NUL byte"),
        (b"A=1\nB=\xe9\n", "env:2: is not UTF-8 text"),
    ],
)
def test_a_file_in_another_encoding_is_named(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "env").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_text(tmp_path / "env")
    assert expected in caught.value.message


def test_the_process_comes_before_dotenv_and_dotenv_before_the_default() -> None:
    environment = Environment({"A": "process"}, Dotenv(values={"A": "file", "B": "file"}))
    tree = parse_yaml("a: ${A:-x}\nb: ${B:-x}\nc: ${C:-x}\n", name="c.yaml")
    assert fill(tree, environment).values == {"a": "process", "b": "file", "c": "x"}


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Environment({"A": ""}, Dotenv(values={"A": "file"})).get("A") == "file"
    assert filled("a: ${A:-x}", A="").values == {"a": "x"}


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "key"
    secret.write_text("sk-123\n")
    for name in ("API_KEY", "AUTH_TOKEN", "ACCOUNT_SID", "DB_PASSWORD"):
        assert Environment({f"{name}_FILE": str(secret)}).get(name) == "sk-123"
        assert Environment({}, Dotenv(values={f"{name}_FILE": str(secret)})).get(name) == "sk-123"


def test_a_secret_file_of_dotenv_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("of the file\n")
    dotenv = {"API_KEY_FILE": "key"}
    assert Environment({}, Dotenv(values=dotenv), tmp_path).get("API_KEY") == "of the file"
    with pytest.raises(ConfigError, match="API_KEY_FILE: key: cannot be read"):
        Environment(dotenv, Dotenv(), tmp_path).get("API_KEY")


def test_only_secrets_are_looked_for_in_files(tmp_path: Path) -> None:
    assert Environment({"LOG_FILE": str(tmp_path / "trunkline.log")}).get("LOG") is None


def test_a_variable_beats_a_file_named_in_dotenv(tmp_path: Path) -> None:
    environment = Environment(
        {"API_KEY": "here"}, Dotenv(values={"API_KEY_FILE": str(tmp_path / "gone")})
    )
    assert environment.get("API_KEY") == "here"


@pytest.mark.parametrize(
    ("content", "expected"), [(None, "cannot be read: No such file"), (b"\n", "is empty"),
                              (b"a\n\xff\xfe\xff", ":2: is not UTF-8")],
)  # fmt: skip
def test_an_unusable_secret_file_is_named(
    tmp_path: Path, content: bytes | None, expected: str
) -> None:
    secret = tmp_path / "key"
    if content is not None:
        secret.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        Environment({"API_KEY_FILE": str(secret)}).get("API_KEY")
    assert caught.value.message.startswith(f"API_KEY_FILE: {secret}:")
    assert expected in caught.value.message


def test_a_value_and_a_file_for_it_in_one_place_are_ambiguous() -> None:
    with pytest.raises(ConfigError, match="API_KEY and API_KEY_FILE are both set"):
        Environment({"API_KEY": "a", "API_KEY_FILE": "/b"}).get("API_KEY")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 600_000)
    with pytest.raises(ConfigError, match="too large"):
        read_text(big)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: ${NO_SUCH}\n", "NO_SUCH is not set: put it into the environment or .env"),
        ("a: ${A:8080}\n", "${A:...} is not a variable: for a default, write ${A:-...}"),
        ("a: ${}\n", "${...} holds no name of a variable: letters, digits and _"),
        ("a: ${9}\n", "${...} holds no name of a variable: letters, digits and _"),
        ("a: 'x ${A'\n", "${A...: the closing brace is missing"),
    ],
)
def test_a_variable_that_cannot_be_filled_in_is_named(text: str, expected: str) -> None:
    assert filled(text).problems == [(1, expected)]


def test_variables_are_filled_in_inside_text_and_quotes() -> None:
    assert filled('a: wss://${H}/x\nb: "${H}"\nc: \'${H}${H}\'\nd: ["${H}"]\n', H="h").values == {
        "a": "wss://h/x",
        "b": "h",
        "c": "hh",
        "d": ["h"],
    }


def test_a_doubled_dollar_is_a_plain_one() -> None:
    assert filled("a: $${A} costs 5$\n", A="x").values == {"a": "${A} costs 5$"}


def test_the_value_of_a_variable_is_never_structure() -> None:
    assert filled("a: ${A}\n", A="{b: [1]}\nc: 2").values == {"a": "{b: [1]}\nc: 2"}


def test_the_value_of_a_variable_is_not_filled_in_again() -> None:
    assert filled("a: ${A}\n", A="${B}", B="x").values == {"a": "${B}"}


def test_digits_from_a_variable_stay_text_and_may_become_a_number() -> None:
    found = filled("a: ${A}\nb: '${A}'\nc: ${T}\n", A="8080", T="true")
    assert found.values == {"a": "8080", "b": "8080", "c": "true"}
    assert found.retyped == {("a",): 8080, ("c",): True}


def test_an_empty_default_leaves_the_value_absent() -> None:
    assert filled("a: ${A:-}\nb: '${A:-}'\n").values == {"a": None, "b": ""}
