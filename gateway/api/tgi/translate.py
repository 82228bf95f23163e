"""A request of TGI's own API with a vLLM behind: `backends.inbound.tgi` puts both it and the answer in other words.

What the answer alone does not say is asked beside it: how long the prompt is, and what a token's text is.
"""

import asyncio
from random import Random

from backends import estimate
from backends.base import BackendError
from backends.inbound.tgi import translate as inbound
from backends.inbound.tgi.answers import StreamReader, StreamWriter, Whole, unnamed
from backends.inbound.tgi.passthrough import usage
from backends.inbound.tgi.wire import TgiRequest
from backends.schema import Usage
from gateway.api.tgi.client import TgiClient, TgiEventStream
from gateway.api.tgi.streams import StreamedAnswer
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.api.tgi.vocabularies import Names
from gateway.http.body import JSON
from gateway.http.errors import InvalidRequest, from_backend
from gateway.upstream.client import Reply

COMPUTE_TYPE = (b"x-compute-type", b"gpu+optimized")  # what TGI's router says whatever it runs on
MAX_CONCURRENT = 16  # questions for the text of a token


class Vocabulary:
    """The texts of a model's tokens, as far as they are known; vLLM is asked for each once."""

    def __init__(self, names: Names, client: TgiEngineClient) -> None:
        self.names = names
        self._client = client

    async def add(self, tokens: set[int]) -> None:
        """Learn the texts of some tokens. Raises PointsmanError."""
        client, model = self._client, self._client.attempt.candidate.model
        wanted = sorted(tokens)
        for start in range(0, len(wanted), MAX_CONCURRENT):
            some = wanted[start : start + MAX_CONCURRENT]
            questions = [client.ask_beside(inbound.name_request(token, model)) for token in some]
            for token, body in zip(some, await asyncio.gather(*questions), strict=True):
                self.names[token] = inbound.named(body)


class Translation:
    """Asks a vLLM for one request. `names` are the texts of its model's tokens, as far as they are known."""

    def __init__(self, request: TgiRequest, names: Names, client: TgiEngineClient) -> None:
        self._request = request
        self._vocabulary = Vocabulary(names, client)
        self._client = client
        self._model = client.attempt.candidate.model

    async def open(self, random: Random) -> "TranslatedAnswer | TranslatedStream":
        """Ask the engine; return its answer, whole or begun. Raises PointsmanError."""
        request, client = self._request, self._client
        context_length = await self._context_length()
        seed = request.parameters.seed
        if seed is None:
            seed = random.getrandbits(63)
        upstream = inbound.encode(request, self._model, context_length, seed)
        client.attempt.adapted = upstream.adapted
        reply = await client.post(upstream.path, upstream.body)
        try:
            return await self._begun(reply, seed)
        except BackendError as error:
            reply.close()
            raise from_backend(error) from error
        except BaseException:
            reply.close()
            raise

    async def _begun(self, reply: Reply, seed: int) -> "TranslatedAnswer | TranslatedStream":
        if reply.status != 200:
            raise self._client.failure(reply, await self._client.read(reply))
        if self._request.stream:
            stream = TranslatedStream(self._request, seed, self._vocabulary, self._client, reply)
            await stream.begin()
            return stream
        whole = Whole(self._request, seed, await self._client.read(reply))
        reply.close()
        await self._vocabulary.add(whole.unnamed(self._vocabulary.names))
        return TranslatedAnswer(self._request, whole, self._vocabulary.names, self._client)

    async def _context_length(self) -> int:
        """Return the context's length. Raises InvalidRequest if prompt and answer do not fit: vLLM would cut."""
        length = self._client.attempt.candidate.max_model_len
        if length is not None and not inbound.may_not_fit(self._request, length):
            return length
        counted = inbound.counted(await self._client.ask_beside(inbound.count_request(self._request, self._model)))
        if words := inbound.too_long(self._request, counted.max_model_len, counted.count):
            raise InvalidRequest(words)
        return counted.max_model_len


class TranslatedAnswer:
    """A vLLM's whole answer, and how TGI would have said it."""

    def __init__(self, request: TgiRequest, whole: Whole, names: Names, client: TgiEngineClient) -> None:
        self._request = request
        self._whole = whole
        self._client = client
        self._body, self._generated = whole.render(names)

    def worked(self) -> Usage:
        """Return the engine's own figures; what it has not said is estimated."""
        return self._whole.usage

    async def send(self, client: TgiClient, stream: TgiEventStream | None) -> None:
        """Write it, with the headers that TGI counts by."""
        took = self._client.clock() - self._client.began
        headers = [
            COMPUTE_TYPE,
            (b"x-compute-time", b"%.9f" % took),
            (b"x-compute-characters", b"%d" % len(self._request.inputs)),
            (b"x-total-time", b"%d" % (took * 1000)),
            (b"x-generated-tokens", b"%d" % self._generated),
        ]
        if self._whole.usage.prompt_tokens >= 0:
            headers.append((b"x-prompt-tokens", b"%d" % self._whole.usage.prompt_tokens))
        await client.respond(200, self._body, JSON, headers)

    def close(self) -> None:
        """Do nothing: there is no work to stop."""


class TranslatedStream(StreamedAnswer):
    """A vLLM's stream, event by event as TGI would have sent it."""

    def __init__(
        self, request: TgiRequest, seed: int, vocabulary: Vocabulary, client: TgiEngineClient, reply: Reply
    ) -> None:
        super().__init__(client, reply)
        self._reader = StreamReader(request)
        self._writer = StreamWriter(request, seed)
        self._vocabulary = vocabulary

    async def begin(self) -> None:
        """Read the first events; a failure before them is raised."""
        await super().begin()
        if not self._first and self._reader.failure is not None:
            raise self._reader.failure

    async def _read(self) -> bytes:
        reader = self._reader
        while not reader.finished and reader.failure is None:
            data = await self._client.event_chunk(self._reply)
            pieces = reader.feed(data) if data else reader.end()
            if pieces:
                self._client.endpoint.heard(self._client.timing.received_at)
            await self._vocabulary.add(unnamed(pieces, self._vocabulary.names))
            if written := self._writer.write(pieces, self._vocabulary.names, reader.prompt_tokens):
                return written
        return b""

    def _check_end(self, client: TgiClient) -> None:
        if self._reader.failure is not None:
            raise from_backend(self._reader.failure) from self._reader.failure

    def worked(self) -> Usage:
        """Return the engine's own figures, the last ones that have come; what they do not count is estimated."""
        reader, written = self._reader, self._writer.written
        read, said = reader.prompt_tokens or -1, reader.completion_tokens
        if reader.finished and said >= 0:
            return usage(read, said)
        return estimate.so_far(None, max(written, said), read)
