"""Somebody signs the right claims with a key that nobody vouches for."""

import hashlib
import hmac
import json
from dataclasses import replace

import pytest
from fakes.clients import ask
from fakes.world import GATEWAY, REQUEST, STREAM_REQUEST, make_world

from attest import disclosures, tokens
from attest.errors import VerificationError
from attest.keys import Algorithm, PrivateKey, b64url_decode, b64url_encode
from attest.verify import issuer_uri, verify

TYP = "inference-attestation+jwt"


def problem(bundle, world):
    found = verify(bundle, world.policy, at=world.now)
    assert not found.proven
    return found.problem.number, found.problem.code


def resigned(bundle, header, sign):
    """The bundle's token with another header, signed by `sign`."""
    compact, opened = disclosures.split(bundle.token)
    payload = compact.split(".")[1]
    head = b64url_encode(json.dumps(header).encode())
    signing_input = f"{head}.{payload}"
    token = f"{signing_input}.{b64url_encode(sign(signing_input.encode()))}"
    return replace(bundle, token=disclosures.join(token, opened))


def header_of(bundle):
    return json.loads(b64url_decode(bundle.token.split(".")[0]))


@pytest.mark.parametrize("request_body", [REQUEST, STREAM_REQUEST])
def test_on_the_wire(flavour, attested, request_body):
    stranger = PrivateKey.generate()

    def forge(*exchange, **facts):
        return attested.world.token(*exchange, key=stranger, **facts)

    attested.forge = forge
    answer = ask(flavour, attested, request_body)
    assert isinstance(answer.error, VerificationError)
    assert "step 2 key: " in str(answer.error)
    assert b"[DONE]" not in answer.body


def test_a_whole_world_of_a_stranger(flavour, attested):
    """Everything is consistent, and signed by another authority."""
    policy = attested.world.policy
    attested.world = make_world()
    answer = ask(flavour, attested, policy=policy)
    assert isinstance(answer.error, VerificationError)
    assert "step 1 manifest" in str(answer.error)


@pytest.mark.parametrize("alg", list(Algorithm))
def test_a_key_that_nobody_certified(world, alg):
    bundle = world.bundle(key=PrivateKey.generate(alg))
    assert problem(bundle, world) == (2, "signature")


def test_a_key_that_certified_itself(world):
    stranger = PrivateKey.generate()
    own = tokens.parse(world.certificate, typ="gateway-key+jwt").claims | {
        "iss": issuer_uri(stranger.public),
        "cnf": {"jwk": stranger.public.jwk},
    }
    certificate = tokens.mint("gateway-key+jwt", own, stranger)
    bundle = world.bundle(key=stranger)
    bundle = replace(bundle, key_certificates=(world.certificate, certificate))
    assert problem(bundle, world) == (2, "signature")


def test_the_kid_of_the_true_key(world):
    stranger = PrivateKey.generate()
    bundle = world.bundle()
    forged = resigned(bundle, header_of(bundle), stranger.sign)
    assert problem(forged, world) == (4, "signature")


def test_the_true_key_in_the_header(world):
    """A key that the token brings along proves nothing (RFC 8725 §3.10)."""
    stranger = PrivateKey.generate()
    bundle = world.bundle()
    header = {**header_of(bundle), "jwk": stranger.public.jwk}
    assert problem(resigned(bundle, header, stranger.sign), world) == (0, "format")


@pytest.mark.parametrize("name", ["jku", "x5u", "x5c", "crit", "b64"])
def test_further_header_members(world, name):
    bundle = world.bundle()
    header = {**header_of(bundle), name: "https://stranger.test"}
    forged = resigned(bundle, header, world.session.sign)
    assert problem(forged, world) == (0, "format")


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "HS256", "RS256", "ES384", ""])
def test_an_algorithm_that_is_not_on_the_list(world, alg):
    bundle = world.bundle()
    header = {**header_of(bundle), "alg": alg}
    forged = resigned(bundle, header, world.session.sign)
    assert problem(forged, world) == (0, "algorithm")


def test_no_signature_at_all(world):
    bundle = world.bundle()
    header = {**header_of(bundle), "alg": "none"}
    assert problem(resigned(bundle, header, lambda _: b""), world) == (0, "format")


@pytest.mark.parametrize("secret", ["pem", "raw", "jwk"])
def test_hs256_with_the_public_key_as_secret(world, secret):
    public = world.session.public
    key = {
        "pem": public.pem,
        "raw": b64url_decode(public.jwk["x"]),
        "jwk": json.dumps(public.jwk).encode(),
    }[secret]
    bundle = world.bundle()
    header = {**header_of(bundle), "alg": "HS256"}
    forged = resigned(
        bundle, header, lambda data: hmac.digest(key, data, hashlib.sha256)
    )
    assert problem(forged, world) == (0, "algorithm")


def test_the_other_algorithm_of_the_list(world):
    """EdDSA key, ES256 header: the algorithm belongs to the key, not to the token."""
    stranger = PrivateKey.generate(Algorithm.ES256)
    bundle = world.bundle()
    header = {**header_of(bundle), "alg": "ES256"}
    assert problem(resigned(bundle, header, stranger.sign), world) == (4, "algorithm")


def test_a_foreign_kid(world):
    """The true key signed, and the header names the authority."""
    bundle = world.bundle()
    header = {**header_of(bundle), "kid": world.authority.public.thumbprint}
    forged = resigned(bundle, header, world.session.sign)
    assert problem(forged, world) == (2, "signature")


def test_a_boot_record_signed_as_a_token(world):
    bundle = world.bundle()
    compact = disclosures.split(bundle.token)[0]
    swapped = replace(bundle, token=bundle.boot_record, boot_record=compact)
    assert problem(swapped, world) == (0, "format")


def test_a_certificate_for_another_manifest(world):
    other = make_world()
    bundle = world.bundle()
    foreign = replace(
        world.certified(world.session, certificate={"manifests": []}).bundle(),
        manifest=other.envelope,
    )
    assert problem(foreign, world) == (1, "signature")
    mine = world.certified(
        world.session, certificate={"manifests": [other.manifest.digest]}
    )
    assert problem(mine.bundle(), world) == (5, "false")
    assert verify(bundle, world.policy, at=world.now).proven


def test_another_gateway_of_the_same_authority(world):
    """Its key is certified, for itself."""
    other = world.certified(PrivateKey.generate(), certificate={"sub": "other.test"})
    assert other.bundle().key_certificates != (world.certificate,)
    assert problem(other.bundle(claims={"iss": GATEWAY}), world) == (5, "false")
