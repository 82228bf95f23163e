"""TGI's tokenizer, answered by either engine: TGI's body on `/tokenize`, and `/chat_tokenize`.

A TGI gets the request as it came. Of a vLLM its own `/tokenize` is asked, and for a chat what text the tokens are of.
"""

from typing import Any

from msgspec import Raw

from backends.base import BackendError, Call, UpstreamRequest
from backends.inbound.tgi import serde, tokenize
from backends.inbound.tgi import translate as inbound
from backends.inbound.tgi.passthrough import usage
from backends.inbound.tgi.wire import Detokenized
from backends.schema import ChatRequest, Usage
from gateway.api.tgi.client import TgiClient, TgiEventStream
from gateway.api.tgi.errors import Misread
from gateway.api.tgi.passthrough import ForwardedAnswer, ForwardedStream, TgiPassthrough
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.http.body import JSON
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import InvalidRequest, from_backend
from gateway.proxy import parse
from gateway.proxy.pipeline import Prepared
from gateway.proxy.surfaces import TGI
from gateway.routing import order_candidates, pinned
from gateway.services import Services
from gateway.upstream.models import Candidate, ModelRoute

NOTHING_WORKED = usage(0, 0)


class TokenizedAnswer:
    """A vLLM's tokens, as TGI would have said them."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def worked(self) -> Usage:
        """Return that no tokens were generated or read by a model."""
        return NOTHING_WORKED

    async def send(self, client: TgiClient, stream: TgiEventStream | None) -> None:
        """Write it."""
        await client.respond(200, self._body, JSON)

    def close(self) -> None:
        """Do nothing: there is no work to stop."""


class TgiTokenization:
    """The work of one request; `model` is whom it is for."""

    surface = TGI
    service_tier: Raw | None = None

    def __init__(self, model: str, body: bytes, context: RequestContext, client: TgiClient, services: Services) -> None:
        self.model = model
        self._body = body
        self._context = context
        self._client = client
        self._services = services
        self._chat: Call | None = None
        self._text = ""
        self._refusal = self._read()
        context.timing.mark_stage("parse", services.clock())

    def _read(self) -> InvalidRequest | None:
        """Read the request for a vLLM; return what there is against it."""
        try:
            if self._context.path == tokenize.CHAT_TOKENIZE:
                self._chat = parse.chat(self._body, self._context.id, 0)
            else:
                self._text = inbound.read(inbound.WHOLE, self._body).inputs
        except serde.Rejected as rejected:
            return Misread(rejected)
        except InvalidRequest as refused:
            return refused
        return None

    def prepare(self, prepared: Prepared) -> None:
        """Have nothing to complete."""

    def conversation(self) -> None:
        """Have none: nothing is generated."""

    def able(self, route: ModelRoute, pin: str | None) -> list[Candidate]:
        """Return the deployments to try. Raises InvalidRequest if none can do what is asked."""
        candidates = pinned(route, pin)
        tgis = [candidate for candidate in candidates if candidate.endpoint.engine == "tgi"]
        others = [one for one in candidates if tokenize.TOKENIZE in one.endpoint.backend.passthrough_paths]
        if self._refusal is not None and not tgis:
            raise self._refusal
        able = tgis if self._refusal is not None else [*tgis, *others]
        if not able:
            raise InvalidRequest(f"{candidates[0].endpoint.backend.label} has no way to answer here")
        return able

    async def plan(self, prepared: Prepared) -> list[Candidate]:
        """Return the deployments to try, in the order of the model's policy."""
        found, services = self.able(prepared.route, prepared.pin), self._services
        return order_candidates(found, prepared.route, b"", services.clock(), services.random, prepared.first)

    async def open(
        self, attempt: Attempt, context: RequestContext
    ) -> ForwardedAnswer | ForwardedStream | TokenizedAnswer:
        """Ask the engine of an attempt. Raises PointsmanError."""
        client = TgiEngineClient(attempt, context, self._services)
        if attempt.candidate.endpoint.engine == "tgi":
            return await TgiPassthrough(self._body, None, client).open(context.path)
        try:
            return TokenizedAnswer(await self._ask(client, attempt.candidate.model))
        except BackendError as error:
            raise from_backend(error) from error

    async def _ask(self, client: TgiEngineClient, model: str) -> bytes:
        if self._chat is None:
            tokens = await self._decoded(client, tokenize.text_request(self._text, model), tokenize.Tokens)
            return tokenize.text_answer(self._text, tokens)
        view = self._chat.view
        assert isinstance(view, ChatRequest)
        tokens = await self._decoded(client, tokenize.chat_request(self._chat, view, model), tokenize.Tokens)
        body = await client.ask_beside(tokenize.prompt_request(tokens, model))
        return tokenize.chat_answer(inbound.decoded(body, Detokenized).prompt, tokens)

    async def _decoded(self, client: TgiEngineClient, request: UpstreamRequest, kind: type[Any]) -> Any:
        return inbound.decoded(await client.ask(request.path, request.body), kind)

    async def send(self, answer: ForwardedAnswer | ForwardedStream | TokenizedAnswer) -> None:
        """Write the answer to the client."""
        await answer.send(self._client, None)
