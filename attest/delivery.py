"""How an attestation travels beside an answer, in one place for both ends.

A JSON answer carries the token in a header while it fits; a stream carries it in one
SSE comment before its terminal event. 33 stream variants against ten SDKs left these
two: an extra event or chunk breaks several of them, a trailer is seen by none.
"""

import re

__all__ = [
    "ATTESTATION_HEADER",
    "DELIVERY_HEADER",
    "ID_HEADER",
    "MAX_HEADER",
    "NONCE_HEADER",
    "REQUEST_ID_HEADER",
    "WELL_KNOWN",
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

_COMMENT = re.compile(
    rb"(?:\A|(?<=\n\n)|(?<=\r\r)|(?<=\r\n\r\n))"
    rb": attestation ([A-Za-z0-9._~-]+)\n\n"
)


def comment(token: str) -> bytes:
    """The SSE comment (WHATWG HTML §9.2.6: a line that starts with a colon)."""
    return b": attestation " + token.encode("ascii") + b"\n\n"


def split_stream(body: bytes) -> tuple[bytes, str | None]:
    """The bytes that the token covers, and the token.

    The covered bytes are all but the attestation comment. Only the last comment counts:
    the gateway writes one, and an earlier one that somebody slipped in stays among the
    covered bytes, where it breaks their digest.
    """
    matches = list(_COMMENT.finditer(body))
    if not matches:
        return body, None
    last = matches[-1]
    return body[: last.start()] + body[last.end() :], last.group(1).decode("ascii")
