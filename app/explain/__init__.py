"""Explains a call from its events: a timeline in plain words, its first problem on top."""

from app.explain.explanation import Entry, Explanation, Mark, Timeline, explain
from app.explain.text import render

__all__ = ["Entry", "Explanation", "Mark", "Timeline", "explain", "render"]
