"""The settings of what the law wants to be said first."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from app.settings.values import Section

__all__ = ["ComplianceSettings", "names_a_machine"]

_MACHINE_WORDS: Final = (
    r"ai|a\.i\.|ki|ia|artificial|k[uü]nstliche\w*|artificielle|artificiale|automat\w+|virtu\w+|"
    r"robot|bot|computer"
)
_MACHINE: Final = re.compile(rf"\b(?:{_MACHINE_WORDS})(?!\w)", re.IGNORECASE)
_Text = Annotated[str, Field(max_length=240)]


def names_a_machine(text: str) -> bool:
    """True when a text says that its speaker is an AI, or a machine."""
    return _MACHINE.search(text) is not None


class ComplianceSettings(Section):
    """The first words of calls. Absent texts are made of the identity."""

    profile: Literal["us", "eu", "off"] = "us"
    identity: Annotated[str, Field(max_length=100)] = ""
    disclosure: _Text | None = None
    inbound: bool | None = None
    inbound_disclosure: _Text | None = None

    @model_validator(mode="after")
    def _discloses(self) -> Self:
        for name in ("disclosure", "inbound_disclosure"):
            text = getattr(self, name)
            if text is None or self.profile == "off":
                continue
            if not names_a_machine(text):
                raise ValueError(f"{name} does not say that an AI speaks: name it in the text")
            if self.identity.lower() not in text.lower():
                raise ValueError(f"{name} does not name {self.identity} (compliance.identity)")
        return self

    @property
    def placed_text(self) -> str:
        """The disclosure of calls that the server places; empty where there is none."""
        if self.profile == "off":
            return ""
        by = f" calling for {self.identity}" if self.identity else ""
        return self.disclosure or f"Hello, this is an AI assistant{by}."

    @property
    def taken_text(self) -> str:
        """The disclosure of calls that come in; empty where there is none."""
        wanted = self.profile == "eu" if self.inbound is None else self.inbound
        if self.profile == "off" or not wanted:
            return ""
        of = f" of {self.identity}" if self.identity else ""
        return self.inbound_disclosure or f"You are talking with an AI assistant{of}."
