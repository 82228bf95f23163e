"""Where the record of experiments is kept: `sqlite` for the workers of one host, `redis` for gateways on several.

Both hold the same, by an experiment's name: whole numbers by field, notes (JSON) by name, and a map of places for each
kind of thing that counts once for a unit. `base` says how they are told and read.
"""
