"""Somebody offers less than was agreed, and calls it the same.

Older profile, weaker measurement, lower tier, an older manifest, an older constitution:
each is well signed, and each is refused by whoever demands more.
"""

from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.verdicts import codes
from fakes.world import ABSENT, DAY, NOW, make_world

from attest.claims import EAT_PROFILE, Measured
from attest.policy import Tier
from attest.recall import Reference, StatusList
from attest.rules import ConstitutionRule
from attest.verify import verify

URI = "https://authority.test/status"
LISTED = make_world(predicate={"status": Reference(URI, 3).to_json()})


def judge(world, bundle, **policy):
    return verify(bundle, replace(world.policy, **policy), at=NOW)


@pytest.mark.parametrize(
    "profile",
    ["tag:attest-gateway,2026:inference-attestation:0", EAT_PROFILE + ".1", "", 1],
)
def test_another_profile_is_not_read_by_the_rules_of_this_one(world, profile):
    assert not judge(world, world.bundle(claims={"eat_profile": profile})).proven


def test_a_token_without_its_profile(world):
    assert judge(world, world.bundle(claims={"eat_profile": ABSENT})).false


@pytest.mark.parametrize("measured", ["asserted", "files"])
def test_a_weaker_measurement(world, measured):
    bundle = world.bundle(claims={"weights": {"measured": measured}})
    assert codes(judge(world, bundle)) >= {"policy.measurement"}
    assert judge(world, bundle, min_measured=Measured(measured)).proven


def test_a_log_proof_left_out():
    log = SignedLog()
    world = make_world(predicate={"trustAnchors": log.anchors})
    bundle = world.bundle()
    assert judge(world, log.prove(bundle), min_tier=Tier.T2).proven
    assert judge(world, bundle, min_tier=Tier.T2).false
    lone = log.prove(bundle, by=log.witnesses[:1])
    assert judge(world, lone, min_tier=Tier.T2).false


def test_a_manifest_that_was_withdrawn(world):
    """What it was replaced for does not come back: its entry in the list is void."""
    items = StatusList.new(URI, 8)
    bundle = LISTED.bundle()

    def listed(*changes):
        found = items.revoked(*changes) if changes else items
        compact = found.sign(LISTED.authority, now=NOW)
        return replace(bundle, status_lists=(compact,))

    assert judge(LISTED, listed(), max_status_age_seconds=DAY).proven
    assert codes(judge(LISTED, listed(3, NOW - 1))) >= {"status.manifest_revoked"}
    # The list left out.
    assert judge(LISTED, bundle).proven
    verdict = judge(LISTED, bundle, max_status_age_seconds=DAY)
    assert (verdict.proven, verdict.false) == (False, False)


def test_an_old_list_in_the_place_of_a_new_one():
    items = StatusList.new(URI, 8)
    old = items.sign(LISTED.authority, now=NOW - 30 * DAY)
    bundle = replace(LISTED.bundle(), status_lists=(old,))
    verdict = judge(LISTED, bundle, max_status_age_seconds=DAY)
    assert codes(verdict) >= {"status.old"}
    # Of two the newer counts, in whatever order they come.
    new = items.revoked(3, 0).sign(LISTED.authority, now=NOW)
    for lists in ((old, new), (new, old)):
        assert judge(LISTED, replace(bundle, status_lists=lists)).false


@pytest.mark.parametrize(
    ("version", "proven"), [("1.1.9", False), ("1.2.0", True), ("1.10.0", True)]
)
def test_an_older_constitution(version, proven):
    world = make_world(predicate={"constitution": {"id": "toy", "version": version}})
    allowed = (ConstitutionRule("toy", ">=1.2,<2"),)
    verdict = judge(world, world.bundle(), constitutions=allowed)
    assert verdict.proven == proven
    assert ("policy.constitution" in codes(verdict)) != proven


def test_weights_without_any_constitution():
    world = make_world(predicate={"constitution": ABSENT})
    bundle = world.bundle()
    assert judge(world, bundle).proven
    assert judge(world, bundle, constitutions=(ConstitutionRule("toy"),)).false


def test_fewer_signatures_than_were_agreed(world):
    second = make_world().authority.public
    both = (*world.policy.authorities, second)
    assert judge(world, world.bundle(), authorities=both, threshold=2).false
    assert judge(world, world.bundle(), authorities=both, threshold=1).proven
