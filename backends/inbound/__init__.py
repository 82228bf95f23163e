"""What clients of other APIs than OpenAI's say to us, a folder each."""
