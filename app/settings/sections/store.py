"""The settings of the history of calls."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import Field, SecretStr, field_validator

from app.settings.values import OptionalSecret, Section

__all__ = ["Retention", "StoreSettings"]

_URL: Final = re.compile(r"(postgresql|postgres|sqlite)(\+\w+)?://")
Days = Annotated[int, Field(ge=0, le=36_500)]


class Retention(Section):
    """Days after which a kind of data is removed; 0 keeps it."""

    calls_days: Days = 365
    transcripts_days: Days = 90
    recordings_days: Days = 30
    messages_days: Days = 0


class StoreSettings(Section):
    """The place of the history of calls, and how long it is kept."""

    enabled: bool = True
    url: OptionalSecret = None
    spool_mb: int = Field(default=256, ge=1, le=100_000)
    retention: Retention = Field(default_factory=Retention)

    @field_validator("url")
    @classmethod
    def _is_a_database_url(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _URL.match(url.get_secret_value()):
            raise ValueError("expected a URL such as postgresql://user@host/name")
        return url
