"""OpenAI's own dialect: a client's body goes on as it came, an engine's answer comes back as OpenAI's.

What vLLM was recorded with is in `test_vllm`; here is what any compatible engine may do.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from backends import BACKENDS
from backends.base import BackendError, Cause, ServedModel
from backends.openai import OpenAI
from gateway.proxy import parse
from tests.support.dialects import (
    ERRORS,
    FIRST,
    GARBAGE,
    HI,
    TOOL,
    USAGE,
    call_of,
    chat,
    decoded,
    events,
    heard,
    plain,
    text,
    whole,
)

DONE = b"data: [DONE]\n\n"
CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
BACKEND = OpenAI()

# What the client's fields (beside its messages or its prompt) become; `...` stands for no change.
ENCODED_CHATS: list[tuple[str, dict[str, Any], Any]] = [
    ("nothing", {}, ...),
    ("model", {"model": "name"}, {}),
    ("nulls", {"temperature": None, "stream": None, "stop": None, "tools": None, "user": None, "new": None}, {}),
    ("unknown fields", {"new": {"a": None}, "top_k": 5, "limit": 3, "greedy": 1, "stops": [], "prompts": ""}, ...),
    ("neutral fields", {"user": "u", "metadata": {"a": "b"}, "store": True, "service_tier": "flex"}, ...),
    ("sampling", {"temperature": 0.5, "top_p": 0.9, "seed": -5, "presence_penalty": 0, "logit_bias": {"1": -100}}, ...),
    ("top_p 0", {"top_p": 0}, ...),
    ("limits", {"max_tokens": 5, "max_completion_tokens": 7}, ...),
    ("stops", {"stop": "a"}, ...),
    ("tools", {"tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False}, ...),
    ("n sampled", {"n": 3, "temperature": 1}, ...),
    ("n 1", {"n": 1, "temperature": 0}, ...),
    ("stream", {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
    ("no stream", {"stream": False}, ...),
    (
        "stream options",
        {"stream": True, "stream_options": {"include_usage": False, "include_obfuscation": True}},
        {"stream": True, "stream_options": {"include_usage": True}},
    ),
    (
        "continuous usage",
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
    ),
]


@pytest.mark.parametrize(("fields", "expected"), [r[1:] for r in ENCODED_CHATS], ids=[r[0] for r in ENCODED_CHATS])
def test_a_chat_goes_on_as_it_came(fields: dict[str, Any], expected: Any) -> None:
    """But for the model's name, nulls, and the usage, which is always asked for."""
    call = chat(**fields)
    (request,) = BACKEND.encode(call, "theirs")
    wanted = fields if expected is ... else expected
    assert json.loads(request.body) == {"messages": HI, **wanted, "model": "theirs"}
    assert (request.path, request.stream, request.choices, request.adapted) == (CHAT, call.stream, (), ())
    assert BACKEND.unsupported(call) is None


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        ({"prompt": "a"}, {"prompt": "a"}),
        ({"prompt": ["a", "b"], "max_tokens": 0, "echo": True}, {"prompt": ["a", "b"], "max_tokens": 0, "echo": True}),
        ({"prompt": [1, 2], "logprobs": 0, "suffix": None}, {"prompt": [1, 2], "logprobs": 0}),
        ({"prompt": [[1], [2]], "n": 2}, {"prompt": [[1], [2]], "n": 2}),
        ({"prompt": "a", "stream": True}, {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}}),
    ],
)
def test_a_completion_goes_on_as_it_came(fields: dict[str, Any], sent: dict[str, Any]) -> None:
    (request,) = BACKEND.encode(text(**fields), "theirs")
    assert json.loads(request.body) == {**sent, "model": "theirs"}
    assert (request.path, request.choices) == (TEXT, ())


def test_values_are_not_written_anew() -> None:
    """A number keeps its digits, a text its escapes: what is passed on is what the client wrote."""
    body = b'{"messages":[{"role":"user","content":"\\u00e9"}],"new":1.50,"big":123456789012345678901234567890}'
    (request,) = BACKEND.encode(parse.chat(body, "r", 1), "m")
    assert request.body == body[:-1] + b',"model":"m"}'


