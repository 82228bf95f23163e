"""What is observed is counted together, and comes to the same as counted one by one."""

import logging
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.exposition import generate_latest

from gateway.observe.batches import Observations
from gateway.observe.prometheus_internals import count_each, count_together, counting, histogram_fault

BOUNDS = (0.001, 0.01, 0.1, 1.0)


def shown(count: Any, seed: int) -> bytes:
    """Return the text of two series after some observations, counted now and then."""
    chance, registry = Random(seed), CollectorRegistry()
    histogram = Histogram("took_seconds", "What it took.", ("stage",), buckets=BOUNDS, registry=registry)
    observations = Observations(count)
    series = [observations.of(histogram.labels(stage)) for stage in ("one", "other")]
    for _ in range(100):
        chance.choice(series).observe(chance.choice([0.0, *BOUNDS, chance.expovariate(10), 0.5, 99.0]))
        if chance.random() < 0.2:
            observations.count()
    observations.count()
    observations.count()
    return generate_latest(registry)


@pytest.mark.parametrize("seed", range(10))
def test_together_and_one_by_one_give_the_same_text(seed: int) -> None:
    together, each = shown(count_together, seed).decode(), shown(count_each, seed).decode()
    for ours, theirs in zip(together.splitlines(), each.splitlines(), strict=True):
        if "_sum" in ours:  # added in another order
            assert float(ours.split()[1]) == pytest.approx(float(theirs.split()[1]))
        elif "_created" not in ours:
            assert ours == theirs


def test_the_installed_library_is_as_expected(caplog: pytest.LogCaptureFixture) -> None:
    assert counting() is count_together
    assert caplog.records == []


class Renamed(Histogram):
    """A histogram of a later library, whose insides have other names."""

    @property
    def _upper_bounds(self) -> Any:
        raise AttributeError("_upper_bounds")

    @_upper_bounds.setter
    def _upper_bounds(self, bounds: Any) -> None:
        self._bounds = bounds


class CountsUpwards(Histogram):
    """One whose buckets hold what is below them, too."""

    def _child_samples(self) -> Any:
        return [sample._replace(value=sample.value + 1) for sample in super()._child_samples()]

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Count it twice."""
        super().observe(amount, exemplar)
        super().observe(amount, exemplar)


@pytest.mark.parametrize("histogram", [Renamed, CountsUpwards, object])
def test_a_library_that_is_not_as_expected_is_used_by_its_public_interface_and_logged_once(
    histogram: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fault = histogram_fault(histogram)
    assert fault.startswith("Histogram")
    assert counting(histogram) is count_each
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert fault in record.getMessage()
