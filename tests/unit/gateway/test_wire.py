from itertools import pairwise

import httptools
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.wire import MAX_FIELDS, MAX_HEAD, ResponseReader, request_head

OK = b"HTTP/1.1 200 OK\r\n"
CODED = b"transfer-encoding: chunked\r\n"
CHUNKED = OK + CODED + b"\r\n"
ONE = b"\r\n1\r\na\r\n0\r\n\r\n"
LENGTH = OK + b"content-length: %d\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"


def read(*pieces):
    """The reader after these pieces, and the body."""
    reader = ResponseReader()
    for piece in pieces:
        reader.feed(piece)
    return reader, b"".join(reader.body)


def result(*pieces):
    """All that a caller can tell, as one value."""
    reader = ResponseReader()
    try:
        for piece in pieces:
            reader.feed(piece)
    except UpstreamError:
        return None
    body = b"".join(reader.body)
    return reader.status, reader.headers, body, reader.head, reader.complete


def chunked(*pieces, trailer=b""):
    framed = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece]
    return CHUNKED + b"".join(framed) + b"0\r\n" + trailer + b"\r\n"


# Requests.


def test_request():
    head = request_head("POST", "/v1/x", "engine", {"a": "b", "c": "\xe9"}, 3)
    assert head == (
        b"POST /v1/x HTTP/1.1\r\nhost: engine\r\na: b\r\nc: \xe9\r\n"
        b"content-length: 3\r\n\r\n"
    )


@pytest.mark.parametrize(
    ("method", "size", "said"),
    [("GET", 0, False), ("POST", 0, True), ("GET", 1, True)],
)
def test_length_is_said_where_a_body_may_be(method, size, said):
    head = request_head(method, "/", "h", {}, size)
    assert (b"content-length: %d" % size in head) == said


@pytest.mark.parametrize("bad", ["a\r\nevil: 1", "a\nevil: 1", "a\revil", "a\0"])
@pytest.mark.parametrize("where", ["target", "host", "name", "value"])
def test_no_part_of_a_request_ends_its_line(bad, where):
    parts = {"target": "/", "host": "h", "name": "n", "value": "v"} | {where: bad}
    fields = {parts["name"]: parts["value"]}
    with pytest.raises(ValueError, match="one line"):
        request_head("GET", parts["target"], parts["host"], fields, 0)


def test_target_with_a_space():
    with pytest.raises(ValueError, match="spaces"):
        request_head("GET", "/a HTTP/1.1", "h", {}, 0)


# Answers.


def test_length():
    reader, body = read(LENGTH % 5 + b"hello")
    assert (reader.status, body, reader.complete, reader.reusable) == (
        200,
        b"hello",
        True,
        True,
    )


def test_chunks():
    reader, body = read(chunked(b"a", b"bc"))
    assert (body, reader.complete, reader.reusable) == (b"abc", True, True)


@pytest.mark.parametrize("status", [204, 304])
def test_status_without_a_body(status):
    reader, body = read(b"HTTP/1.1 %d X\r\n\r\n" % status)
    assert (reader.status, body, reader.complete) == (status, b"", True)


def test_header_fields():
    reader, _ = read(OK + b"A: 1 \r\na:  2\t\r\nX: \xe9\r\ncontent-length: 0\r\n\r\n")
    assert reader.headers == {"a": "2", "x": "\xe9", "content-length": "0"}


def test_early_heads_leave_nothing():
    reader, body = read(EARLY + EARLY + LENGTH % 1 + b"a")
    assert (reader.status, body) == (200, b"a")
    assert reader.headers == {"content-length": "1"}


def test_trailers_are_dropped():
    reader, body = read(chunked(b"a", trailer=b"attestation: x\r\nset-cookie: y\r\n"))
    assert (body, reader.complete) == (b"a", True)
    assert reader.headers == {"transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    "head",
    [
        OK + b"connection: close\r\ncontent-length: 1\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\n",
    ],
)
def test_connection_that_ends(head):
    reader, _ = read(head + b"a")
    assert (reader.complete, reader.reusable) == (True, False)


