"""What the simulators promise beyond the recordings: one text for both, pace, permits, faults, clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from msgspec.structs import replace

from backends.sim import SIMULATORS, Fault, Options, parse_fault
from backends.sim.engine import Engine
from backends.sim.grammar import instance, match_of
from backends.sim.text import pieces, token_id, token_text, written
from backends.sim.tgi import Tgi
from backends.sim.tgi_check import Failed, limit
from backends.sim.tgi_serde import cut_short
from backends.sim.vllm import Vllm
from tests.support.asgi import Answer, ask
from tests.support.harness import until
from tests.support.shapes import events

ENGINES = pytest.mark.parametrize("engine", [Vllm, Tgi])
CHAT = "/v1/chat/completions"
WEATHER = {
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"enum": ["Rome"]}}, "required": ["city"]},
}
TOOLS: dict[str, Any] = {"tools": [{"type": "function", "function": WEATHER}]}


class Sleeper:
    """A sleep that takes no time and remembers what it was asked for."""

    def __init__(self) -> None:
        self.naps: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.naps.append(seconds)
        await asyncio.sleep(0)


def started(engine: type[Engine], *faults: str, sleep: Sleeper | None = None, **flags: Any) -> Engine:
    options = Options(faults=tuple(map(parse_fault, faults)), **flags)
    return engine(options, other=Tgi if engine is Vllm else Vllm, sleep=sleep or Sleeper())


def chat(text: str = "hello", **more: Any) -> bytes:
    body = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 8}
    return json.dumps(body | more).encode()


async def said(app: Engine, **more: Any) -> str:
    answer = await ask(app, "POST", CHAT, chat(**more))
    content = json.loads(answer.body)["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def streamed(answer: Answer) -> str:
    chunks = [event for event in events(answer.body) if isinstance(event, dict)]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])


# The text


async def test_both_write_the_same_greedy_text() -> None:
    """Whole and streamed, from either engine: one text, which does not hang on the seed."""
    texts = {await said(started(engine), seed=seed) for engine in (Vllm, Tgi) for seed in (1, 2)}
    for engine in (Vllm, Tgi):
        texts.add(streamed(await ask(started(engine), "POST", CHAT, chat(stream=True))))
    assert len(texts) == 1


@ENGINES
async def test_sampling_hangs_on_the_seed(engine: type[Engine]) -> None:
    app = started(engine)
    texts = [await said(app, temperature=1.0, seed=seed) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


async def test_presence_penalty_is_a_trap_at_tgi() -> None:
    """OpenAI's default of 0 changes TGI's text, and leaves vLLM's as it is."""
    for engine, same in ((Vllm, True), (Tgi, False)):
        assert (await said(started(engine), presence_penalty=0) == await said(started(engine))) is same


async def test_a_cut_answer_continues_where_it_was_cut() -> None:
    """TGI goes on with a last message of the assistant's: two halves are the whole."""
    app = started(Tgi)
    turns = [{"role": "user", "content": "hello"}]
    whole, first = await said(app, max_tokens=16), await said(app, max_tokens=6)
    rest = await said(app, max_tokens=10, messages=[*turns, {"role": "assistant", "content": first}])
    assert first + rest == whole


def test_tokens_are_pieces_of_the_text() -> None:
    text = "Hello, <|im_end|> wörld\n日本 1234567 🚂"
    assert "".join(pieces(text)) == text
    assert [len(pieces(sample)) for sample in ("def main", "hello world", "assistant", "<|im_start|>")] == [2, 2, 2, 1]
    own = [token.text for token in written("prompt", length=200)]
    assert pieces("".join(own)) == own
    every = [*own, *pieces(text), "<|im_end|>"]
    assert [token_text(token_id(piece)) for piece in every] == every


@ENGINES
async def test_an_answer_ends_by_itself(engine: type[Engine]) -> None:
    app = started(engine, answer_tokens=(5, 5))
    answer = json.loads((await ask(app, "POST", CHAT, chat(max_tokens=50))).body)
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] == 6  # the end token counts


