"""All that the gateway uses of uvicorn's private parts, and the public way for where they are not as expected.

Written for uvicorn 0.51 to 0.54. Of the supervisor, `uvicorn.supervisors.Multiprocess`:

- It is made of a configuration and `sockets` (0.50 wanted a third argument).
- `run()` calls `terminate_all()` and then `join_all()`, as the supervisor ends; `processes` are its workers, and the
  `exitcode` of each is None while it runs.

Of the server in each worker, once it has started:

- It handles SIGTERM by a method of its own, behind which it can be found.
- It ends in order when `should_exit` is set; `server_state.connections` are its open connections, a set of protocols
  that each have a `transport`. `lifespan.should_exit` says that the application failed at its end.

Of the protocol of each connection, `uvicorn.protocols.http.httptools_impl.HttpToolsProtocol`:

- Its `parser` stops at the end of a head that offers an upgrade (HttpParserUpgrade, with the offset), as if there were
  no body; another may take its place.
- `on_headers_complete()` sets `cycle`, which answers one request by its `transport`: the head by a first `write()`,
  what there is of the body by a second right behind it.
- Its callbacks pass over such a request where `_should_upgrade()` says so: no task is started for it. Its head is then
  in `scope["method"]`, `url` and `headers`.

All but `exitcode`, `transport` and `lifespan` is checked once, as the process starts. Where it does not hold, a warning
says so, and uvicorn does what it does by itself: it knows no second signal to workers, and no notice before it stops
listening. A supervisor that cannot be made at all leaves one worker. In the place of httptools, h11 reads the requests:
it takes a body after an offer, and more CPU time.
"""

import inspect
import logging
import signal
import socket
import time
from asyncio import Transport
from collections.abc import Callable
from typing import Any, Literal, cast

import httptools
import uvicorn
import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.supervisors import Multiprocess

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# The exit status of a worker that could not start.
STARTUP_FAILURE: int = getattr(uvicorn.config, "STARTUP_FAILURE", 3)
POLL_INTERVAL = 0.1  # seconds
INTERIM = b"HTTP/1.1 100 "

log = logging.getLogger("pointsman")


# --- the supervisor -----------------------------------------------------------------------------------------------


def supervise(supervisor: Any) -> int:
    """Serve in workers until a signal; return the exit status: 1 if one of them could not start."""
    supervisor.run()
    return 1 if any(process.exitcode == STARTUP_FAILURE for process in getattr(supervisor, "processes", ())) else 0


def make_supervisor(config: uvicorn.Config, listener: socket.socket, base: Any = Multiprocess) -> Any:
    """Return a supervisor that drains its workers if uvicorn is as expected.

    Otherwise return uvicorn's own, or None if it cannot be made, and log why.
    """
    try:
        inspect.signature(base).bind(config, sockets=[listener])
    except TypeError as error:
        _warn(f"Multiprocess: {error}", f"one worker serves in the place of {config.workers}")
        return None
    if fault := supervisor_fault(base):
        lost = "a second signal does not end its workers at once, and the port stays open until the last one has ended"
        _warn(fault, lost)
        return base(config, sockets=[listener])
    return DrainingSupervisor(config, listener)


class DrainingSupervisor(Multiprocess):
    """uvicorn's supervisor, which starts another worker for one that died; it ends as a single server does."""

    def __init__(self, config: uvicorn.Config, listener: socket.socket) -> None:
        super().__init__(config, sockets=[listener])
        self._listener = listener

    def terminate_all(self) -> None:
        """Have the workers drain. The port is theirs alone from now on, so that it closes when they close it."""
        self._listener.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait for the workers; a second signal is for them, too."""
        signals: list[int] = []
        for number in STOP_SIGNALS:
            signal.signal(number, lambda received, _: signals.append(received))
        while any(process.exitcode is None for process in self.processes):
            time.sleep(POLL_INTERVAL)
            if signals:
                signals.clear()
                self.terminate_all()


def supervisor_fault(base: Any) -> str:
    """Return what is not as `DrainingSupervisor` expects it, or nothing."""
    called = getattr(getattr(base.run, "__code__", None), "co_names", ())
    for name in ("terminate_all", "join_all"):
        if name not in called or not hasattr(base, name):
            return f"Multiprocess.run does not call {name}"
    if "processes" not in getattr(base.__init__, "__code__", base.run.__code__).co_names:
        return "Multiprocess has no list of processes"
    return ""


# --- the server ---------------------------------------------------------------------------------------------------


class RunningServer:
    """The server of this process, as far as a drain needs it."""

    def __init__(self, server: Any) -> None:
        self._server = server

    def close(self) -> None:
        """Take no new connections; the server ends when it has none left."""
        self._server.should_exit = True

    def hang_up(self) -> None:
        """Close all connections at once, whatever is still being sent."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()


