"""Settings: `config.yaml`, `.env` and the environment, made into one frozen value.

`load` reads them, `check_deployment` says whether the server may start with them, `notices` what
an operator should know, `carrier_credentials` whose webhooks are believed.
"""

from app.settings.deployment import (
    DEVELOPMENT_ACCOUNT_SID,
    CarrierCredentials,
    carrier_credentials,
    check_deployment,
    development_token_path,
    needed_open_files,
    open_files,
    state_dir_problem,
)
from app.settings.load import load, named_functions
from app.settings.masked import fingerprint, masked
from app.settings.model import (
    Api,
    CarrierPrices,
    Console,
    Logging,
    Mode,
    Offline,
    Price,
    Server,
    Settings,
    Twilio,
    VoiceChoice,
)
from app.settings.notices import notices
from app.settings.reader.origin import Origin
from app.settings.sections.agents import AgentSettings, GuardrailSettings
from app.settings.sections.analysis import AnalysisSettings
from app.settings.sections.answered_by import AnsweredBySettings
from app.settings.sections.compliance import ComplianceSettings
from app.settings.sections.gateway import (
    ENGINE_CHANNEL,
    GatewayChannel,
    GatewayKey,
    GatewayModel,
    GatewaySettings,
)
from app.settings.sections.limits import CallLimits, Limits, Recording
from app.settings.sections.numbers import DestinationSettings, NumberSettings
from app.settings.sections.realtime import (
    OPENAI_REALTIME_URL,
    AudioSettings,
    OpenAIRealtime,
    SessionOverrides,
    Tracing,
    TranscriptionSettings,
    Truncation,
    TurnDetection,
)
from app.settings.sections.store import Retention, StoreSettings
from app.settings.sections.tools import McpServerSettings, ToolSettings
from app.settings.values import is_loopback

__all__ = [
    "DEVELOPMENT_ACCOUNT_SID",
    "ENGINE_CHANNEL",
    "OPENAI_REALTIME_URL",
    "AgentSettings",
    "AnalysisSettings",
    "AnsweredBySettings",
    "Api",
    "AudioSettings",
    "CallLimits",
    "CarrierCredentials",
    "CarrierPrices",
    "ComplianceSettings",
    "Console",
    "DestinationSettings",
    "GatewayChannel",
    "GatewayKey",
    "GatewayModel",
    "GatewaySettings",
    "GuardrailSettings",
    "Limits",
    "Logging",
    "McpServerSettings",
    "Mode",
    "NumberSettings",
    "Offline",
    "OpenAIRealtime",
    "Origin",
    "Price",
    "Recording",
    "Retention",
    "Server",
    "SessionOverrides",
    "Settings",
    "StoreSettings",
    "ToolSettings",
    "Tracing",
    "TranscriptionSettings",
    "Truncation",
    "TurnDetection",
    "Twilio",
    "VoiceChoice",
    "carrier_credentials",
    "check_deployment",
    "development_token_path",
    "fingerprint",
    "is_loopback",
    "load",
    "masked",
    "named_functions",
    "needed_open_files",
    "notices",
    "open_files",
    "state_dir_problem",
]
