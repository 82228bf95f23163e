"""Ports for what is told its port before it opens it."""

import socket


def free_port() -> int:
    """Return a port that is free, and that the system gives to nobody else for a minute.

    A connection to it was closed from its side: while that is in TIME_WAIT (RFC 9293, 3.6) the port is opened by who
    names it and sets SO_REUSEADDR, as servers do, and is none of those that the system chooses from.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        accepted.close()
        port: int = listening.getsockname()[1]
        return port
