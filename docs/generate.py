"""Refreshes the generated parts of the documents in this folder; `make docs` runs it.

A generated part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Settings are taken
from the comments of config.yaml, events from their classes, the turn diagram from the table that
the code runs by, and the rooms with their imports from the code itself.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel

from app import events
from app.agents.dialogue.response_kinds import RULES, Moment, Rules
from app.calls.turns.turn_table import TURNS, Turn
from app.settings import Settings
from app.store.codec import EVENT_TYPES

__all__ = ["EXAMPLES", "PARTS", "ConfigKey", "config_keys", "main", "refreshed"]

ROOT: Final = Path(__file__).parents[1]
_PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
# `key: value`, `#key: value` where it is turned off, a comment behind the value.
_KEY = re.compile(r"( *)(#?)(\+?\w[\w.-]*):(?: (.*?))?(?:\s+# (.*))?")


ENTRIES: Final = {"prices": "MODEL", "numbers": "NUMBER"}
"""Stand-ins for the names of a table's entries."""
EXAMPLES: Final = (
    "agents",
    "tools",
    "mcp_servers",
    "guardrails",
    "destinations",
    "numbers",
    "analysis",
    "prices",
    "webhooks",
)
"""Sections that are empty unless somebody fills them: the file shows an example, turned off."""


@dataclass(frozen=True, slots=True)
class ConfigKey:
    """A key of config.yaml: its path, whether it is turned on, its value, comment and line."""

    path: tuple[str, ...]
    on: bool
    value: str
    comment: str
    line: int = 0

    @property
    def name(self) -> str:
        """The setting that it shows; an entry of a table stands for all of its entries."""
        path: list[str] = []
        model: type[BaseModel] | None = Settings
        entry_is_next = False
        for step in self.path:
            if entry_is_next:
                path.append(ENTRIES.get(path[0], "NAME"))
                entry_is_next = False
                continue
            path.append(step)
            field = model.model_fields.get(step) if model is not None else None
            entry_is_next = field is not None and get_origin(field.annotation) is dict
            model = section_in(field.annotation) if field is not None else None
        return ".".join(path)


