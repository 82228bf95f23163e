"""All that the gateway uses of uvicorn's private parts, and the public way for where they are not as expected.

Written for uvicorn 0.51 to 0.54. Of the supervisor, `uvicorn.supervisors.Multiprocess`:

- It is made of a configuration and `sockets` (0.50 wanted a third argument).
- `run()` calls `terminate_all()` and then `join_all()`, as the supervisor ends; `processes` are its workers, and the
  `exitcode` of each is None while it runs.

Of the server in each worker, once it has started:

- It handles SIGTERM by a method of its own, behind which it can be found.
- It ends in order when `should_exit` is set; `server_state.connections` are its open connections, a set of protocols
  that each have a `transport`. `lifespan.should_exit` says that the application failed at its end.

All but `exitcode`, `transport` and `lifespan` is checked once, as the process starts. Where it does not hold, a warning
says so, and uvicorn does what it does by itself: it knows no second signal to workers, and no notice before it stops
listening. A supervisor that cannot be made at all leaves one worker.
"""

import inspect
import logging
import signal
import socket
import time
from typing import Any

import uvicorn
import uvicorn.config
from uvicorn.supervisors import Multiprocess

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# The exit status of a worker that could not start.
STARTUP_FAILURE: int = getattr(uvicorn.config, "STARTUP_FAILURE", 3)
POLL_INTERVAL = 0.1  # seconds

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


def _warn(fault: str, lost: str) -> None:
    log.warning("uvicorn %s is not as expected (%s): %s", uvicorn.__version__, fault, lost)
