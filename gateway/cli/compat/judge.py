"""What becomes of one request on the other engine, and why; and the count over all of them. Pure.

The parser and the dialects are asked what they refuse and what they adapt; `facts` adds how the request is taken
today.
"""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

from backends import BACKENDS, parameters
from backends.base import Backend, BackendError, Call
from backends.inbound.tgi import serde as native_serde
from backends.inbound.tgi import translate as inbound
from gateway.cli.compat import facts
from gateway.cli.compat.facts import RequestFacts, Verdict
from gateway.cli.compat.records import CHAT, NATIVE, TEXT, Recorded, UnreadableRecord, read, value
from gateway.cli.compat.table import FACTS
from gateway.http.errors import PointsmanError
from gateway.proxy import parse

EXAMPLES = 5
MAX_REASONS = 500  # a bound for whatever is in the file
MAX_MODELS = 20
MAX_FIELDS = 64
CONTEXT = 2**31

_READERS = {CHAT: parse.chat, TEXT: parse.completion}
_PLACE = re.compile(r"\[\d+\]")


class Reason(Struct, frozen=True):
    """Why a request has its verdict."""

    verdict: Verdict
    parameter: str
    why: str
    advice: str = ""
    source: str = ""


class Seen(Struct):
    """A reason, how often it was there, and the first lines."""

    reason: Reason
    requests: int = 0
    lines: list[int] = []


class Tally:
    """The count over all lines. Its size does not grow with theirs."""

    def __init__(self, today: str, then: str) -> None:
        self.today, self.then = today, then
        self.verdicts: Counter[Verdict] = Counter()
        self.reasons: dict[tuple[Any, ...], Seen] = {}
        self.models: Counter[str] = Counter()
        self.unreadable = 0
        self.unread: list[tuple[int, str]] = []

    @property
    def requests(self) -> int:
        """How many requests were judged."""
        return self.verdicts.total()

    def add(self, number: int, line: bytes) -> None:
        """Judge one line and count it. Blank lines are none."""
        if not line.strip():
            return
        try:
            recorded = read(line)
        except UnreadableRecord as error:
            self.refuse(number, str(error))
            return
        try:
            reasons = judged(recorded, self.today, self.then)
        except UnreadableRecord as error:
            self.refuse(number, str(error))
            return
        except Exception as error:  # as a client would get a 500: the report must not end there
            reasons = [_refused("body", f"The gateway fails on it: {type(error).__name__}.", "a fault of Pointsman's")]
        self._model(recorded)
        self.verdicts[max((reason.verdict for reason in reasons), default=Verdict.SAME)] += 1
        for key, reason in {_key(reason): reason for reason in reasons}.items():
            self._count(key, reason, number)

    def refuse(self, number: int, why: str) -> None:
        """Count a line that cannot be read."""
        self.unreadable += 1
        if len(self.unread) < EXAMPLES:
            self.unread.append((number, why))

    def _count(self, key: tuple[Any, ...], reason: Reason, number: int) -> None:
        if key not in self.reasons and len(self.reasons) >= MAX_REASONS:
            reason = Reason(reason.verdict, "others", "More kinds of reasons than are listed.")
            key = _key(reason)
        seen = self.reasons.setdefault(key, Seen(reason))
        seen.requests += 1
        if len(seen.lines) < EXAMPLES:
            seen.lines.append(number)

    def _model(self, recorded: Recorded) -> None:
        name = value(recorded.body).get("model")
        if isinstance(name, str) and (name in self.models or len(self.models) < MAX_MODELS):
            self.models[name] += 1


def _key(reason: Reason) -> tuple[Any, ...]:
    """Return what makes two reasons one: the words of a refusal may hold a client's own."""
    return reason.verdict, reason.parameter, "" if reason.verdict is Verdict.REFUSED else reason.why


def judged(recorded: Recorded, today: str, then: str) -> list[Reason]:
    """Return the reasons why a request is not the same on the other engine. Raises UnreadableRecord."""
    if recorded.surface == NATIVE:
        return list(_native(recorded, today, then))
    if recorded.surface == "":
        return list(_passed(recorded, today, then))
    try:
        call = _READERS[recorded.surface](recorded.body, "compat", 0)
    except PointsmanError as error:
        return [_refused(error.param or "body", error.message, "the gateway's own check")]
    return list(_openai(recorded, call, today, then))


# --- chats and completions ------------------------------------------------------------------------------------


