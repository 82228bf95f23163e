# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""text-generation, TGI's own client: all of its methods, of both of its classes; `POST /`, and chats.

It asks for the text without the prompt. A chat it sends with null for all that was not given, in the messages too, and
of the answer it wants the fingerprint. Only its streamed chat is left out: version 0.7.0, the last, wants `tool_calls`
in each chunk and reads `[DONE]` as JSON, so it fails on any stream of TGI's.
"""

import json
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from probe import GIVEN, answer, awaited, by_seed, ended, main, probe
from text_generation import AsyncClient, Client
from text_generation.types import Grammar, GrammarType

PIN = {"x-pointsman-engine": GIVEN.engine}
LIMIT = {"max_new_tokens": GIVEN.max_tokens}
CHAT = {"messages": GIVEN.messages, "max_tokens": GIVEN.max_tokens, "temperature": 0}
client = AsyncClient(GIVEN.url, headers=PIN, timeout=60)
blocking = Client(GIVEN.url, headers=PIN, timeout=60)


def generate(prompt: str = GIVEN.prompt, **more: Any) -> Any:
    return awaited(client.generate(prompt, **LIMIT | more))


def stream(prompt: str = GIVEN.prompt, at: AsyncClient = client, **more: Any) -> list[Any]:
    async def collected(events: AsyncIterator[Any]) -> list[Any]:
        return [event async for event in events]

    return awaited(collected(at.generate_stream(prompt, **LIMIT | more)))


def detailed(text: str, details: Any, tokens: list[Any]) -> dict[str, Any]:
    return {
        "text": text,
        "reason": details.finish_reason.value,
        "completion_tokens": details.generated_tokens,
        "tokens": [[token.text, token.logprob] for token in tokens],
    }


def last(events: list[Any]) -> dict[str, Any]:
    return detailed(events[-1].generated_text, events[-1].details, [event.token for event in events])


@probe
def continued_details() -> Any:
    response = generate()
    return detailed(response.generated_text, response.details, response.details.tokens)


@probe
def continued_details_streamed() -> Any:
    return last(stream())


@probe
def continued_at_its_path_streamed() -> Any:
    """The same at /generate_stream. (/generate the client cannot read: it expects the list that `/` gives.)"""
    return last(stream(at=AsyncClient(f"{GIVEN.url}/generate_stream", headers=PIN, timeout=60)))


@probe
def continued_details_blocking() -> Any:
    response = blocking.generate(GIVEN.prompt, **LIMIT)
    return detailed(response.generated_text, response.details, response.details.tokens)


@probe
def continued_details_streamed_blocking() -> Any:
    return last(list(blocking.generate_stream(GIVEN.prompt, **LIMIT)))


@probe
def generated() -> Any:
    return generate(return_full_text=True).generated_text


@probe
def continued_stop() -> Any:
    """A stop that ends where a token ends: TGI leaves it in the text."""
    tokens = [token.text for token in generate().details.tokens]
    response = generate(stop_sequences=["".join(tokens[4:6])])
    return {"tokens": tokens[:6], "text": response.generated_text, "reason": response.details.finish_reason.value}


@probe
def generated_seed() -> Any:
    return [generate(do_sample=True, seed=seed).generated_text for seed in (11, 11, 12)]


@probe
def generated_best_of() -> Any:
    details = generate(do_sample=True, best_of=2).details
    return [details.generated_tokens, [one.generated_tokens for one in details.best_of_sequences]]


@probe
def continued_top() -> Any:
    details = generate(top_n_tokens=2).details
    return [
        [token.text, [top.text for top in tops]] for token, tops in zip(details.tokens, details.top_tokens, strict=True)
    ]


@probe
def continued_truncated() -> Any:
    """The last four tokens of a prompt: the same text as from those alone."""
    return generate(GIVEN.too_long + GIVEN.prompt, truncate=4).generated_text


@probe
def generated_by_grammar() -> Any:
    grammar = Grammar(type=GrammarType.Json, value=GIVEN.schema)

    def ask(seed: int) -> Any:
        response = generate(do_sample=True, seed=seed, max_new_tokens=200, grammar=grammar)
        if response.details.finish_reason.value == "length":
            return None
        return json.loads(response.generated_text)

    return by_seed(ask)


@probe
def generated_five_stops() -> Any:
    return generate(stop_sequences=list("12345")).generated_text


@probe
def generated_five_stops_streamed() -> Any:
    return last(stream(stop_sequences=list("12345")))


@probe
def generated_too_long() -> Any:
    return generate(GIVEN.too_long).generated_text


def chat(**more: Any) -> Any:
    """A whole chat: text, reason and usage."""
    return summed(blocking.chat(**CHAT | more))


def summed(completion: Any) -> Any:
    assert completion.system_fingerprint.startswith("fp_")
    choice = completion.choices[0]
    return answer(choice.message.content, choice.finish_reason, SimpleNamespace(**completion.usage))


def call(tool_choice: str) -> Any:
    """A chat that calls the tool, by the first seed by which it does."""

    def ask(seed: int) -> Any:
        request = CHAT | {"max_tokens": 200, "temperature": 1, "seed": seed}
        choice = blocking.chat(**request, tools=[GIVEN.tool], tool_choice=tool_choice).choices[0]
        made = [(one["function"]["name"], one["function"]["arguments"]) for one in choice.message.tool_calls or []]
        return ended(made, choice.finish_reason)

    return by_seed(ask)


@probe
def whole() -> Any:
    return chat()


@probe
def whole_async() -> Any:
    return summed(awaited(client.chat(**CHAT)))


@probe
def several() -> Any:
    completion = blocking.chat(**CHAT | {"temperature": 1}, n=2, seed=7)
    return [choice.message.content for choice in completion.choices]


@probe
def seed() -> Any:
    return [chat(temperature=1, seed=seed)["text"] for seed in (11, 11, 12)]


@probe
def logprob() -> Any:
    content = blocking.chat(**CHAT, logprobs=True, top_logprobs=2).choices[0].logprobs["content"]
    return [[one["token"], one["logprob"], [top["token"] for top in one["top_logprobs"]]] for one in content]


@probe
def tool_required() -> Any:
    return call("required")


@probe
def tool_named() -> Any:
    """TGI's form of it: the name alone."""
    return call("set_light")


@probe
def presence_penalty() -> Any:
    return chat(presence_penalty=1.0)


@probe
def temperature_3() -> Any:
    return chat(temperature=3)


@probe
def too_long() -> Any:
    return chat(messages=[{"role": "user", "content": GIVEN.too_long}])


main()
