"""Counters, gauges and histograms in Prometheus' text form: as many of an engine's metrics as anyone acts on."""

from collections.abc import Iterable


class Metrics:
    """The metrics of one simulator. Names and labels are the engine's; every series of `declared` shows from the start.

    A histogram keeps its sum and count, and the buckets of `BOUNDS`.
    """

    BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 256.0, 1024.0, 8192.0)

    def __init__(self, labels: str, kinds: dict[str, str]) -> None:
        """`labels` stand on every series (`engine="0",model_name="m"`); `kinds` gives each name its type."""
        self._labels, self._kinds = labels, kinds
        self._values: dict[str, dict[str, float]] = {name: {} for name in kinds}

    def declare(self, name: str, *labels: str) -> None:
        """Show a series before anything has happened to it."""
        for label in labels:
            self.add(name, 0, label)

    def add(self, name: str, amount: float = 1, label: str = "") -> None:
        """Add to a counter or a gauge."""
        series = self._values[name]
        series[label] = series.get(label, 0) + amount

    def value(self, name: str, label: str = "") -> float:
        """What a counter or a gauge stands at."""
        return self._values[name].get(label, 0)

    def observe(self, name: str, amount: float) -> None:
        """Add an observation to a histogram."""
        for bound in self.BOUNDS:
            self.add(name, float(amount <= bound), f'le="{bound}"')
        self.add(name, 1, 'le="+Inf"')
        self.add(name, amount, "_sum")

    def render(self) -> bytes:
        """All of it as `/metrics` says it."""
        return "".join(line for name, kind in self._kinds.items() for line in self._lines(name, kind)).encode()

    def _lines(self, name: str, kind: str) -> Iterable[str]:
        if not self._values[name]:
            return
        yield f"# HELP {name} Simulated.\n# TYPE {name} {kind}\n"
        for label, value in self._values[name].items():
            if kind != "histogram":
                yield f"{name}{self._braced(label)} {value}\n"
            elif label != "_sum":
                yield f"{name}_bucket{self._braced(label)} {value}\n"
        if kind == "histogram":
            yield f"{name}_sum{self._braced('')} {self.value(name, '_sum')}\n"
            yield f"{name}_count{self._braced('')} {self.value(name, 'le=' + chr(34) + '+Inf' + chr(34))}\n"

    def _braced(self, label: str) -> str:
        inside = ",".join(filter(None, (self._labels, label)))
        return f"{{{inside}}}" if inside else ""
