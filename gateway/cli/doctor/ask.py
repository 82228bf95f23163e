"""Sends requests over HTTP: to an engine directly, and to the same engine through a gateway in this process.

Every request ends in a Heard: no exception of the connection leaves this file. A timeout closes the connection, which
makes the engine stop generating. No request asks for more than a few tokens.
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
from gateway.config.base_url import SOCKET, path_below
from gateway.upstream.address import address_of
from gateway.upstream.dial import tls_context

CONNECT = 2.0  # seconds
ANSWER_TIMEOUT = 15.0  # seconds for one response, besides its tokens: a grammar may have to be compiled first
SIDE_BY_SIDE = 4  # questions at once
STRIKES = SIDE_BY_SIDE  # failed requests in a row, after which an engine gets no more
SLACK = 2.0 * SIDE_BY_SIDE  # how much longer a token may take than the first ones did
MAX_BYTES = 2**22
MODEL = "doctor"


class EngineConnection:
    """A connection to one engine, or to a gateway in front of it. `given_up` is why it is not used any more.

    `engine` is the dialect, by which the client's base URL is read (`gateway.config.base_url`). Each request has its
    own time: `patience` seconds, and `pace` seconds for each token that it asks for, with slack.
    """

    def __init__(
        self, client: httpx.AsyncClient, patience: float = ANSWER_TIMEOUT, pace: float = 0.0, engine: str = ""
    ) -> None:
        self._client = client
        self._patience = patience
        self._pace = pace
        self._engine = engine
        self._strikes = 0
        self.given_up = ""

    async def get(self, path: str) -> Heard:
        """Send a GET."""
        return await self._ask("GET", path, None, {}, self._patience)

    async def post(self, path: str, body: dict[str, Any], headers: dict[str, str] | None = None) -> Heard:
        """Send JSON. With an `authorization` of "" the header is left out."""
        seconds = self._patience + SLACK * self._pace * _tokens(body)
        return await self._ask("POST", path, msgspec.json.encode(body), headers or {}, seconds)

    async def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str], seconds: float) -> Heard:
        if self.given_up:
            return Heard(trouble=self.given_up)
        heard = await self._once(method, path, body, headers, seconds)
        self._strikes = self._strikes + 1 if heard.trouble else 0
        if self._strikes >= STRIKES:
            self.given_up = heard.trouble
        return heard

    async def _once(self, method: str, path: str, body: bytes | None, headers: dict[str, str], seconds: float) -> Heard:
        request = self._client.build_request(method, path_below(path, self._engine), content=body, headers=headers)
        if request.headers.get("authorization") == "":
            del request.headers["authorization"]
        try:
            async with asyncio.timeout(seconds):
                return await self._send(request)
        except TimeoutError:
            return Heard(trouble=f"no response within {seconds:.3g} s")
        except httpx.ConnectError:
            return Heard(trouble="no connection")
        except httpx.TimeoutException:
            return Heard(trouble=f"no connection within {CONNECT:g} s")
        except httpx.RemoteProtocolError:
            return Heard(trouble="it closed the connection, or does not speak HTTP")
        except AssertionError:  # what httpx raises if the application ends before its response is complete
            return Heard(trouble="the gateway's response is incomplete")
        except (httpx.HTTPError, httpx.StreamError, OSError, ValueError) as error:
            return Heard(trouble=str(error) or type(error).__name__)

    async def _send(self, request: httpx.Request) -> Heard:
        response = await self._client.send(request, stream=True)
        try:
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    return Heard(trouble=f"its response is longer than {MAX_BYTES >> 20} MiB")
            headers = {name.lower(): text for name, text in response.headers.items()}
            return Heard(response.status_code, headers, body)
        finally:
            await response.aclose()


def _tokens(body: dict[str, Any]) -> int:
    """Return how many tokens a request asks for."""
    prompts = body["prompt"] if isinstance(body.get("prompt"), list) else [None]
    return int(body.get("max_tokens", 1)) * int(body.get("n") or 1) * len(prompts)


def url_fault(url: str) -> str:
    """Return why no request can be sent to a URL; "" if one can."""
    try:
        return "" if httpx.URL(url).host or url.startswith(f"{SOCKET}:") else "its URL has no host"
    except (httpx.InvalidURL, ValueError) as error:  # ValueError: a host that IDNA does not allow
        return f"its URL cannot be used: {error}"


@asynccontextmanager
async def direct(
    deployment: DeploymentConfig, patience: float = ANSWER_TIMEOUT, pace: float = 0.0
) -> AsyncIterator[EngineConnection]:
    """Connect to an engine, without the environment's proxies."""
    headers = {"content-type": "application/json"}
    if deployment.api_key:
        headers["authorization"] = f"Bearer {deployment.api_key}"
    timeout = httpx.Timeout(None, connect=CONNECT)
    where = address_of(deployment)
    tls = tls_context(where) if where.server_name else False
    transport = httpx.AsyncHTTPTransport(verify=tls, uds=where.socket or None, trust_env=False)
    base_url = f"http://{where.host_header}" if where.socket else deployment.url
    async with httpx.AsyncClient(
        base_url=base_url, headers=headers, timeout=timeout, transport=transport, follow_redirects=False
    ) as client:
        yield EngineConnection(client, patience, pace, deployment.engine)


@asynccontextmanager
async def fronted(
    deployments: list[DeploymentConfig], patience: float = ANSWER_TIMEOUT, pace: float = 0.0
) -> AsyncIterator[EngineConnection]:
    """Run a gateway in front of these engines, as one model and without a port, and connect to it.

    It ends no request itself: its own time-outs would look like the engines' faults.
    """
    from gateway import services  # noqa: PLC0415  (a gateway takes half a second to import)
    from gateway.app import create_app  # noqa: PLC0415

    model = ModelConfig(name=MODEL, deployments=deployments)
    timeouts = TimeoutsConfig(connect=CONNECT)
    app = create_app(services.make(Config(models=[model], timeouts=timeouts, logging=LoggingConfig(requests=False))))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]
    headers = {"content-type": "application/json"}
    async with (
        app.lifespan(),
        httpx.AsyncClient(transport=transport, base_url="http://doctor", headers=headers, timeout=None) as client,
    ):
        line = EngineConnection(client, patience + 2, pace)
        await _ready(line, patience)
        yield line


async def _ready(line: EngineConnection, patience: float) -> None:
    """Wait until the gateway has reached its engines; if it cannot reach one, the responses will show it."""
    until = time.monotonic() + min(patience, 5.0)
    while time.monotonic() < until:
        heard = await line.get("/readyz")
        if heard.status == 200 and b'"missing":{}' in heard.body:
            return
        await asyncio.sleep(0.05)
