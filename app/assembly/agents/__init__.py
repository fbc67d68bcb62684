"""The agents of a number, with their tools, guardrails and analysis, made of settings."""
