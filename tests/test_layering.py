"""The laws of the house (see `gateway/__init__.py` and `backends/__init__.py`), checked by reading the imports."""

import ast
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DIALECTS = sorted(path for path in (ROOT / "backends").rglob("*.py") if "sim" not in path.relative_to(ROOT).parts)
GATEWAY = sorted((ROOT / "gateway").rglob("*.py"))
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))
COMMANDS = ROOT / "gateway" / "cli"
MAIN = ROOT / "gateway" / "__main__.py"
IMPURE = {"asyncio", "os", "socket", "time", "random", "secrets", "datetime", "threading", "subprocess", "ssl"}
OUTSIDE = {
    "httptools": {"gateway/upstream/answer.py", "gateway/server/client_connection.py"},
    "aiohappyeyeballs": {"gateway/upstream/dial.py"},
    "prometheus_client": {
        "gateway/observe/batches.py",
        "gateway/observe/gauges.py",
        "gateway/observe/instruments.py",
        "gateway/observe/metrics.py",
        "gateway/observe/prometheus_internals.py",
        "gateway/observe/tgi_names.py",
    },
    "yaml": {"gateway/cli/migrate/yaml_nodes.py"},
    "structlog": {"gateway/observe/logs.py"},
    "redis": {"gateway/redis/connect.py"},
    "limits": {"gateway/access/limits/scripts.py"},
    "opentelemetry": {
        "gateway/observe/otel_internals.py",
        "gateway/observe/trace_export.py",
        "gateway/observe/trace_spans.py",
        "gateway/observe/trace_wire.py",
    },
    "uvicorn": {"gateway/server/run.py", "gateway/server/uvicorn_internals.py", "gateway/cli/sim.py"},
    "os": {
        "gateway/cli/settings.py",
        "gateway/cli/serve.py",
        "gateway/cli/demo/processes.py",
        "gateway/cli/engine/convert_gguf.py",
        "gateway/cli/engine/launch.py",
    },
    "subprocess": {
        "gateway/cli/demo/processes.py",
        "gateway/cli/engine/environment.py",
        "gateway/cli/engine/launch.py",
        "gateway/cli/migrate/parser_check.py",
    },
    "httpx": {
        "gateway/cli/demo/__init__.py",
        "gateway/cli/demo/ask.py",
        "gateway/cli/demo/processes.py",
        "gateway/cli/doctor/ask.py",
        "gateway/cli/experiment/ask.py",
    },
    "sqlite3": {"gateway/experiments/store/sqlite.py"},
}


def modules(nodes: Iterable[ast.AST]) -> set[str]:
    """Return the full names of what import statements import: `from a import b` is a and a.b."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names |= {f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@cache
def all_modules(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports, at its top or in a function."""
    return modules(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> set[str]:
    """Return the top-level names of all modules that a file imports, at its top or in a function."""
    return {name.partition(".")[0] for name in all_modules(path)}


def inside(names: set[str], package: str) -> set[str]:
    """Return those names that are a package or inside it."""
    return {name for name in names if f"{name}.".startswith(f"{package}.")}


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
    if path != COMMANDS / "sim.py":  # the command that runs them
        assert inside(all_modules(path), "backends.sim") == set()


@pytest.mark.parametrize("path", GATEWAY, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_but_the_command_line_imports_the_commands(path: Path) -> None:
    if path != MAIN and COMMANDS not in path.parents:
        assert inside(all_modules(path), "gateway.cli") == set()


@pytest.mark.parametrize("path", BACKENDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_backends_do_not_import_the_gateway(path: Path) -> None:
    assert inside(all_modules(path), "gateway") == set()


def test_the_command_line_imports_a_command_only_when_it_runs() -> None:
    at_the_top = modules(ast.parse(MAIN.read_text()).body)
    ours = inside(at_the_top, "gateway")
    assert {name.partition(".")[0] for name in at_the_top - ours} - sys.stdlib_module_names == {"click"}
    assert ours == {"gateway.cli.group", "gateway.cli.group.CommandGroup"}


def test_serving_imports_no_other_command() -> None:
    assert inside(all_modules(COMMANDS / "serve.py"), "gateway.cli") == {
        "gateway.cli.settings",
        "gateway.cli.settings.checked_config",
    }


@pytest.mark.parametrize("path", GATEWAY, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_but_the_application_imports_the_surfaces(path: Path) -> None:
    """The steps do not know which API a client speaks; what comes beside them, such as experiments, uses the steps."""
    if path != ROOT / "gateway" / "app.py" and ROOT / "gateway" / "api" not in path.parents:
        assert inside(all_modules(path), "gateway.api") == set()


def test_no_class_name_stands_for_two_things() -> None:
    """A leading underscore makes no other name; the simulators are apart, and have the engines' own names."""
    places: dict[str, list[str]] = {}
    for path in (*GATEWAY, *DIALECTS):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name.lstrip("_"), []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
