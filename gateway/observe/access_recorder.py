"""What there is to say of each request that has ended, once, and of several at a time.

A metric, a span and a line of the log cost half as much right after those of another request; so they wait for one
another, for a moment.
"""

import asyncio

from gateway.config import LoggingConfig
from gateway.experiments.running import Experiments
from gateway.http.context import RequestContext
from gateway.observe.logs import RequestLog
from gateway.observe.metrics import Metrics
from gateway.observe.tracing import Tracer

MOMENT = 0.02  # seconds
MAX_SIZE = 32  # requests


class AccessRecorder:
    """Counts, traces and logs requests, and tells experiments of theirs. `logging` says whether each has its line."""

    def __init__(
        self, metrics: Metrics, tracer: Tracer, log: RequestLog, logging: LoggingConfig, experiments: Experiments
    ) -> None:
        self.log = log
        self.logging = logging
        self._metrics = metrics
        self._tracer = tracer
        self._experiments = experiments
        self._waiting: list[tuple[RequestContext, float, float]] = []

    def follow(self, logging: LoggingConfig) -> None:
        """Take over a changed `[logging]`."""
        self.logging = logging

    def add(self, context: RequestContext, now: float, wall: float, loop: asyncio.AbstractEventLoop | None) -> None:
        """Take a request that ended at a monotonic time, which was `wall` in Unix time."""
        self._waiting.append((context, now, wall))
        if len(self._waiting) >= MAX_SIZE or loop is None:
            self.flush()
        elif len(self._waiting) == 1:
            loop.call_later(MOMENT, self.flush)

    def flush(self) -> None:
        """Say what there is to say."""
        ended, self._waiting = self._waiting, []
        for context, now, wall in ended:
            self._metrics.record(context, now)
            self._tracer.record(context, context.trace, now, wall)
            self._experiments.record(context, now)
        self._metrics.count()
        if self.logging.requests:
            self.log.write(ended)
