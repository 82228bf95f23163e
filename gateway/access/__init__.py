"""Who asks, what for, and how much: keys, and their limits."""