@pytest.mark.parametrize(
    ("schema", "least"),
    [
        ({"type": "object", "properties": {"a": {"type": "integer"}, "b": {}}, "required": ["a"]}, {"a": 0}),
        ({"type": "array", "items": {"$ref": "#/$defs/x"}, "minItems": 1, "$defs": {"x": {"const": 7}}}, [7]),
        ({"anyOf": [{"type": "string", "minLength": 8}, {}]}, "signalss"),
        ({"type": ["number", "null"], "minimum": 3}, 3),
        ({"allOf": [{"type": "string"}, {"pattern": "^[0-9]{3}-(a|b)$"}]}, "000-a"),
    ],
)
def test_least_instance_of_a_schema(schema: Any, least: Any) -> None:
    assert instance(schema) == least


def test_least_match_of_a_pattern() -> None:
    assert match_of(r'\{"n": -?\d+(\.\d)?, "w": "[^"s]{2}\w"\}') == '{"n": 0, "w": "aas"}'


# Tools


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@ENGINES
async def test_tools_are_called(engine: type[Engine], choice: Any) -> None:
    """Both engines call what must be called; their finish reasons are their own."""
    body = chat(max_tokens=80, tool_choice=choice, **TOOLS)
    answer = json.loads((await ask(started(engine), "POST", CHAT, body)).body)["choices"][0]
    [call] = answer["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == ("weather", {"city": "Rome"})
    assert answer["finish_reason"] == ("tool_calls" if engine is Vllm and choice == "required" else "stop")


@ENGINES
async def test_streamed_arguments_add_up(engine: type[Engine]) -> None:
    body = chat(max_tokens=80, tool_choice="required", stream=True, **TOOLS)
    chunks = [
        event for event in events((await ask(started(engine), "POST", CHAT, body)).body) if isinstance(event, dict)
    ]
    calls = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert json.loads("".join(call["function"].get("arguments", "") for call in calls)) == {"city": "Rome"}
    finishes = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert finishes[-1] == ("tool_calls" if engine is Vllm else None)


@ENGINES
async def test_a_tool_without_arguments_is_streamed(engine: type[Engine]) -> None:
    tool = {"type": "function", "function": {"name": "func", "parameters": {"type": "object", "properties": {}}}}
    answer = await ask(
        started(engine), "POST", CHAT, chat(max_tokens=80, tool_choice="required", stream=True, tools=[tool])
    )
    chunks = [event for event in events(answer.body) if isinstance(event, dict)]
    calls = [call["function"] for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert [call["name"] for call in calls if call.get("name")] == ["func"]
    assert "".join(call.get("arguments", "") for call in calls) == "{}"


@ENGINES
async def test_auto_calls_a_tool_that_is_named(engine: type[Engine]) -> None:
    app = started(engine)
    for text, called in (("what is the weather", True), ("hello", False)):
        answer = json.loads((await ask(app, "POST", CHAT, chat(text, max_tokens=60, **TOOLS))).body)
        assert ("tool_calls" in answer["choices"][0]["message"]) is called


async def test_no_tool_reports_the_hidden_generation() -> None:
    """TGI: the text is the second generation's, `completion_tokens` the first's; only the header is right."""
    answer = await ask(started(Tgi, answer_tokens=(99, 99)), "POST", CHAT, chat(max_tokens=40, **TOOLS))
    body = json.loads(answer.body)
    assert body["choices"][0]["message"]["content"] == await said(started(Tgi, answer_tokens=(99, 99)), max_tokens=40)
    assert answer.headers["x-generated-tokens"] == "40"
    assert body["usage"]["completion_tokens"] < 40
    assert body["choices"][0]["finish_reason"] == "stop"


# Ways in which the engines differ


async def test_text_parts_are_joined_differently() -> None:
    """vLLM puts a line feed between the parts, TGI nothing: 3 tokens and 1."""
    parts = [{"type": "text", "text": letter} for letter in "ab"]
    counts = []
    for engine in (Vllm, Tgi):
        answer = await ask(started(engine), "POST", CHAT, chat(messages=[{"role": "user", "content": parts}]))
        counts.append(json.loads(answer.body)["usage"]["prompt_tokens"])
    assert counts[0] - counts[1] == 2


async def test_tgi_answers_prompts_out_of_order() -> None:
    body = json.dumps({"prompt": ["a", "b"], "max_tokens": 2}).encode()
    choices = json.loads((await ask(started(Tgi), "POST", "/v1/completions", body)).body)["choices"]
    assert [choice["index"] for choice in choices] == [1, 0]


@pytest.mark.parametrize("key", ["secret", "SECRET", "other"])
async def test_tgi_compares_keys_without_case(key: str) -> None:
    headers = {"content-type": "application/json", "authorization": f"bearer {key}"}
    for engine, accepted in ((Tgi, key.lower() == "secret"), (Vllm, False)):  # vLLM wants the very header
        answer = await ask(started(engine, api_key="secret"), "POST", CHAT, chat(), headers)
        assert answer.status == (200 if accepted else 401)


async def test_vllm_gives_child_i_the_seed_plus_i() -> None:
    app = started(Vllm)
    both = json.loads((await ask(app, "POST", CHAT, chat(n=2, seed=7, temperature=1))).body)["choices"]
    alone = [await said(app, seed=seed, temperature=1) for seed in (7, 8)]
    assert [choice["message"]["content"] for choice in both] == alone


async def test_vllm_echoes_a_prompt_alone() -> None:
    body = json.dumps({"prompt": "def main", "max_tokens": 0, "echo": True}).encode()
    answer = json.loads((await ask(started(Vllm), "POST", "/v1/completions", body)).body)
    assert answer["choices"][0]["text"] == "def main"


async def test_tgi_samples_where_nothing_is_said() -> None:
    """`parameters` without `do_sample` is greedy, none at all is sampling."""
    app = started(Tgi)
    for parameters, drawn in (({}, True), ({"parameters": {"max_new_tokens": 200}}, False)):
        body = json.dumps({"inputs": "def main"} | parameters).encode()
        for path in ("/generate", "/"):
            texts = {(await ask(app, "POST", path, body)).body for _ in range(3)}
            assert (len(texts) > 1) is drawn


# Tokens and their numbers


async def posted(app: Engine, path: str, **body: Any) -> Any:
    return json.loads((await ask(app, "POST", path, json.dumps(body).encode())).body)


async def completed(prompt: Any = "Ünïcödé light", **more: Any) -> Any:
    return await posted(
        started(Vllm), "/v1/completions", **{"prompt": prompt, "max_tokens": 4, "temperature": 0} | more
    )


async def test_both_number_tokens_alike() -> None:
    """Those of the prompt, of the answer, and the likeliest; vLLM reads the numbers again."""
    vllm, tgi = started(Vllm), started(Tgi)
    [choice] = (await completed(return_token_ids=True, logprobs=2, return_tokens_as_token_ids=True))["choices"]
    asked = {"max_new_tokens": 4, "decoder_input_details": True, "top_n_tokens": 2}
    details = (await posted(tgi, "/generate", inputs="Ünïcödé light", parameters=asked))["details"]
    assert choice["prompt_token_ids"] == [token["id"] for token in details["prefill"]]
    assert choice["token_ids"] == [token["id"] for token in details["tokens"]]
    assert [list(top) for top in choice["logprobs"]["top_logprobs"]] == [
        [f"token_id:{token['id']}" for token in tokens] for tokens in details["top_tokens"]
    ]
    for ids, text in ((choice["prompt_token_ids"], "Ünïcödé light"), (choice["token_ids"], choice["text"])):
        assert await posted(vllm, "/detokenize", tokens=ids) == {"prompt": text}
    assert (await posted(vllm, "/tokenize", prompt="Ünïcödé light"))["tokens"] == choice["prompt_token_ids"]


async def test_vllm_tells_no_numbers_unasked() -> None:
    [choice] = (await completed(logprobs=0))["choices"]
    assert choice["token_ids"] is None
    assert choice["prompt_token_ids"] is None
    assert choice["logprobs"]["tokens"][0] == choice["text"][: len(choice["logprobs"]["tokens"][0])]


async def test_vllm_numbers_the_tokens_of_a_stream() -> None:
    """The prompt's stand in each choice's first chunk; offsets count the names as they are shown."""
    more = {"return_token_ids": True, "logprobs": 0, "return_tokens_as_token_ids": True}
    [whole] = (await completed(**more))["choices"]
    body = {"prompt": "Ünïcödé light", "max_tokens": 4, "temperature": 0, "stream": True} | more
    answer = await ask(started(Vllm), "POST", "/v1/completions", json.dumps(body).encode())
    chunks = [event["choices"][0] for event in events(answer.body) if isinstance(event, dict)]
    assert [chunk["prompt_token_ids"] for chunk in chunks] == [whole["prompt_token_ids"], None, None, None]
    assert [number for chunk in chunks for number in chunk["token_ids"]] == whole["token_ids"]
    assert [at for chunk in chunks for at in chunk["logprobs"]["text_offset"]] == whole["logprobs"]["text_offset"]


async def test_vllm_shows_the_drawn_token_beside_the_likeliest() -> None:
    """So that there are up to one more than were asked for."""
    [choice] = (await completed(temperature=1.5, seed=3, logprobs=1, max_tokens=20))["choices"]
    logprobs = choice["logprobs"]
    assert {len(top) for top in logprobs["top_logprobs"]} == {1, 2}
    assert [next(iter(top)) for top in logprobs["top_logprobs"]] == logprobs["tokens"]


@pytest.mark.parametrize(("side", "kept"), [("left", " c d"), ("right", "a b")])
async def test_vllm_truncates_a_prompt(side: str, kept: str) -> None:
    cut = await completed("a b c d", truncate_prompt_tokens=2, truncation_side=side)
    assert cut["choices"][0]["text"] == (await completed(kept))["choices"][0]["text"]
    assert cut["usage"]["prompt_tokens"] == 2


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"truncate_prompt_tokens": 0}, "The decoder prompt cannot be empty"),
        ({"truncate_prompt_tokens": 9999}, "cannot be greater than max_model_len = 8192"),
        ({"truncate_prompt_tokens": -2}, "greater than or equal to -1"),
        ({"truncate_prompt_tokens": 2, "truncation_side": "up"}, "'left' or 'right'"),
        ({"prompt_logprobs": -2}, "must be a positive value or -1"),
        ({"structured_outputs": {}}, "none are specified"),
        ({"structured_outputs": {"json": {}, "regex": "a"}}, "only use one kind"),
        ({"structured_outputs": {"choice": []}}, "cannot be an empty list"),
        ({"structured_outputs": {"json": "nope"}}, "Invalid JSON grammar specification."),
        ({"structured_outputs": {"regex": "("}}, "Failed to transform regex"),
    ],
)
async def test_what_vllm_refuses(more: Any, words: str) -> None:
    answer = await completed(**more)
    assert answer["error"]["code"] == 400
    assert words in answer["error"]["message"]


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ({"json": {"type": "object", "properties": {"a": {"const": 1}}, "required": ["a"]}}, '{"a":1}'),
        ({"json": {}}, "{}"),
        ({"json_object": True}, "{}"),
        ({"regex": "ab+"}, "ab"),
        ({"choice": ["cd", "ab"]}, "cd"),
    ],
)
async def test_vllm_keeps_to_structured_outputs(outputs: Any, text: str) -> None:
    [choice] = (await completed(structured_outputs=outputs, max_tokens=40))["choices"]
    assert (choice["text"], choice["finish_reason"]) == (text, "stop")


