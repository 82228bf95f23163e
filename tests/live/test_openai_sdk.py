"""OpenAI's client in front of real engines gets what the engines say when they are asked directly."""

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import openai
import pytest

from tests.live.direct import JSON, Answer, Engine

pytestmark = [pytest.mark.live, pytest.mark.timeout(60, func_only=True)]

GREEDY: JSON = {"model": "live", "temperature": 0}
SAMPLED: JSON = {"model": "live", "temperature": 1}


def user(content: str) -> JSON:
    return {"role": "user", "content": content}


HELLO: list[Any] = [user("hello")]
CHATS: dict[str, JSON] = {
    "a word": {"messages": HELLO, "max_tokens": 40},
    "one token": {"messages": HELLO, "max_tokens": 1},
    "not ASCII": {"messages": [user("Ünïcödé 你好 🚂")], "max_tokens": 60},
    "a system prompt": {"messages": [{"role": "system", "content": "Be brief."}, user("1, 2, 3")], "max_tokens": 40},
    "a history": {"messages": [*HELLO, {"role": "assistant", "content": "Hi!"}, user("import os")], "max_tokens": 40},
    "a long answer": {"messages": [user("The capital of France is")], "max_tokens": 400},
    "to the end of the context": {"messages": [user("hello " * 250)]},
}
PROMPTS: dict[str, JSON] = {
    "a word": {"prompt": "hello", "max_tokens": 40},
    "code": {"prompt": "import os\n\ndef main():\n", "max_tokens": 100},
    "not ASCII": {"prompt": "Ünïcödé 你好 🚂", "max_tokens": 60},
    "one token": {"prompt": "The capital of France is", "max_tokens": 1},
}
chats = pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
prompts = pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)


def answer(choice: Any, usage: Any) -> Answer:
    """A whole answer of the client's, to compare with the engine's own."""
    text = choice.message.content if hasattr(choice, "message") else choice.text
    return Answer(text, choice.finish_reason, usage.prompt_tokens, usage.completion_tokens)


def gathered(chunks: Iterable[Any]) -> list[Answer]:
    """The choices of a stream that asked for usage, put together, in the order of their index."""
    texts: dict[int, str] = defaultdict(str)
    reasons: dict[int, str] = {}
    usage = None
    for chunk in chunks:
        assert usage is None, "a chunk after the one with the usage"
        usage = chunk.usage
        for choice in chunk.choices:
            assert choice.index not in reasons, "a chunk after the choice was finished"
            texts[choice.index] += (choice.delta.content or "") if hasattr(choice, "delta") else choice.text
            if choice.finish_reason:
                reasons[choice.index] = choice.finish_reason
    assert usage is not None
    return [Answer(texts[i], reasons[i], usage.prompt_tokens, usage.completion_tokens) for i in sorted(reasons)]


USAGE: JSON = {"stream": True, "stream_options": {"include_usage": True}}


@chats
def test_whole_chat(client: openai.OpenAI, engine: Engine, chat: JSON) -> None:
    """A whole chat's text, finish reason and usage are the engine's own."""
    completion = client.chat.completions.create(**GREEDY, **chat)
    assert answer(completion.choices[0], completion.usage) == engine.chat(**chat, temperature=0)
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "live"
    assert (completion.system_fingerprint or "").startswith("fp_")


@chats
def test_streamed_chat(client: openai.OpenAI, engine: Engine, chat: JSON) -> None:
    """A streamed chat adds up to the engine's own whole answer."""
    assert gathered(client.chat.completions.create(**GREEDY, **chat, **USAGE)) == [engine.chat(**chat, temperature=0)]


async def test_asynchronous_chat(async_client: openai.AsyncOpenAI, engine: Engine) -> None:
    """The asynchronous client gets the same, whole and streamed."""
    chat = CHATS["a word"]
    completion = await async_client.chat.completions.create(**GREEDY, **chat)
    stream: Any = await async_client.chat.completions.create(**GREEDY, **chat, **USAGE)
    expected = engine.chat(**chat, temperature=0)
    assert answer(completion.choices[0], completion.usage) == expected
    assert gathered([chunk async for chunk in stream]) == [expected]


@prompts
def test_whole_completion(client: openai.OpenAI, engine: Engine, prompt: JSON) -> None:
    """A whole completion's text, finish reason and usage are the engine's own."""
    completion = client.completions.create(**GREEDY, **prompt)
    assert answer(completion.choices[0], completion.usage) == engine.complete(**prompt, temperature=0)
    assert completion.id.startswith("cmpl-")
    assert completion.model == "live"


@prompts
def test_streamed_completion(client: openai.OpenAI, engine: Engine, prompt: JSON) -> None:
    """A streamed completion adds up to the engine's own whole answer."""
    expected = engine.complete(**prompt, temperature=0)
    assert gathered(client.completions.create(**GREEDY, **prompt, **USAGE)) == [expected]


