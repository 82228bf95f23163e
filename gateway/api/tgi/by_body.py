"""Paths whose body says which API it speaks: `/invocations`, `/tokenize`; and `/chat_tokenize`.

`/invocations` is SageMaker's path. As TGI's router does, it takes TGI's body (`inputs`), a chat (`messages`) or a
completion (`prompt`), and answers each as its own path does. `/tokenize` takes TGI's body (`inputs`), and vLLM's, which
is passed on. Whoever speaks OpenAI's words is told of errors in OpenAI's, else in TGI's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import msgspec

from backends.openai import NULL
from gateway.access.guard import admit
from gateway.api import openai, passthrough
from gateway.api.tgi.client import TgiClient
from gateway.api.tgi.handlers import answer, spoken_for
from gateway.api.tgi.tokenize import TgiTokenization
from gateway.http.body import Receive, cancel_on_disconnect, read_json
from gateway.http.client import Client, Send
from gateway.http.context import RequestContext
from gateway.http.errors import InvalidRequest, MethodNotAllowed, PointsmanError
from gateway.http.lifecycle import ASGI, with_context
from gateway.proxy import parse
from gateway.proxy.pipeline import serve
from gateway.services import Services
from gateway.upstream.models import ANY_MODEL

INVOCATIONS = "/invocations"
TOKENIZE = "/tokenize"
CHAT_TOKENIZE = "/chat_tokenize"

C = TypeVar("C", bound=Client)


class EitherClient(Client):
    """A client of whom it is known once the body has come which API it speaks; until then it is taken for `first`."""

    def __init__(self, first: type[Client], context: RequestContext, send: Send, clock: Callable[[], float]) -> None:
        super().__init__(context, send, clock)
        self._spoken: Client = first(context, send, clock)

    def speaks(self, dialect: Callable[[RequestContext, Send, Callable[[], float]], C]) -> C:
        """Return the client as one that speaks this API."""
        self._spoken = client = dialect(self._context, self._send, self._clock)
        return client

    async def fail(self, error: PointsmanError) -> None:
        """Tell of an error, in the words of the API that it speaks."""
        await self._spoken.fail(error)

    def close(self) -> None:
        """Write nothing more to a stream."""
        self._spoken.close()


def invocations(services: Services) -> ASGI:
    """Return the application that answers `/invocations`."""
    chat, completions, generate = openai.chat(services), openai.completions(services), answer(services)

    async def handle(context: RequestContext, receive: Receive, client: EitherClient) -> None:
        fields, receive = await _begun(context, receive, services)
        if "inputs" in fields or not fields.keys() & {"messages", "prompt"}:
            await generate(context, receive, client.speaks(TgiClient))
        else:
            handler = chat if "messages" in fields else completions
            await handler(context, receive, client.speaks(Client))

    return with_context(services, partial(EitherClient, TgiClient), handle)


def tokenize(services: Services) -> ASGI:
    """Return the application that answers `/tokenize`."""
    passed, own = passthrough.json_path(services), _tokenization(services)

    async def handle(context: RequestContext, receive: Receive, client: EitherClient) -> None:
        fields, receive = await _begun(context, receive, services)
        if "inputs" in fields and not fields.keys() & {"messages", "prompt"}:
            await own(context, receive, client.speaks(TgiClient))
        else:
            await passed(context, receive, client.speaks(Client))

    return with_context(services, partial(EitherClient, Client), handle)


def chat_tokenize(services: Services) -> ASGI:
    """Return the application that answers `/chat_tokenize`."""
    own = _tokenization(services)

    async def handle(context: RequestContext, receive: Receive, client: TgiClient) -> None:
        _, receive = await _begun(context, receive, services)
        await own(context, receive, client)

    return with_context(services, TgiClient, handle)


def _tokenization(services: Services) -> Callable[[RequestContext, Receive, TgiClient], Any]:
    """Return the handler of TGI's tokenizer."""

    async def handle(context: RequestContext, receive: Receive, client: TgiClient) -> None:
        body = await read_json(context, receive, services.config.server.max_body_bytes, services.clock)
        context.timing.stage_started_at = services.clock()
        with cancel_on_disconnect(context, receive):
            model = await _model(body, context, services)
            work = TgiTokenization(model, body, context, client, services)
            await serve(work, context, client, services)

    return handle


async def _begun(context: RequestContext, receive: Receive, services: Services) -> tuple[dict[str, Any], Receive]:
    """Let a request in; return the fields of its body, and the body for who reads it again.

    A body that is no object has no fields: whoever is to answer says what is wrong with it.
    """
    if context.method != "POST":
        raise MethodNotAllowed(f"{context.path} takes POST, not {context.method}.", headers={"allow": "POST"})
    await admit(context, services)
    body = await read_json(context, receive, services.config.server.max_body_bytes, services.clock)
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return messages.pop() if messages else await receive()

    return _fields(body), again


def _fields(body: bytes) -> dict[str, Any]:
    try:
        return dict(parse.fields(body))
    except InvalidRequest:
        return {}


async def _model(body: bytes, context: RequestContext, services: Services) -> str:
    """Return whom a request is for: a chat may say it, TGI's own do not."""
    named = _fields(body).get("model", NULL)
    try:
        name = msgspec.json.decode(named, type=str | None) or ""
    except msgspec.DecodeError:
        name = ""
    return (await spoken_for(context, services)).name if name in ANY_MODEL else name
