import json

import pytest
from fakes.world import GATEWAY, NOW, make_world

from attest import tokens
from attest.claims import Measured, check_claims
from attest.errors import ManifestMismatchError
from attest.keys import Algorithm, PublicKey
from attest.recall import read_reference
from gateway.boot import Boot, WeightsReport, boot_record, certify, refusal

EVIDENCE = {
    "engine": {"name": "vllm", "version": "0.32.0", "dtype": "float32"},
    "serving_state": {"dtype": "float32", "lora": None},
    "software": {"vllm": "0.32.0"},
}


@pytest.fixture(scope="module", params=list(Algorithm))
def world(request):
    return make_world(alg=request.param)


@pytest.fixture
def session(world):
    return certify(world.issuer, GATEWAY, world.manifest, now=NOW)


def test_session_key_has_the_signers_algorithm(world, session):
    assert session.key.public.alg == world.issuer.public.alg
    assert session.key != world.issuer


def test_certificate_is_by_the_signer_for_this_manifest(world, session):
    certificate = tokens.parse(session.certificate, typ="gateway-key+jwt")
    tokens.verify(certificate, world.issuer.public)
    check_claims(certificate.claims, "gateway-key+jwt")
    assert certificate.claims["manifests"] == [world.manifest.digest]
    key = PublicKey.from_jwk(certificate.claims["cnf"]["jwk"])
    assert key.thumbprint == session.key.public.thumbprint


def test_certificate_without_manifest_speaks_for_none(world):
    session = certify(world.issuer, GATEWAY, None, now=NOW)
    claims = tokens.parse(session.certificate, typ="gateway-key+jwt").claims
    assert claims["manifests"] == []


def test_two_boots_never_share_a_key(world):
    first, second = (certify(world.issuer, GATEWAY, None, now=NOW) for _ in range(2))
    assert first.key.public.thumbprint != second.key.public.thumbprint


def test_boot_record_is_well_formed_and_signed_by_the_session(world, session):
    manifest = world.manifest
    weights = WeightsReport(manifest.tensor_root, 2, Measured.ENGINE, NOW)
    record = boot_record(
        session, manifest=manifest, weights=weights, evidence=EVIDENCE, now=NOW
    )
    token = tokens.parse(record, typ="eat+jwt")
    tokens.verify(token, session.key.public)
    assert check_claims(token.claims, "eat+jwt") == ()
    boot = Boot(session, manifest, world.envelope, weights, record)
    assert boot.digest == token.digest
    served = json.loads(boot.endorsements())
    assert served["bootRecord"] == record
    assert served["keyCertificates"] == [session.certificate]


def test_refusal_is_signed_and_says_why(world, session):
    error = ManifestMismatchError("weights: model.safetensors differs")
    record = refusal(session, manifest=world.manifest, error=error, now=NOW)
    token = tokens.parse(record["refusal"], typ="startup-refusal+jwt")
    tokens.verify(token, session.key.public)
    check_claims(token.claims, "startup-refusal+jwt")
    assert token.claims["code"] == "manifest_mismatch"
    assert token.claims["reason"] == "weights: model.safetensors differs"


def test_refusal_before_a_manifest_was_read(world):
    session = certify(world.issuer, GATEWAY, None, now=NOW)
    error = ManifestMismatchError("manifest: unreadable")
    record = refusal(session, manifest=None, error=error, now=NOW)
    token = tokens.parse(record["refusal"], typ="startup-refusal+jwt")
    check_claims(token.claims, "startup-refusal+jwt")
    assert token.claims["manifest"] is None


def test_certificate_with_a_place_in_a_status_list(world):
    session = certify(
        world.issuer, GATEWAY, None, now=NOW, status_uri="https://a.test/s"
    )
    claims = tokens.parse(session.certificate, typ="gateway-key+jwt").claims
    assert read_reference(claims["status"]).uri == "https://a.test/s"
