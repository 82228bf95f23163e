"""Clients nobody here wrote, in front of the gateway."""
