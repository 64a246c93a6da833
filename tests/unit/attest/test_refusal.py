import json

import pytest
from fakes.world import ABSENT, DAY, GATEWAY, merged
from hypothesis import given
from hypothesis import strategies as st

from attest import tokens
from attest.certificates import issuer_uri
from attest.claims import EAT_PROFILE
from attest.errors import FormatError
from attest.keys import PrivateKey
from attest.policy import Policy, Tier
from attest.refusal import read_refusal, verify_refusal
from attest.verify import Status


def record(world, *, claims=None, key=None, typ="startup-refusal+jwt", **members):
    base = {
        "iss": GATEWAY,
        "iat": world.now,
        "jti": "ref_1",
        "eat_profile": EAT_PROFILE,
        "manifest": {"digest": world.manifest.digest},
        "code": "manifest_mismatch",
        "reason": "weights: changed: model.safetensors",
    }
    value = {
        "refusal": tokens.mint(typ, merged(base, claims or {}), key or world.session),
        "keyCertificate": world.certificate,
        "manifest": json.loads(world.envelope),
    }
    return json.dumps(merged(value, members)).encode()


def judge(world, data, **policy):
    demands = Policy(authorities=(world.authority.public,), **policy)
    return verify_refusal(data, demands, at=world.now)


def failed(verdict):
    assert verdict.false
    assert verdict.tier is Tier.T0
    return verdict.problem.name


def by_authority(world, **changes):
    """A certificate for the session key by the authority itself."""
    claims = tokens.parse(world.certificate, typ="gateway-key+jwt").claims
    claims = {**claims, "iss": issuer_uri(world.authority.public), **changes}
    return tokens.mint("gateway-key+jwt", claims, world.authority)


def test_refusal_is_proven(world):
    verdict = judge(world, record(world))
    assert verdict.proven
    assert verdict.tier is Tier.T1
    assert verdict.claims["code"] == "manifest_mismatch"
    assert "model.safetensors" in verdict.step(4).detail


def test_policy_for_answers_does_not_matter(world):
    assert judge(world, record(world), min_tier=Tier.T4, max_age_seconds=0).proven


def test_expired_manifest_is_no_fault(world):
    late = world.manifest.not_after + DAY
    certificate = by_authority(world, iat=late, nbf=late, exp=late + DAY)
    data = record(world, claims={"iat": late}, keyCertificate=certificate)
    assert verify_refusal(data, world.policy, at=late).proven


def test_without_a_manifest_the_authority_itself_must_certify(world):
    claims = {"manifest": None}
    bare = record(world, claims=claims, manifest=None)
    verdict = judge(world, bare)
    assert not verdict.proven
    assert not verdict.false
    assert verdict.problem.name == "key"
    certificate = by_authority(world, manifests=[])
    good = record(world, claims=claims, manifest=None, keyCertificate=certificate)
    assert judge(world, good).proven
    assert judge(world, good).step(1).status is Status.NOT_CHECKED


def test_without_a_certificate_nobody_can_tell(world):
    verdict = judge(world, record(world, keyCertificate=None))
    assert verdict.problem.status is Status.UNKNOWN


def test_foreign_authority(world):
    foreign = Policy(authorities=(PrivateKey.generate().public,))
    verdict = verify_refusal(record(world), foreign, at=world.now)
    assert failed(verdict) == "manifest"


def test_key_that_nobody_certified(world):
    assert failed(judge(world, record(world, key=PrivateKey.generate()))) == "key"


def test_changed_reason(world):
    value = json.loads(record(world))
    head, _, signature = value["refusal"].split(".")
    other = json.loads(record(world, claims={"reason": "nothing"}))
    value["refusal"] = ".".join([head, other["refusal"].split(".")[1], signature])
    assert failed(judge(world, json.dumps(value).encode())) == "signature"


@pytest.mark.parametrize(
    "claims",
    [
        {"manifest": None},
        {"manifest": {"digest": "sha256:" + "0" * 64}},
        {"iss": "gateway.other"},
    ],
)
def test_parts_that_disagree(world, claims):
    assert failed(judge(world, record(world, claims=claims))) == "agreement"


def test_certificate_for_another_manifest(world):
    certificate = by_authority(world, manifests=["sha256:" + "0" * 64])
    data = record(world, keyCertificate=certificate)
    assert failed(judge(world, data)) == "agreement"


def test_signed_in_the_future(world):
    data = record(world, claims={"iat": world.now + 3600})
    assert failed(judge(world, data)) == "freshness"


@pytest.mark.parametrize("typ", ["eat+jwt", "inference-attestation+jwt"])
def test_another_kind_of_token(world, typ):
    assert failed(judge(world, record(world, typ=typ))) == "form"


@pytest.mark.parametrize("claim", ["iss", "iat", "code", "reason", "manifest"])
def test_missing_claim(world, claim):
    data = record(world, claims={claim: ABSENT})
    assert failed(judge(world, data)) == "form"


@pytest.mark.parametrize(
    "members", [{"refusal": 1}, {"keyCertificate": []}, {"manifest": "x"}]
)
def test_member_of_the_wrong_type(world, members):
    with pytest.raises(FormatError, match="refusal"):
        read_refusal(record(world, **members))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_verdict(world, data):
    assert judge(world, data).false
