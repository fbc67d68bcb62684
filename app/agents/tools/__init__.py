"""An agent's tools: Python functions, HTTP requests, MCP servers, call control."""
