"""Keys in AWS KMS, against moto's implementation of its API.

moto does not implement `MessageType: DIGEST` and hashes what it is given once more, so
its signatures verify over the digest. KMS itself signs the digest as it is.
"""

import hashlib

import boto3
import pytest
from moto import mock_aws

from attest.errors import ConfigurationError, SignerError
from attest.keys import Algorithm
from attest.signers import load_signer


@pytest.fixture
def kms(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield boto3.client("kms")


def new_key(kms, spec="ECC_NIST_P256", usage="SIGN_VERIFY"):
    return kms.create_key(KeySpec=spec, KeyUsage=usage)["KeyMetadata"]


@pytest.mark.parametrize("by", ["KeyId", "Arn", "alias"])
def test_signature_verifies_with_the_public_key_that_kms_shows(kms, by):
    key = new_key(kms)
    kms.create_alias(AliasName="alias/issuer", TargetKeyId=key["KeyId"])
    signer = load_signer(f"awskms:{key.get(by, 'alias/issuer')}")
    assert signer.public.alg is Algorithm.ES256
    signature = signer.sign(b"certificate")
    assert len(signature) == 64
    signer.public.verify(signature, hashlib.sha256(b"certificate").digest())


def test_kms_is_sent_the_digest_alone(kms):
    """A manifest is larger than the 4,096 bytes that KMS takes."""
    signer = load_signer(f"awskms:{new_key(kms)['KeyId']}")
    sent = {}
    real = signer._client.sign
    signer._client.sign = lambda **call: sent.update(call) or real(**call)
    signer.sign(b"x" * 10_000)
    assert sent["MessageType"] == "DIGEST"
    assert sent["Message"] == hashlib.sha256(b"x" * 10_000).digest()


def test_arn_names_its_region_itself(kms, monkeypatch):
    key = new_key(kms)
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    signer = load_signer(f"awskms:{key['Arn']}")
    signer.public.verify(signer.sign(b"x"), hashlib.sha256(b"x").digest())


def test_key_that_is_switched_off_meanwhile_can_not_sign(kms):
    key = new_key(kms)
    signer = load_signer(f"awskms:{key['KeyId']}")
    kms.schedule_key_deletion(KeyId=key["KeyId"])
    kms.disable_key(KeyId=key["KeyId"])
    signer._client.sign = lambda **_: kms.sign(
        KeyId="missing", Message=b"", SigningAlgorithm="ECDSA_SHA_256"
    )
    with pytest.raises(SignerError, match="NotFoundException"):
        signer.sign(b"x")


def test_missing_key_is_never_made_up(kms):
    with pytest.raises(ConfigurationError) as caught:
        load_signer("awskms:alias/issuer")
    assert "aws kms get-public-key" in caught.value.hint
    assert kms.list_keys()["Keys"] == []


@pytest.mark.parametrize("spec", ["ECC_NIST_P384", "RSA_2048", "ECC_SECG_P256K1"])
def test_keys_of_another_kind(kms, spec):
    key = new_key(kms, spec)
    with pytest.raises(ConfigurationError):
        load_signer(f"awskms:{key['KeyId']}")


@pytest.mark.parametrize("text", ["arn:aws", "arn:aws:kms", ""])
def test_broken_names(kms, text):
    with pytest.raises(ConfigurationError):
        load_signer(f"awskms:{text}")
