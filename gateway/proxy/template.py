"""Whether an engine's chat template puts tools into the prompt: asked once of each model, when it is first of interest.

vLLM's `/tokenize` says how long the prompt of a chat is. If it is as long with a tool as without one, the template
knows no tools, and the model would never hear of them (`backends.tools_prompt`).
"""

from contextlib import suppress

import msgspec
from msgspec import Struct

from backends import tools_prompt
from backends.base import Call
from gateway.http.context import Attempt, RequestContext
from gateway.http.errors import EngineFailed, PointsmanError
from gateway.proxy.engine_client import EngineClient
from gateway.proxy.subrequest import ask_within
from gateway.services import Services

PATH = "/tokenize"
LIMIT = 10.0  # seconds: a request waits for the answer


class _PromptLength(Struct):
    count: int


async def with_template(call: Call, attempt: Attempt, context: RequestContext, services: Services) -> Call:
    """Return the call, whose tools may go into the prompt, as the engine of an attempt needs it.

    An engine that does not say is taken to know tools, and is asked again the next time.
    """
    candidate = attempt.candidate
    endpoint, model = candidate.endpoint, candidate.model
    if not tools_prompt.concerns(call) or PATH not in endpoint.backend.passthrough_paths:
        return call  # as it makes no difference
    if model not in endpoint.leaves_out_tools:
        with suppress(PointsmanError):
            endpoint.leaves_out_tools[model] = await ask_within(attempt, PATH, _leaves_out, context, services, LIMIT)
    return msgspec.structs.replace(call, tools_in_prompt=endpoint.leaves_out_tools.get(model, False))


async def _leaves_out(client: EngineClient) -> bool:
    without, within = [await _length(client, body) for body in tools_prompt.probes(client.attempt.candidate.model)]
    return without == within


async def _length(client: EngineClient, body: bytes) -> int:
    try:
        return msgspec.json.decode(await client.ask(PATH, body), type=_PromptLength).count
    except msgspec.DecodeError as error:
        raise EngineFailed(f"The engine {client.endpoint.name} did not say how long a prompt is.") from error
