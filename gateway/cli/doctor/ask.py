"""Asks over HTTP: an engine directly, and the same engine through a gateway that runs in this process.

Whatever happens, there is a Heard: no exception of the connection's leaves this file. Every time-out closes the
connection, which is what makes an engine stop; and everything that is asked for is a few tokens long.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec

from gateway.cli.doctor.heard import Heard
from gateway.config import Config, DeploymentConfig, LoggingConfig, ModelConfig, TimeoutsConfig

CONNECT = 2.0
ANSWER_TIMEOUT = 15.0  # for one answer: a grammar has to be compiled first
STRIKES = 2  # silences in a row, after which an engine is not asked any more
BUDGET = 240.0  # seconds for one engine in all
MAX_BYTES = 2**22
MODEL = "doctor"


class EngineConnection:
    """A line to one engine, or to a gateway in front of it. `given_up` says why it is not used any more."""

    def __init__(self, client: httpx.AsyncClient, patience: float = ANSWER_TIMEOUT) -> None:
        self._client = client
        self._patience = patience
        self._strikes = 0
        self._until = time.monotonic() + BUDGET
        self.given_up = ""

    async def get(self, path: str) -> Heard:
        """Ask for a path."""
        return await self._ask("GET", path, None, {})

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Heard:
        """Send JSON. An `authorization` of "" goes without one."""
        return await self._ask("POST", path, msgspec.json.encode(body), headers or {})

    async def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Heard:
        if not self.given_up and time.monotonic() > self._until:
            self.given_up = f"it took more than {BUDGET:g} s for all questions"
        if self.given_up:
            return Heard(trouble=self.given_up)
        heard = await self._once(method, path, body, headers)
        self._strikes = self._strikes + 1 if heard.trouble else 0
        if self._strikes >= STRIKES:
            self.given_up = heard.trouble
        return heard

    async def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Heard:
        request = self._client.build_request(method, path, content=body, headers=headers)
        if request.headers.get("authorization") == "":
            del request.headers["authorization"]
        try:
            async with asyncio.timeout(self._patience):
                return await self._send(request)
        except TimeoutError:
            return Heard(trouble=f"no answer within {self._patience:g} s")
        except httpx.ConnectError:
            return Heard(trouble="no connection")
        except httpx.TimeoutException:
            return Heard(trouble=f"no connection within {CONNECT:g} s")
        except httpx.RemoteProtocolError:
            return Heard(trouble="it closed the connection, or does not speak HTTP")
        except AssertionError:  # httpx's word for an application that went away without a whole answer
            return Heard(trouble="the gateway gave no whole answer")
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as error:
            return Heard(trouble=str(error) or type(error).__name__)

    async def _send(self, request: httpx.Request) -> Heard:
        response = await self._client.send(request, stream=True)
        try:
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    return Heard(trouble="its answer does not end")
            headers = {name.lower(): text for name, text in response.headers.items()}
            return Heard(response.status_code, headers, body)
        finally:
            await response.aclose()


@asynccontextmanager
async def direct(deployment: DeploymentConfig, patience: float = ANSWER_TIMEOUT) -> AsyncIterator[EngineConnection]:
    """Open a line to an engine."""
    headers = {"content-type": "application/json"}
    if deployment.api_key:
        headers["authorization"] = f"Bearer {deployment.api_key}"
    timeout = httpx.Timeout(None, connect=CONNECT)
    async with httpx.AsyncClient(
        base_url=deployment.url, headers=headers, timeout=timeout, trust_env=False, follow_redirects=False
    ) as client:
        yield EngineConnection(client, patience)


@asynccontextmanager
async def fronted(
    deployments: list[DeploymentConfig], patience: float = ANSWER_TIMEOUT
) -> AsyncIterator[EngineConnection]:
    """Run a gateway over these engines, behind one model, without a port; open a line to it."""
    from gateway import services  # noqa: PLC0415  (a gateway takes half a second to import)
    from gateway.app import create_app  # noqa: PLC0415

    model = ModelConfig(name=MODEL, deployments=deployments)
    timeouts = TimeoutsConfig(connect=CONNECT, first_event=patience, between_events=patience, total=patience + 1)
    app = create_app(services.make(Config(models=[model], timeouts=timeouts, logging=LoggingConfig(requests=False))))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
    headers = {"content-type": "application/json"}
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://doctor", headers=headers, timeout=None) as client,
    ):
        line = EngineConnection(client, patience + 2)
        await _ready(line, patience)
        yield line


async def _ready(line: EngineConnection, patience: float) -> None:
    """Wait until the gateway has heard its engines; one that it does not hear will show in the answers."""
    until = time.monotonic() + min(patience, 5.0)
    while time.monotonic() < until:
        heard = await line.get("/readyz")
        if heard.status == 200 and b'"missing":{}' in heard.body:
            return
        await asyncio.sleep(0.05)
