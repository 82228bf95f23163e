"""TGI's own API: `/generate`, `/generate_stream`, `/` and `/info`, for clients that were written for TGI.

They name no model: they speak for `[server] tgi_model`, or for the only one there is. A TGI behind gets the request
as the client sent it, and its answer goes back as it came. For a vLLM both are translated (`backends.native`).
A request that the translation refuses is TGI's to judge where the model has one; so is what vLLM has no way to do.
All errors are TGI's (contract section 5): in a stream they are events, whatever came before them (section 4.4).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from backends import native, native_serde
from backends.base import BackendError, UpstreamRequest
from backends.native_answers import StreamReader, StreamWriter, Whole, unnamed
from backends.native_passed import Passed, usage
from backends.native_wire import Asked
from backends.openai import CUT
from backends.sse import EventReader, EventTooLarge, event
from gateway.account import Handler
from gateway.catalog import Entry, Offer
from gateway.door import JSON, Receive, Send, read_json, respond, watching
from gateway.errors import (
    RETRY_AFTER,
    BodyTooLarge,
    EngineFailed,
    EngineTimeout,
    Internal,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    PointsmanError,
    RateLimited,
    Unavailable,
    UnsupportedMedia,
    from_backend,
)
from gateway.exchange import Exchange
from gateway.pipeline import pin
from gateway.routing import order, pinned
from gateway.services import Services
from gateway.upstream import Reply, Unreachable

PATHS = (native.WHOLE, native.STREAM, native.COMPAT_PATH)
INFO = "/info"
TEXT = b"text/plain; charset=utf-8"
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
KEEP_ALIVE = b":\n\n"
COMPUTE_TYPE = (b"x-compute-type", b"gpu+optimized")  # what TGI's router says whatever it runs on
PASSED_HEADERS = (
    "x-compute-type",
    "x-compute-time",
    "x-compute-characters",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
    "x-prompt-tokens",
    "x-generated-tokens",
)
OWN_ERRORS = frozenset({400, 413, 415, 422, 424, 429, 500})  # statuses by which TGI itself says what is wrong
MOST_LOOKUPS = 16  # at once

# What a client of TGI's is told of each error: status, `error_type`, words.
TOLD: Sequence[tuple[type[PointsmanError], int, str, str]] = (
    (InvalidRequest, 422, "validation", "Input validation error: {}"),
    (NotFound, 422, "validation", "Input validation error: {}"),
    (Unreachable, 429, "overloaded", "Model is overloaded: {}"),
    (Unavailable, 429, "overloaded", "Model is overloaded"),
    (RateLimited, 429, "overloaded", "Model is overloaded"),
    (EngineFailed, 424, "generation", "Request failed during generation: {}"),
    (EngineTimeout, 424, "generation", "Request failed during generation: {}"),
    (Internal, 500, "internal", "{}"),
)


class Misread(InvalidRequest):
    """A body that TGI's router does not read: its words, in plain text."""

    def __init__(self, said: native_serde.Rejected) -> None:
        super().__init__(said.text)
        self.plain_status = said.status


@dataclass(slots=True)
class Told:
    """An error as TGI tells it; `event` is the same in a stream, where there can be one."""

    status: int
    body: bytes
    kind: bytes
    event: bytes | None


def told(error: PointsmanError) -> Told:
    """Return how TGI tells an error."""
    match error:
        case Misread():
            return _plain(error.plain_status, error.message)
        case BodyTooLarge():
            return _plain(413, "Failed to buffer the request body: length limit exceeded")
        case UnsupportedMedia():
            return _plain(415, "Expected request with `Content-Type: application/json`")
        case MethodNotAllowed():
            return _plain(405, "")
    for kind, status, name, words in TOLD:
        if isinstance(error, kind):
            body = native.error(words.format(error.message), name)
            return Told(status, body, JSON, event(body))
    return _plain(error.status, error.message)


def _plain(status: int, text: str) -> Told:
    return Told(status, text.encode(), TEXT, None)


# --- handlers -------------------------------------------------------------------------------------------------


