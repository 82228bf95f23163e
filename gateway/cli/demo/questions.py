"""What the demo asks: a round for two simulated engines, and one for a real model, whose answers are shown."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gateway.cli.engine import small_model

SIMULATED = "demo-model"
SMALL = small_model.NAME
SUBJECTS = ["continuous batching", "paged attention", "prefix caching", "speculative decoding", "tensor parallelism"]
PLACES = ["Italy", "France", "Japan", "Egypt", "Canada", "Spain"]
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# Without `strict` vLLM holds a model to a call of the tool, but not to its parameters: a small one gets them wrong.
STRICT = TOOL | {"function": TOOL["function"] | {"strict": True}}
CAPITAL = {
    "type": "object",
    "properties": {"country": {"type": "string"}, "capital": {"type": "string"}},
    "required": ["country", "capital"],
    "additionalProperties": False,
}


@dataclass
class DemoQuestion:
    """A request that the demo sends, and what to call it."""

    title: str
    body: dict[str, Any]
    path: str = "/v1/chat/completions"
    pin: str = ""


def chat(model: str, text: str, **more: Any) -> dict[str, Any]:
    """Return the body of a chat of one message."""
    usage = {"stream_options": {"include_usage": True}} if "stream" in more else {}
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "max_tokens": 40, "temperature": 0, **usage, **more}


def simulated(chance: random.Random) -> Iterator[DemoQuestion]:
    """Yield a round for the simulators: what clients commonly send, and one mistake."""

    def about(subject: str, **more: Any) -> dict[str, Any]:
        return chat(SIMULATED, f"Explain {subject}.", **more)

    subject = chance.choice(SUBJECTS)
    yield DemoQuestion("chat, whole", about(subject))
    for subject in chance.sample(SUBJECTS, 3):
        yield DemoQuestion("chat, streamed", about(subject, stream=True))
    yield DemoQuestion("the same to vLLM", about(subject, stream=True, top_p=1), pin="vllm")
    yield DemoQuestion("the same to TGI", about(subject, stream=True, top_p=1), pin="tgi")
    yield DemoQuestion("two choices", about(subject, n=2, temperature=1, seed=7))
    yield DemoQuestion("a tool call", about(subject, tools=[TOOL], tool_choice="required", max_tokens=200))
    text = {"model": SIMULATED, "prompt": f"{subject} is", "max_tokens": 20, "temperature": 0}
    yield DemoQuestion("completion", text, "/v1/completions")
    yield DemoQuestion("only vLLM can", about(subject, min_p=0.1))
    yield DemoQuestion("a mistake", about(subject, temperature=3))


def real(chance: random.Random) -> Iterator[DemoQuestion]:
    """Yield a round for a small real model: what it can answer, held to a form, and one mistake."""
    place, other = chance.sample(PLACES, 2)
    question = f"What is the capital of {place}?"
    yield DemoQuestion("chat, whole", chat(SMALL, question))
    yield DemoQuestion("chat, streamed", chat(SMALL, f"Tell me one fact about {other}.", stream=True))
    yield DemoQuestion("a stop string", chat(SMALL, "Count from one to five, with commas.", stop=["4"]))
    form = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": CAPITAL}}
    yield DemoQuestion("JSON by a schema", chat(SMALL, question, response_format=form))
    weather = f"What is the weather in the capital of {place}?"
    yield DemoQuestion("a tool call", chat(SMALL, weather, tools=[STRICT], tool_choice="required", max_tokens=60))
    text = {"model": SMALL, "prompt": f"The capital of {other} is", "max_tokens": 8, "temperature": 0}
    yield DemoQuestion("completion", text, "/v1/completions")
    yield DemoQuestion("a mistake", chat(SMALL, question, temperature=3))
