"""A key with limits in front of a scripted engine, and what it is debited."""

from __future__ import annotations

import io
import json
from typing import Any

import httpx

from gateway.access.principal import Principal
from gateway.observe.logs import RequestLog
from tests.support.harness import Gateway, until

LIMIT = 100_000


class Keys:
    """Knows everybody by the text of the key: all have the same limits, and are of one tenant or of none."""

    def __init__(self, tenant: str, limits: dict[str, Any]) -> None:
        self._tenant, self._limits = tenant, limits

    def check(self, presented: str, now: float) -> Principal:
        """Return whom a key stands for, which is called as it is written."""
        return Principal(id=presented, tenant=self._tenant, **self._limits)


def limit(front: Gateway, tenant: str = "", **limits: int) -> None:
    """Have the gateway's keys all have these limits; else many tokens."""
    keys = Keys(tenant, limits or {"tokens_per_minute": LIMIT})
    front.services.keyring = keys  # type: ignore[assignment]  # of which no more is asked


async def idle(front: Gateway) -> None:
    """Wait until nothing is under way."""
    flights = front.services.cache.flights if front.services.cache else None
    await until(lambda: not front.services.sweep.open and not (flights and flights.tasks))


async def asked(front: Gateway, body: Any, path: str, key: str = "k") -> httpx.Response:
    """Send a request with a key, and wait until it is over for the gateway, too."""
    answer = await front.post(body, path, authorization=f"Bearer {key}")
    await idle(front)
    return answer


async def debited(front: Gateway, key: str = "k") -> int:
    """Return how many tokens a key has used, once all that is under way is over."""
    await idle(front)
    answer = await front.client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
    limit, left = (int(answer.headers[f"x-ratelimit-{word}-tokens"]) for word in ("limit", "remaining"))
    return limit - left


async def is_stopped(front: Gateway, body: Any, path: str) -> bool:
    """Whether the key is let in no more where it has as many tokens as it has used, and would be with one more."""
    used = await debited(front)
    limit(front, tokens_per_minute=used)
    refused = await asked(front, body, path)
    limit(front, tokens_per_minute=used + 1)
    let_in = await asked(front, body, path)
    return refused.status_code == 429 and let_in.status_code != 429


def logged(front: Gateway) -> io.BytesIO:
    """Have the gateway write the lines of its requests here."""
    out = io.BytesIO()
    front.services.records.log = RequestLog(out)
    return out


def lines(front: Gateway, out: io.BytesIO) -> list[dict[str, Any]]:
    """Return the lines of the requests that asked for an answer of a model's."""
    front.services.records.flush()
    said = [json.loads(line) for line in out.getvalue().splitlines()]
    return [line for line in said if line["method"] == "POST"]
