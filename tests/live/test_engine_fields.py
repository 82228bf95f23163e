"""Fields that OpenAI does not have survive both ways to the engine that knows them, and are never lost in silence."""

import openai
import pytest

from tests.live.direct import JSON, Engine

pytestmark = [pytest.mark.live, pytest.mark.timeout(60, func_only=True)]

HELLO = [{"role": "user", "content": "hello"}]


def test_unknown_field(client: openai.OpenAI, engine: Engine) -> None:
    """A field that is not OpenAI's reaches vLLM, whose top_k=1 is greedy; TGI, which would ignore it, is not asked."""
    request: JSON = {"model": "live", "messages": HELLO, "max_tokens": 20, "temperature": 1, "extra_body": {"top_k": 1}}
    if engine.name == "tgi":
        with pytest.raises(openai.BadRequestError) as failure:
            client.chat.completions.create(**request)
        assert failure.value.param == "top_k"
    else:
        text = client.chat.completions.create(**request).choices[0].message.content
        assert text == engine.chat(HELLO, max_tokens=20, temperature=0).text


@pytest.mark.parametrize("engine", ["vllm"], indirect=True)
def test_fields_of_an_answer(client: openai.OpenAI) -> None:
    """What vLLM adds to an answer because it was asked to comes through, whole and streamed."""
    request: JSON = {"model": "live", "messages": HELLO, "max_tokens": 20, "temperature": 0}
    wish: JSON = {"extra_body": {"return_token_ids": True}}
    completion = client.chat.completions.create(**request, **wish)
    tokens = (completion.choices[0].model_extra or {})["token_ids"]
    assert len(tokens) == 20
    assert completion.usage is not None
    assert len((completion.model_extra or {})["prompt_token_ids"]) == completion.usage.prompt_tokens
    chunks = list(client.chat.completions.create(**request, **wish, stream=True))
    pieces = [(choice.model_extra or {}).get("token_ids") or [] for chunk in chunks for choice in chunk.choices]
    assert [token for piece in pieces for token in piece] == tokens