def generation(services: Services) -> Handler:
    """Return the handler of the three paths that generate."""
    vocabularies: dict[tuple[str, str], dict[int, str]] = {}

    async def handle(exchange: Exchange, receive: Receive, send: Send) -> None:
        turn = Turn(exchange, send, services, vocabularies)
        try:
            _check_method(exchange, "POST")
            turn.body = await read_json(exchange, receive, services.config.server.max_body_bytes)
            with watching(exchange, receive):
                await turn.serve()
        except (Exception, asyncio.CancelledError) as error:
            failure = exchange.ended_by(error)
            if isinstance(failure, PointsmanError):
                await turn.tell(failure)
            raise failure from error

    return handle


def info(services: Services) -> Handler:
    """Return the handler of `/info`: a TGI's own words if there is one, else what is known of the vLLM."""

    async def handle(exchange: Exchange, receive: Receive, send: Send) -> None:
        try:
            _check_method(exchange, "GET", "HEAD")
            await _info(exchange, send, services)
        except PointsmanError as error:
            await Turn(exchange, send, services, {}).tell(error)
            raise

    return handle


def _check_method(exchange: Exchange, *methods: str) -> None:
    if exchange.method not in methods:
        raise MethodNotAllowed("", headers={"allow": ",".join(methods)})


async def _info(exchange: Exchange, send: Send, services: Services) -> None:
    entry = spoken_for(services)
    offers = pinned(entry, pin(exchange))
    body = b""
    for offer in [offer for offer in offers if offer.target.engine == "tgi" and offer.target.up]:
        try:
            reply = await services.upstream.get(offer.target, INFO)
            body = await reply.read() if reply.status == 200 else b""
        except PointsmanError:
            continue
        if body:
            exchange.target = offer.target
            break
    if not body:
        offer = next((offer for offer in offers if offer.max_model_len), None)
        if offer is None:
            raise Unavailable("No engine has answered yet.", headers={"retry-after": RETRY_AFTER})
        body = native.info(entry.name if offer.target.engine == "tgi" else offer.model, offer.max_model_len)
    await respond(exchange, send, services.clock(), 200, body)


def spoken_for(services: Services) -> Entry:
    """Return the model that TGI's paths speak for. Raises InvalidRequest if there are several, and Unavailable."""
    catalog = services.catalog
    name = services.config.server.tgi_model
    if not name and len(catalog.entries) > 1:
        there = ", ".join(catalog.entries)
        raise InvalidRequest(f"this path names no model, and there are several: {there}; server.tgi_model chooses one")
    return catalog.find(name)


# --- one request ----------------------------------------------------------------------------------------------


