"""An answer of TGI's over several requests: pieces of 1,024 tokens, stops that it misses, tokens to be counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backends.base import BackendError, Call, Cause, Completion, FollowUp, UpstreamRequest
from backends.convert import as_chunks, assembled
from backends.schema import Usage
from backends.stops import StopScanner
from backends.tgi import TGI
from backends.tgi import pieces as of_tgi
from tests.support.dialects import HI, TOOL, call_of, chat, drive, plain, text
from tests.support.recorded import load

BACKEND = TGI()
CHAT = "/v1/chat/completions"
PROMPT = 12  # the tokens of any prompt


# --- a TGI that has only one thing to say -----------------------------------------------------------------------


class Reply(NamedTuple):
    """What an engine answers."""

    status: int
    body: bytes
    headers: dict[str, str] = {}  # noqa: RUF012


class Engine:
    """Says one text, token by token, and goes on with it where a request already holds its beginning.

    It looks for stops as TGI does, at the end of what this request has come to, and ends at its piece and its context.
    """

    def __init__(self, tokens: list[str], context: int = 4096, piece: int = 1024) -> None:
        self.tokens = tokens
        self.context = context
        self.piece = piece
        self.asked: list[dict[str, Any]] = []

    def __call__(self, request: UpstreamRequest) -> Reply:
        body = json.loads(request.body)
        self.asked.append(body)
        settings = body.get("parameters", body)
        said = self._said(body)
        wanted = settings.get("max_new_tokens", settings.get("max_tokens"))
        read = PROMPT + said
        room = min(self.context - read if wanted is None else wanted, self.piece)
        if room < 1 or read + room > self.context:
            words = f"`inputs` tokens + `max_new_tokens` must be <= {self.context}. Given: {read} `inputs` tokens and"
            return self._refused(f"Input validation error: {words} {room} `max_new_tokens`", request)
        new, finish = self._written(said, room, settings.get("stop", []))
        if not request.stream:
            return Reply(200, whole(new, finish, PROMPT), {"x-prompt-tokens": str(PROMPT)})
        stream = chat_stream if request.path == CHAT else text_stream
        return Reply(200, stream(new, finish, read))

    def _said(self, body: dict[str, Any]) -> int:
        """How many tokens the request holds already."""
        if "inputs" in body:
            text = body["inputs"].removeprefix("p")
        else:
            last = body["messages"][-1]
            text = last["content"] if last["role"] == "assistant" else ""
        return next(n for n in range(len(self.tokens) + 1) if "".join(self.tokens[:n]) == text)

    def _written(self, said: int, room: int, stops: list[str]) -> tuple[list[str], str]:
        new: list[str] = []
        for token in [*self.tokens[said:], ""]:  # the end of sequence, an event without text
            new.append(token)
            if len(new) == room:
                return new, "length"
            if any("".join(new).endswith(stop) for stop in stops):
                return new, "stop_sequence"
        return new, "eos_token"

    def _refused(self, words: str, request: UpstreamRequest) -> Reply:
        if not request.stream:
            return Reply(422, json.dumps({"error": words, "error_type": "validation"}).encode())
        if request.path == CHAT:
            return Reply(200, event({"error": {"message": words, "http_status_code": 422}}) + b"data: [DONE]\n\n")
        return Reply(200, event({"error": words, "error_type": "validation"}))


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def chat_stream(tokens: list[str], finish: str, read: int) -> bytes:
    ends = [None] * (len(tokens) - 1) + [{"eos_token": "stop"}.get(finish, finish)]
    chunks: list[Any] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": one}, "finish_reason": end}], "usage": None}
        for one, end in zip(tokens, ends, strict=True)
    ]
    used = {"prompt_tokens": read, "completion_tokens": len(tokens), "total_tokens": read + len(tokens)}
    return b"".join(map(event, [*chunks, {"choices": [], "usage": used}])) + b"data: [DONE]\n\n"


def text_stream(tokens: list[str], finish: str, read: int) -> bytes:
    events: list[dict[str, Any]] = [
        {"token": {"id": 1, "text": one, "logprob": -1.0, "special": one == ""}, "generated_text": None}
        | {"details": None}
        for one in tokens
    ]
    details = {"finish_reason": finish, "generated_tokens": len(tokens), "seed": None, "input_length": read}
    events[-1] |= {"generated_text": "".join(tokens), "details": details}
    return b"".join(map(event, events))


def whole(tokens: list[str], finish: str, read: int) -> bytes:
    message = {"role": "assistant", "content": "".join(tokens)}
    used = {"prompt_tokens": read, "completion_tokens": len(tokens), "total_tokens": read + len(tokens)}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return json.dumps({"choices": [choice], "usage": used}).encode()


# --- the gateway, less its sockets ------------------------------------------------------------------------------


class Played(NamedTuple):
    """An answer, over as many requests as it took."""

    chunks: list[Any]
    usage: Usage | None
    error: BackendError | None
    requests: list[UpstreamRequest]
    whole: Completion

    @property
    def choices(self) -> list[dict[str, Any]]:
        return [choice for chunk in self.chunks for choice in chunk["choices"]]

    def said(self, index: int = 0) -> str:
        mine = [choice for choice in self.choices if choice["index"] == index]
        return "".join(choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in mine)

    def finishes(self, index: int = 0) -> list[str]:
        mine = [choice for choice in self.choices if choice["index"] == index]
        return [choice["finish_reason"] for choice in mine if choice["finish_reason"]]


def played(call: Call, engine: Any, read: int = 1 << 30) -> Played:
    """Ask as `EngineClient` does, until there is an answer; each stream comes in reads of so many bytes."""
    (first,) = BACKEND.encode(call, "tgi")
    request: UpstreamRequest | None = first
    requests: list[UpstreamRequest] = []
    events: list[Any] = []
    used, error = None, None
    while request is not None:
        assert len(requests) < 300
        requests.append(request)
        reply = engine(request)
        failure: Any
        if reply.status == 200 and request.stream:
            decoder = BACKEND.decoder(call, request)
            for at in range(0, len(reply.body), read):
                events += decoder.feed(reply.body[at : at + read])
                if decoder.finished or decoder.failure is not None:
                    break
            else:
                decoder.end()
            failure, used = decoder.failure, decoder.usage
        elif reply.status == 200:
            failure = BACKEND.decode(call, request, reply.headers, reply.body)
        else:
            failure = BACKEND.failure(call, request, reply.status, reply.headers, reply.body)
        request = failure.request if isinstance(failure, FollowUp) else None
        error = failure if isinstance(failure, BackendError) else None
        if isinstance(failure, Completion):
            events += as_chunks(failure)
            used = failure.answer.usage
    return Played([plain(one) for one in events], used, error, requests, assembled(call, events, used))


def usage(prompt: int, completion: int) -> Usage:
    return Usage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def both(**fields: Any) -> list[Call]:
    """A chat and a completion, as streams."""
    return [chat(stream=True, **fields), text(prompt="p", stream=True, **fields)]


def words(count: int) -> list[str]:
    return [f"{place} " for place in range(count)]


# --- pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "asked"),
    [
        (1024, [1024]),
        (1025, [1024, 1]),
        (2048, [1024, 1024]),
        (2100, [1024, 1024, 52]),
    ],
)
def test_an_answer_comes_in_pieces_of_1024_tokens(limit: int, asked: list[int]) -> None:
    """The text goes on where it was, the usage is summed, and the prompt is counted once."""
    tokens = words(3000)
    for call in both(max_tokens=limit):
        engine = Engine(tokens)
        got = played(call, engine)
        assert got.said() == "".join(tokens[:limit])
        assert got.finishes() == ["length"]
        assert got.usage == usage(PROMPT, limit)
        assert [(one.get("parameters") or {}).get("max_new_tokens", one.get("max_tokens")) for one in engine.asked] == (
            asked
        )
        assert all(one.stream for one in got.requests)
        assert got.whole.answer.usage == got.usage


def test_each_piece_continues_what_has_been_said() -> None:
    tokens = words(1030)
    so_far = "".join(tokens[:1024])
    by_chat, by_text = (Engine(tokens), Engine(tokens))
    first, second = both(max_tokens=1030, temperature=0.5, seed=7)
    played(first, by_chat)
    played(second, by_text)
    assert by_chat.asked[1] == by_chat.asked[0] | {
        "messages": [*HI, {"role": "assistant", "content": so_far}],
        "max_tokens": 6,
    }
    assert by_text.asked[1]["inputs"] == "p" + so_far
    assert by_text.asked[1]["parameters"] == by_text.asked[0]["parameters"] | {"max_new_tokens": 6}


def test_a_last_message_of_the_assistants_is_continued_by_each_piece() -> None:
    said = {"role": "assistant", "content": "so: "}
    called = {"role": "assistant", "tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]}
    for last, continued in ((said, [{"role": "assistant", "content": "so: a"}]), (called, None)):
        (request,) = BACKEND.encode(chat(messages=[*HI, last], max_tokens=1025), "tgi")
        got = drive(
            BACKEND.decoder(chat(messages=[*HI, last], max_tokens=1025), request), [chat_stream(["a"], "length", 5)]
        )
        assert isinstance(got.failure, FollowUp)
        messages = json.loads(got.failure.request.body)["messages"]
        before = json.loads(request.body)["messages"]
        assert messages == (
            [*HI, *continued] if continued is not None else [*before, {"role": "assistant", "content": "a"}]
        )


def test_the_first_chunk_of_a_chat_has_the_role_and_no_other() -> None:
    got = played(chat(stream=True, max_tokens=1030), Engine(words(1030)))
    roles = [place for place, choice in enumerate(got.choices) if "role" in choice["delta"]]
    assert roles == [0]
    assert all(chunk["id"] == "chatcmpl-r" and chunk["created"] == 1700000000 for chunk in got.chunks)


def test_the_echo_comes_once() -> None:
    got = played(text(prompt="p", echo=True, max_tokens=1030, stream=True), Engine(words(1030)))
    assert got.said() == "p" + "".join(words(1030))


def test_legacy_offsets_go_on_from_piece_to_piece() -> None:
    tokens = words(1030)
    got = played(text(prompt="p", logprobs=0, max_tokens=1030, stream=True), Engine(tokens))
    (choice,) = got.whole.answer.choices
    assert choice.logprobs["tokens"] == tokens
    assert choice.logprobs["text_offset"] == [len("".join(tokens[:place])) for place in range(1030)]
    assert len(choice.logprobs["token_logprobs"]) == len(choice.logprobs["top_logprobs"]) == 1030


def test_without_a_limit_an_answer_goes_on_to_its_end() -> None:
    for tokens in (words(5), words(1500)):
        engine = Engine(tokens)
        got = played(chat(), engine)
        assert (got.said(), got.finishes()) == ("".join(tokens), ["stop"])
        assert got.usage == usage(PROMPT, len(tokens) + 1), "the end of sequence is a token, too"
        assert all("max_tokens" not in one for one in engine.asked)


@pytest.mark.parametrize("stops", [None, [" x"]])
@pytest.mark.parametrize("limit", [None, 2000])
def test_a_context_that_fills_in_a_later_piece_ends_the_answer(limit: int | None, stops: list[str] | None) -> None:
    """Nothing of it is lost, not even what might have been the beginning of a stop."""
    tokens = words(3000)
    calls = [chat(max_tokens=limit, stop=stops, stream=True)]
    if limit is not None:
        calls.append(text(prompt="p", max_tokens=limit, stop=stops, stream=True))
    for call in calls:
        got = played(call, Engine(tokens, context=2000))
        assert got.said() == "".join(tokens[: 2000 - PROMPT])
        assert (got.finishes(), got.usage, got.error) == (["length"], usage(PROMPT, 2000 - PROMPT), None)
        assert got.whole.answer.choices[0].finish_reason == "length"


def test_a_limit_above_the_context_is_no_fault_any_more_once_a_piece_has_come() -> None:
    """Said of the first piece it is the client's; later it would break an answer that has begun."""
    for call in both(max_tokens=3000):
        got = played(call, Engine(words(4000), context=2000))
        assert (got.error, got.finishes(), got.usage) == (None, ["length"], usage(PROMPT, 2000 - PROMPT))
        got = played(call, Engine(words(4000), context=1000))
        assert got.error is not None
        assert (got.error.cause, got.error.param, got.chunks) == (Cause.INVALID, "max_tokens", [])


