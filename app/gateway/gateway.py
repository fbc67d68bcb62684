"""The gateway: finds clients and routes, refuses before the upgrade, and holds the sessions."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Final

from app.calls.recording.recorder import Recorder
from app.credentials.api_keys import ApiKeys, Scope
from app.errors import StoreError
from app.gateway.access import Client, Ledger, Refused, Reservation
from app.gateway.channels import Channel
from app.gateway.duplex import ClientSocket
from app.gateway.session import Report, Route, Session
from app.gateway.shared_spending import SharedSpending
from app.gateway.usage import UsageBook
from app.realtime.dialect import Dialect
from app.store.sql.gateway import GatewaySecret, GatewayStore

__all__ = ["UNKNOWN", "Admission", "Gateway", "SecretRequest"]

logger = logging.getLogger(__name__)

SECRET_PREFIX: Final = "ek_"
UNKNOWN: Final = Refused(
    HTTPStatus.UNAUTHORIZED,
    "invalid_api_key",
    "Send Authorization: Bearer with a key of this server (trunkline keys create --scope realtime)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRequest:
    """An ephemeral secret that is asked for; empty and 0 mean no limit."""

    seconds: int = 600
    session: Mapping[str, Any]
    models: tuple[str, ...] = ()
    max_session_s: int = 0
    max_usd: float = 0.0
    sessions: int = 0


@dataclass(frozen=True, slots=True)
class Admission:
    """A client that may open a session with a model."""

    client: Client
    route: Route


class Gateway:
    """The sessions of one process."""

    def __init__(  # noqa: PLR0913 - the parts that its sessions use
        self,
        routes: Mapping[str, Route],
        ledger: Ledger,
        *,
        keys: ApiKeys | None = None,
        store: GatewayStore | None = None,
        anything: Channel | None = None,
        report: Report | None = None,
        book: UsageBook | None = None,
        max_session_s: int = 7_200,
        recorder: Recorder | None = None,
        spending: SharedSpending | None = None,
    ) -> None:
        """`anything`: the channel for every name where no routes are set, which is free.

        `recorder`: keeps the sound of sessions. `spending`: knows that of other processes.
        """
        self._routes = dict(routes)
        self._ledger = ledger
        self._keys = keys
        self._store = store
        self._anything = anything
        self._report = report or Report()
        self._book = book or UsageBook(None)
        self._max_session_s = max_session_s
        self._recorder = recorder
        self._spending = spending
        self._sessions: set[Session] = set()
        self._idle = asyncio.Event()
        self._draining = False

    @property
    def models(self) -> tuple[str, ...]:
        """The names that clients may ask for; none where every name leads to the engine."""
        return tuple(self._routes)

    # Clients ------------------------------------------------------------------------------------

    async def client(self, token: str) -> Client:
        """The client that a token belongs to; an ephemeral secret has one session less then.

        Raises:
            Refused: nobody's.
        """
        if token.startswith(SECRET_PREFIX):
            return await self._of_secret(token)
        key = None if self._keys is None else await self._keys.find(token)
        if key is None:
            raise UNKNOWN
        if not key.scope.covers(Scope.REALTIME):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "scope_too_small",
                "This key is a viewer: /v1/realtime needs one of the scope realtime",
            )
        return Client(key_id=key.id, key_name=key.name)

    async def _of_secret(self, token: str) -> Client:
        if self._store is None:
            raise UNKNOWN
        try:
            found = await self._store.take_session(_hash(token), datetime.now(UTC))
        except StoreError as error:
            raise _no_store() from error
        if found is None:
            raise Refused(
                HTTPStatus.UNAUTHORIZED, "invalid_api_key", "The secret is unknown, expired or used"
            )
        body = json.loads(found.body)
        secret_id = found.sha256[:16]
        if body["max_usd"] and self._spending is not None:
            await self._spending.learn(secret_id)
        return Client(
            key_id=found.key_id,
            key_name=found.key_name,
            secret_id=secret_id,
            models=frozenset(body["models"]),
            session=body["session"],
            max_session_s=body["max_session_s"],
            max_usd=body["max_usd"],
        )

    async def make_secret(self, client: Client, asked: SecretRequest) -> dict[str, Any]:
        """Make an ephemeral secret; the answer has OpenAI's shape.

        Raises:
            Refused: the client is one itself, asks for a model it may not use, or nothing is kept.
        """
        if client.secret_id:
            raise Refused(
                HTTPStatus.FORBIDDEN, "secret_makes_no_secret", "A secret makes no other secret"
            )
        model = str(asked.session.get("model") or "")
        for name in {model, *asked.models} - {""}:
            self._route(client, name)
        if self._store is None:
            raise _no_store()
        value = SECRET_PREFIX + secrets.token_urlsafe(32)
        now = datetime.now(UTC)
        session = {"type": "realtime", **asked.session}
        models = asked.models or ((model,) if model else ())
        body = {
            "models": models,
            "session": session,
            "max_session_s": asked.max_session_s,
            "max_usd": asked.max_usd,
        }
        expires_at = now + timedelta(seconds=asked.seconds)
        secret = GatewaySecret(
            sha256=_hash(value),
            key_id=client.key_id,
            key_name=client.key_name,
            body=json.dumps(body),
            created_at=now,
            expires_at=expires_at,
            sessions_left=asked.sessions or None,
        )
        try:
            await self._store.keep_secret(secret)
        except StoreError as error:
            raise _no_store() from error
        shown = {"id": f"sess_{secret.sha256[:16]}", "object": "realtime.session", **session}
        return {"value": value, "expires_at": int(expires_at.timestamp()), "session": shown}

    # Admission ----------------------------------------------------------------------------------

    def admit(self, client: Client, model: str) -> Admission:
        """Find the way to a model for a client.

        Raises:
            Refused: there is none, it may not use it, or the server is about to stop.
        """
        if self._draining:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE, "server_draining", "The server is restarting"
            )
        wanted = model or str(client.session.get("model") or "")
        return Admission(client, self._route(client, wanted))

    def _route(self, client: Client, model: str) -> Route:
        if self._anything is not None and not self._routes:
            return Route(model=model, upstream_model=model, channels=(self._anything,), named=False)
        route = self._routes.get(model)
        if route is None:
            raise Refused(
                HTTPStatus.NOT_FOUND,
                "model_not_found",
                "The model does not exist here: name one of gateway.models as ?model=",
            )
        limits = frozenset(self._ledger.limits(client).models)
        for allowed in (limits, client.models):
            if allowed and model not in allowed:
                raise Refused(
                    HTTPStatus.FORBIDDEN, "model_not_allowed", "This key may not use the model"
                )
        return route

    @contextlib.contextmanager
    def reserved(self, admission: Admission) -> Iterator[Reservation]:
        """Reserve a place and the money for a session, which is then made by `serve`.

        Raises:
            Refused: there is no place or money left.
        """
        with self._ledger.session(
            admission.client, paid=admission.route.price is not None
        ) as reservation:
            yield reservation

    async def serve(
        self,
        admission: Admission,
        reservation: Reservation,
        dialect: Dialect,
        socket: ClientSocket,
    ) -> None:
        """Serve a client whose upgrade was accepted, until either side ends."""
        session = Session(
            admission.client,
            admission.route,
            dialect,
            ledger=self._ledger,
            reservation=reservation,
            report=self._report,
            max_session_s=self._max_session_s,
            recorder=self._recorder,
        )
        self._sessions.add(session)
        try:
            await session.run(socket)
        finally:
            self._sessions.discard(session)
            self._idle.set()

    # The life of the process --------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Keep charges inside the block."""
        await self._restore()
        async with self._book.open():
            yield

    async def drain(self, limit_s: float) -> None:
        """Take no more sessions, and end those that are left after a while."""
        self._draining = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while self._sessions:
                    self._idle.clear()
                    await self._idle.wait()
        for session in tuple(self._sessions):
            session.drain()

    async def _restore(self) -> None:
        limited = self._ledger.limited_keys
        if self._store is None or not limited:
            return
        try:
            spent = await self._store.spent(limited, self._ledger.day_began())
        except StoreError as error:
            logger.warning("gateway spending is not known", extra={"code": error.code})
            return
        self._ledger.restore(spent)


def _hash(token: str) -> str:
    # Its random bits cannot be guessed, so that a plain hash is enough.
    return hashlib.sha256(token.encode()).hexdigest()


def _no_store() -> Refused:
    return Refused(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "secrets_unavailable",
        "Ephemeral secrets are kept in the store of calls, which is off or does not answer",
    )
