"""What is told of a call: log lines, the transcript feed, files of messages."""
