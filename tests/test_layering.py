"""The house's two laws (see `gateway/__init__.py` and `backends/__init__.py`), held to by reading the imports."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DIALECTS = sorted(path for path in (ROOT / "backends").rglob("*.py") if "sim" not in path.relative_to(ROOT).parts)
GATEWAY = sorted((ROOT / "gateway").rglob("*.py"))
IMPURE = {"asyncio", "os", "socket", "time", "random", "secrets", "datetime", "threading", "subprocess", "ssl"}
OUTSIDE = {
    "aiohttp": {"gateway/upstream/connection.py", "gateway/upstream/aiohttp_internals.py"},
    "prometheus_client": {"gateway/observe/instruments.py", "gateway/observe/gauges.py", "gateway/observe/metrics.py"},
    "structlog": {"gateway/observe/logs.py"},
    "redis": {"gateway/redis/connect.py"},
    "limits": {"gateway/access/limits/scripts.py"},
    "opentelemetry": {
        "gateway/observe/otel_internals.py",
        "gateway/observe/trace_export.py",
        "gateway/observe/trace_spans.py",
        "gateway/observe/trace_wire.py",
    },
    "uvicorn": {"gateway/server/run.py", "gateway/server/uvicorn_internals.py", "gateway/__main__.py"},
    "os": {"gateway/__main__.py"},
    "subprocess": {"gateway/cli/demo.py"},
    "httpx": {"gateway/cli/demo.py", "gateway/cli/doctor/ask.py"},
}


def imported(path: Path) -> set[str]:
    """Return the top-level names of all modules that a file imports, wherever it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("path", DIALECTS, ids=lambda path: path.name)
def test_dialects_import_the_standard_library_and_msgspec_alone(path: Path) -> None:
    assert imported(path) - sys.stdlib_module_names - {"msgspec", "backends"} == set()


@pytest.mark.parametrize("path", DIALECTS, ids=lambda path: path.name)
def test_dialects_never_wait_nor_touch_clock_chance_or_the_outside(path: Path) -> None:
    assert imported(path) & IMPURE == set()
    tree = ast.parse(path.read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Await | ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", GATEWAY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_outside_world_lives_in_few_named_files(path: Path) -> None:
    for module, files in OUTSIDE.items():
        here = str(path.relative_to(ROOT))
        assert module not in imported(path) or here in files, f"{here} imports {module}"


@pytest.mark.parametrize("path", GATEWAY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_gateway_does_not_import_the_simulators(path: Path) -> None:
    if path.name in ("__main__.py", "demo.py"):
        return  # the commands that run them
    assert "backends.sim" not in path.read_text()


CLASHES = {"Failed"}  # `gateway/cli/keys.py` and `gateway/cli/cache.py`: to be one class


def test_no_class_name_stands_for_two_things() -> None:
    """A leading underscore makes no other name; the simulators are apart, and have the engines' own names."""
    places: dict[str, list[str]] = {}
    for path in (*GATEWAY, *DIALECTS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1 and name not in CLASHES} == {}
