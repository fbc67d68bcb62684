"""The embedded offline voice engine: the server side of the Realtime protocol, with no network."""