def running_server(handler: Any = None) -> RunningServer | None:
    """Return the server of this process; None, and log why, if it cannot be found or is not as expected.

    `handler` is how SIGTERM is handled; what the process has set if it is not given.
    """
    server = getattr(handler or signal.getsignal(signal.SIGTERM), "__self__", None)
    fault = server_fault(server)
    if not fault:
        return RunningServer(server)
    lost = "at SIGTERM the port closes at once, and what is not finished after server.drain is cut off without an error"
    _warn(fault, lost)
    return None


def server_fault(server: Any) -> str:
    """Return what is not as `RunningServer` expects it, or nothing."""
    if not isinstance(server, uvicorn.Server):
        return "its server is not behind its handler of SIGTERM"
    if not isinstance(getattr(server, "should_exit", None), bool):
        return "Server has no should_exit"
    if not isinstance(getattr(getattr(server, "server_state", None), "connections", None), set):
        return "Server has no set of connections"
    return ""


def shutdown_failed(server: uvicorn.Server) -> bool:
    """Whether the application said at its end that it had failed; False where uvicorn does not tell."""
    return bool(getattr(getattr(server, "lifespan", None), "should_exit", False))


# --- the connections ----------------------------------------------------------------------------------------------


def http_protocol(base: Any = HttpToolsProtocol) -> "type[HttpToolsProtocol] | Literal['h11']":
    """Return what reads requests: `PlainHttpProtocol` if uvicorn is as expected, else h11, and log why."""
    if fault := protocol_fault(base):
        _warn(fault, "each request takes more CPU time")
        return "h11"
    return PlainHttpProtocol


class PlainHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which takes a request that offers an upgrade (h2c, websocket, TLS) as if it did not.

    That is how an offer is declined (RFC 9110, 7.8). httptools has no way to read on as HTTP/1.1, so another parser is
    given the head again, without the offer, and what follows it after that.
    """

    def on_headers_complete(self) -> None:
        """Begin with a request, whose answer's head goes out with the beginning of its body."""
        before = self.cycle
        super().on_headers_complete()
        cycle = self.cycle
        if cycle is not None and cycle is not before and cycle.scope["method"] != "HEAD":
            cycle.transport = cast(Transport, JoinedHead(cycle.transport))

    def _should_upgrade(self) -> bool:
        return any(name == b"upgrade" for name, _ in self.headers)

    def data_received(self, data: bytes) -> None:
        """Take what has come over the connection: any part of a request, or several."""
        self._unset_keepalive_if_required()
        pieces: list[bytes | memoryview] = [data]
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as stopped:
                if self._should_upgrade():  # else it is a CONNECT, behind which there is no HTTP
                    pieces += [memoryview(piece)[stopped.args[0] :], self._head_without_offer()]
                    self.parser = httptools.HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _head_without_offer(self) -> bytes:
        first = b"%b %b HTTP/%b" % (self.scope["method"].encode(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([first, *lines, b"", b""])


class JoinedHead:
    """The transport of one answer, which writes its head together with what comes next: one system call less."""

    __slots__ = ("_head", "_transport", "is_closing", "write")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing
        self.write: Callable[[bytes], None] = self._hold

    def _hold(self, data: bytes) -> None:
        if data.startswith(INTERIM):  # which the client waits for
            self._transport.write(data)
        else:
            self._head, self.write = data, self._join

    def _join(self, data: bytes) -> None:
        self.write = self._transport.write
        self.write(self._head + data)

    def close(self) -> None:
        """Close the connection once all is written; an application that failed may have left a head alone."""
        if self.write == self._join:
            self._join(b"")
        self._transport.close()


def protocol_fault(base: Any) -> str:
    """Return what is not as `PlainHttpProtocol` expects it, or nothing."""
    for caller, called in (
        ("data_received", ("feed_data", "_unset_keepalive_if_required", "send_400_response")),
        ("on_message_begin", ("url", "headers", "scope")),
        ("on_headers_complete", ("should_upgrade", "_should_upgrade", "cycle", "transport")),
        ("on_body", ("should_upgrade", "_should_upgrade")),
        ("on_message_complete", ("should_upgrade", "_should_upgrade")),
    ):
        used = getattr(getattr(getattr(base, caller, None), "__code__", None), "co_names", ())
        if missing := [name for name in called if name not in used]:
            return f"HttpToolsProtocol.{caller} does not use {missing[0]}"
    return ""


def _warn(fault: str, lost: str) -> None:
    log.warning("uvicorn %s is not as expected (%s): %s", uvicorn.__version__, fault, lost)