GREEDY: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({"messages": HI, "n": 3, "temperature": 0}, (0, 1, 2)),
    ({"messages": HI, "n": 2, "temperature": 0.0, "top_p": 0.5}, (0, 1)),
    ({"messages": HI, "n": 2, "top_p": 0}, (0, 1)),
    ({"prompt": "a", "n": 2, "temperature": 0}, (0, 1)),
    ({"prompt": [1, 2, 3], "n": 2, "temperature": 0}, (0, 1)),
    ({"prompt": ["a", "b"], "n": 2, "temperature": 0}, (0, 1, 2, 3)),
    ({"prompt": [[1], [2], [3]], "n": 2, "temperature": 0}, (0, 1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize(("fields", "choices"), GREEDY)
def test_n_greedy_choices_are_asked_for_once(fields: dict[str, Any], choices: tuple[int, ...]) -> None:
    (request,) = BACKEND.encode(call_of(fields), "m")
    assert "n" not in json.loads(request.body)
    assert request.choices == choices
    assert request.adapted == ("n",)


# --- whole answers --------------------------------------------------------------------------------------------


def test_n_greedy_choices_are_one_answer_repeated() -> None:
    """With the choice's own extra fields, and the tokens written counted for each."""
    call = chat(n=3, temperature=0)
    body = whole({"content": "a"}, token_ids=[1], new=2)
    answer = decoded(BACKEND, call, body)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2]
    for choice in answer["choices"]:
        assert choice["message"]["content"] == "a"
        assert (choice["token_ids"], choice["new"]) == ([1], 2)
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}


def test_n_greedy_choices_of_several_prompts_keep_their_prompts_order() -> None:
    call = text(prompt=["a", "b"], n=2, temperature=0)
    choices = [{"index": i, "text": t, "finish_reason": "stop", "new": t} for i, t in enumerate(["A", "B"])]
    answer = decoded(BACKEND, call, json.dumps({"choices": choices, "usage": USAGE}).encode())
    assert [(one["index"], one["text"], one["new"]) for one in answer["choices"]] == [
        (0, "A", "A"),
        (1, "A", "A"),
        (2, "B", "B"),
        (3, "B", "B"),
    ]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


@pytest.mark.parametrize(
    ("finish", "shown"),
    [
        ("stop", "stop"),
        ("length", "length"),
        ("content_filter", "content_filter"),
        ("repetition", "stop"),
        ("eos_token", "stop"),
        ("stop_sequence", "stop"),
        ("", None),
        (None, None),
    ],
)
def test_finish_reasons_are_openais(finish: str | None, shown: str | None) -> None:
    assert (
        decoded(BACKEND, chat(), whole({"content": "a"}, finish_reason=finish))["choices"][0]["finish_reason"] == shown
    )
    stream = events({"delta": {"content": "a"}, "finish_reason": finish})
    assert heard(BACKEND, chat(stream=True), [stream]).events[0]["choices"][0]["finish_reason"] == shown


@pytest.mark.parametrize("finish", ["abort", "error"])
def test_an_engine_that_gave_up_has_failed(finish: str) -> None:
    """It may say so in a finish reason of its own, with status 200."""
    with pytest.raises(BackendError) as raised:
        decoded(BACKEND, chat(), whole({"content": "a"}, finish_reason=finish))
    assert raised.value.cause is Cause.FAILED
    for extra in ({}, {"new": 1}):
        gave_up = {"delta": {"content": "b"}, "finish_reason": finish, **extra}
        stream = events({"delta": {"content": "a"}}, gave_up, {"delta": {"content": "c"}, "finish_reason": "stop"})
        got = heard(BACKEND, chat(stream=True), [stream + b"data: [DONE]\n\n"])
        assert [one["choices"][0]["delta"] for one in got.events] == [FIRST | {"content": "a"}]
        assert got.cause is Cause.FAILED
        assert not got.finished


