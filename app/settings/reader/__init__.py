"""Reading what people wrote: strict YAML, `.env`, variables, with the line of each value."""
