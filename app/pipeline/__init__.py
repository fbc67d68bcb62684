"""`VoicePipeline`: speech in, a workflow in Python, speech out, without a call or a connection."""

from __future__ import annotations

__all__: list[str] = []
