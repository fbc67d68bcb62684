"""An explanation as text for a terminal. Pure."""

from __future__ import annotations

import textwrap

from app.explain.explanation import Entry, Explanation, Mark

__all__ = ["render"]

_MARKS = {Mark.PLAIN: " ", Mark.NOTICE: "-", Mark.PROBLEM: "!"}
_INDENT = 11


def render(explanation: Explanation, width: int = 80) -> str:
    """The explanation, its first problem on top, in lines of `width` where words fit into it."""
    lines = [*_filled(f"{explanation.call_id}  {explanation.headline}", width, 2), ""]
    problem = explanation.problem
    if problem is None:
        lines.append("Nothing went wrong, as far as the events of the call show.")
    else:
        lines.append(f"First problem, {problem.at_ms / 1000:.2f} s into the call:")
        lines += _filled(f"  {problem.text}", width, 2)
        lines += _filled(f"  -> {problem.remedy}", width, 5) if problem.remedy else []
    lines.append("")
    for entry in explanation.entries:
        lines += _entry(entry, width)
    return "\n".join(lines) + "\n"


def _entry(entry: Entry, width: int) -> list[str]:
    head = f"{entry.at_ms / 1000:8.2f} {_MARKS[entry.mark]} {entry.text}"
    lines = _filled(head, width, _INDENT)
    for detail in entry.details:
        lines += _filled(f"{' ' * (_INDENT + 2)}{detail}", width, _INDENT + 4)
    if entry.remedy:
        lines += _filled(f"{' ' * _INDENT}-> {entry.remedy}", width, _INDENT + 3)
    return lines


def _filled(text: str, width: int, indent: int) -> list[str]:
    return textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
