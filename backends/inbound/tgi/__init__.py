"""TGI's own API for clients, and its translation to vLLM's."""
