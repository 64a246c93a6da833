import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from attest import _recurring
from attest._recurring import RecurringReader
from attest.canonical import read_object
from attest.errors import FormatError
from attest.sse import EventSplitter

VECTORS = Path(__file__).parents[2] / "vectors"
STREAMS = sorted(VECTORS.glob("*/*.sse"))
MAX = 2000


def ordinary(data):
    try:
        return read_object(data, max_bytes=MAX)
    except FormatError as error:
        return str(error)


def recurring(texts):
    """What the reader makes of these texts in a row."""
    reader, found = RecurringReader(max_bytes=MAX), []
    for data in texts:
        try:
            found.append(reader.read(data))
        except FormatError as error:
            found.append(str(error))
    return found


def same(texts):
    # As text, since 1, 1.0 and true are equal, and the order of keys is a difference.
    return repr(recurring(texts)) == repr([ordinary(data) for data in texts])


def event(content, **members):
    choice = {"index": 0, "delta": {"content": content}, "logprobs": None}
    return json.dumps({"id": "x", "choices": [choice], **members}).encode()


@pytest.fixture
def parsed(monkeypatch):
    """The texts that were read in the ordinary way."""
    texts = []

    def read(data, *, max_bytes):
        texts.append(data)
        return read_object(data, max_bytes=max_bytes)

    monkeypatch.setattr(_recurring, "read_object", read)
    return texts


def test_only_the_first_texts_are_parsed(parsed):
    texts = [event(f"token {n}") for n in range(50)]
    assert same(texts)
    assert len(parsed) == 3  # two, and the one with the mark


def test_values_are_independent():
    reader = RecurringReader(max_bytes=MAX)
    values = [reader.read(event(text)) for text in "abcd"]
    deltas = [value["choices"][0]["delta"] for value in values]
    deltas[2]["content"] = deltas[2]["more"] = "changed"
    assert deltas[3] == {"content": "d"}
    assert reader.read(event("e"))["choices"][0]["delta"] == {"content": "e"}


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name)
def test_streams_of_engines(path):
    events = EventSplitter().feed(path.read_bytes())
    assert same([event.data for event in events if event.data is not None])


A = b'{"a":"%s","b":"x"}'

HOSTILE = {
    "escape": A % b"\\u0061",
    "escaped quote": A % b'\\"',
    "quote": A % b'y","c":"z',
    "twice the same key": A % b'y","a":"z',
    "backslash at the end": A % b"\\",
    "control character": A % b"\n",
    "NUL": A % b"\0",
    "not UTF-8": A % b"\xff",
    "half a character": A % b"\xe2\x82",
    "surrogate in UTF-8": A % b"\xed\xa0\x80",
    "too large": A % (b"x" * MAX),
    "prefix and suffix overlap": b'{"a":"x"}',
    "only the prefix": b'{"a":"',
    "more behind": A % b"y" + b"{}",
    "space behind": A % b"y" + b" ",
    "nothing": b"",
    "no object": b"[]",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_text_that_imitates_the_form(name):
    assert same([A % b"1", A % b"2", A % b"3", HOSTILE[name], A % b"4"])


FORMS = {
    "key": (b'{"%s":1}', b"ab"),
    "two strings at once": (b'{"a":"%s","b":"%s"}', b"ab"),
    "number": (b'{"a":%s,"b":"x"}', b"12"),
    "number between strings": (b'{"a":"x","b":%s,"c":"x"}', b"12"),
    "inside an escape": (b'{"a":"\\u006%s"}', b"12"),
    "behind an escaped quote": (b'{"a":"\\"%s"}', b"ab"),
    "before an escaped quote": (b'{"a":"%s\\""}', b"ab"),
    "nested": (b'{"a":[{"b":[["%s"]]}]}', b"ab"),
    "empty": (b'{"a":"%s"}', b"a"),
    "same string twice": (b'{"a":"%s","b":{"a":"a"}}', b"ab"),
    "string that looks like JSON": (b'{"a":"{%s}"}', b"ab"),
    "length of a list": (b'{"a":["x"%s]}', b" "),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name):
    form, letters = FORMS[name]
    count = form.count(b"%s")
    texts = [
        form % ((b"%c" % letter * times,) * count)
        for letter in letters
        for times in (0, 1, 2, 3)
    ]
    assert same(texts * 2)


def test_attempts_are_bounded(parsed):
    texts = [b'{"%d":1}' % n for n in range(100)]
    assert same(texts)
    assert len(parsed) <= 100 + 16


PIECES = st.lists(
    st.sampled_from(
        [b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"a", b"1", b'"a":', b"\xc3"]
    ),
    max_size=4,
).map(b"".join)


@settings(max_examples=300)
@given(st.lists(PIECES, min_size=4, max_size=8), PIECES, PIECES)
@example([b"a", b"b", b"c", b"d"], b"", b"")
def test_anything_is_read_as_ever(holes, before, after):
    assert same([b'{"k":"' + before + hole + after + b'"}' for hole in holes])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(VALUES, st.lists(st.text(max_size=4), min_size=3, max_size=6), st.booleans())
def test_any_object_around_the_string(around, texts, plain):
    rows = [{"a": around, "t": text, "z": around} for text in texts]
    assert same([json.dumps(row, ensure_ascii=plain).encode() for row in rows])


def in_a_run(texts):
    """What the reader makes of the last texts as one run, and of their parts."""
    reader = RecurringReader(max_bytes=MAX)
    for data in texts[:3]:
        with suppress(FormatError):
            reader.read(data)
    parts = [reader.text(data) for data in texts[3:]]
    together = reader.run(b"".join(b"data: %s\n\n" % data for data in texts[3:]))
    return together, parts


@settings(max_examples=300)
@given(st.lists(PIECES, min_size=4, max_size=8), PIECES, PIECES)
def test_run_is_read_as_its_texts_are_or_not_at_all(holes, before, after):
    texts = [b'{"k":"' + before + hole + after + b'"}' for hole in holes]
    together, parts = in_a_run(texts)
    if together is not None:
        assert together == "".join(parts)


@pytest.mark.parametrize("name", HOSTILE)
def test_run_with_a_text_that_imitates_the_form_is_not_read_as_one(name):
    texts = [A % b"1", A % b"2", A % b"3", A % b"4", HOSTILE[name], A % b"5"]
    together, parts = in_a_run(texts)
    assert (together is None) == (None in parts)


def test_run_of_the_form_is_read_as_one():
    together, _ = in_a_run([A % str(n).encode() for n in range(20)])
    assert together == "".join(map(str, range(3, 20)))
