"""What the statistics promise, kept in 100 simulated runs that are looked at all the time (`loadtests.statistics`).

Each function of `loadtests/statistics/` says in its docstring what it promises. Inside it, the gateway's functions are
asked at the look that decides each run, and must say what the simulation says.
"""

import numpy as np
import pytest

from gateway.experiments.statistics import means, sample_ratio
from loadtests.statistics.finding import Finding, most_by_chance
from loadtests.statistics.queueing import served
from loadtests.statistics.simulations import SIMULATIONS, simulated

RUNS = 100


@pytest.mark.parametrize("name", SIMULATIONS)
def test_a_promise_is_kept_and_the_plain_method_breaks_it(name: str) -> None:
    """False alarms: at most alpha of all runs. Found: in nine of ten. Beyond that, what chance explains."""
    found = simulated(name, RUNS)
    assert found.kept, f"{found.wrong} of {found.runs} wrong, at most {found.most}: {SIMULATIONS[name].__doc__}"
    assert found.hard, f"the plain method is wrong in {found.plain} of {found.runs} runs only: this proves nothing"


def test_every_simulation_is_one_of_those_that_are_run() -> None:
    """A simulation is a public function of chances and runs; none is forgotten."""
    modules = {one.__globals__["__name__"]: one.__globals__ for one in SIMULATIONS.values()}  # type: ignore[attr-defined]
    there = {
        f"{name.rpartition('.')[2]}.{one}"
        for name, module in modules.items()
        for one, what in module.items()
        if getattr(what, "__module__", "") == name and getattr(what, "__annotations__", {}).get("return") is Finding
        if not one.startswith("_")
    }
    assert there == set(SIMULATIONS)


@pytest.mark.parametrize(
    ("module", "name", "by", "simulation"),
    [
        (sample_ratio, "log_binomial_evidence", lambda right: lambda *of: 1.2 * right(*of), "independent_split"),
        (means, "boundary", lambda right: lambda *of: 0.9 * right(*of), "independent_times"),
    ],
)
def test_a_simulation_fails_where_a_formula_is_wrong(
    module: object, name: str, by: object, simulation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway's own functions are part of what is simulated."""
    monkeypatch.setattr(module, name, by(getattr(module, name)))  # type: ignore[operator]
    with pytest.raises(AssertionError):
        simulated(f"false_alarms.{simulation}", 10)


def test_the_queue_is_one() -> None:
    """By Erlang's formula (1917) 53 % of requests wait where 8.5 of 10 slots are busy, and 3.6 % where 5 are."""
    chances = np.random.default_rng(1)
    for load, waiting in ((8.5, 0.53), (5.0, 0.036)):
        everything = np.ones((40, 4000), bool)
        _, waited = served(chances, everything, load, chances.exponential(1.0, everything.shape))
        assert np.mean(waited[:, 1000:] > 0) == pytest.approx(waiting, abs=0.03)


@pytest.mark.parametrize(("runs", "allowed", "most"), [(100, 0.0, 0), (100, 0.05, 13), (1000, 0.05, 73), (1, 1.0, 1)])
def test_more_wrong_runs_than_chance_explains_break_a_promise(runs: int, allowed: float, most: int) -> None:
    """By the binomial distribution, at one in a thousand."""
    assert most_by_chance(runs, allowed) == most
    assert Finding(runs, most, allowed).kept
    assert not Finding(runs, most + 1, allowed).kept
