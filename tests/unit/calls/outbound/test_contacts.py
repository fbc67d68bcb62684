"""Contacts from CSV files as spreadsheets write them: nothing is lost, each fault has a line."""

from __future__ import annotations

import codecs
import csv
import io
from datetime import UTC, datetime

import pytest

from app.calls.outbound.contacts import (
    LineNote,
    decode_csv,
    parse_contacts,
    read_contacts,
    render_csv,
)
from app.errors import PlacingRefused
from app.store.outbound import Contact

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
PEOPLE = [
    ("+14155550101", "Jörg Müller"),
    ("+14155550102", 'Ann "the boss", Ltd; really'),
    ("+14155550103", "two\nlines"),
    ("+14155550104", "日本 🎉"),
    ("+14155550105", ""),
]


def written(separator: str, line_end: str) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, lineterminator=line_end).writerows(
        [("number", "name"), *PEOPLE]
    )
    return file.getvalue()


def read(content: bytes, encoding: str = "") -> list[tuple[str, str]]:
    text = decode_csv(content, encoding)
    assert isinstance(text, str)
    found = read_contacts(text, "c", NOW)
    assert (found.faults, found.repeated) == ([], [])
    return [(one.number, one.variables["name"]) for one in found.contacts]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(
    "encoding",
    ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-16-be with mark"],
)
def test_each_spelling_of_a_file_has_the_same_contacts(
    encoding: str, separator: str, line_end: str
) -> None:
    name, _, mark = encoding.partition(" ")
    text = written(separator, line_end)
    content = (codecs.BOM_UTF16_BE if mark else b"") + text.encode(name)
    assert read(content) == PEOPLE
    empty_lines = f"{line_end}{text}{line_end}{separator}{line_end}"
    assert read(empty_lines.encode()) == PEOPLE
    assert read(f"sep={separator}{line_end}{text}".encode()) == PEOPLE


def test_an_old_encoding_is_read_where_it_is_named_and_else_told_of() -> None:
    content = "number;name\n+14155550101;Ann\n+14155550102;Jörg\n".encode("cp1252")
    assert read(content, "cp1252")[1] == ("+14155550102", "Jörg")
    refused = decode_csv(content)
    assert isinstance(refused, LineNote)
    assert (refused.line, "0xf6 is not UTF-8" in refused.text) == (3, True)
    with pytest.raises(LookupError):
        decode_csv(content, "klingon")


HEADER = "number,name\n"
GOOD = "+14155550101,Ann\n"
FAULTS: list[tuple[str, list[tuple[int, str]]]] = [
    ("", [(1, "there is nothing in it")]),
    ("\n\n", [(1, "there is nothing in it")]),
    ("phone,name\n", [(1, "there are phone, name")]),
    ("\nNumber,name\n", [(2, "there are Number, name")]),
    ("number,,name\n", [(1, "one of them is empty")]),
    ("number,name,name\n", [(1, "two columns name")]),
    (HEADER + "4155550101,Ann\n", [(2, "with + and country code")]),
    (HEADER + "+1 415 555 0101,Ann\n", [(2, "digits alone")]),
    (HEADER + "1.41556E+10,Ann\n", [(2, "a spreadsheet has shortened the number")]),
    (HEADER + '"1,41556E+10",Ann\n', [(2, "a spreadsheet has shortened the number")]),
    (HEADER + GOOD + "+14155550102\n", [(3, "1 columns in place of 2")]),
    (HEADER + GOOD + "+14155550102,a,b\n", [(3, "3 columns in place of 2")]),
    (HEADER + '+14155550101,"two\nlines"\n\n+1,x,y\n', [(5, "3 columns in place of 2")]),
    (HEADER + '+14155550101,"no end\n' + GOOD, [(3, "unexpected end of data")]),
    (HEADER + '+14155550101,"a"b\n', [(2, "expected after")]),
    (HEADER + GOOD + "+14155550102,a\0b\n", [(3, "NUL")]),
    (HEADER + f"+14155550101,{'x' * 2_001}\n", [(2, "name is longer than 2000")]),
    (HEADER + f"+14155550101,{'x' * 140_000}\n", [(2, "field larger")]),
    ("number,time_zone\n+14155550101,Mars/Phobos\n", [(2, "no such time_zone")]),
    ("number,time_zone\n+14155550101,../../etc\n", [(2, "no such time_zone")]),
    (HEADER + "x,a\n" + GOOD + "y,b\n", [(2, "country code"), (4, "country code")]),
]


@pytest.mark.parametrize(("text", "faults"), FAULTS)
def test_each_fault_has_its_line(text: str, faults: list[tuple[int, str]]) -> None:
    found = read_contacts(text, "c", NOW).faults
    assert [fault.line for fault in found] == [line for line, _ in faults]
    for fault, (_, words) in zip(found, faults, strict=True):
        assert words in fault.text
    with pytest.raises(PlacingRefused, match=f"line {faults[0][0]}: "):
        parse_contacts(text, "c", NOW)


def test_a_number_that_stands_there_twice_is_told_of() -> None:
    found = read_contacts(HEADER + GOOD + "+14155550102,Bob\n+14155550101,Other\n", "c", NOW)
    assert [one.variables["name"] for one in found.contacts] == ["Ann", "Bob"]
    assert found.repeated == [LineNote(4, "repeats the number of line 2, and is left out")]


def test_of_many_faults_the_answer_names_some_and_counts_the_others() -> None:
    with pytest.raises(PlacingRefused, match=r"line 11: .*; and 15 more$"):
        parse_contacts(HEADER + "x,a\n" * 25, "c", NOW)


def test_ten_thousand_contacts_are_sent_in_parts_that_fit_and_lose_nothing() -> None:
    names = ["Ann", 'quote "q"', "line\nbreak", "Jörg", "a;b,c"]
    people = [
        Contact(
            campaign_id="",
            number=f"+1415{nth:07d}",
            variables={"name": names[nth % 5]},
            time_zone="Europe/Berlin" if nth % 3 else "",
            next_at=NOW,
        )
        for nth in range(10_000)
    ]
    parts = [*render_csv(people, 50_000)]
    assert len(parts) > 5 and max(len(part.encode()) for part in parts) <= 50_000
    assert [one for part in parts for one in parse_contacts(part, "", NOW).contacts] == people
