# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""litellm as a client of an OpenAI-compatible server: `openai/` and `text-completion-openai/`."""

import json
from typing import Any, Literal

import litellm
from probe import GIVEN, answer, awaited, by_seed, called, cut, gathered, logprobs, main, probe, streamed_calls
from pydantic import BaseModel

litellm.suppress_debug_info = True
SETTINGS: dict[str, Any] = {
    "api_base": f"{GIVEN.url}/v1",
    "api_key": "none",
    "max_retries": 0,
    "extra_headers": {"x-pointsman-engine": GIVEN.engine},
}
CHAT: dict[str, Any] = SETTINGS | {
    "model": f"openai/{GIVEN.model}",
    "messages": GIVEN.messages,
    "max_tokens": GIVEN.max_tokens,
}
GREEDY = CHAT | {"temperature": 0}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
FORMED = CHAT | {"temperature": 1, "max_tokens": 200}
TOOLS = FORMED | {"tools": [GIVEN.tool]}
NAMED = {"type": "function", "function": {"name": "set_light"}}
TEXT: dict[str, Any] = SETTINGS | {
    "model": f"text-completion-openai/{GIVEN.model}",
    "prompt": GIVEN.prompt,
    "max_tokens": GIVEN.max_tokens,
    "temperature": 0,
}


class Light(BaseModel):
    on: bool
    room: Literal["kitchen", "hall"]


def chat(**more: Any) -> dict[str, Any]:
    completion = litellm.completion(**GREEDY | more)
    return answer(completion.choices[0].message.content, completion.choices[0].finish_reason, completion.usage)


def call(**more: Any) -> Any:
    def ask(seed: int) -> Any:
        choice = litellm.completion(**TOOLS | more, seed=seed).choices[0]
        return called(choice.message, choice.finish_reason)

    return by_seed(ask)


@probe
def whole() -> Any:
    return chat()


@probe
def streamed() -> Any:
    return gathered(litellm.completion(**GREEDY, **STREAM))


@probe
def whole_async() -> Any:
    completion = awaited(litellm.acompletion(**GREEDY))
    return answer(completion.choices[0].message.content, completion.choices[0].finish_reason, completion.usage)


@probe
def streamed_async() -> Any:
    async def chunks() -> list[Any]:
        return [chunk async for chunk in await litellm.acompletion(**GREEDY, **STREAM)]

    return gathered(awaited(chunks()))


@probe
def several() -> Any:
    completion = litellm.completion(**CHAT, temperature=1, n=2, seed=7)
    return [choice.message.content for choice in completion.choices]


@probe
def stop() -> Any:
    return cut(lambda more: chat(**more))


@probe
def seed() -> Any:
    return [chat(temperature=1, seed=seed)["text"] for seed in (11, 11, 12)]


@probe
def logprob() -> Any:
    return logprobs(litellm.completion(**GREEDY, logprobs=True, top_logprobs=2).choices[0].logprobs.content)


@probe
def tool_required() -> Any:
    return call(tool_choice="required")


@probe
def tool_named_as_any() -> Any:
    """The client itself says `tool_calls` of any answer with a call."""
    return call(tool_choice=NAMED)


@probe
def tool_streamed() -> Any:
    def ask(seed: int) -> Any:
        return streamed_calls(litellm.completion(**TOOLS, tool_choice="required", seed=seed, stream=True))

    return by_seed(ask)


@probe
def structured() -> Any:
    def ask(seed: int) -> Any:
        said = chat(**FORMED, response_format=Light, seed=seed)
        return None if said["reason"] == "length" else json.loads(said["text"])

    return by_seed(ask)


@probe
def completion() -> Any:
    completion = litellm.text_completion(**TEXT)
    return answer(completion.choices[0].text, completion.choices[0].finish_reason, completion.usage)


@probe
def completion_text_streamed() -> Any:
    chunks = litellm.text_completion(**TEXT, stream=True)
    return "".join(choice.text or "" for chunk in chunks for choice in chunk.choices)


@probe
def presence_penalty() -> Any:
    return chat(presence_penalty=0.5)


@probe
def unknown_model() -> Any:
    return chat(model="openai/nope")


@probe
def temperature_3() -> Any:
    return chat(temperature=3)


@probe
def temperature_3_streamed() -> Any:
    return gathered(litellm.completion(**GREEDY | {"temperature": 3}, **STREAM))


@probe
def too_long() -> Any:
    return chat(messages=[{"role": "user", "content": GIVEN.too_long}])


@probe
def embeddings() -> Any:
    return litellm.embedding(**SETTINGS, model=f"openai/{GIVEN.model}", input=["hello"]).model_dump()


main()
