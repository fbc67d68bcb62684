"""Turns: who has the floor, for how long, and when a silent caller is asked."""
