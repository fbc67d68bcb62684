"""Outgoing HTTP: a client safe against SSRF, address checks, signed webhooks."""
