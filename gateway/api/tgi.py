"""TGI's own API: `/generate`, `/generate_stream`, `/` and `/info`, for clients that were written for TGI.

They name no model: they speak for `[server] tgi_model`, or for the only one there is. A TGI behind gets the request
as the client sent it, and its answer goes back as it came. For a vLLM both are translated (`backends.native`).
A request that the translation refuses is TGI's to judge where the model has one; so is what vLLM has no way to do.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from backends import native, native_serde
from backends.base import BackendError, UpstreamRequest
from backends.native_answers import StreamReader, StreamWriter, Whole, unnamed
from backends.native_passed import Passed, usage
from backends.native_wire import Asked
from backends.openai import CUT
from backends.sse import EventReader, EventTooLarge, events
from gateway.account import Handler
from gateway.api.tgi_errors import OWN_STATUSES, Misread, told
from gateway.attempts import first_good
from gateway.auth import allow
from gateway.catalog import Entry, Offer
from gateway.door import JSON, Receive, Send, read_json, respond, watching
from gateway.errors import (
    RETRY_AFTER,
    EngineFailed,
    InvalidRequest,
    MethodNotAllowed,
    OwnWords,
    PointsmanError,
    Unavailable,
    from_backend,
)
from gateway.exchange import NEVER, Attempt, Exchange
from gateway.guard import admit
from gateway.pipeline import pin
from gateway.routing import pinned, standing
from gateway.services import Services
from gateway.stream import MOST_FAREWELL, PassedStream
from gateway.upstream import Reply

PATHS = (native.WHOLE, native.STREAM, native.COMPAT_PATH)
INFO = "/info"
EVENTS = "text/event-stream"
COMMENT = b":\n\n"
COMPUTE_TYPE = (b"x-compute-type", b"gpu+optimized")  # what TGI's router says whatever it runs on
COUNTS = ("x-prompt-tokens", "x-generated-tokens")
PASSED_HEADERS = (
    *COUNTS,
    "x-compute-type",
    "x-compute-time",
    "x-compute-characters",
    "x-total-time",
    "x-validation-time",
    "x-queue-time",
    "x-inference-time",
    "x-time-per-token",
)
MOST_AT_ONCE = 16  # questions for the text of a token

Headers = Iterable[tuple[bytes, bytes]]
Names = dict[int, str]


# --- handlers -------------------------------------------------------------------------------------------------


def generation(services: Services) -> Handler:
    """Return the handler of the three paths that generate."""
    vocabularies: dict[tuple[str, str], Names] = {}

    async def answer(turn: "Turn", receive: Receive) -> None:
        _check_method(turn.exchange, "POST")
        await admit(turn.exchange, services)
        body = await read_json(turn.exchange, receive, services.config.server.max_body_bytes)
        turn.exchange.since = services.clock()
        with watching(turn.exchange, receive):
            await turn.serve(body, vocabularies)

    return _telling(services, answer)


def info(services: Services) -> Handler:
    """Return the handler of `/info`: a TGI's own words if there is one, else what is known of the vLLM."""

    async def answer(turn: "Turn", receive: Receive) -> None:
        _check_method(turn.exchange, "GET", "HEAD")
        await admit(turn.exchange, services)
        await turn.describe()

    return _telling(services, answer)


def _telling(services: Services, answer: Callable[["Turn", Receive], Awaitable[None]]) -> Handler:
    """Return a handler that tells of errors in TGI's words."""

    async def handle(exchange: Exchange, receive: Receive, send: Send) -> None:
        turn = Turn(exchange, send, services)
        try:
            await answer(turn, receive)
        except (Exception, asyncio.CancelledError) as error:
            failure = exchange.failure = exchange.ended_by(error)
            if not isinstance(failure, PointsmanError):
                raise failure from error
            await turn.tell(failure)

    return handle


def _check_method(exchange: Exchange, *methods: str) -> None:
    if exchange.method not in methods:
        raise MethodNotAllowed("", headers={"allow": ",".join(methods)})


