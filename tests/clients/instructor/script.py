# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""instructor: a pydantic class as the answer, by each of its modes, through OpenAI's client."""

from typing import Any, Literal

import instructor
import openai
from probe import GIVEN, awaited, by_seed, main, probe
from pydantic import BaseModel

SETTINGS: dict[str, Any] = {
    "base_url": f"{GIVEN.url}/v1",
    "api_key": "none",
    "max_retries": 0,
    "default_headers": {"x-pointsman-engine": GIVEN.engine},
}
REQUEST: dict[str, Any] = {"model": GIVEN.model, "messages": GIVEN.messages, "max_tokens": 200, "max_retries": 0}


class Light(BaseModel):
    """Switch a light."""

    on: bool
    room: Literal["kitchen", "hall"]


def of(mode: instructor.Mode) -> Any:
    return instructor.from_openai(openai.OpenAI(**SETTINGS), mode=mode)


def extracted(mode: instructor.Mode) -> Any:
    client = of(mode)
    return by_seed(lambda seed: client.create(response_model=Light, temperature=1, seed=seed, **REQUEST).model_dump())


@probe
def structured() -> Any:
    return extracted(instructor.Mode.JSON_SCHEMA)


@probe
def structured_by_tool() -> Any:
    return extracted(instructor.Mode.TOOLS_STRICT)


@probe
def structured_async() -> Any:
    async def ask(seed: int) -> Any:
        async with openai.AsyncOpenAI(**SETTINGS) as client:
            patched = instructor.from_openai(client, mode=instructor.Mode.JSON_SCHEMA)
            return await patched.create(response_model=Light, temperature=1, seed=seed, **REQUEST)

    return by_seed(lambda seed: awaited(ask(seed)).model_dump())


@probe
def structured_partial() -> Any:
    """The answer as it grows; the last of the stream is whole."""
    client = of(instructor.Mode.JSON_SCHEMA)

    def ask(seed: int) -> Any:
        *_, last = client.create_partial(response_model=Light, temperature=1, seed=seed, **REQUEST)
        return None if last.room is None else last.model_dump()

    return by_seed(ask)


@probe
def structured_with_usage() -> Any:
    client = of(instructor.Mode.JSON_SCHEMA)

    def ask(seed: int) -> Any:
        light, raw = client.create_with_completion(response_model=Light, temperature=1, seed=seed, **REQUEST)
        assert raw.usage.completion_tokens > 0
        return light.model_dump()

    return by_seed(ask)


@probe
def unknown_model() -> Any:
    return of(instructor.Mode.TOOLS_STRICT).create(response_model=Light, **REQUEST | {"model": "nope"}).model_dump()


@probe
def temperature_3() -> Any:
    return of(instructor.Mode.TOOLS_STRICT).create(response_model=Light, temperature=3, **REQUEST).model_dump()


main()
