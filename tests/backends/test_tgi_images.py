"""Images on TGI: only where the model sees, and there no text may hold a link that TGI would fetch."""

import json
from typing import Any

import pytest

from backends import BACKENDS
from gateway.proxy import parse

TGI = BACKENDS["tgi"]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def chat(content: Any) -> Any:
    return parse.chat(
        json.dumps({"messages": [{"role": "user", "content": content}], "max_tokens": 1}).encode(), "r", 1
    )


def test_an_image_goes_as_a_part_of_its_own_between_texts_joined_as_ever() -> None:
    call = chat([text("a"), text("b"), IMAGE, text("c")])
    assert TGI.unsupported(call) == "messages[0].content"
    assert TGI.unsupported(call, supports_vision=True) is None
    (request,) = TGI.encode(call, "tgi")
    assert json.loads(request.body)["messages"][0]["content"] == [text("a\nb"), IMAGE, text("c")]


@pytest.mark.parametrize("content", ["see ![](http://inside/secret)", [text("![](https://x)"), IMAGE]])
def test_a_text_that_links_to_an_image_is_refused_where_tgi_would_fetch_it(content: Any) -> None:
    assert TGI.unsupported(chat(content), supports_vision=True) == "messages[0].content"


def test_where_the_model_does_not_see_such_a_text_is_a_text() -> None:
    assert TGI.unsupported(chat("see ![](http://inside/secret)")) is None


def test_a_sound_is_refused_in_any_case() -> None:
    assert (
        TGI.unsupported(chat([{"type": "input_audio", "input_audio": {}}]), supports_vision=True)
        == "messages[0].content"
    )


def test_a_completion_that_links_to_an_image_is_refused_where_tgi_would_fetch_it() -> None:
    call = parse.completion(b'{"prompt": "![](http://x)"}', "r", 1)
    assert TGI.unsupported(call, supports_vision=True) == "prompt"
    assert TGI.unsupported(call) is None


@pytest.mark.parametrize(
    ("tag", "supports_vision"), [("image-text-to-text", True), ("text-generation", False), (None, False)]
)
def test_info_says_whether_the_model_sees(tag: str | None, supports_vision: bool) -> None:
    info = {"model_id": "m", "max_total_tokens": 10, "model_pipeline_tag": tag}
    assert TGI.served(json.dumps(info).encode())[0].supports_vision is supports_vision
