"""All that can be set, as frozen values. `config.yaml` in the repository says what each key means.

Types and ranges only. `app.settings.load` reads the values, `app.settings.references` checks that
names lead somewhere, and `app.settings.deployment` that the values are safe together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, PrivateAttr, SecretStr, field_validator, model_validator

from app.paths import MEDIA_STREAM_PATH, STATUS_PATH, VOICE_PATH
from app.settings.reader.origin import Origin
from app.settings.reader.secrets import SHORTEST_SECRET, is_secret_label, secrets_in
from app.settings.sections.agents import AgentName, AgentSettings, GuardrailName, GuardrailSettings
from app.settings.sections.analysis import AnalysisSettings
from app.settings.sections.compliance import ComplianceSettings
from app.settings.sections.gateway import GatewaySettings
from app.settings.sections.limits import Budget, Limits, Recording
from app.settings.sections.network import NetworkSettings
from app.settings.sections.numbers import (
    DestinationName,
    DestinationSettings,
    NumberSettings,
    Region,
)
from app.settings.sections.outbound import OutboundSettings
from app.settings.sections.pipeline import PipelineSettings
from app.settings.sections.realtime import OpenAIRealtime
from app.settings.sections.store import StoreSettings
from app.settings.sections.tools import McpServerSettings, ServerName, ToolName, ToolSettings
from app.settings.sections.webhooks import CallWebhookSettings, WebhookName
from app.settings.values import (
    AccountSid,
    Blank,
    FilePath,
    Name,
    OptionalSecret,
    PhoneNumber,
    PublicUrl,
    RestUrl,
    Section,
    Spoken,
    Text,
    UrlPath,
)

__all__ = [
    "Api",
    "CarrierPrices",
    "Console",
    "Logging",
    "Mode",
    "Offline",
    "Price",
    "Server",
    "Settings",
    "Twilio",
    "VoiceChoice",
]


class Mode(StrEnum):
    """Without carrier credentials nothing but this machine may reach the server."""

    DEVELOPMENT = "development"
    LIVE = "live"


class VoiceChoice(StrEnum):
    """The kind of voice model that talks with callers."""

    OPENAI = "openai"
    OFFLINE = "offline"
    PIPELINE = "pipeline"


class Offline(Section):
    """The embedded engine: a directed receptionist, not open talk."""

    voice: Name = "alloy"
    receptionist: Annotated[FilePath | None, Blank] = None
    business: Annotated[Spoken | None, Blank] = None
    hours: Annotated[Spoken | None, Blank] = None
    address: Annotated[Spoken | None, Blank] = None
    messages_dir: FilePath = Path("var/messages")
    max_sessions: int = Field(default=8, ge=1, le=1_000)
    workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = "auto"
    realtime_token: OptionalSecret = None


class CarrierPrices(Section):
    """Prices of the carrier, in US dollars. Absent ones are not known."""

    inbound_per_minute: Annotated[float, Field(ge=0)] | None = None
    outbound_per_minute: Annotated[float, Field(ge=0)] | None = None
    transfer_per_minute: Annotated[float, Field(ge=0)] | None = None
    stream_per_minute: Annotated[float, Field(ge=0)] | None = None
    sms: Annotated[float, Field(ge=0)] | None = None
    billed_by_s: int = Field(default=60, ge=1, le=3_600)


class Twilio(Section):
    """The phone account."""

    account_sid: Annotated[AccountSid | None, Blank] = None
    auth_token: OptionalSecret = None
    auth_token_secondary: OptionalSecret = None
    shared_key: OptionalSecret = None
    shared_key_secondary: OptionalSecret = None
    from_number: Annotated[PhoneNumber | None, Blank] = None
    numbers: tuple[PhoneNumber, ...] = ()
    allowed_countries: tuple[Region, ...] | Literal["any"] = ()
    validate_signatures: bool = True
    lost_message: Spoken = "Sorry, we lost the connection. Please call again."
    busy_message: Spoken = "Sorry, all lines are busy at the moment. Please call again later."
    say_voice: Annotated[Text | None, Blank] = None
    say_language: Annotated[Name | None, Blank] = None
    keys_hint: Spoken = "Press 1 to take the call, or 2 to decline."
    rest_url: RestUrl = "https://api.twilio.com"
    prices: CarrierPrices = Field(default_factory=CarrierPrices)

    @property
    def all_numbers(self) -> tuple[str, ...]:
        """Each of our numbers once, `from_number` first."""
        first = (self.from_number,) if self.from_number else ()
        return tuple(dict.fromkeys((*first, *self.numbers)))

    @property
    def has_any_credential(self) -> bool:
        return any((self.account_sid, self.auth_token, self.auth_token_secondary))


class Server(Section):
    """The address of the server, from inside and outside."""

    host: Name = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    public_url: Annotated[PublicUrl | None, Blank] = None
    webhook_path: UrlPath = VOICE_PATH
    websocket_path: UrlPath = MEDIA_STREAM_PATH
    workers: Annotated[int, Field(ge=1, le=64)] | Literal["auto"] = 1
    status_path: UrlPath = STATUS_PATH
    metrics_token: OptionalSecret = None
    operator_token: OptionalSecret = None
    transcript_feed: Literal["auto", "on", "off"] = "auto"

    @model_validator(mode="after")
    def _routes_differ(self) -> Self:
        paths = (self.webhook_path, self.websocket_path, self.status_path)
        if len(set(paths)) != len(paths):
            raise ValueError("webhook_path, websocket_path and status_path must differ")
        return self


class Api(Section):
    """The HTTP API."""

    requests_per_s: int = Field(default=20, ge=1, le=10_000)
    live_clients: int = Field(default=50, ge=1, le=1_000)


class Console(Section):
    """The console at `/console`."""

    enabled: bool = True
    login_hours: float = Field(default=12, gt=0, le=720)


BusName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$")]


class BusSettings(Section):
    """The way to other servers behind the same address."""

    url: OptionalSecret = None
    server: Annotated[BusName | None, Blank] = None


CollectorUrl = Annotated[str, Field(max_length=500, pattern=r"^https?://\S+$")]


class OtelSettings(Section):
    """Traces of calls for an OpenTelemetry collector."""

    endpoint: Annotated[CollectorUrl | None, Blank] = None
    authorization: OptionalSecret = None
    service_name: Name = "trunkline"


class Logging(Section):
    """The log's level and format."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    format: Literal["auto", "console", "json"] = "auto"
    show_personal: bool = False

    @model_validator(mode="before")
    @classmethod
    def _level_in_any_case(cls, data: object) -> object:
        if isinstance(data, Mapping) and isinstance(level := data.get("level"), str):
            return {**data, "level": level.upper()}
        return data


