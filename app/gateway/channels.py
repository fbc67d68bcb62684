"""The upstreams of the gateway: the engine of this server, and servers of the Realtime protocol."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from app.errors import VoiceClosed, VoiceRefused
from app.gateway.conversion import FORMATS
from app.realtime.connection import ClientTransport, Transport, pipe
from app.realtime.dialect import BETA, GA, Dialect
from app.realtime.websocket import AZURE_PATH, WebSocketModel
from app.settings import ENGINE_CHANNEL, GatewayChannel
from app.threads import in_thread
from audio.format import AudioFormat

__all__ = ["Channel", "EngineChannel", "RealtimeService", "RemoteChannel"]

AZURE_PREVIEW_PATH = "/openai/realtime"


class RealtimeService(Protocol):
    """The server side of the Realtime protocol: the engine."""

    async def serve(self, transport: Transport, dialect: Dialect, model: str) -> None: ...


class Channel(Protocol):
    """A way to a model."""

    @property
    def name(self) -> str: ...

    @property
    def remote(self) -> bool:
        """It leaves this server, is paid for, and takes the settings that are pinned."""
        ...

    @property
    def formats(self) -> Sequence[AudioFormat]:
        """The formats of sound that it has; empty for all of the protocol."""
        ...

    def dialect(self, client: Dialect) -> Dialect:
        """The dialect that it speaks with a client of that dialect."""
        ...

    async def open(self, model: str, client: Dialect, group: asyncio.TaskGroup) -> ClientTransport:
        """Connect to a model; `group` outlives the connection.

        Raises:
            VoiceRefused: a key, a model: no retry can heal it.
            VoiceUnavailable: not reached, overloaded, or too slow.
        """
        ...


class EngineChannel:
    """The engine of this server, which speaks the client's own dialect."""

    name = ENGINE_CHANNEL
    remote = False
    formats: Sequence[AudioFormat] = ()

    def __init__(self, service: RealtimeService) -> None:
        self._service = service

    def dialect(self, client: Dialect) -> Dialect:
        """The client's."""
        return client

    async def open(self, model: str, client: Dialect, group: asyncio.TaskGroup) -> ClientTransport:
        """Have the engine serve one end of a pipe; it refuses over the pipe when it is full."""
        theirs, ours = pipe()
        group.create_task(self._serve(ours, client, model), name="gateway engine session")
        return theirs

    async def _serve(self, transport: Transport, dialect: Dialect, model: str) -> None:
        try:
            with contextlib.suppress(VoiceClosed):  # the client has left
                await self._service.serve(transport, dialect, model)
        finally:
            await transport.close()


class RemoteChannel:
    """OpenAI, Azure, or any server that speaks the protocol."""

    remote = True

    def __init__(self, name: str, settings: GatewayChannel) -> None:
        self.name = name
        self._settings = settings
        self.formats = tuple(FORMATS[name] for name in settings.audio_formats)
        preview = settings.azure is not None and settings.azure_preview is not None
        self._dialect = BETA if preview or settings.dialect == "beta" else GA

    def dialect(self, client: Dialect) -> Dialect:
        """Its own, whatever the client speaks."""
        return self._dialect

    async def open(self, model: str, client: Dialect, group: asyncio.TaskGroup) -> ClientTransport:
        """Open its websocket; nothing is said on it yet."""
        settings = self._settings
        headers = {
            name: value.get_secret_value()
            for name, value in settings.headers.items()
            if value is not None
        }
        headers |= await self._credentials()
        named: dict[str, str] = {"model": model}
        query: Mapping[str, str] = {}
        if settings.azure is None:
            url = settings.url or ""
        elif settings.azure_preview is None:
            url = _azure(settings.azure, AZURE_PATH)
        else:
            url = _azure(settings.azure, AZURE_PREVIEW_PATH)
            named = {"model": ""}
            query = {"api-version": settings.azure_preview, "deployment": model}
        return await WebSocketModel(
            url,
            **named,
            headers=headers,
            query=query,
            dialect=self._dialect,
            timeout_s=settings.connect_timeout_s,
        ).open()

    async def _credentials(self) -> dict[str, str]:
        settings = self._settings
        if settings.entra_token_file is not None:
            token = await in_thread(partial(_read_token, settings.entra_token_file))
            return {"Authorization": f"Bearer {token}"}
        if settings.api_key is None:
            return {}
        key = settings.api_key.get_secret_value()
        return {"api-key": key} if settings.azure else {"Authorization": f"Bearer {key}"}


def _azure(resource: str, path: str) -> str:
    parts = urlsplit(resource)
    scheme = "ws" if parts.scheme == "http" else "wss"
    return urlunsplit((scheme, parts.netloc, path, "", ""))


def _read_token(path: Path) -> str:
    # Read for each connection: such a token lives for about an hour, and others renew the file.
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        token = ""
    if not token or not token.isprintable():
        raise VoiceRefused("the file of the Entra token has none", code="entra_token_missing")
    return token
