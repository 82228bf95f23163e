"""The libraries: what pyproject.toml allows is what requirements.lock has, and private parts are used within bounds."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKED = dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.M))
REQUIRED = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
# Of each library whose private parts are used: the file that says which, and what is installed of it.
INTERNALS = {
    "gateway/server/uvicorn_internals.py": ("uvicorn",),
    "gateway/litestar_internals.py": ("litestar",),
    "gateway/observe/prometheus_internals.py": ("prometheus-client",),
    "gateway/observe/otel_internals.py": (
        "opentelemetry-sdk",
        "opentelemetry-exporter-otlp-proto-grpc",
        "opentelemetry-exporter-otlp-proto-http",
    ),
}


@pytest.mark.parametrize("required", REQUIRED, ids=lambda one: one.name)
def test_what_is_locked_lies_within_the_bounds(required: Requirement) -> None:
    assert required.specifier.contains(LOCKED[required.name])


def test_each_file_of_private_parts_is_known_here() -> None:
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "gateway").rglob("*_internals.py")}
    assert found == set(INTERNALS)


@pytest.mark.parametrize("name", [name for names in INTERNALS.values() for name in names])
def test_a_library_whose_private_parts_are_used_has_an_upper_bound(name: str) -> None:
    (required,) = (one for one in REQUIRED if one.name == name)
    assert any(bound.operator == "<" for bound in required.specifier)
