"""Real OTLP receivers, over HTTP and over gRPC, which keep what they are sent; one may be slow, or refuse."""

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector:
    """What a receiver has got. It answers with `status`, after `delay` seconds."""

    url: str = ""
    status: int = 200
    delay: float = 0.0
    paths: list[str] = field(default_factory=list)
    requests: list[ExportTraceServiceRequest] = field(default_factory=list)

    def take(self, data: bytes) -> None:
        """Keep what was sent, if it is taken."""
        time.sleep(self.delay)
        if self.status == 200:
            self.requests.append(ExportTraceServiceRequest.FromString(data))

    @property
    def spans(self) -> list[Span]:
        """The spans, in the order in which they came."""
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


def value(given: AnyValue) -> Any:
    """Return an attribute's value as Python's own."""
    kind = given.WhichOneof("value")
    if kind == "array_value":
        return [value(one) for one in given.array_value.values]
    return getattr(given, kind or "string_value")


def attributes(span: Any) -> dict[str, Any]:
    """Return the attributes of a span, an event or a resource."""
    return {one.key: value(one.value) for one in span.attributes}


@contextlib.contextmanager
def over_http(port: int = 0) -> Iterator[Collector]:
    """Run a receiver of OTLP over HTTP."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            collector.paths.append(self.path)
            collector.take(self.rfile.read(int(self.headers["content-length"])))
            with contextlib.suppress(OSError):
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

        def log_message(self, *said: Any) -> None: ...

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", port), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def over_grpc() -> Iterator[Collector]:
    """Run a receiver of OTLP over gRPC."""
    collector = Collector()

    class Servicer(TraceServiceServicer):
        def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
            collector.take(request.SerializeToString())
            return ExportTraceServiceResponse()

    server = grpc.server(futures.ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)
