"""Calls that are placed: the policy of dialing, placing, outcomes, campaigns."""
