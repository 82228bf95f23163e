"""Tests of the dialects and of the simulators, against what real engines said (`recorded`)."""