async def test_asynchronous_completion(async_client: openai.AsyncOpenAI, engine: Engine) -> None:
    """The asynchronous client gets the same, whole and streamed."""
    prompt = PROMPTS["code"]
    completion = await async_client.completions.create(**GREEDY, **prompt)
    stream: Any = await async_client.completions.create(**GREEDY, **prompt, **USAGE)
    expected = engine.complete(**prompt, temperature=0)
    assert answer(completion.choices[0], completion.usage) == expected
    assert gathered([chunk async for chunk in stream]) == [expected]


def test_max_completion_tokens(client: openai.OpenAI, engine: Engine) -> None:
    """The limit's newer name means the same as the old one."""
    completion = client.chat.completions.create(**GREEDY, messages=HELLO, max_completion_tokens=7)
    assert answer(completion.choices[0], completion.usage) == engine.chat(HELLO, max_tokens=7, temperature=0)


def test_limit_beyond_the_context(client: openai.OpenAI, engine: Engine) -> None:
    """A limit that the context has no room for is the room there is, not an error."""
    chat = CHATS["to the end of the context"]
    completion = client.chat.completions.create(**GREEDY, **chat, max_tokens=900)
    assert answer(completion.choices[0], completion.usage) == engine.chat(**chat, temperature=0)


def test_completion_without_a_limit(client: openai.OpenAI, engine: Engine) -> None:
    """A completion without max_tokens has 16, as OpenAI's."""
    completion = client.completions.create(**GREEDY, prompt="hello")
    assert answer(completion.choices[0], completion.usage) == engine.complete("hello", max_tokens=16, temperature=0)


def test_list_of_prompts(client: openai.OpenAI, engine: Engine) -> None:
    """A list of prompts brings a choice for each, in their order, whole and streamed, and the sum of their usage."""
    wanted = ["hello", "import os", "1, 2, 3"]
    expected = [engine.complete(prompt, max_tokens=20, temperature=0) for prompt in wanted]
    completion = client.completions.create(**GREEDY, prompt=wanted, max_tokens=20)
    streamed = gathered(client.completions.create(**GREEDY, prompt=wanted, max_tokens=20, **USAGE))
    assert [choice.index for choice in completion.choices] == [0, 1, 2]
    for choices in ([answer(choice, completion.usage) for choice in completion.choices], streamed):
        assert [choice.text for choice in choices] == [one.text for one in expected]
        assert {choice.prompt_tokens for choice in choices} == {sum(one.prompt_tokens for one in expected)}
        assert {choice.completion_tokens for choice in choices} == {60}


def test_echo(client: openai.OpenAI, engine: Engine) -> None:
    """`echo` puts the prompt before the text, whole and streamed."""
    prompt = PROMPTS["not ASCII"]
    expected = prompt["prompt"] + engine.complete(**prompt, temperature=0).text
    assert client.completions.create(**GREEDY, **prompt, echo=True).choices[0].text == expected
    assert gathered(client.completions.create(**GREEDY, **prompt, echo=True, **USAGE))[0].text == expected


@pytest.mark.parametrize("many", [False, True], ids=["a string", "a list"])
def test_stop_in_a_chat(client: openai.OpenAI, engine: Engine, many: bool) -> None:
    """The text ends before the first stop, even one that begins and ends inside tokens, whole and streamed."""
    chat = CHATS["a long answer"]
    text = engine.chat(**chat, temperature=0).text
    stop: Any = [text[60:64], "not to be found", text[50:54]] if many else text[50:54]
    expected = text[: min(text.index(one) for one in (stop if many else [stop]) if one in text)]
    completion = client.chat.completions.create(**GREEDY, **chat, stop=stop)
    streamed = gathered(client.chat.completions.create(**GREEDY, **chat, stop=stop, **USAGE))
    for one in (answer(completion.choices[0], completion.usage), *streamed):
        assert (one.text, one.finish_reason) == (expected, "stop")


def test_stop_in_a_completion(client: openai.OpenAI, engine: Engine) -> None:
    """The same for completions."""
    prompt = PROMPTS["code"]
    text = engine.complete(**prompt, temperature=0).text
    stop = text[40:43]
    completion = client.completions.create(**GREEDY, **prompt, stop=stop)
    streamed = gathered(client.completions.create(**GREEDY, **prompt, stop=stop, **USAGE))
    for one in (answer(completion.choices[0], completion.usage), *streamed):
        assert (one.text, one.finish_reason) == (text[: text.index(stop)], "stop")