def section_in(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation such as `X`, `X | None` or `dict[str, X]` holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (section_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


def config_keys(text: str) -> list[ConfigKey]:
    """Every key in the order of the file, those that are turned off too."""
    keys: list[ConfigKey] = []
    place: list[tuple[int, str]] = []
    comment: list[str] = []
    block_indent: int | None = None
    for number, row in enumerate(text.splitlines(), start=1):
        indent = len(row) - len(row.lstrip())
        if block_indent is not None and row.strip() and indent > block_indent:
            continue  # a line of a text over several lines
        block_indent = None
        stripped = row.strip()
        if stripped == "#" or stripped.startswith("# "):
            comment.append(stripped[2:])
        elif match := _KEY.fullmatch(row):
            while place and place[-1][0] >= indent:
                place.pop()
            place.append((indent, match[3]))
            value = match[4] or ""
            if value[:1] in ("|", ">"):
                block_indent, value = indent, "text"
            words = " ".join((*comment, match[5] or "")).strip()
            path = tuple(name for _, name in place)
            keys.append(ConfigKey(path, not match[2], value, words, number))
            comment = []
        else:
            comment = []
    return keys


def configuration() -> str:
    """A table for each section of config.yaml."""
    rows: list[str] = []
    section = None
    seen: set[str] = set()
    keys = config_keys((ROOT / "config.yaml").read_text(encoding="utf-8"))
    # Keys that stand by themselves share a table, wherever the file has them.
    for key in sorted(keys, key=lambda key: len(key.path) > 1 or not key.value):
        name = key.name
        if name in seen:
            continue
        seen.add(name)
        if len(key.path) == 1 and not key.value:
            section = name
            shown = "Example" if section in EXAMPLES else "Default"
            rows += ["", f"### `{section}`", "", key.comment, "", f"| Key | {shown} | Meaning |"]
            rows.append("|---|---|---|")
            continue
        if len(key.path) == 1 and section is None and not rows:
            rows += ["", "### Top level", "", "| Key | Default | Meaning |", "|---|---|---|"]
        value = f"`{key.value}`" if key.value else ""
        default = value if key.on or section in EXAMPLES else "not set"
        rows.append(f"| `{name}` | {_cell(default)} | {_cell(key.comment)} |")
    return "\n".join(rows).strip() + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def turns() -> str:
    """The turn table as a state diagram."""
    rows = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Turn.IDLE}"]
    rows += [f"    {start} --> {end}: {event}" for (start, event), end in TURNS.items()]
    return "\n".join([*rows, "```", ""])


TOP_FILES: Final = {"app.main": "main", "app.parts": "parts"}
"""Files beside the folders that are rooms of their own."""
GROUND: Final = "events, errors, logs, ..."
"""The files beside the rooms, which stand for one room: all of them are imported from above."""
Arrows = dict[str, set[str]]
"""Rooms, and the rooms that each imports."""


def arrows(inside: str = "") -> Arrows:
    """Imports between the rooms at the top, or between those inside of one room."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for top in ("app", "audio")
        for path in sorted((ROOT / top).rglob("*.py"))
    }

    def room(module: str) -> str:
        top, *steps = module.split(".")
        folders = steps if modules[module].name == "__init__.py" else steps[:-1]
        if inside:
            return (folders[1:2] or [inside])[0] if folders[:1] == [inside] else ""
        if top == "audio":
            return top
        return folders[0] if folders else TOP_FILES.get(module, GROUND)

    found: Arrows = defaultdict(set)
    for module, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                target = whole if whole in modules else node.module
                if target in modules and room(module) != room(target) and room(target):
                    found[room(module)].add(room(target))
    found.pop("", None)
    return found


def without_detours(found: Arrows) -> Arrows:
    """The arrows that do not follow from others: none where a longer way leads to the same room.

    Raises:
        ValueError: the arrows lead in a circle, so that no arrow follows from others.
    """

    def reached(start: str, path: tuple[str, ...] = ()) -> set[str]:
        if start in path:
            raise ValueError(f"imports lead in a circle: {' -> '.join((*path, start))}")
        onward = found.get(start, set())
        return onward.union(*(reached(room, (*path, start)) for room in onward))

    return {
        start: {end for end in ends if not any(end in reached(other) for other in ends - {end})}
        for start, ends in found.items()
    }


def _graph(found: Arrows, own: str = "") -> str:
    labels = {GROUND: f'ground["{GROUND}"]', own: f'{own}["files of {own}/ itself"]'}
    rows = [
        f"    {labels.get(start, start)} --> {labels.get(end, end)}"
        for start in sorted(found)
        for end in sorted(found[start])
    ]
    return "\n".join(["```mermaid", "graph TD", *rows, "```", ""])


def rooms() -> str:
    """The rooms of the code and their imports."""
    return _graph(without_detours(arrows()))


_MOMENTS: Final = {
    Moment.FREE: "no response runs",
    Moment.CALLER_SILENT: "no response runs, the caller is silent",
    Moment.QUIET: "nobody speaks or is about to",
    Moment.IDLE: "nobody speaks or is about to, and the caller has not asked to wait",
}


def response_kinds() -> str:
    """The kinds of responses in the order in which they are said, with the rules of each."""
    rows = [
        "| Kind | What it is | Begins when | Caller speaks | Connection lost | Several |",
        "|---|---|---|---|---|---|",
    ]
    rows += [_kind_row(kind, rules) for kind, rules in RULES.items()]
    return "\n".join([*rows, ""])


def _kind_row(kind: str, rules: Rules) -> str:
    speech = "dropped" if rules.dropped_by_speech else "kept"
    several = "joined" if rules.joined else "one after the other"
    moment, on_loss = _MOMENTS[rules.begins_when], rules.on_loss.value
    if rules.optional:
        moment, speech, several = "at once, or never", "never waits", "never wait"
    return f"| {kind} | {rules.meaning} | {moment} | {speech} | {on_loss} | {several} |"


def call_events() -> str:
    """The events of calls with their fields, from their docstrings."""
    rows = ["| `type` | Means | Fields |", "|---|---|---|"]
    types = {event: kind for kind, event in EVENT_TYPES.items()}
    for event in _event_classes():
        kind = types[event]
        meaning = " ".join((event.__doc__ or "").split()).replace("|", "\\|")
        names = [one.name for one in dataclasses.fields(event) if one.name not in _IN_ALL]
        rows.append(f"| `{kind}` | {meaning} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join([*rows, ""])


_IN_ALL: Final = ("call_id", "at_ms")


def _event_classes() -> list[Any]:
    found: list[Any] = []
    for member in get_args(events.CallEvent):
        found += get_args(member) or [member]
    return found


PARTS: Final[dict[str, Callable[[], str]]] = {
    "call-events": call_events,
    "configuration": configuration,
    "rooms": rooms,
    "rooms-of-agents": lambda: _graph(arrows("agents"), "agents"),
    "rooms-of-calls": lambda: _graph(arrows("calls"), "calls"),
    "response-kinds": response_kinds,
    "turns": turns,
}


def refreshed(text: str) -> str:
    """`text` with each of its generated parts made anew."""
    return _PART.sub(lambda match: f"{match[1]}\n{PARTS[match[2]]()}\n{match[3]}", text)


def main() -> None:
    for path in sorted((ROOT / "docs").glob("*.md")):
        before = path.read_text(encoding="utf-8")
        after = refreshed(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"refreshed {path.relative_to(ROOT)}\n")


if __name__ == "__main__":
    main()
