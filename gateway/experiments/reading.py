"""The record of an experiment, read out of a store: for reports, and for who looks at one that runs no more."""

from gateway.config import Config, ExperimentConfig
from gateway.experiments.record import Record, read_record
from gateway.experiments.report import ExperimentReport, report_of
from gateway.experiments.store.base import RecordStore


async def read(store: RecordStore, name: str) -> Record | None:
    """Return the last run of an experiment; None if there was none. Raises StoreUnavailable."""
    now, notes = await store.notes(name)
    return read_record(now, notes, await store.sums(name))


async def report(store: RecordStore, name: str, config: Config) -> ExperimentReport | None:
    """Return the report of an experiment, by the settings that a configuration has for it. Raises StoreUnavailable."""
    record = await read(store, name)
    return None if record is None else report_of(record, settings_of(record, config))


def settings_of(record: Record, config: Config) -> ExperimentConfig:
    """Return an experiment's settings; of one that is in no configuration the defaults."""
    definition = record.run.definition
    for model in config.models:
        if model.experiment is not None and model.experiment.name == definition.name:
            return model.experiment
    return ExperimentConfig(
        name=definition.name, control=list(definition.control), treatment=list(definition.treatment)
    )


async def status(store: RecordStore, config: Config) -> list[ExperimentReport]:
    """Return the reports of all experiments that there ever were. Raises StoreUnavailable."""
    found = [await report(store, name, config) for name in await store.names()]
    return [one for one in found if one is not None]
