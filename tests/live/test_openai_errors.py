"""What fails, fails as OpenAI's API does: the client raises the class, the parameter and the code it documents."""

from typing import Any

import openai
import pytest

from tests.live.direct import JSON

pytestmark = [pytest.mark.live, pytest.mark.timeout(60, func_only=True)]

HELLO: list[Any] = [{"role": "user", "content": "hello"}]
TOO_LONG = "hello " * 1500
WRONG: list[tuple[str, JSON]] = [
    ("temperature", {"temperature": 3}),
    ("temperature", {"temperature": -1}),
    ("top_p", {"top_p": 2}),
    ("n", {"n": 0}),
    ("max_tokens", {"max_tokens": 0}),
    ("max_tokens", {"max_tokens": 5000}),
    ("presence_penalty", {"presence_penalty": 3}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 30}),
    ("top_logprobs", {"top_logprobs": 2}),
    ("messages", {"messages": []}),
]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("param", "wrong"), WRONG, ids=str)
def test_wrong_parameter(client: openai.OpenAI, param: str, wrong: JSON, stream: bool) -> None:
    """A value outside of its range is a 400 that names the parameter, before a stream begins too."""
    request: JSON = {"model": "live", "messages": HELLO, "max_tokens": 5, "stream": stream} | wrong
    with pytest.raises(openai.BadRequestError) as failure:
        client.chat.completions.create(**request)
    assert (failure.value.param, failure.value.type) == (param, "invalid_request_error")
    assert isinstance(failure.value.body, dict)
    assert failure.value.body["message"]


def test_stream_options_without_a_stream(client: openai.OpenAI) -> None:
    """Options for a stream in a request for a whole answer are a 400 that names them."""
    request: JSON = {"model": "live", "messages": HELLO, "stream_options": {"include_usage": True}}
    with pytest.raises(openai.BadRequestError) as failure:
        client.chat.completions.create(**request)
    assert failure.value.param == "stream_options"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_prompt_too_long(client: openai.OpenAI, stream: bool) -> None:
    """A prompt that the context has no room for is a 400 with the code that clients act on."""
    with pytest.raises(openai.BadRequestError) as chat:
        client.chat.completions.create(model="live", messages=[{"role": "user", "content": TOO_LONG}], stream=stream)
    with pytest.raises(openai.BadRequestError) as completion:
        client.completions.create(model="live", prompt=TOO_LONG, stream=stream)
    assert (chat.value.code, chat.value.param) == ("context_length_exceeded", "messages")
    assert (completion.value.code, completion.value.param) == ("context_length_exceeded", "prompt")


def test_unknown_model(client: openai.OpenAI) -> None:
    """A model that is not served is a 404 with the code model_not_found, wherever it is named."""
    ask: list[Any] = [
        lambda: client.chat.completions.create(model="nope", messages=HELLO),
        lambda: client.completions.create(model="nope", prompt="hello"),
        lambda: client.models.retrieve("nope"),
    ]
    for one in ask:
        with pytest.raises(openai.NotFoundError) as failure:
            one()
        assert failure.value.code == "model_not_found"


def test_models(client: openai.OpenAI) -> None:
    """The one model is listed and retrieved by the name that clients ask for, with its context length."""
    (model,) = client.models.list().data
    assert (model.id, model.object, (model.model_extra or {})["max_model_len"]) == ("live", "model", 1024)
    assert client.models.retrieve("live") == model


def test_embeddings(client: openai.OpenAI) -> None:
    """Embeddings, which neither engine has with this model, fail with an error of OpenAI's form."""
    with pytest.raises(openai.APIStatusError) as failure:
        client.embeddings.create(model="live", input="hello")
    assert failure.value.status_code in {400, 404}
    assert failure.value.type == "invalid_request_error"
    assert isinstance(failure.value.body, dict)
    assert set(failure.value.body) == {"message", "type", "param", "code"}