def spoken_for(services: Services) -> Entry:
    """Return the model that TGI's paths speak for. Raises InvalidRequest if there are several, and Unavailable."""
    catalog = services.catalog
    name = services.config.server.tgi_model
    if not name and len(catalog.entries) > 1:
        there = ", ".join(catalog.entries)
        raise InvalidRequest(f"this path names no model, and there are several: {there}; server.tgi_model chooses one")
    return catalog.find(name)


class EventStream(PassedStream):
    """A stream of TGI's: its errors are events of its own, and so is its silence."""

    keep_alive = COMMENT

    async def fail(self, error: PointsmanError) -> None:
        """End the stream with an error, if the client takes it within a moment."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(MOST_FAREWELL):
                await self.finish(told(error).event)


# --- one request ----------------------------------------------------------------------------------------------


class Turn:
    """One request of a client's, and its answer."""

    def __init__(self, exchange: Exchange, send: Send, services: Services) -> None:
        self.exchange = exchange
        self._send = send
        self._services = services
        self._timeouts = services.config.timeouts
        self._body = b""
        self._asked: Asked | None = None
        self._client: EventStream | None = None

    async def serve(self, body: bytes, vocabularies: dict[tuple[str, str], Names]) -> None:
        """Read the request, choose the engine, answer."""
        exchange = self.exchange
        self._body = body
        refusal = self._read_request()
        exchange.passed("parse", self._services.clock())
        if self._asked is not None and self._asked.stream:
            self._stream()
        entry = spoken_for(self._services)
        exchange.model = entry.name
        allow(exchange.principal, entry.name)
        exchange.tier = exchange.principal.tier
        offers = self._plan(entry, refusal)
        exchange.passed("route", self._services.clock())
        patience = self._timeouts.first_event if exchange.stream else NEVER
        await first_good(offers, partial(self._ask, vocabularies), exchange, self._services, patience)

    async def describe(self) -> None:
        """Answer `/info`."""
        offers = pinned(spoken_for(self._services), pin(self.exchange))
        for offer in offers:
            if offer.target.engine == "tgi" and (body := await self._told_by(offer)):
                self.exchange.answering = Attempt(offer, self.exchange.began)
                return await self._respond(200, body, JSON)
        offer = next((offer for offer in offers if offer.max_model_len), offers[0])
        if offer.max_model_len is None:
            raise Unavailable("No engine has answered yet.", headers={"retry-after": RETRY_AFTER})
        return await self._respond(200, native.info(offer.model, offer.max_model_len), JSON)

    async def tell(self, error: PointsmanError) -> None:
        """Tell the client of an error: as an event in a stream, which TGI begins before it knows of any."""
        said = told(error)
        if error.own is not None and not self.exchange.status:
            if self._client is not None:
                self._client.close()
            await self._respond(error.own.status, error.own.body, error.own.kind)
        elif self._client is not None and said.event:
            await self._client.fail(error)
        elif not self.exchange.status:
            headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
            await self._respond(said.status, said.body, said.kind, headers)

    def _plan(self, entry: Entry, refusal: InvalidRequest | None) -> list[Offer]:
        """Return the offers to try. Raises InvalidRequest if none can do what is asked."""
        offers = pinned(entry, pin(self.exchange))
        passing = [offer for offer in offers if offer.target.engine == "tgi"]
        translated = [offer for offer in offers if offer.target.engine == "vllm"]
        if not passing and not translated:
            refusal = InvalidRequest(f"{offers[0].target.backend.label} has no way to answer here")
        if refusal is not None and (not passing or (translated and not entry.routes)):
            raise refusal
        offers = passing if refusal else [*passing, *translated]
        head = self._body[: entry.settings.prefix_bytes]
        return standing(offers, entry, head, self._services.clock(), self._services.random)

    def _read_request(self) -> InvalidRequest | None:
        """Read the request; return what the translation has against it."""
        try:
            self._asked = native.read(self.exchange.path, self._body)
        except native_serde.Rejected as rejected:
            return Misread(rejected)
        words = native.refusal(self._asked)
        return InvalidRequest(words) if words else None

    def _stream(self) -> EventStream:
        """Begin to be a stream: from now on errors are events."""
        if self._client is None:
            self.exchange.stream = True
            self._client = EventStream(self.exchange, self._send, self._services.clock, EVENTS.encode())
        return self._client

    async def _ask(self, vocabularies: dict[tuple[str, str], Names], attempt: Attempt) -> None:
        offer = attempt.offer
        if offer.target.engine == "tgi" or self._asked is None:
            await self._pass(offer)
        else:
            names = vocabularies.setdefault((offer.target.name, offer.model), {})
            await self._translate(attempt, self._asked, names)

    # A TGI behind.

    async def _told_by(self, offer: Offer) -> bytes:
        """Return what a TGI says of itself; nothing if it cannot be asked."""
        try:
            reply = await self._services.upstream.get(offer.target, INFO)
            body = await reply.read()
        except PointsmanError:
            return b""
        return body if reply.status == 200 else b""

    async def _pass(self, offer: Offer) -> None:
        asked, body = self._asked, self._body
        hidden = asked is not None and asked.stream and not asked.parameters.details
        if hidden:  # they are asked for all the same, and taken out again: they count the prompt
            body = native.with_details(body)
        reply = await self._post(offer, UpstreamRequest(path=self.exchange.path, body=body, stream=hidden))
        try:
            if reply.headers.get("content-type", "").startswith(EVENTS):
                await self._pass_stream(reply, Passed(hidden))
            else:
                await self._pass_whole(reply, offer)
        finally:
            reply.close()

    async def _pass_whole(self, reply: Reply, offer: Offer) -> None:
        body = await reply.read()
        self.exchange.heard = self._services.clock()
        kind = reply.headers.get("content-type", "")
        if reply.status != 200:
            failure = _failure(offer, reply, body)
            if reply.status in OWN_STATUSES and kind.startswith(("application/json", "text/plain")):
                failure.own = OwnWords(reply.status, body, kind.encode())
            raise failure
        counts = [reply.headers.get(name, "") for name in COUNTS]
        read, written = (int(count) if count.isdecimal() else 0 for count in counts)
        self.exchange.usage = usage(read, written)
        if self._client is not None:
            self._client.close()
        headers = [(name.encode(), reply.headers[name].encode()) for name in PASSED_HEADERS if name in reply.headers]
        await self._respond(200, body, kind.encode(), headers)

    async def _pass_stream(self, reply: Reply, passed: Passed) -> None:
        client, reader = self._stream(), EventReader()
        while not passed.ended and (data := await self._chunk(reply)):
            try:
                payloads = [passed.take(payload) for payload in reader.feed(data)]
            except EventTooLarge as error:
                raise EngineFailed("The engine sent an event without end.") from error
            except BackendError as error:
                raise from_backend(error) from error
            if payloads:
                await client.pass_on(events(payloads))
        self.exchange.usage = passed.usage
        if not passed.ended:
            raise EngineFailed(CUT)
        if passed.failure is not None:  # of which the client has been told
            self.exchange.failure = from_backend(passed.failure)
        reply.release()
        await client.finish(b"")

    # A vLLM behind.

    async def _translate(self, attempt: Attempt, asked: Asked, names: Names) -> None:
        offer = attempt.offer
        context = await self._context(offer, asked)
        seed = asked.parameters.seed
        if seed is None:
            seed = self._services.random.getrandbits(63)
        request = native.encode(asked, offer.model, context, seed)
        attempt.adapted = request.adapted
        reply = await self._post(offer, request)
        try:
            if reply.status != 200:
                raise _failure(offer, reply, await reply.read())
            if asked.stream:
                await self._translate_stream(reply, StreamReader(asked), StreamWriter(asked, seed), offer, names)
            else:
                await self._translate_whole(reply, asked, seed, offer, names)
        except BackendError as error:
            raise from_backend(error) from error
        finally:
            reply.close()

    async def _context(self, offer: Offer, asked: Asked) -> int:
        """Return the context's length. Raises InvalidRequest if prompt and answer do not fit: vLLM would cut."""
        context = offer.max_model_len
        if context is not None and not native.may_not_fit(asked, context):
            return context
        counted = native.counted(await self._read(offer, native.count_request(asked, offer.model)))
        if words := native.too_long(asked, counted.max_model_len, counted.count):
            raise InvalidRequest(words)
        return counted.max_model_len

    async def _translate_whole(self, reply: Reply, asked: Asked, seed: int, offer: Offer, names: Names) -> None:
        body = await reply.read()
        self.exchange.heard = self._services.clock()
        whole = Whole(asked, seed, body)
        await self._name(whole.unnamed(names), offer, names)
        written, count = whole.written(names)
        self.exchange.usage = whole.usage
        took = self._services.clock() - self.exchange.began
        headers = [
            COMPUTE_TYPE,
            (b"x-compute-time", b"%.9f" % took),
            (b"x-compute-characters", b"%d" % len(asked.inputs)),
            (b"x-total-time", b"%d" % (took * 1000)),
            (b"x-prompt-tokens", b"%d" % whole.usage.prompt_tokens),
            (b"x-generated-tokens", b"%d" % count),
        ]
        await self._respond(200, written, JSON, headers)

    async def _translate_stream(
        self, reply: Reply, reader: StreamReader, writer: StreamWriter, offer: Offer, names: Names
    ) -> None:
        client = self._stream()
        while not reader.finished and reader.failure is None:
            data = await self._chunk(reply)
            pieces = reader.feed(data)
            if not data:
                reader.end()
            await self._name(unnamed(pieces, names), offer, names)
            if written := writer.write(pieces, names, reader.prompt_tokens):
                await client.pass_on(written)
        self.exchange.usage = usage(reader.prompt_tokens, writer.written)
        if reader.failure is not None:
            raise reader.failure
        reply.release()
        await client.finish(b"")

    async def _name(self, tokens: set[int], offer: Offer, names: Names) -> None:
        """Add the texts of some tokens to the names: vLLM is asked for each once."""
        wanted = sorted(tokens)
        for start in range(0, len(wanted), MOST_AT_ONCE):
            some = wanted[start : start + MOST_AT_ONCE]
            asked = [self._read(offer, native.name_request(token, offer.model)) for token in some]
            for token, body in zip(some, await asyncio.gather(*asked), strict=True):
                names[token] = native.named(body)

    # The engine and the client.

    async def _post(self, offer: Offer, request: UpstreamRequest) -> Reply:
        exchange, clock = self.exchange, self._services.clock
        exchange.heard = clock()
        exchange.asked = exchange.asked or exchange.heard
        told = exchange.trace.headers(len(exchange.attempts) - 1, offer.target.engine)  # it is never hedged
        headers = {"x-request-id": exchange.id, **told}
        reply = await self._services.upstream.post(offer.target, request.path, request.body, headers)
        exchange.heard = clock()
        return reply

    async def _chunk(self, reply: Reply) -> bytes:
        data = await reply.chunk()
        self.exchange.heard = self._services.clock()
        self.exchange.first = self.exchange.first or self.exchange.heard
        self.exchange.patience = self._timeouts.between_events
        return data

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

    async def _respond(self, status: int, body: bytes, kind: bytes, headers: Headers = ()) -> None:
        await respond(self.exchange, self._send, self._services.clock(), status, body, kind, tuple(headers))


def _failure(offer: Offer, reply: Reply, body: bytes) -> PointsmanError:
    """Return what an engine's answer means whose status is not 200, in words that name TGI's parameters."""
    failure = offer.target.backend.failure(None, None, reply.status, reply.headers, body)
    if not isinstance(failure, BackendError):
        raise TypeError(f"a request of TGI's was answered with {failure!r}")
    failure.message = native.in_tgis_names(failure.message)
    return from_backend(failure)
