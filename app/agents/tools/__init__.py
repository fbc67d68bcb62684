"""What an agent can do: Python functions, HTTP requests, MCP servers, call control."""
