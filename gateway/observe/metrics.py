"""Prometheus metrics: each request is counted here once, when it has ended, from its RequestContext.

The series of a set of labels are looked up once and kept, as a look-up costs more than the counting.
With several workers the library keeps counters in files (in `PROMETHEUS_MULTIPROC_DIR`, which it reads when it is
imported), so that any worker can answer for all, and what a worker has counted outlives it.
"""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from gateway.http.context import RequestContext
from gateway.http.errors import error_type, outcome
from gateway.observe.batches import Observations
from gateway.observe.gauges import GaugeCollector
from gateway.observe.instruments import GenerationSeries, Instruments, RequestLabels
from gateway.observe.labels import operation
from gateway.observe.prometheus_internals import counting
from gateway.observe.tgi_names import TgiGauges, TgiNames
from gateway.observe.worker_snapshots import GaugeReading, WorkerSnapshots

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4.encode()
INTERVAL = 1.0  # seconds, in which a worker tells the others how it is doing


class Shedding(Protocol):
    """Counts the requests that it turned away."""

    shed: int


class Limiting(Protocol):
    """Counts the requests that it let in without having counted them."""

    unchecked: int


class Metrics:
    """The metrics of one worker. `shared` is the directory that all workers share; None if there is but one.

    `read` returns the live figures of this worker, `wall` Unix time in seconds. `tgi_names`: TGI's, too.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[GaugeReading]],
        admission: Shedding,
        limiter: Limiting,
        wall: Callable[[], float],
        shared: Path | None = None,
        tgi_names: bool = False,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the text, and nobody looks at them
        registry = CollectorRegistry()
        self._read = read
        self._admission = admission
        self._limiter = limiter
        self._wall = wall
        self._board = WorkerSnapshots(shared) if shared else None
        self._observations = Observations(counting())
        self._instruments = Instruments(registry, self._observations)
        self._tgi = TgiNames(registry, self._observations) if tgi_names else None
        self._known: dict[RequestLabels, tuple[Counter, GenerationSeries | None]] = {}
        self._cached: dict[tuple[str, str], Counter] = {}
        self._shed = self._unchecked = 0
        if shared:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, str(shared))  # type: ignore[no-untyped-call]
        self._live = GaugeCollector()
        registry.register(self._live)
        if tgi_names:
            registry.register(TgiGauges(lambda: self._live.readings))
        self._shown = registry

    # --- one request ----------------------------------------------------------------------------------------------

    def record(self, context: RequestContext, now: float) -> None:
        """Count a request that ended at a monotonic time, unless it is an operator's."""
        doing = operation(context.path)
        if not doing:
            return
        engine, deployment = context.served_by
        failure = context.failure
        request = RequestLabels(doing, engine, context.model, deployment, outcome(failure), error_type(failure))
        requests, generated = self._known.get(request) or self._new(request)
        requests.inc()
        if context.cache:
            self._of_cache(context.model, context.cache).inc()
        stages = self._instruments.stages
        for stage, took in context.timing.stages:
            stages[stage].observe(took)
        if generated is not None:
            self._generated(context, generated, now)
        if self._tgi is not None:
            self._tgi.record(doing, context, now)
        if request.outcome != "ok" or len(context.attempts) > 1:
            self._troubles(context, request)

    def count(self) -> None:
        """Count what the requests since the last call took: together, as that costs less."""
        self._observations.count()

    def connected(self, took: float) -> None:
        """Count a new connection to an engine, which took so many seconds; most requests need none."""
        self._instruments.stages["connect"].observe(took)

    def _of_cache(self, model: str, result: str) -> Counter:
        known = self._cached.get((model, result))
        if known is None:
            known = self._cached[model, result] = self._instruments.cache.labels(model, result)
        return known

    def _new(self, request: RequestLabels) -> tuple[Counter, GenerationSeries | None]:
        found = self._known[request] = (
            self._instruments.requests.labels(*request[:5]),
            self._instruments.gen_ai.of(request),
        )
        return found

    def _generated(self, context: RequestContext, series: GenerationSeries, now: float) -> None:
        series.duration.observe(now - context.timing.began)
        usage = context.usage
        if usage is not None and series.tokens_in is not None and series.tokens_out is not None:
            if usage.prompt_tokens >= 0:
                series.tokens_in.observe(usage.prompt_tokens)
            if usage.completion_tokens >= 0:
                series.tokens_out.observe(usage.completion_tokens)
        if context.failure is not None or not context.timing.sent_at:
            return
        first = context.timing.first_event_at or context.timing.received_at
        self._instruments.stages["first_byte"].observe(first - context.timing.sent_at)
        if context.timing.answered_at >= first:  # else the answer was begun before, to keep the connection alive
            before = context.timing.sent_at - context.attempts[0].began
            self._instruments.stages["translate"].observe(before + context.timing.answered_at - first)
        if context.timing.first_event_at and series.first_token is not None and series.per_token is not None:
            series.first_token.observe(first - context.timing.began)
            if usage is not None and usage.completion_tokens > 1:
                series.per_token.observe((context.timing.received_at - first) / (usage.completion_tokens - 1))

    def _troubles(self, context: RequestContext, request: RequestLabels) -> None:
        last = context.answering or (context.attempts[-1] if context.attempts else None)
        for attempt in context.attempts:
            if attempt is not last:
                cause = outcome(attempt.failure)
                self._instruments.retries.labels(
                    attempt.candidate.endpoint.name, "hedged" if cause == "aborted" else cause
                ).inc()
        if request.outcome == "rate_limited" and not context.attempts:
            self._instruments.limited.labels(getattr(context.failure, "type", "")).inc()

    # --- all of them ----------------------------------------------------------------------------------------------

    async def text(self) -> bytes:
        """Return the metrics of all workers, in Prometheus' text format 0.0.4.

        With many deployments they are thousands of lines: they are written in a thread, so that no stream stutters.
        """
        self.refresh()
        self._live.readings = self._board.all(self._wall()) if self._board else list(self._read())
        return await asyncio.to_thread(generate_latest, self._shown)

    async def run(self) -> None:
        """Tell the other workers how this one is doing, until cancelled."""
        try:
            while True:
                self.refresh()
                await asyncio.sleep(INTERVAL)
        finally:
            if self._board is not None:
                self._board.leave()

    def refresh(self) -> None:
        """Take over what is counted elsewhere, and lay down the live figures for the other workers."""
        self.count()
        shed, unchecked = self._admission.shed, self._limiter.unchecked
        self._instruments.shed.inc(shed - self._shed)
        self._instruments.unchecked.inc(unchecked - self._unchecked)
        self._shed, self._unchecked = shed, unchecked
        if self._board is not None:
            self._board.put(list(self._read()), self._wall())
