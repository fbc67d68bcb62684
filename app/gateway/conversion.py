"""Sound between a client and an upstream that lacks the client's format. Pure.

The upstream is asked for a format that it has in place of the client's; from then on sound is
converted both ways, and the client is shown the format that it asked for. Events are spelled as the
upstream's dialect has them, GA or beta.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.gateway.wire import parse, render
from app.realtime.dialect import BETA, Dialect
from audio.format import PCM16_24K, PCMA_8K, PCMU_8K, AudioFormat
from audio.transcoder import Transcoder

__all__ = ["FORMATS", "Conversion", "format_of"]

FORMATS: Final[Mapping[str, AudioFormat]] = {
    "pcm16": PCM16_24K,
    "pcmu": PCMU_8K,
    "pcma": PCMA_8K,
}
_GA_NAMES: Final = {PCM16_24K: "audio/pcm", PCMU_8K: "audio/pcmu", PCMA_8K: "audio/pcma"}
_BETA_NAMES: Final = {PCM16_24K: "pcm16", PCMU_8K: "g711_ulaw", PCMA_8K: "g711_alaw"}
_BY_NAME: Final = {
    name: found for names in (_GA_NAMES, _BETA_NAMES) for found, name in names.items()
}


def format_of(session: Any, side: str) -> AudioFormat | None:
    """The format of a session's `input` or `output`, in either dialect; None where it has none."""
    found = session if isinstance(session, dict) else {}
    audio = found.get("audio")
    of_side = audio.get(side) if isinstance(audio, dict) else None
    nested = of_side.get("format") if isinstance(of_side, dict) else None
    return _read(nested or found.get(f"{side}_audio_format"))


class Conversion:
    """The formats of one session, of a client and of an upstream that has only some."""

    def __init__(self, upstream: Sequence[AudioFormat]) -> None:
        """`upstream`: the formats that it has, the first one for want of the client's."""
        self._input = _Way(upstream)
        self._output = _Way(upstream)

    @property
    def converts(self) -> bool:
        """A side has another format than the other."""
        return self._input.converts or self._output.converts

    def first_formats(self, client: Dialect) -> dict[str, Any]:
        """Session settings that a client has by default; empty where the upstream has them too."""
        if not self.converts:
            return {}
        if client is BETA:
            return dict.fromkeys(_BETA_KEYS, _BETA_NAMES[PCM16_24K])
        default = {"format": _spelled_ga(PCM16_24K)}
        return {"type": "realtime", "audio": {"input": default, "output": default}}

    # From the client ----------------------------------------------------------------------------

    def to_upstream(self, event: dict[str, Any]) -> dict[str, Any]:
        """A client's event with the upstream's formats and sound in them."""
        kind = event.get("type")
        if kind == "session.update":
            self._each_format(event.get("session"), _Way.ask)
        elif kind == "input_audio_buffer.append":
            return {**event, "audio": self._input.up(event.get("audio"))}
        elif kind in ("input_audio_buffer.clear", "input_audio_buffer.commit"):
            self._input.begin()
        elif kind == "response.create":
            _without_format(event.get("response"))  # it has the session's
        elif kind == "conversation.item.create":
            _each_sound(event.get("item"), "input_audio", self._input.whole_up)
        return event

    def append(self, text: bytes) -> bytes:
        """A plain append, as `to_upstream`."""
        if not self._input.converts or (event := parse(text)) is None:
            return text
        return render(self.to_upstream(event))

    # From the upstream --------------------------------------------------------------------------

    def delta(self, text: str) -> str:
        """A piece of the model's sound, in the client's format."""
        if not self._output.converts or (event := parse(text)) is None:
            return text
        item_id = event.get("item_id")
        return render({**event, "delta": self._output.down(event.get("delta"), item_id)}).decode()

    def to_client(self, text: str) -> str:
        """Any other event: a session with the client's formats, an item with its sound in them."""
        if not self.converts or (event := parse(text)) is None:
            return text
        for name in ("session", "response"):
            self._each_format(event.get(name), _Way.shown)
        item = event.get("item")
        _each_sound(item, "input_audio", self._input.whole_down)
        for kind in ("audio", "output_audio"):
            _each_sound(item, kind, self._output.whole_down)
        return render(event).decode()

    def _each_format(self, settings: Any, change: Any) -> None:
        if not isinstance(settings, dict):
            return
        for key, way in zip(_BETA_KEYS, (self._input, self._output), strict=True):
            if key in settings:
                settings[key] = change(way, settings[key])
        audio = settings.get("audio")
        for side, way in (("input", self._input), ("output", self._output)):
            found = audio.get(side) if isinstance(audio, dict) else None
            if isinstance(found, dict) and "format" in found:
                found["format"] = change(way, found["format"])


