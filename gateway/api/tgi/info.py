"""What `GET /info` says: a TGI's own words if there is one, else what is known of the vLLM (CONTRACT.md 1)."""

from backends.inbound.tgi import translate as inbound
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import RETRY_AFTER, PointsmanError, Unavailable
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.subrequest import ask_beside
from gateway.routing import pinned
from gateway.services import Services
from gateway.upstream.models import ModelRoute

PATH = "/info"
ANSWER_TIMEOUT = 5.0  # seconds: a TGI answers at once, or hangs


async def description(route: ModelRoute, pin: str | None, context: RequestContext, services: Services) -> bytes:
    """Return the body. Raises Unavailable before any engine has said how long its context is."""
    candidates = pinned(route, pin)
    tgis = [candidate for candidate in candidates if candidate.endpoint.engine == "tgi"]
    if tgis:
        try:
            context.answering, body = await ask_beside(tgis, PATH, _ask, context, services, ANSWER_TIMEOUT)
            return body
        except PointsmanError:
            pass  # what else is known has to do
    candidate = next((candidate for candidate in candidates if candidate.max_model_len), candidates[0])
    if candidate.max_model_len is None:
        raise Unavailable("No engine has answered yet.", headers={"retry-after": RETRY_AFTER})
    return inbound.info(candidate.model, candidate.max_model_len)


async def _ask(client: EngineClient) -> tuple[Attempt, bytes]:
    return client.attempt, await client.ask(PATH)
