"""The table of steps and surfaces says what the code does."""

import pytest

from gateway.api import openai, passthrough
from gateway.api.tgi import handlers
from gateway.proxy import surfaces
from gateway.proxy.surfaces import OPENAI, PASSTHROUGH, SUB_REQUEST, TGI, Surface

COLUMNS = (OPENAI, PASSTHROUGH, TGI, SUB_REQUEST)


def row(step: str) -> list[str]:
    """Return a row of the table in the module's docstring."""
    (line,) = [line for line in (surfaces.__doc__ or "").splitlines() if line.strip().startswith(f"{step} ")]
    return line.strip().removeprefix(step).split()


@pytest.mark.parametrize("step", Surface.__struct_fields__)
def test_a_step_that_differs_is_in_the_table_as_it_is_in_the_code(step: str) -> None:
    assert row(step) == ["yes" if getattr(surface, step) else "no" for surface in COLUMNS]


def test_each_kind_of_work_says_which_surface_it_is_of() -> None:
    works = (openai.Generation, passthrough.Passthrough, handlers.TgiGeneration)
    assert [work.surface for work in works] == [OPENAI, PASSTHROUGH, TGI]
