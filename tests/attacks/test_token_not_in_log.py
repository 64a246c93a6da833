"""A log proof that belongs to something else than the token at hand."""

from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.world import NOW, make_world

from attest.keys import Algorithm
from attest.policy import Tier
from attest.verify import verify


@pytest.fixture(scope="module")
def log():
    return SignedLog()


@pytest.fixture(scope="module", params=list(Algorithm))
def world(request, log):
    return make_world(alg=request.param, predicate={"trustAnchors": log.anchors})


def refused(world, bundle):
    verdict = verify(bundle, world.policy, at=NOW + 5)
    assert (verdict.false, verdict.problem.number) == (True, 8)


def test_proof_of_another_token(world, log):
    logged = log.prove(world.bundle())
    refused(world, replace(world.bundle(), log=logged.log))


def test_token_beside_the_logged_one_has_other_claims(world, log):
    bundle = world.bundle(claims={"seq": 7})
    twin = world.bundle(claims={"seq": 7, "iat": NOW - 1})
    refused(world, replace(twin, log=log.prove(bundle).log))


def test_proof_without_its_last_hash(world, log):
    bundle = log.prove(world.bundle())
    short = replace(bundle.log, proof=bundle.log.proof[:-1])
    refused(world, replace(bundle, log=short))


def test_proof_for_another_position(world, log):
    bundle = log.prove(world.bundle())
    moved = replace(bundle.log, index=bundle.log.index - 1)
    refused(world, replace(bundle, log=moved))


def test_position_outside_the_log(world, log):
    bundle = log.prove(world.bundle())
    outside = replace(bundle.log, index=bundle.log.index + 100)
    refused(world, replace(bundle, log=outside))


def test_disclosures_are_no_part_of_the_leaf(world, log):
    """Whoever shows fewer disclosures still proves the same entry."""
    bundle = log.prove(world.bundle())
    compact = bundle.token.partition("~")[0]
    bare = replace(bundle, token=compact + "~", request=None, response=None)
    verdict = verify(bare, world.policy, at=NOW + 5)
    verdict.raise_unless_proven()
    assert verdict.tier is Tier.T2
