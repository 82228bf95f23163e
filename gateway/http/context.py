"""RequestContext: the one typed account of a request, from its head to its record.

Each step writes into it what it learns; whoever counts, traces or answers reads it from here.
"""

from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, Protocol

from msgspec import Struct, field

from backends.schema import Usage
from gateway.access.limits.lease import RateLimitLease
from gateway.access.principal import ANYBODY, Principal, Tier
from gateway.experiments.assignment import Assignment
from gateway.http.cancel import CancelScope
from gateway.http.deadlines import IdleTimer
from gateway.observe.trace_context import UNTRACED, Trace
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Candidate

NEVER = float("inf")

Stage = Literal["auth", "parse", "cache", "route", "queue"]


def no_failover() -> bool:
    """Say that a request has nowhere else to go."""
    return False


class Attempt(Struct, eq=False):
    """One deployment asked. Times are of the monotonic clock, in seconds; `ended` is 0 before.

    `number` counts the attempts of a request and of what goes on beside it: it tells their spans apart. `undecided`:
    its failure is held until it is known whether another deployment fails alike (`proxy.verdict`).
    """

    candidate: Candidate
    number: int
    began: float
    half_open_probe: bool = False  # its end decides on the circuit breaker
    adapted: tuple[str, ...] = ()
    ended: float = 0.0
    failure: BaseException | None = None
    undecided: bool = False


class Timing(Struct, eq=False):
    """When things happened, by the monotonic clock, in seconds; 0 is not yet.

    `stages` are those that are over, each with its length; the present one began at `stage_started_at`. `sent_at` is
    when an engine was first asked, `received_at` when one was last heard, `first_event_at` when the first of a stream's
    events came, `answered_at` when the answer's head went out, `overhead` what the gateway itself took until then.
    """

    began: float
    deadline: float = NEVER
    stage_started_at: float = 0.0
    stages: list[tuple[Stage, float]] = field(default_factory=list)
    sent_at: float = 0.0
    received_at: float = 0.0
    first_event_at: float = 0.0
    answered_at: float = 0.0
    overhead: float = 0.0

    def __post_init__(self) -> None:
        self.received_at = self.stage_started_at = self.began

    def mark_stage(self, stage: Stage, now: float) -> None:
        """Note that a stage is over; the next one begins."""
        self.stages.append((stage, now - self.stage_started_at))
        self.stage_started_at = now

    def mark_answered(self, now: float) -> None:
        """Note that the answer's head goes out: the overhead is what passed before the engine was asked, and since."""
        self.answered_at = now
        self.overhead = max(self.sent_at - self.began, 0.0) + now - self.received_at


class OpenStream(Protocol):
    """A stream to the client that has to be kept alive."""

    wrote_at: float

    @property
    def begun(self) -> bool:
        """Whether the client has had its 200."""

    async def comment(self) -> None:
        """Write a comment, so that the client sees that the connection lives."""


class ClientEnd(Protocol):
    """The client's end of a request, where the server tells by itself when it is gone."""

    left: bool
    on_left: Callable[[], None] | None


class SharedWork(Protocol):
    """An engine's work that one request began and others may share (`gateway.cache.coalesce`)."""

    closed: bool

    def when_closed(self, then: Callable[[], None]) -> None:
        """Have this done once the work is over."""


class RequestContext(Struct, eq=False):
    """One request.

    Of the `attempts`, the one `answering` is the one to be named to the client. `scope` ends the request from outside;
    `failure` is what it came to, if not to an answer. `usage` is what the engines have worked: their own figures, or an
    Estimate; `estimate_prompt` returns the prompt's tokens where they have not said them, and is None where no engine
    works on a prompt. `leads` is the work that others may share and that this request pays for. `beside` are the
    sub-requests on its behalf (`proxy.subrequest`). `can_fail_over` says whether another deployment could be asked in
    the place of the one that is waited for.

    `id` is the gateway's own and never given twice: what must be unique is made of it. `client_id` is the client's
    X-Request-Id, which it may repeat, empty if there is none that can be taken over.
    """

    id: str
    method: str
    path: str
    raw_path: bytes
    headers: dict[bytes, bytes]
    timing: Timing
    scope: CancelScope
    query: bytes = b""  # as the client wrote it, without the question mark
    body: bytes = b""
    principal: Principal = ANYBODY
    trace: Trace = UNTRACED
    assignment: Assignment | None = None  # its place in the experiment of its model, if that has one
    rate_limit: RateLimitLease | None = None
    tier: Tier = "priority"
    model: str = ""
    streamed: bool = False
    cache: Literal["", "hit", "miss", "coalesced", "bypass"] = ""
    age: int = 0  # seconds, of a cached answer
    admitted: bool = False  # it holds a permit of the worker's
    attempts: list[Attempt] = field(default_factory=list)
    leaders_attempts: list[Attempt] | None = None  # the attempts of another request whose answer it waits for
    answering: Attempt | None = None
    idle_timers: list[IdleTimer] = field(default_factory=list)
    can_fail_over: Callable[[], bool] = no_failover
    usage: Usage | None = None
    estimate_prompt: Callable[[], int] | None = None
    leads: SharedWork | None = None
    client_id: str = ""
    client_end: ClientEnd | None = None
    closing: bool = False  # the client's connection ends with the answer, which says so
    status: int = 0  # 0: no answer has begun
    failure: BaseException | None = None
    open_stream: OpenStream | None = None
    beside: "list[RequestContext]" = field(default_factory=list)
    attempt_numbers: Iterator[int] = field(default_factory=count)

    @property
    def request_id(self) -> str:
        """By what the client, the engine and the log know the request."""
        return self.client_id or self.id

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

    def fork(self, path: str, scope: CancelScope, timing: Timing) -> "RequestContext":
        """Return the context of a sub-request: who asks, for what and in which trace is the same, the rest its own."""
        return RequestContext(
            id=self.id,
            client_id=self.client_id,
            method=self.method,
            path=path,
            raw_path=path.encode(),
            headers=self.headers,
            timing=timing,
            scope=scope,
            body=self.body,
            principal=self.principal,
            trace=self.trace,
            assignment=self.assignment,
            tier=self.tier,
            model=self.model,
            streamed=self.streamed,
            estimate_prompt=self.estimate_prompt,
            attempt_numbers=self.attempt_numbers,
        )

    def drop_references(self) -> None:
        """Drop what refers back to the context, as it has ended: a cycle would wait for the garbage collector."""
        self.leads = self.open_stream = None
        self.idle_timers.clear()
        self.can_fail_over = no_failover

    def adopt_from(self, other: "RequestContext") -> None:
        """Take over what a sub-request's context says of the engines, once one has begun to answer."""
        self.answering = other.answering
        self.timing.sent_at, self.timing.received_at = other.timing.sent_at, other.timing.received_at
        self.timing.stages += other.timing.stages
