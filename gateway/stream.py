"""The relay of one event stream: bytes in, bytes out, no I/O.

Rules, in the order in which they bind:

- What the engine sends goes out at once and unchanged, event by event.
- Nothing that upstream sends under our names reaches the client: comments that start
  with `attestation`, events of that name.
- Only the event that ends the stream is held back, so that the attestation can stand
  before it: SDKs read nothing after it. That is `[DONE]`, `response.completed` and its
  like, `message_stop`, or one with an error.
- Nothing follows the terminal event, and nothing the fragment of an event.
"""

import hashlib

from attest import sse
from attest.delivery import comment
from attest.dialects import SHAPES, Dialect
from attest.errors import FormatError
from attest.sse import Event, EventSplitter
from attest.transcript import Transcript, holds_error

__all__ = ["StreamRelay"]

_OURS = b"attestation"
_OBJECT = b"data: {"
_END = b"\n\n"
_BOM = b"\xef\xbb\xbf"
# After an error event vLLM still sends [DONE]; a stream that goes on for longer than
# this is ended here.
_MAX_HELD = 64 * 1024
# Read together, events cost a tenth; so few hold the loop for less than a signature
# does.
_BATCH = 32
_BATCH_BYTES = 64 * 1024


class StreamRelay:
    """Relays one stream.

    For each chunk: send what `feed` gives, then `account_in_batches`.

    At the end: `account`, send what `finish` gives, have the exchange sealed, then send
    what `closing` gives. Where the client left, only `account`.

    Attributes:
        ended: the terminal event is held; reading on is of no use.
        salvaged: after `feed` raised, what to send of that chunk.
    """

    def __init__(self, transcript: Transcript, dialect: Dialect) -> None:
        self._transcript = transcript
        self._shape = SHAPES[dialect]
        self._splitter = EventSplitter()
        self._hash = hashlib.sha256()
        self._bytes = 0
        # What was sent and not read yet; one of the two is empty.
        self._sent: list[Event] = []
        self._runs: list[bytes] = []
        self._held: list[Event] = []
        self._held_bytes = 0
        self._fragment = b""
        self._unread = 0  # bytes that were fed since `account_in_batches` did something
        self._unsplit = 0  # bytes that the splitter holds
        self.ended = False
        self.salvaged = b""

    def feed(self, chunk: bytes) -> bytes:
        """What to send now; may be empty.

        Raises:
            FormatError: an event is larger than 8 MiB.
        """
        self._unread += len(chunk)
        if self._is_run(chunk):
            if self._sent:
                self.account()
            self._runs.append(chunk)
            return chunk
        if self._runs:
            self.account()
        self._unsplit += len(chunk)
        if self._unsplit <= sse.MAX_EVENT:
            return self._pass(self._splitter.feed(chunk))
        # The splitter gives nothing of a chunk in which an event is too large; how the
        # engine's writes were gathered must not decide what the client gets.
        self.salvaged = b""
        sent: list[bytes] = []
        for line in chunk.splitlines(keepends=True):
            try:
                events = self._splitter.feed(line)
            except FormatError:
                self.salvaged = b"".join(sent)
                self._transcript.malformed = True
                raise
            sent.append(self._pass(events))
        return b"".join(sent)

    def _is_run(self, chunk: bytes) -> bool:
        """Whether these are whole events of one line of data each, and nothing else.

        Such events are neither ours nor the last: nearly every write of an engine.
        """
        return (
            chunk.startswith(_OBJECT)
            and chunk.endswith(_END)
            and chunk.count(b"\n") == 2 * chunk.count(_END + _OBJECT) + 2
            and b"\r" not in chunk
            and b"error" not in chunk
            and not (self._held or self._shape.terminals)
            and self._splitter.is_between
            and len(chunk) <= _BATCH_BYTES
        )

    def _pass(self, events: list[Event]) -> bytes:
        start = len(self._sent)
        for event in events:
            self._unsplit -= len(event.raw)
            cleaned = _without_ours(event)
            if cleaned is None or self.ended:
                continue
            if self._held or self._ends(cleaned):
                self._hold(cleaned)
            else:
                self._sent.append(cleaned)
        return b"".join([event.raw for event in self._sent[start:]])

    def account(self) -> None:
        """Hash and read what was sent; after sending, so that no token waits for it."""
        if self._runs:
            run = b"".join(self._runs)
            self._count(run)
            self._transcript.feed_run(run)
            self._runs.clear()
        elif self._sent:
            self._count(b"".join([event.raw for event in self._sent]))
            self._transcript.feed_events(self._sent)
            self._sent.clear()

    def account_in_batches(self) -> None:
        """The same once enough was sent to be worth it; `account` must follow."""
        pending = len(self._runs) or len(self._sent)
        if pending >= _BATCH or self._unread > _BATCH_BYTES:
            self._unread = 0
            self.account()

    def finish(self, *, broken: bool = False) -> bytes:
        """Upstream has nothing more; what to send of its rest before sealing.

        From here on the digest covers what is held back too.

        Args:
            broken: upstream broke off. The fragment of an event that it left behind is
                then dropped. At a proper end it is passed on, like all that was sent.
        """
        rest = self._splitter.flush()
        if not (broken or self._held):
            self._fragment = _without_our_lines(rest)
            self._count(self._fragment)
        for event in self._held:
            self._count(event.raw)
            self._transcript.feed_event(event)
        self._transcript.end(self._fragment)
        return self._fragment

    @property
    def content_digest(self) -> str:
        """Digest of what was accounted for."""
        return "sha256:" + self._hash.hexdigest()

    @property
    def content_bytes(self) -> int:
        """How many bytes `content_digest` covers."""
        return self._bytes

    def closing(self, token: str | None) -> bytes:
        """The last bytes: the attestation as a comment, then what was held back.

        No comment follows the fragment of an event: it would become part of it.
        """
        held = b"".join([event.raw for event in self._held])
        if token is None or self._fragment.strip(b"\r\n"):
            return held
        lead = b""
        if held.startswith(b"\n"):  # the end of the line before, see EventSplitter
            lead, held = b"\n", held[1:]
        return lead + comment(token) + held

    def _count(self, raw: bytes) -> None:
        self._hash.update(raw)
        self._bytes += len(raw)

    def _ends(self, event: Event) -> bool:
        # The test for the word spares nearly every event a second parse.
        data = event.data
        return self._shape.ends(event) or (
            data is not None and b"error" in data and holds_error(data)
        )

    def _hold(self, event: Event) -> None:
        self._held.append(event)
        self._held_bytes += len(event.raw)
        self.ended = self._shape.ends(event) or self._held_bytes > _MAX_HELD


def _without_our_lines(raw: bytes) -> bytes:
    kept = bytearray()
    for line in raw.splitlines(keepends=True):
        if _is_ours(line):
            continue
        if kept.endswith(b"\r") and line.startswith(b"\n"):
            # Ours stood between the two; together they would be one end of line, and
            # the event would have no end.
            kept += b"\n"
        kept += line
    return bytes(kept)


def _is_ours(line: bytes) -> bool:
    text = line.removeprefix(_BOM)
    return text.startswith(b":") and text[1:].lstrip().lower().startswith(_OURS)


def _without_ours(event: Event) -> Event | None:
    """The event without comments under our name; None where nothing is left."""
    if event.name is not None and event.name.strip().lower() == _OURS:
        return None
    if not event.comments:
        return event
    raw = _without_our_lines(event.raw)
    if raw == event.raw:
        return event
    return event._replace(raw=raw) if raw.strip(b"\r\n") else None
