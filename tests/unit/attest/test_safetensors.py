"""The strict header reader, with the safetensors library as its oracle."""

import io
import json
import struct

import numpy as np
import pytest
import safetensors
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from attest.errors import FormatError
from attest.safetensors import DTYPE_BITS, MAX_HEADER, TensorSpan, read_header

ONE = '"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}'


def pack(header, data=b""):
    if isinstance(header, dict):
        header = json.dumps(header)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header)) + header + data


def entry(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def read(file):
    return read_header(io.BytesIO(file), size=len(file))


def seen_by_library(file):
    return {
        name: (info["dtype"], tuple(info["shape"]), bytes(info["data"]))
        for name, info in safetensors.deserialize(file)
    }


def seen_by_us(file):
    return {t.name: (t.dtype, t.shape, file[t.start : t.end]) for t in read(file)}


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=6).filter(
    lambda name: name != "__metadata__"
)
arrays = st.builds(
    lambda dtype, shape: np.full(shape, 1, dtype),
    st.sampled_from(
        ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8"],
    ),
    st.lists(st.integers(0, 3), max_size=3).map(tuple),
)


# At least one tensor: of none and empty metadata the library writes broken JSON.
@given(
    st.dictionaries(names, arrays, min_size=1),
    st.dictionaries(names, st.text("ab\n☃")),
)
def test_reads_what_the_library_saves(tensors, metadata):
    file = save(tensors, metadata=metadata)
    assert seen_by_us(file) == seen_by_library(file)
    spans = read(file)
    assert list(spans) == sorted(spans, key=lambda span: (span.start, span.end))


@pytest.mark.parametrize("dtype", sorted(DTYPE_BITS))
def test_dtype(dtype):
    size = 4 * DTYPE_BITS[dtype] // 8
    file = pack({"a": entry(dtype, [2, 2], 0, size)}, bytes(range(size)))
    assert seen_by_us(file) == seen_by_library(file)


def test_dtypes_are_the_library_s():
    with pytest.raises(safetensors.SafetensorError) as caught:
        safetensors.deserialize(pack({"a": entry("?", [], 0, 0)}))
    known = str(caught.value).partition("expected one of")[2].split("`")[1::2]
    assert sorted(known) == sorted(DTYPE_BITS)


def test_scalar_and_empty():
    header = {
        "scalar": entry("F32", [], 0, 4),
        "before": entry("F32", [0, 7], 0, 0),
        "after": entry("I8", [0], 4, 4),
    }
    file = pack(header, b"abcd")
    at = len(file) - 4
    assert read(file) == (
        TensorSpan("before", "F32", (0, 7), at, at),
        TensorSpan("scalar", "F32", (), at, at + 4),
        TensorSpan("after", "I8", (0,), at + 4, at + 4),
    )


@pytest.mark.parametrize("header", ["{}", "{}   ", '{"__metadata__":{}}'])
def test_no_tensors(header):
    assert read(pack(header)) == ()


def test_padding_and_metadata():
    file = pack('{"__metadata__":{"format":"pt"},' + ONE + "}     ", b"xy")
    assert seen_by_us(file) == seen_by_library(file) == {"a": ("U8", (2,), b"xy")}


def test_position_of_the_file_does_not_matter():
    file = io.BytesIO(pack("{" + ONE + "}", b"xy"))
    file.seek(5)
    assert len(read_header(file, size=len(file.getvalue()))) == 1


def test_name_in_a_message_is_short():
    with pytest.raises(FormatError) as caught:
        read(pack({"\n" * 10_000: entry("F33", [], 0, 0)}))
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


