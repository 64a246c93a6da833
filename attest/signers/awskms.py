"""A P-256 key in AWS KMS.

    awskms:arn:aws:kms:eu-central-1:111122223333:key/…    or    awskms:alias/issuer

Credentials and region come from the SDK's own chain: workload identity, instance role,
environment. The key needs `KeyUsage: SIGN_VERIFY`, `KeySpec: ECC_NIST_P256`; the caller
needs `kms:GetPublicKey` and `kms:Sign`.
"""

import hashlib
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from cryptography.hazmat.primitives import serialization

from attest.errors import ConfigurationError, FormatError, SignerError
from attest.keys import Algorithm, PublicKey, der_to_jose

__all__ = ["AwsKmsSigner", "load_awskms"]

# A start waits for it, a rotation tries again later.
_CONFIG = Config(
    connect_timeout=5, read_timeout=10, retries={"mode": "standard", "max_attempts": 3}
)


def load_awskms(rest: str) -> "AwsKmsSigner":
    """The signer of a key id, an ARN or an alias.

    Raises:
        ConfigurationError: no region, no credentials, no such key, or one of another
            kind.
    """
    try:
        # An ARN names its region itself.
        region = rest.split(":")[3] if rest.startswith("arn:") else None
        client = boto3.client("kms", region_name=region, config=_CONFIG)
        return AwsKmsSigner(client, rest)
    except (BotoCoreError, ClientError, IndexError) as error:
        raise ConfigurationError(
            f"signer: awskms: {rest}: {_words(error)}",
            hint="check: aws kms get-public-key --key-id " + rest,
        ) from error
    except FormatError as error:
        raise ConfigurationError(
            f"signer: awskms: {rest}: {error}",
            hint="make a key of spec ECC_NIST_P256 for SIGN_VERIFY",
        ) from error


class AwsKmsSigner:
    """One key; the private half never leaves KMS. Safe to use from several threads."""

    def __init__(self, client: Any, key_id: str) -> None:
        self._client, self._key_id = client, key_id
        der = client.get_public_key(KeyId=key_id)["PublicKey"]
        self.public = _public(der)

    def sign(self, data: bytes) -> bytes:
        """The JOSE-form signature over `data`.

        Raises:
            SignerError: KMS does not sign.
        """
        try:
            answer = self._client.sign(
                KeyId=self._key_id,
                Message=hashlib.sha256(data).digest(),
                MessageType="DIGEST",
                SigningAlgorithm="ECDSA_SHA_256",
            )
        except (BotoCoreError, ClientError) as error:
            raise SignerError(
                f"signer: awskms: {_words(error)}",
                hint="check the key's state and the caller's kms:Sign permission",
            ) from error
        return der_to_jose(answer["Signature"])


def _public(der: bytes) -> PublicKey:
    try:
        key = serialization.load_der_public_key(der)
    except ValueError as error:
        raise FormatError("key: not a SubjectPublicKeyInfo") from error
    pem = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public = PublicKey.from_bytes(pem)
    if public.alg is not Algorithm.ES256:
        raise FormatError("key: expected P-256")
    return public


def _words(error: Exception) -> str:
    """The service's code; its message may name accounts and roles."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", "ClientError"))
    return type(error).__name__
