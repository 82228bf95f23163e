"""The counters and histograms there are, each with its labels and buckets.

Names, labels and buckets are those of OpenTelemetry's GenAI conventions where they have one ("Semantic conventions
for generative AI metrics"; dots are underscores here), with the deployment added; the rest begins with `pointsman_`.
"""

from typing import NamedTuple, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.http.context import Stage
from gateway.http.errors import Outcome
from gateway.observe.batches import Observations, Series
from gateway.observe.labels import GENERATIVE

DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS = tuple(4.0**power for power in range(14))
OVERHEAD = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0, 60.0)

STAGES = (*get_args(Stage), "connect", "translate", "first_byte")
GEN_AI = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
OF_DEPLOYMENT = (*GEN_AI, "deployment")
REQUEST = ("operation", "engine", "model", "deployment", "outcome")
GENERATES = frozenset(GENERATIVE.values())


class RequestLabels(NamedTuple):
    """What a request is counted under. All of it is from the configuration or a fixed set of words."""

    operation: str
    engine: str
    model: str
    deployment: str
    outcome: Outcome
    error: str


class GenerationSeries(NamedTuple):
    """The series of the requests of one kind that ask for an answer of a model's."""

    duration: Series
    tokens_in: Series | None  # these two where an engine was found
    tokens_out: Series | None
    first_token: Series | None  # these two of good answers alone
    per_token: Series | None


class GenAi:
    """Those that GenAI's conventions name."""

    def __init__(self, registry: CollectorRegistry, observations: Observations) -> None:
        self._series = observations.of
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "Time from the request's head to the end of its answer, in seconds.",
            (*OF_DEPLOYMENT, "error_type"),
            buckets=DURATION,
            registry=registry,
        )
        self._first_token = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "Time to first token of a stream, from the request's head to the engine's first event, in seconds.",
            OF_DEPLOYMENT,
            buckets=FIRST_TOKEN,
            registry=registry,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time per output token of a stream after its first event, in seconds.",
            OF_DEPLOYMENT,
            buckets=PER_TOKEN,
            registry=registry,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens per request: input (prompt) and output (completion).",
            (*GEN_AI, "gen_ai_token_type"),
            buckets=TOKENS,
            registry=registry,
        )

    def of(self, request: RequestLabels) -> GenerationSeries | None:
        """Return the series of requests that ask for an answer of a model's, and nothing for others."""
        if request.operation not in GENERATES:
            return None
        labels, of_deployment = request[:3], request[:4]
        ok, found = request.outcome == "ok", request.engine not in ("", "cache")
        return GenerationSeries(
            self._series(self._duration.labels(*of_deployment, request.error)),
            self._series(self._tokens.labels(*labels, "input")) if found else None,
            self._series(self._tokens.labels(*labels, "output")) if found else None,
            self._series(self._first_token.labels(*of_deployment)) if ok and found else None,
            self._series(self._per_token.labels(*of_deployment)) if ok and found else None,
        )


class Instruments:
    """All of them, in one registry."""

    def __init__(self, registry: CollectorRegistry, observations: Observations) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(name, what, labels, registry=registry)

        self.gen_ai = GenAi(registry, observations)
        self.requests = counter("pointsman_requests_total", "Requests by outcome.", *REQUEST)
        self.retries = counter(
            "pointsman_retries_total",
            "Attempts that were followed by another, by cause; hedged: another engine was faster.",
            *("deployment", "cause"),
        )
        self.cache = counter(
            "pointsman_cache_requests_total",
            "Requests by cache result: hit, miss, coalesced (shared another's answer in flight), bypass.",
            *("model", "result"),
        )
        self.limited = counter("pointsman_limited_total", "Requests refused for a limit of their API key.", "limit")
        self.shed = counter("pointsman_shed_total", "Requests refused with 503 as there was no room.")
        self.unchecked = counter("pointsman_limits_unchecked_total", "Requests let in while limits were not counted.")
        stages = Histogram(
            "pointsman_overhead_seconds",
            "Time in each stage of a request, in seconds; queue: the wait for room, first_byte: for the engine.",
            ("stage",),
            buckets=OVERHEAD,
            registry=registry,
        )
        self.stages = {stage: observations.of(stages.labels(stage)) for stage in STAGES}
