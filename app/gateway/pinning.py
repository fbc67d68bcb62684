"""A client's events for a remote channel: sound as it is, all else as it was understood.

Pure. The model belongs to the route, and so does the transcription where it is pinned. An event is
written anew from what was parsed, so that a key that stands twice cannot mean two things.
"""

from __future__ import annotations

from typing import Any

from app.gateway.conversion import Conversion
from app.gateway.wire import parse, render

__all__ = ["Pins"]

_UPDATES = frozenset({"session.update", "transcription_session.update"})


class Pins:
    """The settings that clients of one session cannot change."""

    def __init__(self, transcription: str = "", conversion: Conversion | None = None) -> None:
        """`conversion`: of sound that the upstream takes in another format."""
        self._transcription = transcription
        self._conversion = conversion

    def apply(self, text: bytes) -> bytes | None:
        """The text to send in place of a client's; None for one that is not an event."""
        event = parse(text)
        if event is None:
            return None
        if event.get("type") in _UPDATES and isinstance(session := event.get("session"), dict):
            event["session"] = self.session(session)
        return render(event if self._conversion is None else self._conversion.to_upstream(event))

    def session(self, session: dict[str, Any]) -> dict[str, Any]:
        """Session settings, in either dialect, with the pinned ones in place."""
        found = {key: value for key, value in session.items() if key != "model"}
        self._pin(found, "input_audio_transcription")
        audio = found.get("audio")
        if isinstance(audio, dict) and isinstance(heard := audio.get("input"), dict):
            found["audio"] = {**audio, "input": self._pinned({**heard})}
        return found

    def _pinned(self, heard: dict[str, Any]) -> dict[str, Any]:
        self._pin(heard, "transcription")
        return heard

    def _pin(self, settings: dict[str, Any], key: str) -> None:
        wanted = settings.get(key)
        if self._transcription and isinstance(wanted, dict):
            settings[key] = {**wanted, "model": self._transcription}
