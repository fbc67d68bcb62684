"""The heart: one call is two sockets and one mind between them."""