async def test_vllm_tells_of_the_prompt() -> None:
    """The first token has no probability; the others are told by their numbers."""
    [choice] = (await completed("a b", prompt_logprobs=0))["choices"]
    first, second = choice["prompt_logprobs"]
    assert first is None
    assert [(number, one["decoded_token"]) for number, one in second.items()] == [(str(token_id(" b")), " b")]


async def test_vllm_holds_nothing_back_for_a_stop_that_is_shown() -> None:
    stop = (await completed())["choices"][0]["text"][-4:]
    body = {"prompt": "Ünïcödé light", "max_tokens": 9, "temperature": 0, "stream": True, "logprobs": 0, "stop": stop}
    for shown in (True, False):
        given = json.dumps(body | {"include_stop_str_in_output": shown}).encode()
        answer = await ask(started(Vllm), "POST", "/v1/completions", given)
        chunks = [event["choices"][0] for event in events(answer.body) if isinstance(event, dict)]
        assert chunks[-1]["stop_reason"] == stop
        assert "".join(chunk["text"] for chunk in chunks).endswith(stop) is shown
        assert all(chunk["text"] == chunk["logprobs"]["tokens"][0] for chunk in chunks) is shown


@pytest.mark.parametrize(("wanted", "full"), [(None, True), (True, True), (False, False)])
@pytest.mark.parametrize("stream", [True, False])
async def test_tgi_puts_the_prompt_before_the_text_of_its_root(wanted: bool | None, full: bool, stream: bool) -> None:
    parameters = {"max_new_tokens": 4, "return_full_text": wanted}
    body = json.dumps({"inputs": "def main", "parameters": parameters, "stream": stream}).encode()
    answer = await ask(started(Tgi), "POST", "/", body)
    last = events(answer.body)[-1] if stream else json.loads(answer.body)[0]
    assert isinstance(last, dict)
    assert last["generated_text"].startswith("def main") is full


