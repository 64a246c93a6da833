import pytest
from fakes.world import DAY, GATEWAY, make_world

from attest import tokens
from attest.certificates import MAX_SKEW_SECONDS, certified_key, issuer_uri
from attest.errors import (
    EvidenceUnavailableError,
    ExpiredError,
    FormatError,
    SignatureError,
)
from attest.keys import PrivateKey

TYP = "gateway-key+jwt"


def find(world, *certificates, kid=None, signed_at=None, manifest=True):
    return certified_key(
        certificates or [world.certificate],
        kid or world.session.public.thumbprint,
        manifest=world.manifest if manifest else None,
        authorities=[world.authority.public],
        signed_at=world.now if signed_at is None else signed_at,
    )


def by(world, signer, **changes):
    claims = dict(tokens.parse(world.certificate, typ=TYP).claims)
    claims |= {"iss": issuer_uri(signer.public), **changes}
    return tokens.mint(TYP, claims, signer)


def test_delegate_certifies(world):
    found = find(world)
    assert found.key == world.session.public
    assert found.issuer == world.issuer.public
    assert found.claims["sub"] == GATEWAY


def test_authority_certifies_even_without_a_manifest(world):
    found = find(world, by(world, world.authority), manifest=False)
    assert found.issuer == world.authority.public


def test_the_right_one_of_several_is_found(world):
    other = PrivateKey.generate().public.jwk
    first = by(world, world.issuer, cnf={"jwk": other})
    assert find(world, first, world.certificate).key == world.session.public


def test_no_certificate_for_the_key(world):
    with pytest.raises(SignatureError, match="no certificate for stranger"):
        find(world, kid="stranger")


def test_stranger_certifies(world):
    with pytest.raises(SignatureError, match="neither an authority nor a delegate"):
        find(world, by(world, PrivateKey.generate()))


def test_session_key_cannot_certify_itself(world):
    with pytest.raises(SignatureError, match="neither"):
        find(world, by(world, world.session))


def test_delegate_without_a_manifest_cannot_be_told(world):
    with pytest.raises(EvidenceUnavailableError, match="no manifest is at hand"):
        find(world, manifest=False)


def test_delegation_that_had_ended(world):
    late = world.manifest.delegations[0].not_after + 1
    certificate = by(world, world.issuer, iat=late, nbf=late, exp=late + DAY)
    with pytest.raises(SignatureError, match="neither"):
        find(world, certificate, signed_at=late)


def test_iss_of_somebody_else(world):
    certificate = by(world, world.issuer, iss=issuer_uri(world.authority.public))
    with pytest.raises(SignatureError, match="iss"):
        find(world, certificate)


@pytest.mark.parametrize(("nbf", "exp"), [(0, 8 * DAY), (1, 1), (2, 1)])
def test_period_that_is_too_long_or_none(world, nbf, exp):
    start = world.now - 3600
    certificate = by(world, world.issuer, nbf=start + nbf, exp=start + exp)
    with pytest.raises(ExpiredError, match="seven days"):
        find(world, certificate)


def test_signed_outside_the_period(world):
    claims = tokens.parse(world.certificate, typ=TYP).claims
    assert find(world, signed_at=claims["exp"])
    assert find(world, signed_at=claims["nbf"] - MAX_SKEW_SECONDS)
    for moment in (claims["exp"] + 1, claims["nbf"] - MAX_SKEW_SECONDS - 1):
        with pytest.raises(ExpiredError, match="outside the key's period"):
            find(world, signed_at=moment)


def test_token_of_another_kind_is_no_certificate(world):
    with pytest.raises(FormatError, match="typ"):
        find(world, world.boot)


def test_certificate_of_another_world(world):
    other = make_world()
    with pytest.raises(SignatureError, match="no certificate"):
        find(world, other.certificate)
