"""The engines: the connection to them, which there are, what they serve, and how they are."""
