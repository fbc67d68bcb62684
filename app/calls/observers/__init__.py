"""Observers of calls: log lines, the transcript feed, files of messages."""
