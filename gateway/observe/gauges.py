"""What holds at this moment: requests in flight and waiting, the deployments' health, the engines' own figures.

They are read where they are, when somebody asks, so that none is stale and a deployment that is gone has none.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.cache.policy import Cache
from gateway.observe.saturation import Saturation
from gateway.observe.worker_snapshots import GaugeReading
from gateway.proxy.admission import Admission
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Catalog

DEPLOYMENT = ("deployment", "engine")


class RedisHealth(Protocol):
    """Knows whether Redis answers."""

    @property
    def up(self) -> bool: ...  # noqa: D102


class SpanCounts(Protocol):
    """Counts the spans that reached the collector, and those that did not."""

    @property
    def sent(self) -> int: ...  # noqa: D102

    @property
    def lost(self) -> int: ...  # noqa: D102


class Kind(NamedTuple):
    """A gauge: what it says, its labels, and how several workers' figures become one."""

    help: str
    labels: tuple[str, ...]
    together: Callable[[Iterable[float]], float]


# The engines' own have one name for all engines (vLLM and TGI call them differently: `backends.loads`). Each worker
# asks the same engine, at times of its own, so theirs are not added up.
KINDS: dict[str, Kind] = {
    "pointsman_in_flight": Kind("Requests in flight; one that is retried counts once.", (), sum),
    "pointsman_waiting": Kind("Requests waiting in the admission queue.", (), sum),
    "pointsman_deployment_in_flight": Kind("Attempts in flight at a deployment.", DEPLOYMENT, sum),
    "pointsman_model_ready": Kind("1 if a model has a deployment that takes requests.", ("model",), max),
    "pointsman_model_saturation_ratio": Kind(
        "Requests in flight and waiting, over what a model's engines work on at once: by `over`, their slots, or what "
        "they last sustained.",
        ("model", "over"),
        sum,
    ),
    "pointsman_deployment_up": Kind("1 if a deployment is up.", DEPLOYMENT, max),
    "pointsman_breaker_open": Kind("1 if the circuit breaker of a deployment is open in any worker.", DEPLOYMENT, max),
    "pointsman_spans_sent_total": Kind("Spans that the collector has accepted.", (), sum),
    "pointsman_spans_dropped_total": Kind("Spans dropped: the collector was down, or the queue full.", (), sum),
    "pointsman_cache_entries": Kind("Answers in the memory cache.", (), sum),
    "pointsman_cache_bytes": Kind("Bytes in the memory cache.", (), sum),
    "pointsman_cache_evicted_total": Kind("Answers evicted from the memory cache, or not admitted to it.", (), sum),
    "pointsman_cache_faults_total": Kind("Cached answers that could not be used, by what was wrong.", ("kind",), sum),
    "pointsman_experiment_ratio": Kind(
        "Ratio of a metric, treatment over control, with its bounds (low, estimate, high).",
        ("experiment", "metric", "bound"),
        max,
    ),
    "pointsman_experiment_verdict": Kind(
        "1 for the verdict of an experiment: success, failure, inconclusive.", ("experiment", "verdict"), max
    ),
    "pointsman_experiment_judgement": Kind(
        "1 for the verdict of one of its metrics, such as better or worse.", ("experiment", "metric", "verdict"), max
    ),
    "pointsman_experiment_held": Kind("1 if gateways have different files for an experiment.", ("experiment",), max),
    "pointsman_experiment_record_up": Kind("1 if what is counted of experiments can be kept.", (), min),
    "pointsman_redis_up": Kind("1 if Redis answers, by what it is used for.", ("use",), min),
    "pointsman_engine_running": Kind("Requests running, as the engine reports.", DEPLOYMENT, max),
    "pointsman_engine_waiting": Kind("Requests waiting, as the engine reports.", DEPLOYMENT, max),
    "pointsman_engine_kv_use_ratio": Kind("Share of the KV cache in use, as the engine reports.", DEPLOYMENT, max),
    "pointsman_engine_prefix_queries_total": Kind("Tokens looked up in the engine's prefix cache.", DEPLOYMENT, max),
    "pointsman_engine_prefix_hits_total": Kind("Tokens found in the engine's prefix cache.", DEPLOYMENT, max),
}


def readings(
    catalog: Catalog,
    admission: Admission,
    cache: Cache | None,
    spans: SpanCounts,
    redis: Mapping[str, RedisHealth],
    clock: Callable[[], float],
    saturation: Saturation,
    experiments: Callable[[], Iterable[GaugeReading]],
) -> Iterator[GaugeReading]:
    """Return this worker's figures; `redis` is who uses it, by what for, and `clock` monotonic."""
    now = clock()
    yield GaugeReading("pointsman_in_flight", (), admission.in_flight)
    yield GaugeReading("pointsman_waiting", (), admission.waiting)
    yield GaugeReading("pointsman_spans_sent_total", (), spans.sent)
    yield GaugeReading("pointsman_spans_dropped_total", (), spans.lost)
    yield from experiments()
    if cache is not None:
        yield from _of_cache(cache)
    for name, entry in catalog.routes.items():
        yield GaugeReading("pointsman_model_ready", (name,), float(entry.ready(now)))
    yield from saturation.readings(catalog, admission)
    for use, user in redis.items():
        yield GaugeReading("pointsman_redis_up", (use,), float(user.up))
    for endpoint in catalog.endpoints:
        yield from _of(endpoint, now)


def _of_cache(cache: Cache) -> Iterator[GaugeReading]:
    held = cache.store.held()
    yield GaugeReading("pointsman_cache_entries", (), held.entries)
    yield GaugeReading("pointsman_cache_bytes", (), held.bytes)
    yield GaugeReading("pointsman_cache_evicted_total", (), cache.store.memory.evicted)
    for kind, count in cache.store.faults.items():
        yield GaugeReading("pointsman_cache_faults_total", (kind,), count)


def _of(endpoint: Endpoint, now: float) -> Iterator[GaugeReading]:
    labels = (endpoint.name, endpoint.engine)
    figures = endpoint.figures
    for name, value in (
        ("pointsman_deployment_in_flight", endpoint.in_flight),
        ("pointsman_deployment_up", endpoint.up),
        ("pointsman_breaker_open", not endpoint.breaker.allows(now)),
        ("pointsman_engine_running", figures.running),
        ("pointsman_engine_waiting", figures.waiting),
        ("pointsman_engine_kv_use_ratio", figures.kv_use),
        ("pointsman_engine_prefix_queries_total", figures.prefix_queries),
        ("pointsman_engine_prefix_hits_total", figures.prefix_hits),
    ):
        if value is not None:
            yield GaugeReading(name, labels, float(value))


class GaugeCollector(Collector):
    """Hands the figures of all workers to prometheus_client."""

    def __init__(self) -> None:
        self.readings: Sequence[GaugeReading] = ()

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Return the gauges, each series once."""
        found: dict[str, dict[tuple[str, ...], list[float]]] = {name: {} for name in KINDS}
        for reading in self.readings:
            found[reading.gauge].setdefault(reading.labels, []).append(reading.value)
        for name, series in found.items():
            kind = KINDS[name]
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            made = family(name, kind.help, labels=kind.labels)
            for labels, values in series.items():
                made.add_metric(labels, kind.together(values))
            yield made
