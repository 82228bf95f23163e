"""Tests of the gateway: its parts, and the whole over real sockets."""
