"""Admission: the calls that are taken, their limits and money, and those that are live."""
