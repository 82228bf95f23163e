# mypy: disable-error-code="import-not-found, misc, no-any-return, untyped-decorator"
"""Anthropic's client: messages, whole and streamed, and how many tokens they have."""

from typing import Any

import anthropic
from probe import GIVEN, answer, awaited, main, probe

SETTINGS: dict[str, Any] = {
    "base_url": GIVEN.url,
    "api_key": "none",
    "max_retries": 0,
    "default_headers": {"x-pointsman-engine": GIVEN.engine},
}
CLIENT = anthropic.Anthropic(**SETTINGS)
SYSTEM, *MESSAGES = GIVEN.messages
SAID: dict[str, Any] = {"model": GIVEN.model, "system": SYSTEM["content"], "messages": MESSAGES}
REQUEST: dict[str, Any] = SAID | {"max_tokens": GIVEN.max_tokens, "extra_body": {"temperature": 0}}
REASONS = {"max_tokens": "length", "end_turn": "stop"}


class Usage:
    """Anthropic's counts by the names that all clients here use."""

    def __init__(self, counted: Any) -> None:
        self.prompt_tokens = counted.input_tokens
        self.completion_tokens = counted.output_tokens


def told(message: Any) -> dict[str, Any]:
    assert message.model == GIVEN.model
    text = "".join(part.text for part in message.content if part.type == "text")
    return answer(text, REASONS.get(message.stop_reason, message.stop_reason), Usage(message.usage))


@probe
def message() -> Any:
    return told(CLIENT.messages.create(**REQUEST))


@probe
def message_streamed() -> Any:
    with CLIENT.messages.stream(**REQUEST) as stream:
        text = "".join(stream.text_stream)
        said = told(stream.get_final_message())
    assert said["text"] == text
    return said


@probe
def message_async() -> Any:
    async def ask() -> Any:
        async with anthropic.AsyncAnthropic(**SETTINGS) as client, client.messages.stream(**REQUEST) as stream:
            return await stream.get_final_message()

    return told(awaited(ask()))


@probe
def message_counted() -> Any:
    return CLIENT.messages.count_tokens(**SAID).input_tokens


@probe
def unknown_model() -> Any:
    return told(CLIENT.messages.create(**REQUEST | {"model": "nope"}))


main()
