"""The description of the API, as OpenAPI 3.1, made from its routes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Final

from fastapi import APIRouter
from fastapi.openapi.utils import get_openapi

from app.credentials.api_keys import Scope
from app.web.api.guard import needs

__all__ = ["add_description"]

_ABOUT: Final = (
    "Calls of this server, live and kept. Send `Authorization: Bearer` with a key; `x-scope` of an "
    "operation is the scope that the key needs. Errors are problem details (RFC 9457) with a "
    "`code`. Requests that act take an `Idempotency-Key`."
)


def add_description(router: APIRouter) -> None:
    """Add `/openapi.json`, which describes every route of the router."""

    @router.get("/openapi.json", openapi_extra=needs(Scope.VIEWER))
    async def openapi() -> dict[str, Any]:
        """Describe this API."""
        described = get_openapi(
            title="Trunkline",
            version=version("trunkline"),
            description=_ABOUT,
            routes=router.routes,
        )
        components = described.setdefault("components", {})
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        components.setdefault("schemas", {})["ProblemDetails"] = _PROBLEM
        described["security"] = [{"key": []}]
        for operations in described["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)
                operation["responses"]["default"] = _ANY_PROBLEM
        return described


# A name of its own: `Problem` is what calls are filtered by.
_PROBLEM_REF: Final = {"$ref": "#/components/schemas/ProblemDetails"}
_ANY_PROBLEM: Final = {
    "description": "An error",
    "content": {"application/problem+json": {"schema": _PROBLEM_REF}},
}
_PROBLEM: Final = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}
