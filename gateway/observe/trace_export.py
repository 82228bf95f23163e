"""Sends spans to the collector: in batches, over OTLP, on a thread of the SDK's.

A collector that is slow or gone does not slow requests down: no more than `MAX_WAITING` spans wait. Those that find
the queue full, or cannot be sent, are dropped and counted; the first failure, and the recovery, are logged.

What is used of the SDK here is public, but for two guesses that do no harm where they are wrong: an exporter logs by
the name of its module (else each failure is logged), and takes a batch by its iterator (else a batch is encoded in one
go, and delays other requests by some milliseconds).
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from threading import Thread

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from gateway.config.tables import TelemetryConfig
from gateway.observe.otel_internals import use_fast_encoder

MAX_WAITING = 2048  # spans
BATCH = 512
YIELD = 64  # spans, which take two milliseconds to encode
PERIOD = 1.0  # seconds, for which a span may wait for others
TIMEOUT = 5.0  # seconds, for one batch with the exporter's own retries
GRACE = 3.0  # seconds, for the spans that are left at the end

log = logging.getLogger("pointsman")


class SpanQueue:
    """Takes spans and has them sent. `sent` and `lost` count them; `where` names the collector in the log."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._exporter = _CountingExporter(exporter, where)
        self._processor: SpanProcessor = BatchSpanProcessor(self._exporter, MAX_WAITING, PERIOD * 1000, BATCH)
        self._queued = 0
        self._refused = 0

    @property
    def sent(self) -> int:
        """How many spans the collector has taken."""
        return self._exporter.sent

    @property
    def lost(self) -> int:
        """How many spans found no room, or could not be sent."""
        return self._refused + self._exporter.failed

    def put(self, spans: Sequence[ReadableSpan]) -> None:
        """Queue the spans of a request, all of them or none: half a trace misleads."""
        if self._queued + len(spans) - self._exporter.taken > MAX_WAITING:
            self._refused += len(spans)
            return
        self._queued += len(spans)
        for span in spans:
            self._processor.on_end(span)

    async def close(self) -> None:
        """Send what is left, for `GRACE` seconds at most; the threads are daemons, so they hold up no exit."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._processor.shutdown()
            with suppress(RuntimeError):  # the loop is closed already
                loop.call_soon_threadsafe(sent.set)

        Thread(target=send, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await sent.wait()


class _CountingExporter(SpanExporter):
    """Counts what an exporter does, and logs its first failure and its recovery: exporters log each failure."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self.taken = self.sent = self.failed = 0
        self._exporter = exporter
        self._where = where
        self._healthy = True
        self._muted = _MutedLog(exporter)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        self.taken += len(spans)
        self._muted.first = ""
        try:
            result = self._exporter.export(_YieldingBatch(spans))
        except Exception as error:
            self._muted.first = repr(error)
            result = SpanExportResult.FAILURE
        healthy = result is SpanExportResult.SUCCESS
        self.sent += len(spans) if healthy else 0
        self.failed += 0 if healthy else len(spans)
        self._log(healthy)
        return result

    def _log(self, healthy: bool) -> None:
        if healthy and not self._healthy:
            log.info("spans reach %s again; %d were dropped", self._where, self.failed)
        elif self._healthy and not healthy:
            log.warning("spans do not reach %s, and are dropped until they do: %s", self._where, self._muted.first)
        self._healthy = healthy

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()
        self._muted.close()


class _YieldingBatch(list[ReadableSpan]):
    """A batch that lets the event loop run now and then: to encode all of it takes many milliseconds."""

    def __iter__(self) -> Iterator[ReadableSpan]:
        for index, span in enumerate(super().__iter__()):
            if index % YIELD == 0:
                time.sleep(0)
            yield span


class _MutedLog(logging.Filter):
    """Keeps an exporter's messages out of the log; `first` is its first one on a batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__()
        self.first = ""
        # Each of its classes logs under the name of its module.
        self._loggers = [logging.getLogger(kind.__module__) for kind in type(exporter).__mro__]
        for logger in self._loggers:
            logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a message."""
        self.first = self.first or record.getMessage()
        return False

    def close(self) -> None:
        """Let the messages through again."""
        for logger in self._loggers:
            logger.removeFilter(self)


def exporter(telemetry: TelemetryConfig) -> SpanExporter:
    """Return the exporter of the configured protocol. Each is imported where it is used: gRPC takes 8 MiB more."""
    if telemetry.otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415

        use_fast_encoder(grpc)
        return grpc.OTLPSpanExporter(endpoint=telemetry.otlp_endpoint, timeout=TIMEOUT)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415

    use_fast_encoder(http)
    return http.OTLPSpanExporter(endpoint=telemetry.otlp_endpoint.rstrip("/") + "/v1/traces", timeout=TIMEOUT)