def test_an_engine_that_fails_in_a_later_piece_has_failed() -> None:
    for call in both(max_tokens=2000):
        for broken, cause in [
            ({"error": {"message": "Model is overloaded", "http_status_code": 422}}, Cause.OVERLOADED),
            ({"error": "Request failed during generation: x", "error_type": "generation"}, Cause.FAILED),
        ]:
            engine = Engine(words(2000))

            def failing(request: UpstreamRequest, engine: Engine = engine, broken: Any = broken) -> Reply:
                return Reply(200, event(broken)) if engine.asked else engine(request)

            got = played(call, failing)
            assert got.error is not None
            assert (got.error.cause, got.finishes()) == (cause, [])
            assert got.said() == "".join(words(1024))


def test_an_end_of_sequence_at_the_end_of_a_piece_is_asked_for_again() -> None:
    """TGI says `length` of it: whether there is more to come only another request can tell."""
    for call in both(max_tokens=1500):
        got = played(call, Engine(words(1023)))
        assert (got.said(), got.finishes()) == ("".join(words(1023)), ["stop"])
        assert got.usage == usage(PROMPT, 1025)


def test_a_piece_without_text_is_the_last() -> None:
    """The next would be the same."""
    got = played(chat(), Engine([], context=PROMPT + 1))
    assert (got.said(), got.finishes(), got.usage, len(got.requests)) == ("", ["length"], usage(PROMPT, 1), 1)


