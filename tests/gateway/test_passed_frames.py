"""Event streams cut into whole events: however the bytes come, none is lost and none goes out before its end."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.passthrough.frames import Frame, FrameReader, payload, with_payload

STREAMS = {
    "line feeds": b"event: a\ndata: 1\n\n: ping\n\nevent: b\ndata: 2\n\n",
    "carriage returns and line feeds": b"event: a\r\ndata: 1\r\n\r\n: ping\r\n\r\nevent: b\r\ndata: 2\r\n\r\n",
    "carriage returns": b"event: a\rdata: 1\r\r: ping\r\revent: b\rdata: 2\r\r",
    "mixed": b"event: a\r\ndata: 1\n\n: ping\n\r\nevent: b\ndata: 2\r\n\n",
}


def read(reader: FrameReader, pieces: list[bytes]) -> list[Frame]:
    return [frame for piece in pieces for frame in reader.feed(piece)]


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
@given(data=st.data())
def test_however_it_is_split_each_event_comes_whole(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1))))
    pieces = [stream[begin:end] for begin, end in pairwise([0, *cuts, len(stream)])]
    reader = FrameReader()
    frames = read(reader, pieces)
    assert b"".join(frame.data for frame in frames) == stream
    assert reader.end() == b""
    assert [payload(frame.data) for frame in frames if frame.data.strip()] == [b"1", b"", b"2"]
    assert all(frame.whole and frame.last for frame in frames)


def test_what_has_no_end_is_kept_until_the_streams_end() -> None:
    reader = FrameReader()
    assert read(reader, [b"data: 1\n\nevent: b\n", b"data: 2\n"]) == [Frame(b"data: 1\n\n")]
    assert (reader.end(), reader.end()) == (b"event: b\ndata: 2\n", b"")


def test_an_event_beyond_the_limit_goes_out_in_pieces_and_the_next_one_is_whole_again() -> None:
    reader = FrameReader(limit=10)
    pieces = [b"data: 0123", b"456789", b"abc", b"def\n", b"\ndata: 1\n\n"]
    frames = read(reader, pieces)
    assert b"".join(frame.data for frame in frames) == b"".join(pieces)
    assert [frame.last for frame in frames] == [False, False, False, True, True]
    assert frames[-1] == Frame(b"data: 1\n\n")
    assert not any(frame.whole for frame in frames[:-1])


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert read(FrameReader(), [b"\xef\xbb\xbfdata: 1\n\n"]) == [Frame(b"data: 1\n\n")]


@pytest.mark.parametrize(
    ("frame", "data", "other"),
    [
        (b"data: 1\n\n", b"1", b"data: X\n\n"),
        (b"data:1\n\n", b"1", b"data: X\n\n"),
        (b"event: a\r\ndata: 1\r\n\r\n", b"1", b"event: a\r\ndata: X\r\n\r\n"),
        (b"id: 7\ndata: {\ndata: }\nevent: a\n\n", b"{\n}", b"id: 7\nevent: a\ndata: X\n\n"),
        (b": comment\n\n", b"", b": comment\ndata: X\n\n"),
    ],
)
def test_the_data_of_an_event_is_read_and_put(frame: bytes, data: bytes, other: bytes) -> None:
    assert payload(frame) == data
    assert with_payload(frame, b"X") == other
