"""What one field of `[models.experiment]` cannot tell: its arms, its stages, what they ask of the rest of the file."""

import re
from collections.abc import Iterator
from itertools import pairwise

from backends import BACKENDS
from gateway.config.tables import Config, DeploymentConfig, ExperimentConfig, ModelConfig, duration

BUCKETS = 1024  # the units of an experiment are spread over as many; a share is so many of them
LEAST = 100 / BUCKETS  # per cent: one bucket
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch  # it is part of paths, headers and names in Redis


def check_experiments(config: Config, faults: list[str]) -> None:
    """Note every fault of the experiments."""
    taken: dict[str, str] = {}
    for place, model in enumerate(config.models):
        experiment = model.experiment
        if experiment is None:
            continue
        here = f"models[{place}].experiment"
        if experiment.name in taken:
            faults.append(f"{here}.name: the name {experiment.name} is taken by {taken[experiment.name]}")
        taken[experiment.name] = f"{here}.name"
        faults += [f"{here}.{fault}" for fault in _faults(experiment, model)]
        if not model.name:
            faults.append(f"models[{place}].name: required, as the model has an experiment")
        if experiment.unit == "key" and not config.auth.keys_file:
            faults.append(f'{here}.unit: "key" needs keys (auth.keys_file): without them all requests are one unit')


def _faults(experiment: ExperimentConfig, model: ModelConfig) -> Iterator[str]:
    if not _NAME(experiment.name):
        yield f"name: expected 1 to 64 letters, digits and ._-, got {experiment.name!r}"
    yield from _arm_faults(experiment, model)
    yield from _ramp_faults(experiment)
    if not duration(experiment.stage_time):
        yield f'stage_time: expected a duration such as "30m", got "{experiment.stage_time}"'
    if not experiment.primary or len(set(experiment.primary)) < len(experiment.primary):
        yield "primary: expected at least one metric, and none twice"
    if "parity" in experiment.primary and not experiment.shadow:
        yield 'primary: "parity" is found out by shadows; expected shadow above 0'


def _arm_faults(experiment: ExperimentConfig, model: ModelConfig) -> Iterator[str]:
    arms = {}
    for arm in ("control", "treatment"):
        wanted = getattr(experiment, arm)
        arms[arm] = deployments_of(wanted, model)
        known = [one.name for one in model.deployments]
        if isinstance(wanted, str) and not arms[arm]:
            yield f"{arm}: expected {_choice(model)}, got {wanted!r}"
        elif isinstance(wanted, list):
            yield from (f"{arm}: the model has no deployment {name}" for name in wanted if name not in known)
            yield from (f"{arm}: {name} is named twice" for name in sorted({n for n in wanted if wanted.count(n) > 1}))
            if not wanted:
                yield f"{arm}: expected at least one deployment"
    both = [one.name for one in arms["control"] if one in arms["treatment"]]
    if both:
        yield f"treatment: in the control, too: {', '.join(both)}"
    elif not experiment.ramp and not any(one.weight for arm in arms.values() for one in arm):
        yield "ramp: without stages the weights of the deployments say the share, and they are all 0"


def _choice(model: ModelConfig) -> str:
    engines = sorted({one.engine for one in model.deployments if one.engine in BACKENDS})
    return f"one of the model's engines ({', '.join(engines) or 'there are none'}) or a list of its deployments' names"


def _ramp_faults(experiment: ExperimentConfig) -> Iterator[str]:
    stages = experiment.ramp
    for stage in stages:
        if not LEAST <= stage <= 100:
            yield f"ramp: expected per cents from {LEAST:.1f} (one bucket of {BUCKETS}) to 100, got {stage:g}"
    if any(later <= stage for stage, later in pairwise(stages)):
        yield "ramp: expected each stage to be larger than the one before"
    if experiment.promote and not stages:
        yield "promote: there are no stages (ramp), after which the treatment could be promoted"


def deployments_of(arm: str | list[str], model: ModelConfig) -> list[DeploymentConfig]:
    """Return the deployments of an arm: an engine's, or those with the names."""
    if isinstance(arm, str):
        return [one for one in model.deployments if one.engine == arm]
    return [one for one in model.deployments if one.name in arm]
