"""vLLM's dialect: what it is sent, and what a client reads of what a real vLLM 0.32.0 was recorded to answer."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from backends.base import BackendError, Call, Cause
from backends.schema import ChatRequest
from backends.vllm import VLLM
from gateway.http.errors import InvalidRequest
from gateway.proxy import parse
from tests.support.dialects import (
    HI,
    TOOL,
    Heard,
    call_of,
    chat,
    decoded,
    end_of_answer,
    events,
    heard,
    plain,
    text,
    whole,
)
from tests.support.recorded import Recorded, load, names

BACKEND = VLLM()
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
NAMED = {"type": "function", "function": {"name": "f"}}


def schema_format(name: str) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": name, "schema": SCHEMA}}


# (what it is about, the client's body, what vLLM is sent beside its model, the parameters adapted)
ENCODED: list[tuple[str, dict[str, Any], Any, tuple[str, ...]]] = [
    ("nothing", {"messages": HI}, ..., ()),
    ("own parameters", {"messages": HI, "top_k": 5, "min_p": 0.1, "chat_template_kwargs": {"a": None}}, ..., ()),
    ("structured outputs", {"messages": HI, "structured_outputs": {"regex": "a"}}, ..., ()),
    ("nulls", {"messages": HI, "top_p": None, "tools": None, "min_tokens": None}, {"messages": HI}, ()),
    ("parts", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, ..., ()),
    (
        "tool history",
        {
            "messages": [
                *HI,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "x", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
                },
                {"role": "tool", "tool_call_id": "x", "content": "1"},
            ]
        },
        ...,
        (),
    ),
    ("top_p 0", {"messages": HI, "top_p": 0}, {"messages": HI, "temperature": 0}, ("top_p",)),
    ("top_p 0, warm", {"prompt": "a", "top_p": 0.0, "temperature": 1.5}, {"prompt": "a", "temperature": 0}, ("top_p",)),
    ("top_p 1", {"messages": HI, "top_p": 1}, ..., ()),
    ("n greedy by top_p", {"messages": HI, "top_p": 0, "n": 2}, {"messages": HI, "temperature": 0}, ("top_p", "n")),
    ("penalties", {"messages": HI, "presence_penalty": 0.5, "frequency_penalty": -1, "logit_bias": {"5": 1}}, ..., ()),
    ("stop, a text", {"messages": HI, "stop": "a"}, ..., ()),
    ("stop, a list", {"prompt": "a", "stop": ["a", "b"]}, ..., ()),
    ("both limits", {"messages": HI, "max_tokens": 5, "max_completion_tokens": 7}, ..., ()),
    ("tools", {"messages": HI, "tools": [TOOL]}, ..., ()),
    ("tools auto", {"messages": HI, "tools": [TOOL], "tool_choice": "auto"}, ..., ()),
    ("tools named", {"messages": HI, "tools": [TOOL], "tool_choice": NAMED}, ..., ()),
    ("tools none", {"messages": HI, "tools": [TOOL], "tool_choice": "none"}, {"messages": HI}, ("tools",)),
    ("no tools", {"messages": HI, "tools": []}, {"messages": HI}, ("tools",)),
    ("no tools auto", {"messages": HI, "tools": [], "tool_choice": "auto"}, {"messages": HI}, ("tools",)),
    ("text", {"messages": HI, "response_format": {"type": "text"}}, ..., ()),
    ("json object", {"messages": HI, "response_format": {"type": "json_object"}}, ..., ()),
    ("json schema", {"messages": HI, "response_format": schema_format("a")}, ..., ()),
    (
        "TGI's json",
        {"messages": HI, "response_format": {"type": "json", "value": SCHEMA}},
        {"messages": HI, "response_format": schema_format("answer")},
        ("response_format",),
    ),
    (
        "TGI's json_object",
        {"messages": HI, "response_format": {"type": "json_object", "value": SCHEMA}},
        {"messages": HI, "response_format": schema_format("answer")},
        ("response_format",),
    ),
    (
        "TGI's json_schema",
        {"messages": HI, "response_format": {"type": "json_schema", "value": {"name": "a", "schema": SCHEMA}}},
        {"messages": HI, "response_format": schema_format("a")},
        ("response_format",),
    ),
    (
        "TGI's json_schema, bare",
        {"messages": HI, "response_format": {"type": "json_schema", "value": SCHEMA}},
        {"messages": HI, "response_format": schema_format("answer")},
        ("response_format",),
    ),
    (
        "TGI's json of something called schema",
        {"messages": HI, "response_format": {"type": "json", "value": {"schema": 1}}},
        {
            "messages": HI,
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"schema": 1}}},
        },
        ("response_format",),
    ),
    (
        "TGI's regex",
        {"messages": HI, "response_format": {"type": "regex", "value": "[0-9]+"}},
        {"messages": HI, "structured_outputs": {"regex": "[0-9]+"}},
        ("response_format",),
    ),
    ("prompts", {"prompt": ["a", "b"], "n": 2, "echo": True, "logprobs": 0}, ..., ()),
    (
        "TGI's regex beside structured outputs: which of them is not ours to choose",
        {"messages": HI, "response_format": {"type": "regex", "value": "a"}, "structured_outputs": {"choice": ["b"]}},
        {"messages": HI, "structured_outputs": {"choice": ["b"], "regex": "a"}},
        ("response_format",),
    ),
    (
        "top_logprobs: the sampled token takes a place",
        {"messages": HI, "logprobs": True, "top_logprobs": 3},
        {"messages": HI, "logprobs": True, "top_logprobs": 4},
        ("top_logprobs",),
    ),
    ("most top_logprobs", {"messages": HI, "logprobs": True, "top_logprobs": 20}, ..., ()),
    ("no top_logprobs", {"messages": HI, "logprobs": True, "top_logprobs": 0}, ..., ()),
    ("greedy top_logprobs", {"messages": HI, "logprobs": True, "top_logprobs": 3, "temperature": 0}, ..., ()),
    ("an assistant's last word", {"messages": [*HI, {"role": "assistant", "content": "a"}]}, ..., ()),
    ("best_of", {"prompt": "a", "n": 2, "best_of": 2}, {"prompt": "a", "n": 2}, ()),
    ("tokens", {"prompt": [[1, 2], [3]]}, ..., ()),
    ("a chat's fields", {"prompt": "a", "tools": [], "response_format": {"type": "json", "value": {}}}, ..., ()),
]


@pytest.mark.parametrize(("fields", "sent", "adapted"), [r[1:] for r in ENCODED], ids=[r[0] for r in ENCODED])
def test_encode(fields: dict[str, Any], sent: Any, adapted: tuple[str, ...]) -> None:
    call = call_of(fields)
    (request,) = BACKEND.encode(call, "theirs")
    assert json.loads(request.body) == (fields if sent is ... else sent) | {"model": "theirs"}
    assert request.path == ("/v1/chat/completions" if "messages" in fields else "/v1/completions")
    assert request.adapted == adapted
    assert BACKEND.unsupported(call) is None


CONTINUED = {"continue_final_message": True, "add_generation_prompt": False}
LAST = [*HI, {"role": "assistant", "content": "a"}]
BESIDE_TGI: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"messages": LAST}, CONTINUED),
    ({"messages": HI}, {}),
    ({"messages": [*LAST, *HI]}, {}),
    ({"messages": LAST, "continue_final_message": False}, {}),
    ({"messages": LAST, "add_generation_prompt": True}, {}),
    ({"messages": LAST, "continue_final_message": None}, CONTINUED),
    ({"prompt": "a"}, {}),
]


@pytest.mark.parametrize(("fields", "more"), BESIDE_TGI)
def test_beside_a_tgi_an_assistants_last_message_is_continued(fields: dict[str, Any], more: dict[str, Any]) -> None:
    """As TGI always does it; unless the client has said itself what it wants."""
    call = msgspec.structs.replace(call_of(fields), with_tgi_peer=True)
    (request,) = BACKEND.encode(call, "theirs")
    asked = {name: value for name, value in fields.items() if value is not None}
    assert json.loads(request.body) == asked | {"model": "theirs"} | more
    assert request.adapted == (("messages",) if more else ())


def likely(*values: float | None) -> list[dict[str, Any]]:
    return [{"token": str(place), "logprob": value, "bytes": [48 + place]} for place, value in enumerate(values)]


@pytest.mark.parametrize(
    ("most", "given", "shown"),
    [
        (2, [-8.0, -1.0, -2.0], [1, 2]),  # the sampled token came first
        (2, [-1.0, -2.0, -3.0], [0, 1]),
        (2, [-1.0], [0]),
        (3, [-9999.0, None, -1.0], [2, 0, 1]),
        (2, [-1.0, -1.0, -1.0], [0, 1]),
    ],
)
def test_the_likeliest_tokens_are_in_order_and_as_many_as_were_asked_for(
    most: int, given: list[float | None], shown: list[int]
) -> None:
    tops = likely(*given)
    logprobs = {"content": [{"token": "a", "logprob": -8.0, "bytes": [97], "top_logprobs": tops}]}
    content = [logprobs["content"][0] | {"top_logprobs": [tops[place] for place in shown]}]
    wanted = {"content": content, "refusal": None}
    call = chat(logprobs=True, top_logprobs=most)
    assert decoded(BACKEND, call, whole({"content": "a"}, logprobs=logprobs))["choices"][0]["logprobs"] == wanted
    call = chat(logprobs=True, top_logprobs=most, stream=True)
    for own in ({}, {"new": 1}):
        (event,) = heard(BACKEND, call, [events({"delta": {"content": "a"}, "logprobs": logprobs, **own})]).events
        assert event["choices"][0]["logprobs"] == wanted


@pytest.mark.parametrize("most", [None, 0, 1, 2])
def test_the_tokens_that_a_client_named_itself_stay_and_so_does_the_sampled_one(most: int | None) -> None:
    """vLLM sends all of them, whatever `top_logprobs` says, and in its own order."""
    call = chat(logprobs=True, top_logprobs=most, logprob_token_ids=[5, 6], temperature=1)
    (request,) = BACKEND.encode(call, "theirs")
    assert json.loads(request.body).get("top_logprobs") == most
    logprobs = {"content": [{"token": "a", "logprob": -8.0, "bytes": [97], "top_logprobs": likely(-8.0, -1.0, -2.0)}]}
    answer = decoded(BACKEND, call, whole({"content": "a"}, logprobs=logprobs))
    assert answer["choices"][0]["logprobs"] == logprobs | {"refusal": None}


@pytest.mark.parametrize("said", [True, 1, "true"])
@pytest.mark.parametrize("fields", [{"messages": HI}, {"prompt": "a"}, {"prompt": ["a", "b"]}])
def test_beams_differ_though_the_temperature_is_0(fields: dict[str, Any], said: Any) -> None:
    """One of them repeated would be wrong."""
    call = call_of(fields | {"n": 2, "temperature": 0, "use_beam_search": said})
    (request,) = BACKEND.encode(call, "theirs")
    assert json.loads(request.body)["n"] == 2
    assert request.choices == ()
    call = call_of(fields | {"n": 2, "temperature": 0, "use_beam_search": False})
    (request,) = BACKEND.encode(call, "theirs")
    assert "n" not in json.loads(request.body)


# --- whole answers --------------------------------------------------------------------------------------------


def recorded_calls(stream: bool) -> list[str]:
    """The recorded requests that the gateway lets through and vLLM answered."""
    found = []
    for name in names("vllm"):
        recorded = load(f"vllm/{name}")
        said = recorded.response_headers.get("content-type", "").startswith("text/event-stream")
        served = recorded.path in ("/v1/chat/completions", "/v1/completions")
        if served and recorded.status == 200 and said is stream and read(recorded) is not None:
            found.append(name)
    return found


def read(recorded: Recorded) -> Call | None:
    try:
        parsed = parse.chat if "chat" in recorded.path else parse.completion
        return parsed(recorded.body, "r", 1700000000)
    except InvalidRequest:
        return None


def named(recorded: Recorded) -> Call:
    """The recorded request as a Call, by the client's name for the model."""
    call = read(recorded)
    assert call is not None
    return msgspec.structs.replace(call, model="ours")


