"""The HTTP surfaces, a file each. Each gives a handler for each of its paths."""
