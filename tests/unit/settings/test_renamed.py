"""Every key that was renamed is still read under its old name, with a notice."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from app.settings import notices
from app.settings.reader.names import dotted
from app.settings.reader.renamed import ANY, RENAMED
from tests.unit.settings.test_load import refusal, settings_of

NUMBER = "+15551234567"
VALUES = {
    "analysis": "{intents: [book]}",
    "turn_timeout_ms": "7000",
    "inactivity": "{after_s: 7}",
}
CASES = list(RENAMED.items())


def path_of(pattern: tuple[str, ...]) -> tuple[str, ...]:
    """A path in a file: entries of tables get a name."""
    entry = NUMBER if pattern[0] == "numbers" else "clara"
    return tuple(entry if step == ANY else step for step in pattern)


def text_of(path: tuple[str, ...], *keys: str) -> str:
    """A file whose last section has `keys`, each on a line of its own."""
    rows = [f"{'  ' * depth}{step}:" for depth, step in enumerate(path[:-1])]
    rows += [f"{'  ' * (len(path) - 1)}{key}: {VALUES[RENAMED_TO[key]]}" for key in keys]
    return "\n".join([*rows, ""])


RENAMED_TO = {path[-1]: new for path, new in CASES} | {new: new for new in RENAMED.values()}


@pytest.mark.parametrize(("pattern", "new"), CASES, ids=lambda value: str(value))
def test_an_old_key_is_read_and_named_with_its_line(
    pattern: tuple[str, ...], new: str, tmp_path: Path
) -> None:
    path = path_of(pattern)
    old = settings_of(text_of(path, path[-1]), tmp_path)
    new_path = (*path[:-1], new)
    assert old.model_dump() == settings_of(text_of(path, new), tmp_path).model_dump()
    notice = (
        f"config.yaml:{len(path)}: {dotted(path)}: renamed to {dotted(new_path)}; the old name "
        "is read for one version"
    )
    assert notices(old, date(2026, 10, 1))[0] == notice
    assert old.origin.where(new_path) == ("config.yaml", len(path))


@pytest.mark.parametrize(("pattern", "new"), CASES, ids=lambda value: str(value))
def test_an_old_key_beside_its_new_name_is_refused(
    pattern: tuple[str, ...], new: str, tmp_path: Path
) -> None:
    path = path_of(pattern)
    new_key = dotted((*path[:-1], new))
    first, second = len(path), len(path) + 1
    assert refusal(text_of(path, new, path[-1]), tmp_path) == [
        f"config.yaml:{second}: {dotted(path)}: this is the old name of {new_key}, given on line "
        f"{first}: keep one"
    ]
    assert refusal(text_of(path, path[-1], new), tmp_path) == [
        f"config.yaml:{first}: {dotted(path)}: this is the old name of {new_key}, given on line "
        f"{second}: keep one"
    ]


@pytest.mark.parametrize("pattern", RENAMED, ids=str)
def test_a_wrong_value_under_an_old_key_is_named_as_the_file_names_it(
    pattern: tuple[str, ...], tmp_path: Path
) -> None:
    path = path_of(pattern)
    rows = [f"{'  ' * depth}{step}:" for depth, step in enumerate(path)]
    [problem] = refusal("\n".join(rows) + " [1]\n", tmp_path)
    assert problem.startswith(f"config.yaml:{len(path)}: {dotted(path)}: expected ")


def test_mistakes_inside_an_old_section_name_the_old_section(tmp_path: Path) -> None:
    text = "brain:\n  tasks: [book]\n  intent: [x]\n  analysis_timeout_ms: ${T}\n"
    assert refusal(text, tmp_path, T="soon") == [
        'config.yaml:3: brain.intent: unknown key; did you mean "intents"?',
        "config.yaml:4: brain.analysis_timeout_ms (from T): expected a whole number; found text",
    ]
    assert refusal("brain:\n  tasks: [book]\n", tmp_path) == [
        "config.yaml:1: brain: tasks names 'book', which is none of the intents"
    ]
    later = settings_of("limits:\n  are_you_there: {after_s: 5}\n", tmp_path).origin
    assert later.place("limits", "inactivity", "after_s") == (
        "config.yaml:2: limits.are_you_there.after_s"
    )


def test_old_keys_inside_an_old_section_are_both_named(tmp_path: Path) -> None:
    found = settings_of("brain: {analysis_timeout_ms: 7000}\n", tmp_path)
    assert found.analysis is not None
    assert found.analysis.turn_timeout_ms == 7_000
    assert [text.split(";")[0] for text in notices(found, date(2026, 10, 1))] == [
        "config.yaml:1: brain: renamed to analysis",
        "config.yaml:1: brain.analysis_timeout_ms: renamed to analysis.turn_timeout_ms",
    ]


def test_an_old_key_under_its_new_name_only_has_no_notice(tmp_path: Path) -> None:
    assert (
        notices(settings_of("analysis: {}\nlimits: {inactivity: {}}\n", tmp_path), date.min) == ()
    )


@pytest.mark.parametrize("pattern", RENAMED, ids=str)
def test_an_odd_value_in_place_of_a_section_is_refused_and_not_a_crash(
    pattern: tuple[str, ...], tmp_path: Path
) -> None:
    for depth in range(1, len(pattern)):
        path = path_of(pattern)[:depth]
        rows = [f"{'  ' * n}{step}:" for n, step in enumerate(path)]
        for odd in ("5", "[1]", "text"):
            assert refusal("\n".join(rows) + f" {odd}\n", tmp_path)
