"""The stages of a chained engine: speech to text, text model, text to speech."""

from __future__ import annotations

__all__: list[str] = []
