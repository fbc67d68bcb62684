"""The receptionist of the offline demo: its script, its grammar, its answers."""
