"""TGI's own API over real sockets, with a vLLM or a TGI behind it that says what was written down."""

import asyncio
import json
from typing import Any

import msgspec
import pytest

from gateway import config
from tests.support import recorded
from tests.support.clock import Clock
from tests.support.harness import (
    END,
    FACTS,
    MODEL,
    Asked,
    Engine,
    Script,
    asking,
    both,
    checked,
    configured,
    cuts,
    engine,
    events,
    gateway,
    hangs,
    head,
    over,
    piece,
    says,
    settled,
    until,
    whole,
)
from tests.support.raw_client import connected
from tests.support.tgi_recorded import as_sent, ask, load, names_in, plays, vllm_stream

BODY = {"inputs": "def main", "parameters": {"max_new_tokens": 4}}
OVERLOADED = {"error": "Model is overloaded", "error_type": "overloaded"}
FAILED = {
    "error": "Request failed during generation: The engine failed while it generated the answer.",
    "error_type": "generation",
}
CUT = "Request failed during generation: The engine closed the stream before the answer was complete."
VLLM_BUSY = {"error": {"message": "busy", "type": "Service Unavailable", "param": None, "code": 503}}
VLLM_FAILED = {"error": {"message": "EngineCore died", "type": "InternalServerError", "param": None, "code": 500}}


# --- a vLLM behind ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["N01_generate_no_parameters_max20", "N02_generate_details", "N40_root_compat"])
async def test_a_whole_answer_of_vllms_is_tgis(name: str) -> None:
    case, said, script = plays(name)
    async with over(script) as (front, behind):
        answer = await ask(front, case)
        assert answer.status_code == 200
        assert answer.json() == said
        assert answer.headers["x-prompt-tokens"] == "2"
        assert answer.headers["x-compute-type"] == "gpu+optimized"
        assert answer.headers["x-pointsman-engine"] == "vllm"
        assert behind.asked[0].path == "/v1/completions"
        assert behind.asked[0].json["model"] == MODEL


@pytest.mark.parametrize("name", ["N41_root_compat_stream", "N50_stream", "N58_stream_grammar_regex"])
async def test_a_stream_of_vllms_is_tgis(name: str) -> None:
    case, said, script = plays(name)
    async with over(script) as (front, _):
        answer = await ask(front, case)
        assert answer.headers["content-type"] == "text/event-stream"
        assert answer.headers["cache-control"] == "no-cache"
        assert events(answer.content) == said


@pytest.mark.parametrize("name", ["N03_generate_details_top_n", "N51_stream_details_top_n"])
async def test_the_texts_of_likely_tokens_are_asked_for_once(name: str) -> None:
    case, said, script = plays(name)
    async with over(script) as (front, behind):
        for _ in range(2):
            answer = await ask(front, case)
            assert (events(answer.content) if isinstance(said, list) else answer.json()) == said
        asked = [one.json["tokens"][0] for one in behind.asked if one.path == "/detokenize"]
        assert sorted(asked) == sorted(names_in(said))


async def test_a_seed_is_drawn_and_told() -> None:
    _, _, script = plays("N02_generate_details")
    async with over(script) as (front, behind):
        body = {"inputs": "def main", "parameters": {"do_sample": True, "details": True, "max_new_tokens": 4}}
        answer = await front.post(body, "/generate")
        assert answer.json()["details"]["seed"] == behind.asked[0].json["seed"]


async def test_what_was_emulated_is_said() -> None:
    _, _, script = plays("N08_generate_stop")
    async with over(script) as (front, _):
        answer = await front.post({"inputs": "x", "parameters": {"stop": ["in"], "truncate": 9}}, "/generate")
        assert answer.headers["x-pointsman-adapted"] == "stop,truncate"


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_a_prompt_that_does_not_fit_is_counted_and_refused(path: str) -> None:
    async with over(says(whole({"count": 2001, "max_model_len": 1024}))) as (front, behind):
        answer = await front.post({"inputs": "word " * 2000, "parameters": {"max_new_tokens": 4}}, path)
        said = answer.json() if path == "/generate" else events(answer.content)[0]
        assert answer.status_code == (422 if path == "/generate" else 200)
        assert said["error"].endswith("must be <= 1024. Given: 2001 `inputs` tokens and 4 `max_new_tokens`")
        assert [one.path for one in behind.asked] == ["/tokenize"]


