"""OpenAI's API: chat completions, completions, models (OpenAI API reference)."""

from collections.abc import Callable
from functools import partial
from urllib.parse import unquote

import msgspec

from backends import estimate
from backends.base import Call
from backends.schema import ChatRequest
from gateway.access.models import find_model
from gateway.experiments.unit import of_chat
from gateway.http.body import Receive, cancel_on_disconnect, read_json
from gateway.http.client import Client
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import ModelNotFound
from gateway.http.lifecycle import Handler
from gateway.http.sse import ChunkStream
from gateway.proxy import parse
from gateway.proxy.detokenize import as_text
from gateway.proxy.generation import open_stream, open_whole
from gateway.proxy.pipeline import Prepared, serve
from gateway.proxy.sources import Source
from gateway.proxy.surfaces import OPENAI
from gateway.routing import able, head, order_candidates
from gateway.services import Services
from gateway.upstream.models import Candidate, Catalog, ModelRoute

MODELS = "/v1/models"

_encode = msgspec.json.Encoder().encode


class Card(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A model as `GET /v1/models` shows it; `max_model_len` is vLLM's addition, and useful."""

    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int | None = None


class Generation:
    """The work of one chat completion or completion."""

    surface = OPENAI

    def __init__(self, call: Call, context: RequestContext, client: Client, services: Services) -> None:
        self.model = call.model
        self.service_tier = call.body.get("service_tier")
        self._call = call
        self._context = context
        self._client = client
        self._services = services
        self._stream: ChunkStream | None = None
        self._able: list[Candidate] | None = None

    def prepare(self, prepared: Prepared) -> Call:
        """Complete the call by what its model is; return it."""
        route, context = prepared.route, self._context
        call = msgspec.structs.replace(
            self._call,
            model=self.model or route.name,
            with_tgi_peer=route.with_tgi_peer,
            reasoning_field=route.settings.reasoning_field,
            tools_in_prompt=route.tools_in_prompt,
        )
        context.streamed = call.stream
        context.estimate_prompt = partial(estimate.of_fields, call.body)
        if context.trace.notes is not None:
            context.trace.notes.call = call
        self._call = call
        return call

    def conversation(self) -> list[bytes]:
        """Return the chat's beginning, or the whole prompt."""
        call = self._call
        return (
            of_chat(call.view, call.body["messages"]) if isinstance(call.view, ChatRequest) else [call.body["prompt"]]
        )

    def able(self, route: ModelRoute, pin: str | None) -> list[Candidate]:
        """Return the deployments whose engines honour every field."""
        if self._able is None:
            self._able = able(self._call, route, pin)
        return self._able

    async def plan(self, prepared: Prepared) -> list[Candidate]:
        """Return the deployments that can do what is asked, in the order of the model's policy."""
        services, route = self._services, prepared.route
        if prepared.pin == "tgi":
            self._call = await as_text(self._call, route, self._context, services)
        found, beginning = self.able(route, prepared.pin), head(self._call, route)
        candidates = order_candidates(found, route, beginning, services.clock(), services.random, prepared.first)
        if self._call.stream:
            self._stream = self._client.chunk_stream()
        return candidates

    async def open(self, attempt: Attempt, context: RequestContext) -> Source:
        """Ask the engine of an attempt; return the answer's source, its beginning read."""
        if not self._call.stream:
            return await open_whole(self._call, attempt, context, self._services)
        mine = self._context
        alone = mine.assignment is None or not mine.assignment.shadow
        only_relays = alone and mine.cache in ("", "bypass") and mine.trace.notes is None
        return await open_stream(self._call, attempt, context, self._services, only_relays)

    async def send(self, answer: Source) -> None:
        """Write the answer to the client, chunk by chunk or whole."""
        if self._stream is not None:
            await self._relay(answer, self._stream)
            return
        (whole,) = await answer.read()
        if self._context.trace.notes is not None:
            self._context.trace.notes.hear([whole])
        await self._client.respond(200, _encode(whole))

    async def _relay(self, source: Source, stream: ChunkStream) -> None:
        timing, notes = self._context.timing, self._context.trace.notes
        timing.first_event_at = timing.received_at
        while events := await source.read():
            if notes is not None:
                notes.hear(events)
            if source.ended:
                break
            await stream.write(events)
        await stream.finish(self._call, source.usage, events)


def generation(services: Services, read: Callable[[bytes, str, int], Call]) -> Handler:
    """Return the handler of a path that generates; `read` is the parser of its requests."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        body = await read_json(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            call = read(body, context.id, int(services.wall()))
            context.timing.mark_stage("parse", services.clock())
            await serve(Generation(call, context, client, services), context, client, services)

    return handle


def chat(services: Services) -> Handler:
    """Return the handler of `POST /v1/chat/completions`."""
    return generation(services, parse.chat)


def completions(services: Services) -> Handler:
    """Return the handler of `POST /v1/completions`."""
    return generation(services, parse.completion)


def models(services: Services) -> Handler:
    """Return the handler of `GET /v1/models`: all names of the models that the key is good for, aliases too."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        catalog, may_ask = services.catalog, context.principal.may_ask
        cards = [_card(route, name, catalog) for name, route in catalog.names.items() if may_ask(route.name)]
        await client.respond(200, msgspec.json.encode({"object": "list", "data": cards}))

    return handle


def model(services: Services) -> Handler:
    """Return the handler of `GET /v1/models/{id}`. Ids may hold slashes, raw and as `%2F`."""

    async def handle(context: RequestContext, receive: Receive, client: Client) -> None:
        # The routed path has its repeated slashes folded.
        name = unquote(context.raw_path.decode("latin-1")).removeprefix(MODELS + "/")
        if not name:
            raise ModelNotFound("The path needs the name of a model.", "model")
        route = await find_model(name, context, services)
        await client.respond(200, msgspec.json.encode(_card(route, name, services.catalog)))

    return handle


def _card(route: ModelRoute, name: str, catalog: Catalog) -> Card:
    return Card(
        id=name, object="model", created=catalog.created, owned_by="pointsman", max_model_len=route.max_model_len
    )