@pytest.mark.parametrize(
    "marks", [{"stop_reason": 5}, {"routed_experts": [1]}, {"stop_reason": 5, "routed_experts": [1]}]
)
def test_what_names_the_engine_never_passes(marks: dict[str, Any]) -> None:
    answer = decoded(BACKEND, chat(), whole({"content": "a"}, **marks))
    assert set(answer["choices"][0]) == {"index", "message", "logprobs", "finish_reason"}
    body = json.dumps({"choices": [{"index": 0, "text": "a", "finish_reason": None, **marks}]}).encode()
    assert set(decoded(BACKEND, text(prompt="a"), body)["choices"][0]) == {"index", "text", "finish_reason"}
    for finish in (None, "stop"):
        stream = events({"delta": {"content": "a"}, "finish_reason": finish, **marks})
        (event,) = heard(BACKEND, chat(stream=True), [stream]).events
        assert event["choices"] == [{"index": 0, "delta": FIRST | {"content": "a"}, "finish_reason": finish}]
        stream = events({"text": "a", "finish_reason": finish, **marks})
        (event,) = heard(BACKEND, text(prompt="a", stream=True), [stream]).events
        assert event["choices"] == [{"index": 0, "text": "a", "finish_reason": finish}]


def test_an_answer_is_the_gateways() -> None:
    """Its own id, time and kind, and the client's name for the model; the fingerprint is gone, the rest stays."""
    answer = decoded(BACKEND, chat(model="ours"), whole({"content": "a", "refusal": "no", "annotations": []}))
    assert answer == {
        "id": "chatcmpl-r",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "ours",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "a", "refusal": "no", "annotations": []},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "service_tier": "default",
    }


def test_an_answer_without_usage_or_refusal_is_an_answer() -> None:
    body = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}
    answer = decoded(BACKEND, chat(n=2, temperature=0), json.dumps(body).encode())
    assert "usage" not in answer
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "a", "refusal": None}


