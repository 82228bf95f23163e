"""What keeps vLLM from running is named in a sentence; needs no engine."""

import platform
from collections.abc import Callable
from typing import Any

import pytest

from tests.live import vllm_engine

Patch = tuple[Any, str, Callable[[], Any]]
FAULTS: dict[str, list[Patch]] = {
    "Darwin on arm64": [
        (platform, "system", lambda: "Darwin"),
        (platform, "machine", lambda: "arm64"),
    ],
    "this processor has neither": [(vllm_engine, "cpu_flags", set)],
    "2.0 GB are free": [(vllm_engine, "free_memory", lambda: 2 * 10**9)],
    "pip install uv": [(vllm_engine, "installed", lambda: False), (vllm_engine, "uv", lambda: None)],
}


@pytest.mark.parametrize(("reason", "faults"), FAULTS.items(), ids=FAULTS)
def test_why_not(monkeypatch: pytest.MonkeyPatch, reason: str, faults: list[Patch]) -> None:
    """Each thing that is missing is the reason given, where all else is there."""
    able: list[Patch] = [
        (platform, "system", lambda: "Linux"),
        (platform, "machine", lambda: "x86_64"),
        (vllm_engine, "cpu_flags", lambda: {"avx2"}),
        (vllm_engine, "free_memory", lambda: 8 * 10**9),
        (vllm_engine, "installed", lambda: True),
    ]
    for place, name, value in able:
        monkeypatch.setattr(place, name, value)
    assert vllm_engine.why_not() is None
    for place, name, value in faults:
        monkeypatch.setattr(place, name, value)
    assert reason in (vllm_engine.why_not() or "")
