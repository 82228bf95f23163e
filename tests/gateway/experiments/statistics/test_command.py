"""`python -m loadtests.statistics`: what it writes, and how it ends."""

import json
from pathlib import Path

import pytest

from loadtests.statistics import __main__ as command
from loadtests.statistics.finding import Finding

NAME = "differences.tenth_slower_in_pairs"


def said(monkeypatch: pytest.MonkeyPatch, *given: str) -> int:
    monkeypatch.setattr("sys.argv", ["loadtests.statistics", *given])
    return command.main()


def test_what_was_found_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the promise beside it; runs beyond a hundred are made in parts, and added."""
    out = tmp_path / "found.json"
    assert said(monkeypatch, NAME, "--runs", "103", "--out", str(out)) == 0
    result = json.loads(out.read_text())
    found = result["simulations"].pop(NAME)
    assert (result["runs"], result["simulations"]) == (103, {})
    assert (found["runs"], found["kept"], found["allowed"]) == (103, True, 0.1)
    assert found["promise"].startswith("The same of pairs")
    assert found["figures"]["one look"] == pytest.approx(141.7, abs=0.1)


@pytest.mark.parametrize(("finding", "status"), [(Finding(9, 9, 0.01), 1), (Finding(9, 0, 0.5, plain=0), 1)])
def test_a_broken_promise_is_the_exit_status(
    finding: Finding, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And so is a simulation that proves nothing."""
    monkeypatch.setattr(command, "simulated", lambda name, runs, part: finding)
    assert said(monkeypatch, NAME, "--runs", "9", "--out", str(tmp_path / "found.json")) == status


def test_an_unknown_simulation_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, and so are those that there are."""
    assert said(monkeypatch, "nothing.known") == 2
    told = " ".join(capsys.readouterr().err.split())
    assert "No such simulation: nothing.known" in told
    assert NAME in told


def test_no_runs_are_wrong_usage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With what was expected."""
    with pytest.raises(SystemExit, match="2"):
        said(monkeypatch, "--runs", "0")
    assert "--runs: a number of at least 1 was expected" in capsys.readouterr().err
