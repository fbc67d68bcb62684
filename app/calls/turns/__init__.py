"""Whose turn it is, how long it may last, and when a silent caller is asked."""
