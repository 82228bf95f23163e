"""Redis: one URL grammar and one client, with a deadline and a circuit breaker, for all who use it."""
