"""The record is told each second; a store that is away costs nothing but time, and gateways that disagree are held."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest

from backends.base import ServedModel
from gateway import config
from gateway.experiments import keeper as keepers
from gateway.experiments.keeper import Keeper
from gateway.experiments.live import LiveExperiment
from gateway.experiments.notes import Plan, TellerNote, write
from gateway.experiments.record import read_record
from gateway.experiments.running import Experiments
from gateway.upstream.models import Catalog
from tests.support.experiments import NAME, settings
from tests.support.harness import MODEL
from tests.support.record_stores import MemoryStore

URLS = ("http://a", "http://b")


class Worker:
    """One worker's experiments, with its keeper over a store that others may share."""

    def __init__(self, store: MemoryStore, **more: Any) -> None:
        self.config = settings(URLS, **more)
        self.catalog = Catalog(self.config, 0)
        self.versions: dict[str, str] = {}
        for endpoint in self.catalog.endpoints:
            endpoint.mark_up([ServedModel(MODEL, MODEL, identity=("1",))], 0.0)
        self.catalog.refresh()
        self.experiments = Experiments(self.config)
        self.keeper = Keeper(self.experiments, store, self.catalog, self._say)
        self.store = store

    async def _say(self) -> dict[str, str]:
        return self.versions

    @property
    def live(self) -> LiveExperiment:
        (live,) = self.experiments.live
        return live

    def count(self, times: int = 1) -> None:
        for _ in range(times):
            self.live.tally.count(self.live.epoch, "n", "control")

    async def total(self) -> int:
        sums = await self.store.sums(NAME)
        return sum(value for field, value in sums.items() if field.endswith("/n/control"))


async def test_two_workers_tell_one_record() -> None:
    store = MemoryStore()
    workers = [Worker(store), Worker(store)]
    for worker in workers:
        worker.count(3)
        await worker.keeper.tick()
    assert await workers[0].total() == 6
    assert [worker.live.held for worker in workers] == ["", ""]


async def test_a_store_that_is_away_delays_and_loses_nothing_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "pointsman")
    store = MemoryStore()
    worker = Worker(store)
    store.down = True
    for _ in range(4):
        worker.count()
        await worker.keeper.tick()
        store.now += 1
    assert not worker.keeper.up
    store.down = False
    await worker.keeper.tick()
    assert (await worker.total(), worker.keeper.up, worker.keeper.lost) == (4, True, 0)
    said = [record.message for record in caplog.records]
    assert ["waits here" in line for line in said] == [True, False]
    assert "told again" in said[1]


async def test_what_arrived_without_our_knowing_counts_once() -> None:
    store = MemoryStore()
    worker = Worker(store)
    worker.count(2)
    store.deaf = True
    await worker.keeper.tick()
    worker.count(1)
    await worker.keeper.tick()
    store.deaf = False
    await worker.keeper.tick()
    assert await worker.total() == 3


async def test_beyond_a_bound_what_waits_is_lost_and_that_is_said(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keepers, "MAX_WAITING", 10)
    store = MemoryStore()
    worker = Worker(store)
    store.down = True
    for number in range(12):
        worker.live.tally.count(worker.live.epoch, "served", "control", f"d{number}")
        await worker.keeper.tick()
    store.down = False
    await worker.keeper.tick()
    assert worker.keeper.lost > 0
    assert any("is lost" in record.message for record in caplog.records)


@pytest.mark.parametrize(
    "other",
    [{"control": ["new"], "treatment": ["old"]}, {"weights": (3.0, 1.0)}, {"unit": "session"}],
    ids=["arms", "weights", "unit"],
)
async def test_gateways_with_different_files_are_held_until_they_agree(
    other: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "pointsman")
    store = MemoryStore()
    one, two = Worker(store), Worker(store, **other)
    for _ in range(2):
        for worker in (one, two):
            await worker.keeper.tick()
    assert "another experiment of this name" in one.live.held
    assert "another experiment of this name" in two.live.held
    assert len([record for record in caplog.records if "held: other gateways" in record.message]) == 2
    two.experiments.follow(one.config)
    for _ in range(2):
        store.now += 1
        for worker in (one, two):
            await worker.keeper.tick()
    assert (one.live.held, two.live.held) == ("", "")


