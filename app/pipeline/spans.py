"""Spans of a pipeline's stages for OpenTelemetry, where its packages are installed.

They go to the program's own tracer provider; without one they cost nothing. They hold no word and
no sound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

try:
    from opentelemetry import trace
except ImportError:
    _traced = False
else:
    _traced = True

__all__ = ["span"]


@contextmanager
def span(name: str) -> Iterator[None]:
    """A span around a part of the work, below the one that is open; an error marks it."""
    if not _traced:
        yield
        return
    with trace.get_tracer("trunkline").start_as_current_span(name):
        yield
