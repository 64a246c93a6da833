"""Strict reading of JSON that somebody else wrote, and RFC 8785 writing.

`json.loads` alone takes duplicate keys (the last one wins), NaN, a BOM, UTF-16 and any
depth; each of these lets two readers see two documents in one signature.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

import rfc8785

from attest.errors import FormatError

__all__ = ["MAX_DEPTH", "canonical", "read_json", "read_object", "reject_floats"]

# CPython's C scanner recurses once per level; 64 levels is far beyond any document of
# ours and of the OpenAI API, and far below the recursion limit.
MAX_DEPTH = 64

# A string, consumed whole, possessively and without needing its end: an unterminated
# one would else be rescanned from every quote in it.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SPACE = " \t\n\r"  # RFC 8259 §2
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


# Writes the RFC 8785 form of what `_is_simple` lets pass, at a tenth of the cost.
_ENCODER = json.JSONEncoder(
    ensure_ascii=False,
    check_circular=False,
    allow_nan=False,
    sort_keys=True,
    separators=(",", ":"),
)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise FormatError("JSON: an object has the same key twice")
    return result


def _constant(_: str) -> NoReturn:
    raise FormatError("JSON: NaN and Infinity are not JSON")


def _float(text: str) -> float:
    value = float(text)
    if value - value:  # infinity: the difference is NaN, which is true
        raise FormatError("JSON: a number is too large")
    return value


def _integer(text: str) -> int:
    if len(text) > 64:  # int() of a huge literal is quadratic in its length
        raise FormatError("JSON: an integer has more than 64 digits")
    return int(text)


# Made once: json.loads makes a decoder per call when it is given hooks.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_constant,
    parse_float=_float,
    parse_int=_integer,
)


def _check_depth(data: bytes, max_depth: int) -> None:
    depth = 0
    for bracket in _STRING.sub(b"", data).translate(None, _NO_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > max_depth:
                raise FormatError(f"JSON: nested deeper than {max_depth} levels")
        else:
            depth -= 1


def read_json(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> Any:
    """The value of exactly one JSON text (RFC 8259) in strict UTF-8.

    Lone surrogates written as escapes are accepted, since JSON allows them; the
    canonical form refuses them.

    Raises:
        FormatError: too large, too deep, not UTF-8, a BOM, a duplicate key, NaN or
            Infinity, an integer of more than 64 digits, or not JSON at all. The
            message never quotes the input.
    """
    if len(data) > max_bytes:
        raise FormatError(f"JSON: {len(data)} bytes, at most {max_bytes} are read")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise FormatError("JSON: not UTF-8") from None
    # Fewer opening brackets than levels: no need to tell brackets from text. That is
    # nearly every request and answer. They are counted by taking them out, since
    # replace() looks for a byte with memchr, and count() at each byte in turn.
    few = max_depth + 1
    rest = data.replace(b"[", b"", few).replace(b"{", b"", few)
    if len(data) - len(rest) > max_depth:
        _check_depth(data, max_depth)
    bare = text.strip(_SPACE)
    try:
        value, end = _DECODER.raw_decode(bare)
    except json.JSONDecodeError as error:
        # `from None`: the original error quotes the document.
        raise _syntax_error(text, bare, error.pos) from None
    if end != len(bare):
        raise _syntax_error(text, bare, end)
    return value


def _syntax_error(text: str, bare: str, at: int) -> FormatError:
    if text.startswith("\ufeff"):
        return FormatError("JSON: starts with a byte order mark")
    place = len(text[: text.find(bare) + at].encode())
    return FormatError(f"JSON: syntax error at byte {place}")


def read_object(
    data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH
) -> dict[str, Any]:
    """Like `read_json`, for a text that must be an object.

    Raises:
        FormatError: as `read_json`, or the value is not an object.
    """
    value = read_json(data, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(value, dict):
        raise FormatError("JSON: expected an object")
    return value


def _simple(value: Any) -> bytes:
    return _ENCODER.encode(value).encode()


def canonical(value: Any, *, simple: Callable[[Any], bytes] = _simple) -> bytes:
    """The RFC 8785 form.

    Where there is a float, cost grows fast with size (50 ms for 2,500
    log-probabilities), so this is for small objects only.

    Args:
        value: what `read_json` gives, or the like.
        simple: for a caller that has a faster way to write the form of a value without
            floats, whose keys are ASCII and whose integers are within 2^53. At a lone
            surrogate it must raise UnicodeEncodeError.

    Raises:
        FormatError: an integer beyond 2^53, a lone surrogate, or no JSON type.
    """
    try:
        return simple(value) if _is_simple(value) else rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise FormatError(f"canonical JSON: {type(error).__name__}") from None


def _is_simple(value: Any) -> bool:
    """Whether the standard encoder writes the RFC 8785 form of a value.

    The two differ in floats, in the order of keys that are not ASCII, and in types and
    integers that RFC 8785 refuses.
    """
    items = [value]
    for item in items:  # which grows on the way
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if kind is dict:
            for key in item:
                if type(key) is not str or not key.isascii():
                    return False
            items += item.values()
        elif kind is list:
            items += item
        elif kind is not int or not -(2**53) < item < 2**53:
            return False
    return True


def reject_floats(value: Any) -> None:
    """Refuse a document that holds a float anywhere.

    Signed documents carry scaled integers or decimal strings, since float text is not
    the same in every language.

    Raises:
        FormatError: naming the path of the first float.
    """
    if (path := _first_float(value)) is not None:
        raise FormatError(f"signed JSON: {path} is a float; write it as a string")


def _first_float(value: Any) -> str | None:
    # Paths are made afterwards: nearly every document has no float to name.
    plain = [value]
    while plain:
        item = plain.pop()
        if isinstance(item, dict):
            plain.extend(item.values())
        elif isinstance(item, list):
            plain.extend(item)
        elif isinstance(item, float):
            break
    else:
        return None
    stack: list[tuple[str, Any]] = [("$", value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, float):
            return path
        if isinstance(item, dict):
            stack.extend((f"{path}.{key}", child) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend((f"{path}[{i}]", child) for i, child in enumerate(item))
    return None
