"""Credentials of people and programs: API keys, passwords and console logins, stored hashed."""
