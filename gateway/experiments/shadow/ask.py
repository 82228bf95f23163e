"""One deployment asked beside a client's request, under an account of its own.

Nothing is retried, and no circuit breaker is told: what a client's requests meet is for clients' requests to find out.
"""

from msgspec import Struct

from backends.base import Call, Event
from backends.schema import Usage
from gateway.experiments.answers import SaidAnswer
from gateway.experiments.shadow.heard import said
from gateway.http.context import Attempt, RequestContext
from gateway.observe.trace_context import UNTRACED
from gateway.proxy.generation import open_stream
from gateway.proxy.subrequest import SubRequest
from gateway.services import Services
from gateway.upstream.models import Candidate

LIMIT = 600.0  # seconds


class ShadowAnswer(Struct, frozen=True):
    """An answer, and its times in seconds since the engine was asked; -1 for one that it does not have."""

    said: SaidAnswer
    usage: Usage | None
    ttft: float
    itl: float
    e2e: float

    @property
    def cached(self) -> int:
        """The tokens of the prompt that the engine had in its cache, as far as it says."""
        details = self.usage.prompt_tokens_details if self.usage is not None else None
        return int((details or {}).get("cached_tokens") or 0)


async def ask(candidate: Candidate, call: Call, parent: RequestContext, services: Services) -> ShadowAnswer:
    """Return a deployment's answer to a call; it holds a permit there, which is given back. Raises PointsmanError."""
    try:
        async with SubRequest(parent.path, parent, services, LIMIT) as context:
            context.trace, context.headers, context.client_id = UNTRACED, {}, call.request_id
            return await _answer(Attempt(candidate, 0, services.clock()), call, context, services)
    finally:
        services.admission.release(candidate)


async def _answer(attempt: Attempt, call: Call, context: RequestContext, services: Services) -> ShadowAnswer:
    source = await open_stream(call, attempt, context, services)
    events: list[Event] = []
    try:
        first = context.timing.received_at
        while batch := await source.read():
            events += batch
            if source.ended:
                break
        sent, last = context.timing.sent_at, context.timing.received_at
        usage = source.usage
    finally:
        source.close()
    written = usage.completion_tokens if usage is not None else 0
    itl = (last - first) / (written - 1) if written > 1 else -1.0
    return ShadowAnswer(said(events, usage), usage, first - sent, itl, last - sent)
