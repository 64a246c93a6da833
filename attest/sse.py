"""Cutting a stream of server-sent events into events, byte for byte.

WHATWG HTML §9.2.5: a line ends in LF, CRLF or CR, and in nothing else. Readers of text
that also break lines at U+2028 or U+0085 show a second `data:` line inside an answer of
the model; on bytes that cannot happen.
"""

from typing import NamedTuple

from attest.errors import FormatError

__all__ = ["MAX_EVENT", "Event", "EventSplitter", "split_run"]

# One event holds one chunk of an answer. The largest real ones carry a whole Responses
# object or the log-probabilities of a prompt: a few hundred kB.
MAX_EVENT = 8 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
_CR = 13
_LINE_ENDS = b"\r\n"
_DATA = b"data: "
_END = b"\n\n"


class Event(NamedTuple):
    """One event, or one run of comments that a blank line ends.

    Attributes:
        raw: the exact bytes, the blank line that ends them included.
        name: value of the last `event` field, None where there is none.
        data: values of the `data` fields joined by LF, None where there is none.
        comments: text of each comment line without its colon and one leading space.
    """

    raw: bytes
    name: bytes | None
    data: bytes | None
    comments: tuple[bytes, ...]


class EventSplitter:
    """Incremental splitter; the work is linear in the bytes fed.

    The `raw` of all events, in order, followed by `flush()` is exactly what was fed.
    Names, data and comments do not depend on how the stream was cut into chunks. `raw`
    does in one case: an event is handed over as soon as its blank line is seen, so when
    a chunk ends between the CR and the LF of that line, the LF opens the next `raw`.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()  # the event that is not ended yet
        self._in_line = False  # its last line is not ended yet
        self._after_cr = False
        self._first = True  # no event was handed over, so a BOM may stand in front

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes.

        Raises:
            FormatError: an event is larger than 8 MiB. The splitter is of no use then.
        """
        if not self._buffer and chunk.startswith(_DATA) and not self._after_cr:
            events = _plain(chunk)
            if events:
                self._first = False
                return events
        events = []
        if self._after_cr and chunk.startswith(b"\n"):
            self._buffer += b"\n"
            chunk = chunk[1:]
            self._after_cr = False
        # On bytes, unlike on str, splitlines() knows exactly the three line ends.
        for piece in chunk.splitlines(keepends=True):
            self._buffer += piece
            if len(self._buffer) > MAX_EVENT:
                raise FormatError(f"event stream: an event of over {MAX_EVENT} bytes")
            if piece[-1] not in _LINE_ENDS:
                self._in_line = True
            elif self._is_blank(piece):
                events.append(self._take_event())
            else:
                self._in_line = False
        if chunk:
            self._after_cr = chunk[-1] == _CR
        return events

    @property
    def is_between(self) -> bool:
        """Whether an event was handed over, and of the next one nothing came yet.

        Whole events may then be taken elsewhere, if none is, or ends in, a bare CR.
        """
        return not (self._buffer or self._after_cr or self._first)

    def flush(self) -> bytes:
        """The rest that no blank line has ended; a reader drops it (§9.2.6)."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _is_blank(self, piece: bytes) -> bool:
        if self._first and self._buffer[:3] == _BOM and len(self._buffer) <= 5:
            return self._buffer[3:].strip(b"\r\n") == b""
        return not self._in_line and piece[0] in _LINE_ENDS

    def _take_event(self) -> Event:
        raw = bytes(self._buffer)
        self._buffer.clear()
        text = raw.removeprefix(_BOM) if self._first else raw
        self._first = self._in_line = False
        return _parse(raw, text)


def _plain(chunk: bytes) -> list[Event]:
    """The events of a chunk in which each is one `data: …` line; empty for any other.

    That is nearly every write of an engine, at a third of the cost.
    """
    if b"\r" in chunk or len(chunk) > MAX_EVENT:
        return []
    *parts, rest = chunk.split(_END)
    if rest or any(b"\n" in part or not part.startswith(_DATA) for part in parts):
        return []
    return split_run(chunk)


def split_run(run: bytes) -> list[Event]:
    """The events of bytes in which each is one line `data: …` that two LF end.

    That is not checked.
    """
    return [
        Event(part + _END, None, part[len(_DATA) :], ())
        for part in run.split(_END)[:-1]
    ]


def _parse(raw: bytes, text: bytes) -> Event:
    name: bytes | None = None
    data: list[bytes] = []
    comments: list[bytes] = []
    for line in text.splitlines():
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif not field and line:
            comments.append(value)
    return Event(raw, name, b"\n".join(data) if data else None, tuple(comments))
