"""The HTTP API under `/api/v1`: one guarded entrance, one shape for errors, routes by subject."""

from app.web.api.routes import api_router

__all__ = ["api_router"]