def test_nulls_in_the_usages_details_are_left_out() -> None:
    said = USAGE | {
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": None},
        "completion_tokens_details": {},
    }
    shown = USAGE | {"prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {}}
    assert decoded(BACKEND, chat(), whole({"content": "a"}, usage=said))["usage"] == shown
    stream = events({"delta": {"content": "a"}, "finish_reason": "stop"}, usage=said) + b"data: [DONE]\n\n"
    assert plain(heard(BACKEND, chat(stream=True), [stream]).usage) == shown


def test_tool_calls_have_ids_of_the_gateways() -> None:
    """Each its own, the same whole and streamed, and never the engine's; `content` is null beside them."""
    function = {"name": "f", "arguments": "{}"}
    calls = [{"index": i, "id": f"x{i}", "type": "function", "function": function} for i in range(2)]
    message = decoded(BACKEND, chat(tools=[TOOL]), whole({"content": "", "tool_calls": calls}))["choices"][0]["message"]
    ids = [one["id"] for one in message["tool_calls"]]
    assert message["content"] is None
    assert message["tool_calls"] == [{"id": one, "type": "function", "function": function} for one in ids]
    assert all(len(one) == 29 and one.startswith("call_") for one in ids)
    assert len(set(ids)) == 2
    pieces = [{"index": i, "id": f"x{i}", "function": {"name": "f"}} for i in range(2)]
    stream = events(*({"delta": {"tool_calls": [piece]}} for piece in pieces))
    deltas = [one["choices"][0]["delta"] for one in heard(BACKEND, chat(stream=True, tools=[TOOL]), [stream]).events]
    assert [delta["tool_calls"] for delta in deltas] == [
        [{"index": i, "id": ids[i], "type": "function", "function": {"name": "f", "arguments": ""}}] for i in range(2)
    ]


@pytest.mark.parametrize("own", [{}, {"new": 1}])
def test_tool_calls_of_greedy_copies_have_ids_of_their_own(own: dict[str, Any]) -> None:
    """They derive from the choice's index: the same whole and streamed."""
    function = {"name": "f", "arguments": "{}"}
    calls = [{"index": i, "id": f"x{i}", "type": "function", "function": function} for i in range(2)]
    asked: dict[str, Any] = {"tools": [TOOL], "n": 2, "temperature": 0}
    answer = decoded(BACKEND, chat(**asked), whole({"content": None, "tool_calls": calls}, **own))
    ids = [[one["id"] for one in choice["message"]["tool_calls"]] for choice in answer["choices"]]
    assert len({one for both in ids for one in both}) == 4
    plainly = decoded(BACKEND, chat(tools=[TOOL]), whole({"content": None, "tool_calls": calls}))
    assert [one["id"] for one in plainly["choices"][0]["message"]["tool_calls"]] == ids[0]
    pieces = [{"index": i, "id": f"x{i}", "function": {"name": "f"}} for i in range(2)]
    more = {"index": 1, "function": {"arguments": "{}"}}
    stream = events(*({"delta": {"tool_calls": [piece]}, **own} for piece in (*pieces, more)))
    got = heard(BACKEND, chat(**asked, stream=True), [stream]).events
    shown = [(one["choices"][0]["index"], one["choices"][0]["delta"]["tool_calls"][0]) for one in got]
    assert [(index, tool.get("id")) for index, tool in shown] == [
        *((0, ids[0][0]), (1, ids[1][0]), (0, ids[0][1]), (1, ids[1][1])),
        *((0, None), (1, None)),
    ]


def test_a_message_without_content_is_taken() -> None:
    for message in ({}, {"refusal": "no"}):
        answer = decoded(BACKEND, chat(), whole(message))
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": None, "refusal": None} | message


def test_a_text_beside_tool_calls_stays() -> None:
    calls = [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    answer = decoded(BACKEND, chat(tools=[TOOL]), whole({"content": "so:", "tool_calls": calls}))
    assert answer["choices"][0]["message"]["content"] == "so:"


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:40]))
def test_garbage_is_no_answer(body: bytes) -> None:
    """Never an exception but BackendError, whatever a server sends with status 200."""
    for call in (chat(), text(prompt="a"), chat(n=2, temperature=0)):
        with pytest.raises(BackendError) as raised:
            decoded(BACKEND, call, body)
        assert raised.value.cause is Cause.PROTOCOL_ERROR
    with pytest.raises(BackendError) as raised:
        BACKEND.served(body)
    assert raised.value.cause is Cause.PROTOCOL_ERROR


@pytest.mark.parametrize("body", GARBAGE, ids=lambda body: repr(body[:40]))
@pytest.mark.parametrize("frame", ["an event", "a bare body"])
def test_garbage_is_no_stream(body: bytes, frame: str) -> None:
    data = b"data: " + body + b"\n\n" if frame == "an event" else body
    for call in (chat(stream=True), text(prompt="a", stream=True)):
        got = heard(BACKEND, call, [data])
        assert not got.finished
        assert got.events == []
        assert got.cause in (Cause.PROTOCOL_ERROR, Cause.FAILED)


@pytest.mark.parametrize("body", ERRORS, ids=repr)
def test_an_error_is_one_in_whichever_form_it_comes(body: bytes) -> None:
    """With status 200, whole and as an event; and so is any event whose name is `error`."""
    for call in (chat(), text(prompt="a"), chat(n=2, temperature=0)):
        with pytest.raises(BackendError) as raised:
            decoded(BACKEND, call, body)
        assert raised.value.cause is Cause.FAILED
    for call in (chat(stream=True), text(prompt="a", stream=True)):
        for data in (b"data: " + body, body, b"event: error\ndata: " + body, b"event: error\ndata: out of memory"):
            got = heard(BACKEND, call, [data + b"\n\n"])
            assert (got.events, got.finished, got.cause) == ([], False, Cause.FAILED)


