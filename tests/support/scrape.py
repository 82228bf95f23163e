"""Reads `/metrics`: a scrape, to be asked for sums of samples."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


class Figures:
    """A scrape, to be asked for sums of samples."""

    def __init__(self, text: str) -> None:
        self.samples: dict[tuple[str, Labels], float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                series = sample.name, frozenset(sample.labels.items())
                assert series not in self.samples, f"{series} is there twice"
                self.samples[series] = sample.value

    def sum(self, name: str, **labels: str) -> float:
        """Return the sum of all series of a name that have these labels."""
        return sum(
            value for (one, has), value in self.samples.items() if one == name and labels.items() <= dict(has).items()
        )

    def values(self) -> set[str]:
        """Return all values of all labels, buckets' bounds apart."""
        return {value for _, labels in self.samples for name, value in labels if name != "le"}


async def scraped(client: httpx.AsyncClient) -> Figures:
    """Ask for `/metrics`."""
    return Figures((await client.get("/metrics")).text)
