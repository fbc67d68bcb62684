"""The settings of the way out of the process: trusted certificates and the proxy."""

from __future__ import annotations

from typing import Annotated

from pydantic import field_validator

from app.network import ENVIRONMENT, NONE, Network, check_proxy
from app.settings.values import Blank, FilePath, Name, Section

__all__ = ["NetworkSettings"]


class NetworkSettings(Section):
    """For everything that leaves the process."""

    ca_file: Annotated[FilePath | None, Blank] = None
    proxy: Annotated[Name | None, Blank] = None
    no_proxy: tuple[Name, ...] = ()

    @field_validator("proxy")
    @classmethod
    def _is_a_proxy(cls, proxy: str | None) -> str | None:
        if proxy not in (None, NONE, ENVIRONMENT) and (problem := check_proxy(proxy)):
            raise ValueError(f"{problem}; or set it to {NONE} or {ENVIRONMENT}")
        return proxy

    @property
    def rule(self) -> Network:
        """The rule that these settings describe."""
        return Network(ca_file=self.ca_file, proxy=self.proxy or NONE, no_proxy=self.no_proxy)