TOKEN = {"token": "a", "logprob": -1.0}
TOPS: list[Any] = [
    *(None, 7, "a", {"a": 1}, [7], [{}], [None], [{"logprob": None}, TOKEN], [{"logprob": "a"}, TOKEN]),
    *([{"logprob": []}, TOKEN], [{"logprob": 1e308}, {"logprob": True}, TOKEN]),
]
SHAPES: list[Any] = [
    *(7, "a", [], {}, {"content": None}, {"content": 7}, {"content": {"a": 1}}, {"content": "a"}),
    *({"content": [7]}, {"content": [None]}, {"content": [[]]}, {"content": [TOKEN]}),
    *({"content": [TOKEN | {"top_logprobs": tops}]} for tops in TOPS),
]


@pytest.mark.parametrize("logprobs", SHAPES, ids=repr)
def test_logprobs_of_any_shape_are_no_exception(logprobs: Any) -> None:
    """An answer all the same, or a BackendError: whole, and amid a stream."""
    for backend in BACKENDS.values():
        call = chat(logprobs=True, top_logprobs=2)
        try:
            decoded(backend, call, whole({"content": "a"}, logprobs=logprobs))
        except BackendError as error:
            assert error.cause is Cause.PROTOCOL_ERROR  # noqa: PT017
        stream = events({"delta": {"content": "a"}, "logprobs": logprobs, "finish_reason": "stop"})
        got = heard(backend, chat(logprobs=True, top_logprobs=2, stream=True), [stream + b"data: [DONE]\n\n"])
        assert got.finished or got.cause is Cause.PROTOCOL_ERROR


def test_each_dialect_says_its_name() -> None:
    assert {name: backend.name for name, backend in BACKENDS.items()} == {name: name for name in BACKENDS}
    assert [backend.label for backend in BACKENDS.values()] == ["vLLM", "TGI", "OpenAI-compatible engine"]


def test_models_are_read() -> None:
    body = b'{"object": "list", "data": [{"id": "a/b", "max_model_len": 1024, "root": "x"}, {"id": "c"}]}'
    assert BACKEND.served(body) == [
        ServedModel("a/b", "a/b", 1024, identity=("x", "", "")),
        ServedModel("c", "c", None, identity=("", "", "")),
    ]


# --- streams --------------------------------------------------------------------------------------------------


def test_a_finish_reason_is_the_end_whether_or_not_done_follows() -> None:
    stream = events({"delta": {"content": "a"}, "finish_reason": "stop"})
    for after in (b"", DONE, events({"delta": {}}, usage=USAGE), events({"delta": {}}, usage=USAGE) + DONE):
        got = heard(BACKEND, chat(stream=True), [stream + after])
        assert (got.finished, got.cause, got.usage is not None) == (True, None, b"usage" in after)


@pytest.mark.parametrize("finish", [None, ""])
def test_a_stream_without_a_finish_reason_and_done_was_cut(finish: str | None) -> None:
    for chunk in ({"delta": {"content": "a"}, "finish_reason": finish}, {"text": "a", "finish_reason": finish}):
        call = chat(stream=True) if "delta" in chunk else text(prompt="a", stream=True)
        got = heard(BACKEND, call, [events(chunk)])
        assert (got.finished, got.cause) == (False, Cause.FAILED)


def test_done_ends_the_choices_that_have_begun() -> None:
    """As for the SDKs; a choice gets a finish reason of which some clients cannot do without."""
    begun = [{"index": index, "delta": {"content": "a"}} for index in range(2)]
    ends = [{"index": index, "delta": {}, "finish_reason": "stop"} for index in range(2)]
    for chunks, ended in [((*begun, *ends), True), ((*begun, ends[1]), False), (begun, False), (ends, True)]:
        got = heard(BACKEND, chat(stream=True, n=2), [events(*chunks)])
        assert (got.finished, got.cause) == (ended, None if ended else Cause.FAILED)
        got = heard(BACKEND, chat(stream=True, n=2), [events(*chunks) + DONE])
        reasons = {one["index"]: one["finish_reason"] for event in got.events for one in event["choices"]}
        assert (got.finished, got.cause, reasons) == (True, None, {0: "stop", 1: "stop"})
    assert heard(BACKEND, chat(stream=True), [DONE]).cause is Cause.FAILED, "nothing has begun"


