"""A half-open trial decides by how the answer went: a stream that breaks opens the circuit again, on every surface."""

import pytest

from gateway.config import BreakerConfig
from tests.support.clock import Clock
from tests.support.engine_answers import DONE, FAILED, TGI_CHUNK, TGI_FAILED, event
from tests.support.harness import CHAT, STREAM, Script, cuts, head, piece, says, streamed
from tests.support.pairs import Kind, Pair, good, pair

GENERATE = {"inputs": "hi", "parameters": {"max_new_tokens": 4}}
TOKEN = event(
    {
        "index": 1,
        "token": {"id": 5, "text": "x", "logprob": -1.0, "special": False},
        "generated_text": None,
        "details": None,
    }
)
CHOICE = {
    "index": 0,
    "text": "x",
    "finish_reason": None,
    "logprobs": None,
    "token_ids": [5],
    "prompt_token_ids": [1, 2],
}
TEXT = event({"choices": [CHOICE | {"logprobs": {"tokens": ["x"], "token_logprobs": [-1.0], "top_logprobs": [{}]}}]})
TGI_ERROR, VLLM_ERROR = event(TGI_FAILED), event(FAILED)


def breaks(*pieces: bytes) -> Script:
    """Return the script of a stream that is cut behind its last piece."""
    return cuts(head() + b"".join(piece(one) for one in pieces))


# The path, the engine, and how its stream fails.
BROKEN: dict[str, tuple[str, Kind, Script]] = {
    "TGI's, an error at once": ("/generate_stream", "tgi", says(streamed(TGI_ERROR))),
    "TGI's, an error after a token": ("/generate_stream", "tgi", says(streamed(TOKEN, TGI_ERROR))),
    "TGI's, an error in the same read as a token": ("/generate_stream", "tgi", says(streamed(TOKEN + TGI_ERROR))),
    "TGI's, cut after a token": ("/generate_stream", "tgi", breaks(TOKEN)),
    "translated, an error at once": ("/generate_stream", "vllm", says(streamed(VLLM_ERROR, DONE))),
    "translated, an error after a token": ("/generate_stream", "vllm", says(streamed(TEXT, VLLM_ERROR, DONE))),
    "translated, cut after a token": ("/generate_stream", "vllm", breaks(TEXT)),
    "chat, an error at once": ("/v1/chat/completions", "vllm", says(streamed(VLLM_ERROR, DONE))),
    "chat, an error after a token": ("/v1/chat/completions", "vllm", says(streamed(STREAM[1], VLLM_ERROR, DONE))),
    "chat of TGI's, cut after a token": ("/v1/chat/completions", "tgi", breaks(TGI_CHUNK)),
}


async def trial(these: Pair, clock: Clock, path: str) -> bool:
    """Have a request be the first engine's half-open trial; return whether the circuit is closed after it."""
    breaker = these.endpoints[0].breaker
    breaker.record_failure(False, clock.now)
    assert breaker.open_until > clock.now
    clock.now = breaker.open_until
    answer = await these.front.post(GENERATE if path == "/generate_stream" else CHAT | {"stream": True}, path)
    assert answer.status_code == 200
    assert len(these.first.asked) == 1
    return breaker.open_until == 0.0


@pytest.mark.parametrize("name", BROKEN)
async def test_a_trial_whose_stream_breaks_leaves_the_circuit_open(name: str) -> None:
    path, kind, script = BROKEN[name]
    clock, rules = Clock(), BreakerConfig(failures=1, open=10.0)
    async with pair(script, good(kind, True), (kind, kind), clock, breaker=rules) as these:
        assert not await trial(these, clock, path)
        assert these.endpoints[0].breaker.open_until > clock.now


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
async def test_a_trial_whose_stream_is_good_closes_the_circuit(kind: Kind) -> None:
    clock, rules = Clock(), BreakerConfig(failures=1, open=10.0)
    async with pair(good(kind, True), good(kind, True), (kind, kind), clock, breaker=rules) as these:
        assert await trial(these, clock, "/v1/chat/completions")
