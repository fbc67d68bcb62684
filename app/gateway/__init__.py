"""The gateway: takes `/v1/realtime` sessions of other clients to channels, metered and limited."""
