"""Signing keys: Ed25519 (`EdDSA`) and P-256 (`ES256`), as PEM and as JWK.

The algorithm is a property of the key, never of the message (RFC 8725 §3.1): every
verification takes it from here. Signatures have JOSE form (RFC 7518 §3.4): ES256 is the
64 bytes r‖s, never DER.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from attest.canonical import canonical, read_object
from attest.errors import FormatError, SignatureError

__all__ = [
    "Algorithm",
    "PrivateKey",
    "PublicKey",
    "Signer",
    "b64url_decode",
    "b64url_encode",
    "der_to_jose",
    "jose_to_der",
]

_MAX_KEY_FILE = 16 * 1024
_URLSAFE = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
)
_ECDSA = ec.ECDSA(hashes.SHA256())


class Algorithm(StrEnum):
    """JOSE names (RFC 7518, RFC 8037) of the algorithms that a key may have."""

    EDDSA = "EdDSA"
    ES256 = "ES256"


def b64url_encode(data: bytes) -> str:
    """Base64url without padding (RFC 7515 §2)."""
    # Taking the newline off costs less than asking for none, and JSON has few + and /.
    text = binascii.b2a_base64(data).rstrip(b"=\n")
    return text.replace(b"+", b"-").replace(b"/", b"_").decode()


def b64url_decode(text: str | bytes) -> bytes:
    """The bytes of an unpadded base64url text, in its one canonical spelling.

    Raises:
        FormatError: another alphabet, padding, white space, an impossible length, or
            non-zero bits after the last byte (which would give one value two texts).
    """
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        if not _URLSAFE.issuperset(raw):
            raise FormatError("base64url: a character outside A-Z a-z 0-9 - _")
        data = base64.urlsafe_b64decode(raw + b"=" * (-len(raw) % 4))
    except (UnicodeEncodeError, binascii.Error):
        raise FormatError("base64url: not decodable") from None
    if b64url_encode(data).encode() != raw:
        raise FormatError("base64url: stray bits after the last byte")
    return data


def jose_to_der(signature: bytes) -> bytes:
    """The DER form of a 64-byte r‖s signature, as DSSE and X.509 tools want it."""
    if len(signature) != 64:
        raise SignatureError("signature: ES256 needs 64 bytes")
    return encode_dss_signature(
        int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    )


def der_to_jose(signature: bytes) -> bytes:
    """The 64-byte r‖s form of a DER ECDSA signature over P-256.

    Raises:
        SignatureError: not DER, or numbers too large for P-256.
    """
    try:
        r, s = decode_dss_signature(signature)
        return r.to_bytes(32) + s.to_bytes(32)
    except (ValueError, OverflowError):
        raise SignatureError("signature: not a DER P-256 signature") from None


class Signer(Protocol):
    """Whatever can sign with one key: memory, a file, an HSM, a KMS."""

    @property
    def public(self) -> "PublicKey":
        """The public half."""

    def sign(self, data: bytes) -> bytes:
        """The JOSE-form signature over `data`; SignerError when it can't be made."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key that is bound to exactly one algorithm.

    Attributes:
        thumbprint: RFC 7638 SHA-256 thumbprint, base64url; used as `kid` and as
            identity.
    """

    alg: Algorithm
    _key: Ed25519PublicKey | ec.EllipticCurvePublicKey
    thumbprint: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Derive what every token names."""
        digest = hashlib.sha256(canonical(self.jwk)).digest()
        object.__setattr__(self, "thumbprint", b64url_encode(digest))

    @classmethod
    def _of(cls, key: object) -> "PublicKey":
        if isinstance(key, Ed25519PublicKey):
            return cls(Algorithm.EDDSA, key)
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(
            key.curve, ec.SECP256R1
        ):
            return cls(Algorithm.ES256, key)
        raise FormatError("key: expected Ed25519 or P-256")

    @classmethod
    def from_bytes(cls, data: bytes) -> "PublicKey":
        """Read a SubjectPublicKeyInfo PEM or a JWK.

        Raises:
            FormatError: neither, or another kind of key; private keys are refused so
                that one can't be handed round by mistake.
        """
        if len(data) > _MAX_KEY_FILE:
            raise FormatError(f"key: more than {_MAX_KEY_FILE} bytes")
        if data.lstrip().startswith(b"{"):
            return cls.from_jwk(read_object(data, max_bytes=_MAX_KEY_FILE))
        try:
            key = serialization.load_pem_public_key(data)
        except (ValueError, UnsupportedAlgorithm):
            raise FormatError("key: not a public key in PEM or JWK form") from None
        return cls._of(key)

    @classmethod
    def from_jwk(cls, jwk: object) -> "PublicKey":
        """Read a public JWK (RFC 7517, RFC 8037 §2).

        Members beyond the key material (`kid`, `use`, `alg`) are ignored.

        Raises:
            FormatError: not an OKP/Ed25519 or EC/P-256 key, a coordinate of the wrong
                length, a point off the curve, or a private member present.
        """
        if not isinstance(jwk, dict) or "d" in jwk:
            raise FormatError("key: expected a public JWK object")
        match jwk:
            case {"kty": "OKP", "crv": "Ed25519", "x": str(x)}:
                raw = b64url_decode(x)
                if len(raw) != 32:
                    raise FormatError("key: Ed25519 x must be 32 bytes")
                return cls(Algorithm.EDDSA, Ed25519PublicKey.from_public_bytes(raw))
            case {"kty": "EC", "crv": "P-256", "x": str(x), "y": str(y)}:
                point = b64url_decode(x), b64url_decode(y)
                if [len(part) for part in point] != [32, 32]:
                    raise FormatError("key: P-256 x and y must be 32 bytes")
                try:
                    key = ec.EllipticCurvePublicKey.from_encoded_point(
                        ec.SECP256R1(), b"\x04" + b"".join(point)
                    )
                except ValueError:
                    raise FormatError("key: the point is not on P-256") from None
                return cls(Algorithm.ES256, key)
        raise FormatError("key: expected an OKP/Ed25519 or EC/P-256 JWK")

    @property
    def jwk(self) -> dict[str, Any]:
        """The required members only, so that it is also the RFC 7638 §3.2 input."""
        if isinstance(self._key, Ed25519PublicKey):
            raw = self._key.public_bytes_raw()
            return {"crv": "Ed25519", "kty": "OKP", "x": b64url_encode(raw)}
        numbers = self._key.public_numbers()
        return {
            "crv": "P-256",
            "kty": "EC",
            "x": b64url_encode(numbers.x.to_bytes(32)),
            "y": b64url_encode(numbers.y.to_bytes(32)),
        }

    @property
    def pem(self) -> bytes:
        """SubjectPublicKeyInfo PEM."""
        return self._key.public_bytes(
            serialization.Encoding.PEM,
            serialization.PublicFormat.SubjectPublicKeyInfo,
        )

    def verify(self, signature: bytes, data: bytes) -> None:
        """Return when `signature` (JOSE form) over `data` is by this key.

        ES256 is malleable (n-S verifies as S does): a signature is no identity.

        Raises:
            SignatureError: it is not, or it has the wrong length.
        """
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, data)
            else:
                self._key.verify(jose_to_der(signature), data, _ECDSA)
        except InvalidSignature:
            raise SignatureError(
                f"signature: not by key {self.thumbprint}",
                hint="the signed bytes were changed, or another key signed them",
            ) from None