async def test_tgi_gives_the_likeliest_of_two() -> None:
    parameters = {"max_new_tokens": 9, "do_sample": True, "best_of": 2, "details": True}
    details = (await posted(started(Tgi), "/generate", inputs="def main", parameters=parameters))["details"]
    [other] = details["best_of_sequences"]
    best, second = (sum(token["logprob"] for token in one["tokens"]) for one in (details, other))
    assert best >= second
    assert details["seed"] != other["seed"]


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"truncate": 0}, "`truncate` must be strictly positive and less than 8191. Given: 0"),
        ({"best_of": 2}, "you must use sampling when `best_of` is > 1"),
        ({"grammar": {"type": "regex", "value": "("}}, "Request failed during generation: Server error: "),
        ({"grammar": {"type": "json", "value": "{"}}, "EOF while parsing an object at line 1 column 1"),
        ({"grammar": {"type": "json", "value": "nope"}}, "grammar is not valid: expected ident at line 1 column 2"),
        ({"grammar": {"type": "json", "value": 3}}, "grammar is not supported"),
    ],
)
async def test_what_tgi_refuses(parameters: Any, words: str) -> None:
    answer = await posted(started(Tgi), "/generate", inputs="def main", parameters=parameters)
    assert words in answer["error"]


async def test_tgi_reads_a_schema_that_is_a_text() -> None:
    grammar = {"type": "json", "value": '{"properties": {"a": {"const": 1}}, "required": ["a"]}'}
    answer = await posted(started(Tgi), "/generate", inputs="x", parameters={"grammar": grammar})
    assert answer == {"generated_text": '{"a":1}'}


