"""Rules that the tests keep among themselves, held to by reading their imports."""

import ast
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = sorted(HERE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Return the full names of all that a file imports from, and of what it imports from there."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(HERE)))
def test_nothing_is_imported_from_a_test_module(path: Path) -> None:
    """What several tests use is in `tests/support/`, or in a helper beside them, where a change to it is seen."""
    names = {name for name in imported(path) if name.startswith("tests.")}
    assert {name for name in names if ".test_" in name} == set()
