"""HTTP/1.1 as the engine is spoken to: bytes of a request, strict reading of an answer.

No I/O. httptools (llhttp) holds the grammar: no folded header line, no bare CR or LF,
one Content-Length at most and none beside chunks, sizes that fit 64 bits. What it lets
pass and what it does not bound is held here.
"""

from collections.abc import Mapping
from typing import NoReturn

import httptools

from gateway.errors import UpstreamError

__all__ = ["MAX_FIELDS", "MAX_HEAD", "ResponseReader", "request_head"]

MAX_HEAD = 64 * 1024
MAX_FIELDS = 128

_NO_BODY = (204, 304)
_SWITCHING = 101


def request_head(
    method: str, target: str, host: str, fields: Mapping[str, str], size: int
) -> bytes:
    """Request line and header of a request with a body of `size` bytes.

    Raises:
        ValueError: a part would end its line early, or holds NUL. Names and `method`
            are not checked beyond that: they are our own.
    """
    lines = [f"{method} {target} HTTP/1.1", f"host: {host}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    if size or method == "POST":
        lines.append(f"content-length: {size}")
    text = "\r\n".join([*lines, "", ""])
    ends = len(lines) + 1
    if text.count("\n") != ends or text.count("\r") != ends or "\0" in text:
        raise ValueError("a header field does not fit on one line")
    if " " in target:
        raise ValueError("a request target has no spaces")
    return text.encode("latin-1")


class ResponseReader:
    """Reads one answer: `feed` what comes until `complete`.

    The answer does not depend on how its bytes were cut. Heads of status 1xx are
    skipped, trailers dropped. An answer must say how long it is, by a length or by
    chunks: one that only ends with its connection cannot be told from half of one
    (RFC 9112 §8).

    Attributes:
        status: of the final head, 0 before.
        headers: its fields, names in lower case; of a repeated one the last.
        head: whether the final head is here.
        body: pieces of the body that came since the list was cleared.
        complete: whether the last byte is here.
        reusable: whether the connection may carry a further answer; only means
            something once `complete`.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head = self.complete = self.reusable = False
        self.body: list[bytes] = []
        self.on_body = self.body.append  # called by httptools for each piece
        self._codings = self._fields = self._barren = self._head_bytes = 0
        self._reason = ""
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Take in what the connection gave.

        Bytes after the end are nobody's: the answer stands, and `reusable` is false.

        Raises:
            UpstreamError: this is no answer by the rules above; its head is larger than
                64 KiB or has more than 128 fields, early heads and trailers counted
                with it; or over 64 KiB came without a byte of the body in them.
        """
        if not self.head:
            # The head has to end within the first 64 KiB, however they were cut.
            room = MAX_HEAD - self._head_bytes
            self._head_bytes += len(data)
            if len(data) > room:
                self._parse(data[:room])
                data = data[room:]
                if not self.head:
                    raise _broke("its head is too large")
        self._parse(data)

    def release(self) -> None:
        """Let go of the parser, which else would keep this alive in a cycle."""
        self._parser = None

    def _parse(self, data: bytes) -> None:
        had = len(self.body)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            # `from None`: the parser's error may quote what came.
            if not self.complete:
                raise _broke(self._reason or "its answer is malformed") from None
            self.reusable = False
        if self.head and not self.complete and len(self.body) == had:
            self._barren += len(data)
            if self._barren > MAX_HEAD:
                raise _broke("its chunks are all header")
        else:
            self._barren = 0

    # What httptools calls. An exception ends its parsing; `_parse` says why.

    def on_message_begin(self) -> None:
        """A further answer begins where none was asked for; see httptools."""
        if self.complete:
            self._refuse("something follows its answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of a head, or a trailer; see httptools."""
        self._fields += 1
        if self._fields > MAX_FIELDS:
            self._refuse("its answer has too many header fields")
        if self.head:
            return
        key = name.decode("ascii").lower()
        if key == "transfer-encoding":
            self._codings += 1
        self.headers[key] = value.strip(b" \t").decode("latin-1")

    def on_headers_complete(self) -> None:
        """A head has ended; see httptools."""
        parser = self._parser
        status, version = parser.get_status_code(), parser.get_http_version()
        if version not in ("1.1", "1.0") or status < 100 or status == _SWITCHING:
            self._refuse("its answer is of another protocol")
        if status < 200:
            self.headers.clear()
            self._codings = 0
            return
        coding = self.headers.get("transfer-encoding")
        if coding is None:
            if "content-length" not in self.headers and status not in _NO_BODY:
                self._refuse("its answer does not say how long it is")
        elif self._codings > 1 or coding.lower() != "chunked" or version == "1.0":
            self._refuse("its answer has a transfer coding that is not chunked")
        self.status, self.head = status, True

    def on_message_complete(self) -> None:
        """An answer has ended, if it was not an early head; see httptools."""
        if self.head:
            self.complete = True
            self.reusable = self._parser.should_keep_alive()

    def _refuse(self, reason: str) -> NoReturn:
        self._reason = reason
        raise ValueError(reason)


def _broke(reason: str) -> UpstreamError:
    return UpstreamError(f"the engine broke the rules of HTTP: {reason}")
