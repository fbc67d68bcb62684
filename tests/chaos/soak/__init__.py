"""`make soak`: ten thousand mixed calls and six floods against one server, and what is left."""
