"""A key in the transit engine of HashiCorp Vault or OpenBao.

    hashivault:issuer

The server and how to log in come from the environment, as for `vault` itself:
`VAULT_ADDR`, `VAULT_NAMESPACE`, `VAULT_CACERT`, and `VAULT_TOKEN` or the file
`~/.vault-token` that the agent keeps fresh. The key's type is `ecdsa-p256` or
`ed25519`; the caller may read `transit/keys/NAME` and write `transit/sign/NAME`.
"""

import base64
import re
from typing import Any

import hvac
import requests
from hvac.exceptions import VaultError

from attest.errors import ConfigurationError, FormatError, SignerError
from attest.keys import Algorithm, PublicKey, b64url_decode, b64url_encode

__all__ = ["HashiVaultSigner", "load_hashivault"]

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_SIGNATURE = re.compile(r"vault:v(\d+):([A-Za-z0-9+/=_-]+)\Z")
_TIMEOUT_SECONDS = 10
_ERRORS = (VaultError, requests.RequestException, KeyError, TypeError, FormatError)


def load_hashivault(rest: str) -> "HashiVaultSigner":
    """The signer of a key's name.

    Raises:
        ConfigurationError: the server does not answer, refuses, or the key is none
            that can be used.
    """
    if not _NAME.match(rest):
        raise ConfigurationError(
            "signer: hashivault: expected a key name", hint="hashivault:issuer"
        )
    try:
        return HashiVaultSigner(hvac.Client(timeout=_TIMEOUT_SECONDS), rest)
    except _ERRORS as error:
        raise ConfigurationError(
            f"signer: hashivault: {rest}: {type(error).__name__}",
            hint=f"check VAULT_ADDR and the token: vault read transit/keys/{rest}",
        ) from error


class HashiVaultSigner:
    """The version of a key that was the latest at the start.

    A key that is rotated in Vault meanwhile goes on signing with this version until
    the gateway is started again: the certificate's issuer must not change under it.
    """

    def __init__(self, client: Any, name: str) -> None:
        self._client, self._name = client, name
        data = client.secrets.transit.read_key(name)["data"]
        self._version = int(data["latest_version"])
        self.public = _public(data["keys"][str(self._version)]["public_key"])

    def sign(self, data: bytes) -> bytes:
        """The JOSE-form signature over `data`.

        Raises:
            SignerError: Vault does not sign, or with another version than asked for.
        """
        ecdsa = self.public.alg is Algorithm.ES256
        try:
            answer = self._client.secrets.transit.sign_data(
                self._name,
                hash_input=base64.b64encode(data).decode(),
                key_version=self._version,
                hash_algorithm="sha2-256" if ecdsa else None,
                marshaling_algorithm="jws" if ecdsa else None,
            )
            found = _SIGNATURE.match(answer["data"]["signature"])
            if found is None or int(found[1]) != self._version:
                raise FormatError("vault: expected a signature of the same version")
            # `jws` is base64url without padding, everything else plain base64.
            return (
                b64url_decode(found[2])
                if ecdsa
                else base64.b64decode(found[2], validate=True)
            )
        except (*_ERRORS, ValueError) as error:
            raise SignerError(
                f"signer: hashivault: {type(error).__name__}",
                hint=f"check: vault write transit/sign/{self._name} input=eA==",
            ) from error


def _public(text: str) -> PublicKey:
    if text.startswith("-----"):
        return PublicKey.from_bytes(text.encode())
    # Ed25519 keys come as bare base64.
    raw = b64url_encode(base64.b64decode(text, validate=True))
    return PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": raw})
