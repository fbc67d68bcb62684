"""The pure half of a conversation that knows no phone, and the voice loop around it."""
