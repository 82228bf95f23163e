"""A request of TGI's own API with a vLLM behind: `backends.inbound.tgi` puts both it and the answer in other words.

What the answer alone does not say is asked beside it: how long the prompt is, and what a token's text is.
"""

import asyncio
from random import Random

from backends.base import BackendError
from backends.inbound.tgi import translate as native
from backends.inbound.tgi.answers import StreamReader, StreamWriter, Whole, unnamed
from backends.inbound.tgi.passthrough import usage
from backends.inbound.tgi.wire import TgiRequest
from gateway.api.tgi.client import Client
from gateway.api.tgi.upstream import TgiEngineClient
from gateway.http.body import JSON
from gateway.http.errors import InvalidRequest, from_backend
from gateway.upstream.connection import Reply

COMPUTE_TYPE = (b"x-compute-type", b"gpu+optimized")  # what TGI's router says whatever it runs on
MAX_AT_ONCE = 16  # questions for the text of a token

Names = dict[int, str]


class Translation:
    """One request translated for a vLLM. `names` are the texts of its model's tokens, as far as they are known."""

    def __init__(self, asked: TgiRequest, names: Names, line: TgiEngineClient, client: Client) -> None:
        self._asked = asked
        self._names = names
        self._line = line
        self._client = client
        self._exchange = line.context
        self._model = line.candidate.model

    async def answer(self, random: Random) -> None:
        """Ask the engine and answer the client. Raises PointsmanError."""
        asked, line = self._asked, self._line
        context_length = await self._context_length()
        seed = asked.parameters.seed
        if seed is None:
            seed = random.getrandbits(63)
        request = native.encode(asked, self._model, context_length, seed)
        line.attempt.adapted = request.adapted
        reply = await line.post(request)
        try:
            if reply.status != 200:
                raise line.failure(reply, await reply.read())
            if asked.stream:
                await self._stream(reply, StreamReader(asked), StreamWriter(asked, seed))
            else:
                await self._whole(reply, seed)
        except BackendError as error:
            raise from_backend(error) from error
        finally:
            reply.close()

    async def _context_length(self) -> int:
        """Return the context_length's length. Raises InvalidRequest if prompt and answer do not fit: vLLM would cut."""
        context_length = self._line.candidate.max_model_len
        if context_length is not None and not native.may_not_fit(self._asked, context_length):
            return context_length
        counted = native.counted(await self._line.read(native.count_request(self._asked, self._model)))
        if words := native.too_long(self._asked, counted.max_model_len, counted.count):
            raise InvalidRequest(words)
        return counted.max_model_len

    async def _whole(self, reply: Reply, seed: int) -> None:
        whole = Whole(self._asked, seed, await self._line.whole(reply))
        await self._name(whole.unnamed(self._names))
        written, count = whole.written(self._names)
        self._exchange.usage = whole.usage
        took = self._line.clock() - self._exchange.began
        headers = [
            COMPUTE_TYPE,
            (b"x-compute-time", b"%.9f" % took),
            (b"x-compute-characters", b"%d" % len(self._asked.inputs)),
            (b"x-total-time", b"%d" % (took * 1000)),
            (b"x-prompt-tokens", b"%d" % whole.usage.prompt_tokens),
            (b"x-generated-tokens", b"%d" % count),
        ]
        await self._client.respond(200, written, JSON, headers)

    async def _stream(self, reply: Reply, reader: StreamReader, writer: StreamWriter) -> None:
        stream, names = self._client.stream(), self._names
        while not reader.finished and reader.failure is None:
            data = await self._line.chunk(reply)
            pieces = reader.feed(data)
            if not data:
                reader.end()
            await self._name(unnamed(pieces, names))
            if written := writer.write(pieces, names, reader.prompt_tokens):
                await stream.pass_on(written)
        self._exchange.usage = usage(reader.prompt_tokens, writer.written)
        if reader.failure is not None:
            raise reader.failure
        reply.release()
        await stream.finish(b"")

    async def _name(self, tokens: set[int]) -> None:
        """Add the texts of some tokens to the names: vLLM is asked for each once."""
        wanted = sorted(tokens)
        for start in range(0, len(wanted), MAX_AT_ONCE):
            some = wanted[start : start + MAX_AT_ONCE]
            asked = [self._line.read(native.name_request(token, self._model)) for token in some]
            for token, body in zip(some, await asyncio.gather(*asked), strict=True):
                self._names[token] = native.named(body)
