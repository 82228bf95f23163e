"""Tells the record, each second, what this worker has counted, and follows what is noted there.

A store that does not answer costs no request anything: what is counted waits here, up to a bound, and is told when it
answers again. That is said in the log, once at the beginning and once at the end; and so is what is lost.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from gateway.experiments import notes as noted
from gateway.experiments.definition import first_stage, stages
from gateway.experiments.live import LiveExperiment
from gateway.experiments.notes import Plan, Run, TellerNote
from gateway.experiments.record import control_p95, epochs_before
from gateway.experiments.running import Experiments
from gateway.experiments.store.base import RecordStore, StoreUnavailable, Telling
from gateway.experiments.tally import MAX_EXAMPLES, Deltas
from gateway.upstream.models import Catalog

INTERVAL = 1.0  # seconds
MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
MAX_WAITING = 200_000  # fields of an experiment that wait for the store: minutes of all that it can count, or hours

Versions = Callable[[], Awaitable[dict[str, str]]]  # of the engines, by the names of deployments

log = logging.getLogger("pointsman")


class Ledger:
    """What waits to be told of one experiment. `unsure` was told, and nobody knows whether it arrived."""

    def __init__(self) -> None:
        self.number = 0
        self.epoch = ""  # for which it has been worked out when a first token is late
        self.unsure: Telling | None = None
        self.waiting = Deltas()


class Keeper:
    """The background task. `teller` names this worker, anew each time that it starts; `wall` is Unix time."""

    def __init__(
        self,
        experiments: Experiments,
        store: RecordStore,
        catalog: Catalog,
        versions: Versions,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.teller = secrets.token_hex(8)
        self.up = False
        self.lost = 0  # fields that were dropped, as the store was away for too long
        self._experiments = experiments
        self.store = store
        self._catalog = catalog
        self._versions = versions
        self._ledgers: dict[LiveExperiment, Ledger] = {}
        self._opened = False
        self._trouble = ""
        self._taken: set[str] = set()  # the places of examples
        self._wall = wall
        self._began: dict[str, float] = {}  # of each epoch, as this worker saw it

    async def open(self) -> None:
        """Hear how each experiment stands, if the store answers, so that no request is assigned otherwise."""
        if self._experiments.live:
            await self.tick()

    async def run(self) -> None:
        """Tell and follow each second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.tick()

    async def close(self) -> None:
        """Tell what is left, and close the store."""
        if self._opened:
            await self.tick()
            await self.store.close()

    async def tick(self) -> None:
        """Tell and follow once."""
        experiments = [*self._experiments.live, *self._experiments.gone]
        if not experiments:
            return
        versions = await self._versions()
        for live in self._experiments.live:
            route = self._catalog.routes.get(live.model.name)
            if route is not None:
                live.follow(route)
            live.hear_versions({name: versions[name] for name in live.fingerprints if name in versions})
        try:
            if not self._opened:
                await self.store.open()
                self._opened = True
            for live in experiments:
                await self._tell(live)
            for live in self._experiments.live:
                await self._follow(live)
        except StoreUnavailable as error:
            self._note_trouble(str(error))
        else:
            self._note_trouble("")

    def _note_trouble(self, why: str) -> None:
        self.up = not why
        if why and not self._trouble:
            log.warning("experiments: the record cannot be told, what is counted waits here: %s", why)
        elif self._trouble and not why:
            log.warning("experiments: the record is told again; nothing that waited is lost")
        self._trouble = why

    async def _tell(self, live: LiveExperiment) -> None:
        """Tell what was counted. Raises StoreUnavailable, upon which it waits."""
        ledger = self._ledgers.setdefault(live, Ledger())
        ledger.waiting += live.tally.take(self._block(live))
        if len(ledger.waiting.sums) + len(ledger.waiting.firsts) > MAX_WAITING:
            self._drop(live, ledger)
        if ledger.unsure is not None:
            await self.store.tell(ledger.unsure)
            ledger.unsure = None
        if live in self._experiments.gone and not ledger.waiting:
            return
        ledger.number += 1
        ledger.unsure, ledger.waiting = self._telling(live, ledger), Deltas()
        await self.store.tell(ledger.unsure)
        ledger.unsure = None

    def _block(self, live: LiveExperiment) -> int:
        """Return the present block of time: a minute; an hour once this worker has seen a day of the epoch."""
        now = self._wall()
        began = self._began.setdefault(live.epoch, now)
        return int(now // HOUR * HOUR // MINUTE) if now - began > DAY else int(now // MINUTE)

    def _drop(self, live: LiveExperiment, ledger: Ledger) -> None:
        self.lost += len(ledger.waiting.sums)
        ledger.waiting = Deltas()
        log.error("experiments: %s: too much waits for the record; what was counted is lost", live.definition.name)

    def _telling(self, live: LiveExperiment, ledger: Ledger) -> Telling:
        """Return what to tell now."""
        definition, deltas = live.definition, ledger.waiting
        run, epochs = definition.run, live.epochs_of([*deltas.sums, *(first.field for first in deltas.firsts)])
        marks = {f"run/{run}": noted.write_mark(Run(definition, 0.0))}
        marks |= {f"epoch/{run}/{epoch}": noted.write_mark(note) for epoch, note in epochs.items()}
        goes_by = TellerNote(run, stages(live.settings, live.model))
        return Telling(
            name=definition.name,
            teller=self.teller + run,
            number=ledger.number,
            sums=deltas.sums,
            firsts=deltas.firsts,
            maps=run,
            notes={} if live in self._experiments.gone else {f"teller/{self.teller}": noted.write(goes_by)},
            marks=marks | _example_marks(run, deltas.examples, self._taken),
            stamps=(f"alive/{self.teller}", *(f"seen/{run}/{epoch}" for epoch in epochs)),
        )

    async def _follow(self, live: LiveExperiment) -> None:
        """Go where the plan says, and hold where other gateways go by another file. Raises StoreUnavailable."""
        now, notes = await self.store.notes(live.definition.name)
        self._hold(live, now, notes)
        plan = noted.read(notes, "plan", Plan).get(live.definition.run)
        stage = first_stage(live.settings) if plan is None else plan.stage
        if live.settings.ramp and stage != live.stage:
            log.info("experiments: %s: goes to stage %d", live.definition.name, stage)
            live.move(stage)
        self._taken = {name for name in notes if name.startswith("example/")}
        if live.settings.slo_ttft is None and self._ledgers[live].epoch != live.epoch:
            live.slo_ttft = await self._slo(live, notes)
            self._ledgers[live].epoch = live.epoch

    def _hold(self, live: LiveExperiment, now: float, notes: Mapping[str, str]) -> None:
        mine = TellerNote(live.definition.run, stages(live.settings, live.model))
        others = [note for note in noted.alive(notes, now).values() if note != mine]
        why = "other gateways, or workers, have a file with another experiment of this name" if others else ""
        if why != live.held:
            log.warning("experiments: %s: %s", live.definition.name, f"held: {why}" if why else "held no more")
        live.held = why

    async def _slo(self, live: LiveExperiment, notes: Mapping[str, str]) -> float | None:
        """Return the control's 95th percentile in the epoch before this one, the same in every gateway.

        Whoever works it out first has it kept. Raises StoreUnavailable.
        """
        name, run = live.definition.name, live.definition.run
        known = noted.read(notes, "slo", float).get(f"{run}/{live.epoch}")
        if known is not None:
            return known
        before = epochs_before(notes, run, live.epoch)
        sums = await self.store.sums(name) if before else {}
        found = next((p95 for epoch in before if (p95 := control_p95(sums, epoch)) is not None), None)
        if found is None:
            return None
        ledger = self._ledgers[live]
        ledger.number += 1
        mark = {f"slo/{run}/{live.epoch}": msgspec.json.encode(found).decode()}
        await self.store.tell(Telling(name=name, teller=self.teller + run, number=ledger.number, marks=mark))
        return found


def _example_marks(run: str, examples: Mapping[str, tuple[str, ...]], taken: set[str]) -> dict[str, str]:
    """Return where examples go: to places that are not taken, a few for each kind."""
    marks: dict[str, str] = {}
    for kind, texts in examples.items():
        places = [f"example/{run}/{kind}/{place}" for place in range(MAX_EXAMPLES)]
        marks |= dict(zip([place for place in places if place not in taken], texts, strict=False))
    return marks
