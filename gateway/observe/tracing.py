"""Traces: one span a request and one an attempt, sent over OTLP (OpenTelemetry; W3C Trace Context).

`begin` gives a request its place in a trace, as it comes in; `record` makes its spans, when it is over. Between the
two only a few numbers are kept and, where the request is sampled, the steps' notes for its spans.
"""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Protocol

from gateway.config.tables import TelemetryConfig
from gateway.http.context import RequestContext
from gateway.observe.labels import UNCOUNTED
from gateway.observe.trace_context import UNTRACED, PropagatedTrace, Trace, client_trace
from gateway.observe.trace_notes import Notes

if TYPE_CHECKING:
    from gateway.observe.trace_export import SpanQueue
    from gateway.observe.trace_spans import Spans

LOW = 2**64 - 1


class Tracer(Protocol):
    """What the rest of the gateway knows of tracing. `sent` and `lost` count spans."""

    @property
    def sent(self) -> int: ...  # noqa: D102

    @property
    def lost(self) -> int: ...  # noqa: D102

    def begin(self, headers: Mapping[bytes, bytes], request_id: str, path: str) -> Trace:
        """Return the trace of a request; `request_id` is 32 hexadecimal digits."""
        ...

    def record(self, context: RequestContext, trace: Trace, now: float, wall: float) -> None:
        """Make the spans of a request that is over and sampled; a second call does nothing.

        It ended at `now` of the monotonic clock, which was `wall` in Unix time.
        """
        ...

    async def close(self) -> None:
        """Send what is left."""
        ...


class NoTracer:
    """Exports nothing: the client's trace headers go to the engine unchanged."""

    sent = 0
    lost = 0

    def begin(self, headers: Mapping[bytes, bytes], request_id: str, path: str) -> Trace:
        """Return the client's trace."""
        given = client_trace(headers)
        if given is None:
            return UNTRACED
        trace, span, sampled, state = given
        return PropagatedTrace(trace, 0, span, sampled, state, None, headers[b"traceparent"].strip().decode())

    def record(self, context: RequestContext, trace: Trace, now: float, wall: float) -> None:
        """Make no spans."""

    async def close(self) -> None:
        """Do nothing."""


class OtlpTracer:
    """Sends the spans of the requests that are sampled.

    The trace's id decides on that by `sample_ratio`, as in OpenTelemetry's `TraceIdRatioBased`; with `trust_sampling`
    it is the client's flag. A request without a trace begins one, whose id is the request's own.
    """

    def __init__(
        self,
        telemetry: TelemetryConfig,
        spans: "Spans",
        queue: "SpanQueue",
        notes: Callable[[], Notes],
        random: Random,
    ) -> None:
        self._bound = round(telemetry.sample_ratio * (LOW + 1))
        self._trusts = telemetry.trust_sampling
        self._spans = spans
        self._queue = queue
        self._notes = notes
        self._draw = random.getrandbits

    @property
    def sent(self) -> int:
        """How many spans the collector has taken."""
        return self._queue.sent

    @property
    def lost(self) -> int:
        """How many spans did not reach it, or were dropped."""
        return self._queue.lost

    def begin(self, headers: Mapping[bytes, bytes], request_id: str, path: str) -> Trace:
        """Return the trace of a request."""
        if path in UNCOUNTED:
            return UNTRACED
        given = client_trace(headers)
        trace, parent, flag, state = given or (int(request_id, 16), 0, False, "")
        sampled = flag if given and self._trusts else trace & LOW < self._bound
        # 63 bits, because the attempts' ids are the numbers after it.
        return Trace(trace, parent, self._draw(63) or 1, sampled, state, self._notes() if sampled else None)

    def record(self, context: RequestContext, trace: Trace, now: float, wall: float) -> None:
        """Make the spans."""
        notes, trace.notes = trace.notes, None
        if notes is not None:
            self._queue.put(self._spans.made(context, trace, notes, now, wall))

    async def close(self) -> None:
        """Send what is left."""
        await self._queue.close()


def make(telemetry: TelemetryConfig, random: Random) -> Tracer:
    """Return the tracer of a configuration; OpenTelemetry is imported only where spans are exported."""
    if not telemetry.otlp_endpoint:
        return NoTracer()
    from gateway.observe.trace_content import ContentNotes, Redaction  # noqa: PLC0415
    from gateway.observe.trace_export import SpanQueue, exporter  # noqa: PLC0415
    from gateway.observe.trace_spans import Spans  # noqa: PLC0415

    notes = partial(ContentNotes, Redaction(telemetry.redact)) if telemetry.content else Notes
    queue = SpanQueue(exporter(telemetry), telemetry.otlp_endpoint)
    spans = Spans(f"{random.getrandbits(128):032x}")
    return OtlpTracer(telemetry, spans, queue, notes, random)
