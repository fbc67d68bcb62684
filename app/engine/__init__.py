"""The embedded offline voice engine: the server side of the Realtime protocol, with no network."""

from app.engine.assembly import check_speech, make_engine
from app.engine.server import Engine, EngineModel

__all__ = ["Engine", "EngineModel", "check_speech", "make_engine"]
