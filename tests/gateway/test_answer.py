"""An engine's answer is read byte by byte as HTTP/1.1 has it, or refused; however the bytes are cut (RFC 9112)."""

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.upstream.answer import MAX_BUFFERED, HttpAnswer, Malformed
from tests.support.answers import (
    ANSWERS,
    CHUNKED,
    OK,
    REFUSED,
    Read,
    Unpaused,
    aiohttps,
    fed,
    goes_on,
    h11s,
    is_stricter,
    ours,
)

at_every_byte = pytest.mark.parametrize("name", ANSWERS)


@at_every_byte
async def test_an_answer_is_read_the_same_wherever_its_bytes_are_cut(name: str) -> None:
    data, status, body, complete, _ = ANSWERS[name]
    for cut in range(len(data) + 1):
        assert await ours(data, [cut]) == (status, body, complete), cut
    assert await ours(data, range(len(data))) == (status, body, complete)


@at_every_byte
async def test_a_connection_is_used_again_after_an_answer_with_an_end_of_its_own(name: str) -> None:
    data, *_, keep_alive = ANSWERS[name]
    assert fed([data]).keep_alive == keep_alive
    assert fed([data[i : i + 1] for i in range(len(data))]).keep_alive == keep_alive


@pytest.mark.parametrize("name", [name for name in ANSWERS if ANSWERS[name][1]])
async def test_h11_reads_them_alike(name: str) -> None:
    data, status, body, complete, _ = ANSWERS[name]
    assert h11s(data) == (status, body, complete)


async def test_headers_of_one_name_are_one_list_and_names_have_one_case() -> None:
    answer = fed([OK + b"A: 1\r\nb: 2\r\na: 3\r\ncontent-length: 0\r\n\r\n"])
    assert answer.headers == {b"a": b"1, 3", b"b": b"2", b"content-length": b"0"}


async def test_an_interim_answers_headers_are_not_the_answers() -> None:
    answer = fed([b"HTTP/1.1 103 E\r\nlink: x\r\n\r\n" + OK + b"a: 1\r\ncontent-length: 0\r\n\r\n"])
    assert answer.headers == {b"a": b"1", b"content-length": b"0"}


@pytest.mark.parametrize("head", [b"content-length: 9\r\n", b"transfer-encoding: chunked\r\n", b""])
async def test_the_answer_to_a_head_has_no_body_and_ends_the_connection(head: bytes) -> None:
    answer = fed([OK + head + b"\r\n"], expects_body=False)
    assert (answer.status, answer.complete, answer.keep_alive) == (200, True, False)


@pytest.mark.parametrize("name", REFUSED)
async def test_what_does_not_follow_http_is_refused_wherever_its_bytes_are_cut(name: str) -> None:
    data = REFUSED[name]
    assert await ours(data) is None
    step = max(1, len(data) // 500)
    assert await ours(data, range(step, len(data), step)) is None
    for cut in range(0, len(data), step):
        assert await ours(data, [cut]) is None, cut


BEHIND = {
    "a second answer": OK + b"content-length: 2\r\n\r\nab" + OK + b"content-length: 1\r\n\r\nx",
    "something else": OK + b"content-length: 2\r\n\r\nab" + b"garbage",
    "more than was said": OK + b"content-length: 2\r\n\r\nabc",
    "an answer behind chunks": CHUNKED + b"1\r\na\r\n0\r\n\r\n" + OK + b"\r\n",
    "a body of a 204": b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\nab",
    "chunks of a 304": b"HTTP/1.1 304 Not Modified\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", BEHIND)
async def test_what_comes_behind_an_answer_is_no_part_of_it_and_is_told(name: str) -> None:
    answer = HttpAnswer(Unpaused(), asyncio.get_running_loop())
    with pytest.raises(Malformed):
        answer.feed(BEHIND[name])
    assert answer.complete
    assert await answer.chunk() in (b"", b"a", b"ab")
    assert await answer.chunk() == b""


# --- against other readers ----------------------------------------------------------------------------------------

names = st.sampled_from([b"content-length", b"transfer-encoding", b"connection", b"content-type", b"x"])
values = st.sampled_from([b"0", b"1", b"2", b"5", b"chunked", b"close", b"keep-alive", b"gzip, chunked", b"", b"a b"])
headers = st.lists(st.tuples(names, values), max_size=4)
bodies = st.lists(st.binary(max_size=6), max_size=4)
statuses = st.sampled_from([b"200 OK", b"204 No Content", b"304 N", b"404 Not Found", b"529", b"100 Continue"])


@st.composite
def wire(draw: st.DrawFn) -> bytes:
    """Return an answer, good or faulty, of which some bytes may be changed, lost, or doubled."""
    given_headers = draw(headers)
    head = b"HTTP/1.1 " + draw(statuses) + b"\r\n"
    head += b"".join(b"%b: %b\r\n" % header for header in given_headers) + b"\r\n"
    pieces = draw(bodies)
    chunked = any(name == b"transfer-encoding" for name, _ in given_headers)
    body = (
        b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in pieces if one) + b"0\r\n\r\n"
        if chunked
        else b"".join(pieces)
    )
    data = bytearray(head + body)
    for place, how, byte in draw(
        st.lists(st.tuples(st.integers(0, 400), st.sampled_from("clr"), st.sampled_from(b"\r\n :;0a\x00")), max_size=2)
    ):
        at = place % (len(data) + 1)
        data[at : at + (how != "r")] = b"" if how == "l" else bytes([byte])
    return bytes(data)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=wire(), cuts=st.lists(st.integers(0, 200), max_size=3))
