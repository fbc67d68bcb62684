"""The server below the application: the listener, its sockets and their bounds, and the signals."""