Dollars = Annotated[float, Field(ge=0)]


class Price(Section):
    """US dollars for a million tokens of each class, or for a minute. Absent ones are not known.

    `checked` and `source` say when and where they were read.
    """

    text_in: Dollars | None = None
    text_cached: Dollars | None = None
    text_out: Dollars | None = None
    audio_in: Dollars | None = None
    audio_cached: Dollars | None = None
    audio_out: Dollars | None = None
    per_minute: Dollars | None = None
    checked: date | None = Field(default=None, strict=False)
    source: str = Field(default="", max_length=200)


class Settings(Section):
    """All of `config.yaml`."""

    voice_model: Literal["auto", "openai", "offline", "pipeline"] = "auto"
    state_dir: FilePath = Path("var")
    openai_realtime: OpenAIRealtime = Field(default_factory=OpenAIRealtime)
    offline: Offline = Field(default_factory=Offline)
    pipeline: PipelineSettings = Field(default_factory=PipelineSettings)
    twilio: Twilio = Field(default_factory=Twilio)
    server: Server = Field(default_factory=Server)
    api: Api = Field(default_factory=Api)
    console: Console = Field(default_factory=Console)
    otel: OtelSettings = Field(default_factory=OtelSettings)
    limits: Limits = Field(default_factory=Limits)
    recording: Recording = Field(default_factory=Recording)
    compliance: ComplianceSettings = Field(default_factory=ComplianceSettings)
    budget: Budget = Field(default_factory=Budget)
    logging: Logging = Field(default_factory=Logging)
    agents: dict[AgentName, AgentSettings] = Field(default_factory=dict)
    tools: dict[ToolName, ToolSettings] = Field(default_factory=dict)
    mcp_servers: dict[ServerName, McpServerSettings] = Field(default_factory=dict)
    guardrails: dict[GuardrailName, GuardrailSettings] = Field(default_factory=dict)
    destinations: dict[DestinationName, DestinationSettings] = Field(default_factory=dict)
    numbers: dict[PhoneNumber, NumberSettings] = Field(default_factory=dict)
    outbound: OutboundSettings = Field(default_factory=OutboundSettings)
    analysis: AnalysisSettings | None = None
    webhooks: dict[WebhookName, CallWebhookSettings] = Field(default_factory=dict)
    prices: dict[str, Price] = Field(default_factory=dict)
    store: StoreSettings = Field(default_factory=StoreSettings)
    bus: BusSettings = Field(default_factory=BusSettings)
    network: NetworkSettings = Field(default_factory=NetworkSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    _origin: Origin = PrivateAttr(default_factory=Origin)

    @field_validator("store", mode="before")
    @classmethod
    def _store_may_be_off(cls, store: object) -> object:
        return {"enabled": False} if store in ("off", False) else store

    @model_validator(mode="after")
    def _choice_is_not_switched_off(self) -> Self:
        if self.voice_model == "openai" and not self.openai_realtime.enabled:
            raise ValueError("voice_model is openai, but openai_realtime.enabled is false")
        return self

    @property
    def origin(self) -> Origin:
        """The file that the settings were read from."""
        return self._origin

    def read_from(self, origin: Origin) -> Self:
        """The same settings, which know where they were read."""
        found = self.model_copy()
        found._origin = origin
        return found

    @property
    def all_numbers(self) -> tuple[str, ...]:
        """Each of our numbers once."""
        return tuple(dict.fromkeys((*self.twilio.all_numbers, *self.numbers)))

    @property
    def mode(self) -> Mode:
        return Mode.LIVE if self.twilio.has_any_credential else Mode.DEVELOPMENT

    @property
    def voice_choice(self) -> VoiceChoice:
        """`auto` takes the model when there is a key for it, else the offline engine."""
        if self.voice_model != "auto":
            return VoiceChoice(self.voice_model)
        model = self.openai_realtime
        return (
            VoiceChoice.OPENAI if model.enabled and model.has_credentials else VoiceChoice.OFFLINE
        )

    @property
    def voice_name(self) -> str:
        """The model that callers talk with, or the chain of models."""
        names = {
            VoiceChoice.OPENAI: self.openai_realtime.model,
            VoiceChoice.PIPELINE: self.pipeline.chain,
            VoiceChoice.OFFLINE: "offline-receptionist",
        }
        return names[self.voice_choice]

    @property
    def transcript_feed_on(self) -> bool:
        """`auto` means in development mode only: the feed carries what people say."""
        feed = self.server.transcript_feed
        return feed == "on" or (feed == "auto" and self.mode is Mode.DEVELOPMENT)

    @property
    def base_url(self) -> str:
        """The address that carriers sign: the public one, in development our own."""
        if self.server.public_url is not None:
            return self.server.public_url
        host = f"[{self.server.host}]" if ":" in self.server.host else self.server.host
        return f"http://{host}:{self.server.port}"

    def secrets(self) -> tuple[str, ...]:
        """Every secret value, for the log filter: of whatever a setting or a variable is."""
        found = dict.fromkeys(self.origin.secrets())
        for value in _leaves(self):
            if isinstance(value, SecretStr):
                text = value.get_secret_value()
                _scheme, _, rest = text.partition(" ")  # what stands behind `Bearer` is one too
                found |= dict.fromkeys((text, rest if " " not in rest else text))
            else:
                found |= dict.fromkeys(secrets_in(value))
        return tuple(text for text in found if len(text) >= SHORTEST_SECRET)


def _leaves(value: object) -> Iterator[str | SecretStr]:
    """All texts in settings."""
    match value:
        case str() | SecretStr():
            yield value
        case BaseModel():
            for name in type(value).model_fields:
                yield from _leaves(getattr(value, name))
        case dict():
            for name, item in value.items():
                is_secret = isinstance(item, str) and is_secret_label(name)
                yield from _leaves(SecretStr(item) if is_secret else item)
        case tuple() | list():
            for item in value:
                yield from _leaves(item)