# Limits


@pytest.mark.parametrize(
    ("wanted", "context", "made"),
    [(7, 1024, 7), (None, 1024, 1012), (1030, 4096, 2048), (1500, 4096, 2048), (1030, 2048, 1024), (None, 2048, 1024)],
)
def test_tgi_generates_in_pieces(wanted: int | None, context: int, made: int) -> None:
    """Above 1,024 tokens TGI passes the limit, or misses it (CONTRACT.md 2.1 "chunks")."""
    assert limit(12, wanted, context) == made


def test_tgi_names_the_clipped_number() -> None:
    with pytest.raises(Failed, match="Given: 12 `inputs` tokens and 1024 `max_new_tokens`"):
        limit(12, 5000, 1024)


async def test_vllm_caps_silently() -> None:
    answer = await ask(started(Vllm, max_model_len=30, answer_tokens=(99, 99)), "POST", CHAT, chat(max_tokens=29))
    usage = json.loads(answer.body)["usage"]
    assert (answer.status, usage["total_tokens"]) == (200, 30)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a', "a string at line 1 column 3"),
        ('{"a"', "an object at line 1 column 4"),
        ('{"a":', "a value at line 1 column 5"),
        ('{"a":[1', "a list at line 1 column 7"),
        ("", "a value at line 1 column 0"),
    ],
)
def test_where_json_was_cut(text: str, words: str) -> None:
    assert cut_short(text) == f"EOF while parsing {words}"


@ENGINES
async def test_permits(engine: type[Engine]) -> None:
    """The sequence that is one too many is refused, and let in once there is room."""
    app = started(engine, "stall:3", max_concurrent=1)
    gone = asyncio.Event()
    first = asyncio.create_task(ask(app, "POST", CHAT, chat(stream=True), leaves=gone))
    await until(lambda: app.running)
    refused = await ask(app, "POST", CHAT, chat())
    assert refused.status == (503 if engine is Vllm else 429)
    gone.set()
    await first
    app.options = replace(app.options, faults=())
    assert (await ask(app, "POST", CHAT, chat())).status == 200


# Pace


