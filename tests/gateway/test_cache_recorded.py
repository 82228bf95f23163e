"""What real engines said, kept and served again: as it came, and through the other form and back without a loss."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import msgspec
import pytest

from backends import BACKENDS
from backends.base import BackendError, Call, Completion, Event
from backends.extras import merge_extra
from backends.schema import Usage
from gateway.cache import entry
from gateway.cache.entry import Label
from gateway.http.errors import InvalidRequest
from gateway.proxy import parse
from tests.support import recorded
from tests.support.harness import events

LABEL = Label(b"k" * 32, "m", 0.0, 60.0)
PATHS = {"/v1/chat/completions": parse.chat, "/v1/completions": parse.completion}


class Said(NamedTuple):
    """One answer of an engine's, as the gateway reads it: chunks, or one whole answer."""

    call: Call
    events: list[Event]
    usage: Usage | None


def said(engine: str, name: str) -> Said | None:
    """Read a recorded context, if it is an answer, and all of one."""
    case = recorded.load(f"{engine}/{name}")
    if case.status != 200 or case.path not in PATHS:
        return None
    try:
        call = PATHS[case.path](case.body, "1" * 32, 1_700_000_000)
        call = msgspec.structs.replace(call, model=call.model or "m")
        requests = BACKENDS[engine].encode(call, "m")
        if len(requests) > 1:
            return None
        if "event-stream" in case.response_headers.get("content-type", ""):
            decoder = BACKENDS[engine].decoder(call, requests[0])
            chunks = list(decoder.feed(case.response_body))
            return Said(call, chunks, decoder.usage) if decoder.finished else None
        found = BACKENDS[engine].decode(call, requests[0], {}, case.response_body)
    except (InvalidRequest, BackendError):
        return None
    if not isinstance(found, Completion):
        return None
    whole: Event = merge_extra(found.answer, found.extra) if found.extra else found.answer
    return Said(call, [whole], found.answer.usage)


ALL = {f"{engine}/{name}": said(engine, name) for engine in ("vllm", "tgi") for name in recorded.names(engine)}
STREAMS = {name: one for name, one in ALL.items() if one and one.call.stream and len(one.events) > 1}
WHOLES = {name: one for name, one in ALL.items() if one and not one.call.stream}


def plain(value: Any) -> Any:
    return json.loads(msgspec.json.encode(value))


def test_there_is_enough_to_show_it_by() -> None:
    assert len(STREAMS) >= 30
    assert len(WHOLES) >= 130


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_served_again_as_it_came(name: str) -> None:
    call, chunks, usage = STREAMS[name]
    made = entry.of_stream(call, chunks, usage, LABEL)
    assert made is not None
    told = events(entry.stream(made, call) or b"")
    assert [one for one in told[:-1] if one["choices"]] == [plain(chunk) for chunk in chunks]
    assert told[-1] == "data: [DONE]"


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_says_the_same_as_a_whole_and_back(name: str) -> None:
    call, chunks, usage = STREAMS[name]
    made = entry.of_stream(call, chunks, usage, LABEL)
    assert made is not None
    back = entry.as_events(msgspec.structs.replace(made, lines=b""), call)
    assert back is not None
    again = entry.of_stream(call, back, usage, LABEL)
    assert again is not None
    assert plain(msgspec.Raw(again.whole)) == plain(msgspec.Raw(made.whole))


@pytest.mark.parametrize("name", WHOLES)
def test_a_whole_answer_is_served_again_as_it_came_and_survives_being_a_stream(name: str) -> None:
    call, (answer,), usage = WHOLES[name]
    made = entry.of_whole(call, answer, usage, LABEL)
    assert made is not None
    told, first = json.loads(entry.whole(made, call) or b""), plain(answer)
    assert told.pop("usage")["prompt_tokens_details"]["cached_tokens"] == first.pop("usage")["prompt_tokens"]
    assert told == first
    chunks = entry.as_events(made, call)
    assert chunks is not None
    again = entry.of_stream(call, chunks, usage, LABEL)
    assert again is not None
    assert json.loads(again.whole) == json.loads(made.whole)
