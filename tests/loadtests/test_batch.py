"""`loadtests.batch` answers each request of a file once, keeps so many in flight, and tells what failed."""

import asyncio
import io
import json
from argparse import Namespace
from typing import Any

from loadtests.batch import run
from tests.support.delayed import usage
from tests.support.harness import Asked, engine, whole


def line(number: int) -> dict[str, Any]:
    """Return a request of a file."""
    return {"custom_id": str(number), "url": "/v1/chat/completions", "body": {"model": "tiny", "number": number}}


async def test_every_request_is_answered_once_with_what_was_added() -> None:
    """Request 3 is refused, and its line says so."""
    together, most = 0, 0

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal together, most
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.01)
        together -= 1
        refused = asked.json["number"] == 3
        writer.write(whole({"usage": usage(2)}, "400 Bad Request" if refused else "200 OK"))

    out = io.StringIO()
    async with engine(script) as behind:
        options = Namespace(url=behind.url, in_flight=4, extra='{"service_tier": "flex"}')
        told = await run(options, [line(number) for number in range(12)], out)
        asked = [one.json for one in behind.asked]
    answers = [json.loads(one) for one in out.getvalue().splitlines()]
    assert {name: told[name] for name in ("answered", "failed", "tokens")} == {
        "answered": 11,
        "failed": 1,
        "tokens": 22,
    }
    assert sorted(int(one["custom_id"]) for one in answers) == list(range(12))
    assert [one["custom_id"] for one in answers if one["error"]] == ["3"]
    assert {one["service_tier"] for one in asked} == {"flex"}
    assert most <= 4
