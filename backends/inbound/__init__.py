"""The APIs other than OpenAI's that the gateway serves, one folder each."""
