"""Clients nobody here wrote get the same from either engine, and each of them gets what it was promised.

A client's script (`<name>/script.py`) runs once for each engine; its results are looked at one by one. What a probe has
to come to stands in PROMISES, whichever client it is of.
"""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from tests.clients.asked import ASKED, MESSAGES, MODEL, PROMPT
from tests.clients.clients import Client
from tests.clients.conftest import Ask, World
from tests.live.conftest import NAMES
from tests.live.direct import Answer, Engine

pytestmark = pytest.mark.timeout(900, func_only=True)  # the first test of a client installs it and runs its script

CHAT = (
    *("whole", "streamed", "several", "stop", "seed", "logprob"),
    *("tool_required", "tool_streamed", "structured"),
    *("presence_penalty", "unknown_model", "temperature_3", "temperature_3_streamed", "too_long"),
)
ASYNC = ("whole_async", "streamed_async")
TEXT = ("completion", "completion_text_streamed", "embeddings")
GENERATED = (
    *("generated", "generated_seed", "generated_by_grammar"),
    *("generated_five_stops", "generated_five_stops_streamed", "generated_too_long"),
)
CLIENTS = [
    Client(
        "openai_python",
        (
            *(*CHAT, *ASYNC, "tool_named", "models", "completion", "completion_streamed", "embeddings"),
            *("structured_streamed", "structured_by_schema", "json_object", "frequency_penalty", "logit_bias"),
        ),
        bad_request="openai.BadRequestError",
        not_found="openai.NotFoundError",
    ),
    Client(
        "openai_node",
        (*CHAT, "tool_named", "streamed_by_helper", "models", "completion", "completion_streamed", "embeddings"),
        bad_request="openai.BadRequestError",
        not_found="openai.NotFoundError",
    ),
    Client("jdk", ("models", "whole", "whole_async", "whole_chunked", "streamed", "completion", "completion_streamed")),
    Client(
        "langchain",
        (*CHAT, *ASYNC, *TEXT, "tool_named", "batch", "structured_by_tool"),
        bad_request="openai.BadRequestError",
        not_found="openai.NotFoundError",
    ),
    Client(
        "huggingface",
        (
            *(*CHAT, *ASYNC, *GENERATED, "tool_named", "whole_by_no_name", "endpoint_info"),
            *("generated_async", "generated_streamed", "generated_details", "generated_details_streamed"),
            "generated_stop",
        ),
        bad_request="huggingface_hub.errors.BadRequestError",
        not_found="huggingface_hub.errors.HfHubHTTPError",
        invalid="huggingface_hub.errors.ValidationError",
    ),
    Client(
        "text_generation",
        (
            *(*GENERATED, "generated_best_of", "continued_details", "continued_details_streamed"),
            *("continued_at_its_path_streamed", "continued_stop", "continued_top", "continued_truncated"),
            *("continued_details_blocking", "continued_details_streamed_blocking"),
            *("whole", "whole_async", "several", "seed", "logprob", "tool_required", "tool_named"),
            *("presence_penalty", "temperature_3", "too_long"),
        ),
        bad_request="text_generation.errors.BadRequestError",
        invalid="text_generation.errors.ValidationError",
    ),
    Client(
        "anthropic",
        ("message", "message_streamed", "message_async", "message_counted", "unknown_model"),
        bad_request="anthropic.BadRequestError",
        not_found="anthropic.NotFoundError",
    ),
    Client(
        "instructor",
        (
            *("structured", "structured_by_tool", "structured_async", "structured_partial", "structured_with_usage"),
            *("unknown_model", "temperature_3"),
        ),
        bad_request="openai.BadRequestError",
        not_found="openai.NotFoundError",
    ),
    Client(
        "litellm",
        (*CHAT, *ASYNC, *TEXT, "tool_named_as_any"),
        bad_request="litellm.exceptions.BadRequestError",
        not_found="litellm.exceptions.NotFoundError",
        too_long="litellm.exceptions.ContextWindowExceededError",
    ),
]
# What TGI has no way to do, and the field that the 400 names.
NOT_ON_TGI = {
    "presence_penalty": "presence_penalty",  # its chat turns it into a repetition penalty
    "frequency_penalty": "frequency_penalty",  # it weighs the prompt's tokens too
    "logit_bias": "logit_bias",  # it has none
    **dict.fromkeys(
        ["message", "message_streamed", "message_async", "message_counted"], "TGI"
    ),  # nor Anthropic's paths
}
# vLLM holds arguments to the schema only where the tool says `strict`, or by a launch flag; instructor does not say it,
# and a model of random weights needs it.
NOT_ON_REAL_VLLM = {("instructor", "structured_by_tool")}
# What is greedy, and so has to be equal on engines with the same weights.
GREEDY = {
    *("whole", "whole_async", "whole_chunked", "whole_by_no_name", "batch", "stop"),
    *("streamed", "streamed_async", "streamed_by_helper"),
    *("logprob", "completion", "completion_streamed", "completion_text_streamed", "models"),
    *("generated", "generated_async", "generated_streamed", "generated_details", "generated_details_streamed"),
    *("generated_stop", "continued_details", "continued_details_streamed", "continued_at_its_path_streamed"),
    *("continued_stop", "continued_top", "continued_truncated"),
    *("continued_details_blocking", "continued_details_streamed_blocking"),
    *("unknown_model", "temperature_3", "temperature_3_streamed", "too_long"),
    *("generated_five_stops", "generated_five_stops_streamed", "generated_too_long"),
}
# What real engines draw, or count, in their own way; the simulators write the same to the same prompt.
DRAWN = {
    *(
        "several",
        "seed",
        "tool_required",
        "tool_named",
        "tool_named_as_any",
        "tool_streamed",
        "generated_seed",
        "generated_by_grammar",
    ),
    *("structured", "structured_async", "structured_streamed", "structured_by_schema", "structured_by_tool"),
    *("structured_partial", "structured_with_usage"),
}