@pytest.mark.parametrize(
    ("engine_says", "status", "told"),
    [
        (whole(VLLM_BUSY, "503 Service Unavailable"), 429, OVERLOADED),
        (whole(VLLM_FAILED, "500 Internal Server Error"), 424, FAILED),
        (whole({"error": "Unauthorized"}, "401 Unauthorized"), 424, None),
        (whole({"detail": "Not Found"}, "404 Not Found"), 422, None),
        (whole(b"nonsense"), 424, None),
        (
            whole({"error": {"message": "max_tokens is odd", "param": "max_tokens", "code": 400}}, "400 Bad Request"),
            422,
            {"error": "Input validation error: max_new_tokens is odd", "error_type": "validation"},
        ),
    ],
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
async def test_vllms_failures_in_tgis_words(path: str, engine_says: bytes, status: int, told: Any) -> None:
    async with over(says(engine_says)) as (front, _):
        answer = await front.post(BODY, path)
        streams = path == "/generate_stream"
        said = events(answer.content)[0] if streams else answer.json()
        assert answer.status_code == (200 if streams else status)
        assert said.keys() == {"error", "error_type"}
        assert told is None or said == told


@pytest.mark.parametrize(
    "end",
    [
        says(head() + b"%b" + END),
        cuts(head() + b"%b"),
        says(head() + b"%b" + piece(b"data: " + json.dumps(VLLM_FAILED).encode() + b"\n\ndata: [DONE]\n\n") + END),
    ],
)
async def test_a_stream_of_vllms_that_breaks_ends_in_an_error(end: Script) -> None:
    wanted, case = load("N50_stream")
    first = piece(vllm_stream(wanted, events(case.response_body))[0])

    async def script(asked: Asked, writer: asyncio.StreamWriter) -> None:
        class Filled:
            def write(self, data: bytes) -> None:
                writer.write(data.replace(b"%b", first))

            async def drain(self) -> None:
                await writer.drain()

            def close(self) -> None:
                writer.close()

        await end(asked, Filled())  # type: ignore[arg-type]

    async with over(script) as (front, _):
        answer = await ask(front, case)
        *tokens, last = events(answer.content)
        assert answer.status_code == 200
        assert [event["token"]["text"] for event in tokens] == [" main"]
        assert last["error_type"] == "generation"


async def test_a_client_that_leaves_ends_vllms_work() -> None:
    wanted, case = load("N50_stream")
    first = vllm_stream(wanted, events(case.response_body))[0]
    async with over(hangs(head() + piece(first))) as (front, behind):
        async with front.client.stream("POST", "/generate_stream", json=BODY) as answer:
            await anext(answer.aiter_bytes())
        await until(lambda: behind.left == 1)
    async with over(hangs()) as (front, behind):
        async with asking(front, BODY, "/generate"):
            await until(lambda: behind.asked)
        await until(lambda: behind.left == 1)


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_a_silence_is_filled_with_tgis_comment_and_ended_in_time(kind: str) -> None:
    clock, times = Clock(), config.TimeoutsConfig(keep_alive=0.1, first_event=5)
    async with over(hangs(head()), kind, clock, timeouts=times) as (front, behind), connected(front.port) as client:
        client.send(BODY, "/generate_stream")
        await until(lambda: behind.asked)
        await settled()  # the head has come
        clock.now += 1
        assert (await client.head()).status == 200
        assert await client.chunk() == b":\n\n"
        clock.now += 5
        *_, last = events(await client.chunk())
        assert last["error_type"] == "generation"
        await until(lambda: behind.left == 1)


# --- a TGI behind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "N01_generate_no_parameters_max20",
        "N03_generate_details_top_n",
        "N13_generate_watermark_typical",
        "N19_generate_grammar_no_properties",
        "N28_generate_stop_string_rejected",
        "N35_generate_malformed",
        "N40_root_compat",
        "N51_stream_details_top_n",
        "N53_stream_validation_error",
        "L12_overload_generate",
        "L13_overload_generate_stream",
    ],
)
async def test_what_tgi_says_goes_back_as_it_came(name: str) -> None:
    case = recorded.load(f"tgi/{name}")
    async with over(says(as_sent(case)), "tgi") as (front, behind):
        answer = await ask(front, case)
        assert answer.status_code == case.status
        assert answer.content == case.response_body
        assert answer.headers["content-type"] == case.response_headers["content-type"]
        assert answer.headers["x-pointsman-engine"] == "tgi"
        for header in ("x-prompt-tokens", "x-generated-tokens", "x-compute-time"):
            assert answer.headers.get(header) == case.response_headers.get(header)
        asked = behind.asked[-1]  # an overload is tried more than once
        assert asked.path == case.path
        if not asked.body.startswith(b'{"inputs":'):
            assert asked.body == case.body


