"""The steps of a request, from its parsed body to its answer."""
