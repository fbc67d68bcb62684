"""The embedded offline voice engine: the server side of the Realtime protocol, with no network."""

from app.engine.assembly import make_engine
from app.engine.server import Engine, EngineModel

__all__ = ["Engine", "EngineModel", "make_engine"]