def test_what_done_ends_has_the_length_that_was_asked_for() -> None:
    stream = events({"delta": {"content": "a"}}) + events({"delta": {}}, usage=USAGE) + DONE
    for limit, reason in ((2, "length"), (3, "stop")):
        got = heard(BACKEND, chat(stream=True, max_tokens=limit), [stream])
        assert got.events[-1]["choices"][0]["finish_reason"] == reason


@pytest.mark.parametrize("own", [{}, {"new": 1}])
def test_a_chunk_without_a_finish_reason_has_not_ended(own: dict[str, Any]) -> None:
    """It is taken, and gets the null that OpenAI writes."""
    chunk = {"choices": [{"index": 0, "delta": {"content": "a"}, **own}]}
    stream = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    got = heard(BACKEND, chat(stream=True), [stream])
    assert [one["choices"] for one in got.events] == [
        [{"index": 0, "delta": FIRST | {"content": "a"}, "finish_reason": None, **own}]
    ]
    assert (got.finished, got.cause) == (False, Cause.FAILED)
    end = events({"delta": {}, "finish_reason": "stop"})
    assert heard(BACKEND, chat(stream=True), [stream + end + b"data: [DONE]\n\n"]).finished


def test_empty_events_are_nothing() -> None:
    stream = events({"delta": {"content": "a"}, "finish_reason": "stop"})
    got = heard(BACKEND, chat(stream=True), [b"data: \n\n" + stream + b"data:\n\ndata: [DONE]\n\n"])
    assert (len(got.events), got.finished, got.failure) == (1, True, None)


def test_an_event_with_unknown_fields_keeps_them() -> None:
    choice = {"delta": {"content": "a", "deep": 1}, "new": {"a": None}}
    (event,) = heard(BACKEND, chat(model="ours", stream=True), [events(choice, top=[1])]).events
    assert event["top"] == [1]
    delta = FIRST | {"content": "a", "deep": 1}
    assert event["choices"][0] == {"index": 0, "delta": delta, "finish_reason": None, "new": {"a": None}}
    head = {"id": "chatcmpl-r", "object": "chat.completion.chunk", "created": 1700000000, "model": "ours"}
    assert event == head | {"top": [1], "choices": event["choices"]}


def test_usage_on_every_chunk_is_shown_only_if_it_was_asked_for() -> None:
    """Also where it has fields of the engine's own. Without `include_usage` vLLM shows none."""
    for own in ({}, {"cost": 0.1}):
        stream = events({"delta": {"content": "a"}}, usage=USAGE | own)
        for options in ({}, {"include_usage": True}, {"continuous_usage_stats": True}):
            (event,) = heard(BACKEND, chat(stream=True, stream_options=options), [stream]).events
            assert "usage" not in event
        asked = chat(stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True})
        (event,) = heard(BACKEND, asked, [stream]).events
        assert event["usage"] == USAGE | own
        assert plain(heard(BACKEND, asked, [stream]).usage) == USAGE


def test_usage_alone_is_no_event() -> None:
    """Whoever writes the client's stream ends it with the usage."""
    for own in ({}, {"new": 1}):
        alone = json.dumps({"choices": [], "usage": USAGE} | own).encode()
        got = heard(BACKEND, chat(stream=True), [b"data: " + alone + b"\n\n"])
        assert (got.events, plain(got.usage)) == ([], USAGE)


