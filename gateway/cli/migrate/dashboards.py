"""Grafana's dashboards, Prometheus' rules and autoscalers by the gateway's names: one translator for all of them."""

import json
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from msgspec import Struct, field

from gateway.cli.migrate.fates import Fate, ReportRow
from gateway.cli.migrate.launch import Place
from gateway.cli.migrate.metric_names import METRICS, MetricUse, translated
from gateway.cli.migrate.readers import MetricsFile
from gateway.cli.migrate.yaml_nodes import Documents, yaml_text

SATURATION = "pointsman_model_saturation_ratio"
TARGET = "800m"  # of SATURATION, as Kubernetes writes 0.8


class Dashboards(Struct):
    """What came of the files: their new texts by name, and the lines of the report."""

    files: dict[str, str] = field(default_factory=dict)
    rows: list[ReportRow] = field(default_factory=list)


class NewWorkload(Struct, frozen=True):
    """What runs vLLM in the place of a TGI: its name, and the model that it serves."""

    name: str
    model: str


def translate(files: list[MetricsFile], workloads: Mapping[str, NewWorkload]) -> Dashboards:
    """Translate files that name TGI's metrics; `workloads` are vLLM's, by the names of TGI's."""
    made = Dashboards()
    for file in files:
        one = _Translator(file, workloads)
        text = one.text()
        if any(row.fate is not Fate.DROPPED for row in one.rows):
            made.files[_new_name(file.file, made.files)] = text
        made.rows += one.rows
    return made


def _new_name(file: str, taken: Mapping[str, str]) -> str:
    path = PurePath("metrics.yaml" if file == "-" else file)
    name, number = f"{path.stem}.pointsman{path.suffix}", 1
    while name in taken:
        number += 1
        name = f"{path.stem}.pointsman-{number}{path.suffix}"
    return name


class _Translator:
    """One file: each text in it that names a metric, in the order of the file."""

    def __init__(self, file: MetricsFile, workloads: Mapping[str, NewWorkload]) -> None:
        self._file = file
        self._workloads = workloads
        self._at = 0
        self.rows: list[ReportRow] = []

    def text(self) -> str:
        """Return the file's new text."""
        if self._file.is_json:
            return json.dumps(self._walk(json.loads(self._file.text)), indent=2, ensure_ascii=False) + "\n"
        documents = Documents(self._file.text, self._file.file)
        kept = [one for node in documents.nodes if self._names_metrics(one := documents.plain(node))]
        made = [self._object(one) for one in kept]
        return yaml_text(made)

    def _names_metrics(self, thing: Any) -> bool:
        return any(translated(text)[1] for text in _texts(thing))

    def _object(self, thing: Any) -> Any:
        if isinstance(thing, dict) and thing.get("kind") == "HorizontalPodAutoscaler":
            return self._autoscaler(thing)
        return self._walk(thing)

    def _walk(self, thing: Any) -> Any:
        if isinstance(thing, dict):
            return {key: self._walk(value) for key, value in thing.items()}
        if isinstance(thing, list):
            return [self._walk(item) for item in thing]
        if not isinstance(thing, str):
            return thing
        changed, uses = translated(thing)
        for use in uses:
            self._row(use)
        return changed

    def _row(self, use: MetricUse, target: str = "", why: str = "") -> None:
        gone = f"without {', '.join(use.gone)}, which name TGI's pods" if use.gone else ""
        said = why or "; ".join(filter(None, (use.row.why, gone)))
        self.rows.append(ReportRow(use.row.fate, use.name, self._place(use.name), target or use.target, said))

    def _place(self, name: str) -> Place:
        """Return the line of the next use of a name."""
        found = self._file.text.find(name, self._at)
        self._at = found + len(name) if found >= 0 else self._at
        return Place(self._file.file, self._file.text.count("\n", 0, max(found, 0)) + 1)

    # --- an autoscaler ----------------------------------------------------------------------------------------------

    def _autoscaler(self, thing: dict[str, Any]) -> dict[str, Any]:
        """Return an autoscaler of the new workload, by the gateway's saturation in the place of TGI's figures."""
        spec = thing.get("spec") or {}
        scaled = spec.get("scaleTargetRef") or {}
        new = self._workloads.get(scaled.get("name", ""))
        if new is not None:
            scaled["name"] = new.name
            metadata = thing.setdefault("metadata", {})
            metadata["name"] = f"{metadata.get('name', 'tgi')}-vllm"
        spec["metrics"] = [self._watched(one, new) for one in spec.get("metrics") or []]
        return thing

    def _watched(self, watched: dict[str, Any], new: NewWorkload | None) -> dict[str, Any]:
        name = next((text for text in _texts(watched) if text.startswith("tgi_")), "")
        if not name:
            return watched
        why = (
            "in flight and waiting over what the engines take at once; TGI's threshold means nothing here: 0.8 is a "
            "beginning. Needs an adapter that serves the gateway's metrics as external ones"
        )
        use = MetricUse(name, SATURATION, METRICS["tgi_queue_size"])
        self._row(use, f"{SATURATION} at {TARGET}", why)
        selector = {"selector": {"matchLabels": {"model": new.model}}} if new else {}
        target = {"type": "Value", "value": TARGET}
        return {"type": "External", "external": {"metric": {"name": SATURATION, **selector}, "target": target}}


def _texts(thing: Any) -> Iterator[str]:
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict | list):
        for part in thing.values() if isinstance(thing, dict) else thing:
            yield from _texts(part)