def test_a_stream_without_usage_cannot_be_continued() -> None:
    body = chat_stream(["a"], "length", 5)
    usage_event = body.index(b'data: {"choices": []')
    cut = body[:usage_event] + b"data: [DONE]\n\n"
    got = played(chat(max_tokens=1030), lambda _: Reply(200, cut))
    assert got.error is not None
    assert got.error.cause is Cause.FAILED


# --- stops ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1030, 2000])
def test_a_stop_across_the_boundary_of_two_pieces_is_found(limit: int) -> None:
    """Its beginning is held back until the next piece shows what it is; then nothing is left to be counted."""
    tokens = words(3000)
    stop = f"{tokens[1023]}{tokens[1024]}"[1:]
    for call in both(max_tokens=limit, stop=stop):
        got = played(call, Engine(tokens))
        assert got.said() == "".join(tokens[:1023]) + tokens[1023][:1]
        assert (got.finishes(), got.usage) == (["stop"], usage(PROMPT, 1025))
        assert len(got.requests) == 2


def test_what_is_held_back_is_shown_if_no_stop_comes_of_it() -> None:
    tokens = words(1100)
    for call in both(max_tokens=1030, stop=tokens[1023] + "x"):
        got = played(call, Engine(tokens))
        assert (got.said(), got.finishes()) == ("".join(tokens[:1030]), ["length"])
        assert got.usage == usage(PROMPT, 1030)