WHOLE = recorded_calls(stream=False)
STREAMS = recorded_calls(stream=True)


def test_the_recordings_are_there() -> None:
    assert len(WHOLE) >= 60
    assert len(STREAMS) >= 19
    for start in ("01", "04", "05", "06", "07b", "B12c", "B12d", "B12p", "16", "16c", "16k", "16r", "B32b"):
        assert any(name.startswith(f"{start}_") for name in WHOLE), start
    for start in ("02", "02b", "03", "04b", "06e", "24c", "B12i", "B12o", "16g", "16n", "B41", "B43"):
        assert any(name.startswith(f"{start}_") for name in STREAMS), start


def openais(value: Any) -> Any:
    """The definition of what passes: all but nulls, those apart that OpenAI writes, and but what names the engine."""
    if isinstance(value, list):
        return [openais(item) for item in value]
    if not isinstance(value, dict):
        return value
    written = ("content", "refusal", "logprobs", "finish_reason")
    kept = {
        name: openais(item)
        for name, item in value.items()
        if (item is not None or name in written) and name not in ("stop_reason", "system_fingerprint")
    }
    return kept | ({"refusal": None} if value.keys() == {"content"} and isinstance(value["content"], list) else {})


def masked(value: Any) -> Any:
    """The value with `call_` for the id of each tool call, vLLM's or the gateway's."""
    return json.loads(re.sub(r'"(chatcmpl-tool-[0-9a-f]{16}|call_[0-9a-f]{24})"', '"call_"', json.dumps(value)))


