"""The experiments that run in this worker, by the model that each is of."""

from gateway.config import Config
from gateway.experiments.definition import define
from gateway.experiments.live import LiveExperiment


class Experiments:
    """All of them; most gateways have none."""

    def __init__(self, config: Config) -> None:
        self._by_model: dict[str, LiveExperiment] = {}
        self.follow(config)

    def of(self, model: str) -> LiveExperiment | None:
        """Return the experiment of a model."""
        return self._by_model.get(model)

    @property
    def live(self) -> list[LiveExperiment]:
        """All that run."""
        return list(self._by_model.values())

    def follow(self, config: Config) -> None:
        """Take over a changed configuration: an experiment that is still the same goes on where it stands."""
        before, self._by_model = self._by_model, {}
        for model in config.models:
            if model.experiment is None:
                continue
            known = before.get(model.name)
            if known is not None and known.definition == define(model.experiment, model):
                known.adopt(model.experiment, model)
                self._by_model[model.name] = known
            else:
                self._by_model[model.name] = LiveExperiment(model.experiment, model)
