"""How an attestation travels beside an answer, in one place for both ends.

A JSON answer carries the token in a header while it fits; a stream carries it in one
SSE comment before its terminal event. 33 stream variants against ten SDKs left these
two: an extra event or chunk breaks several of them, a trailer is seen by none.
"""

import re
from collections.abc import Iterable

from attest.sse import EventSplitter

__all__ = [
    "ATTESTATION_HEADER",
    "DELIVERY_HEADER",
    "ID_HEADER",
    "MAX_HEADER",
    "NONCE_HEADER",
    "REQUEST_ID_HEADER",
    "WELL_KNOWN",
    "StreamGate",
    "comment",
    "split_stream",
]

ATTESTATION_HEADER = "attestation"
ID_HEADER = "attestation-id"
NONCE_HEADER = "attestation-nonce"
DELIVERY_HEADER = "attestation-delivery"
REQUEST_ID_HEADER = "x-request-id"
WELL_KNOWN = "/.well-known/attestation"

# nginx buffers 4 kB of response headers by default; above that the client gets a 502.
MAX_HEADER = 3000

# A blank line that CRLF ends may reach us in two pieces; its LF then opens the next
# event (see EventSplitter), which is this one.
_COMMENT = re.compile(rb"(\n?): attestation ([A-Za-z0-9._~-]+)\n\n")


def comment(token: str) -> bytes:
    """The SSE comment (WHATWG HTML §9.2.6: a line that starts with a colon)."""
    return b": attestation " + token.encode("ascii") + b"\n\n"


class StreamGate:
    """Lets a stream through as it comes, and keeps its end back.

    Kept back is everything from the first event on that is an attestation comment or
    in which one of `words` stands. `[DONE]` is such a word: a reader that sees it looks
    at nothing more. It counts anywhere in an event, since some readers also break lines
    where server-sent events do not.

    Attributes:
        held_bytes: how much is kept back. There is no bound here.
    """

    def __init__(self, words: Iterable[bytes] = ()) -> None:
        self._words = tuple(words)
        self._splitter = EventSplitter()
        self._held: list[bytes] = []
        self.held_bytes = 0

    def feed(self, chunk: bytes) -> bytes:
        """What may be handed on now: whole events, unchanged.

        Raises:
            FormatError: an event is larger than 8 MiB.
        """
        ready = []
        for event in self._splitter.feed(chunk):
            if self._held or self._stops(event.raw):
                self._hold(event.raw)
            else:
                ready.append(event.raw)
        return b"".join(ready)

    def finish(self) -> tuple[bytes, str | None]:
        """The rest of what the token covers, and the token.

        The covered bytes are all but the attestation comment. Only the last comment
        counts: the gateway writes one, and an earlier one that somebody slipped in
        stays among the covered bytes, where it breaks their digest.
        """
        self._hold(self._splitter.flush())
        for position in reversed(range(len(self._held))):
            if match := _COMMENT.fullmatch(self._held[position]):
                self._held[position] = match[1]
                return b"".join(self._held), match[2].decode("ascii")
        return b"".join(self._held), None

    def _stops(self, raw: bytes) -> bool:
        return bool(_COMMENT.fullmatch(raw)) or any(word in raw for word in self._words)

    def _hold(self, raw: bytes) -> None:
        self._held.append(raw)
        self.held_bytes += len(raw)


def split_stream(body: bytes) -> tuple[bytes, str | None]:
    """The bytes of a whole stream that the token covers, and the token.

    Raises:
        FormatError: an event is larger than 8 MiB.
    """
    gate = StreamGate()
    head = gate.feed(body)
    rest, token = gate.finish()
    return head + rest, token
