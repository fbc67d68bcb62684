"""Refusals of a session: raised where a rule is checked, sent as an error event.

Checks come before changes, so a refused event changes nothing. Codes are OpenAI's where OpenAI
has one (`conversation_already_has_active_response`, `item_truncate_invalid_item_id`, ...).
"""

from __future__ import annotations

from app.realtime.events import ErrorDetail, ErrorEvent

__all__ = ["Refusal"]


class Refusal(Exception):
    """The client asked for what the session does not allow. Never leaves the session."""

    def __init__(self, code: str, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param

    def as_event(self, client_event_id: str) -> ErrorEvent:
        """The error event that answers the client's event."""
        return ErrorEvent(
            ErrorDetail(
                type="invalid_request_error",
                code=self.code,
                message=self.message,
                param=self.param,
                client_event_id=client_event_id or None,
            )
        )
