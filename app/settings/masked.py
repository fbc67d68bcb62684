"""Settings as YAML text for people to look at: secrets show their last four characters at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, SecretStr

from app.settings.model import Settings
from app.settings.realtime import SessionOverrides
from app.settings.tools import ToolSettings

__all__ = ["masked"]


def masked(settings: Settings) -> str:
    """The configuration in force, as YAML that may be pasted into a bug report."""
    dumped: str = yaml.safe_dump(_shown(settings), sort_keys=False, allow_unicode=True, width=96)
    return dumped


# What is absent in these is inherited: to show it would be to set it.
_OVERRIDES: Final = (SessionOverrides, ToolSettings)


def _shown(value: Any, *, only_given: bool = False) -> Any:
    match value:
        case SecretStr():
            return _mask(value.get_secret_value())
        case BaseModel():
            only_given = only_given or isinstance(value, _OVERRIDES)
            return {
                name: _shown(getattr(value, name), only_given=only_given)
                for name in type(value).model_fields
                if not only_given or name in value.model_fields_set
            }
        case dict():
            return {key: _shown(item, only_given=only_given) for key, item in value.items()}
        case tuple() | list():
            return [_shown(item, only_given=only_given) for item in value]
        case Path():
            return str(value)
    return value


def _mask(secret: str) -> str:
    # Four characters tell two keys apart; of a short secret they would tell too much.
    return f"****{secret[-4:]}" if len(secret) >= 20 else "****"