class _Way:
    """The formats of one direction, and what of its sound is under way."""

    def __init__(self, upstream: Sequence[AudioFormat]) -> None:
        self._has = tuple(upstream)
        self._item_id: object = None
        self._set(PCM16_24K)

    def _set(self, client: AudioFormat) -> None:
        self._client = client
        self._upstream = client if client in self._has else self._has[0]
        self.converts = self._client != self._upstream
        self.begin()

    def begin(self) -> None:
        """Begin anew: the next sound does not go on where the last one ended."""
        self._up = Transcoder(self._client, self._upstream)
        self._down = Transcoder(self._upstream, self._client)

    def ask(self, spec: Any) -> Any:
        """A format as the client asks for it; the one to ask the upstream for."""
        wanted = _read(spec)
        if wanted is None:
            return spec  # which the upstream refuses in its own words
        self._set(wanted)
        return _spelled(self._upstream, spec)

    def shown(self, spec: Any) -> Any:
        """A format as the upstream has it; the one to show the client."""
        return _spelled(self._client, spec) if _read(spec) == self._upstream else spec

    def up(self, sound: Any) -> Any:
        return _converted(sound, self._up.push)

    def down(self, sound: Any, item_id: object) -> Any:
        if item_id != self._item_id:
            self._item_id = item_id
            self.begin()
        return _converted(sound, self._down.push)

    def whole_up(self, sound: Any) -> Any:
        return _converted(sound, _whole(Transcoder(self._client, self._upstream)))

    def whole_down(self, sound: Any) -> Any:
        return _converted(sound, _whole(Transcoder(self._upstream, self._client)))


_BETA_KEYS: Final = ("input_audio_format", "output_audio_format")


def _whole(transcoder: Transcoder) -> Any:
    return lambda sound: transcoder.push(sound) + transcoder.flush()


def _converted(sound: Any, convert: Any) -> Any:
    """Sound in base64; what is none stays, for the other side to judge."""
    try:
        return base64.b64encode(convert(base64.b64decode(sound, validate=True))).decode("ascii")
    except (TypeError, ValueError, binascii.Error):
        return sound


def _each_sound(item: Any, kind: str, convert: Any) -> None:
    content = item.get("content") if isinstance(item, dict) else None
    for part in content if isinstance(content, list) else ():
        if isinstance(part, dict) and part.get("type") == kind and part.get("audio"):
            part["audio"] = convert(part["audio"])


def _without_format(response: Any) -> None:
    if not isinstance(response, dict):
        return
    response.pop("output_audio_format", None)
    audio = response.get("audio")
    output = audio.get("output") if isinstance(audio, dict) else None
    if isinstance(output, dict):
        output.pop("format", None)


def _read(spec: Any) -> AudioFormat | None:
    name = spec.get("type") if isinstance(spec, dict) else spec
    return _BY_NAME.get(name) if isinstance(name, str) else None


def _spelled(found: AudioFormat, like: Any) -> Any:
    return _spelled_ga(found) if isinstance(like, dict) else _BETA_NAMES[found]


def _spelled_ga(found: AudioFormat) -> dict[str, Any]:
    rate = {"rate": found.rate_hz} if found is PCM16_24K else {}
    return {"type": _GA_NAMES[found], **rate}
