"""Evidence of every release verifies for ever. Never edit a folder vX.Y.Z: add one."""

from dataclasses import replace
from pathlib import Path

import pytest

from attest import disclosures, tokens
from attest.bundle import Bundle
from attest.keys import PublicKey
from attest.policy import Policy
from attest.verify import verify

RELEASES = sorted(Path(__file__).parent.glob("v*"))


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def release(request):
    folder = request.param
    bundle = Bundle.loads((folder / "answer.bundle.json").read_bytes())
    authority = PublicKey.from_bytes((folder / "authority.pub.pem").read_bytes())
    compact, _ = disclosures.split(bundle.token)
    claims = tokens.parse(compact, typ="inference-attestation+jwt").claims
    return bundle, Policy(authorities=(authority,)), claims["iat"]


def test_there_is_a_release():
    assert RELEASES


@pytest.mark.parametrize("years", [0, 30])
def test_bundle_is_proven(release, years):
    bundle, policy, iat = release
    verdict = verify(bundle, policy, at=iat + years * 365 * 24 * 3600)
    verdict.raise_unless_proven()
    assert verdict.tier == "T1"
    assert verdict.step(6).status == "ok"


def test_changed_answer_is_false(release):
    bundle, policy, iat = release
    lie = replace(bundle, response=bundle.response + b" ")
    assert verify(lie, policy, at=iat).problem.name == "content"
