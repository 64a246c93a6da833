"""Strict reading of safetensors headers.

The format: 8 bytes little-endian, the length of the header; the header, a JSON object
that starts with `{` and may be padded with spaces at its end; then the raw bytes of all
tensors without a gap. Two readers of one file must never see two sets of tensors, so
this refuses what the safetensors library (0.8) lets pass: duplicate keys, unknown
fields, a tensor written as a list, other white space around the header.
"""

import math
from dataclasses import dataclass
from typing import Any, BinaryIO

from attest.canonical import read_object
from attest.errors import FormatError

__all__ = ["DTYPE_BITS", "MAX_HEADER", "TensorSpan", "read_header"]

# The library's own limit.
MAX_HEADER = 100_000_000

DTYPE_BITS = {
    "BF16": 16,
    "BOOL": 8,
    "C64": 64,
    "F16": 16,
    "F32": 32,
    "F4": 4,
    "F64": 64,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "F8_E4M3": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2": 8,
    "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "I32": 32,
    "I64": 64,
    "I8": 8,
    "U16": 16,
    "U32": 32,
    "U64": 64,
    "U8": 8,
}

_METADATA = "__metadata__"
_FIELDS = {"dtype", "shape", "data_offsets"}
# numpy and torch stop at 64 dimensions.
_MAX_RANK = 64
# RFC 8785 writes no integer beyond it, and no tensor comes near it.
_MAX_INTEGER = 2**53 - 1


@dataclass(frozen=True, slots=True)
class TensorSpan:
    """Where a tensor's raw bytes lie: [start, end), counted from the file's first byte.

    `shape` counts elements, also for the dtypes that pack two or four into some bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(file: BinaryIO, *, size: int) -> tuple[TensorSpan, ...]:
    """The tensors of a file of `size` bytes, sorted by where they start.

    The spans cover the file from the end of the header to `size`, each byte once. The
    tensors' bytes are not read.

    Raises:
        FormatError: a header cut short, larger than 100 MB or than the file, or not
            strict JSON; a field or dtype that the format does not know; a shape that
            does not give the span's size; a hole, an overlap or trailing bytes.
    """
    file.seek(0)
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(MAX_HEADER, size - 8):
        raise FormatError(
            f"safetensors: header of {length} bytes in a file of {size} bytes "
            f"(at most {MAX_HEADER} are read)"
        )
    header = file.read(length)
    if len(header) < length:
        raise FormatError("safetensors: the file ends inside its header")
    spans = _spans(_parse(header), offset=8 + length)
    _check_cover(spans, start=8 + length, end=size)
    return spans


def _parse(header: bytes) -> dict[str, Any]:
    if not (header.startswith(b"{") and header.rstrip(b" ").endswith(b"}")):
        raise FormatError("safetensors: the header is not an object, padded by spaces")
    tensors = read_object(header, max_bytes=MAX_HEADER, max_depth=3)
    metadata = tensors.pop(_METADATA, {})
    if not isinstance(metadata, dict):
        raise FormatError(f"safetensors: {_METADATA} must be an object")
    for key, value in metadata.items():
        if not (isinstance(value, str) and _has_utf8(key + value)):
            raise FormatError(f"safetensors: {_METADATA} must map strings to strings")
    return tensors


def _spans(tensors: dict[str, Any], *, offset: int) -> tuple[TensorSpan, ...]:
    spans = [_span(name, entry, offset) for name, entry in tensors.items()]
    return tuple(sorted(spans, key=lambda span: (span.start, span.end)))


def _span(name: str, entry: Any, offset: int) -> TensorSpan:
    if not _has_utf8(name):
        raise FormatError("safetensors: a tensor's name has a lone surrogate")
    what = f"safetensors: tensor {name!a:.80}"
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise FormatError(f"{what} must have dtype, shape and data_offsets alone")
    dtype, shape = entry["dtype"], entry["shape"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise FormatError(f"{what} has an unknown dtype")
    if not _are_sizes(shape) or len(shape) > _MAX_RANK:
        raise FormatError(f"{what}: the shape must be up to {_MAX_RANK} sizes")
    if not _are_sizes(entry["data_offsets"]) or len(entry["data_offsets"]) != 2:
        raise FormatError(f"{what}: data_offsets must be two sizes")
    start, end = entry["data_offsets"]
    # Zeros aside, so that [0, 2^50, 2^50] does not hide an overflow from other readers.
    if math.prod(filter(None, shape)) > _MAX_INTEGER:
        raise FormatError(f"{what}: the shape is too large")
    if math.prod(shape) * DTYPE_BITS[dtype] != (end - start) * 8:
        raise FormatError(
            f"{what}: {dtype} of shape {shape} does not take {end - start} bytes"
        )
    return TensorSpan(name, dtype, tuple(shape), offset + start, offset + end)


def _check_cover(spans: tuple[TensorSpan, ...], *, start: int, end: int) -> None:
    at = start
    for span in spans:
        if span.start != at:
            kind = "overlaps the one before it" if span.start < at else "leaves a hole"
            raise FormatError(f"safetensors: tensor {span.name!a:.80} {kind}")
        at = span.end
    if at != end:
        raise FormatError(
            f"safetensors: the tensors end at byte {at}, the file at byte {end}"
        )


def _are_sizes(value: Any) -> bool:
    # `type`, not isinstance: true and false are integers in Python.
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item <= _MAX_INTEGER for item in value
    )


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
