"""TGI's own API as its clients speak it, and how it is said to a vLLM."""
