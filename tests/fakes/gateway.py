"""The gateway of a server that has an engine and nothing else."""

from __future__ import annotations

from app.gateway.access import Ledger
from app.gateway.channels import EngineChannel, RealtimeService
from app.gateway.gateway import Gateway

__all__ = ["engine_gateway"]


def engine_gateway(service: RealtimeService) -> Gateway:
    """A gateway to the engine alone, without keys and without limits."""
    ledger = Ledger(None, {}, reserve_usd=0.0, max_sessions=1_000_000)
    return Gateway({}, ledger, anything=EngineChannel(service))