def _openai(recorded: Recorded, call: Call, today: str, then: str) -> Iterator[Reason]:
    backend = BACKENDS[then]
    for name in lacking(backend, call):
        yield _refused(name, f"{backend.label} has no way to do it.", "no way on the engine", _route(today))
    body = value(recorded.body)
    try:
        requests = backend.encode(call, "model")
    except BackendError as error:
        yield _refused(error.param or "body", error.message, "the dialect")
        return
    asked = RequestFacts(recorded.surface, body, call.view.greedy, tuple(request.body for request in requests))
    yield from _by_facts(asked, today, then)
    if today == "tgi":
        yield from _ignored(call, asked)
    for name in dict.fromkeys(name for request in requests for name in request.adapted):
        row = parameters.table(call).get(name)
        why = f"The gateway evens it out{f': {row.note}' if row and row.note else ''}."
        yield Reason(Verdict.HANDLED, name, why, "", "x-pointsman-adapted")


def _by_facts(asked: RequestFacts, today: str, then: str) -> Iterator[Reason]:
    for fact in FACTS[today, then]:
        if asked.surface in fact.surfaces and fact.when(asked):
            yield Reason(fact.verdict, fact.parameter, fact.why, fact.advice, fact.source)


def _ignored(call: Call, asked: RequestFacts) -> Iterator[Reason]:
    """Yield what TGI leaves unread today: what its dialect has no way for, but for what has a row of its own."""
    told = {fact.parameter for fact in FACTS["tgi", "vllm"] if asked.surface in fact.surfaces}
    for name in lacking(BACKENDS["tgi"], call):
        if name in told or name in facts.KNOWN_TO_TGI[asked.surface] or "[" in name:
            continue
        if not facts.asks_nothing(name, asked.body.get(name)):
            why = "TGI ignores it in silence today; vLLM obeys it, if it knows it."
            yield Reason(Verdict.CHANGED, name, why, "Leave it out to keep what TGI does.", "2.1 vLLM extras")


def lacking(backend: Backend, call: Call) -> list[str]:
    """Return all parameters that a dialect has no way for. It names the first: so it is asked again without that."""
    names: list[str] = []
    for _ in range(MAX_FIELDS):
        name = backend.unsupported(call)
        if name is None or name in names:
            break
        names.append(_PLACE.sub("[]", name))
        if name not in call.body or name in ("messages", "prompt"):
            break
        body = {field: raw for field, raw in call.body.items() if field != name}
        view = call.view
        if name in view.__struct_fields__:
            view = msgspec.structs.replace(view, **{name: None})
        call = msgspec.structs.replace(call, body=body, view=view)
    return names


def _refused(name: str, why: str, source: str, advice: str = "") -> Reason:
    return Reason(Verdict.REFUSED, _PLACE.sub("[]", name), why, advice, source)


def _route(today: str) -> str:
    return f"Keep a {BACKENDS[today].label} behind the model: such requests are routed to it."


# --- TGI's own API, and paths that only pass ------------------------------------------------------------------


def _native(recorded: Recorded, today: str, then: str) -> Iterator[Reason]:
    if today != "tgi":
        raise UnreadableRecord("a request of TGI's own API, which vLLM does not take today")
    path = recorded.path if recorded.path in (inbound.STREAM, inbound.WHOLE) else inbound.WHOLE
    try:
        asked = inbound.read(path, recorded.body)
    except native_serde.Rejected as error:
        raise UnreadableRecord(f"TGI itself refuses it: {str(error)[:120]}") from error
    if words := inbound.refusal(asked):
        blamed = re.search(r"`(\w+)`", words)
        yield _refused(blamed[1] if blamed else "parameters", words + ".", "2.3", _route(today))
        return
    settings = value(recorded.body).get("parameters")
    body = settings if isinstance(settings, dict) else {}
    yield from _by_facts(RequestFacts(NATIVE, body, asked.greedy), today, then)
    for name in inbound.encode(asked, "model", CONTEXT, 0).adapted:
        yield Reason(Verdict.HANDLED, name, "Said in vLLM's words, answered in TGI's.", "", "x-pointsman-adapted")


def _passed(recorded: Recorded, today: str, then: str) -> Iterator[Reason]:
    """Judge a path that the gateway passes on as it is, to an engine that has it."""
    path = recorded.path[recorded.path.find("/v1/") :] if "/v1/" in recorded.path else recorded.path
    if path not in BACKENDS[today].passthrough_paths | BACKENDS[then].passthrough_paths:
        raise UnreadableRecord(f"{recorded.path[:60]} is no path of either engine's that the gateway has")
    if path not in BACKENDS[then].passthrough_paths:
        yield _refused(path, f"{BACKENDS[then].label} has no such path.", "1", _route(today))
    elif path not in BACKENDS[today].passthrough_paths:
        yield Reason(Verdict.MENDED, path, f"{BACKENDS[today].label} has no such path.", "", "1")
