"""TGI's own API: what its clients send, answered by either engine."""