@ENGINES
@pytest.mark.parametrize("stream", [True, False])
async def test_one_sleep_a_token(engine: type[Engine], stream: bool) -> None:
    sleep = Sleeper()
    await ask(started(engine, sleep=sleep, ttft_ms=30, itl_ms=5), "POST", CHAT, chat(max_tokens=4, stream=stream))
    assert sleep.naps == [0.03, 0.005, 0.005, 0.005]


@ENGINES
async def test_no_time_is_no_sleep(engine: type[Engine]) -> None:
    sleep = Sleeper()
    await ask(started(engine, sleep=sleep, ttft_ms=0, itl_ms=0), "POST", CHAT, chat())
    assert sleep.naps == []


async def test_keep_alive() -> None:
    """TGI breaks a silence of 35 s with two comments, one every 15 s; vLLM says nothing unless told to."""
    for engine, comments in ((Tgi, 2), (Vllm, 0)):
        sleep = Sleeper()
        answer = await ask(started(engine, sleep=sleep, ttft_ms=35_000), "POST", CHAT, chat(stream=True))
        assert answer.chunks.count(b":\n\n") == comments
        assert sleep.naps[: comments + 1] == [15] * comments + [35 - 15 * comments]


# Faults


def test_faults_are_parsed() -> None:
    assert parse_fault("overload") == Fault("overload", 0, 1.0)
    assert parse_fault("cut:5@0.25") == Fault("cut", 5, 0.25)
    assert parse_fault("slow-first").after == 5


@pytest.mark.parametrize("text", ["", "nope", "cut:", "cut:x", "cut:-1", "cut@2", "cut@x", "cut:5@"])
def test_faults_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown fault .*overload.*unhealthy|not a whole number|from 0 to 1"):
        parse_fault(text)


async def test_a_share_is_a_share() -> None:
    """The same seed, the same requests; of a hundred about as many as were asked for."""

    async def statuses() -> list[int]:
        app = started(Vllm, "overload@0.3", seed=7)
        return [(await ask(app, "POST", CHAT, chat(max_tokens=1))).status for _ in range(100)]

    first = await statuses()
    assert first == await statuses()
    assert 15 < first.count(503) < 45


@pytest.mark.parametrize("fault", ["overload", "error", "cut", "garbage", "half-event", "html", "wrong-dialect"])
@ENGINES
async def test_faults_of_whole_answers(engine: type[Engine], fault: str) -> None:
    answer = await ask(started(engine, fault), "POST", CHAT, chat())
    is_vllm = engine is Vllm
    status = {"overload": 503 if is_vllm else 429, "error": 500 if is_vllm else 424, "html": 502}.get(fault, 200)
    assert answer.status == status
    assert answer.finished is (fault != "cut")
    if fault in ("cut", "garbage", "half-event", "html"):
        with pytest.raises(ValueError, match=r"."):
            json.loads(answer.body)
    if fault == "cut":
        assert int(answer.headers["content-length"]) > len(answer.body)
    if fault == "wrong-dialect":
        assert (json.loads(answer.body)["id"] == "") is is_vllm


@pytest.mark.parametrize("fault", ["error:2", "cut:2", "garbage:2", "half-event:2"])
@ENGINES
async def test_faults_in_mid_stream(engine: type[Engine], fault: str) -> None:
    """Two tokens come as ever; then it goes wrong, and no finish reason is ever told."""
    broken = await ask(started(engine, fault), "POST", CHAT, chat(stream=True))
    sound = await ask(started(engine), "POST", CHAT, chat(stream=True))
    head = 3 if engine is Vllm else 2  # vLLM begins with a chunk for the role
    assert [len(events(chunk)) for chunk in broken.chunks[:head]] == [1] * head
    assert streamed(Answer(200, {}, broken.chunks[:head], True)) == streamed(Answer(200, {}, sound.chunks[:head], True))
    assert broken.finished is (fault != "cut:2")
    rest = b"".join(broken.chunks[head:])
    assert {
        "error:2": lambda: b'"error"' in rest and rest.endswith(b"data: [DONE]\n\n"),
        "cut:2": lambda: rest == b"",
        "garbage:2": lambda: rest == b"data: this is not JSON\n\n",
        "half-event:2": lambda: rest.startswith(b'data: {"') and not rest.endswith(b"\n\n"),
    }[fault]()


@ENGINES
async def test_a_fault_behind_the_end_does_nothing(engine: type[Engine]) -> None:
    assert await said(started(engine, "error:8")) == await said(started(engine))


