"""The history of calls: an append-only log of events, and what can be read out of it."""
