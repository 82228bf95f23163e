"""The spans of a request, made of its account when it is over: so each begins and ends once, whatever happened.

They are made as the SDK's ReadableSpan, which is what its processors and exporters take (see `otel_internals`). A span
of the SDK's Tracer would have to be ended on each way out of a request.
"""

from importlib import metadata

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import Internal, PointsmanError
from gateway.observe import trace_attributes
from gateway.observe.otel_internals import span_maker
from gateway.observe.trace_context import Trace
from gateway.observe.trace_notes import Notes

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
UNSET = Status(StatusCode.UNSET)
ERROR = Status(StatusCode.ERROR)  # and no description: an engine's words may hold what the client said
NANOSECONDS = 1_000_000_000


class Spans:
    """Makes the spans of requests; they all name the service, and which of its workers (`instance`) it was."""

    def __init__(self, instance: str) -> None:
        version = metadata.version("pointsman")
        service = {"service.name": "pointsman", "service.version": version, "service.instance.id": instance}
        # What OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, wins.
        resource = Resource.create(service).merge(OTELResourceDetector().detect())
        self._make = span_maker(resource, InstrumentationScope("pointsman", version))

    def made(self, context: RequestContext, trace: Trace, notes: Notes, now: float, wall: float) -> list[ReadableSpan]:
        """Return the span of a request and those of its tries; `now` is both on the monotonic clock and `wall`."""
        one = _TracedRequest(context, trace, notes, round(wall * NANOSECONDS) - round(now * NANOSECONDS), now)
        tries = [self._try(one, attempt, place) for place, attempt in enumerate(context.attempts)]
        questions = [
            self._try(_TracedRequest(sub, trace, Notes(), one.shift, now), attempt, place)
            for sub in context.beside
            for place, attempt in enumerate(sub.attempts)
        ]
        return [self._request(one), *tries, *questions]

    def _request(self, one: "_TracedRequest") -> ReadableSpan:
        context = one.request
        return self._make(
            name=trace_attributes.request_name(context),
            context=one.own,
            parent=one.parent,
            attributes=trace_attributes.of_request(context, one.parent is not None),
            events=one.events(),
            kind=SpanKind.SERVER,
            status=_server_status(context.failure),
            start_time=one.at(context.timing.began),
            end_time=one.at(one.now),
        )

    def _try(self, one: "_TracedRequest", attempt: Attempt, place: int) -> ReadableSpan:
        context = one.request
        attributes = trace_attributes.of_try(context, attempt, place, one.notes)
        if attempt is context.answering:
            attributes |= one.notes.content()
        return self._make(
            name=trace_attributes.try_name(context),
            context=one.context(one.trace.try_span(attempt.number)),
            parent=one.own,
            attributes=attributes,
            events=one.try_events(attempt),
            kind=SpanKind.CLIENT,
            status=_client_status(attempt.failure),
            start_time=one.at(attempt.began),
            end_time=one.at(attempt.ended or one.now),
        )


class _TracedRequest:
    """One request's times and contexts, as the SDK wants them. `shift` is from monotonic to Unix time, in ns."""

    def __init__(self, context: RequestContext, trace: Trace, notes: Notes, shift: int, now: float) -> None:
        self.request = context
        self.trace = trace
        self.notes = notes
        self.now = now
        self.shift = shift
        self._state = TraceState.from_header([trace.state]) if trace.state else None
        self.own = self.context(trace.span)
        self.parent = SpanContext(trace.id, trace.parent, True, SAMPLED, self._state) if trace.parent else None

    def at(self, time: float) -> int:
        """Return a monotonic time as Unix nanoseconds."""
        return round(time * NANOSECONDS) + self.shift

    def context(self, span: int) -> SpanContext:
        """Return the context of a span of this trace."""
        return SpanContext(self.trace.id, span, False, SAMPLED, self._state)

    def events(self) -> list[Event]:
        """Return the events of the request itself."""
        return [Event(name, attributes, self.at(time)) for name, time, attributes in self.notes.events]

    def try_events(self, attempt: Attempt) -> list[Event]:
        """Return the events of a try: what was adapted for it, and its first token."""
        events = []
        if attempt.adapted:
            adapted = {"pointsman.adapted.parameters": attempt.adapted}
            events.append(Event("pointsman.adapted", adapted, self.at(attempt.began)))
        if attempt is self.request.answering and self.request.timing.first_event_at:
            events.append(Event("pointsman.first_token", {}, self.at(self.request.timing.first_event_at)))
        return events


def _server_status(failure: BaseException | None) -> Status:
    """Return the status: for a server, what the client did wrong is no error (HTTP semantic conventions)."""
    ours = isinstance(failure, PointsmanError) and failure.status >= Internal.status
    return ERROR if ours else UNSET


def _client_status(failure: BaseException | None) -> Status:
    """Return the status: an error is what an engine refused or failed at, not that nobody waited any longer."""
    return ERROR if isinstance(failure, PointsmanError) else UNSET
