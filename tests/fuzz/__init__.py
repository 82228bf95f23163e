"""Programs that look for inputs nobody has thought of, for as long as they are given."""
