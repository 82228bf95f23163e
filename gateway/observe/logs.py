"""What is said on stderr: a line for each request, and now and then one of the gateway's own.

For people on a terminal it is text; anywhere else each line is a JSON object. Neither holds prompts, answers, keys or
what an error says, which may quote them: of an error there are its type and code.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import BinaryIO, TextIO

import msgspec
import structlog
from structlog.typing import Processor

from backends.estimate import Estimate
from gateway.http.context import RequestContext
from gateway.http.errors import Outcome, PointsmanError, outcome
from gateway.observe.labels import operation

LEVELS: dict[Outcome, str] = {
    "internal": "error",
    "engine_error": "warning",
    "unreachable": "warning",
    "overloaded": "warning",
    "timeout": "warning",
}
CHATTY = ("pointsman", "uvicorn.error")  # from INFO on; all else from WARNING on

_encode = msgspec.json.Encoder().encode


class AccessLine(msgspec.Struct):
    """What is said of a request."""

    time: datetime
    level: str
    request_id: str
    trace_id: str
    method: str
    path: str
    model: str
    engine: str
    deployment: str
    attempts: int
    status: int
    outcome: Outcome
    stream: bool
    prompt_tokens: int | None
    completion_tokens: int | None
    total_ms: float
    ttft_ms: float | None
    overhead_ms: float | None
    key: str
    cache: str
    adapted: tuple[str, ...]
    error: dict[str, str | None] | None
    event: str = "request"
    usage_estimated: bool | msgspec.UnsetType = msgspec.UNSET  # there, and true, where not all tokens are the engine's


def as_text(line: AccessLine) -> bytes:
    """Return the line of a request as people like to read it."""
    who = " ".join(name for name in (line.model, line.deployment or line.engine) if name)
    path = "".join(letter if letter.isprintable() else "?" for letter in line.path)  # nothing that a terminal obeys
    tokens = ""
    if line.prompt_tokens is not None:
        tokens = f" {'~' * bool(line.usage_estimated)}{line.prompt_tokens}+{line.completion_tokens or 0} tokens"
    first = f" (first event {line.ttft_ms:.0f} ms)" if line.ttft_ms is not None else ""
    came_to = line.outcome if line.error is None else f"{line.outcome} {line.error['code'] or ''}".rstrip()
    return (
        f"{line.time.astimezone():%H:%M:%S} {line.status} {line.method} {path} {who or '-'} "
        f"{came_to} {line.total_ms:.0f} ms{first}{tokens}".encode()
    )


class RequestLog:
    """Writes the line of a request; to a terminal, if that is what is at the other end, a readable one."""

    def __init__(self, out: BinaryIO) -> None:
        self._write = structlog.BytesLogger(out).msg
        self._render = as_text if out.isatty() else _encode

    def write(self, ended: Sequence[tuple[RequestContext, float, float]]) -> None:
        """Write of requests that ended at a monotonic time, which was the other one in Unix time; not of operators'."""
        lines = [self._render(_line(*one)) for one in ended if operation(one[0].path)]
        if lines:
            with suppress(OSError, ValueError):  # nobody reads stderr any more; the requests are none the worse for it
                self._write(b"\n".join(lines))


def _line(context: RequestContext, now: float, wall: float) -> AccessLine:
    ended = outcome(context.failure)
    usage, failure = context.usage, context.failure
    engine, deployment = context.served_by
    return AccessLine(
        time=datetime.fromtimestamp(wall, UTC),
        level=LEVELS.get(ended, "info"),
        request_id=context.request_id,
        trace_id=context.trace.hex,
        method=context.method,
        path=context.path,
        model=context.model,
        engine=engine,
        deployment=deployment,
        attempts=len(context.attempts),
        status=context.status,
        outcome=ended,
        stream=context.streamed,
        prompt_tokens=usage.prompt_tokens if usage and usage.prompt_tokens >= 0 else None,
        completion_tokens=usage.completion_tokens if usage and usage.completion_tokens >= 0 else None,
        total_ms=_ms(now - context.timing.began),
        ttft_ms=_ms(context.timing.first_event_at - context.timing.began) if context.timing.first_event_at else None,
        overhead_ms=_ms(context.timing.overhead) if context.timing.answered_at else None,
        key=context.principal.id,
        cache=context.cache,
        adapted=context.adapted,
        usage_estimated=isinstance(usage, Estimate) or msgspec.UNSET,
        error={"type": failure.type, "code": failure.code} if isinstance(failure, PointsmanError) else None,
    )


def _ms(seconds: float) -> float:
    return int(seconds * 1e6 + 0.5) / 1000  # a third of what round() costs


def to_stderr(out: TextIO) -> None:
    """Send what the gateway and its libraries have to say to a stream, a line each."""
    logging.basicConfig(handlers=[handler(out)], level=logging.WARNING)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.INFO)


def handler(out: TextIO) -> logging.Handler:
    """Return what writes them."""
    made = logging.StreamHandler(out)
    plain = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    made.setFormatter(plain if out.isatty() else _json_formatter())
    return made


def _json_formatter() -> logging.Formatter:
    before: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", key="time"),
        structlog.processors.format_exc_info,
    ]
    after: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.JSONRenderer(serializer=lambda line, **_: _encode(line).decode()),
    ]
    return structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=after)