BAD_JSON = {
    "not JSON": "{" + ONE,
    "not UTF-8": b'{"\xff":1}',
    "second value": "{}{}",
    "too deep": '{"a":' * 4 + "1" + "}" * 4,
    "metadata twice": '{"__metadata__":{},"__metadata__":{}}',
    "metadata key twice": '{"__metadata__":{"a":"1","a":"1"}}',
    "name twice": "{" + ONE + "," + ONE + "}",
    "field twice": '{"a":{"dtype":"U8","dtype":"U8","shape":[],"data_offsets":[]}}',
}
BAD_LENGTHS = {
    "empty": b"",
    "no length": bytes(7),
    "beyond the file": struct.pack("<Q", 3) + b"{}",
    "beyond 100 MB": struct.pack("<Q", MAX_HEADER + 1),
    "2^64 - 1": b"\xff" * 8 + b"{}",
}
BAD_FRAMES = {
    "no header": "",
    "a list": "[]",
    "byte order mark": b"\xef\xbb\xbf{}",
    "space in front": " {}",
    "newline behind": "{}\n",
    "NUL behind": "{}\0",
}
BAD_METADATA = {
    "null": "null",
    "list": "[]",
    "number": '{"a":1}',
    "half a character": '{"a":"\\ud800"}',
    "key of half a character": '{"\\udfff":"a"}',
}
BAD_TENSORS = {
    "unknown field": (entry("U8", [0], 0, 0) | {"x": 1}, "alone"),
    "field missing": ({"dtype": "U8", "shape": [0]}, "alone"),
    "list": (["U8", [0], [0, 0]], "alone"),
    "null": (None, "alone"),
    "unknown dtype": (entry("F128", [0], 0, 0), "unknown dtype"),
    "dtype in lower case": (entry("u8", [0], 0, 0), "unknown dtype"),
    "dtype is a list": (entry(["U8"], [0], 0, 0), "unknown dtype"),
    "shape is a number": (entry("U8", 0, 0, 0), "the shape must be"),
    "shape is negative": (entry("U8", [-1, -2], 0, 2), "the shape must be"),
    "shape is a bool": (entry("U8", [True], 0, 1), "the shape must be"),
    "shape is a float": (entry("U8", [1.0], 0, 1), "the shape must be"),
    "shape is huge": (entry("U8", [2**53], 0, 2**53), "the shape must be"),
    "65 dimensions": (entry("U8", [1] * 65, 0, 1), "the shape must be"),
    "shape overflows": (entry("U8", [2**32, 2**32], 0, 0), "too large"),
    "overflow behind a zero": (entry("U8", [0, 2**50, 2**50], 0, 0), "too large"),
    "too few bytes": (entry("F32", [2], 0, 4), "does not take 4 bytes"),
    "half a byte": (entry("F4", [3], 0, 2), "does not take 2 bytes"),
    "offsets backwards": (entry("U8", [1], 1, 0), "does not take -1 bytes"),
    "three offsets": (entry("U8", [0], 0, 0) | {"data_offsets": [0] * 3}, "two sizes"),
    "offsets in an object": (
        entry("U8", [0], 0, 0) | {"data_offsets": {}},
        "two sizes",
    ),
    "negative offset": (entry("U8", [1], -1, 0), "two sizes"),
}
BAD_COVERS = {
    "hole in front": ([(1, 2)], 2, "leaves a hole"),
    "hole between": ([(0, 1), (2, 3)], 3, "leaves a hole"),
    "overlap": ([(0, 2), (1, 3)], 3, "overlaps"),
    "same span twice": ([(0, 1), (0, 1)], 1, "overlaps"),
    "empty tensor inside another": ([(0, 2), (1, 1)], 2, "overlaps"),
    "trailing byte": ([(0, 2)], 3, "the tensors end at"),
    "trailing byte behind nothing": ([], 1, "the tensors end at"),
    "byte missing": ([(0, 2)], 1, "the tensors end at"),
}


@pytest.mark.parametrize("header", BAD_JSON.values(), ids=BAD_JSON)
def test_bad_json(header):
    with pytest.raises(FormatError, match="JSON: "):
        read(pack(header, b"xy"))


@pytest.mark.parametrize("file", BAD_LENGTHS.values(), ids=BAD_LENGTHS)
def test_bad_length(file):
    with pytest.raises(FormatError, match="header of"):
        read(file)


@pytest.mark.parametrize("header", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_bad_frame(header):
    with pytest.raises(FormatError, match="not an object, padded by spaces"):
        read(pack(header))


@pytest.mark.parametrize("metadata", BAD_METADATA.values(), ids=BAD_METADATA)
def test_bad_metadata(metadata):
    with pytest.raises(FormatError, match="__metadata__ must"):
        read(pack('{"__metadata__":' + metadata + "}"))


@pytest.mark.parametrize(("tensor", "reason"), BAD_TENSORS.values(), ids=BAD_TENSORS)
def test_bad_tensor(tensor, reason):
    with pytest.raises(FormatError, match=reason):
        read(pack({"a": tensor}, bytes(4)))


@pytest.mark.parametrize(
    ("spans", "size", "reason"), BAD_COVERS.values(), ids=BAD_COVERS
)
def test_bad_cover(spans, size, reason):
    header = {str(i): entry("U8", [b - a], a, b) for i, (a, b) in enumerate(spans)}
    with pytest.raises(FormatError, match=reason):
        read(pack(header, bytes(size)))


def test_name_of_half_a_character():
    with pytest.raises(FormatError, match="lone surrogate"):
        read(pack({"\ud800": entry("U8", [0], 0, 0)}))


def test_file_shorter_than_said():
    file = pack("{" + ONE + "}", b"xy")
    with pytest.raises(FormatError, match="ends inside its header"):
        read_header(io.BytesIO(file[:20]), size=len(file))


@given(st.binary(max_size=200))
def test_any_bytes(file):
    with pytest.raises(FormatError):
        read(file)


values = st.one_of(
    st.integers(-2, 9),
    st.sampled_from([None, True, 1.5, 2**53, 2**64, "", "U8", "F4", [], {}]),
    st.lists(st.integers(-1, 5), max_size=3),
)
entries = st.one_of(
    st.builds(
        entry,
        st.sampled_from(["U8", "F4", "F16", "U9"]),
        st.lists(st.integers(0, 3), max_size=2),
        st.integers(0, 4),
        st.integers(0, 6),
    ),
    st.dictionaries(st.sampled_from(["dtype", "shape", "data_offsets", "x"]), values),
    values,
)


@given(
    st.dictionaries(st.sampled_from(["a", "b", "", "__metadata__"]), entries),
    st.sampled_from(["", " ", "\n", "\0"]),
    st.integers(0, 6).map(bytes),
)
def test_accepts_only_what_the_library_accepts(header, padding, data):
    file = pack(json.dumps(header) + padding, data)
    try:
        found = seen_by_us(file)
    except FormatError:
        return
    assert found == seen_by_library(file)


@given(st.data())
def test_mutated_file(data):
    file = bytearray(
        save({"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int8)})
    )
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(file) - 1))
        file[at] = data.draw(st.integers(0, 255))
    try:
        found = seen_by_us(bytes(file))
    except FormatError:
        return
    assert found == seen_by_library(bytes(file))
