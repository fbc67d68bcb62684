"""Text sessions with the agents that answer the phone, for `trunkline chat` and programs."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from app.agents.agent import Agent
from app.agents.instructions import CallFacts
from app.agents.session.agent_session import AgentSession
from app.assembly import assemble
from app.assembly.voice_models import VoiceModels, offline_engine
from app.events import CallId, Party
from app.settings import Settings

__all__ = ["text_session"]


@contextlib.asynccontextmanager
async def text_session(
    settings: Settings,
    *,
    greets: bool,
    number: str | None = None,
    agent: str | None = None,
    agents: Sequence[Agent] = (),
) -> AsyncIterator[AgentSession]:
    """A text session with the agents that answer the phone; it is not entered yet.

    `greets`: they speak first, where they do so on the phone. `number`: the route of this number in
    its opening hours. `agent`: another agent than the first. `agents`: written in Python.

    Raises:
        ConfigError: there is no such number or agent, the agents do not fit, or the engine's speech
            parts are not installed.
    """
    engine = offline_engine(settings)
    assembly = assemble(settings, VoiceModels(settings, engine), agents=agents)
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(assembly.open())
        route = assembly.route_of(number, agent)
        others = [one for one in route.roster if one.name != route.agent.name]
        session = AgentSession(
            [_text_only(one) for one in (route.agent, *others)],
            route.model,
            facts=CallFacts(
                call_id=CallId(f"chat_{secrets.token_hex(8)}"),
                called_number=number,
                started_at=time.time(),
            ),
            greet=greets and route.agent.speaks_first is Party.AGENT,
            plays_audio=False,
            price=lambda usage: route.price(usage, None).total_usd,
            analysis=route.analysis,
        )
        if engine is not None:
            await engine.start(speech=False)
            stack.push_async_callback(engine.close)
        yield session


def _text_only(agent: Agent) -> Agent:
    """An agent that reads and writes: no sound is made, and none is listened to."""
    session = replace(
        agent.session, output_modalities=("text",), turn_detection=None, transcription=None
    )
    return replace(agent, session=session)
