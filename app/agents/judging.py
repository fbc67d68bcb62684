"""Has an agent's guardrails look at something that was said in a conversation."""

from __future__ import annotations

from app.agents.actions import CheckGuardrail
from app.agents.book import AgentBook
from app.agents.guardrails import GuardrailContext, GuardrailRunner, Judgement
from app.agents.instructions import CallFacts
from app.agents.questions import Ask

__all__ = ["judge"]


async def judge(
    check: CheckGuardrail, book: AgentBook, facts: CallFacts, ask: Ask | None = None
) -> Judgement:
    """Judge a text; `ask` reaches a model for the rules that need one. Never raises."""
    agent = book.get(check.agent)
    if agent is None:  # taken out of the conversation meanwhile
        return Judgement()
    context = GuardrailContext(
        call_id=facts.call_id,
        item_id=check.item_id,
        agent=agent.name,
        final=check.final,
        variables=facts.declared(agent.variables),
        ask=ask,
    )
    return await GuardrailRunner(agent.guardrails).check(check.side, check.text, context)
