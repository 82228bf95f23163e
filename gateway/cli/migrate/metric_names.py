"""TGI's metrics by the gateway's engine-neutral names, in PromQL and wherever else a name stands.

TGI's are in its `router/src/server.rs` and `backends/v3/src`; the gateway's in `gateway.observe`. The labels that
Prometheus puts on TGI's pods (service, pod, container …) name other targets than the gateway's: such conditions go.
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from gateway.cli.migrate.fates import Fate

KEPT = "; [telemetry] tgi_names = true keeps the name"


class MetricRow(Struct, frozen=True):
    """What a metric of TGI's is at the gateway. `condition` is added to its selector; `labels` are renamed in it."""

    fate: Fate
    target: str = ""
    condition: str = ""
    why: str = ""
    labels: dict[str, str] = {}


_GENERATES = 'operation=~"chat|text_completion"'
_NO_PHASES = "of a batch inside TGI; no engine-neutral figure is like it: take the panel out"
_TOKENS = "gen_ai_client_token_usage"

METRICS: dict[str, MetricRow] = {
    "tgi_queue_size": MetricRow(
        Fate.MAPPED,
        "pointsman_engine_waiting",
        why="vLLM's queue fills past --max-num-seqs alone: a copied threshold never fires. Set it anew, or take "
        "pointsman_model_saturation_ratio",
    ),
    "tgi_batch_current_size": MetricRow(Fate.MAPPED, "pointsman_engine_running"),
    "tgi_batch_current_max_tokens": MetricRow(
        Fate.MAPPED, "pointsman_engine_kv_use_ratio", why="a share from 0 to 1, in the place of tokens"
    ),
    "tgi_request_count": MetricRow(
        Fate.MAPPED, "pointsman_requests_total", _GENERATES, why="counted at the end; TGI counts at the beginning"
    ),
    "tgi_request_success": MetricRow(Fate.MAPPED, "pointsman_requests_total", f'{_GENERATES}, outcome="ok"'),
    "tgi_request_failure": MetricRow(
        Fate.MAPPED,
        "pointsman_requests_total",
        f'{_GENERATES}, outcome!="ok"',
        why="other words in another label: err is outcome (client_error, overloaded, engine_error …)",
        labels={"err": "outcome"},
    ),
    "tgi_request_duration": MetricRow(
        Fate.MAPPED, "gen_ai_server_request_duration_seconds", why="other buckets: a quantile differs by their width"
    ),
    "tgi_request_queue_duration": MetricRow(
        Fate.MAPPED, "pointsman_overhead_seconds", 'stage="queue"', why="the gateway's queue; the engine's is not in it"
    ),
    "tgi_request_mean_time_per_token_duration": MetricRow(
        Fate.MAPPED,
        "gen_ai_server_time_per_output_token_seconds",
        why="streams alone, without the first token; TGI divides the prefill, too, by all tokens: set thresholds anew",
    ),
    "tgi_request_input_length": MetricRow(Fate.MAPPED, _TOKENS, 'gen_ai_token_type="input"'),
    "tgi_request_generated_tokens": MetricRow(Fate.MAPPED, _TOKENS, 'gen_ai_token_type="output"'),
    "tgi_request_inference_duration": MetricRow(Fate.LOST, why=f"the gateway has it under TGI's name alone{KEPT}"),
    "tgi_request_validation_duration": MetricRow(Fate.LOST, why=f"the gateway has it under TGI's name alone{KEPT}"),
    "tgi_request_max_new_tokens": MetricRow(Fate.DROPPED, why="the gateway does not count what was asked for"),
    "tgi_request_skipped_tokens": MetricRow(Fate.DROPPED, why="vLLM's own: vllm:spec_decode_num_accepted_tokens_total"),
    "tgi_batch_max_total_tokens": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_total_tokens": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_next_size": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_concat": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_inference_count": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_inference_success": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_inference_failure": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_inference_duration": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_forward_duration": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_decode_duration": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_filter_duration": MetricRow(Fate.DROPPED, why=_NO_PHASES),
    "tgi_batch_concat_duration": MetricRow(Fate.DROPPED, why=_NO_PHASES),
}
UNKNOWN_METRIC = MetricRow(Fate.LOST, why="not TGI's own (a rule makes it?): translate it where it is made")

_HISTOGRAM = ("_bucket", "_sum", "_count")
_OWN = ("method", "err", "reason", "le")  # TGI's own labels, and a bucket's
_USE = re.compile(r"(?<![\w:])(tgi_(?:queue|batch|request)_[a-z_]+)(\s*\{[^{}]*\})?")
_MATCHER = re.compile(r"""(\w+)\s*(=~|!~|!=|=)\s*("(?:\\.|[^"\\])*"|'[^']*')""")
_BY_ERR = re.compile(r"\b(by|without)\s*\(([^)]*)\berr\b")


class MetricUse(Struct, frozen=True):
    """One place where a metric of TGI's is named, and what is there now; the conditions that went away with it."""

    name: str
    target: str
    row: MetricRow
    gone: tuple[str, ...] = ()


def metric(name: str) -> tuple[MetricRow, str]:
    """Return the row of a name and what a histogram's series adds to it; other names are UNKNOWN_METRIC."""
    if name in METRICS:
        return METRICS[name], ""
    for suffix in _HISTOGRAM:
        if (base := name.removesuffix(suffix)) != name and base in METRICS:
            return METRICS[base], suffix
    return UNKNOWN_METRIC, ""


def translated(text: str) -> tuple[str, list[MetricUse]]:
    """Return a text with TGI's metrics by the gateway's names, and what was found; the rest stays as it is."""
    uses: list[MetricUse] = []

    def replace(match: re.Match[str]) -> str:
        use, written = _use(match[1], match[2] or "", quoted=text[: match.start()].endswith(('"', "'")))
        uses.append(use)
        return written

    changed = _USE.sub(replace, text)
    if any(use.row.labels for use in uses):
        changed = _BY_ERR.sub(r"\1 (\2outcome", changed).replace("{{err}}", "{{outcome}}")
    return changed, uses


def _use(name: str, selector: str, quoted: bool) -> tuple[MetricUse, str]:
    """Return what became of one use, and the text in its place. In quotes there is no room for a condition."""
    row, suffix = metric(name)
    if not row.target:
        return MetricUse(name, "", row), name + selector
    matchers = list(_matchers(selector, row))
    kept = [one for one, stays in matchers if stays]
    conditions = [*([row.condition] if row.condition and not quoted else []), *kept]
    written = row.target + suffix + (f"{{{', '.join(conditions)}}}" if conditions else "")
    gone = tuple(one for one, stays in matchers if not stays)
    return MetricUse(name, written, row, gone), written


def _matchers(selector: str, row: MetricRow) -> Iterator[tuple[str, bool]]:
    """Yield the conditions of a selector by the new labels' names, and whether each stays."""
    for label, sign, value in _MATCHER.findall(selector):
        # Other words for failures: a condition on them cannot stay either.
        yield f"{label}{sign}{value}", label in _OWN and label not in row.labels
