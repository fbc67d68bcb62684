"""Reads files that people write: strict YAML, `.env`, variables, with the line of each value."""
