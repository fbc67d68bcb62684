"""Explains a call from its events: a timeline in plain words, its first problem on top."""

from app.explain.explanation import Entry, Explanation, Mark, explain
from app.explain.text import render

__all__ = ["Entry", "Explanation", "Mark", "explain", "render"]