@dataclass(frozen=True, slots=True)
class PrivateKey:
    """A private key in memory; also the simplest `Signer`."""

    _key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey
    _public: PublicKey = field(init=False, compare=False)

    def __post_init__(self) -> None:
        public = PublicKey._of(self._key.public_key())  # noqa: SLF001  # same module
        object.__setattr__(self, "_public", public)

    @classmethod
    def generate(cls, alg: Algorithm = Algorithm.EDDSA) -> "PrivateKey":
        """A fresh key from the operating system's random source."""
        if alg is Algorithm.EDDSA:
            return cls(Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_pem(cls, data: bytes, *, password: bytes | None = None) -> "PrivateKey":
        """Read a PKCS#8 PEM.

        Raises:
            FormatError: unreadable, a wrong password, or another kind of key.
        """
        if len(data) > _MAX_KEY_FILE:
            raise FormatError(f"key: more than {_MAX_KEY_FILE} bytes")
        try:
            key = serialization.load_pem_private_key(data, password)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise FormatError("key: not a readable PKCS#8 private key in PEM") from None
        PublicKey._of(key.public_key())  # noqa: SLF001  # same module, refuses others
        return cls(key)  # type: ignore[arg-type]

    @property
    def public(self) -> PublicKey:
        """The public half."""
        return self._public

    @property
    def pem(self) -> bytes:
        """Unencrypted PKCS#8 PEM: the secret itself."""
        return self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, data: bytes) -> bytes:
        """The JOSE-form signature over `data`."""
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(data)
        return der_to_jose(self._key.sign(data, _ECDSA))

    def __repr__(self) -> str:
        """Names the key without showing it."""
        return f"PrivateKey({self.public.thumbprint})"
