"""How full each model's engines are, for an autoscaler that is to work with either engine.

The ratio is what is in flight at a model's deployments, and what waits for them here, over what they work on at once:
their configured `slots`; or, where one has none, what it last sustained: how many requests it said were running while
others waited there. While one has neither, there is no ratio, as nobody knows. Deployments that are down, or that get
no traffic (weight 0), do not count.
"""

from collections.abc import Iterator, Sequence

from gateway.observe.worker_snapshots import GaugeReading
from gateway.proxy.admission import Admission
from gateway.upstream.endpoints import Endpoint
from gateway.upstream.models import Catalog

GAUGE = "pointsman_model_saturation_ratio"


class Saturation:
    """Remembers what each deployment has sustained."""

    def __init__(self) -> None:
        self._sustained: dict[str, float] = {}

    def readings(self, catalog: Catalog, admission: Admission) -> Iterator[GaugeReading]:
        """Return this worker's share of each model's ratio; those of several workers add up."""
        for endpoint in catalog.endpoints:
            self._note(endpoint)
        for name, route in catalog.routes.items():
            endpoints = [one.endpoint for one in route.candidates if one.endpoint.up and one.endpoint.weight > 0]
            room, over = self._room(endpoints)
            if room:
                busy = sum(endpoint.in_flight for endpoint in endpoints) + admission.waiting_for(endpoints)
                yield GaugeReading(GAUGE, (name, over), busy / room)

    def _note(self, endpoint: Endpoint) -> None:
        figures = endpoint.figures
        if figures.waiting and figures.running:
            self._sustained[endpoint.name] = figures.running

    def _room(self, endpoints: Sequence[Endpoint]) -> tuple[float, str]:
        """Return how many requests the deployments work on at once, and by what that is known; 0 if it is not."""
        rooms = [endpoint.deployment.slots or self._sustained.get(endpoint.name, 0.0) for endpoint in endpoints]
        over = "slots" if all(endpoint.deployment.slots for endpoint in endpoints) else "sustained"
        return (sum(rooms), over) if all(rooms) else (0.0, "")
