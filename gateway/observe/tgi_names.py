"""The gateway's metrics under TGI's names, whichever engine serves (`[telemetry] tgi_names = true`).

What reads TGI's metrics today, such as dashboards, alerts and autoscalers, lives on through a switch to vLLM. Names,
labels and buckets are those of TGI's `router/src/server.rs` and `backends/v3/src`, and so are the definitions:

    tgi_request_duration                        from the request's head to the end of its answer
    tgi_request_validation_duration             until an engine is asked, less the wait for room
    tgi_request_queue_duration                  the wait for room at the gateway; an engine's own queue is not seen
    tgi_request_inference_duration              from when an engine is asked to the end
    tgi_request_mean_time_per_token_duration    that, divided by all tokens of the answer: the prefill is in it
    tgi_queue_size                              requests that wait, at the gateway and, as they say, at the engines
    tgi_batch_current_size                      requests that the engines work on, as they say

Only requests that ask a model for text count, as TGI serves nothing else. TGI counts the durations of good answers
alone, and so is it here. Two things differ: `tgi_request_count` is counted at the end of a request, and the bounds of
the token histograms are TGI's hundred steps of no one limit, but powers, as limits differ from engine to engine. What
happens inside a batch, the gateway cannot see: `tgi_batch_forward_duration` and its like are not here.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.http.context import RequestContext
from gateway.http.errors import Outcome, outcome
from gateway.observe.batches import Observations, Series
from gateway.observe.worker_snapshots import GaugeReading

DURATION = tuple(0.0001 * 1.5**power for power in range(1, 36))
TOKENS = tuple(sorted({round(1.25**power) for power in range(54)}))  # 1 to 137,000 and more
SERVED = frozenset({"chat", "text_completion"})

# TGI's word for a failure; for what TGI has none, that of the nearest cause.
FAILURES: dict[Outcome, str] = {
    "client_error": "validation",
    "client_left": "dropped",
    "rate_limited": "overloaded",
    "overloaded": "overloaded",
    "unreachable": "generation",
    "timeout": "incomplete",
    "engine_error": "generation",
    "internal": "generation",
    "aborted": "dropped",
}


class TgiNames:
    """Counts requests as TGI does."""

    def __init__(self, registry: CollectorRegistry, observations: Observations) -> None:
        def series(name: str, what: str, buckets: Sequence[float]) -> Series:
            return observations.of(Histogram(name, what, buckets=buckets, registry=registry))

        # Gauges, as this library ends a counter's name in _total, and TGI's has no such end; they only ever grow.
        def counter(name: str, what: str, *labels: str) -> Gauge:
            return Gauge(name, what, labels, registry=registry, multiprocess_mode="sum")

        self._count = counter("tgi_request_count", "Total number of requests.")
        self._success = counter("tgi_request_success", "Number of successful requests.")
        self._failure = counter("tgi_request_failure", "Number of failed requests.", "err")
        self._duration = series("tgi_request_duration", "Total time of the request.", DURATION)
        self._validation = series("tgi_request_validation_duration", "Time before the queue.", DURATION)
        self._queue = series("tgi_request_queue_duration", "Time in the gateway's queue.", DURATION)
        self._inference = series("tgi_request_inference_duration", "Time at the engine.", DURATION)
        self._per_token = series(
            "tgi_request_mean_time_per_token_duration", "Time at the engine, divided by all tokens.", DURATION
        )
        self._input = series("tgi_request_input_length", "Input token length per request.", TOKENS)
        self._generated = series("tgi_request_generated_tokens", "Generated tokens per request.", TOKENS)

    def record(self, operation: str, context: RequestContext, now: float) -> None:
        """Count a request that ended at a monotonic time, if its operation is to ask a model for text."""
        if operation not in SERVED:
            return
        self._count.inc()
        ended = outcome(context.failure)
        if ended != "ok":
            self._failure.labels(FAILURES[ended]).inc()
            return
        self._success.inc()
        if context.timing.sent_at:  # else no engine was asked: the cache answered
            self._good(context, now)

    def _good(self, context: RequestContext, now: float) -> None:
        timing, usage = context.timing, context.usage
        queued = sum(took for stage, took in timing.stages if stage == "queue")
        inference = now - timing.sent_at
        self._duration.observe(now - timing.began)
        self._validation.observe(max(timing.sent_at - timing.began - queued, 0.0))
        self._queue.observe(queued)
        self._inference.observe(inference)
        if usage is None:
            return
        if usage.prompt_tokens >= 0:
            self._input.observe(usage.prompt_tokens)
        if usage.completion_tokens > 0:
            self._generated.observe(usage.completion_tokens)
            self._per_token.observe(inference / usage.completion_tokens)


class TgiGauges(Collector):
    """What holds at this moment, under TGI's names; `read` returns the readings of all workers."""

    def __init__(self, read: Callable[[], Iterable[GaugeReading]]) -> None:
        self._read = read

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges."""
        readings = list(self._read())
        waiting = sum(one.value for one in readings if one.gauge == "pointsman_waiting")
        sizes = {
            "tgi_queue_size": ("Current queue size.", waiting + at_engines(readings, "pointsman_engine_waiting")),
            "tgi_batch_current_size": ("Current batch size.", at_engines(readings, "pointsman_engine_running")),
        }
        for name, (what, size) in sizes.items():
            made = GaugeMetricFamily(name, what)
            made.add_metric((), size)
            yield made


def at_engines(readings: Iterable[GaugeReading], gauge: str) -> float:
    """Return the sum over all deployments of an engine's own figure; each worker has asked the same engine."""
    found: dict[tuple[str, ...], float] = {}
    for one in readings:
        if one.gauge == gauge:
            found[one.labels] = max(found.get(one.labels, 0.0), one.value)
    return sum(found.values())
