"""OpenAI's own client for Python on Responses' paths: it raises where something failed, and finds what it has made."""

from typing import Any

import openai
import pytest

from tests.support.harness import Gateway, cuts, head, over, piece, says, streamed, whole
from tests.support.passed import COMPLETED, CREATED, PIECE, event, response


def client_of(front: Gateway) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{front.port}/v1", api_key="none", max_retries=0)


async def kinds(client: openai.AsyncOpenAI) -> list[str]:
    stream = await client.responses.create(model="tiny", input="x", stream=True)
    return [one.type async for one in stream]


async def test_a_stream_that_went_well_is_read_to_its_end() -> None:
    async with over(says(streamed(b": wait\n\n", CREATED, PIECE, COMPLETED))) as (front, _), client_of(front) as client:
        assert await kinds(client) == ["response.created", "response.output_text.delta", "response.completed"]


FAILURES = [
    head() + piece(CREATED + PIECE),
    head() + piece(CREATED + b"event: response.output_text.delta\n"),
    streamed(CREATED, event("error", code="server_error", message="boom", sequence_number=1)),
    streamed(CREATED, b'data: {"error": {"message": "boom", "code": 500}}\n\n'),
]


@pytest.mark.parametrize("said", FAILURES)
async def test_it_raises_where_a_stream_fails_and_hands_out_no_half_answer(said: bytes) -> None:
    async with over(cuts(said)) as (front, _), client_of(front) as client:
        with pytest.raises(openai.APIError):
            await kinds(client)


async def test_a_first_event_that_is_an_error_is_a_status() -> None:
    failed = event("response.failed", response=response(error={"code": "rate_limit_exceeded", "message": "slow"}))
    async with over(says(streamed(failed))) as (front, _), client_of(front) as client:
        with pytest.raises(openai.RateLimitError):
            await kinds(client)


async def test_a_response_is_found_again_and_one_that_is_not_there_is_not() -> None:
    async def script(asked: Any, writer: Any) -> None:
        named = asked.path if asked.method == "GET" or not asked.body else asked.json.get("previous_response_id", "")
        known = "resp_1" in named or named == ""
        error = {"message": "Response with id 'resp_2' not found.", "type": "invalid_request_error", "code": 404}
        writer.write(whole(response()) if known else whole({"error": error}, "404 Not Found"))

    async with over(script) as (front, behind), client_of(front) as client:
        made = await client.responses.create(model="tiny", input="x")
        again = await client.responses.create(model="tiny", input="x", previous_response_id=made.id)
        found = await client.responses.retrieve(made.id)
        assert [again.id, found.id, (await client.responses.cancel(made.id)).id] == [made.id] * 3
        assert behind.asked[1].json["previous_response_id"] == "resp_1"
        for unknown in ("resp_2", "resp_pm_x"):
            with pytest.raises(openai.NotFoundError, match="not found"):
                await client.responses.create(model="tiny", input="x", previous_response_id=unknown)
            with pytest.raises(openai.NotFoundError, match="not found"):
                await client.responses.retrieve(unknown)
