"""Signed JWTs with a strict front: what we sign, and what we agree to read.

PyJWT checks the signature. Alone it takes ten malformed kinds of token (duplicate keys,
NaN, a wrong `typ`, padding, UTF-16 …), so it sees nothing that `parse` has not seen.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from attest.canonical import read_object
from attest.digests import digest, digest_text
from attest.errors import AlgorithmError, FormatError, SignatureError
from attest.keys import Algorithm, PublicKey, Signer, b64url_decode, b64url_encode

__all__ = [
    "MAX_TOKEN",
    "Token",
    "mint",
    "parse",
    "signing_digest",
    "signing_hash",
    "verify",
]

# A token without its disclosures; real ones have about 2 kB.
MAX_TOKEN = 16 * 1024
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")
_THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}\Z")
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _to_json(value: Mapping[str, Any]) -> bytes:
    return _encode(value).encode("ascii")


@dataclass(frozen=True, slots=True)
class Token:
    """A well-formed token whose signature has NOT been checked.

    Attributes:
        compact: the three-part text, without disclosures.
        kid: RFC 7638 thumbprint of the key that is said to have signed.
    """

    compact: str
    alg: str
    kid: str
    claims: Mapping[str, Any]

    @property
    def signing_input(self) -> bytes:
        """The signed bytes (RFC 7515 §5.1): what identifies this token.

        Never use a digest of the whole token, since ES256 signatures are malleable.
        """
        return self.compact.rpartition(".")[0].encode("ascii")

    @property
    def digest(self) -> str:
        """Digest of the signing input."""
        return digest(self.signing_input)


def signing_hash(compact: str) -> bytes:
    """SHA-256 of the signing input of a token that this process has just made."""
    return hashlib.sha256(compact.rpartition(".")[0].encode("ascii")).digest()


def signing_digest(compact: str) -> str:
    """The same in text form."""
    return digest_text(signing_hash(compact))


def mint(
    typ: str,
    claims: Mapping[str, Any],
    signer: Signer,
    *,
    encode: Callable[[Mapping[str, Any]], bytes] = _to_json,
) -> str:
    """A compact JWS (RFC 7515 §7.1) over `claims`, header keys exactly alg, typ, kid.

    Args:
        typ: of the header.
        claims: the payload.
        signer: whose key signs.
        encode: writes the payload as JSON, for a caller that has a faster way and
            knows that no NaN is among its claims.

    Raises:
        SignerError: the key store can't sign.
    """
    public = signer.public
    header = _header(str(public.alg), public.thumbprint, typ)
    signing_input = f"{header}.{b64url_encode(encode(claims))}"
    signature = signer.sign(signing_input.encode("ascii"))
    return f"{signing_input}.{b64url_encode(signature)}"


@lru_cache(maxsize=64)  # the same for all tokens of one key
def _header(alg: str, kid: str, typ: str) -> str:
    return b64url_encode(_to_json({"alg": alg, "kid": kid, "typ": typ}))


def parse(compact: str, *, typ: str) -> Token:
    """Read a token strictly; nothing is known about who signed it.

    Raises:
        FormatError: too large, not three base64url parts in canonical spelling, JSON
            that `read_object` refuses, a header with other keys than alg, typ and kid
            (so `jwk`, `jku`, `x5c`, `crit` and `b64` are all refused), another `typ`,
            or a `kid` that is no thumbprint.
        AlgorithmError: an `alg` that is not on our list, `none` and HS256 included.
    """
    if len(compact) > MAX_TOKEN:
        raise FormatError(f"token: more than {MAX_TOKEN} bytes")
    if not _SHAPE.match(compact):
        raise FormatError("token: expected three base64url parts joined by dots")
    parts = [b64url_decode(part) for part in compact.split(".")]
    header = read_object(parts[0], max_bytes=1024, max_depth=4)
    if header.keys() != {"alg", "kid", "typ"}:
        raise FormatError("token: header keys must be exactly alg, typ, kid")
    alg, kid = header["alg"], header["kid"]
    if header["typ"] != typ:
        raise FormatError(f"token: typ is not {typ}")
    if not isinstance(alg, str):
        raise FormatError("token: alg must be a string")
    if alg not in set(Algorithm):
        raise AlgorithmError(
            f"token: alg must be one of {', '.join(Algorithm)}",
            hint="a token with another algorithm was not made by a gateway",
        )
    if not isinstance(kid, str) or not _THUMBPRINT.match(kid):
        raise FormatError("token: kid must be an RFC 7638 thumbprint")
    claims = read_object(parts[1], max_bytes=MAX_TOKEN, max_depth=16)
    return Token(compact, alg, kid, claims)


def verify(token: Token, key: PublicKey) -> None:
    """Return when `token` was signed by `key` with the algorithm bound to that key.

    Raises:
        AlgorithmError: the header names another algorithm than the key's.
        SignatureError: the header names another key, or the signature is not by `key`.
    """
    # A fifth of a verifier's import, and nothing to those who only sign.
    import jwt  # noqa: PLC0415

    if token.alg != key.alg:
        raise AlgorithmError(f"token: alg {token.alg} with a key bound to {key.alg}")
    if token.kid != key.thumbprint:
        raise SignatureError(f"token: kid is not {key.thumbprint}")
    algorithms = [str(key.alg)]
    try:
        jws = jwt.PyJWS(algorithms=algorithms)
        jws.decode(token.compact, jwt.PyJWK(key.jwk), algorithms=algorithms)
    except jwt.PyJWTError:
        raise SignatureError(
            f"token: the signature is not by key {key.thumbprint}",
            hint="the token was changed, or another key signed it",
        ) from None