def test_a_tool_call_that_comes_in_one_piece_keeps_its_arguments() -> None:
    piece = {"index": 0, "id": "x", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    (event,) = heard(BACKEND, chat(stream=True, tools=[TOOL]), [events({"delta": {"tool_calls": [piece]}})]).events
    (shown,) = event["choices"][0]["delta"]["tool_calls"]
    assert shown["function"] == {"name": "f", "arguments": '{"a":1}'}


def test_the_end_of_a_body_changes_nothing_that_is_settled() -> None:
    decoder = BACKEND.decoder(chat(stream=True), BACKEND.encode(chat(stream=True), "m")[0])
    decoder.feed(events({"delta": {}, "finish_reason": "stop"}) + b"data: [DONE]\n\n")
    decoder.end()
    assert (decoder.finished, decoder.failure) == (True, None)
    decoder = BACKEND.decoder(chat(stream=True), BACKEND.encode(chat(stream=True), "m")[0])
    decoder.feed(b"data: {nonsense\n\n")
    settled = decoder.failure
    decoder.end()
    assert decoder.failure is settled is not None


def test_n_greedy_choices_stream_side_by_side() -> None:
    for own in ({}, {"new": 1}):
        stream = events({"delta": {"content": "a"}, **own}, {"delta": {}, "finish_reason": "stop", **own}, usage=USAGE)
        got = heard(BACKEND, chat(stream=True, n=2, temperature=0), [stream + b"data: [DONE]\n\n"])
        assert [(one["choices"][0]["index"], one["choices"][0]["delta"]) for one in got.events] == [
            (0, FIRST | {"content": "a"}),
            (1, FIRST | {"content": "a"}),
            (0, {}),
            (1, {}),
        ]
        assert all(one["choices"][0].get("new") == own.get("new") for one in got.events)
        assert plain(got.usage) == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}
        assert got.finished


def test_n_greedy_choices_of_several_prompts_stream_under_their_indexes() -> None:
    for own in ({}, {"new": 1}):
        stream = events(
            {"text": "a", "finish_reason": "stop", **own},
            {"index": 1, "text": "b", "finish_reason": "stop", **own},
            usage=USAGE,
        )
        call = text(prompt=["a", "b"], n=2, temperature=0, stream=True)
        got = heard(BACKEND, call, [stream + b"data: [DONE]\n\n"])
        assert [(one["choices"][0]["index"], one["choices"][0]["text"]) for one in got.events] == [
            (0, "a"),
            (1, "a"),
            (2, "b"),
            (3, "b"),
        ]
        assert plain(got.usage) == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


def test_a_chunk_of_several_greedy_choices_keeps_them_all() -> None:
    for own in ({}, {"new": 1}):
        both = [{"index": i, "text": t, "finish_reason": None, **own} for i, t in enumerate("AB")]
        call = text(prompt=["a", "b"], n=2, temperature=0, stream=True)
        got = heard(BACKEND, call, [b"data: " + json.dumps({"choices": both}).encode() + b"\n\n"])
        assert [(one["choices"][0]["index"], one["choices"][0]["text"]) for one in got.events] == [
            (0, "A"),
            (1, "A"),
            (2, "B"),
            (3, "B"),
        ]
        assert all(one["choices"][0].get("new") == own.get("new") for one in got.events)


def test_an_error_in_a_stream_comes_after_what_came_before() -> None:
    error = {"error": {"message": "Slow down.", "type": "rate_limit", "param": None, "code": 429}}
    stream = events({"delta": {"content": "a"}}) + b"data: " + json.dumps(error).encode() + b"\n\n"
    got = heard(BACKEND, chat(stream=True), [stream])
    assert len(got.events) == 1
    assert got.cause is Cause.LIMITED
    for code in ("rate_limit_exceeded", None, 7):
        error["error"]["code"] = code
        got = heard(BACKEND, chat(stream=True), [b"data: " + json.dumps(error).encode() + b"\n\n"])
        assert got.cause is Cause.LIMITED, "as the type says"


def test_a_context_error_in_a_stream_names_the_clients_field() -> None:
    error = b'data: {"error": {"message": "This is the maximum context length", "code": 400}}\n\n'
    assert heard(BACKEND, chat(stream=True), [error]).param == "messages"
    assert heard(BACKEND, text(prompt="a", stream=True), [error]).param == "prompt"


def test_an_event_without_end_is_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.sse.LIMIT", 1000)
    got = heard(BACKEND, chat(stream=True), [b"x" * 600] * 3)
    assert got.cause is Cause.PROTOCOL_ERROR
