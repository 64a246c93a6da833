"""SHA-256 digests and their one text form, `sha256:<64 lower-case hex digits>`.

The text form is the OCI image specification's; `sha256sum` reproduces the hex part.
"""

import hashlib
import hmac
import re

from attest.errors import FormatError

__all__ = [
    "digest",
    "digest_text",
    "digests_equal",
    "from_hex",
    "parse_digest",
    "to_hex",
]

_TEXT = re.compile(r"sha256:[0-9a-f]{64}\Z")
_HEX = re.compile(r"[0-9a-f]{64}\Z")


def digest(data: bytes | bytearray | memoryview) -> str:
    """The text digest of exactly these bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_text(raw: bytes) -> str:
    """The text form of a SHA-256 digest; `parse_digest` gives its bytes back."""
    return "sha256:" + raw.hex()


def parse_digest(text: object) -> bytes:
    """The 32 raw bytes of a text digest.

    Raises:
        FormatError: anything but the exact text form, upper-case hex included.
    """
    if not isinstance(text, str) or not _TEXT.match(text):
        raise FormatError("digest: expected sha256:<64 lower-case hex digits>")
    return bytes.fromhex(text[7:])


def to_hex(text: str) -> str:
    """The hex part of a text digest, as in-toto's DigestSet wants it."""
    parse_digest(text)
    return text[7:]


def from_hex(value: object) -> str:
    """The text digest of an in-toto `sha256` value.

    Raises:
        FormatError: anything but 64 lower-case hex digits.
    """
    if not isinstance(value, str) or not _HEX.match(value):
        raise FormatError("digest: expected 64 lower-case hex digits")
    return "sha256:" + value


def digests_equal(left: str, right: str) -> bool:
    """Whether two text digests are equal, compared in constant time."""
    return hmac.compare_digest(left.encode(), right.encode())
