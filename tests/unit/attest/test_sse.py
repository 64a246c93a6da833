import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError
from attest.sse import MAX_EVENT, Event, EventSplitter

LINE_ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
LINES = st.sampled_from(
    [
        b"",
        b"data: a",
        b"data:",
        b"data",
        b"event: e",
        b": c",
        b"id: 1",
        b"x\xe2\x80\xa8y",
    ]
)
STREAMS = st.one_of(
    st.binary(max_size=60),
    st.lists(st.tuples(LINES, LINE_ENDS).map(b"".join), max_size=12).map(b"".join),
    st.lists(st.sampled_from([b"\n", b"\r", b"data: x", b"\xef\xbb\xbf", b":"])).map(
        b"".join
    ),
)


def split(*chunks):
    splitter = EventSplitter()
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.flush()


def cut(data, positions):
    edges = [0, *sorted({min(p, len(data)) for p in positions}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def meaning(events):
    """Names, data and comments; a bare line end carries nothing."""
    parts = [(e.name, e.data, e.comments) for e in events]
    return [part for part in parts if part != (None, None, ())]


def by_the_book(stream):
    """WHATWG HTML §9.2.5 and §9.2.6, written down slowly."""
    text = stream.removeprefix(b"\xef\xbb\xbf")
    lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[:-1]
    events, name, data, comments = [], None, [], []
    for line in lines:
        field, _, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            events.append((name, b"\n".join(data) if data else None, tuple(comments)))
            name, data, comments = None, [], []
        elif not field:
            comments.append(value)
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return [event for event in events if event != (None, None, ())]


@given(STREAMS, st.lists(st.integers(0, 80), max_size=20))
def test_nothing_is_lost_in_any_chunking(stream, positions):
    events, rest = split(*cut(stream, positions))
    assert b"".join(event.raw for event in events) + rest == stream


@given(STREAMS, st.lists(st.integers(0, 80), max_size=20))
def test_meaning_is_the_standards_in_any_chunking(stream, positions):
    assert meaning(split(*cut(stream, positions))[0]) == by_the_book(stream)


@given(STREAMS)
def test_byte_by_byte_equals_whole(stream):
    whole = split(stream)[0]
    single = split(*[bytes([byte]) for byte in stream])[0]
    assert meaning(single) == meaning(whole)


def test_fields():
    event = b"event: a\ndata: 1\ndata:2\nid: 7\nretry: 1\n: note\ndata:  3\n\n"
    assert split(event) == ([Event(event, b"a", b"1\n2\n 3", (b"note",))], b"")


def test_last_event_field_wins():
    assert split(b"event: a\nevent: b\n\n")[0][0].name == b"b"


@pytest.mark.parametrize("line", [b"data:\n\n", b"data\n\n", b"data: \n\n"])
def test_empty_data_is_not_absent(line):
    assert split(line)[0][0].data == b""


@pytest.mark.parametrize(
    "separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"]
)
def test_unicode_line_ends_do_not_end_a_line(separator):
    line = f"data: a{separator}data: b".encode()
    events, _ = split(line + b"\n\n")
    assert [event.data for event in events] == [line[6:]]


def test_cr_and_lf_in_two_chunks_are_one_line_end():
    events, rest = split(b"data: a\r", b"\ndata: b\r", b"\n\r", b"\ndata: c\n\n")
    assert [event.data for event in events] == [b"a\nb", b"c"]
    assert rest == b""


def test_event_is_handed_over_before_the_lf_of_its_blank_line():
    splitter = EventSplitter()
    assert [e.data for e in splitter.feed(b"data: a\r\n\r")] == [b"a"]
    assert splitter.feed(b"\n") == []
    assert splitter.flush() == b"\n"


def test_cr_alone_ends_lines():
    assert [e.data for e in split(b"data: a\r\rdata: b\r\r")[0]] == [b"a", b"b"]


@pytest.mark.parametrize("size", [1, 2, 3, 40])
def test_bom_is_skipped_once(size):
    stream = b"\xef\xbb\xbfdata: a\n\n\xef\xbb\xbfdata: b\n\n"
    events, _ = split(*(stream[i : i + size] for i in range(0, len(stream), size)))
    assert [event.data for event in events] == [b"a", None]
    assert b"".join(event.raw for event in events) == stream


def test_bom_before_a_blank_line():
    events, _ = split(b"\xef\xbb", b"\xbf\r", b"\ndata: a\n\n")
    assert [event.data for event in events] == [None, b"a"]


def test_many_events_in_one_chunk():
    assert [e.data for e in split(b"data: 1\n\ndata: 2\n\n: p\n\ndata")[0]] == [
        b"1",
        b"2",
        None,
    ]


def test_rest_is_what_no_blank_line_ended():
    assert split(b"data: 1\n\ndata: 2\n")[1] == b"data: 2\n"


def test_flush_empties():
    splitter = EventSplitter()
    splitter.feed(b"data")
    assert (splitter.flush(), splitter.flush()) == (b"data", b"")


def test_event_over_the_limit_is_refused():
    splitter = EventSplitter()
    splitter.feed(b"data: " + b"x" * (MAX_EVENT - 6))
    with pytest.raises(FormatError, match="event of over"):
        splitter.feed(b"x")


def test_limit_counts_one_event_not_the_stream():
    half = b"data: " + b"x" * (MAX_EVENT // 2) + b"\n\n"
    assert len(split(half, half, half)[0]) == 3


def test_event_over_the_limit_in_one_chunk_is_refused():
    with pytest.raises(FormatError, match="event of over"):
        split(b"data: 1\n\n" + (b"data: " + b"x" * 1000 + b"\n") * 9000 + b"\n")
