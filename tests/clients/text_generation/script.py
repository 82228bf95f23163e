# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""text-generation, TGI's own client: `POST /`, whole and streamed. It asks for the text without the prompt.

Its chat is left out: version 0.7.0, the last, fails on the first chunk of any stream of TGI's, and on its errors.
"""

import json
from collections.abc import AsyncIterator
from typing import Any

from probe import GIVEN, awaited, by_seed, main, probe
from text_generation import AsyncClient
from text_generation.types import Grammar, GrammarType

PIN = {"x-pointsman-engine": GIVEN.engine}
LIMIT = {"max_new_tokens": GIVEN.max_tokens}
client = AsyncClient(GIVEN.url, headers=PIN, timeout=60)


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


main()
