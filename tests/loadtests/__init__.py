"""The load tests measure what they say: each against a fake whose delays and answers are known."""
