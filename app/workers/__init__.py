"""Several processes that answer the calls of one listener: `trunkline serve --workers`."""
