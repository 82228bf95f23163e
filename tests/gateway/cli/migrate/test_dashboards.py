"""TGI's metrics by the gateway's names, in queries, dashboards, rules and autoscalers."""

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from gateway.cli.migrate import dashboards
from gateway.cli.migrate.fates import Fate
from gateway.cli.migrate.metric_names import METRICS, translated
from gateway.cli.migrate.readers import MetricsFile
from gateway.observe.gauges import KINDS
from tests.support.migrating import files

CASES = Path(__file__).with_name("cases")
GENERATES = 'operation=~"chat|text_completion"'

QUERIES: list[tuple[str, str]] = [
    ("tgi_queue_size", "pointsman_engine_waiting"),
    ('sum(tgi_queue_size{service="$s-tgi",namespace="n"})', "sum(pointsman_engine_waiting)"),
    ("rate(tgi_request_count[5m])", f"rate(pointsman_requests_total{{{GENERATES}}}[5m])"),
    ("tgi_request_success{pod=~'a.*'}", f'pointsman_requests_total{{{GENERATES}, outcome="ok"}}'),
    (
        'sum by (err) (rate(tgi_request_failure{err="generation"}[5m]))',
        f'sum by (outcome) (rate(pointsman_requests_total{{{GENERATES}, outcome!="ok"}}[5m]))',
    ),
    (
        'histogram_quantile(0.9, sum by (le) (rate(tgi_request_duration_bucket{container="x"}[10m])))',
        "histogram_quantile(0.9, sum by (le) (rate(gen_ai_server_request_duration_seconds_bucket[10m])))",
    ),
    ('tgi_request_duration_bucket{le="10"}', 'gen_ai_server_request_duration_seconds_bucket{le="10"}'),
    ("tgi_request_queue_duration_sum", 'pointsman_overhead_seconds_sum{stage="queue"}'),
    ("tgi_request_generated_tokens_sum", 'gen_ai_client_token_usage_sum{gen_ai_token_type="output"}'),
    ('tgi_batch_forward_duration_sum{method="decode"}', 'tgi_batch_forward_duration_sum{method="decode"}'),
    ("tgi_request_inference_duration_sum", "tgi_request_inference_duration_sum"),
    ("my_tgi_queue_size + vllm:tgi_queue_size", "my_tgi_queue_size + vllm:tgi_queue_size"),
    ('{__name__="tgi_queue_size",service="x"}', '{__name__="pointsman_engine_waiting",service="x"}'),
    ("{{err}}", "{{err}}"),
]


@pytest.mark.parametrize(("query", "expected"), QUERIES, ids=[query for query, _ in QUERIES])
def test_a_query_asks_for_the_gateways_metric_and_the_rest_stays(query: str, expected: str) -> None:
    assert translated(query)[0] == expected


def test_conditions_on_tgis_pods_are_named_when_they_go() -> None:
    (use,) = translated('tgi_queue_size{service="a", le="1"}')[1]
    assert use.gone == ('service="a"',)


def test_each_target_is_a_metric_of_the_gateways() -> None:
    """Gauges are in KINDS; counters and histograms in `observe.instruments`."""
    instruments = (Path(dashboards.__file__).parents[2] / "observe" / "instruments.py").read_text()
    for row in METRICS.values():
        assert not row.target or row.target in KINDS or f'"{row.target}"' in instruments


def test_every_metric_has_a_fate_and_a_reason_where_it_is_lost() -> None:
    assert all(row.why for row in METRICS.values() if not row.target)


def test_rules_and_autoscaler_of_one_file_are_translated_and_what_is_not_stays() -> None:
    made = files((CASES / "many.yaml").read_text())["in.pointsman"]
    autoscaler, rules = yaml.safe_load_all(made)
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == autoscaler["metadata"]["name"] == "chat-vllm"
    first, cpu = autoscaler["spec"]["metrics"]
    assert first["external"]["metric"] == {
        "name": dashboards.SATURATION,
        "selector": {"matchLabels": {"model": "Qwen/Qwen2.5-7B-Instruct"}},
    }
    assert first["external"]["target"] == {"type": "Value", "value": "800m"}
    assert cpu["resource"]["name"] == "cpu"
    slow, fails, batches = (rule["expr"] for rule in rules["spec"]["groups"][0]["rules"])
    assert slow.startswith(
        "histogram_quantile(0.9, sum by (le) (rate(gen_ai_server_request_duration_seconds_bucket[5m])"
    )
    assert fails.startswith("sum by (outcome)")
    assert batches == 'rate(tgi_batch_forward_duration_sum{method="decode"}[5m]) > 1'


def board(*queries: str) -> MetricsFile:
    panels = [{"title": f"tgi {place}", "targets": [{"expr": query}]} for place, query in enumerate(queries)]
    return MetricsFile("board.json", json.dumps({"panels": panels}, indent=1), is_json=True)


def test_a_dashboard_keeps_its_form_and_each_use_has_its_line() -> None:
    made = dashboards.translate([board("tgi_queue_size", "sum(tgi_batch_next_size_sum)", "tgi_queue_size")], {})
    assert [(row.source, row.fate, row.place.line) for row in made.rows] == [
        ("tgi_queue_size", Fate.MAPPED, 7),
        ("tgi_batch_next_size_sum", Fate.DROPPED, 15),
        ("tgi_queue_size", Fate.MAPPED, 23),
    ]
    panels = json.loads(made.files["board.pointsman.json"])["panels"]
    assert panels[0] == {"title": "tgi 0", "targets": [{"expr": "pointsman_engine_waiting"}]}
    assert panels[1]["targets"][0]["expr"] == "sum(tgi_batch_next_size_sum)"


def test_a_file_in_which_nothing_can_be_translated_is_not_written() -> None:
    assert dashboards.translate([board("tgi_batch_concat")], {}).files == {}


def test_a_name_that_a_rule_makes_is_lost_and_named() -> None:
    (row,) = dashboards.translate([board("tgi_request_latency")], {}).rows
    assert (row.fate, row.source) == (Fate.LOST, "tgi_request_latency")
