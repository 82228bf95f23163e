"""The queries of the dashboard and of the alerts: they parse, and each series, label and value they name exists."""

import json
from pathlib import Path
from typing import get_args

import pytest

from gateway.http.errors import Outcome
from gateway.observe.instruments import STAGES
from tests.deploy.promql import conditions, grouped, series
from tests.deploy.promtool import dashboard, promtool, rules
from tests.deploy.series import scrape

# Series that the queries may name although no gateway has them yet: take each away as it comes.
AWAITED: dict[str, set[str]] = {}

OF_PROMETHEUS = {"up": {"job"}, "ALERTS": {"alertname", "alertstate"}}
SCRAPED = {"instance", "job"}  # labels that each series has from its scrape
CLIENTS = {"ok", "client_error", "client_left", "rate_limited"}  # the other outcomes are errors of the service
WORDS = {
    "outcome": set(get_args(Outcome)),
    "stage": set(STAGES),
    "use": {"limits", "cache"},
    "result": {"hit", "miss", "coalesced", "bypass"},
    "gen_ai_token_type": {"input", "output"},
    "gen_ai_provider_name": {"", "cache"},
    "job": {"pointsman"},
    "alertname": {"Pointsman.+"},
    "alertstate": {"firing"},
}
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h", "$model": "m", "$engine": "vllm"}


def drawn() -> list[str]:
    read = dashboard()
    targets = [target for panel in read["panels"] for target in panel.get("targets", [])]
    return [query["expr"] for query in (*targets, *read["annotations"]["list"])]


QUERIES = {"dashboard": drawn(), "alerts": [rule["expr"] for rule in rules()]}


@pytest.mark.parametrize("where", QUERIES)
async def test_each_series_and_label_of_a_query_is_one_that_the_gateway_has(where: str) -> None:
    recorded = {rule["record"]: grouped(rule["expr"]) for rule in rules() if "record" in rule}
    known = await scrape() | AWAITED | OF_PROMETHEUS | recorded
    for query in QUERIES[where]:
        read = series(query)
        assert read, query
        assert read <= known.keys(), query
        assert grouped(query) <= SCRAPED.union(*(known[one] for one in read)), query
        for one, label, _ in conditions(query):
            assert label in known[one], query


@pytest.mark.parametrize("where", QUERIES)
def test_each_word_that_a_query_asks_for_is_one_that_its_label_can_have(where: str) -> None:
    for query in QUERIES[where]:
        for _, label, value in conditions(query):
            if not value.startswith("$"):
                assert set(value.split("|")) <= WORDS[label], query


@pytest.mark.parametrize("where", QUERIES)
def test_errors_are_all_outcomes_but_good_ones_and_those_that_are_the_clients(where: str) -> None:
    asked = {value for query in QUERIES[where] for _, label, value in conditions(query) if label == "outcome"}
    assert [set(value.split("|")) for value in asked] == [WORDS["outcome"] - CLIENTS]


def test_each_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    written = []
    for number, query in enumerate(QUERIES["dashboard"]):
        for variable, value in VARIABLES.items():
            query = query.replace(variable, value)  # noqa: PLW2901
        assert "$" not in query
        written.append({"record": f"query:{number}", "expr": query})
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "queries", "rules": written}]}))
    assert f"SUCCESS: {len(written)} rules found" in promtool("check", "rules", path)


@pytest.mark.parametrize(
    ("query", "names", "labels"),
    [
        (
            'sum by (a, b) (rate(x_total{c="d|e", f=~"$f"}[5m])) / on () group_left () count(y) or vector(0)',
            "x_total y",
            "a b",
        ),
        ("max by (a) (x) == 0 unless on (b) (m:x:p95 and z >= 1e3)", "x m:x:p95 z", "a b"),
    ],
)
def test_what_a_query_names_is_read_from_it(query: str, names: str, labels: str) -> None:
    assert (series(query), grouped(query)) == (set(names.split()), set(labels.split()))
