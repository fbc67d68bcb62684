"""The voice model side: the Realtime protocol, both sides of it, in both dialects."""
