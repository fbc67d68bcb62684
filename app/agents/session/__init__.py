"""The Python API without a phone: `AgentSession` and `OpenAIRealtimeHandler`."""
