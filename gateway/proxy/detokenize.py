"""Prompts of token ids for an engine that takes text alone: a vLLM that serves the same model has `/detokenize`."""

from functools import partial

import msgspec
from msgspec import Raw

from backends.base import Call
from backends.inbound.tgi.wire import Detokenized
from backends.schema import CompletionRequest
from gateway.http.context import RequestContext
from gateway.http.errors import EngineFailed
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.subrequest import ask_beside
from gateway.services import Services
from gateway.upstream.models import ModelRoute

PATH = "/detokenize"


async def as_text(call: Call, route: ModelRoute, context: RequestContext, services: Services) -> Call:
    """Return the call with its prompts as texts, if they are token ids and a vLLM beside can tell. Else as it was.

    Raises PointsmanError.
    """
    view = call.view
    if not isinstance(view, CompletionRequest) or isinstance(view.prompts[0], str):
        return call
    able = [one for one in route.candidates if PATH in one.endpoint.backend.passthrough_paths and one.endpoint.up]
    if not able:
        return call
    texts = [await ask_beside(able, PATH, partial(_text, ids), context, services) for ids in view.prompts]
    view = msgspec.structs.replace(view, prompt=texts)
    return msgspec.structs.replace(call, view=view, body=call.body | {"prompt": Raw(msgspec.json.encode(texts))})


async def _text(ids: list[int], client: EngineClient) -> str:
    body = msgspec.json.encode({"model": client.attempt.candidate.model, "tokens": ids})
    answer = await client.ask(PATH, body)
    try:
        return msgspec.json.decode(answer, type=Detokenized).prompt
    except msgspec.DecodeError as error:
        raise EngineFailed(f"The engine {client.endpoint.name} could not turn the token ids into text.") from error
