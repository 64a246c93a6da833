"""API keys, known here only by their SHA-256 digests."""

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from attest.digests import from_hex, parse_digest
from attest.errors import ConfigurationError, FormatError
from gateway.errors import AuthenticationError

__all__ = ["ApiKeys"]

_MAX_FILE = 1024 * 1024
_HINT = "add a key: printf %s KEY | sha256sum | cut -d' ' -f1 >> FILE"


class ApiKeys:
    """The keys that may use the gateway. Without any, the gateway is open."""

    def __init__(self, digests: Iterable[bytes] = ()) -> None:
        self._digests = tuple(digests)

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """The keys of a file: one digest a line, hex with or without `sha256:`.

        Empty lines and lines that start with # are skipped. Without a path the gateway
        is open.

        Raises:
            ConfigurationError: the file cannot be read, holds no key, or a line is not
                a digest; the line is named by number, never quoted.
        """
        if path is None:
            return cls()
        try:
            with path.open("rb") as file:
                lines = file.read(_MAX_FILE).decode("ascii", "replace").splitlines()
        except OSError as error:
            raise ConfigurationError(
                f"API keys: {path}: {error.strerror}", hint=_HINT
            ) from error
        digests = [
            _digest(line.strip(), path, number)
            for number, line in enumerate(lines, start=1)
            if line.strip() and not line.startswith("#")
        ]
        if not digests:
            # An empty file would lock everybody out, or, read otherwise, nobody.
            raise ConfigurationError(f"API keys: {path} holds no key", hint=_HINT)
        return cls(digests)

    def check(self, authorization: bytes | None) -> None:
        """Return when an `Authorization` header carries a known key, or none is needed.

        Every digest is compared, in constant time each, so that the time tells nothing
        about which of them matched.

        Raises:
            AuthenticationError: the header is missing, not `Bearer`, or names no key
                that is known here.
        """
        if not self._digests:
            return
        scheme, _, key = (authorization or b"").partition(b" ")
        found = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(found, known) for known in self._digests]
        if scheme.lower() != b"bearer" or not any(matches):
            raise AuthenticationError(
                "a valid API key is needed: Authorization: Bearer KEY",
                headers=(("www-authenticate", "Bearer"),),
            )


def _digest(text: str, path: Path, number: int) -> bytes:
    try:
        return parse_digest(text if ":" in text else from_hex(text))
    except FormatError as error:
        raise ConfigurationError(
            f"API keys: {path}: line {number} is not a SHA-256 digest",
            hint=_HINT,
        ) from error