worlds = pytest.mark.parametrize("world", ["simulated", pytest.param("real", marks=pytest.mark.live)], indirect=True)


def probes_of(of: set[str] | None = None) -> list[Any]:
    """Each client with each of its probes, or with those among `of`."""
    pairs = [(client, probe) for client in CLIENTS for probe in client.probes if of is None or probe in of]
    return [pytest.param(client, probe, id=f"{client}-{probe}") for client, probe in pairs]


@worlds
@pytest.mark.parametrize("engine", NAMES)
@pytest.mark.parametrize(("client", "probe"), probes_of())
def test_promise(world: World, engine: str, client: Client, probe: str, ask: Ask) -> None:
    """The client gets what it was promised, from either engine."""
    if world.real and engine == "vllm" and (client.name, probe) in NOT_ON_REAL_VLLM:
        pytest.skip("a real vLLM does not hold this to the schema")
    result = ask(world, client, engine)[probe]
    if engine == "tgi" and probe in NOT_ON_TGI:
        assert_refused(client, result, NOT_ON_TGI[probe])
    elif probe in ERRORS:
        ERRORS[probe](client, result)
    else:
        assert "value" in result, result["raised"]
        PROMISES[probe](result["value"], world.engines[engine])


@worlds
@pytest.mark.parametrize(("client", "probe"), probes_of(GREEDY))
def test_twins(world: World, client: Client, probe: str, ask: Ask) -> None:
    """Both engines give the client the same, errors too."""
    vllm, tgi = (comparable(ask(world, client, engine)[probe]) for engine in NAMES)
    assert_alike(vllm, tgi)


@pytest.mark.parametrize("world", ["simulated"], indirect=True)
@pytest.mark.parametrize(("client", "probe"), probes_of(DRAWN))
def test_simulated_twins(world: World, client: Client, probe: str, ask: Ask) -> None:
    """Both simulators draw the same, so that what is left of a difference is the gateway's."""
    test_twins(world, client, probe, ask)


def comparable(result: Any) -> Any:
    """A result without what differs between any two requests."""
    if "raised" in result:
        return {name: result["raised"][name] for name in ("kinds", "status_code", "param", "code")}
    return result["value"]


def assert_alike(one: Any, other: Any) -> None:
    """Equal; logprobs to three places. A token that is no whole character is `` or `\ufffd`, as the engine likes."""
    if isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-3)
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_alike(first, second)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        assert_alike(list(one.values()), [other[key] for key in one])
    elif isinstance(one, str):
        assert whole_characters(one) == whole_characters(other)
    else:
        assert one == other


def whole_characters(text: str) -> str:
    return text.replace("\ufffd", "")


def assert_refused(client: Client, result: Any, param: str) -> None:
    """It is the client's own exception for a bad request, and it names the parameter."""
    assert "raised" in result, result["value"]
    raised = result["raised"]
    assert client.bad_request in raised["kinds"]
    assert raised["param"] in {param, None}
    assert param in raised["message"]


