"""What the gateway costs, measured: `results/` has a file for each run, dated, with its machine and its method."""
