"""The fuzz targets find nothing in a short run, and would find what is wrong."""

import pytest

from gateway.upstream.answer import HttpAnswer
from tests.fuzz import answers


async def test_a_short_run_finds_nothing() -> None:
    assert [found for seed in range(1000) if (found := await answers.fault(seed))] == []


async def test_a_reader_that_takes_what_it_should_not_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HttpAnswer, "on_status", lambda self, reason: None)
    monkeypatch.setattr("gateway.upstream.answer.VERSIONS", ("1.1", "1.0", "0.9", "2.0", "1.2"))
    with pytest.raises(SystemExit, match="seed"):
        await answers.run(60.0, 0)
