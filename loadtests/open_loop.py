"""Open loop: requests are due at set times, whatever became of those before.

A latency counts from when its request was due: a server that falls behind cannot hide it ("coordinated omission";
G. Tene, "How NOT to measure latency"). Times are the event loop's, in seconds.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from random import Random


def due_times(rate: float, seconds: float, random: Random) -> list[float]:
    """Return the times of a Poisson process, in seconds from its beginning."""
    times, now = [], random.expovariate(rate)
    while now < seconds:
        times.append(now)
        now += random.expovariate(rate)
    return times


async def paced(times: Sequence[float], ask: Callable[[int, float], Coroutine[object, object, None]]) -> None:
    """Start `ask(place, due)` at each of the times from now, `due` being the loop's time; return when all are done."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as group:
        for place, after in enumerate(times):
            await asyncio.sleep(max(0.0, began + after - loop.time()))
            group.create_task(ask(place, began + after))


def percentile(values: Sequence[float], point: float) -> float | None:
    """Return a percentile by the nearest rank, rounded to a hundredth; None of nothing."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * point / 100))], 2) if ordered else None