def test_a_stop_in_the_last_token_of_a_piece_is_the_end() -> None:
    """No further piece is asked for, and nothing of one is shown."""
    tokens = words(3000)
    for call in both(max_tokens=2000, stop=tokens[1023][:-1]):
        engine = Engine(tokens)
        got = played(call, engine)
        assert (got.said(), got.finishes(), got.usage) == ("".join(tokens[:1023]), ["stop"], usage(PROMPT, 1024))
        assert len(engine.asked) == 1


def test_a_stop_inside_a_token_ends_the_engines_work_and_leaves_the_prompt_to_be_counted() -> None:
    """The client has its finish reason at once; the usage follows."""
    tokens = ["a", "bcd", "e", "f"]
    for call in both(max_tokens=100, stop="c", temperature=0.7, seed=3):
        engine = Engine(tokens)
        got = played(call, engine)
        assert (got.said(), got.finishes(), got.usage) == ("ab", ["stop"], usage(PROMPT, 2))
        first, counting = got.requests
        assert (first.continuation.ended, counting.continuation.ended, counting.continuation.tokens) == (False, True, 2)
        assert (counting.stream, counting.choices, counting.prompt) == (False, first.choices, first.prompt)
        if counting.path == CHAT:
            assert engine.asked[1] == {"model": "tgi", "messages": HI, "max_tokens": 1, "temperature": 0.0}
        else:
            assert counting.path == "/generate"
            assert engine.asked[1] == {"inputs": "p", "parameters": {"max_new_tokens": 1, "details": True}}


