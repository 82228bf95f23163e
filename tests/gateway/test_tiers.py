"""Which tier a request waits in: what it asks for by `service_tier`, and no better than its key's."""

import json
from typing import Any

import pytest

from gateway.proxy import parse
from gateway.proxy.pipeline import tier


@pytest.mark.parametrize(
    ("asked", "key", "waits_in"),
    [
        (None, "priority", "priority"),
        ("priority", "priority", "priority"),
        ("auto", "priority", "priority"),
        ("flex", "priority", "flex"),
        (None, "flex", "flex"),
        ("priority", "flex", "flex"),
        ("flex", "flex", "flex"),
    ],
)
def test_a_request_waits_in_the_tier_that_it_asks_for_capped_by_its_keys(asked: Any, key: Any, waits_in: str) -> None:
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
    if asked is not None:
        body["service_tier"] = asked
    call = parse.chat(json.dumps(body).encode(), "id", 1)
    assert tier(call.body.get("service_tier"), key) == waits_in
