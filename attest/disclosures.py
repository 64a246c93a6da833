"""Selective disclosure: salted digests of claims (RFC 9901, SD-JWT).

A digest of "yes", or of a request made from a template, falls to a dictionary; with a
128-bit salt it says nothing. The signed token then can be public, and its holder shows
one field to one reader. Only flat, top-level object claims are used here.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from attest.canonical import read_json
from attest.errors import FormatError
from attest.keys import b64url_decode, b64url_encode

__all__ = ["conceal", "join", "named", "reveal", "split"]

MAX_DISCLOSURES = 256
# 128 choices, the most that is served, make 27 kB; an ordinary chat makes 2.5.
MAX_PRESENTATION = 64 * 1024
_MAX_DISCLOSURE = 8 * 1024
_encode = json.JSONEncoder(separators=(",", ":")).encode
_SALT_BYTES = 16  # 128 bits, RFC 9901 §9.3


def _digest(disclosure: str) -> str:
    return b64url_encode(hashlib.sha256(disclosure.encode()).digest())


def _to_json(value: list[Any]) -> bytes:
    return _encode(value).encode("ascii")


def conceal(
    claims: Mapping[str, Any],
    *,
    random: Callable[[int], bytes] = secrets.token_bytes,
    encode: Callable[[list[Any]], bytes] = _to_json,
) -> tuple[dict[str, Any], list[str]]:
    """Replace claims by their salted digests.

    Args:
        claims: by name.
        random: gives so many unguessable bytes.
        encode: writes a list as JSON in UTF-8, for a caller that has a faster way.

    Returns:
        The `_sd` and `_sd_alg` members for the token, digests sorted so that their
        order tells nothing (§4.2.4.1), and the disclosures in the order of `claims`.
    """
    pool = random(_SALT_BYTES * len(claims))
    disclosures = []
    for start, (name, value) in zip(
        range(0, len(pool), _SALT_BYTES), claims.items(), strict=True
    ):
        salt = b64url_encode(pool[start : start + _SALT_BYTES])
        disclosures.append(b64url_encode(encode([salt, name, value])))
    digests = sorted([_digest(disclosure) for disclosure in disclosures])
    return {"_sd": digests, "_sd_alg": "sha-256"}, disclosures


def join(token: str, disclosures: list[str]) -> str:
    """The compact form `token~disclosure~…~` (§4)."""
    return "~".join([token, *disclosures, ""])


def split(text: str) -> tuple[str, list[str]]:
    """The token and the disclosures of a compact form; a bare token has none.

    Raises:
        FormatError: no `~` at the end, or larger than any token of ours.
    """
    if len(text) > MAX_PRESENTATION:
        raise FormatError(f"token: more than {MAX_PRESENTATION} bytes with disclosures")
    token, *rest = text.split("~")
    if not rest:
        return token, []
    if rest[-1] != "":
        # Something after the last ~ would be a key-binding JWT, which we never issue.
        raise FormatError("disclosures: the compact form must end with ~")
    if len(rest) - 1 > MAX_DISCLOSURES:
        raise FormatError(f"disclosures: more than {MAX_DISCLOSURES}")
    return token, rest[:-1]


def named(disclosures: list[str]) -> dict[str, str]:
    """The disclosures by the name of their claim, unproven and in their order.

    Raises:
        FormatError: one is malformed, or two have one name.
    """
    found: dict[str, str] = {}
    for disclosure in disclosures:
        _, name, _ = _read(disclosure)
        if name in found:
            raise FormatError(f"disclosures: {name!a} is stated twice")
        found[name] = disclosure
    return found


def _read(disclosure: str) -> tuple[str, str, Any]:
    item = read_json(b64url_decode(disclosure), max_bytes=_MAX_DISCLOSURE)
    match item:
        case [str(salt), str(name), value] if salt:
            return salt, name, value
    raise FormatError("disclosures: expected [salt, name, value]")


def _digests(claims: Mapping[str, Any]) -> set[str]:
    digests = claims.get("_sd", [])
    if not isinstance(digests, list) or not all(isinstance(d, str) for d in digests):
        raise FormatError("disclosures: _sd is not a list of digests")
    known = set(digests)
    if len(known) != len(digests):
        raise FormatError("disclosures: a digest stands twice in _sd")
    return known


def reveal(claims: Mapping[str, Any], disclosures: list[str]) -> dict[str, Any]:
    """The claims that the disclosures prove, by name.

    Follows §7.1: every disclosure must match exactly one digest of the token.

    Raises:
        FormatError: malformed, a digest that the token does not hold or holds twice, a
            disclosure or a name given twice, or a name that the token already states
            in the clear.
    """
    known = _digests(claims)
    revealed: dict[str, Any] = {}
    for disclosure in disclosures:
        digest = _digest(disclosure) if disclosure.isascii() else ""
        if digest not in known:
            raise FormatError(
                "disclosures: one does not belong to this token",
                reason="form.disclosure",
            )
        known.remove(digest)
        _, name, value = _read(disclosure)
        if name in claims or name in revealed or name in {"_sd", "..."}:
            raise FormatError(f"disclosures: {name!r} is stated twice")
        revealed[name] = value
    return revealed
