"""Kinds of responses that can be asked for, and the rules of each: a table.

`RULES` is the whole truth about what waits, what is dropped and what comes first;
`app.agents.dialogue.response_queue` runs by it and `make docs` draws it into docs/architecture.md.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from app.realtime.events import Item, ResponseConfig

__all__ = ["REPLY", "RULES", "Kind", "Moment", "OnLoss", "ResponseRequest", "Rules"]


class Kind(StrEnum):
    """The kinds, in the order in which they are said."""

    RESUMED = "resumed message"
    REPLY = "reply"
    DEFERRED_REPLY = "deferred reply"
    URGENT = "urgent message"
    MESSAGE = "message"
    IDLE_MESSAGE = "idle message"
    FILLER = "filler"


class Moment(IntEnum):
    """The moments at which a response may begin; each includes those before it."""

    FREE = 0
    CALLER_SILENT = 1
    QUIET = 2
    IDLE = 3


class OnLoss(StrEnum):
    """The fate of a request that waits when the connection is lost."""

    DROPPED = "dropped"
    KEPT = "kept"
    SENT_FIRST = "sent first"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """One row of the table.

    `begins_when`: the first moment at which it may be sent. `dropped_by_speech`: the caller's turn
    will be answered in its place. `joined`: several that wait are one. `optional`: dropped unless
    it can be sent at once, and never asked for again.
    """

    meaning: str
    begins_when: Moment
    dropped_by_speech: bool = False
    joined: bool = False
    optional: bool = False
    on_loss: OnLoss = OnLoss.KEPT


RULES: Final[dict[Kind, Rules]] = {
    Kind.RESUMED: Rules(
        meaning="a message that the last connection lost before any of it was said",
        begins_when=Moment.CALLER_SILENT,
        on_loss=OnLoss.SENT_FIRST,
    ),
    # Not kept when the connection is lost: the call and the session know which reply is due, and
    # ask again once no tool runs that the next connection was not told of.
    Kind.REPLY: Rules(
        meaning="an answer to what was said, or to what tools found",
        begins_when=Moment.FREE,
        dropped_by_speech=True,
        joined=True,
        on_loss=OnLoss.DROPPED,
    ),
    Kind.DEFERRED_REPLY: Rules(
        meaning="a reply asked for while the caller spoke, or without a connection; "
        "the answer to the caller's turn stands in for it",
        begins_when=Moment.QUIET,
        joined=True,
        on_loss=OnLoss.SENT_FIRST,
    ),
    Kind.URGENT: Rules(meaning="words that cut the agent off", begins_when=Moment.CALLER_SILENT),
    Kind.MESSAGE: Rules(
        meaning="a greeting, a notice: words that wait for the agent's turn to end",
        begins_when=Moment.CALLER_SILENT,
    ),
    Kind.IDLE_MESSAGE: Rules(
        meaning="words for a quiet moment",
        begins_when=Moment.IDLE,
    ),
    Kind.FILLER: Rules(
        meaning="words while a tool runs",
        begins_when=Moment.CALLER_SILENT,
        optional=True,
        on_loss=OnLoss.DROPPED,
    ),
}

_RANKS: Final = {kind: rank for rank, kind in enumerate(Kind)}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseRequest:
    """A response that is wanted. `config` is absent for a reply to what was said.

    `sentence` is set where the model is told what to say word for word. `note` is what it has to
    know first.
    """

    kind: Kind
    config: ResponseConfig | None = None
    sentence: str = ""
    note: Item | None = None

    @property
    def rules(self) -> Rules:
        return RULES[self.kind]

    @property
    def rank(self) -> int:
        """The lower, the earlier it is said."""
        return _RANKS[self.kind]


REPLY: Final = ResponseRequest(kind=Kind.REPLY)