async def test_a_gateway_that_has_gone_is_not_waited_for_and_clocks_need_not_agree() -> None:
    """Times are the store's; a gateway's own clock is nowhere."""
    store = MemoryStore()
    one, two = Worker(store), Worker(store, weights=(3.0, 1.0))
    await two.keeper.tick()
    await one.keeper.tick()
    assert one.live.held
    store.now += 6
    await one.keeper.tick()
    assert not one.live.held


async def test_a_share_or_an_engine_that_changes_opens_an_epoch_and_going_back_goes_on_with_the_first() -> None:
    store = MemoryStore()
    worker = Worker(store)
    await worker.keeper.tick()
    epochs = [worker.live.epoch]
    worker.experiments.follow(settings(URLS, (3.0, 1.0)))
    store.now += 1
    await worker.keeper.tick()
    epochs.append(worker.live.epoch)
    worker.versions = {"new": "0.33.0"}
    store.now += 1
    await worker.keeper.tick()
    epochs.append(worker.live.epoch)
    worker.catalog.endpoints[1].mark_up([ServedModel(MODEL, MODEL, identity=("2",))], 0.0)
    worker.catalog.refresh()
    await worker.keeper.tick()
    epochs.append(worker.live.epoch)
    assert len(set(epochs)) == 4
    worker.versions = {}
    worker.catalog.endpoints[1].mark_up([ServedModel(MODEL, MODEL, identity=("1",))], 0.0)
    worker.catalog.refresh()
    worker.experiments.follow(settings(URLS))
    await worker.keeper.tick()
    assert worker.live.epoch == epochs[0]
    record = read_record(*await store.notes(NAME), await store.sums(NAME))
    assert record is not None
    assert [epoch.note.buckets for epoch in record.epochs] == [512, 256, 256, 256]
    assert "0.33.0" in record.epochs[2].note.fingerprints["new"]


async def test_an_edited_experiment_is_another_run_and_what_the_old_one_counted_stays() -> None:
    store = MemoryStore()
    worker = Worker(store)
    worker.count(2)
    await worker.keeper.tick()
    old = worker.live
    worker.experiments.follow(settings(URLS, unit="session"))
    old.tally.count(old.epoch, "n", "control")  # of a request that was in flight
    worker.count()
    store.now += 6
    await worker.keeper.tick()
    notes = await store.notes(NAME)
    sums = await store.sums(NAME)
    last, first = (read_record(*notes, sums, run) for run in ("", old.definition.run))
    assert last is not None
    assert first is not None
    assert (last.run.definition.unit, last.total("n", "control")) == ("session", 1)
    assert (first.run.definition.unit, first.total("n", "control")) == ("conversation", 3)
    assert not last.held


async def test_a_worker_that_starts_goes_on_where_the_plan_stands() -> None:
    store = MemoryStore()
    ramp = {"ramp": (5.0, 25.0, 50.0), "shadow": 0.5}
    worker = Worker(store, **ramp)
    assert worker.live.buckets == 0
    store.note(NAME, f"plan/{worker.live.definition.run}", write(Plan(1)))
    await worker.keeper.open()
    assert (worker.live.stage, worker.live.buckets) == (1, 256)
    assert Worker(store, **ramp).live.definition == worker.live.definition


async def test_a_late_first_token_is_one_later_than_the_controls_95th_percentile_of_the_epoch_before() -> None:
    store = MemoryStore()
    one, two = Worker(store), Worker(store)
    await one.keeper.tick()
    first = one.live.epoch
    one.live.tally.count(first, "hist", "ttft", "control", "done", "0", by=950)  # a second
    one.live.tally.count(first, "hist", "ttft", "control", "done", "50", by=50)
    for worker in (one, two):
        assert worker.live.slo_ttft is None
        await worker.keeper.tick()
    for worker in (one, two, one, two):
        store.now += 1
        worker.experiments.follow(settings(URLS, (3.0, 1.0)))
        await worker.keeper.tick()
    assert one.live.slo_ttft == two.live.slo_ttft == pytest.approx(1.0, rel=0.03)


async def test_a_gateway_without_experiments_asks_no_store() -> None:
    store = MemoryStore()
    store.down = True
    worker = Worker(store)
    worker.experiments.follow(config.Config())
    worker.experiments.gone.clear()
    await worker.keeper.tick()
    assert worker.keeper.up is False


def test_what_a_worker_goes_by_is_told_with_every_telling() -> None:
    note = TellerNote("r", (51, 256))
    assert msgspec.json.decode(write(note), type=TellerNote) == note
