"""A gateway over two scripted engines that are the arms of an experiment."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from gateway import config
from gateway.experiments.live import LiveExperiment
from gateway.experiments.record import Record, read_record
from tests.support.harness import MODEL, Engine, Gateway, Script, checked, engine, gateway, until

NAME = "old-to-new"
NO_STORE = config.ExperimentsConfig(file="/nowhere/experiments.sqlite3")  # what is counted waits in memory
WHOLE_CONTROL, WHOLE_TREATMENT = (1.0, 0.0), (0.0, 1.0)  # weights by which all units are of one arm


@dataclass
class Trial:
    """The gateway, the engines of both arms, and the experiment."""

    front: Gateway
    control: Engine
    treatment: Engine

    @property
    def live(self) -> LiveExperiment:
        """The experiment as it runs."""
        live = self.front.services.experiments.of(MODEL)
        assert live is not None
        return live

    async def recorded(self) -> Record:
        """Tell the record all that has ended; return it."""
        services = self.front.services
        await until(self.idle)
        services.records.flush()
        await services.keeper.tick()
        store = services.keeper.store
        now, notes = await store.notes(NAME)
        record = read_record(now, notes, await store.sums(NAME))
        assert record is not None
        return record

    def idle(self) -> bool:
        """Whether nothing is in flight, and no place is held."""
        services = self.front.services
        held = any(one.in_flight for one in services.catalog.endpoints)
        return not services.sweep.open and not services.admission.in_flight and not held


def experiment(**more: Any) -> config.ExperimentConfig:
    """Return an experiment of "old" and "new": without a ramp, and without a shadow."""
    given: dict[str, Any] = {"name": NAME, "control": ["old"], "treatment": ["new"], "ramp": (), "shadow": 0.0}
    return config.ExperimentConfig(**{"primary": ("ttft",)} | given | more)


def settings(
    urls: tuple[str, str],
    weights: tuple[float, float] = (1.0, 1.0),
    kinds: tuple[str, str] = ("vllm", "vllm"),
    **more: Any,
) -> config.Config:
    """Return the configuration of an experiment between two engines; `more` are the experiment's, or sections."""
    sections = {name: more.pop(name) for name in tuple(more) if name in config.Config.__struct_fields__}
    sections.setdefault("experiments", NO_STORE)
    of_model = {name: more.pop(name) for name in tuple(more) if name in ("hedge_after", "policy")}
    rows = [
        config.DeploymentConfig(name=name, engine=kind, url=url, weight=weight)
        for name, kind, url, weight in zip(("old", "new"), kinds, urls, weights, strict=True)
    ]
    model = config.ModelConfig(name=MODEL, deployments=rows, experiment=experiment(**more), **of_model)
    return checked(config.Config(models=[model], **sections))


@contextlib.asynccontextmanager
async def trial(
    control: Script, treatment: Script, clock: Callable[[], float] = monotonic, **more: Any
) -> AsyncIterator[Trial]:
    """Run a gateway over two scripted engines."""
    async with (
        engine(control) as one,
        engine(treatment) as two,
        gateway(settings((one.url, two.url), **more), clock=clock) as front,
    ):
        await front.services.keeper.tick()  # from now on it is known which engines there are
        yield Trial(front, one, two)