@pytest.mark.parametrize("after", [b"x", OK, LENGTH % 0, b"\0" * 9])
@pytest.mark.parametrize("cut", [False, True])
def test_bytes_after_the_end_are_nobodys(after, cut):
    answer = LENGTH % 1 + b"a"
    reader, body = read(*((answer, after) if cut else (answer + after,)))
    assert (reader.status, body, reader.complete) == (200, b"a", True)
    assert not reader.reusable


def test_half_an_answer_is_not_complete():
    for whole in (LENGTH % 5 + b"hello", chunked(b"hello")):
        for size in range(len(whole)):
            reader, _ = read(whole[:size])
            assert not reader.complete


BROKEN = {
    "two lengths": OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    "one length twice": OK + b"content-length: 1\r\ncontent-length: 1\r\n\r\na",
    "a list of lengths": OK + b"content-length: 1, 1\r\n\r\na",
    "length, then chunks": OK + b"content-length: 1\r\n" + CODED + ONE,
    "chunks, then a length": OK + CODED + b"content-length: 1\r\n" + ONE,
    "length with a sign": OK + b"content-length: +1\r\n\r\na",
    "length beyond 64 bits": OK + b"content-length: 18446744073709551616\r\n\r\na",
    "no length at all": OK + b"\r\nabc",
    "unknown coding": OK + b"transfer-encoding: xchunked\r\n" + ONE,
    "coding beside chunks": OK + b"transfer-encoding: gzip, chunked\r\n" + ONE,
    "codings in two fields": OK + b"transfer-encoding: gzip\r\n" + CODED + ONE,
    "chunked twice": OK + CODED + CODED + ONE,
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + CODED + ONE,
    "chunk size beyond 64 bits": CHUNKED + b"1" + b"0" * 16 + b"\r\na",
    "chunk size with a sign": CHUNKED + b"+1\r\na\r\n0\r\n\r\n",
    "chunk size in another base": CHUNKED + b"0x1\r\na\r\n0\r\n\r\n",
    "chunk longer than it says": CHUNKED + b"1\r\nab\r\n0\r\n\r\n",
    "chunk that ends in LF": CHUNKED + b"1\na\n0\n\n",
    "folded field": OK + b"a: b\r\n c\r\ncontent-length: 0\r\n\r\n",
    "field that ends in LF": OK + b"a: b\ncontent-length: 0\r\n\r\n",
    "field that ends in CR": OK + b"a: b\rcontent-length: 0\r\n\r\n",
    "space before the colon": OK + b"content-length : 0\r\n\r\n",
    "NUL": OK + b"a: \0\r\ncontent-length: 0\r\n\r\n",
    "another protocol": b"ICY 200 OK\r\ncontent-length: 0\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "switched protocol": b"HTTP/1.1 101 X\r\nupgrade: a\r\n\r\nx",
    "status of two digits": b"HTTP/1.1 099 X\r\ncontent-length: 0\r\n\r\n",
    "TLS": b"\x15\x03\x01\x00\x02\x02F",
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_answer(name):
    data = BROKEN[name]
    with pytest.raises(UpstreamError, match="rules of HTTP") as caught:
        read(data)
    assert caught.value.status == 502
    assert result(*(data[i : i + 1] for i in range(len(data)))) is None


def test_error_quotes_nothing():
    for data in (OK + b"secret\r\n\r\n", b"secret", OK + b"a: b\r\n secret\r\n\r\n"):
        with pytest.raises(UpstreamError) as caught:
            read(data)
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__


def padded(size):
    """A whole answer whose head has this many bytes."""
    head = OK + b"content-length: 0\r\nx: %s\r\n\r\n"
    return head % (b"a" * (size - len(head) + 2))


@pytest.mark.parametrize("early", [b"", EARLY * 100])
@pytest.mark.parametrize("step", [1 << 20, 1000])
def test_size_of_the_head(early, step):
    whole = early + padded(MAX_HEAD - len(early))
    pieces = [whole[i : i + step] for i in range(0, len(whole), step)]
    assert result(*pieces)[0] == 200
    whole = early + padded(MAX_HEAD - len(early) + 1)
    pieces = [whole[i : i + step] for i in range(0, len(whole), step)]
    assert result(*pieces) is None


def test_body_behind_a_head_of_full_size():
    head = padded(MAX_HEAD).replace(b"length: 0", b"length: 2")
    assert result(head + b"ab")[2] == b"ab"


def endless(first, piece, most):
    """How many bytes are taken of an answer that goes on and on."""
    reader, taken = ResponseReader(), len(first)
    with pytest.raises(UpstreamError):  # noqa: PT012  # which of them it is, is open
        reader.feed(first)
        while taken < most:
            reader.feed(piece)
            taken += len(piece)
    return taken


@pytest.mark.parametrize(
    "first",
    [
        OK + b"x: ",
        OK,
        b"HTTP/1.1 200 ",
        CHUNKED + b"1;",
        CHUNKED + b"0\r\nx: ",
    ],
)
def test_what_has_no_end(first):
    piece = b"x: y\r\n" * 99 if first == OK else b"a" * 1000
    assert endless(first, piece, 1 << 20) < 2 * MAX_HEAD


def test_early_heads_without_end():
    assert endless(EARLY, EARLY * 3, 1 << 20) < 2 * MAX_HEAD


def test_many_fields():
    head = OK + b"".join(b"x%d: y\r\n" % i for i in range(MAX_FIELDS - 1))
    assert result(head + b"content-length: 0\r\n\r\n")[0] == 200
    assert result(head + b"y: z\r\ncontent-length: 0\r\n\r\n") is None


def test_many_trailers():
    trailer = b"".join(b"x%d: y\r\n" % i for i in range(MAX_FIELDS))
    assert result(chunked(b"a", trailer=trailer)) is None


def test_nothing_is_read_after_release():
    reader = ResponseReader()
    reader.feed(LENGTH % 0)
    reader.release()
    assert reader.complete


@st.composite
def cut(draw, data):
    """The bytes in any pieces."""
    at = draw(st.lists(st.integers(0, len(data)), max_size=12))
    ends = [0, *sorted(at), len(data)]
    return [data[a:b] for a, b in pairwise(ends) if a < b]


BODIES = st.lists(st.binary(max_size=40), max_size=5)


@given(st.data(), BODIES, st.booleans(), st.sampled_from([b"", EARLY, EARLY * 2]))
def test_answer_does_not_depend_on_how_it_was_cut(data, bodies, by_chunks, early):
    body = b"".join(bodies)
    whole = early + (chunked(*bodies) if by_chunks else LENGTH % len(body) + body)
    expected = result(whole)
    assert expected[2:] == (body, True, True)
    assert result(*data.draw(cut(whole))) == expected


@given(st.data(), st.sampled_from(sorted(BROKEN)))
def test_broken_answer_is_broken_in_any_pieces(data, name):
    assert result(*data.draw(cut(BROKEN[name]))) is None


@given(
    st.data(),
    st.binary(max_size=60) | st.builds(OK.__add__, st.binary(max_size=60)),
)
@example(data=None, garbage=b"HTTP/1.1 200 OK\r\n\r\n")
def test_garbage_gives_the_same_in_any_pieces(data, garbage):
    pieces = [garbage] if data is None else data.draw(cut(garbage))
    assert result(*pieces) == result(garbage)


def test_leniencies_of_the_parser_are_off():
    """What is not checked here relies on them."""
    for dangerous in (b"a : b\r\n", b"a: b\n", b"content-length: 1\r\n" * 2):
        parser = httptools.HttpResponseParser(object())
        with pytest.raises(httptools.HttpParserError):
            parser.feed_data(OK + dangerous + b"\r\n")
