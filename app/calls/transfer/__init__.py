"""Transfers to people and numbers: cold, warm, the consult leg, the reports of both."""