def assert_unknown(client: Client, result: Any) -> None:
    """It is the client's own exception for a model that is not there."""
    assert "raised" in result, result["value"]
    assert client.not_found in result["raised"]["kinds"]
    assert "nope" in result["raised"]["message"]


def assert_too_long(client: Client, result: Any) -> None:
    """It is the client's own exception for a prompt that is too long, where it has one."""
    assert "raised" in result, result["value"]
    assert (client.too_long or client.bad_request) in result["raised"]["kinds"]
    assert "maximum context length is 1024 tokens" in result["raised"]["message"]


def assert_invalid(client: Client, result: Any) -> None:
    """It is the client's own exception for what TGI calls a validation error."""
    assert "raised" in result, result["value"]
    assert client.invalid in result["raised"]["kinds"]


ERRORS: dict[str, Callable[[Client, Any], None]] = {
    "unknown_model": assert_unknown,
    "temperature_3": lambda client, result: assert_refused(client, result, "temperature"),
    "temperature_3_streamed": lambda client, result: assert_refused(client, result, "temperature"),
    "too_long": assert_too_long,
    "embeddings": lambda client, result: assert_refused(client, result, "model"),
    "generated_five_stops": assert_invalid,
    "generated_five_stops_streamed": assert_invalid,
    "generated_too_long": assert_invalid,
}


@cache
def chat(engine: Engine) -> Answer:
    """What the engine itself says to the chat that the clients ask for."""
    return engine.chat(MESSAGES, max_tokens=ASKED["max_tokens"], temperature=0)


@cache
def completion(engine: Engine) -> Answer:
    """What the engine itself makes of the prompt."""
    return engine.complete(PROMPT, max_tokens=ASKED["max_tokens"], temperature=0, logprobs=1)


def same(value: Any, truth: Answer) -> None:
    """The client's answer is the engine's own: text, finish reason and usage."""
    assert Answer(value["text"], value["reason"], value["prompt_tokens"], value["completion_tokens"]) == truth


def two_texts(value: Any, engine: Engine) -> None:
    """Two choices, and they differ."""
    assert [type(text) for text in value] == [str, str]
    assert value[0] != value[1]


def before_the_stop(value: Any, engine: Engine) -> None:
    """The text ends before the first stop."""
    assert value["text"] == value["whole"][: value["whole"].index(value["stop"])]
    assert value["reason"] == "stop"


def by_the_seed(value: Any, engine: Engine) -> None:
    """The same seed, the same text; another, another."""
    first, again, other = value
    assert first == again != other


def with_logprobs(value: Any, engine: Engine) -> None:
    """Each token with its logprob, the first of the likely ones."""
    assert len(value) == ASKED["max_tokens"]
    for token, logprob, top in value:
        assert logprob <= 0
        assert len(top) == 2
        assert whole_characters(token) == whole_characters(top[0])


def a_light(value: Any, engine: Engine) -> None:
    """By the schema."""
    assert value.keys() == {"on", "room"}
    assert isinstance(value["on"], bool)
    assert value["room"] in {"kitchen", "hall"}


def one_call(value: Any, engine: Engine) -> None:
    """Calls of the one tool with arguments by its schema. (vLLM may write several.)"""
    assert value["reason"] == "tool_calls"
    assert value["calls"]
    for name, arguments in value["calls"]:
        assert name in {"set_light", "Light"}  # langchain names a tool after its class
        a_light(arguments, engine)


def named_call(value: Any, engine: Engine) -> None:
    """The same; a named tool ends in `stop`."""
    one_call(value | {"reason": "tool_calls"}, engine)
    assert value["reason"] == "stop"


def an_answer(value: Any, engine: Engine) -> None:
    """Some text."""
    assert value["text"]
    assert value["completion_tokens"] > 0


def an_object(value: Any, engine: Engine) -> None:
    """A JSON object, or the beginning of one."""
    assert value["text"].lstrip().startswith("{")
    assert value["reason"] == "length" or isinstance(json.loads(value["text"]), dict)


def is_equal(expected: Any) -> Callable[[Any, Engine], None]:
    """Equal to this."""

    def check(value: Any, engine: Engine) -> None:
        assert value == expected

    return check


def the_chat(value: Any, engine: Engine) -> None:
    same(value, chat(engine))


