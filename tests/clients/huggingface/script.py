# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""huggingface_hub's InferenceClient: chats by OpenAI's API, and `text_generation`, which speaks TGI's own, `POST /`."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from huggingface_hub import AsyncInferenceClient, InferenceClient
from probe import GIVEN, answer, awaited, by_seed, called, cut, gathered, logprobs, main, probe, streamed_calls

SETTINGS: dict[str, Any] = {
    "base_url": GIVEN.url,
    "api_key": "none",
    "headers": {"x-pointsman-engine": GIVEN.engine},
    "timeout": 60,
}
client = InferenceClient(**SETTINGS)
CHAT: dict[str, Any] = {"messages": GIVEN.messages, "model": GIVEN.model, "max_tokens": GIVEN.max_tokens}
GREEDY = CHAT | {"temperature": 0}
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
FORMED = CHAT | {"temperature": 1, "max_tokens": 200}
TOOLS = FORMED | {"tools": [GIVEN.tool]}
TEXT: dict[str, Any] = {"prompt": GIVEN.prompt, "max_new_tokens": GIVEN.max_tokens}


def chat(**more: Any) -> dict[str, Any]:
    completion = client.chat_completion(**GREEDY | more)
    return answer(completion.choices[0].message.content, completion.choices[0].finish_reason, completion.usage)


def call(**more: Any) -> Any:
    def ask(seed: int) -> Any:
        choice = client.chat_completion(**TOOLS | more, seed=seed).choices[0]
        return called(choice.message, choice.finish_reason)

    return by_seed(ask)


def asynchronous(ask: Callable[[AsyncInferenceClient], Awaitable[Any]]) -> Any:
    async def asked() -> Any:
        async with AsyncInferenceClient(**SETTINGS) as async_client:
            return await ask(async_client)

    return awaited(asked())


@probe
def whole() -> Any:
    return chat()


@probe
def whole_by_no_name() -> Any:
    """Without a name the client calls the model `dummy`."""
    completion = client.chat_completion(messages=GIVEN.messages, max_tokens=GIVEN.max_tokens, temperature=0)
    return answer(completion.choices[0].message.content, completion.choices[0].finish_reason, completion.usage)


@probe
def streamed() -> Any:
    return gathered(client.chat_completion(**GREEDY, **STREAM))


@probe
def whole_async() -> Any:
    completion = asynchronous(lambda client: client.chat_completion(**GREEDY))
    return answer(completion.choices[0].message.content, completion.choices[0].finish_reason, completion.usage)


@probe
def streamed_async() -> Any:
    async def chunks(client: AsyncInferenceClient) -> list[Any]:
        return [chunk async for chunk in await client.chat_completion(**GREEDY, **STREAM)]

    return gathered(asynchronous(chunks))


@probe
def several() -> Any:
    completion = client.chat_completion(**CHAT, temperature=1, n=2, seed=7)
    return [choice.message.content for choice in completion.choices]


@probe
def stop() -> Any:
    return cut(lambda more: chat(**more))


@probe
def seed() -> Any:
    return [chat(temperature=1, seed=seed)["text"] for seed in (11, 11, 12)]


@probe
def logprob() -> Any:
    return logprobs(client.chat_completion(**GREEDY, logprobs=True, top_logprobs=2).choices[0].logprobs.content)


@probe
def tool_required() -> Any:
    return call(tool_choice="required")


@probe
def tool_named() -> Any:
    return call(tool_choice={"function": {"name": "set_light"}})


@probe
def tool_streamed() -> Any:
    def ask(seed: int) -> Any:
        return streamed_calls(client.chat_completion(**TOOLS, tool_choice="required", seed=seed, stream=True))

    return by_seed(ask)


@probe
def structured() -> Any:
    """The client sends TGI's own form of this: `json_object` with a `value`."""
    form = {"type": "json_schema", "json_schema": {"name": "light", "strict": True, "schema": GIVEN.schema}}

    def ask(seed: int) -> Any:
        said = chat(**FORMED, response_format=form, seed=seed)
        return None if said["reason"] == "length" else json.loads(said["text"])

    return by_seed(ask)


@probe
def presence_penalty() -> Any:
    return chat(presence_penalty=0.5)


@probe
def unknown_model() -> Any:
    return chat(model="nope")


@probe
def temperature_3() -> Any:
    return chat(temperature=3)


@probe
def temperature_3_streamed() -> Any:
    return gathered(client.chat_completion(**GREEDY | {"temperature": 3}, **STREAM))


@probe
def too_long() -> Any:
    return chat(messages=[{"role": "user", "content": GIVEN.too_long}])


@probe
def endpoint_info() -> Any:
    """Which the client asks for only where it is told that a model's URL is its own kind of endpoint."""
    return sorted(InferenceClient(GIVEN.url, provider="hf-inference", headers=SETTINGS["headers"]).get_endpoint_info())


def detailed(output: Any) -> dict[str, Any]:
    details = output.details
    tokens = [[token.text, token.logprob] for token in details.tokens]
    return {
        "text": output.generated_text,
        "reason": details.finish_reason,
        "completion_tokens": details.generated_tokens,
        "tokens": tokens,
    }


@probe
def generated() -> Any:
    return client.text_generation(**TEXT)


@probe
def generated_streamed() -> Any:
    return "".join(client.text_generation(**TEXT, stream=True))


@probe
def generated_async() -> Any:
    return asynchronous(lambda client: client.text_generation(**TEXT))


@probe
def generated_details() -> Any:
    return detailed(client.text_generation(**TEXT, details=True))


@probe
def generated_details_streamed() -> Any:
    *_, last = tokens = list(client.text_generation(**TEXT, details=True, stream=True))
    return {
        "text": last.generated_text,
        "reason": last.details.finish_reason,
        "completion_tokens": last.details.generated_tokens,
        "prompt_tokens": last.details.input_length,
        "tokens": [[one.token.text, one.token.logprob] for one in tokens],
    }


@probe
def generated_stop() -> Any:
    """A stop that ends where a token ends: TGI leaves it in the text."""
    tokens = [token.text for token in client.text_generation(**TEXT, details=True).details.tokens]
    output = client.text_generation(**TEXT, details=True, stop=["".join(tokens[4:6])])
    return {"tokens": tokens[:6], "text": output.generated_text, "reason": output.details.finish_reason}


@probe
def generated_seed() -> Any:
    return [client.text_generation(**TEXT, do_sample=True, seed=seed) for seed in (11, 11, 12)]


@probe
def generated_by_grammar() -> Any:
    grammar = {"type": "json", "value": GIVEN.schema}

    def ask(seed: int) -> Any:
        sampled = {"do_sample": True, "seed": seed, "details": True, "max_new_tokens": 200, "return_full_text": False}
        output = client.text_generation(**TEXT | sampled, grammar=grammar)
        text = output.generated_text.removeprefix(GIVEN.prompt)
        return None if output.details.finish_reason == "length" else json.loads(text)

    return by_seed(ask)


@probe
def generated_five_stops() -> Any:
    return client.text_generation(**TEXT, stop=list("12345"))


@probe
def generated_five_stops_streamed() -> Any:
    return "".join(client.text_generation(**TEXT, stop=list("12345"), stream=True))


@probe
def generated_too_long() -> Any:
    return client.text_generation(GIVEN.too_long, max_new_tokens=5)


main()
