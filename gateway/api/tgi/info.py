"""What `GET /info` says: a TGI's own words if one answers, else what is known of the engines (CONTRACT.md 1)."""

from contextlib import suppress

from backends.inbound.tgi import translate as inbound
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import RETRY_AFTER, PointsmanError, Unavailable
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.subrequest import ask_beside
from gateway.routing import pinned
from gateway.services import Services
from gateway.upstream.models import Candidate, ModelRoute

PATH = "/info"
ANSWER_TIMEOUT = 2.0  # seconds, for each TGI: it answers at once, or hangs


async def description(route: ModelRoute, pin: str | None, context: RequestContext, services: Services) -> bytes:
    """Return the body. Raises Unavailable before any engine has said how long its context is."""
    candidates, now = pinned(route, pin), services.clock()
    for tgi in candidates:
        if _is_tgi(tgi) and tgi.ready(now):
            with suppress(PointsmanError):  # the next one, or what else is known, has to do
                context.answering, body = await ask_beside([tgi], PATH, _ask, context, services, ANSWER_TIMEOUT)
                return body
    for known in sorted(candidates, key=_is_tgi):
        if known.max_model_len is not None:
            return inbound.info(known.model, known.max_model_len)
    raise Unavailable("No engine has answered yet.", headers={"retry-after": RETRY_AFTER})


async def _ask(client: EngineClient) -> tuple[Attempt, bytes]:
    return client.attempt, await client.ask(PATH)


def _is_tgi(candidate: Candidate) -> bool:
    return candidate.endpoint.engine == "tgi"