class Turn:
    """One request of a client's, and its answer."""

    def __init__(
        self, exchange: Exchange, send: Send, services: Services, vocabularies: dict[tuple[str, str], dict[int, str]]
    ) -> None:
        self.body = b""
        self._exchange = exchange
        self._send = send
        self._services = services
        self._vocabularies = vocabularies
        self._asked: Asked | None = None

    async def serve(self) -> None:
        """Read the request, choose the engine, answer."""
        exchange = self._exchange
        entry = spoken_for(self._services)
        exchange.model = entry.name
        offers = self._plan(pinned(entry, pin(exchange)))
        if self._asked is not None and self._asked.stream:
            exchange.stream = True
            exchange.patience = self._services.config.timeouts.first_event
            exchange.silence = self._comment
        await self._first_reachable(offers)

    def _plan(self, offers: list[Offer]) -> list[Offer]:
        """Return the offers to try. Raises InvalidRequest if none can do what is asked."""
        passing = [offer for offer in offers if offer.target.engine == "tgi"]
        translated = [offer for offer in offers if offer.target.engine == "vllm"]
        refusal: InvalidRequest | None = None
        try:
            self._asked = native.read(self._exchange.path, self.body)
            if words := native.refusal(self._asked):
                refusal = InvalidRequest(words)
        except native_serde.Rejected as rejected:
            refusal = Misread(rejected)
        if refusal is None and not passing and not translated:
            refusal = InvalidRequest(f"{offers[0].target.backend.label} has no way to answer here")
        if refusal is not None and not passing:
            raise refusal
        return order(passing if refusal else [*passing, *translated], self._services.random)

    async def _first_reachable(self, offers: list[Offer]) -> None:
        for offer in offers[:-1]:
            try:
                return await self._ask(offer)
            except Unreachable:
                continue
        return await self._ask(offers[-1])

    async def _ask(self, offer: Offer) -> None:
        self._exchange.target = offer.target
        self._exchange.adapted = ()
        if offer.target.engine == "tgi":
            await self._pass(offer)
        elif self._asked is not None:
            await self._translate(offer, self._asked)

    async def tell(self, error: PointsmanError) -> None:
        """Tell the client of an error: as an event in a stream, which TGI begins before it knows of any."""
        said = told(error)
        if said.event is not None and self._asked is not None and self._asked.stream:
            await self._begin()
            await self._write(said.event, more=False)
        elif not self._exchange.status:
            headers = tuple((name.encode(), value.encode()) for name, value in error.headers.items())
            await self._respond(said.status, said.body, said.kind, *headers)

    # A TGI behind.

    async def _pass(self, offer: Offer) -> None:
        asked, body = self._asked, self.body
        hidden = asked is not None and asked.stream and not asked.parameters.details
        if hidden:  # they are asked for all the same, and taken out again: they count the prompt
            body = native.with_details(body)
        reply = await self._post(offer, UpstreamRequest(path=self._exchange.path, body=body, stream=bool(hidden)))
        try:
            if reply.headers.get("content-type", "").startswith("text/event-stream"):
                await self._pass_stream(reply, hidden)
            else:
                await self._pass_whole(reply, offer)
        finally:
            reply.close()

    async def _pass_whole(self, reply: Reply, offer: Offer) -> None:
        body = await reply.read()
        kind = reply.headers.get("content-type", "")
        own = reply.status in OWN_ERRORS and kind.startswith(("application/json", "text/plain"))
        if reply.status != 200 and (self._exchange.status or not own):
            raise _failure(offer, reply, body)
        if reply.status == 200:
            counts = [int(reply.headers.get(name, 0)) for name in ("x-prompt-tokens", "x-generated-tokens")]
            self._exchange.usage = usage(*counts)
        headers = [(name.encode(), reply.headers[name].encode()) for name in PASSED_HEADERS if name in reply.headers]
        await self._respond(reply.status, body, kind.encode(), *headers)

    async def _pass_stream(self, reply: Reply, hidden: bool) -> None:
        reader, passed = EventReader(), Passed(hidden)
        while data := await reply.chunk():
            self._exchange.heard = self._services.clock()
            self._exchange.patience = self._services.config.timeouts.between_events
            try:
                payloads = [passed.take(payload) for payload in reader.feed(data)]
            except EventTooLarge as error:
                raise EngineFailed("The engine sent an event without end.") from error
            except BackendError as error:
                raise from_backend(error) from error
            if payloads:
                await self._begin()
                await self._write(b"".join([event(payload) for payload in payloads]))
        self._exchange.usage = passed.usage
        if not passed.ended:
            raise EngineFailed(CUT)
        await self._write(b"", more=False)

    # A vLLM behind.

    async def _translate(self, offer: Offer, asked: Asked) -> None:
        context = await self._check_length(offer, asked)
        seed = asked.parameters.seed
        if seed is None:
            seed = self._services.random.getrandbits(63)
        request = native.encode(asked, offer.model, context, seed)
        self._exchange.adapted = request.adapted
        reply = await self._post(offer, request)
        try:
            if reply.status != 200:
                raise _failure(offer, reply, await reply.read())
            if asked.stream:
                await self._translate_stream(reply, offer, asked, seed)
            else:
                await self._translate_whole(reply, offer, asked, seed)
        except BackendError as error:
            raise from_backend(error) from error
        finally:
            reply.close()

    async def _check_length(self, offer: Offer, asked: Asked) -> int:
        """Return the context's length. Raises InvalidRequest if prompt and answer do not fit: vLLM would cut."""
        context = offer.max_model_len
        if not native.may_not_fit(asked, context) and context is not None:
            return context
        counted = native.counted(await self._read(offer, native.count_request(asked, offer.model)))
        if words := native.too_long(asked, counted.max_model_len, counted.count):
            raise InvalidRequest(words)
        return counted.max_model_len

    async def _translate_whole(self, reply: Reply, offer: Offer, asked: Asked, seed: int) -> None:
        body = await reply.read()
        self._exchange.heard = self._services.clock()
        whole = Whole(asked, seed, body)
        names = await self._names(offer, whole.unnamed)
        written, count = whole.written(names)
        self._exchange.usage = whole.usage
        await self._respond(200, written, JSON, *self._head(asked, whole.usage.prompt_tokens, count))

    def _head(self, asked: Asked, prompt_tokens: int, count: int) -> list[tuple[bytes, bytes]]:
        """Return what TGI says of an answer in its head, as far as it can be known."""
        took = self._services.clock() - self._exchange.began
        return [
            COMPUTE_TYPE,
            (b"x-compute-time", b"%.9f" % took),
            (b"x-compute-characters", b"%d" % len(asked.inputs)),
            (b"x-total-time", b"%d" % (took * 1000)),
            (b"x-prompt-tokens", b"%d" % prompt_tokens),
            (b"x-generated-tokens", b"%d" % count),
        ]

    async def _translate_stream(self, reply: Reply, offer: Offer, asked: Asked, seed: int) -> None:
        reader, writer = StreamReader(asked), StreamWriter(asked, seed)
        exchange, clock = self._exchange, self._services.clock
        while not reader.finished and reader.failure is None:
            data = await reply.chunk()
            exchange.heard = clock()
            exchange.patience = self._services.config.timeouts.between_events
            pieces = reader.feed(data)
            if not data:
                reader.end()
            names = await self._names(offer, partial(unnamed, pieces))
            if written := writer.write(pieces, names, reader.prompt_tokens):
                await self._begin()
                await self._write(written)
        exchange.usage = usage(reader.prompt_tokens, writer.written)
        if reader.failure is not None:
            raise reader.failure
        reply.release()
        await self._write(b"", more=False)

    async def _names(self, offer: Offer, lacking: Callable[[dict[int, str]], set[int]]) -> dict[int, str]:
        """Return the texts of tokens, those wanted among them: vLLM is asked for each once, and it is kept."""
        names = self._vocabularies.setdefault((offer.target.name, offer.model), {})
        wanted = sorted(lacking(names))
        for start in range(0, len(wanted), MOST_LOOKUPS):
            some = wanted[start : start + MOST_LOOKUPS]
            asked = [self._read(offer, native.name_request(token, offer.model)) for token in some]
            for token, body in zip(some, await asyncio.gather(*asked), strict=True):
                names[token] = native.named(body)
        return names

    # The engine and the client.

    async def _post(self, offer: Offer, request: UpstreamRequest) -> Reply:
        self._exchange.asked = self._exchange.asked or self._services.clock()
        headers = {"x-request-id": self._exchange.id}
        reply = await self._services.upstream.post(offer.target, request.path, request.body, headers)
        self._exchange.heard = self._services.clock()
        return reply

    async def _read(self, offer: Offer, request: UpstreamRequest) -> bytes:
        """Return the answer to a question beside the request. Raises PointsmanError."""
        reply = await self._post(offer, request)
        try:
            body = await reply.read()
        finally:
            reply.close()
        if reply.status != 200:
            raise _failure(offer, reply, body)
        return body

    async def _respond(self, status: int, body: bytes, kind: bytes, *headers: tuple[bytes, bytes]) -> None:
        await respond(self._exchange, self._send, self._services.clock(), status, body, kind, headers)

    async def _begin(self) -> None:
        """Send the head of a stream, if it has not been sent."""
        exchange = self._exchange
        if exchange.status:
            return
        exchange.status = 200
        headers = [*STREAM_HEADERS, COMPUTE_TYPE, *exchange.answer_headers(self._services.clock())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _comment(self) -> None:
        await self._begin()
        await self._send({"type": "http.response.body", "body": KEEP_ALIVE, "more_body": True})

    async def _write(self, data: bytes, more: bool = True) -> None:
        if not more:
            self._exchange.silence = None
        self._exchange.wrote = self._exchange.heard
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _failure(offer: Offer, reply: Reply, body: bytes) -> PointsmanError:
    """Return what an engine's answer means whose status is not 200, in words that name TGI's parameters."""
    failure = offer.target.backend.failure(None, None, reply.status, reply.headers, body)
    if not isinstance(failure, BackendError):
        raise TypeError(f"a request of TGI's was answered with {failure!r}")
    failure.message = native.in_tgis_names(failure.message)
    return from_backend(failure)
