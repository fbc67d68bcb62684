"""Keys that were renamed. The old name is read for one version, with a notice that names the new.

Works on the tree of the file before variables are filled in and values are checked. `old_names`
keeps how the file calls a key, under which mistakes in its value are reported.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from app.settings.reader.names import dotted
from app.settings.reader.strict_yaml import Mapping, Node

__all__ = ["ANY", "RENAMED", "Renames", "with_new_names"]

ANY: Final = "*"
"""Stands for each entry of a table."""

RENAMED: Final[dict[tuple[str, ...], str]] = {
    ("brain",): "analysis",
    ("analysis", "analysis_timeout_ms"): "turn_timeout_ms",
    ("limits", "are_you_there"): "inactivity",
    ("agents", ANY, "limits", "are_you_there"): "inactivity",
    ("numbers", ANY, "limits", "are_you_there"): "inactivity",
}
"""The path of each old key and its new name in the same section. A section comes before its keys,
whose paths begin with its new name."""


@dataclass(slots=True)
class Renames:
    """Lines with sentences about old keys: `used` ones, and those whose new key is there too."""

    old_names: dict[tuple[str | int, ...], str] = field(default_factory=dict)
    used: list[tuple[int, str]] = field(default_factory=list)
    clashes: list[tuple[int, str]] = field(default_factory=list)


def with_new_names(root: Mapping) -> tuple[Mapping, Renames]:
    """The tree with each old key under its new name."""
    found = Renames()
    for path, new in RENAMED.items():
        root = _renamed(root, path, new, (), found)
    return root, found


def _renamed(
    section: Mapping, path: tuple[str, ...], new: str, place: tuple[str, ...], found: Renames
) -> Mapping:
    step, rest = path[0], path[1:]
    if rest:
        entries: dict[str, Node] = {
            key: _renamed(node, rest, new, (*place, key), found)
            if step in (ANY, key) and isinstance(node, Mapping)
            else node
            for key, node in section.entries.items()
        }
        return replace(section, entries=entries)
    if step not in section.entries:
        return section
    line, new_key = section.key_lines[step], dotted((*place, new))
    written = [found.old_names.get(place[: n + 1], name) for n, name in enumerate(place)]
    old_key = dotted((*written, step))
    if new in section.entries:
        first = section.key_lines[new]
        found.clashes.append(
            (line, f"{old_key}: this is the old name of {new_key}, given on line {first}: keep one")
        )
        return replace(section, entries={k: v for k, v in section.entries.items() if k != step})
    found.old_names[*place, new] = step
    found.used.append(
        (line, f"{old_key}: renamed to {new_key}; the old name is read for one version")
    )
    return replace(
        section,
        entries={new if k == step else k: v for k, v in section.entries.items()},
        key_lines={**section.key_lines, new: line},
    )
