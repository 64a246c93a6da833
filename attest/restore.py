"""Finding the attested bytes again in a copy that was changed on the way or in keeping.

Only changes that lose nothing can be undone: a signed digest then proves that the copy,
but for that change, is the attested body. What cannot be undone is for
`attest.diagnosis`.

The search is a fixed list of changes, in a fixed order, so that every implementation
finds the same; the codes are those of `attest.reasons`.
"""

import json
import re
import zlib
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from attest.canonical import read_json
from attest.delivery import split_stream
from attest.digests import digest, digests_equal
from attest.errors import FormatError
from attest.sse import EventSplitter

__all__ = ["MAX_COPY", "UNDONE", "Attested", "covered", "restored", "unwrapped"]

# The whole list takes a few seconds on a copy of this size.
MAX_COPY = 1024 * 1024
_MAX_UNPACKED = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_BLANKS = b" \t\r\n"
# Strings, white space, and all else; possessive, so that an open string costs nothing.
_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"|[ \t\r\n]++|[^" \t\r\n]++', re.DOTALL)

_ENDS = (b"data: [DONE]\n\n", b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


class Attested(NamedTuple):
    """What a token says of the bytes; `size` is None where it does not say that."""

    digest: str
    size: int | None
    stream: bool = False

    def is_met_by(self, body: bytes) -> bool:
        """Whether these are the bytes."""
        if self.size is not None and len(body) != self.size:
            return False
        return digests_equal(digest(body), self.digest)


class _Change(NamedTuple):
    """One way to write a body anew; the first value of each is: as it is."""

    endings: str = ""
    comments: str = ""
    spacing: str = ""
    strings: str = ""
    tail: str = ""
    end: bytes = b""

    @property
    def codes(self) -> tuple[str, ...]:
        return tuple(code for code, value in zip(_CODES, self, strict=True) if value)


_CODES = (
    "content.line_endings",
    "content.comments_added",
    "content.whitespace",
    "content.escapes",
    "content.newline",
    "content.done_lost",
)
# Codes of what the search undoes: the attested bytes are then known.
UNDONE = frozenset([*_CODES, "content.compressed", "content.bom"])

_SPELLINGS = (("", "compact", "spaced"), ("", "raw", "ascii"))


def _in_order(*choices: tuple[object, ...]) -> tuple[_Change, ...]:
    """All combinations, those with fewer changes first, then in the order given."""
    changes = [_Change(*values) for values in product(*choices)]  # type: ignore[arg-type]
    return tuple(sorted(changes, key=lambda change: len(change.codes)))


_BODY = _in_order(("",), ("",), *_SPELLINGS, ("", "none", "line"), (b"",))
_STREAM = _in_order(
    ("", "lf", "crlf"), ("", "dropped"), *_SPELLINGS, ("", "blank"), (b"", *_ENDS)
)


def unwrapped(copy: bytes) -> tuple[bytes, tuple[str, ...]]:
    """The copy without gzip around it and without a byte order mark, and their codes.

    More than 64 MiB are not unpacked: the copy is then given back as it is.
    """
    codes = []
    if copy.startswith(b"\x1f\x8b"):
        unpacker = zlib.decompressobj(wbits=31)
        try:
            body = unpacker.decompress(copy, _MAX_UNPACKED)
        except zlib.error:
            return copy, ()
        if not unpacker.eof or unpacker.unused_data:
            return copy, ()
        copy = body
        codes.append("content.compressed")
    if copy.startswith(_BOM):
        copy = copy.removeprefix(_BOM)
        codes.append("content.bom")
    return copy, tuple(codes)


def restored(copy: bytes, attested: Attested) -> tuple[str, ...] | None:
    """The codes of the changes by which the attested bytes became this copy.

    Returns:
        An empty tuple where the copy is the attested body; a stream may have its
        attestation comment or not. None where no change of the list explains it, or the
        copy is larger than 1 MiB.
    """
    if attested.is_met_by(covered(copy, stream=attested.stream)):
        return ()
    body, codes = unwrapped(copy)
    if len(body) > MAX_COPY:
        return None
    written = _stream_forms if attested.stream else _body_forms
    for change, candidate in written(body):
        if attested.is_met_by(candidate):
            return (*codes, *change.codes)
    return None


def covered(body: bytes, *, stream: bool) -> bytes:
    """The bytes that a token covers: of a stream, all but the attestation comment.

    Nobody sends an event of over 8 MiB: such a stream is given back as it is.
    """
    if not stream:
        return body
    try:
        return split_stream(body)[0]
    except FormatError:
        return body


def _body_forms(body: bytes) -> Iterator[tuple[_Change, bytes]]:
    spelt: dict[tuple[str, str], bytes | None] = {}
    for change in _BODY:
        key = change.spacing, change.strings
        if key not in spelt:
            spelt[key] = _spelt(body, change)
        candidate = spelt[key]
        if candidate is not None:
            if change.tail:
                candidate = candidate.rstrip(_BLANKS)
            yield change, candidate + (b"\n" if change.tail == "line" else b"")


def _stream_forms(body: bytes) -> Iterator[tuple[_Change, bytes]]:
    plain = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    try:
        as_is, unix = split_stream(body)[0], split_stream(plain)[0]
        speaking = {start: _speaking(start) for start in (as_is, unix)}
    except FormatError:
        return
    spelt: dict[tuple[bytes, str, str], bytes | None] = {}
    for change in _STREAM:
        start = unix if change.endings else as_is
        lines = speaking[start] if change.comments else start
        key = lines, change.spacing, change.strings
        if key not in spelt:
            spelt[key] = _spelt_stream(lines, change)
        candidate = spelt[key]
        if candidate is None:
            continue
        if change.tail:
            candidate = candidate.rstrip(b"\r\n") + b"\n\n"
        candidate += change.end
        if change.endings == "crlf":
            candidate = candidate.replace(b"\n", b"\r\n")
        yield change, candidate


def _speaking(stream: bytes) -> bytes:
    """The stream without the events that hold nothing but comments."""
    splitter = EventSplitter()
    events = splitter.feed(stream)
    kept = [e.raw for e in events if e.data is not None or not e.comments]
    return b"".join(kept) + splitter.flush()


def _spelt_stream(stream: bytes, change: _Change) -> bytes | None:
    if not change.spacing and not change.strings:
        return stream
    lines = []
    for line in stream.splitlines(keepends=True):
        if line.startswith(b"data: {"):
            text = line.rstrip(b"\r\n")
            spelt = _spelt(text.removeprefix(b"data: "), change)
            if spelt is None:
                return None
            line = b"data: " + spelt + line[len(text) :]  # noqa: PLW2901  # respelt
        lines.append(line)
    return b"".join(lines)


def _spelt(body: bytes, change: _Change) -> bytes | None:
    """A JSON text with other spacing or other escapes; None where it is no JSON."""
    if not change.spacing and not change.strings:
        return body
    try:
        read_json(body, max_bytes=_MAX_UNPACKED)
        text = body.decode()
        return "".join(_token(t, change) for t in _TOKENS.findall(text)).encode()
    except (FormatError, UnicodeEncodeError):
        return None


def _token(token: str, change: _Change) -> str:
    if token[0] == '"':
        if not change.strings:
            return token
        return json.dumps(json.loads(token), ensure_ascii=change.strings == "ascii")
    if not change.spacing:
        return token
    if token[0] in " \t\r\n":
        return ""
    if change.spacing == "compact":
        return token
    return token.replace(",", ", ").replace(":", ": ")
