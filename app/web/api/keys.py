"""Keys over the API: list, create, revoke. A token is shown once, when it is made."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from app.credentials.api_keys import MAX_NAME_CHARS, ApiKeys, Scope
from app.errors import ConfigError
from app.threads import in_thread
from app.web.api.guard import needs
from app.web.api.problem import Problem

__all__ = ["add_key_routes"]


class NewKey(BaseModel):
    """The name and the scope of a key that is made."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=r"^[^\x00-\x1f\x7f]+$")
    scope: Scope = Field(strict=False)


def add_key_routes(router: APIRouter, keys: ApiKeys) -> None:
    """Add the routes under `/keys`."""
    admin = needs(Scope.ADMIN)

    @router.get("/keys", openapi_extra=admin)
    async def list_keys() -> dict[str, Any]:
        """List all keys, revoked ones too, without their secrets."""
        found = await in_thread(keys.listed)
        return {"keys": [key.shown for key in found]}

    @router.post("/keys", openapi_extra=admin, status_code=HTTPStatus.CREATED)
    async def create_key(new: NewKey) -> dict[str, Any]:
        """Make a key. Its `token` is shown in this answer and never again."""
        try:
            key, token = await in_thread(partial(keys.create, new.name, new.scope))
        except (ConfigError, OSError) as error:
            raise _unavailable(error) from error
        return {**key.shown, "token": token}

    @router.delete("/keys/{key_id}", openapi_extra=admin)
    async def revoke_key(key_id: str) -> dict[str, Any]:
        """Revoke a key; one that is revoked already is removed from the list."""
        try:
            key = await in_thread(partial(keys.revoke, key_id))
        except (ConfigError, OSError) as error:
            raise _unavailable(error) from error
        if key is None:
            raise Problem(HTTPStatus.NOT_FOUND, "key_not_found", "There is no such key")
        return key.shown


def _unavailable(error: ConfigError | OSError) -> Problem:
    reason = error.message if isinstance(error, ConfigError) else error.strerror or "disk error"
    return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "keys_unavailable", reason)
