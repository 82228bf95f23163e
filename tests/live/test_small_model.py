"""SmolLM2 135M on a real vLLM: where meaning matters, which the tiny model of random weights cannot show.

At temperature 0 and in float32 the model says the same each time, so each answer through the gateway is held against
the engine's own to the letter, and against what was asked.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from gateway.cli.engine.small_model import NAME
from tests.live import vllm_engine
from tests.live.conftest import wait_until_ready
from tests.live.direct import Engine
from tests.support.ports import free_port

pytestmark = [pytest.mark.live, pytest.mark.timeout(400)]

JSON = dict[str, Any]
CAPITAL: list[JSON] = [{"role": "user", "content": "What is the capital of France?"}]
COUNT: list[JSON] = [{"role": "user", "content": "Count from one to five, in words."}]
STOP = "\n3."  # two tokens of a list that goes on
GREEDY: JSON = {"temperature": 0, "max_tokens": 40}
WEATHER: JSON = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def url(small: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway in front of the small model; it says tools in the prompt, since the model's template does not."""
    file = tmp_path_factory.mktemp("small") / "pointsman.toml"
    file.write_text(
        f'[[models]]\nname = "{NAME}"\ntools_in_prompt = "always"\n'
        f'[[models.deployments]]\nname = "v"\nengine = "vllm"\nurl = "{small.url}"\n'
    )
    port = free_port()
    command = [sys.executable, "-m", "gateway", "serve", "--config", str(file), "--port", str(port)]
    process = subprocess.Popen(command, cwd=vllm_engine.ROOT, start_new_session=True)
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        vllm_engine.stop(process)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def whole(client: openai.OpenAI, messages: list[Any], **more: Any) -> tuple[str, str]:
    """Return the text of an answer, and why it ended."""
    choice = client.chat.completions.create(model=NAME, messages=messages, **GREEDY | more).choices[0]
    return choice.message.content or "", choice.finish_reason


def streamed(client: openai.OpenAI, messages: list[Any], **more: Any) -> tuple[str, str]:
    """Return the same of a stream."""
    text, reason = "", ""
    for chunk in client.chat.completions.create(model=NAME, messages=messages, stream=True, **GREEDY | more):
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
    return text, reason


@pytest.mark.parametrize("ask", [whole, streamed])
def test_it_answers_and_ends_by_itself(ask: Any, client: openai.OpenAI, small: Engine) -> None:
    said = ask(client, CAPITAL)
    own = small.chat(CAPITAL, **GREEDY)
    assert said == (own.text, "stop")
    assert "Paris" in said[0]


@pytest.mark.parametrize("ask", [whole, streamed])
def test_a_stop_string_ends_the_answer_before_itself(ask: Any, client: openai.OpenAI, small: Engine) -> None:
    """What comes before it is what the model says without it."""
    free = small.chat(COUNT, **GREEDY).text
    assert STOP in free
    assert ask(client, COUNT, stop=["never said", STOP]) == (free.partition(STOP)[0], "stop")


def test_a_system_prompt_is_followed(client: openai.OpenAI, small: Engine) -> None:
    """As the engine follows it, whether it is given as `system` or as `developer`."""
    prompt = "You are a robot called Zorg. Always say that your name is Zorg."
    question = {"role": "user", "content": "What is your name?"}
    own = small.chat([{"role": "system", "content": prompt}, question], **GREEDY).text
    assert "Zorg" in own
    assert "Zorg" not in small.chat([question], **GREEDY).text
    for role in ("system", "developer"):
        assert whole(client, [{"role": role, "content": prompt}, question])[0] == own


def test_json_by_a_schema_says_what_was_asked(client: openai.OpenAI) -> None:
    text = {"type": "string"}
    schema = {"type": "object", "properties": {"capital": text}, "required": ["capital"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": schema}}
    said, reason = whole(client, CAPITAL, response_format=form)
    assert reason == "stop"
    assert "Paris" in json.loads(said)["capital"]


def test_a_tool_is_called_for_what_was_asked(client: openai.OpenAI) -> None:
    """The model reads of the tool in its prompt, and fills in the city of the question."""
    asked: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    more: Any = {"tools": [WEATHER], "tool_choice": "required", **GREEDY, "max_tokens": 80}
    choice = client.chat.completions.create(model=NAME, messages=asked, **more).choices[0]
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments)["city"] == "Paris"
    assert choice.finish_reason == "tool_calls"


def test_doctor_says_that_tools_do_not_reach_the_model(small: Engine) -> None:
    """Its chat template knows none, so they would be left out in silence; the context is the profile's."""
    command = [sys.executable, "-m", "gateway", "doctor", "--vllm", small.url, "--json"]
    done = subprocess.run(command, cwd=vllm_engine.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    (model,) = json.loads(done.stdout)["models"]
    (engine,) = model["engines"]
    assert (engine["context"], engine["serves"]) == (2048, [NAME])
    broken = {finding["check"] for finding in model["findings"] if finding["severity"] == "broken"}
    assert "chat template" in broken
