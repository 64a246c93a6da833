import json
from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.verdicts import sound
from fakes.world import NOW, make_world

from attest.errors import ConfigurationError
from attest.log.note import NoteKey
from attest.policy import Policy, Tier
from attest.verify import Status, verify


@pytest.fixture(scope="module")
def log():
    return SignedLog()


@pytest.fixture(scope="module")
def world(log):
    return make_world(predicate={"trustAnchors": log.anchors})


def judge(world, bundle, at=NOW + 5, **policy):
    return sound(verify(bundle, replace(world.policy, **policy), at=at))


def test_witnessed_token_reaches_t2(world, log):
    verdict = judge(world, log.prove(world.bundle()), min_tier=Tier.T2)
    verdict.raise_unless_proven()
    assert verdict.tier is Tier.T2
    assert verdict.step(8).status is Status.OK
    assert "3 of 3 witnesses" in verdict.step(8).detail


def test_majority_is_enough(world, log):
    verdict = judge(world, log.prove(world.bundle(), by=log.witnesses[:2]))
    assert verdict.tier is Tier.T2


@pytest.mark.parametrize("count", [0, 1])
def test_logged_without_enough_witnesses_stays_t1(world, log, count):
    bundle = log.prove(world.bundle(), by=log.witnesses[:count])
    verdict = judge(world, bundle)
    assert (verdict.proven, verdict.tier) == (True, Tier.T1)
    assert f"{count} of 3 witnesses cosigned, 2 must" in verdict.step(8).detail
    assert judge(world, bundle, min_tier=Tier.T2).problem.code == "policy"


def test_without_a_proof_it_says_so(world):
    verdict = judge(world, world.bundle())
    assert (verdict.proven, verdict.tier) == (True, Tier.T1)
    assert verdict.step(8).status is Status.NOT_CHECKED


def test_log_that_nobody_names_is_not_judged(log):
    plain = make_world()
    verdict = judge(plain, log.prove(plain.bundle()))
    assert verdict.tier is Tier.T1
    assert verdict.step(8).status is Status.NOT_CHECKED


def test_policy_names_log_and_witnesses_by_itself(log):
    plain = make_world()
    pins = {
        "logs": (log.key.key,),
        "witnesses": tuple(witness.key for witness in log.witnesses),
    }
    assert judge(plain, log.prove(plain.bundle()), **pins).tier is Tier.T2


def test_policys_witnesses_stand_above_the_manifests(world, log):
    mine = SignedLog().witnesses[0].key
    verdict = judge(world, log.prove(world.bundle()), witnesses=(mine,))
    assert (verdict.proven, verdict.tier) == (True, Tier.T1)


def test_policys_log_stands_above_the_manifests(world, log):
    verdict = judge(world, log.prove(world.bundle()), logs=(SignedLog("o").key.key,))
    assert verdict.false
    assert verdict.problem.number == 8


def test_policy_demands_every_witness(world, log):
    bundle = log.prove(world.bundle(), by=log.witnesses[:2])
    assert judge(world, bundle, witness_threshold=3).tier is Tier.T1
    assert judge(world, bundle, witness_threshold=1).tier is Tier.T2


def test_token_seen_before_it_says_it_was_signed(world, log):
    bundle = log.prove(world.bundle(), at=NOW - 61)
    verdict = judge(world, bundle)
    assert verdict.false
    assert "before it says it was signed" in verdict.problem.detail


def test_token_seen_long_after_could_be_back_dated(world, log):
    verdict = judge(world, log.prove(world.bundle(), at=NOW + 3601), at=NOW + 9000)
    assert (verdict.proven, verdict.tier) == (True, Tier.T1)
    assert "back-dated" in verdict.step(8).detail
    late = judge(
        world,
        log.prove(world.bundle(), at=NOW + 3601),
        at=NOW + 9000,
        max_log_delay_seconds=4000,
    )
    assert late.tier is Tier.T2


def test_cosigned_in_the_future(world, log):
    verdict = judge(world, log.prove(world.bundle(), at=NOW + 100), at=NOW + 5)
    assert verdict.false
    assert "future" in verdict.problem.detail


def test_policy_json_form(world, log):
    policy = replace(
        world.policy,
        logs=(log.key.key,),
        witnesses=tuple(witness.key for witness in log.witnesses),
        witness_threshold=2,
        max_log_delay_seconds=5,
    )
    assert Policy.from_json(json.dumps(policy.to_json()).encode()) == policy


@pytest.mark.parametrize("threshold", [0, -1])
def test_threshold_that_demands_nothing(world, threshold):
    with pytest.raises(ConfigurationError, match="at least 1"):
        replace(world.policy, witness_threshold=threshold)


def test_manifest_names_them(world, log):
    assert list(map(str, world.manifest.logs)) == log.anchors["logs"]
    assert world.manifest.witnesses == tuple(
        NoteKey.parse(text) for text in log.anchors["witnesses"]
    )
