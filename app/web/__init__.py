"""The HTTP edge: webhooks, the media socket, health, the engine's own endpoint."""
