"""All that the gateway uses of OpenTelemetry's private parts, and the public way for where they are not as expected.

Written for `opentelemetry-sdk` and its OTLP exporters 1.40 to 1.45. Each is tried once, as tracing is set up:

- A `ReadableSpan` can be made by its constructor, with the keywords of `SpanMaker`; its own docstring advises against
  it. Otherwise the SDK's Tracer makes the spans, in 70 µs instead of 2 µs each.
- An exporter's module has `encode_spans`, which its `OTLPSpanExporter` looks up there for each batch, and which gives
  for a span what `trace_wire.encoded` gives. Otherwise the SDK's own stays in place, at more than twice the cost.

Where one does not hold, a warning says so. The spans that a collector gets are the same.
"""

import logging
from collections.abc import Sequence
from functools import partial
from types import ModuleType
from typing import Any, Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.sdk.version import __version__
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

log = logging.getLogger("pointsman")


class SpanMaker(Protocol):
    """Makes a span that is over."""

    def __call__(
        self,
        *,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
        events: Sequence[Event],
        status: Status,
        start_time: int,
        end_time: int,
    ) -> ReadableSpan:
        """Return it; the times are in Unix nanoseconds."""
        ...


# --- spans --------------------------------------------------------------------------------------------------------


def span_maker(resource: Resource, scope: InstrumentationScope, span: Any = ReadableSpan) -> SpanMaker:
    """Return what makes the spans of a resource and scope: the constructor if it is as expected, else the Tracer."""
    make = partial(span, resource=resource, instrumentation_scope=scope)
    fault = span_fault(make)
    if not fault:
        return make
    _warn(fault, "spans are made by its Tracer, and a sampled request takes more CPU time")
    return TracerSpans(resource, scope)


def span_fault(make: SpanMaker) -> str:
    """Return what a span lacks that was made directly, or nothing."""
    try:
        made = make(**SAMPLE)
    except TypeError as error:
        return f"ReadableSpan: {error}"
    lost = [name for name, value in SAMPLE.items() if getattr(made, name, None) != value]
    return f"ReadableSpan does not keep {', '.join(lost)}" if lost else ""


class TracerSpans:
    """Makes spans by the SDK's Tracer, which is the documented way."""

    def __init__(self, resource: Resource, scope: InstrumentationScope) -> None:
        self._ids = _GivenIds()
        self._ended = _LastEnded()
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False, id_generator=self._ids)
        provider.add_span_processor(self._ended)
        self._tracer = provider.get_tracer(scope.name, scope.version)

    def __call__(
        self,
        *,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: dict[str, Any],
        events: Sequence[Event],
        status: Status,
        start_time: int,
        end_time: int,
    ) -> ReadableSpan:
        """Return a span that has begun and ended."""
        self._ids.given = context
        above = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        span = self._tracer.start_span(name, above, kind, attributes, start_time=start_time)
        for event in events:
            span.add_event(event.name, event.attributes, event.timestamp)
        span.set_status(status)
        span.end(end_time)
        return self._ended.span


class _GivenIds(IdGenerator):
    """Gives a new span the ids of a context."""

    given: SpanContext

    def generate_span_id(self) -> int:
        return self.given.span_id

    def generate_trace_id(self) -> int:
        return self.given.trace_id


class _LastEnded(SpanProcessor):
    """Keeps the span that has ended last."""

    span: ReadableSpan

    def on_end(self, span: ReadableSpan) -> None:
        self.span = span


# --- their encoding -----------------------------------------------------------------------------------------------


def use_fast_encoder(exporter: ModuleType) -> None:
    """Have an exporter's module encode spans by `trace_wire`, if both are as expected."""
    fault = encoder_fault(exporter)
    if fault:
        _warn(fault, "spans are encoded by its own encoder, and a sampled request takes more CPU time")
        return
    from gateway.observe.trace_wire import encoded  # noqa: PLC0415

    vars(exporter)["encode_spans"] = encoded


def encoder_fault(exporter: ModuleType) -> str:
    """Return what is not as `trace_wire` expects it, or nothing: it encodes two spans as the SDK does."""
    methods = vars(getattr(exporter, "OTLPSpanExporter", object)).values()
    if not any("encode_spans" in getattr(getattr(one, "__code__", None), "co_names", ()) for one in methods):
        return f"{exporter.__name__} does not call encode_spans"
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415

        from gateway.observe.trace_wire import encoded  # noqa: PLC0415

        make = span_maker(Resource({"service.name": "sample"}), InstrumentationScope("sample", "1"))
        spans = [make(**SAMPLE), make(**SAMPLE | {"parent": None, "events": (), "status": Status(StatusCode.UNSET)})]
        same = encoded(spans) == encode_spans(spans)
    except Exception as error:  # whatever has changed shows in its own way
        return f"encode_spans: {error!r}"
    return "" if same else "encode_spans encodes in another way"


def _warn(fault: str, instead: str) -> None:
    log.warning("opentelemetry %s is not as expected (%s): %s", __version__, fault, instead)


_STATE = TraceState([("a", "1"), ("b", "2")])
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
SAMPLE: dict[str, Any] = {
    "name": "sample",
    "context": SpanContext(1, 2, False, _SAMPLED, _STATE),
    "parent": SpanContext(1, 3, True, _SAMPLED, _STATE),
    "kind": SpanKind.CLIENT,
    "attributes": {"text": "a", "flag": True, "whole": 1, "real": 0.5, "texts": ("a", "b"), "long": "x" * 100},
    "events": (Event("first", {"text": "a"}, 5),),
    "status": Status(StatusCode.ERROR),
    "start_time": 4,
    "end_time": 6,
}
