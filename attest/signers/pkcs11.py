"""A key in an HSM or a smart card, through PKCS #11.

    pkcs11:token=ca;object=issuer?module-path=/usr/lib/p11.so&pin-source=/run/secrets/pin

The URI is that of RFC 7512, with these four attributes. The PIN comes from a file:
flags and environment variables show in process lists.
"""

import hashlib
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pkcs11
from asn1crypto.core import OctetString
from asn1crypto.keys import PublicKeyInfo
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass
from pkcs11.util.ec import encode_ec_public_key

from attest.errors import ConfigurationError, FormatError, SignerError
from attest.keys import Algorithm, PublicKey, b64url_encode

__all__ = ["Pkcs11Signer", "load_pkcs11", "parse_uri"]

_ATTRIBUTES = ("token", "object")
_QUERY = ("module-path", "pin-source")
_HINT = (
    "for example: pkcs11:token=ca;object=issuer?module-path=/usr/lib/p11.so"
    "&pin-source=/run/secrets/pin"
)
_ERRORS = (pkcs11.PKCS11Error, RuntimeError, OSError)


def parse_uri(rest: str) -> dict[str, str]:
    """The attributes of a URI without its scheme (RFC 7512 §2.3), percent-decoded.

    Raises:
        ConfigurationError: an attribute is missing, unknown, empty or given twice.
    """
    path, _, query = rest.partition("?")
    found: dict[str, str] = {}
    for part, known in (
        *((item, _ATTRIBUTES) for item in path.split(";")),
        *((item, _QUERY) for item in query.split("&")),
    ):
        name, _, value = part.partition("=")
        if name not in known or not value or name in found:
            raise ConfigurationError(
                f"signer: pkcs11: expected {', '.join(known)}, each once; found "
                f"{name!r}",
                hint=_HINT,
            )
        found[name] = unquote(value)
    missing = [n for n in (*_ATTRIBUTES, *_QUERY) if n not in found]
    if missing:
        raise ConfigurationError(f"signer: pkcs11: {missing[0]} is missing", hint=_HINT)
    return found


def load_pkcs11(rest: str) -> "Pkcs11Signer":
    """The signer of a URI without its scheme.

    Raises:
        ConfigurationError: the URI, the module, the PIN or the key is unusable.
    """
    attributes = parse_uri(rest)
    try:
        pin = Path(attributes["pin-source"].removeprefix("file:")).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"signer: pin-source: {getattr(error, 'strerror', None) or 'not text'}",
            hint="name a file that this user may read and that holds the PIN alone",
        ) from error
    try:
        return Pkcs11Signer(attributes, pin)
    except _ERRORS as error:
        raise ConfigurationError(
            f"signer: pkcs11: token {attributes['token']!r}, object "
            f"{attributes['object']!r}: {_words(error)}",
            hint="compare with: pkcs11-tool --module MODULE --list-objects",
        ) from error


class Pkcs11Signer:
    """A P-256 or Ed25519 key pair of one token; the private half never leaves it.

    Safe to use from several threads. A session that the token has dropped is opened
    anew, once per signature.
    """

    def __init__(self, attributes: Mapping[str, str], pin: str) -> None:
        self._attributes, self._pin = attributes, pin
        self._lock = threading.Lock()
        self._session: Any = None
        self._key: Any = None
        self.public = _public(self._open())

    def sign(self, data: bytes) -> bytes:
        """The JOSE-form signature over `data`.

        Raises:
            SignerError: the token does not sign.
        """
        with self._lock:
            try:
                return self._sign(data)
            except _ERRORS:
                try:
                    self._open()
                    return self._sign(data)
                except _ERRORS as error:
                    raise SignerError(
                        f"signer: pkcs11: the token does not sign: {_words(error)}",
                        hint="look at the token; the signer is asked again later",
                    ) from error

    def _open(self) -> Any:
        """Open a session; returns the public key object."""
        if self._session is not None:
            self._close()
        library = pkcs11.lib(self._attributes["module-path"])
        token = library.get_token(token_label=self._attributes["token"])
        try:
            self._session = token.open(user_pin=self._pin)
        except pkcs11.UserAlreadyLoggedIn:
            # A login counts for the whole process: another key of this token has it.
            self._session = token.open()
        label = self._attributes["object"]
        self._key, public = (
            self._session.get_key(object_class=kind, label=label)
            for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        )
        return public

    def _close(self) -> None:
        try:
            self._session.close()
        except _ERRORS:
            # It is gone already, which is why another one is opened.
            self._session = None

    def _sign(self, data: bytes) -> bytes:
        if self.public.alg is Algorithm.EDDSA:
            signature = self._key.sign(data, mechanism=Mechanism.EDDSA)
        else:
            # Hashed here: few tokens have ECDSA_SHA256, all have ECDSA. The result is
            # r‖s already (PKCS #11 v3.0 §6.3.1).
            signature = self._key.sign(
                hashlib.sha256(data).digest(), mechanism=Mechanism.ECDSA
            )
        return bytes(signature)


def _public(key: Any) -> PublicKey:
    if key.key_type is KeyType.EC_EDWARDS:
        # Tokens disagree on whether the point is wrapped in an OCTET STRING.
        point = bytes(key[Attribute.EC_POINT])
        raw = point if len(point) == 32 else bytes(OctetString.load(point))
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64url_encode(raw)}
        return PublicKey.from_jwk(jwk)
    der = encode_ec_public_key(key)
    point = PublicKeyInfo.load(der)["public_key"].native
    try:
        return PublicKey.from_jwk(
            {
                "kty": "EC",
                "crv": "P-256",
                "x": b64url_encode(point[1:33]),
                "y": b64url_encode(point[33:]),
            }
        )
    except FormatError as error:
        raise ConfigurationError(
            f"signer: pkcs11: {error}", hint="make a P-256 or Ed25519 key pair"
        ) from error


def _words(error: Exception) -> str:
    """The name of the token's error; its text may hold attribute values."""
    return type(error).__name__
