"""Server-sent events: whatever cuts a stream, its events are the same; no event grows without end."""

from __future__ import annotations

import time

import pytest

from backends import sse
from backends.sse import EventReader, EventTooLarge
from tests.support.recorded import load

# A stream and its events. CR and CRLF forms of each are made below.
STREAMS: list[tuple[str, bytes, list[bytes]]] = [
    ("one", b"data: {}\n\n", [b"{}"]),
    ("several", b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: [DONE]\n\n', [b'{"a":1}', b'{"b":2}', b"[DONE]"]),
    ("no space after the colon", b"data:x\n\ndata:  y\n\n", [b"x", b" y"]),
    ("lines of one event joined", b"data: a\ndata: b\n\ndata: c\ndata:\n\n", [b"a\nb", b"c\n"]),
    ("comments", b":\n\ndata: a\n\n: keep-alive\n\n: b\ndata: c\n\n", [b"a", b"c"]),
    ("a colon and data in a comment", b": data: a\n\ndata: b\n\n", [b"b"]),
    ("other fields", b"event: x\ndata: a\nid: 7\nretry: 3\n\nid: 8\n\ndata: b\nevent: y\n\n", [b"a", b"b"]),
    ("a field that begins like data", b"datax: a\n\ndata: b\n\n", [b"b"]),
    ("blank lines between", b"\n\n\ndata: a\n\n\n\ndata: b\n\n\n", [b"a", b"b"]),
    ("empty data", b"data:\n\ndata: \n\n", [b"", b""]),
    ("letters of several bytes", "data: né 漢 🚂\n\n: 漢\n\ndata: é\n\n".encode(), ["né 漢 🚂".encode(), "é".encode()]),
    ("data in the data", b"data: data: a\n\n", [b"data: a"]),
    ("no end", b"data: a\n\ndata: b", [b"a"]),
    ("one line feed at the end", b"data: a\n\ndata: b\n", [b"a"]),
]
LINE_ENDS = {"LF": b"\n", "CRLF": b"\r\n", "CR": b"\r"}


@pytest.mark.parametrize("end", LINE_ENDS)
@pytest.mark.parametrize(("stream", "events"), [case[1:] for case in STREAMS], ids=[case[0] for case in STREAMS])
def test_the_events_are_the_same_however_the_stream_is_cut(stream: bytes, events: list[bytes], end: str) -> None:
    """Whole, in two pieces cut anywhere, in pieces of every size: also inside a line end and a character."""
    stream = stream.replace(b"\n", LINE_ENDS[end])
    assert read([stream]) == events
    for cut in range(len(stream) + 1):
        assert read([stream[:cut], stream[cut:]]) == events, cut
    for size in range(1, len(stream)):
        assert read([stream[at : at + size] for at in range(0, len(stream), size)]) == events, size


def test_line_ends_may_be_mixed() -> None:
    stream = b"data: a\r\n\ndata: b\n\rdata: c\r\r\ndata: d\n\ndata: e\r\n\r\n"
    for cut in range(len(stream)):
        assert read([stream[:cut], stream[cut:]]) == [b"a", b"b", b"c", b"d", b"e"], cut


def test_an_event_comes_with_the_read_that_ends_it() -> None:
    """Not with the next: the last event of a stream has none after it."""
    for end in LINE_ENDS.values():
        reader = EventReader()
        assert reader.feed(b"data: a" + end) == []
        assert reader.feed(end) == [b"a"]


def test_a_line_feed_after_a_carriage_return_ends_no_second_line() -> None:
    assert read([b"data: a\r", b"\ndata: b\r", b"", b"\ndata: c\r", b"\n\r", b"\n"]) == [b"a\nb\nc"]


def test_a_recorded_stream_has_its_events() -> None:
    body = load("vllm/B41_sse_keepalive").response_body
    events = read([body])
    assert len(events) == body.count(b"data: ") == 4
    assert events == read([body[at : at + 1] for at in range(len(body))])
    assert events[-1] == sse.DONE


def test_partial_says_whether_an_event_was_begun() -> None:
    reader = EventReader()
    for data, partial in [(b"", False), (b"da", True), (b"ta: a\n", True), (b"\n", False), (b"data: b\n\nd", True)]:
        reader.feed(data)
        assert reader.partial is partial, data
    reader = EventReader()
    reader.feed(b"data: a\n\n\n")
    assert not reader.partial, "a line end more is no event begun"


def test_an_event_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LIMIT", 100)
    for size in (1, 7, 50, 1000):
        with pytest.raises(EventTooLarge):
            read([b"x" * size] * (102 // size + 1))
    with pytest.raises(EventTooLarge):
        read([b":\r"] * 60)


def test_the_limit_is_an_events_and_not_the_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LIMIT", 100)
    stream = (b"data: " + b"x" * 90 + b"\n\n") * 5
    assert read([stream[at : at + 33] for at in range(0, len(stream), 33)]) == [b"x" * 90] * 5
    assert read([b"data: " + b"x" * 94, b"\n\n"]) == [b"x" * 94], "exactly at the limit"


@pytest.mark.parametrize("end", LINE_ENDS)
def test_a_huge_event_takes_time_in_proportion_to_its_size(end: str) -> None:
    """10 MB in reads of 64 kB, one line or many: if each read joined what came before, seconds would pass."""
    many = (b"data: " + b"y" * 1000 + LINE_ENDS[end]) * 10_000 + LINE_ENDS[end]
    one = b"data: " + b"x" * 10_000_000 + LINE_ENDS[end] * 2
    for stream in (one, many):
        pieces = [stream[at : at + 65536] for at in range(0, len(stream), 65536)]
        began = time.process_time()
        events = read(pieces)
        assert time.process_time() - began < 0.6
        assert len(events) == 1
        assert len(events[0]) >= 10_000_000


def test_thousands_of_tiny_events_come_out_whole_in_one_read_or_byte_by_byte() -> None:
    payloads = [b"%d" % number for number in range(5000)]
    stream = sse.events(payloads)
    assert read([stream]) == payloads
    assert read([stream[at : at + 1] for at in range(len(stream))]) == payloads


def test_what_is_written_is_read() -> None:
    assert sse.event(b"{}") == b"data: {}\n\n"
    assert read([sse.events([b"a", b"b"]), sse.event(sse.DONE)]) == [b"a", b"b", b"[DONE]"]


def read(pieces: list[bytes]) -> list[bytes]:
    reader = EventReader()
    return [payload for piece in pieces for payload in reader.feed(piece)]
