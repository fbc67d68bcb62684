"""A receiver's side of Standard Webhooks 1.0.0: checks what `app.http.webhook` signs."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping

from app.http.webhook import sign

__all__ = ["TOLERANCE_S", "is_signed"]


TOLERANCE_S = 300  # as the standard's own libraries


def is_signed(key: bytes, headers: Mapping[str, str], body: bytes, now_s: int) -> bool:
    """True for a message that was signed with the key not long ago; `headers` in lower case."""
    stamp = headers.get("webhook-timestamp", "")
    if not re.fullmatch(r"[0-9]{1,12}", stamp) or abs(now_s - int(stamp)) > TOLERANCE_S:
        return False
    expected = sign(key, headers.get("webhook-id", ""), int(stamp), body).encode()
    given = headers.get("webhook-signature", "").encode().split()
    return any(hmac.compare_digest(expected, one) for one in given)  # several while keys change