async def test_a_stream_is_counted_by_details_that_the_client_does_not_see() -> None:
    case = recorded.load("tgi/N51_stream_details_top_n")
    async with over(says(as_sent(case)), "tgi") as (front, behind):
        answer = await front.post(BODY, "/generate_stream")
        assert behind.asked[0].json["parameters"] == BODY["parameters"] | {"details": True}  # type: ignore[operator]
        *before, last = events(answer.content)
        assert last == events(case.response_body)[-1] | {"details": None}
        assert before == events(case.response_body)[:-1]


@pytest.mark.parametrize(
    "script",
    [says(head() + END), cuts(head()), says(head() + piece(b"data: nonsense\n\n") + END), cuts(b"")],
)
async def test_a_stream_of_tgis_that_breaks_ends_in_an_error(script: Script) -> None:
    async with over(script, "tgi") as (front, _):
        (said,) = events((await front.post(BODY, "/generate_stream")).content)
        assert said["error_type"] == "generation"


@pytest.mark.parametrize(("status", "told"), [("503 x", 429), ("502 x", 424), ("401 x", 424), ("404 x", 422)])
async def test_what_stands_before_a_tgi_is_told_in_its_words(status: str, told: int) -> None:
    async with over(says(whole(b"<html>", status, "text/html")), "tgi") as (front, _):
        answer = await front.post(BODY, "/generate")
        assert answer.status_code == told
        assert answer.json().keys() == {"error", "error_type"}


# --- both, and none -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{"watermark": True}, {"typical_p": 0.5}, {"temperature": 0}, {"stop": "a"}])
async def test_what_vllm_cannot_do_or_refuses_goes_to_tgi(parameters: dict[str, Any]) -> None:
    said = {"generated_text": "x"}
    async with both(says(b""), says(whole(said))) as (front, behind):
        for _ in range(5):
            answer = await front.post({"inputs": "x", "parameters": parameters}, "/generate")
            assert answer.json() == said
        assert len(behind.asked) == 5
        pinned = await front.post({"inputs": "x", "parameters": parameters}, "/generate", x_pointsman_engine="vllm")
        assert pinned.status_code == 422


async def test_where_routing_is_refused_the_parameter_is_named() -> None:
    async with engine(says(b"")) as one, engine(says(b"")) as two:
        models = [
            msgspec.structs.replace(model, on_unsupported="refuse") for model in configured(one.url, two.url).models
        ]
        async with gateway(checked(config.Config(models=models))) as front:
            answer = await front.post({"inputs": "x", "parameters": {"watermark": True}}, "/generate")
            assert answer.status_code == 422
            assert "`watermark`" in answer.json()["error"]


