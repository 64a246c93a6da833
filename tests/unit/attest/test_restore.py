import gzip
import json
import zlib

import pytest
from fakes.world import ANSWER, STREAM
from hypothesis import given
from hypothesis import strategies as st

from attest.digests import digest
from attest.restore import MAX_COPY, UNDONE, Attested, restored, unwrapped

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4)
    ),
    max_leaves=8,
)


def attested(body, **changes):
    return Attested(digest(body), len(body), **changes)


def found(copy, body, *, stream=False):
    return restored(copy, attested(body, stream=stream))


def test_the_body_itself():
    assert found(ANSWER, ANSWER) == ()
    assert found(STREAM, STREAM, stream=True) == ()


def test_another_body():
    assert found(ANSWER.replace(b"Paris", b"Milan"), ANSWER) is None
    assert found(STREAM.replace(b"Paris", b"Milan"), STREAM, stream=True) is None


@given(JSON, st.sampled_from([None, 1, 4]), st.booleans())
def test_a_dump_is_found_in_any_other(value, indent, ascii_only):
    """Whatever Python's writer made of it, compact and spaced form are found."""
    body = json.dumps({"v": value}, separators=(",", ":"), ensure_ascii=False).encode()
    copy = json.dumps({"v": value}, indent=indent, ensure_ascii=ascii_only).encode()
    codes = found(copy, body)
    assert set(codes) <= {"content.whitespace", "content.escapes"}
    assert found(body, copy) is not None or indent


def test_numbers_keep_their_spelling():
    body = b'{"a":1.0,"b":1e-7,"c":-0,"d":100000000000000000000000}'
    copy = b'{ "a": 1.0, "b": 1e-7, "c": -0, "d": 100000000000000000000000 }'
    assert found(copy, body) == ("content.whitespace",)
    respelt = json.dumps(json.loads(body)).encode()
    assert found(respelt, body) is None


def test_text_that_looks_like_structure():
    body = b'{"a":"x, y: {\\"z\\": [1,2]}","b":"\\\\"}'
    copy = json.dumps(json.loads(body), indent=3).encode()
    assert found(copy, body) == ("content.whitespace",)


@pytest.mark.parametrize(
    "copy",
    [
        b'{"a":1,"a":2}',
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b'{"a":"\n"}',
        b'{"a":',
        b'"' + b'\\"' * 50_000,
        b"[" * 100_000,
        b"",
        b"\x1f\x8b",
        b"\x1f\x8b" + b"x" * 100,
        gzip.compress(ANSWER)[:-1],
        gzip.compress(ANSWER) + b"x",
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_json_has_no_other_spelling(copy, stream):
    assert found(copy, ANSWER, stream=stream) is None


@given(st.binary(max_size=200), st.booleans())
def test_arbitrary_bytes(data, stream):
    codes = found(data, ANSWER, stream=stream)
    assert codes is None
    assert found(data, data, stream=False) == ()


@given(st.binary(max_size=60))
def test_what_is_found_is_proven_by_the_digest(data):
    """A code is only given where the digest says so: two bodies never pass for one."""
    codes = found(data + b"\n", data)
    assert codes is None or set(codes) <= UNDONE


def test_a_lone_surrogate_is_not_respelt():
    body, copy = b'{"a":"\\ud800"}', b'{"a": "\\ud800"}'
    assert found(copy, body) == ("content.whitespace",)
    assert found(copy, b'{"a":"\\uD800"}') is None


def test_a_bomb_is_not_unpacked():
    packer = zlib.compressobj(9, wbits=31)
    bomb = packer.compress(bytes(65 * 1024 * 1024)) + packer.flush()
    assert len(bomb) < 100_000
    assert unwrapped(bomb) == (bomb, ())


def test_a_large_copy_is_compared_and_no_more():
    body = b'{"a":"' + b"x" * MAX_COPY + b'"}'
    assert found(body, body) == ()
    assert found(body + b"\n", body) is None


def test_an_event_beyond_every_bound():
    copy = b"data: " + b"x" * (9 * 1024 * 1024)
    assert found(copy, STREAM, stream=True) is None


def test_several_changes_at_once():
    copy = b": hello\n\n" + STREAM.removesuffix(b"data: [DONE]\n\n")
    copy = gzip.compress(b"\xef\xbb\xbf" + copy.replace(b"\n", b"\r\n"))
    assert found(copy, STREAM, stream=True) == (
        "content.compressed",
        "content.bom",
        "content.line_endings",
        "content.comments_added",
        "content.done_lost",
    )


def test_a_stream_that_had_other_line_ends():
    crlf = STREAM.replace(b"\n", b"\r\n")
    assert found(STREAM, crlf, stream=True) == ("content.line_endings",)
    assert found(crlf.replace(b"\r\n", b"\r"), crlf, stream=True) == (
        "content.line_endings",
    )


def test_a_request_has_no_known_length():
    without_size = Attested(digest(ANSWER), None)
    assert restored(ANSWER + b"\n", without_size) == ("content.newline",)
    assert restored(ANSWER + b"x", without_size) is None