@pytest.mark.parametrize("name", WHOLE)
def test_a_recorded_answer_is_openais(name: str) -> None:
    """All that passes, and nothing else, under the gateway's head."""
    recorded = load(f"vllm/{name}")
    call = named(recorded)
    wanted = openais(json.loads(recorded.response_body)) | {"id": call.id, "created": call.created, "model": "ours"}
    for choice in wanted["choices"]:
        message = choice.get("message", {})
        if message.get("tool_calls") or (isinstance(call.view, ChatRequest) and call.view.must_call):
            message["content"] = None  # beside a call, and of one that was cut
    if call.view.limit == 0:  # vLLM counts the token that it has to make, though none was asked for
        wanted["usage"] |= {"completion_tokens": 0, "total_tokens": wanted["usage"]["prompt_tokens"]}
    answer = decoded(BACKEND, call, recorded.response_body)
    assert "vllm" not in json.dumps(answer)
    assert "chatcmpl-tool" not in json.dumps(answer)
    assert masked(answer) == masked(wanted)


# What the definition above must come to, in full.
LENGTH = {"logprobs": None, "finish_reason": "length"}
STOP = {"logprobs": None, "finish_reason": "stop"}
TOOL_CALL = {"id": "call_", "type": "function", "function": {"name": "get_w", "arguments": "true"}}


