"""The contacts of a campaign, read from CSV as spreadsheets write it. Pure.

One column is `number`, one may be `time_zone`, and all others are variables of the agent. Columns
are parted by commas, semicolons or tabs, as the first line has them. Nothing is guessed: a file in
an unknown encoding, a line with a fault or a number that stands there twice is told of by its line.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from app.calls.outbound.dial_policy import is_time_zone
from app.errors import PlacingRefused
from app.store.outbound import Contact

__all__ = [
    "ContactLines",
    "LineNote",
    "decode_csv",
    "parse_contacts",
    "read_contacts",
    "render_csv",
]

MOST_FAULTS: Final = 10
MOST_CONTACTS: Final = 100_000
MOST_CHARS: Final = 2_000
"""The longest value of a variable, as in a call that is placed alone."""
_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins like that of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SEPARATORS: Final = ",;\t"
_SHORTENED: Final = re.compile(r"\+?\d+([.,]\d+)?e\+?\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class LineNote:
    """Something to tell about a line, which counts from 1."""

    line: int
    text: str


@dataclass(frozen=True, slots=True)
class ContactLines:
    """Everything that was found in a CSV. With `faults`, it is of no use.

    `repeated` are lines with the number of an earlier one; they are left out.
    """

    contacts: list[Contact] = field(default_factory=list)
    faults: list[LineNote] = field(default_factory=list)
    repeated: list[LineNote] = field(default_factory=list)


def decode_csv(content: bytes, encoding: str = "") -> str | LineNote:
    """The text of a CSV file, in the encoding that its first bytes tell, else UTF-8.

    A note tells of the first line that is not in this encoding. Raises LookupError: there is none
    of this name.
    """
    found = next((name for bom, name in _BOMS if content.startswith(bom)), "")
    if not found and b"\0" in content[:2]:
        found = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"  # written without its mark
    chosen = encoding or found or "utf-8"
    try:
        return content.decode(chosen)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        text = f"byte 0x{content[error.start]:02x} is not {chosen.upper()}: save the file as "
        return LineNote(line, f'{text}"CSV UTF-8", or name its encoding')


def read_contacts(text: str, campaign_id: str, now: datetime) -> ContactLines:
    """The contacts of a CSV, and everything that is to be said about its lines."""
    found, line_of = ContactLines(), dict[str, int]()
    for fault, line, cells in _rows(text):
        if fault := fault or _fault_in(cells):
            found.faults.append(LineNote(line, fault))
            continue
        variables = dict(cells)
        number, time_zone = variables.pop("number"), variables.pop("time_zone", "")
        if (first := line_of.setdefault(number, line)) != line:
            text = f"repeats the number of line {first}, and is left out"
            found.repeated.append(LineNote(line, text))
            continue
        if len(found.contacts) == MOST_CONTACTS:
            text = f"more than {MOST_CONTACTS} contacts: make several campaigns"
            found.faults.append(LineNote(line, text))
            break
        found.contacts.append(
            Contact(
                campaign_id=campaign_id,
                number=number,
                variables=variables,
                time_zone=time_zone,
                next_at=now,
            )
        )
    return found


def _rows(text: str) -> Iterator[tuple[str, int, Mapping[str, str]]]:
    """A fault or the cells of each line that is not empty, by the names of the columns."""
    text = text.removeprefix("\ufeff")
    skipped = 0
    if named := re.match(r"sep=(.)\r?\n", text):  # as a spreadsheet writes it
        text, skipped = text[named.end() :], 1
    separator = named[1] if named else _separator_of(text)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    header: list[str] = []
    line = 1 + skipped
    try:
        for row in rows:
            begun, line = line, rows.line_num + 1 + skipped
            if not any(cell.strip() for cell in row):
                continue
            if header:
                yield _named(header, row, begun)
                continue
            header = [name.strip() for name in row]
            if fault := _fault_of(header):
                yield fault, begun, {}
                return
    except csv.Error as error:
        yield f"{error}", rows.line_num + skipped, {}
    if not header:
        yield "there is nothing in it", 1, {}


def _separator_of(text: str) -> str:
    """The separator that the first line with anything in it has most often."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    return max(_SEPARATORS, key=bare.count)


def _fault_of(header: Sequence[str]) -> str:
    if "number" not in header:
        shown = ", ".join(header)[:200]
        return f"expected names of columns, and number among them; there are {shown}"
    if not all(header):
        return "expected names of columns; one of them is empty"
    twice = next((name for name in header if header.count(name) > 1), "")
    return f"there are two columns {twice}" if twice else ""


def _named(
    header: Sequence[str], row: Sequence[str], line: int
) -> tuple[str, int, Mapping[str, str]]:
    while len(row) > len(header) and not row[-1].strip():
        row = row[:-1]  # a spreadsheet fills lines up
    if len(row) != len(header):
        return f"{len(row)} columns in place of {len(header)}", line, {}
    return "", line, dict(zip(header, (cell.strip() for cell in row), strict=True))


def _fault_in(cells: Mapping[str, str]) -> str:
    number, time_zone = cells["number"], cells.get("time_zone", "")
    if _SHORTENED.fullmatch(number):
        return "a spreadsheet has shortened the number: give its column the format text"
    if not (number.startswith("+") and number[1:].isascii() and number[1:].isdigit()):
        return "the number is not written with + and country code, and digits alone"
    if time_zone and not is_time_zone(time_zone):
        return "there is no such time_zone"
    long = next((name for name, value in cells.items() if len(value) > MOST_CHARS), "")
    if long:
        return f"{long} is longer than {MOST_CHARS} characters"
    return "there is a NUL in it" if any("\0" in value for value in cells.values()) else ""


def parse_contacts(
    content: str | bytes, campaign_id: str, now: datetime, encoding: str = ""
) -> ContactLines:
    """The contacts of a CSV, and the lines that repeat a number.

    Raises:
        PlacingRefused: something is wrong, with the lines (`contacts_invalid`); a file is in
            another encoding (`encoding_wrong`), or there is none of this name (`encoding_unknown`).
    """
    try:
        text = content if isinstance(content, str) else decode_csv(content, encoding)
    except LookupError:
        told = f"There is no encoding {encoding}"
        raise PlacingRefused(told, code="encoding_unknown") from None
    if isinstance(text, LineNote):
        raise PlacingRefused(f"Line {text.line}: {text.text}", code="encoding_wrong")
    found = read_contacts(text, campaign_id, now)
    if not found.faults:
        return found
    lines = [f"line {fault.line}: {fault.text}" for fault in found.faults[:MOST_FAULTS]]
    left = len(found.faults) - len(lines)
    more = f"; and {left} more" if left else ""
    told = f"The contacts are wrong: {'; '.join(lines)}{more}"
    raise PlacingRefused(told, code="contacts_invalid")


def render_csv(contacts: Sequence[Contact], most_bytes: int) -> Iterator[str]:
    """The contacts as CSV, in parts with a header each, none larger than that as text in JSON."""
    names = list(contacts[0].variables) if contacts else []
    header = _line(["number", "time_zone", *names])
    part, size = [header], _size(header)
    for contact in contacts:
        line = _line([contact.number, contact.time_zone, *contact.variables.values()])
        if len(part) > 1 and size + _size(line) > most_bytes:
            yield "".join(part)
            part, size = [header], _size(header)
        part.append(line)
        size += _size(line)
    yield "".join(part)


def _line(cells: Sequence[str]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()


def _size(line: str) -> int:
    return len(json.dumps(line, ensure_ascii=False).encode())
