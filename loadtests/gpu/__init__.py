"""What was measured on a GPU, and how: models to measure with, and the runs behind `deploy/guides`. See `README.md`."""
