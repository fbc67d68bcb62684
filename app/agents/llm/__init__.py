"""Asking a text model a question: chat completions or an out-of-band response."""