def test_copies_of_a_greedy_choice_stop_together() -> None:
    for call in both(max_tokens=100, stop="c", temperature=0, n=3):
        got = played(call, Engine(["a", "bcd", "e"]))
        assert [got.said(index) for index in range(3)] == ["ab"] * 3
        assert [got.finishes(index) for index in range(3)] == [["stop"]] * 3
        assert got.usage == usage(PROMPT, 6)


@pytest.mark.parametrize("status", [422, 424, 429, 500, 503])
def test_an_answer_whose_count_fails_is_an_answer_without_usage(status: int) -> None:
    for call in both(max_tokens=100, stop="c"):
        engine = Engine(["a", "bcd", "e"])
        got = played(call, lambda one, engine=engine: Reply(status, b"") if one.continuation.ended else engine(one))
        assert (got.said(), got.finishes(), got.usage, got.error) == ("ab", ["stop"], None, None)


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"choices": []}'])
@pytest.mark.parametrize("count", [None, "many"])
def test_an_answer_whose_count_cannot_be_read_is_an_answer_without_usage(body: bytes, count: str | None) -> None:
    (call, _) = both(max_tokens=100, stop="c")
    (request,) = BACKEND.encode(call, "m")
    counting = of_tgi.counting(request, 5)
    answer = BACKEND.decode(call, counting, {} if count is None else {"x-prompt-tokens": count}, body)
    assert isinstance(answer, Completion)
    assert answer.answer.usage is None


def test_a_count_is_read_from_the_header_or_the_body() -> None:
    call = chat(stop="c", max_tokens=9)
    counting = of_tgi.counting(BACKEND.encode(call, "m")[0], 5)
    recorded = load("tgi/08_chat_max_tokens_1")
    for headers in (recorded.response_headers, {}):
        completion = BACKEND.decode(call, counting, headers, recorded.response_body)
        assert isinstance(completion, Completion)
        assert (completion.answer.choices, completion.answer.usage) == ([], usage(12, 5))


