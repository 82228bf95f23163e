"""The way of spans to the collector: in batches, over OTLP, on a thread of the SDK's.

A collector that is slow or gone costs the requests nothing: no more than `MAX_WAITING` spans wait, and what finds no
room, or cannot be sent, is lost, counted, and told of once.
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
from gateway.observe.trace_wire import quicken

MAX_WAITING = 2048  # spans
BATCH = 512
YIELD = 64  # spans, which take two milliseconds to write
PERIOD = 1.0  # seconds; how long a span may wait for others
TIMEOUT = 5.0  # seconds, of one batch with all that the exporter tries again
GRACE = 3.0  # seconds, for what is left at the end

log = logging.getLogger("pointsman")


class SpanQueue:
    """Takes spans and has them sent. `sent` and `lost` count them."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self._sender = _Sender(exporter, where)
        self._sends: SpanProcessor = BatchSpanProcessor(self._sender, MAX_WAITING, PERIOD * 1000, BATCH)
        self._given = 0
        self._refused = 0

    @property
    def sent(self) -> int:
        """How many spans the collector has taken."""
        return self._sender.sent

    @property
    def lost(self) -> int:
        """How many spans found no room, or could not be sent."""
        return self._refused + self._sender.failed

    def put(self, spans: Sequence[ReadableSpan]) -> None:
        """Have spans sent, all of them or none: half a trace misleads."""
        if self._given + len(spans) - self._sender.taken > MAX_WAITING:
            self._refused += len(spans)
            return
        self._given += len(spans)
        for span in spans:
            self._sends.on_end(span)

    async def close(self) -> None:
        """Send what is left, for a moment; the threads are daemons, and nothing waits for them any longer."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._sends.shutdown()
            with suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(sent.set)

        Thread(target=send, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(GRACE):
                await sent.wait()


class _Sender(SpanExporter):
    """Counts what an exporter does, and tells of its failure once: the exporters tell of each."""

    def __init__(self, exporter: SpanExporter, where: str) -> None:
        self.taken = self.sent = self.failed = 0
        self._exporter = exporter
        self._where = where
        self._well = True
        self._words = _Words(exporter)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch."""
        self.taken += len(spans)
        self._words.first = ""
        try:
            result = self._exporter.export(_Yielding(spans))
        except Exception as error:
            self._words.first = repr(error)
            result = SpanExportResult.FAILURE
        well = result is SpanExportResult.SUCCESS
        self.sent += len(spans) if well else 0
        self.failed += 0 if well else len(spans)
        self._tell(well)
        return result

    def _tell(self, well: bool) -> None:
        if well and not self._well:
            log.info("spans reach %s again; %d were lost", self._where, self.failed)
        elif self._well and not well:
            log.warning("spans do not reach %s, and are lost until they do: %s", self._where, self._words.first)
        self._well = well

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()
        self._words.close()


class _Yielding(list[ReadableSpan]):
    """A batch that lets the event loop go on now and then: to write it all takes many milliseconds."""

    def __iter__(self) -> Iterator[ReadableSpan]:
        for place, span in enumerate(super().__iter__()):
            if place % YIELD == 0:
                time.sleep(0)
            yield span


class _Words(logging.Filter):
    """Keeps what an exporter has to say out of the log, but for its first words on a batch."""

    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__()
        self.first = ""
        # Each of its classes logs under the name of its module.
        self._loggers = [logging.getLogger(kind.__module__) for kind in type(exporter).__mro__]
        for logger in self._loggers:
            logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the words."""
        self.first = self.first or record.getMessage()
        return False

    def close(self) -> None:
        """Let others hear them again."""
        for logger in self._loggers:
            logger.removeFilter(self)


def exporter(telemetry: TelemetryConfig) -> SpanExporter:
    """Return the exporter that the configuration names. Each is imported where it is used: gRPC takes 8 MiB more."""
    if telemetry.otlp_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415

        quicken(grpc)
        return grpc.OTLPSpanExporter(endpoint=telemetry.otlp_endpoint, timeout=TIMEOUT)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415

    quicken(http)
    return http.OTLPSpanExporter(endpoint=telemetry.otlp_endpoint.rstrip("/") + "/v1/traces", timeout=TIMEOUT)
