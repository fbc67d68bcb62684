"""The `trunkline` command: serve, dial, chat, doctor, numbers, config.

Reads settings, prints, sets exit codes: 0 good, 1 the thing itself failed, 2 the configuration or
the options are wrong.
"""

from app.cli.banner import banner
from app.cli.commands import app, main, own_server

__all__ = ["app", "banner", "main", "own_server"]
