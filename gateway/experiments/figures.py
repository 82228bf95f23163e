"""The intervals and verdicts of the experiments, for Prometheus: worked out now and then, by one worker of all."""

import asyncio
from collections.abc import Iterator

from gateway.experiments import notes as noted
from gateway.experiments.keeper import Keeper
from gateway.experiments.record import read_record
from gateway.experiments.report import ExperimentReport, report_of
from gateway.experiments.running import Experiments
from gateway.experiments.store.base import StoreUnavailable
from gateway.observe.worker_snapshots import GaugeReading

INTERVAL = 15.0  # seconds
BOUNDS = ("low", "ratio", "high")


class Figures:
    """The last report of each experiment."""

    def __init__(self, experiments: Experiments, keeper: Keeper) -> None:
        self._experiments = experiments
        self._keeper = keeper
        self.reports: dict[str, ExperimentReport] = {}

    async def run(self) -> None:
        """Work them out anew, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.refresh()

    async def refresh(self) -> None:
        """Work them out once, if no other worker does. A store that does not answer leaves them as they are."""
        for live in self._experiments.live:
            name = live.definition.name
            try:
                now, notes = await self._keeper.store.notes(name)
                leader = min(noted.alive(notes, now), default="")
                if leader != self._keeper.teller:
                    self.reports.pop(name, None)
                    continue
                record = read_record(now, notes, await self._keeper.store.sums(name))
            except StoreUnavailable:
                continue
            if record is not None:  # in a thread: it takes some ten milliseconds, and no stream may stutter
                self.reports[name] = await asyncio.to_thread(report_of, record, live.settings)

    def readings(self) -> Iterator[GaugeReading]:
        """Return what this worker has to show."""
        experiments = self._experiments.live
        if experiments:
            yield GaugeReading("pointsman_experiment_record_up", (), float(self._keeper.up))
        for live in experiments:
            name = live.definition.name
            yield GaugeReading("pointsman_experiment_held", (name,), float(bool(live.held)))
            if name in self.reports:
                yield from _of(self.reports[name])


def _of(report: ExperimentReport) -> Iterator[GaugeReading]:
    yield GaugeReading("pointsman_experiment_verdict", (report.name, report.verdict), 1.0)
    yield GaugeReading("pointsman_experiment_judgement", (report.name, "parity", report.parity.verdict), 1.0)
    for metric, found in report.metrics.items():
        yield GaugeReading("pointsman_experiment_judgement", (report.name, metric, found.verdict), 1.0)
        for bound in BOUNDS:
            value = getattr(found, bound)
            if value is not None:
                name = "estimate" if bound == "ratio" else bound
                yield GaugeReading("pointsman_experiment_ratio", (report.name, metric, name), value)
