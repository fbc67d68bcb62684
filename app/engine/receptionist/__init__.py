"""The receptionist of the offline demo: its book, its grammar, its answers."""