@ENGINES
async def test_a_missed_end_and_a_wrong_template(engine: type[Engine]) -> None:
    """An answer goes on where it would have ended; a template that says more makes another prompt, and another text."""

    async def told(*faults: str) -> tuple[str, str, dict[str, int]]:
        app = started(engine, *faults, answer_tokens=(3, 3))
        answer = json.loads((await ask(app, "POST", CHAT, chat(max_tokens=30))).body)
        [choice] = answer["choices"]
        return choice["message"]["content"], choice["finish_reason"], answer["usage"]

    sound, goes_on, templated = await told(), await told("run-on"), await told("template")
    assert (sound[1], goes_on[1], templated[1]) == ("stop", "length", "stop")
    assert goes_on[0].startswith(sound[0])
    assert goes_on[2]["completion_tokens"] == 30
    assert templated[0] != sound[0]
    assert templated[2]["prompt_tokens"] > sound[2]["prompt_tokens"] == goes_on[2]["prompt_tokens"]


@ENGINES
async def test_slow_first(engine: type[Engine]) -> None:
    sleep = Sleeper()
    await ask(started(engine, "slow-first:3", sleep=sleep), "POST", CHAT, chat(max_tokens=2))
    assert sleep.naps == [3, 0.005]


@ENGINES
async def test_faults_spare_what_does_not_generate(engine: type[Engine]) -> None:
    app = started(engine, "overload", "html")
    assert [(await ask(app, "GET", path)).status for path in ("/health", "/v1/models", "/metrics")] == [200] * 3
    sick = started(engine, "unhealthy", "html")
    assert (await ask(sick, "GET", "/health")).status == 503
    assert (await ask(sick, "POST", CHAT, chat())).status == 502


# Who leaves


@pytest.mark.parametrize("stream", [True, False])
@ENGINES
async def test_a_client_that_leaves_is_let_go(engine: type[Engine], stream: bool) -> None:
    """The generation stops at once, the gauge falls to 0, and it counts as no success."""
    app = started(engine, "stall:2")
    gauge = "vllm:num_requests_running" if engine is Vllm else "tgi_batch_current_size"
    gone = asyncio.Event()
    asking = asyncio.create_task(ask(app, "POST", CHAT, chat(stream=stream), leaves=gone))
    await until(lambda: app.running)
    assert (app.running, app.metrics.value(gauge)) == (1, 1)
    gone.set()
    answer = await asking
    assert not answer.finished
    assert (app.running, app.metrics.value(gauge)) == (0, 0)
    if engine is Tgi:
        assert app.metrics.value("tgi_request_failure", 'err="dropped"') == 1
    else:
        assert b"finished_reason" not in app.metrics.render()


@ENGINES
async def test_success_is_counted(engine: type[Engine]) -> None:
    app = started(engine)
    await ask(app, "POST", CHAT, chat(max_tokens=3))
    text = app.metrics.render().decode()
    wanted = {
        Vllm: (
            'request_success_total{engine="0",model_name="sim-model",finished_reason="length"} 1',
            "generation_tokens_total",
        ),
        Tgi: ("tgi_request_success 1", "tgi_request_generated_tokens_sum 3", "tgi_request_count 2"),
    }
    assert all(line in text for line in wanted[engine])
    buckets = [float(line.rpartition(" ")[2]) for line in text.splitlines() if "generat" in line and "_bucket" in line]
    assert buckets[:4] == [0] * 4
    assert buckets[-4:] == [1] * 4


# Over a real port


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", server_header=False))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.005)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await serving


@pytest.mark.parametrize("engine", ["vllm", "tgi"])
async def test_over_a_port(engine: str) -> None:
    """Under uvicorn a stream is read by an ordinary client, and `cut` ends in a broken connection."""
    options = Options(ttft_ms=1, itl_ms=0)
    async with served(SIMULATORS[engine](options)) as url, httpx.AsyncClient() as client:
        answer = await client.post(url + CHAT, content=chat(stream=True), headers={"content-type": "application/json"})
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.headers["server"] == "pointsman-sim"
    for stream in (True, False):
        broken = SIMULATORS[engine](replace(options, faults=(parse_fault("cut:2"),)))
        async with served(broken) as url, httpx.AsyncClient() as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post(url + CHAT, json=json.loads(chat(stream=stream)))
