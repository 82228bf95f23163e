"""Prometheus' configuration and alerts, as Debian's promtool sees them."""

import re

import pytest

from tests.deploy.promtool import PROMETHEUS, promtool, read, rules

ALERTS = [rule for rule in rules() if "alert" in rule]
TESTS = PROMETHEUS / "alerts_test.yml"


def test_prometheus_takes_its_configuration_and_rules() -> None:
    said = promtool("check", "config", PROMETHEUS / "prometheus.yml")
    assert "1 rule files found" in said
    assert f"SUCCESS: {len(rules())} rules found" in said


def test_each_situation_raises_the_alerts_that_it_should_and_no_other() -> None:
    assert "SUCCESS" in promtool("test", "rules", TESTS)


def test_each_alert_fires_in_a_situation_and_keeps_still_in_others() -> None:
    fired = [
        {name for sample in one["exp_samples"] for name in re.findall(r'alertname="(\w+)"', sample["labels"])}
        for situation in read(TESTS)["tests"]
        for one in situation["promql_expr_test"]
    ]
    assert set().union(*fired) == {rule["alert"] for rule in ALERTS}
    assert not set.intersection(*fired)


@pytest.mark.parametrize("rule", ALERTS, ids=lambda rule: rule["alert"])
def test_an_alert_says_how_urgent_it_is_what_holds_and_what_to_do(rule: dict[str, dict[str, str]]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert all(text.endswith(".") for text in rule["annotations"].values())