def test_seed(client: openai.OpenAI) -> None:
    """The same seed brings the same text, whole and streamed; another seed another text."""

    def sampled(seed: int) -> str | None:
        completion = client.chat.completions.create(**SAMPLED, messages=HELLO, max_tokens=20, seed=seed)
        return completion.choices[0].message.content

    first = sampled(11)
    stream = client.chat.completions.create(**SAMPLED, messages=HELLO, max_tokens=20, seed=11, **USAGE)
    assert sampled(11) == first
    assert gathered(stream)[0].text == first
    assert sampled(12) != first


def test_several_choices(client: openai.OpenAI, engine: Engine) -> None:
    """n=2 brings two different choices, the same ones for the same seed, whole and streamed; the prompt counts once."""
    request: JSON = {**SAMPLED, "messages": HELLO, "max_tokens": 20, "n": 2, "seed": 7}
    completion = client.chat.completions.create(**request)
    choices = [answer(choice, completion.usage) for choice in completion.choices]
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert choices[0].text != choices[1].text
    assert choices[0].prompt_tokens == engine.chat(HELLO, max_tokens=1, temperature=0).prompt_tokens
    assert choices[0].completion_tokens > 20
    assert gathered(client.chat.completions.create(**request, **USAGE)) == choices
    again = client.chat.completions.create(**request)
    assert [answer(choice, again.usage) for choice in again.choices] == choices


def test_several_greedy_choices(client: openai.OpenAI, engine: Engine) -> None:
    """n=2 at temperature 0, which vLLM refuses, is the one greedy choice twice, and counts as two."""
    expected = engine.chat(HELLO, max_tokens=20, temperature=0)
    completion = client.chat.completions.create(**GREEDY, messages=HELLO, max_tokens=20, n=2)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert [choice.message.content for choice in completion.choices] == [expected.text] * 2
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 2 * expected.completion_tokens


def test_logprobs_of_a_chat(client: openai.OpenAI, engine: Engine) -> None:
    """Each token has its own logprob, as the engine says it, its bytes, and the best three in their order."""
    request: JSON = {"messages": HELLO, "max_tokens": 20, "logprobs": True, "top_logprobs": 3}
    logprobs = client.chat.completions.create(**GREEDY, **request).choices[0].logprobs
    assert logprobs is not None
    entries = logprobs.content or []
    assert [entry.logprob for entry in entries] == pytest.approx(
        engine.chat(**request, temperature=0).logprobs, abs=1e-3
    )
    for entry in entries:
        assert entry.bytes == list(entry.token.encode())
        assert len(entry.top_logprobs) == 3
        assert all(better.logprob >= worse.logprob for better, worse in pairwise(entry.top_logprobs))
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob)
        assert all(top.bytes == list(top.token.encode()) for top in entry.top_logprobs)
    chunks = list(client.chat.completions.create(**GREEDY, **request, stream=True))
    pieces = [piece.logprobs for chunk in chunks for piece in chunk.choices if piece.logprobs]
    assert [entry for piece in pieces for entry in piece.content or []] == entries


def test_logprobs_of_a_completion(client: openai.OpenAI, engine: Engine) -> None:
    """A completion's logprobs have OpenAI's older form: four lists of one length, and offsets into the text."""
    request: JSON = {"prompt": "hello", "max_tokens": 20, "logprobs": 2}
    choice = client.completions.create(**GREEDY, **request).choices[0]
    logprobs = choice.logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs == pytest.approx(engine.complete(**request, temperature=0).logprobs, abs=1e-3)
    assert len(logprobs.tokens or []) == len(logprobs.top_logprobs or []) == len(logprobs.text_offset or []) == 20
    assert (logprobs.text_offset or [])[0] == 0
    assert all(earlier <= later for earlier, later in pairwise(logprobs.text_offset or []))
    for token, top in zip(logprobs.tokens or [], logprobs.top_logprobs or [], strict=True):
        assert token in top
        assert len(top) <= 3  # the token itself may be one more than was asked for
    chunks = list(client.completions.create(**GREEDY, **request, stream=True))
    pieces = [piece.logprobs for chunk in chunks for piece in chunk.choices if piece.logprobs]
    assert [token for piece in pieces for token in piece.tokens or []] == logprobs.tokens
    assert [value for piece in pieces for value in piece.token_logprobs or []] == pytest.approx(
        logprobs.token_logprobs, abs=1e-3
    )


@chats
def test_twins(twins: list[Engine], gateway: str, chat: JSON) -> None:
    """Both engines say the same to one greedy request, whole and streamed: text, finish reason and usage."""
    answers = []
    for twin in twins:
        pin = {"x-pointsman-engine": twin.name}
        with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none", default_headers=pin) as client:
            completion = client.chat.completions.create(**GREEDY, **chat)
            answers.append(answer(completion.choices[0], completion.usage))
            answers += gathered(client.chat.completions.create(**GREEDY, **chat, **USAGE))
    assert answers == answers[:1] * 4
