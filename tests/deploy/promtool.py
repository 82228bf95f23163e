"""Debian's promtool, and what the tests ask it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

DEPLOY = Path(__file__).parents[2] / "deploy"
PROMETHEUS = DEPLOY / "prometheus"


def promtool(*arguments: str | Path) -> str:
    """Run promtool, which has to find nothing wrong; return what it says. Skips the test where there is none."""
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("no promtool here: apt-get install prometheus")
    done = subprocess.run([found, *map(str, arguments)], capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def read(path: Path) -> Any:
    """Return what a YAML file says."""
    return yaml.safe_load(path.read_text())


def rules() -> list[dict[str, Any]]:
    """Return the rules of alerts.yml."""
    return [rule for group in read(PROMETHEUS / "alerts.yml")["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboards/pointsman.json").read_text())
    return read
