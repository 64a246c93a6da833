"""What one claim may hold: checks of types and forms, and the row that names one."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from attest.digests import parse_digest
from attest.errors import FormatError
from attest.keys import PublicKey, b64url_decode

__all__ = [
    "Check",
    "Claim",
    "Schema",
    "are_texts_by_name",
    "is_any",
    "is_boolean",
    "is_digest",
    "is_integer",
    "is_jwk",
    "is_sha256_b64",
    "is_text",
    "list_of",
    "members",
    "one_of",
    "or_null",
]

_MAX_TEXT = 1024
_MAX_LIST = 256

Check = Callable[[Any], bool]


def is_text(value: Any) -> bool:
    """A text of 1 to 1,024 characters."""
    return isinstance(value, str) and 0 < len(value) <= _MAX_TEXT


def is_integer(value: Any) -> bool:
    """A number from 0 to 2^53 - 1."""
    # bool is an int in Python and not in JSON. 2^53 is the last integer that every
    # JSON reader keeps exactly (RFC 8259 §6).
    return type(value) is int and 0 <= value < 2**53


def is_boolean(value: Any) -> bool:
    """True or false."""
    return isinstance(value, bool)


def is_digest(value: Any) -> bool:
    """A text digest, `sha256:<hex>`."""
    try:
        return bool(parse_digest(value))
    except FormatError:
        return False


def is_jwk(value: Any) -> bool:
    """A public key, in the members that its thumbprint covers and no others."""
    try:
        return bool(PublicKey.from_jwk(value).jwk == value)
    except FormatError:
        return False


def is_sha256_b64(value: Any) -> bool:
    """32 bytes in base64url."""
    try:
        return isinstance(value, str) and len(b64url_decode(value)) == 32
    except FormatError:
        return False


def is_any(_: Any) -> bool:
    """Whatever it is."""
    return True


def one_of(values: Iterable[str]) -> Check:
    """One of these texts."""
    allowed = frozenset(values)
    return lambda value: isinstance(value, str) and value in allowed


def list_of(check: Check) -> Check:
    """A list of at most 256, each of which passes."""
    return lambda value: (
        isinstance(value, list) and len(value) <= _MAX_LIST and all(map(check, value))
    )


def or_null(check: Check) -> Check:
    """Null, or what passes."""
    return lambda value: value is None or check(value)


def members(required: Mapping[str, Check]) -> Check:
    """An object with at least these members; others are allowed and mean nothing."""
    return lambda value: (
        isinstance(value, dict)
        and all(
            name in value and check(value[name]) for name, check in required.items()
        )
    )


def are_texts_by_name(value: Any) -> bool:
    """An object of at most 256 texts."""
    return (
        isinstance(value, dict)
        and len(value) <= _MAX_LIST
        and all(is_text(key) and isinstance(item, str) for key, item in value.items())
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """One row: what a claim holds, what it means and what it does not prove."""

    name: str
    check: Check
    meaning: str
    not_proven: str = ""
    required: bool = True


Schema = tuple[Claim, ...]
