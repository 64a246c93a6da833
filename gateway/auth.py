"""API keys, known here by their SHA-256 digests alone, with names for the logs."""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Self

from attest.digests import from_hex, parse_digest
from attest.errors import ConfigurationError, FormatError
from gateway.errors import AuthenticationError

__all__ = ["ApiKeys"]

_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_MAX_FILE = 1024 * 1024
_HINT = "add a key: printf %s KEY | sha256sum | cut -d' ' -f1 >> FILE"


class ApiKeys:
    """The keys that may use the gateway. Without any, the gateway is open."""

    def __init__(self, keys: Mapping[bytes, str] | Iterable[bytes] = ()) -> None:
        self._names = (
            dict(keys) if isinstance(keys, Mapping) else {k: k.hex()[:8] for k in keys}
        )

    @classmethod
    def read(cls, path: Path | None) -> Self:
        """The keys of a file: one digest a line, hex with or without `sha256:`.

        A name may follow, by which logs call whoever uses the key; without one they
        show the first eight digits of the digest. Empty lines and lines that start with
        # are skipped. Without a path the gateway is open.

        Raises:
            ConfigurationError: the file cannot be read, holds no key, or a line is not
                a digest, or gives a name again; the line is named by number, never
                quoted.
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
        names: dict[bytes, str] = {}
        for number, line in enumerate(lines, start=1):
            if line.strip() and not line.startswith("#"):
                digest, name = _key(line, path, number)
                if name in names.values():
                    raise ConfigurationError(
                        f"API keys: {path}: line {number} gives a name again",
                        hint="give every key a name of its own, or none",
                    )
                names[digest] = name
        if not names:
            # An empty file would lock everybody out, or, read otherwise, nobody.
            raise ConfigurationError(f"API keys: {path} holds no key", hint=_HINT)
        return cls(names)

    def check(self, authorization: bytes | None) -> str:
        """The name of the key in an `Authorization` header; empty where none is needed.

        Every digest is compared, in constant time each, so that the time tells nothing
        about which of them matched.

        Raises:
            AuthenticationError: the header is missing, not `Bearer`, or names no key
                that is known here.
        """
        if not self._names:
            return ""
        scheme, _, key = (authorization or b"").partition(b" ")
        found = hashlib.sha256(key.strip()).digest()
        matches = [hmac.compare_digest(found, known) for known in self._names]
        if scheme.lower() != b"bearer" or not any(matches):
            raise AuthenticationError(
                "a valid API key is needed: Authorization: Bearer KEY",
                headers=(("www-authenticate", "Bearer"),),
            )
        return self._names[found]


def _key(line: str, path: Path, number: int) -> tuple[bytes, str]:
    text, _, name = line.strip().partition(" ")
    name = name.strip()
    try:
        digest = parse_digest(text if ":" in text else from_hex(text))
    except FormatError:
        digest = b""
    if not digest or not _NAME.match(name or "-"):
        raise ConfigurationError(
            f"API keys: {path}: line {number} is not a SHA-256 digest, or its name "
            "not of up to 64 letters, digits, dots, hyphens and underscores",
            hint=_HINT,
        )
    return digest, name or digest.hex()[:8]
