"""The process: run, drain, files that are read again."""