async def test_an_engine_that_is_away_is_passed_over() -> None:
    _, said, script = plays("N02_generate_details")
    async with engine(script) as one, engine(says(b"")) as two, gateway(configured(one.url, two.url)) as front:
        two.stop()
        body = {"inputs": "def main", "parameters": {"details": True, "max_new_tokens": 4}}
        for _ in range(5):
            assert (await front.post(body, "/generate")).json() == said


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/info"])
async def test_without_an_engine_tgi_is_overloaded(path: str) -> None:
    models = config.from_urls({"vllm": ["http://127.0.0.1:9"]}, "", {})
    async with gateway(checked(config.Config(models=models)), ready=False) as front:
        answer = await front.client.get(path) if path == "/info" else await front.post(BODY, path)
        streams = path == "/generate_stream"
        assert (events(answer.content)[0] if streams else answer.json()) == OVERLOADED
        assert answer.status_code == (200 if streams else 429)
        assert streams or answer.headers["retry-after"]


async def two_models(one: Engine, **server: Any) -> config.Config:
    models = [
        config.ModelConfig(name=name, deployments=[config.DeploymentConfig(name=name, engine="vllm", url=one.url)])
        for name in ("a", "b")
    ]
    return checked(config.Config(models=models, server=config.ServerConfig(**server)))


async def test_with_several_models_one_has_to_be_chosen() -> None:
    _, said, script = plays("N01_generate_no_parameters_max20")
    async with engine(script) as one:
        async with gateway(await two_models(one)) as front:
            for answer in (await front.post(BODY, "/generate"), await front.client.get("/info")):
                assert answer.status_code == 422
                assert "a, b" in answer.json()["error"]
                assert answer.json()["error_type"] == "validation"
        async with gateway(await two_models(one, tgi_model="b")) as front:
            assert (await front.post(BODY, "/generate")).json() == said


# --- the door -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["N28_generate_stop_string_rejected", "N34_generate_no_inputs_field", "N35_generate_malformed"]
)
@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
async def test_a_body_that_cannot_be_read_is_told_in_plain_text(path: str, name: str) -> None:
    case = recorded.load(f"tgi/{name}")
    async with over(says(b"")) as (front, behind):
        answer = await ask(front, case._replace(path=path))
        assert (answer.status_code, answer.content) == (case.status, case.response_body)
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert behind.asked == []


async def test_other_faults_at_the_door() -> None:
    async with over(says(b""), server=config.ServerConfig(max_body="20B")) as (front, _):
        large = await front.post(BODY, "/generate")
        kind = await front.client.post("/generate", content=b"{}", headers={"content-type": "text/plain"})
        method = await front.client.get("/generate")
        pinned = await front.post({"inputs": "x"}, "/generate", x_pointsman_engine="tgi")
    sent = recorded.load("tgi/N71_payload_over_2MB"), recorded.load("tgi/N36_generate_wrong_content_type")
    for answer, case in zip((large, kind), sent, strict=True):
        assert (answer.status_code, answer.content) == (case.status, case.response_body)
    assert (method.status_code, method.content, method.headers["allow"]) == (405, b"", "POST")
    assert (pinned.status_code, pinned.json()["error_type"]) == (422, "validation")


# --- /info --------------------------------------------------------------------------------------------------


async def test_info_is_a_tgis_own_or_made_of_what_is_known_of_the_vllm() -> None:
    async with both(says(b""), says(b"")) as (front, _):
        assert (await front.client.get("/info")).json() == FACTS["/info"]
        made = (await front.client.get("/info", headers={"x-pointsman-engine": "vllm"})).json()
        assert list(made) == list(json.loads(recorded.load("tgi/N60_info").response_body))
        assert (made["model_id"], made["max_total_tokens"], made["max_input_tokens"]) == (MODEL, 1024, 1023)
