"""Prompts of token ids for an engine that takes text alone: a vLLM that serves the same model has `/detokenize`."""

import msgspec
from msgspec import Raw

from backends.base import Call
from backends.schema import CompletionRequest
from gateway.http.context import RequestContext
from gateway.http.errors import InvalidRequest, PointsmanError
from gateway.services import Services
from gateway.upstream.models import Candidate, ModelRoute

PATH = "/detokenize"


class Detokenized(msgspec.Struct):
    """The answer of `/detokenize`."""

    prompt: str


async def as_text(call: Call, route: ModelRoute, context: RequestContext, services: Services) -> Call:
    """Return the call with its prompts as texts, if they are token ids and a vLLM beside can tell. Else as it was."""
    view = call.view
    if not isinstance(view, CompletionRequest) or isinstance(view.prompts[0], str):
        return call
    candidate = next(
        (
            candidate
            for candidate in route.candidates
            if PATH in candidate.endpoint.backend.passthrough_paths and candidate.endpoint.up
        ),
        None,
    )
    if candidate is None:
        return call
    texts = [await _text(candidate, ids, context, services) for ids in view.prompts]
    view = msgspec.structs.replace(view, prompt=texts)
    return msgspec.structs.replace(call, view=view, body=call.body | {"prompt": Raw(msgspec.json.encode(texts))})


async def _text(candidate: Candidate, ids: list[int], context: RequestContext, services: Services) -> str:
    body = msgspec.json.encode({"model": candidate.model, "tokens": ids})
    try:
        reply = await services.upstream.post(candidate.endpoint, PATH, body, {"x-request-id": context.id})
        said = await reply.read()
        return msgspec.json.decode(said, type=Detokenized).prompt
    except (PointsmanError, msgspec.DecodeError) as error:
        raise InvalidRequest(
            "'prompt': the token ids could not be turned into text for this engine.", "prompt"
        ) from error
