"""The dashboard's form: what Grafana would take in silence and show as an empty panel."""

import itertools
import re
from typing import Any

import pytest

from tests.deploy.promtool import DEPLOY, dashboard, read

PANELS = dashboard()["panels"]
SHOWN = [panel for panel in PANELS if panel["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24


def test_it_is_of_the_schema_that_grafana_13_writes() -> None:
    assert dashboard()["schemaVersion"] == 42  # @grafana/schema 13.2


def test_it_can_be_narrowed_to_a_datasource_models_and_engines() -> None:
    variables = {one["name"]: one for one in dashboard()["templating"]["list"]}
    assert list(variables) == ["datasource", "model", "engine"]
    assert all(variables[name]["multi"] and variables[name]["allValue"] == ".*" for name in ("model", "engine"))


def test_each_number_of_a_panel_is_there_once() -> None:
    numbers = [panel["id"] for panel in PANELS]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_panel_asks_the_chosen_datasource_says_what_it_shows_and_in_which_unit(panel: dict[str, Any]) -> None:
    assert panel["datasource"] == SOURCE
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert [target["refId"] for target in panel["targets"]] == [
        chr(65 + place) for place in range(len(panel["targets"]))
    ]


def test_no_panel_lies_over_another_or_over_the_edge() -> None:
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in PANELS
        for x, y in itertools.product(range(panel["gridPos"]["w"]), range(panel["gridPos"]["h"]))
    ]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) < WIDTH


@pytest.mark.parametrize("panel", SHOWN, ids=lambda panel: panel["title"])
def test_a_legend_names_only_labels_that_the_query_keeps(panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), target


def test_grafana_is_given_the_datasource_and_finds_the_dashboard() -> None:
    provisioning = DEPLOY / "grafana/provisioning"
    (source,) = read(provisioning / "datasources/prometheus.yml")["datasources"]
    (provider,) = read(provisioning / "dashboards/pointsman.yml")["providers"]
    scraped_every = read(DEPLOY / "prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert (source["type"], source["jsonData"]["timeInterval"]) == ("prometheus", scraped_every)
    home = read(DEPLOY / "compose.yaml")["services"]["grafana"]["environment"][
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"
    ]
    assert home == f"{provider['options']['path']}/pointsman.json"
