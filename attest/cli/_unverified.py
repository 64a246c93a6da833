"""Reading evidence to show it, without a word about whether it is genuine."""

import base64
import binascii

from attest.canonical import read_object
from attest.cli._text import shortened
from attest.envelope import MAX_ENVELOPE
from attest.errors import FormatError
from attest.manifest import Manifest, parse_statement

__all__ = ["NOT_VERIFIED", "unverified_manifest"]

NOT_VERIFIED = "NOT VERIFIED: anyone can write what follows."


def unverified_manifest(envelope: bytes) -> tuple[Manifest, tuple[str, ...]]:
    """The manifest in an envelope and the keys that are said to have signed it.

    Raises:
        FormatError: not an envelope, or as `parse_statement`.
    """
    value = read_object(envelope, max_bytes=MAX_ENVELOPE, max_depth=8)
    match value:
        case {"payload": str(payload), "signatures": list(signatures)}:
            keyids = tuple(
                shortened(item.get("keyid", "")) if isinstance(item, dict) else ""
                for item in signatures[:16]
            )
            return parse_statement(_payload(payload)), keyids
    raise FormatError("envelope: expected payload and signatures")


def _payload(text: str) -> bytes:
    try:
        plain = text.replace("-", "+").replace("_", "/")
        return base64.b64decode(plain, validate=True)
    except (binascii.Error, ValueError):
        raise FormatError("envelope: payload is not base64") from None
