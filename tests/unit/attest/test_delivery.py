import pytest
from fakes.world import STREAM, with_comment
from hypothesis import given
from hypothesis import strategies as st

from attest.delivery import StreamGate, comment, split_stream
from attest.errors import FormatError

MARK = comment("a.b.c~d~")
PIECES = st.lists(
    st.sampled_from(
        [
            MARK,
            comment("x"),
            b"data: 1\n\n",
            b"data: 2\r\n\r\n",
            b"data: [DONE]\n\n",
            b": hello\n\n",
            b"\n",
            b"\r",
            b"data: half",
            b": attestation \n\n",
            b": attestation x\n",
        ]
    ),
    max_size=8,
)


def through(gate, body, size):
    """What the gate lets through at once, and what it keeps."""
    ready = [gate.feed(body[i : i + size]) for i in range(0, len(body), size)]
    return b"".join(ready), *gate.finish()


def test_it_is_a_comment_of_one_line():
    """WHATWG HTML §9.2.6: no reader of events sees it."""
    assert MARK == b": attestation a.b.c~d~\n\n"


def test_the_last_comment_is_taken_out():
    assert split_stream(with_comment(STREAM, "a.b.c~d~")) == (STREAM, "a.b.c~d~")


def test_without_one():
    assert split_stream(STREAM) == (STREAM, None)
    assert split_stream(b"") == (b"", None)


@pytest.mark.parametrize(
    "body",
    [
        b": attestation a b\n\n",
        b": attestation a\r\n\r\n",
        b": attestation a\n",
        b":attestation a\n\n",
        b": Attestation a\n\n",
        b": attestation a\n: more\n\n",
        b": first\n: attestation a\n\n",
        b"data: x\n: attestation a\n\n",
        b"data: : attestation a\n\n",
        b" : attestation a\n\n",
        "\u2028: attestation a\n\n".encode(),
        b": attestation \xc3\xa9\n\n",
    ],
)
def test_what_is_no_attestation_stays(body):
    assert split_stream(body) == (body, None)


def test_an_earlier_one_stays_among_the_covered_bytes():
    body = comment("early") + STREAM
    assert split_stream(with_comment(body, "late")) == (body, "late")


@pytest.mark.parametrize("end", [b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n"])
def test_after_any_line_end(end):
    body = b"data: x" + end
    assert split_stream(body + MARK) == (body, "a.b.c~d~")


@given(PIECES, st.integers(1, 40))
def test_chunks_do_not_matter(pieces, size):
    body = b"".join(pieces)
    whole = split_stream(body)
    for words in ((), (b"[DONE]",)):
        ready, rest, token = through(StreamGate(words), body, size)
        assert (ready + rest, token) == whole


@given(PIECES, st.integers(1, 40))
def test_nothing_is_lost_and_nothing_added(pieces, size):
    body = b"".join(pieces)
    ready, rest, token = through(StreamGate(), body, size)
    mark = b"" if token is None else comment(token)
    assert sorted(ready + rest + mark) == sorted(body)
    if token is None:
        assert ready + rest == body


@given(PIECES, st.integers(1, 40))
def test_neither_attestation_nor_word_comes_through(pieces, size):
    gate = StreamGate([b"[DONE]"])
    ready, _, _ = through(gate, b"".join(pieces), size)
    assert b"[DONE]" not in ready
    assert split_stream(ready) == (ready, None)


@given(st.binary(), st.binary())
def test_arbitrary_bytes(before, after):
    covered, token = split_stream(before + MARK + after)
    assert covered == before + after or token != "a.b.c~d~"


def test_whole_events_come_at_once():
    gate = StreamGate([b"[DONE]"])
    assert gate.feed(b"data: 1\n\ndata:") == b"data: 1\n\n"
    assert gate.feed(b" 2\n\n") == b"data: 2\n\n"
    assert gate.feed(b"data: [DONE]\n\ndata: 3\n\n") == b""
    assert gate.feed(b"data: 4\n\n") == b""
    assert gate.held_bytes == len(b"data: [DONE]\n\ndata: 3\n\ndata: 4\n\n")
    assert gate.finish() == (b"data: [DONE]\n\ndata: 3\n\ndata: 4\n\n", None)


def test_a_comment_after_half_an_event_is_part_of_it():
    body = b'data: {"half' + MARK
    assert split_stream(body) == (body, None)


def test_an_event_that_is_too_long(monkeypatch):
    monkeypatch.setattr("attest.sse.MAX_EVENT", 10)
    with pytest.raises(FormatError):
        split_stream(b"data: 123456789")
