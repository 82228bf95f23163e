"""What an experiment is: a changed arm, unit, model or name makes another one. And its plan: who is the treatment's."""

from hashlib import sha256

from msgspec import Struct

from gateway.config import DeploymentConfig, ExperimentConfig, ModelConfig
from gateway.config.tables import Unit
from gateway.experiments.unit import BUCKETS

SHADOW_STAGE = -1


class Definition(Struct, frozen=True):
    """One experiment; the arms by the names of their deployments, in order."""

    name: str
    model: str
    control: tuple[str, ...]
    treatment: tuple[str, ...]
    unit: Unit

    @property
    def run(self) -> str:
        """Eight hexadecimal digits of all of it."""
        return digest(self.name, self.model, *self.control, "", *self.treatment, "", self.unit)

    @property
    def id(self) -> str:
        """The name and the run."""
        return f"{self.name}:{self.run}"


def digest(*said: str) -> str:
    """Return eight hexadecimal digits of some words."""
    return sha256("\0".join(said).encode()).hexdigest()[:8]


def define(experiment: ExperimentConfig, model: ModelConfig) -> Definition:
    """Return what an experiment of a configuration is."""
    control, treatment = (_names(arm, model) for arm in (experiment.control, experiment.treatment))
    return Definition(experiment.name, model.name, control, treatment, experiment.unit)


def public_name(deployment: DeploymentConfig) -> str:
    """Return a deployment's name as it is in the file, which all addresses behind it share."""
    return deployment.name.removesuffix(f"@{deployment.address}") if deployment.address else deployment.name


def _names(arm: str | list[str], model: ModelConfig) -> tuple[str, ...]:
    if not isinstance(arm, str):
        return tuple(sorted(arm))
    return tuple(sorted({public_name(one) for one in model.deployments if one.engine == arm}))


def treatment_buckets(experiment: ExperimentConfig, model: ModelConfig, stage: int) -> int:
    """Return how many of the 1,024 buckets are the treatment's: at a stage of the ramp, or by weights without one."""
    if experiment.ramp:
        return 0 if stage == SHADOW_STAGE else round(BUCKETS * experiment.ramp[stage] / 100)
    definition = define(experiment, model)
    control, treatment = (
        sum(one.weight for one in model.deployments if public_name(one) in arm)
        for arm in (definition.control, definition.treatment)
    )
    share = BUCKETS * treatment / (control + treatment)
    return round(min(max(share, 1), BUCKETS - 1)) if control and treatment else round(share)


def stages(experiment: ExperimentConfig, model: ModelConfig) -> tuple[int, ...]:
    """Return the treatment's buckets at each stage."""
    return tuple(treatment_buckets(experiment, model, stage) for stage in range(max(len(experiment.ramp), 1)))


def first_stage(experiment: ExperimentConfig) -> int:
    """Return the stage that an experiment begins with: the shadow, if there is any."""
    return SHADOW_STAGE if experiment.shadow else 0


def stage_name(experiment: ExperimentConfig, stage: int) -> str:
    """Return how a stage is called."""
    if not experiment.ramp:
        return "by weights"
    return "shadow" if stage == SHADOW_STAGE else f"{experiment.ramp[stage]:g} %"