def said(content: str | None, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "refusal": None} | more


SHOWN: dict[str, list[dict[str, Any]]] = {
    "01_chat_plain": [{"index": 0, "message": said("session" * 8)} | LENGTH],
    "04_chat_n2": [
        {"index": 0, "message": said("host split configurationcategory")} | LENGTH,
        {"index": 1, "message": said("UTF rest generatorvars")} | LENGTH,
    ],
    "07b_chat_stop_list": [{"index": 0, "message": said("se")} | STOP],
    "B12d_tools_named": [{"index": 0, "message": said(None, tool_calls=[TOOL_CALL])} | STOP],
    "16_completion_plain": [{"index": 0, "text": " main" * 4} | LENGTH],
}


@pytest.mark.parametrize("name", SHOWN)
def test_recorded_choices_in_full(name: str) -> None:
    recorded = load(f"vllm/{name}")
    assert masked(decoded(BACKEND, named(recorded), recorded.response_body)["choices"]) == SHOWN[name]


def test_finish_reasons_of_tools_are_vllms() -> None:
    """A named tool ends in `stop`, auto and required in `tool_calls`."""
    finish = {}
    for start in ("B12c", "B12d", "B12n", "B12p", "B12q", "B12l"):
        (name,) = [name for name in WHOLE if name.startswith(f"{start}_")]
        recorded = load(f"vllm/{name}")
        finish[start] = decoded(BACKEND, named(recorded), recorded.response_body)["choices"][0]["finish_reason"]
    assert finish == {
        "B12c": "tool_calls",
        "B12d": "stop",
        "B12n": "tool_calls",
        "B12p": "tool_calls",
        "B12q": "stop",
        "B12l": "length",
    }


