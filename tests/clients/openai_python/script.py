# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""OpenAI's client for Python, the synchronous and the asynchronous one."""

import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import openai
from probe import GIVEN, answer, awaited, by_seed, called, cut, gathered, logprobs, main, probe, streamed_calls
from pydantic import BaseModel

SETTINGS: dict[str, Any] = {
    "base_url": f"{GIVEN.url}/v1",
    "api_key": "none",
    "max_retries": 0,
    "default_headers": {"x-pointsman-engine": GIVEN.engine},
}
client = openai.OpenAI(**SETTINGS)

CHAT: dict[str, Any] = {"model": GIVEN.model, "messages": GIVEN.messages, "max_tokens": GIVEN.max_tokens}
GREEDY = CHAT | {"temperature": 0}
TEXT = {"model": GIVEN.model, "prompt": GIVEN.prompt, "max_tokens": GIVEN.max_tokens, "temperature": 0}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
TOOLS = CHAT | {"tools": [GIVEN.tool], "temperature": 1, "max_tokens": 200}
FORMED = CHAT | {"temperature": 1, "max_tokens": 200}
NAMED = {"type": "function", "function": {"name": "set_light"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "light", "strict": True, "schema": GIVEN.schema}}


class Light(BaseModel):
    on: bool
    room: Literal["kitchen", "hall"]


def chat(**more: Any) -> dict[str, Any]:
    completion = client.chat.completions.create(**GREEDY | more)
    return answer(completion.choices[0].message.content, completion.choices[0].finish_reason, completion.usage)


def call(**more: Any) -> Any:
    def ask(seed: int) -> Any:
        choice = client.chat.completions.create(**TOOLS | more, seed=seed).choices[0]
        return called(choice.message, choice.finish_reason)

    return by_seed(ask)


@probe
def models() -> Any:
    assert client.models.retrieve(GIVEN.model).id == GIVEN.model
    return [model.id for model in client.models.list()]


@probe
def whole() -> Any:
    return chat()


@probe
def streamed() -> Any:
    return gathered(client.chat.completions.create(**GREEDY, **STREAM))


def asynchronous(ask: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
    async def asked() -> Any:
        async with openai.AsyncOpenAI(**SETTINGS) as async_client:
            return await ask(async_client)

    return awaited(asked())


@probe
def whole_async() -> Any:
    completion = asynchronous(lambda client: client.chat.completions.create(**GREEDY))
    return answer(completion.choices[0].message.content, completion.choices[0].finish_reason, completion.usage)


@probe
def streamed_async() -> Any:
    async def chunks(client: openai.AsyncOpenAI) -> list[Any]:
        return [chunk async for chunk in await client.chat.completions.create(**GREEDY, **STREAM)]

    return gathered(asynchronous(chunks))


@probe
def several() -> Any:
    completion = client.chat.completions.create(**CHAT, temperature=1, n=2, seed=7)
    return [choice.message.content for choice in completion.choices]


@probe
def stop() -> Any:
    return cut(lambda more: chat(**more))


@probe
def seed() -> Any:
    return [chat(temperature=1, seed=seed)["text"] for seed in (11, 11, 12)]


@probe
def logprob() -> Any:
    completion = client.chat.completions.create(**GREEDY, logprobs=True, top_logprobs=2)
    return logprobs(completion.choices[0].logprobs.content)


@probe
def tool_required() -> Any:
    return call(tool_choice="required")


@probe
def tool_named() -> Any:
    return call(tool_choice=NAMED)


@probe
def tool_streamed() -> Any:
    def ask(seed: int) -> Any:
        return streamed_calls(client.chat.completions.create(**TOOLS, tool_choice="required", seed=seed, stream=True))

    return by_seed(ask)


def parsed(completion: Any) -> Any:
    return completion.choices[0].message.parsed.model_dump()


@probe
def structured() -> Any:
    def ask(seed: int) -> Any:
        return parsed(client.chat.completions.parse(**FORMED, response_format=Light, seed=seed))

    return by_seed(ask)


@probe
def structured_streamed() -> Any:
    """The client's own accumulator, which is stricter than a loop over the chunks."""

    def ask(seed: int) -> Any:
        with client.chat.completions.stream(**FORMED, response_format=Light, seed=seed) as stream:
            return parsed(stream.get_final_completion())

    return by_seed(ask)


@probe
def structured_by_schema() -> Any:
    def ask(seed: int) -> Any:
        said = chat(**FORMED, response_format=SCHEMA, seed=seed)
        return None if said["reason"] == "length" else json.loads(said["text"])

    return by_seed(ask)


@probe
def completion() -> Any:
    completion = client.completions.create(**TEXT)
    return answer(completion.choices[0].text, completion.choices[0].finish_reason, completion.usage)


@probe
def completion_streamed() -> Any:
    return gathered(client.completions.create(**TEXT, **STREAM))


@probe
def presence_penalty() -> Any:
    return chat(presence_penalty=0.5)


@probe
def frequency_penalty() -> Any:
    return chat(frequency_penalty=0.5)


@probe
def logit_bias() -> Any:
    return chat(logit_bias={"100": 5})


@probe
def json_object() -> Any:
    return chat(response_format={"type": "json_object"})


@probe
def unknown_model() -> Any:
    return chat(model="nope")


@probe
def temperature_3() -> Any:
    return chat(temperature=3)


@probe
def temperature_3_streamed() -> Any:
    return gathered(client.chat.completions.create(**GREEDY | {"temperature": 3}, **STREAM))


@probe
def too_long() -> Any:
    return chat(messages=[{"role": "user", "content": GIVEN.too_long}])


@probe
def embeddings() -> Any:
    return client.embeddings.create(model=GIVEN.model, input="hello").model_dump()


main()
