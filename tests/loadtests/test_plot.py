"""`loadtests.plot` draws each result of a file, repeated ones as one, and names what it cannot draw."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="pip install .[loadtests]")

from loadtests import plot


def throughput(rate: float) -> dict[str, Any]:
    """Return a result of one server at two levels."""
    levels = {"1": {"tokens_per_second": rate}, "16": {"tokens_per_second": 10 * rate}}
    return {"servers": {"base": levels}, "saturated_at": {"base": 16}}


def test_results_of_a_file_are_found_and_repeated_ones_drawn_once(tmp_path: Path) -> None:
    cells = [{"server": "on", "words": n, "head": "new", "first_ms": {"p50": n + 1.0}} for n in (0, 8)]
    kept = {"machine": "x", "throughput-1": throughput(1), "throughput-2": throughput(3), "prefix": {"cells": cells}}
    (tmp_path / "day.json").write_text(json.dumps(kept))
    written = plot.draw(tmp_path / "day.json", tmp_path)
    assert [file.name for file in written] == ["day-throughput.svg", "day-prefix.svg"]
    assert "tokens per second" in written[0].read_text()


def test_the_same_result_is_drawn_to_the_same_file(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(throughput(1)))
    first = plot.draw(tmp_path / "one.json", tmp_path)[0].read_bytes()
    assert plot.draw(tmp_path / "one.json", tmp_path)[0].read_bytes() == first


def test_a_file_with_nothing_to_draw_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "soak.json").write_text('{"minutes": 1}')
    monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path / "soak.json"), "--out", str(tmp_path)])
    assert plot.main() == 1
    assert "nothing to draw" in capsys.readouterr().err
