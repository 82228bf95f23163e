"""Two simulators that differ in one known thing: the comparison finds it, and nothing else.

In virtual time: a simulator's times are what it sleeps, spread by a tenth, and nothing that the machine does.
"""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from backends.sim import parse_fault
from gateway.experiments.statistics.verdict import Judgement, Outcome
from loadtests.compare_judge import Findings
from loadtests.compare_workload import generated
from tests.support.compared import Planted, compared


@dataclass
class Case:
    """What the treatment is, over how many prompts, and what may be found worse."""

    name: str
    treatment: Planted
    worse: set[str]
    prompts: int = 240
    tokens: int = 12  # of the longest answer


CASES = [
    Case("nothing", Planted(seed=2), set()),
    Case("the other engine", Planted("tgi", seed=2), set()),
    Case("first token 10 % later", Planted(ttft_ms=110.0, seed=2), {"time to first token"}),
    Case("ends missed", Planted(faults=(parse_fault("run-on@0.15"),), seed=2), {"answers that end elsewhere"}),
    Case("another template", Planted(faults=(parse_fault("template@0.05"),), seed=2), {"answers"}),
    Case("2 % errors", Planted(faults=(parse_fault("error@0.02"),), seed=2), {"failed requests"}, 900, 2),
]


def worse(findings: Findings) -> set[str]:
    """Return the names of all that is judged to be worse."""
    judged = {one.name: one.judged for one in findings.latencies} | {"answers": findings.parity.judged}
    judged |= {one.name: one.judged for one in findings.guardrails}
    return {name for name, one in judged.items() if one.judgement is Judgement.WORSE}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_was_planted_is_found_and_nothing_else(case: Case, tmp_path: Path) -> None:
    prompts = generated(Random(3), case.tokens)
    measured, findings = compared(tmp_path, Planted(), case.treatment, prompts, case.prompts)
    assert measured.stopped == ""
    assert worse(findings) == case.worse
    assert (findings.overall.outcome is Outcome.FAILURE) is bool(case.worse)
