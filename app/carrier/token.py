"""The stream token: proof that a media stream belongs to a call that we answered.

Pure. A token is issued into the TwiML of one call and comes back in the stream's `start`. It is
stateless, so that any process with the secret can check it; that it is used only once is for the
switchboard, which remembers the nonces it has seen.

Shape: `<expiry>.<nonce>.<mac>`, all URL-safe; the MAC is HMAC-SHA256 (RFC 2104) over a label, the
call, the account, the expiry and the nonce, each with its length so that none can leak into the
next one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from typing import Final

from app.carrier.base import CarrierCallId
from app.errors import LocalProtocolError, SignatureError

__all__ = ["SKEW_S", "TOKEN_EXPIRED", "issue", "verify"]

SKEW_S: Final = 30
"""The largest difference between the clocks of two processes."""

TOKEN_EXPIRED: Final = "token_expired"

_LABEL: Final = b"trunkline stream token 1"
_MIN_SECRET_BYTES: Final = 16
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)
# The MAC is 32 bytes: 43 base64 characters without padding.
_TOKEN: Final = re.compile(
    r"(?P<expiry>[1-9][0-9]{0,11})\.(?P<nonce>[A-Za-z0-9_-]{8,64})\.(?P<mac>[A-Za-z0-9_-]{43})",
    re.ASCII,
)


def issue(
    secret: bytes,
    carrier_call_id: CarrierCallId,
    account_id: str,
    nonce: str,
    expires_at_s: int,
) -> str:
    """A token for one call, valid until `expires_at_s` (Unix time).

    Raises:
        LocalProtocolError: a secret, nonce or time that makes no safe token.
    """
    if len(secret) < _MIN_SECRET_BYTES:
        raise LocalProtocolError(f"a token secret has at least {_MIN_SECRET_BYTES} bytes")
    if not _NONCE.fullmatch(nonce):
        raise LocalProtocolError("a nonce has 8 to 64 URL-safe characters")
    if expires_at_s <= 0:
        raise LocalProtocolError("a token's expiry is a Unix time")
    mac = _mac(secret, carrier_call_id, account_id, str(expires_at_s), nonce)
    return f"{expires_at_s}.{nonce}.{mac}"


def verify(
    secret: bytes,
    token: str,
    carrier_call_id: CarrierCallId,
    account_id: str,
    now_s: int,
) -> str:
    """The nonce of a token that we issued for this call and that is still valid.

    Raises:
        SignatureError: not ours, not for this call, or expired (`code` is `TOKEN_EXPIRED`).
    """
    parts = _TOKEN.fullmatch(token)
    if parts is None:
        raise SignatureError("the stream's token is not from this server")
    expiry, nonce = parts["expiry"], parts["nonce"]
    expected = _mac(secret, carrier_call_id, account_id, expiry, nonce)
    # Compared as text: decoding first would let the last character be written in several ways.
    if not hmac.compare_digest(expected, parts["mac"]):
        raise SignatureError("the stream's token is not for this call")
    if now_s > int(expiry) + SKEW_S:
        raise SignatureError("the stream's token has expired", code=TOKEN_EXPIRED)
    return nonce


def _mac(secret: bytes, *parts: str) -> str:
    keyed = hmac.new(secret, _LABEL, hashlib.sha256)
    for part in parts:
        # A stream may claim any text; what UTF-8 cannot hold must fail as a wrong token.
        encoded = part.encode("utf-8", "surrogatepass")
        keyed.update(len(encoded).to_bytes(4, "big") + encoded)
    return base64.urlsafe_b64encode(keyed.digest()).rstrip(b"=").decode("ascii")