def test_several_prompts_of_a_greedy_n_are_asked_for_once() -> None:
    """vLLM refuses `n` above 1 at temperature 0 (recorded: 04c); what it answers to 16d stands for both copies."""
    recorded = load("vllm/16d_completion_list_prompt")
    call = call_of(json.loads(recorded.body) | {"n": 2, "temperature": 0})
    plainly = decoded(BACKEND, call_of(json.loads(recorded.body)), recorded.response_body)
    answer = decoded(BACKEND, call, recorded.response_body)
    assert [one["index"] for one in answer["choices"]] == [0, 1, 2, 3]
    assert [one["text"] for one in answer["choices"]] == [one["text"] for one in plainly["choices"] for _ in range(2)]
    assert answer["usage"]["completion_tokens"] == 2 * plainly["usage"]["completion_tokens"]
    assert answer["usage"]["prompt_tokens"] == plainly["usage"]["prompt_tokens"]


# --- streams --------------------------------------------------------------------------------------------------


def stream_of(name: str) -> tuple[Call, bytes]:
    recorded = load(f"vllm/{name}")
    return named(recorded), recorded.response_body


def expected_event(payload: dict[str, Any], call: Call) -> dict[str, Any]:
    event: dict[str, Any] = openais(payload) | {"id": call.id, "created": call.created, "model": "ours"}
    if not call.continuous_usage:
        event.pop("usage", None)
    for delta in (choice["delta"] for choice in event["choices"] if "delta" in choice):
        if delta.get("content", "") is None:
            del delta["content"]
        for piece in delta.get("tool_calls", ()):
            piece["function"].setdefault("arguments", "")
    return event


@pytest.mark.parametrize("name", STREAMS)
def test_a_recorded_stream_is_openais(name: str) -> None:
    """Each event but the usage's, less nulls; the first piece of a tool call has an id of the gateway's."""
    call, body = stream_of(name)
    got = heard(BACKEND, call, [body])
    payloads = [json.loads(line) for line in re.findall(rb"data: ({.*)\n\n", body)]
    wanted = [expected_event(payload, call) for payload in payloads if payload.get("choices")]
    assert masked(got.events) == masked(wanted)
    assert "vllm" not in json.dumps(got.events)
    assert "chatcmpl-tool" not in json.dumps(got.events)
    usages = [openais(payload["usage"]) for payload in payloads if payload.get("usage")]
    assert plain(got.usage) == (usages[-1] if usages else None)
    if name.startswith("B43"):
        assert (got.finished, got.cause) == (False, Cause.FAILED)
        assert len(got.events) > 1
    else:
        assert (got.finished, got.failure) == (True, None)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_the_same_however_it_is_cut(name: str) -> None:
    """In two pieces cut at every byte of its first and last 1,500, and byte by byte."""
    call, body = stream_of(name)
    wanted = seen(heard(BACKEND, call, [body]))
    assert seen(heard(BACKEND, call, [body[at : at + 1] for at in range(len(body))])) == wanted
    cuts = range(len(body)) if len(body) < 3000 else [*range(1500), *range(len(body) - 1500, len(body))]
    for cut in cuts:
        assert seen(heard(BACKEND, call, [body[:cut], body[cut:]])) == wanted, cut


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_before_its_end_never_counts_as_finished(name: str) -> None:
    """However much came: what is cut anywhere before the last finish reason has failed, and what came of it came."""
    call, body = stream_of(name)
    whole = heard(BACKEND, call, [body])
    end = end_of_answer(body) if whole.finished else len(body)
    cuts = range(end) if len(body) < 3000 else [*range(0, end - 1500, 97), *range(end - 1500, end)]
    for cut in cuts:
        got = heard(BACKEND, call, [body[:cut]])
        assert not got.finished, cut
        assert got.cause is Cause.FAILED, cut
        assert got.events == whole.events[: len(got.events)], cut
    assert body.endswith(b"data: [DONE]\n\n")


