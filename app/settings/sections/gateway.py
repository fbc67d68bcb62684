"""The settings of `/v1/realtime` for other clients: channels, models and limits of keys."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from app.settings.values import (
    Blank,
    FilePath,
    Name,
    OptionalSecret,
    RestUrl,
    Secret,
    Section,
    WebsocketUrl,
)

__all__ = ["ENGINE_CHANNEL", "GatewayChannel", "GatewayKey", "GatewayModel", "GatewaySettings"]

ENGINE_CHANNEL: Final = "engine"
"""The channel that needs no settings: the engine of this server."""

ChannelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class GatewayChannel(Section):
    """One upstream: `url` of OpenAI or a compatible server, or `azure`, the resource's address."""

    url: Annotated[WebsocketUrl | None, Blank] = None
    azure: Annotated[RestUrl | None, Blank] = None
    azure_preview: Annotated[Name | None, Blank] = None
    api_key: OptionalSecret = None
    entra_token_file: Annotated[FilePath | None, Blank] = None
    headers: dict[Name, Secret] = Field(default_factory=dict)
    dialect: Literal["ga", "beta"] = "ga"
    audio_formats: tuple[Literal["pcm16", "pcmu", "pcma"], ...] = ()
    connect_timeout_s: float = Field(default=5.0, gt=0, le=60)

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if (self.url is None) == (self.azure is None):
            raise ValueError("a channel has either url or azure: set one of them")
        if self.azure is None and (self.azure_preview or self.entra_token_file):
            raise ValueError("azure_preview and entra_token_file belong to azure")
        if self.api_key is not None and self.entra_token_file is not None:
            raise ValueError("Azure takes api_key or entra_token_file, never both: remove one")
        return self


class GatewayModel(Section):
    """A model by the name that clients ask for; `channels` are tried in their order."""

    channels: tuple[ChannelName, ...] = Field(min_length=1)
    upstream_model: Annotated[Name | None, Blank] = None
    transcription: Annotated[Name | None, Blank] = None


class GatewayKey(Section):
    """The limits of one key, by the key's name. 0 and an empty list mean no limit."""

    models: tuple[Name, ...] = ()
    per_day_usd: float = Field(default=0.0, ge=0)
    max_sessions: int = Field(default=0, ge=0, le=100_000)


class GatewaySettings(Section):
    """The gateway. Without `models`, `/v1/realtime` is the offline engine alone."""

    token_in_query: bool = False
    max_sessions: int = Field(default=100, ge=1, le=100_000)
    max_session_s: int = Field(default=7_200, ge=1, le=86_400)
    reserve_usd: float = Field(default=0.05, ge=0, le=100)
    record_sessions: bool = False
    channels: dict[ChannelName, GatewayChannel] = Field(default_factory=dict)
    models: dict[Name, GatewayModel] = Field(default_factory=dict)
    keys: dict[str, GatewayKey] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _channels_are_there(self) -> Self:
        if ENGINE_CHANNEL in self.channels:
            raise ValueError("the channel engine is built in: take another name")
        for name, model in self.models.items():
            for channel in model.channels:
                if channel != ENGINE_CHANNEL and channel not in self.channels:
                    raise ValueError(f"models.{name} names the channel {channel}, which is missing")
        return self
