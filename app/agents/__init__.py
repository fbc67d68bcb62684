"""Agents and the dialogues they hold, without a phone."""
