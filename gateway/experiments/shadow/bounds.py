"""How much may be asked beside clients' requests: so many at once, and so many in proportion to what clients ask."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from gateway.experiments.live import LiveExperiment

TWICE = 2.0  # a conversation that is drawn may have more requests than others, up to twice the share of all
THIRD = 4 / 3  # a third of them is asked of both arms
SAVED = 32.0  # requests beside, for a gateway that has few


class ShadowBounds:
    """The shadows of one worker: those in flight, and what is saved for more."""

    def __init__(self) -> None:
        self._tasks: dict[asyncio.Task[None], LiveExperiment] = {}
        self._saved: dict[str, float] = {}  # requests that may be asked beside, by the experiment's run

    def earn(self, live: LiveExperiment) -> None:
        """Note a client's request that the control answers."""
        run, earned = live.definition.run, TWICE * THIRD * live.settings.shadow
        self._saved[run] = min(self._saved.get(run, SAVED) + earned, SAVED)

    def take(self, live: LiveExperiment, wanted: int) -> str:
        """Take so many requests; return why there are none, or nothing."""
        if sum(one is live for one in self._tasks.values()) >= live.settings.shadow_in_flight:
            return "in flight"
        if self._saved.get(live.definition.run, SAVED) < wanted:
            return "budget"
        self._saved[live.definition.run] = self._saved.get(live.definition.run, SAVED) - wanted
        return ""

    def start(self, live: LiveExperiment, asking: Coroutine[Any, Any, None]) -> None:
        """Ask in a task of its own, which nobody waits for."""
        task = asyncio.create_task(asking)
        self._tasks[task] = live
        task.add_done_callback(self._tasks.pop)

    @property
    def in_flight(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    async def close(self) -> None:
        """End all that is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
