"""Twilio's signatures on webhooks and on media websocket handshakes.

Pure. The signature itself is computed by twilio's `RequestValidator`; the guard around it is
ours. It builds the signed address from the configured public URL and never from a Host header,
refuses what cannot be a signature before comparing, knows the spellings of one address that
Twilio may have signed, and takes several secrets so that one can be replaced without a gap.

Twilio signs with the auth token, or with a shared key where a Webhook Rule says so. Only then the
request has the header X-Twilio-Webhooks-Signature-Settings, `key=ID,algorithm=HMAC_SHA256`; each
kind of secret opens its own kind of request.

Follows Twilio usage/security, usage/webhooks/webhook-shared-keys (2026-11) and twilio 9.13
`request_validator.py`, whose own `validate` fails with TypeError on an absent header and tries port
80 for `wss`.

Known limit of Twilio's scheme: names and values are signed without a separator, so that moving
the border between them keeps the signature. Such a form lacks its fields and is refused there.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

from twilio.request_validator import SIGNATURE_HEADER as _HEADER
from twilio.request_validator import SIGNATURE_SETTINGS_HEADER as _SETTINGS_HEADER
from twilio.request_validator import RequestValidator, get_signature_algorithm

from app.errors import ConfigError, SignatureError

__all__ = [
    "SIGNATURE_HEADER",
    "SIGNATURE_SETTINGS_HEADER",
    "Form",
    "SignatureChecker",
    "form_pairs",
    "sign_http",
]

SIGNATURE_HEADER: Final[str] = _HEADER
SIGNATURE_SETTINGS_HEADER: Final[str] = _SETTINGS_HEADER

Form = Mapping[str, str] | Sequence[tuple[str, str]]
"""A form's fields: pairs as they came, or a mapping when no name is repeated."""

# Base64 of an HMAC-SHA256 has 44 characters; anything longer is not worth a comparison.
_MAX_SIGNATURE_CHARS: Final = 128
_ALGORITHMS: Final = frozenset({"HMAC_SHA1", "HMAC_SHA256"})
_DEFAULT_PORTS: Final = {"https": 443, "wss": 443, "http": 80, "ws": 80}
# A websocket is signed with wss; validators that only know https are common enough to allow it.
_SCHEMES: Final = {
    "https": (("https",), ("wss", "https")),
    "http": (("http",), ("ws", "http")),
}


class SignatureChecker:
    """Checks requests that claim to come from Twilio against our own public address."""

    def __init__(
        self, auth_tokens: Sequence[str], public_url: str, *, shared_keys: Sequence[str] = ()
    ) -> None:
        """Take the secrets that are valid now, and the address that Twilio was given.

        Raises:
            ConfigError: no token, an empty secret, or an address that is not a plain URL.
        """
        if isinstance(auth_tokens, str) or not auth_tokens or not all(auth_tokens):
            raise ConfigError("signatures need at least one auth token, and none may be empty")
        if isinstance(shared_keys, str) or not all(shared_keys):
            raise ConfigError("a shared key for signatures may not be empty")
        self._by_token = [RequestValidator(token) for token in auth_tokens]
        self._by_shared_key = [RequestValidator(key) for key in shared_keys]
        try:
            parts = urlsplit(public_url)
            port = parts.port
        except ValueError as error:
            raise ConfigError("the public URL cannot be read") from error
        scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
        if scheme not in _SCHEMES or not parts.hostname or parts.username is not None:
            raise ConfigError("the public URL must look like https://voice.example.com")
        if parts.query or parts.fragment:
            raise ConfigError("the public URL takes no query and no fragment")
        bare = parts.netloc if port is None else parts.netloc.rsplit(":", 1)[0]
        self._http_schemes, self._websocket_schemes = _SCHEMES[scheme]
        ported = f"{bare}:{port or _DEFAULT_PORTS[scheme]}"
        self._hosts = (bare, ported) if port is None else (ported, bare)
        self._prefix = parts.path.rstrip("/")

    def check_http(
        self,
        path_and_query: str,
        params: Form,
        signature: str | None,
        *,
        settings: str | None = None,
    ) -> str:
        """Check a webhook; `params` are the POST fields, and empty for GET.

        `settings` is the X-Twilio-Webhooks-Signature-Settings header, when there is one. Returns
        the spelling of the address that was signed, for a log.

        Raises:
            SignatureError: nothing that we know was signed so.
        """
        return self._check(self._http_schemes, path_and_query, params, signature, settings=settings)

    def check_websocket(
        self, path: str, signature: str | None, *, settings: str | None = None
    ) -> str:
        """Check a media websocket's handshake, before it is accepted.

        Raises:
            SignatureError: nothing that we know was signed so.
        """
        return self._check(self._websocket_schemes, path, (), signature, settings=settings)

    def _check(
        self,
        schemes: tuple[str, ...],
        path_and_query: str,
        params: Form,
        signature: str | None,
        *,
        settings: str | None,
    ) -> str:
        if not signature:
            raise SignatureError("the request is not signed", code="signature_missing")
        if len(signature) > _MAX_SIGNATURE_CHARS or not signature.isascii():
            raise SignatureError("the request's signature is garbled")
        if settings and not self._by_shared_key:
            raise SignatureError(
                "the request is signed with a shared key, and none is set", code="no_shared_key"
            )
        validators = self._by_shared_key if settings else self._by_token
        algorithm = get_signature_algorithm(settings).upper()
        if algorithm not in _ALGORITHMS or not path_and_query.startswith("/"):
            raise SignatureError("the request is signed in a way that we do not know")
        fields = _Fields(params)
        matched = ""
        # All spellings and secrets are tried, so that the time does not reveal which one fits.
        try:
            for address in self._addresses(schemes, path_and_query):
                for validator in validators:
                    expected: str = validator.compute_signature(address, fields, algorithm)
                    if hmac.compare_digest(expected, signature):
                        matched = matched or address
        except UnicodeEncodeError as error:  # a lone surrogate cannot have been signed
            raise SignatureError("the request's text is garbled") from error
        if not matched:
            raise SignatureError("the request's signature does not fit")
        return matched

    def _addresses(self, schemes: tuple[str, ...], path_and_query: str) -> Iterator[str]:
        path, mark, query = path_and_query.partition("?")
        other_path = path.removesuffix("/") if path.endswith("/") else path + "/"
        for scheme in schemes:
            for host in self._hosts:
                for spelled in (path, other_path):
                    yield f"{scheme}://{host}{self._prefix}{spelled}{mark}{query}"


class _Fields(dict[str, list[str]]):
    """Form fields as `compute_signature` wants them: by name, all values of it."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        for name, value in form_pairs(form):
            self.setdefault(name, []).append(value)

    def getall(self, name: str) -> list[str]:
        return self[name]


def form_pairs(form: Form) -> Iterable[tuple[str, str]]:
    """The fields as pairs, whichever shape the form has."""
    return form.items() if isinstance(form, Mapping) else form


def sign_http(auth_token: str, url: str, params: Form = ()) -> str:
    """The signature that Twilio sends with a webhook or a handshake to `url`."""
    signature: str = RequestValidator(auth_token).compute_signature(url, _Fields(params))
    return signature