TEXTS = {
    "02_chat_stream": ("session" * 4, "length"),
    "07d_chat_stop_stream": ("sess", "stop"),
    "16g_completion_stream_usage": (" main" * 4, "length"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_recorded_streams_spell_their_text(name: str) -> None:
    call, body = stream_of(name)
    choices = [event["choices"][0] for event in heard(BACKEND, call, [body]).events]
    spelt = "".join(choice.get("text", choice.get("delta", {}).get("content", "")) for choice in choices)
    assert (spelt, choices[-1]["finish_reason"]) == TEXTS[name]


def test_recorded_tool_calls_are_the_same_streamed_and_whole() -> None:
    for start, arguments in (("B12i", "true"), ("B12o", '{"loc": "NY"}')):
        (name,) = [name for name in STREAMS if name.startswith(f"{start}_")]
        call, body = stream_of(name)
        pieces = [
            one
            for event in heard(BACKEND, call, [body]).events
            for one in event["choices"][0]["delta"].get("tool_calls", [])
        ]
        assert set(pieces[0]) == {"index", "id", "type", "function"}
        assert all(set(piece) == {"index", "function"} for piece in pieces[1:])
        assert "".join(piece["function"]["arguments"] for piece in pieces) == arguments
        (twin,) = [name for name in WHOLE if name.startswith({"B12i": "B12d_", "B12o": "B12n_"}[start])]
        recorded = load(f"vllm/{twin}")
        (tool,) = decoded(BACKEND, named(recorded), recorded.response_body)["choices"][0]["message"]["tool_calls"]
        assert tool["id"] == pieces[0]["id"]
        assert tool["function"] == {"name": "get_w", "arguments": arguments}


def test_an_engine_that_dies_amid_a_stream_has_failed() -> None:
    """Recorded (B43): six chunks, an error event, [DONE]. The client reads nothing of the engine's inside."""
    call, body = stream_of("B43_engine_death_midstream")
    got = heard(BACKEND, call, [body])
    assert len(got.events) == body.count(b'"choices"') > 1
    assert isinstance(got.failure, BackendError)
    assert got.cause is Cause.FAILED
    assert "EngineCore" not in got.failure.message


TGI_STREAMS = ["tgi/L13_overload_generate_stream", "tgi/N51_stream_details_top_n", "tgi/N58_stream_grammar_regex"]


@pytest.mark.parametrize("name", TGI_STREAMS)
def test_another_engines_stream_is_not_taken_for_vllms(name: str) -> None:
    for call in (chat(stream=True), text(prompt="a", stream=True)):
        got = heard(BACKEND, call, [load(name).response_body])
        assert got.cause in (Cause.PROTOCOL_ERROR, Cause.FAILED, Cause.OVERLOADED)
        assert got.events == []
        assert not got.finished


@pytest.mark.parametrize("name", ["tgi/N02_generate_details", "tgi/N60_info", "vllm/22_responses", "vllm/17_models"])
def test_another_answer_is_not_taken_for_a_chat(name: str) -> None:
    for call in (chat(), text(prompt="a")):
        with pytest.raises(BackendError) as raised:
            decoded(BACKEND, call, load(name).response_body)
        assert raised.value.cause is Cause.PROTOCOL_ERROR


def test_recorded_models_are_read() -> None:
    (tiny,) = BACKEND.served(load("vllm/17_models").response_body)
    assert (tiny.name, tiny.model, tiny.max_model_len) == ("tiny", "tiny", 1024)
    assert [one.name for one in BACKEND.served(load("vllm/B31b_models_two_names").response_body)] == ["tiny", "alias2"]


def seen(got: Heard) -> tuple[Any, ...]:
    """A stream's outcome in a form that can be compared."""
    return got.events, plain(got.usage), got.finished, got.cause, str(got.failure)


def test_a_refused_number_of_top_logprobs_is_called_what_the_client_calls_it() -> None:
    said = "Requested sample logprobs of 30, which is greater than max allowed: 20 (parameter=logprobs, value=30)"
    body = json.dumps(
        {"error": {"message": said, "type": "BadRequestError", "param": "logprobs", "code": 400}}
    ).encode()
    for call, param in ((chat(logprobs=True, top_logprobs=30), "top_logprobs"), (chat(logprobs=True), "logprobs")):
        (request,) = VLLM().encode(call, "m")
        decoder = VLLM().decoder(call, request)
        decoder.feed(b"data: " + body + b"\n\n")
        for failure in (VLLM().failure(call, None, 400, {}, body), decoder.failure):
            assert isinstance(failure, BackendError)
            assert failure.param == param