TOKENS = st.lists(st.text("ab ", min_size=1, max_size=3), max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    tokens=TOKENS,
    stops=st.lists(st.text("ab ", min_size=1, max_size=3), max_size=2),
    limit=st.none() | st.integers(1, 12),
    room=st.integers(1, 14),
    n=st.sampled_from([1, 2]),
    kind=st.sampled_from(["chat", "text"]),
    read=st.sampled_from([1 << 30, 7]),
)
def test_any_answer_is_what_one_request_would_have_come_to(
    tokens: list[str], stops: list[str], limit: int | None, room: int, n: int, kind: str, read: int
) -> None:
    """In pieces of three tokens, over all of the boundaries: text, finish reason, usage."""
    assume(not any(one in other for one in stops for other in stops if one is not other))
    assume((len(tokens) + 1) % 3 and len(tokens) + 1 != room)  # an end just there is a test of its own
    limit = None if limit is None else min(limit, PROMPT + room)
    fields: dict[str, Any] = {"stop": stops, "n": n, "temperature": 0, "stream": True, "max_tokens": limit}
    if kind == "text":
        limit = min(16 if limit is None else limit, PROMPT + room)
        fields |= {"prompt": "p", "max_tokens": limit}
    call = call_of(fields if kind == "text" else fields | {"messages": HI})
    engine = Engine(tokens, context=PROMPT + room, piece=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(of_tgi, "PIECE", 3)
        got = played(call, engine, read)
    said, finish, written = expected(tokens, stops, min(room, limit or room))
    assert got.error is None
    for index in range(n):
        assert (got.said(index), got.finishes(index)) == (said, [finish])
    assert got.usage == usage(PROMPT, written * n)
    kept = [one.finish_reason for one in got.whole.answer.choices]
    assert kept == [finish] * n


def expected(tokens: list[str], stops: list[str], most: int) -> tuple[str, str, int]:
    scanner = StopScanner(stops)
    said = ""
    for place, token in enumerate([*tokens, ""][:most], 1):
        said += scanner.feed(token)
        if scanner.stopped:
            return said, "stop", place
    written = min(most, len(tokens) + 1)
    said += scanner.end()
    return said, "stop" if scanner.stopped or (written > len(tokens) and written < most) else "length", written


# --- tools ------------------------------------------------------------------------------------------------------

CUT = b'{"error":"Tool error: Failed to parse generated text: EOF while parsing a string","error_type":"tool_error"}'
EMPTY = b'{"error":"Tool error: Failed to parse generated text: missing field `function`","error_type":"tool_error"}'


@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_call_cut_by_the_limit_is_counted_by_what_tgi_was_asked_for(stream: bool) -> None:
    for limit, written in ((7, 7), (5000, 1024), (None, 0)):
        call = chat(tools=[TOOL], tool_choice="required", max_tokens=limit, stream=stream)
        got = played(call, lambda one: Reply(422, CUT) if not one.continuation.ended else Engine([])(one))
        assert [choice["finish_reason"] for choice in got.choices] == [None, "length"]
        assert got.choices[0]["delta"] == {"role": "assistant", "content": ""}
        assert (got.usage, got.error) == (usage(PROMPT, written), None)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_a_call_that_must_be_made_is_tried_twice_more(choice: Any) -> None:
    """With other seeds, none of which another choice of the same request has."""
    seeds: list[int | None] = []

    def empty(request: UpstreamRequest) -> Reply:
        seeds.append(json.loads(request.body).get("seed"))
        return Reply(422, EMPTY)

    got = played(chat(tools=[TOOL], tool_choice=choice, seed=5), empty)
    assert got.error is not None
    assert (got.error.cause, got.chunks) == (Cause.MODEL_OUTPUT_INVALID, [])
    assert seeds == [5, 21, 37]
    seeds.clear()
    played(chat(tools=[TOOL], tool_choice=choice), empty)
    assert seeds == [None] * 3, "a drawn seed is another one anyway"
    seeds.clear()
    got = played(chat(tools=[TOOL], tool_choice=choice, temperature=0), empty)
    assert (len(seeds), got.error and got.error.cause) == (1, Cause.MODEL_OUTPUT_INVALID)


def test_a_call_at_the_second_try_is_an_answer() -> None:
    called = load("tgi/12c_tools_required")
    replies: Iterator[Reply] = iter([Reply(422, EMPTY), Reply(200, called.response_body, called.response_headers)])
    got = played(chat(tools=[TOOL], tool_choice="required"), lambda _: next(replies))
    assert [choice["finish_reason"] for choice in got.choices] == [None, None, "tool_calls"]
    assert got.usage == usage(188, 34)


def test_where_no_tool_is_called_the_text_is_asked_for_as_without_tools() -> None:
    """As a stream where that would have been one: cut at a stop, and beyond 1,024 tokens."""
    tokens = words(2000)
    cases: list[tuple[dict[str, Any], Any, str, int]] = [
        ({"max_tokens": 3}, tokens[:3], "length", 3),
        ({"max_tokens": 1500}, tokens[:1500], "length", 1500),
        ({}, tokens, "stop", 2001),
        ({"max_tokens": 1500, "logprobs": True, "top_logprobs": 2}, tokens[:1500], "length", 1500),
        ({"max_tokens": 9, "stop": " 3"}, "0 1 2", "stop", 4),
    ]
    for fields, said, finish, written in cases:
        for stream in (False, True):
            call = chat(tools=[TOOL], stream=stream, **fields)
            engine = Engine(tokens)
            got = played(call, lambda one, engine=engine: Reply(422, EMPTY) if b"tools" in one.body else engine(one))
            assert (got.said(), got.finishes()) == ("".join(said), [finish]), fields
            assert got.usage == usage(PROMPT, written)
            assert all(not {"tools", "tool_choice", "logprobs", "top_logprobs"} & set(one) for one in engine.asked)
            assert all(choice["logprobs"] is None for choice in got.choices)


def test_a_text_instead_of_a_call_that_tgi_has_cut_is_asked_for_in_pieces() -> None:
    """`no_tool` is a whole answer, which ends at 1,024 tokens: its end would have been taken for the model's."""
    tokens = words(2000)
    for limit, said, finish in ((1500, tokens[:1500], "length"), (None, tokens, "stop"), (1024, tokens[:1024], None)):
        engine = Engine(tokens)

        def answer(request: UpstreamRequest, engine: Engine = engine) -> Reply:
            if b"tools" not in request.body:
                return engine(request)
            return Reply(200, whole(tokens[:1024], "stop", PROMPT), {"x-generated-tokens": "1024"})

        got = played(chat(tools=[TOOL], max_tokens=limit), answer)
        assert (got.said(), got.finishes()) == ("".join(said), [finish or "length"])
        assert len(engine.asked) == (0 if limit == 1024 else 2)


# --- only the echo ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{}, {"stop": "a"}, {"n": 2, "temperature": 0}])
@pytest.mark.parametrize("finish", ["length", "eos_token"])
def test_only_the_echo_is_an_answer_of_no_tokens(fields: dict[str, Any], finish: str) -> None:
    """TGI writes one token at least, which nobody sees nor counts; stops have nothing to be found in."""
    call = text(prompt="p", echo=True, max_tokens=0, **fields)
    (request,) = BACKEND.encode(call, "tgi")
    n = fields.get("n", 1)
    if not request.stream:
        details = {"finish_reason": finish, "generated_tokens": 1, "tokens": [], "seed": None}
        body = json.dumps({"generated_text": "ab", "details": details}).encode()
        completion = BACKEND.decode(call, request, {"x-prompt-tokens": "12"}, body)
        assert isinstance(completion, Completion)
        shown = [(one.text, one.finish_reason) for one in completion.answer.choices]
        assert (shown, completion.answer.usage) == ([("p", "length")] * n, usage(PROMPT, 0))
    streamed = msgspec.structs.replace(request, stream=True, path="/generate_stream")
    got = drive(BACKEND.decoder(call, streamed), [text_stream(["ab"], finish, PROMPT)])
    assert [(one["choices"][0]["text"], one["choices"][0]["finish_reason"]) for one in got.events] == [
        ("p", "length")
    ] * n
    assert (got.usage, got.finished, got.failure) == (usage(PROMPT, 0), True, None)
