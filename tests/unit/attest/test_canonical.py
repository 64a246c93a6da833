import json

import pytest
from fakes.canonical import EDGES, VALUES, form, form_of_the_library
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import canonical, read_json, read_object, reject_floats
from attest.errors import FormatError

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    # Beyond 2^53 a float is written as an integer that may not be written again.
    | st.floats(-(2.0**53) + 1, 2.0**53 - 1)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)
    ),
    max_leaves=20,
)


def read(data, **limits):
    raw = data if isinstance(data, bytes) else data.encode()
    return read_json(raw, **{"max_bytes": 10_000, **limits})


@given(JSON)
def test_what_json_writes_is_read_back(value):
    raw = json.dumps(value).encode()
    assert read_json(raw, max_bytes=len(raw)) == value


@given(JSON)
def test_canonical_form_is_read_back_and_stable(value):
    raw = canonical(value)
    assert canonical(read_json(raw, max_bytes=len(raw))) == raw


@given(st.binary(max_size=100))
def test_arbitrary_bytes_are_read_or_refused(data):
    try:
        value = read_json(data, max_bytes=100)
    except FormatError as error:
        assert str(error).startswith("JSON: ")  # noqa: PT017  # both ways are right
    else:
        assert value == json.loads(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('{"a": 1, "a": 1}', "same key twice"),
        ('{"a": 1, "\\u0061": 2}', "same key twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "same key twice"),
        ("NaN", "NaN and Infinity"),
        ("[-Infinity]", "NaN and Infinity"),
        ("1e999", "too large"),
        ("9" * 65, "more than 64 digits"),
        (b"\xef\xbb\xbf1", "byte order mark"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ("1".encode("utf-16"), "not UTF-8"),
        ("", "syntax error"),
        ("1 2", "syntax error"),
        ("{'a': 1}", "syntax error"),
        ("[1,]", "syntax error"),
        ('"a\nb"', "syntax error"),
        ("01", "syntax error"),
        ("/* */ 1", "syntax error"),
    ],
)
def test_refused(data, reason):
    with pytest.raises(FormatError, match=reason):
        read(data)


SPACE = st.text(" \t\n\r\v\f\x00\x85\xa0\u2028\ufeff,1", max_size=3)


@given(SPACE, JSON, SPACE)
def test_what_may_stand_around_a_text_is_what_json_says(before, value, after):
    text = before + json.dumps(value) + after
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(FormatError):
            read(text)
    else:
        assert read(text) == expected


@pytest.mark.parametrize(
    ("text", "place"),
    [(' \n["é", x]', 9), ('"é" x', 4), ("", 0), ("[1", 2), ("[1]]", 3)],
)
def test_place_of_a_syntax_error_is_that_of_its_byte(text, place):
    with pytest.raises(FormatError, match=f"syntax error at byte {place}$"):
        read(text)


def test_message_never_quotes_the_input():
    with pytest.raises(FormatError) as caught:
        read('{"secret": }')
    assert "secret" not in str(caught.value)


def test_size_limit():
    assert read("[1]", max_bytes=3) == [1]
    with pytest.raises(FormatError, match="4 bytes, at most 3"):
        read("[1] ", max_bytes=3)


@pytest.mark.parametrize("kind", ["[]", '{"a":}'])
def test_depth_limit(kind):
    opening, closing = kind[:-1], kind[-1]
    for depth, allowed in ((64, True), (65, False), (5000, False)):
        data = opening * depth + ("1" if kind != "[]" else "") + closing * depth
        if allowed:
            assert read(data, max_bytes=10**5)
        else:
            with pytest.raises(FormatError, match="deeper than 64"):
                read(data, max_bytes=10**5)


def test_depth_counts_lists_and_objects_alike():
    for depth, allowed in ((32, True), (33, False)):
        data = '[{"a":' * depth + "1" + "}]" * depth
        if allowed:
            assert read(data)
        else:
            with pytest.raises(FormatError, match="deeper than 64"):
                read(data)


def test_brackets_side_by_side_and_in_text_have_no_depth():
    flat = [[]] * 100 + ["[" * 100 + '\\"{' * 100]
    assert read(json.dumps(flat)) == flat


def test_lone_surrogate_is_read_and_has_no_canonical_form():
    assert read(r'"\ud800"') == "\ud800"
    with pytest.raises(FormatError):
        canonical("\ud800")


@pytest.mark.parametrize("value", [2**53, -(2**53), {1, 2}, b"x"])
def test_no_canonical_form(value):
    with pytest.raises(FormatError, match="canonical JSON"):
        canonical(value)


def test_object():
    assert read_object(b'{"a":1}', max_bytes=10) == {"a": 1}
    with pytest.raises(FormatError, match="expected an object"):
        read_object(b"[]", max_bytes=10)


def test_floats_are_named_by_path():
    reject_floats({"a": [1, "1.5", None, True]})
    with pytest.raises(FormatError, match=r"\$\.a\[1\]\.b is a float"):
        reject_floats({"a": [1, {"b": 1.0}]})


@given(VALUES)
def test_short_way_writes_what_the_library_writes(value):
    assert form(canonical, value) == form_of_the_library(value)


@pytest.mark.parametrize("value", EDGES)
def test_short_way_at_its_edges(value):
    assert form(canonical, value) == form_of_the_library(value)
