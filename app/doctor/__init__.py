"""Checks of everything that a real call needs: for `trunkline doctor`, and for the console."""

__all__: list[str] = []
