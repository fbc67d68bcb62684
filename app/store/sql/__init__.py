"""The call history in SQLite or PostgreSQL.

A feature with tables of its own puts them into a module beside these and their revisions into
`versions/`: docs/store.md says how.
"""
