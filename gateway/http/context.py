"""RequestContext: the one typed account of a request, from the door to the record.

Each step writes into it what it learns; whoever counts, traces or answers reads it from here.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

from backends.schema import Usage
from gateway.access.limits.lease import RateLimitLease
from gateway.access.principal import ANYBODY, Principal, Tier
from gateway.http.errors import (
    ClientDisconnected,
    EngineTimeout,
    Internal,
    PointsmanError,
    RequestTimeout,
    UpstreamIdleTimeout,
)
from gateway.observe.trace_context import UNTRACED, Trace
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate

NEVER = float("inf")

Stage = Literal["auth", "parse", "cache", "route", "queue"]

log = logging.getLogger("pointsman")


@dataclass(slots=True, eq=False)
class Attempt:
    """One deployment asked. Times are of the monotonic clock, in seconds; `ended` is 0 before."""

    candidate: Candidate
    began: float
    half_open_probe: bool = False  # by whose end the breaker decides
    adapted: tuple[str, ...] = ()
    ended: float = 0.0
    failure: BaseException | None = None


@dataclass(slots=True, eq=False)
class RequestContext:
    """One request. Times are of the monotonic clock, in seconds.

    `patience` is how long the other side may be silent after `heard`; `ends` is when the request is over at the
    latest. `asked` is when an engine was first asked, 0 before. While `writing`, it is the client that is waited for.
    Of the `attempts`, the one `answering` is the one to be named to the client. `stopped` is why the gateway ended
    the request, if it did; `failure` is what it came to, if not to an answer. `silence` writes a keep-alive, once one
    may. `stages` are those that are over, each with its length; the present one began at `since`. `first` is when the
    first of a stream's chunks came, `answered` when the answer's head went out, `overhead` how long the gateway took.
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
    since: float = 0.0
    stages: list[tuple[Stage, float]] = field(default_factory=list)
    first: float = 0.0
    answered: float = 0.0
    overhead: float = 0.0
    principal: Principal = ANYBODY
    trace: Trace = UNTRACED
    rate_limit: RateLimitLease | None = None  # with the key's limits
    tier: Tier = "priority"
    model: str = ""
    hedge_after: float = 0.0
    stream: bool = False
    cache: Literal["", "hit", "miss", "coalesced", "bypass"] = ""
    age: int = 0  # seconds, of an answer that was kept
    admitted: bool = False  # it holds a place in all
    attempts: list[Attempt] = field(default_factory=list)
    answering: Attempt | None = None
    usage: Usage | None = None
    status: int = 0  # 0: no answer has begun
    stopped: PointsmanError | ClientDisconnected | None = None
    failure: BaseException | None = None
    silence: Callable[[], Awaitable[None]] | None = None

    def __post_init__(self) -> None:
        self.heard = self.wrote = self.since = self.began

    @property
    def endpoint(self) -> Endpoint | None:
        """The deployment that answers."""
        return self.answering.candidate.endpoint if self.answering else None

    @property
    def served_by(self) -> tuple[str, str]:
        """The engine and the deployment whose work the answer is; the cache's is no engine's."""
        if self.cache in ("hit", "coalesced"):
            return "cache", ""
        endpoint = self.endpoint
        return (endpoint.engine, endpoint.name) if endpoint else ("", "")

    @property
    def adapted(self) -> tuple[str, ...]:
        """The parameters that were mapped or emulated for it."""
        return self.answering.adapted if self.answering else ()

    def mark_stage(self, stage: Stage, now: float) -> None:
        """Note that a stage is over; the next one begins."""
        self.stages.append((stage, now - self.since))
        self.since = now

    def fork(self, task: "asyncio.Task[object]", now: float) -> "RequestContext":
        """Return the account of what goes on in another task on this request's behalf, and perhaps longer than it."""
        return RequestContext(
            id=self.id,
            method=self.method,
            path=self.path,
            raw_path=self.raw_path,
            headers=self.headers,
            began=now,
            task=task,
            ends=self.ends,
            principal=self.principal,
            trace=self.trace,
            tier=self.tier,
            model=self.model,
            hedge_after=self.hedge_after,
            stream=self.stream,
        )

    def adopt_from(self, other: "RequestContext") -> None:
        """Take over what the account of its flight says of the engines, once one has begun to answer."""
        self.answering, self.asked, self.heard = other.answering, other.asked, other.heard
        self.stages += other.stages

    def stop(self, why: PointsmanError | ClientDisconnected) -> None:
        """End the request from outside: its task is cancelled, and with it whatever it waits for."""
        if self.stopped is None:
            self.stopped = why
            self.task.cancel()

    def check(self, now: float) -> None:
        """End the request if its time is over."""
        if now > self.ends:
            self.stop(EngineTimeout("The answer was not complete in time."))
        elif now - self.heard > self.patience and not self.writing:
            if not self.attempts:
                self.stop(RequestTimeout("The request did not come in time."))
            else:
                name = self.attempts[-1].candidate.endpoint.name
                self.stop(UpstreamIdleTimeout(f"The engine {name} was silent for {self.patience:g} s."))

    def answer_headers(self, now: float) -> list[tuple[bytes, bytes]]:
        """Return the headers that say who answered, and how long the gateway itself took."""
        headers = [(b"x-request-id", self.id.encode())]
        if self.rate_limit is not None:
            headers += self.rate_limit.headers(now)
        self.answered = now
        self.overhead = max(self.asked - self.began, 0.0) + now - self.heard
        attempt = self.answering
        if self.cache:
            headers.append((b"x-pointsman-cache", self.cache.encode()))
        if self.cache in ("hit", "coalesced"):
            headers.append((b"x-pointsman-engine", b"cache"))
        if self.cache == "hit":
            headers.append((b"age", b"%d" % self.age))
        if attempt is not None:
            headers += attempt.candidate.endpoint.answer_headers
            headers.append((b"x-pointsman-overhead-ms", b"%.3f" % (self.overhead * 1000)))
            if attempt.adapted:
                headers.append((b"x-pointsman-adapted", ",".join(attempt.adapted).encode()))
        return headers

    def ended_by(self, error: BaseException) -> BaseException:
        """Return what an exception that ended the request means: a cancellation may be our own doing."""
        if isinstance(error, asyncio.CancelledError) and self.stopped is not None:
            self.task.uncancel()
            return self.stopped
        if isinstance(error, PointsmanError | ClientDisconnected | asyncio.CancelledError):
            return error
        log.error("request %s to %s failed in the gateway", self.id, self.path, exc_info=error)
        return Internal("The gateway failed to handle this request; its log says why.")
