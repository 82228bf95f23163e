"""The experiments that run in this worker, by the model that each is of."""

from collections import deque
from typing import TYPE_CHECKING

from gateway.config import Config
from gateway.experiments.definition import define
from gateway.experiments.live import LiveExperiment
from gateway.experiments.observe import observe

if TYPE_CHECKING:
    from gateway.http.context import RequestContext

MOST_GONE = 16  # experiments that were changed or taken out, and may still have requests in flight


class Experiments:
    """All of them; most gateways have none. `gone` are those that run no more, and whose last requests are told of."""

    def __init__(self, config: Config) -> None:
        self._by_model: dict[str, LiveExperiment] = {}
        self.gone: deque[LiveExperiment] = deque(maxlen=MOST_GONE)
        self.follow(config)

    def of(self, model: str) -> LiveExperiment | None:
        """Return the experiment of a model."""
        return self._by_model.get(model)

    @property
    def live(self) -> list[LiveExperiment]:
        """All that run."""
        return list(self._by_model.values())

    def record(self, context: "RequestContext", now: float) -> None:
        """Count a request that ended at a monotonic time, if it was of an experiment."""
        if context.assignment is not None:
            observe(context, context.assignment, now)

    def follow(self, config: Config) -> None:
        """Take over a changed configuration: an experiment that is still the same goes on where it stands."""
        before, self._by_model = self._by_model, {}
        for model in config.models:
            if model.experiment is not None:
                self._by_model[model.name] = _same(
                    before, model.name, define(model.experiment, model)
                ) or LiveExperiment(model.experiment, model)
                self._by_model[model.name].adopt(model.experiment, model)
        self.gone.extend(one for one in before.values() if one not in self._by_model.values())


def _same(before: dict[str, LiveExperiment], model: str, definition: object) -> LiveExperiment | None:
    known = before.get(model)
    return known if known is not None and known.definition == definition else None