async def test_where_we_take_an_answer_h11_takes_it_alike(data: bytes, cuts: list[int]) -> None:
    mine, theirs = await ours(data, [cut % (len(data) + 1) for cut in cuts]), h11s(data)
    if mine is None:
        assert theirs is None or not theirs.complete or is_stricter(data)
    elif mine.complete and not data.startswith(b"HTTP/1.1 1"):  # behind which llhttp skips empty lines
        assert theirs == mine
    else:
        assert theirs is None or not theirs.complete


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=wire())
async def test_where_we_take_an_answer_aiohttp_takes_it_alike(data: bytes) -> None:
    mine = await ours(data)
    if mine is not None and mine.complete and not await goes_on(data):
        assert await aiohttps(data) == mine


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.one_of(st.binary(max_size=200), wire()), cuts=st.lists(st.integers(0, 200), max_size=5))
async def test_any_bytes_are_read_or_refused_and_the_same_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    whole = await ours(data)
    assert await ours(data, [cut % (len(data) + 1) for cut in cuts]) == whole
    assert whole is None or isinstance(whole, Read)


# --- waiting, and back-pressure -----------------------------------------------------------------------------------


class Valve:
    """A connection that notes whether it reads."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pause_reading(self) -> None:
        """Note it."""
        self.told.append("pause")

    def resume_reading(self) -> None:
        """Note it."""
        self.told.append("resume")


async def test_all_that_has_come_is_handed_over_at_once() -> None:
    answer = HttpAnswer(Unpaused(), asyncio.get_running_loop())
    answer.feed(CHUNKED + b"1\r\na\r\n1\r\nb\r\n")
    answer.feed(b"1\r\nc\r\n")
    assert await answer.chunk() == b"abc"
    waiting = asyncio.ensure_future(answer.chunk())
    await asyncio.sleep(0)
    answer.feed(b"1\r\nd\r\n0\r\n\r\n")
    assert await waiting == b"d"
    assert await answer.chunk() == b""


async def test_what_nobody_takes_stops_the_reading_until_it_is_taken() -> None:
    valve = Valve()
    answer = HttpAnswer(valve, asyncio.get_running_loop())
    answer.feed(OK + b"content-length: %d\r\n\r\n" % (4 * MAX_BUFFERED))
    answer.feed(b"x" * MAX_BUFFERED)
    assert valve.told == []
    answer.feed(b"x" * MAX_BUFFERED)
    assert valve.told == ["pause"]
    assert len(await answer.chunk()) == 2 * MAX_BUFFERED
    assert valve.told == ["pause", "resume"]


async def test_what_came_before_a_failure_is_read_before_it_is_raised() -> None:
    answer = HttpAnswer(Unpaused(), asyncio.get_running_loop())
    answer.feed(CHUNKED + b"1\r\na\r\n")
    answer.fail(ConnectionError("gone"))
    assert await answer.chunk() == b"a"
    for _ in range(2):
        with pytest.raises(ConnectionError):
            await answer.chunk()


async def test_a_reader_that_was_cancelled_does_not_hold_up_the_next() -> None:
    answer = HttpAnswer(Unpaused(), asyncio.get_running_loop())
    answer.feed(CHUNKED)
    waiting = asyncio.ensure_future(answer.chunk())
    await asyncio.sleep(0)
    waiting.cancel()
    answer.feed(b"1\r\na\r\n")
    assert await answer.chunk() == b"a"