def the_completion(value: Any, engine: Engine) -> None:
    same(value, completion(engine))


def its_prompt_tokens(value: Any, engine: Engine) -> None:
    assert value == chat(engine).prompt_tokens


def its_text(value: Any, engine: Engine) -> None:
    assert value == completion(engine).text


def its_text_twice(value: Any, engine: Engine) -> None:
    assert value == [chat(engine).text] * 2


def after_the_prompt(value: Any, engine: Engine) -> None:
    """`POST /` puts the prompt before the text, as TGI does there."""
    assert value == PROMPT + completion(engine).text


def detailed(value: Any, engine: Engine) -> None:
    """The same with details: TGI's finish reason, and each token with its logprob."""
    truth = completion(engine)
    assert value["text"] == PROMPT + truth.text
    assert value["reason"] == truth.finish_reason
    assert value["completion_tokens"] == len(value["tokens"]) == truth.completion_tokens
    assert value.get("prompt_tokens", truth.prompt_tokens) == truth.prompt_tokens
    assert "".join(text for text, _ in value["tokens"]) == truth.text
    assert [logprob for _, logprob in value["tokens"]] == pytest.approx(truth.logprobs, abs=1e-3)


def up_to_the_stop(value: Any, engine: Engine) -> None:
    """TGI leaves the stop in the text."""
    assert value["text"] == PROMPT + "".join(value["tokens"])
    assert value["reason"] == "stop_sequence"


def continued(check: Callable[[Any, Engine], None]) -> Callable[[Any, Engine], None]:
    """The same of a text that comes without the prompt."""
    return lambda value, engine: check(value | {"text": PROMPT + value["text"]}, engine)


def best_of_two(value: Any, engine: Engine) -> None:
    """The best, and the one other."""
    limit = ASKED["max_tokens"]
    assert value == [limit, [limit]]


def with_top_tokens(value: Any, engine: Engine) -> None:
    """The two likeliest in each place; the greedy one is among them."""
    assert len(value) == ASKED["max_tokens"]
    for token, top in value:
        assert len(top) >= 2
        assert whole_characters(token) in map(whole_characters, top)


def some_text(value: Any, engine: Engine) -> None:
    """Some text, and not the prompt."""
    assert value
    assert PROMPT not in value


def information(value: Any, engine: Engine) -> None:
    """What clients look for in /info."""
    assert {"model_id", "max_total_tokens", "max_input_tokens", "version"} <= set(value)


PROMISES: dict[str, Callable[[Any, Engine], None]] = {
    **dict.fromkeys(["whole", "whole_async", "whole_chunked", "whole_by_no_name"], the_chat),
    **dict.fromkeys(["streamed", "streamed_async", "streamed_by_helper"], the_chat),
    "batch": its_text_twice,
    "several": two_texts,
    "stop": before_the_stop,
    "seed": by_the_seed,
    "logprob": with_logprobs,
    **dict.fromkeys(["tool_required", "tool_streamed", "tool_named_as_any"], one_call),
    "tool_named": named_call,
    **dict.fromkeys(["structured", "structured_async", "structured_streamed", "structured_by_schema"], a_light),
    **dict.fromkeys(["structured_by_tool", "structured_partial", "structured_with_usage"], a_light),
    **dict.fromkeys(["completion", "completion_streamed"], the_completion),
    "completion_text_streamed": its_text,
    **dict.fromkeys(NOT_ON_TGI, an_answer),
    **dict.fromkeys(["message", "message_streamed", "message_async"], the_chat),
    "message_counted": its_prompt_tokens,
    "json_object": an_object,
    "models": is_equal([MODEL]),
    "endpoint_info": information,
    **dict.fromkeys(["generated", "generated_async"], after_the_prompt),
    "generated_streamed": its_text,
    **dict.fromkeys(["generated_details", "generated_details_streamed"], detailed),
    **dict.fromkeys(["continued_details", "continued_details_streamed"], continued(detailed)),
    "continued_at_its_path_streamed": continued(detailed),
    **dict.fromkeys(["continued_details_blocking", "continued_details_streamed_blocking"], continued(detailed)),
    "generated_stop": up_to_the_stop,
    "continued_stop": continued(up_to_the_stop),
    "generated_seed": by_the_seed,
    "generated_by_grammar": a_light,
    "generated_best_of": best_of_two,
    "continued_top": with_top_tokens,
    "continued_truncated": some_text,
}
