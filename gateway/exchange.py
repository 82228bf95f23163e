"""Exchange: the one typed account of a request, from the door to the record.

Each step writes into it what it learns; whoever counts, traces or answers reads it from here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from backends.schema import Usage
from gateway.catalog import Target
from gateway.errors import ClientLeft, EngineTimeout, Internal, PointsmanError, RequestTimeout

NEVER = float("inf")

log = logging.getLogger("pointsman")


@dataclass(slots=True, eq=False)
class Exchange:
    """One request. Times are of the monotonic clock, in seconds.

    `patience` is how long the other side may be silent after `heard`; `ends` is when the request is over at the
    latest. `asked` is when an engine was first asked, 0 before. While `writing`, it is the client that is waited for.
    `stopped` is why the gateway ended it, if it did. `silence` writes a keep-alive, once one may.
    """

    id: str
    method: str
    path: str
    raw_path: bytes
    headers: dict[bytes, bytes]
    began: float
    task: "asyncio.Task[object]"
    ends: float = NEVER
    patience: float = NEVER
    heard: float = field(default=0.0)
    wrote: float = field(default=0.0)
    writing: bool = False
    asked: float = 0.0
    model: str = ""
    target: Target | None = None
    stream: bool = False
    adapted: tuple[str, ...] = ()
    usage: Usage | None = None
    status: int = 0  # 0: no answer has begun
    stopped: ClientLeft | EngineTimeout | RequestTimeout | None = None
    silence: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.heard = self.wrote = self.began

    def stop(self, why: ClientLeft | EngineTimeout | RequestTimeout) -> None:
        """End the request from outside: its task is cancelled, and with it whatever it waits for."""
        if self.stopped is None:
            self.stopped = why
            self.task.cancel()

    def check(self, now: float) -> None:
        """End the request if its time is over."""
        if now > self.ends:
            self.stop(EngineTimeout("The answer was not complete in time."))
        elif now - self.heard > self.patience and not self.writing:
            if self.target is None:
                self.stop(RequestTimeout("The request did not come in time."))
            else:
                self.stop(EngineTimeout(f"The engine {self.target.name} was silent for {self.patience:g} s."))

    def answer_headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Return the headers that say who answered, and how long the gateway itself took."""
        headers = [(b"x-request-id", self.id.encode())]
        if self.target is not None:
            headers += self.target.answer_headers
            own = self.asked - self.began + now - self.heard if self.asked else now - self.began
            headers.append((b"x-pointsman-overhead-ms", b"%.3f" % (own * 1000)))
        if self.adapted:
            headers.append((b"x-pointsman-adapted", ",".join(self.adapted).encode()))
        return headers

    def ended_by(self, error: BaseException) -> BaseException:
        """Return what an exception that ended the request means: a cancellation may be our own doing."""
        if isinstance(error, asyncio.CancelledError) and self.stopped is not None:
            self.task.uncancel()
            return self.stopped
        if isinstance(error, PointsmanError | ClientLeft | asyncio.CancelledError):
            return error
        log.error("request %s to %s failed in the gateway", self.id, self.path, exc_info=error)
        return Internal("The gateway failed to handle this request; its log says why.")
