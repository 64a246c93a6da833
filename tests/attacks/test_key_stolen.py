"""A session key got out: what its thief can sign, and what stays proven.

Certificates last seven days at most; the rest is the status list, and witnesses who saw
what was signed before the theft.
"""

from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.verdicts import codes
from fakes.world import DAY, NOW, make_world

from attest.keys import PrivateKey
from attest.policy import Tier
from attest.recall import Reference, StatusList
from attest.verify import verify

URI = "https://authority.test/status"
LOG = SignedLog()
STATUS = Reference(URI, 5).to_json()
WORLD = make_world(
    predicate={"trustAnchors": LOG.anchors}, certificate={"status": STATUS}
)
THEFT = NOW + 600


def judge(bundle, *, at=NOW + DAY, **policy):
    return verify(bundle, replace(WORLD.policy, **policy), at=at)


def revoked(bundle):
    items = StatusList.new(URI, 8).revoked(5, THEFT)
    compact = items.sign(WORLD.issuer, now=NOW + DAY)
    return replace(bundle, status_lists=(compact,))


def signed(at):
    return WORLD.bundle(claims={"iat": at})


def test_signed_after_the_theft():
    assert codes(judge(revoked(signed(THEFT + 1)))) >= {"status.key_revoked"}


def test_dated_back_by_the_thief():
    """Nobody can tell it from a true one: so nobody is told that it is proven."""
    verdict = judge(revoked(signed(THEFT - 1)))
    assert (verdict.proven, verdict.false) == (False, False)
    assert codes(verdict) >= {"status.key_revoked_since"}


def test_seen_by_witnesses_before_the_theft():
    bundle = LOG.prove(signed(THEFT - 1), at=THEFT - 1)
    verdict = judge(revoked(bundle), min_tier=Tier.T2)
    assert verdict.proven
    assert codes(verdict) >= {"status.revoked_later"}


def test_dated_back_and_logged_late():
    bundle = LOG.prove(signed(THEFT - 1), at=THEFT + 1)
    assert not judge(revoked(bundle)).proven


def test_used_after_its_certificate_ran_out():
    late = NOW + 8 * DAY
    assert codes(judge(signed(late), at=late)) >= {"key.expired"}


def test_dated_back_into_its_period_long_after():
    """T1 believes the key; T2 asks when witnesses saw it."""
    long_after = NOW + 300 * DAY
    bundle = LOG.prove(signed(NOW), at=long_after)
    assert judge(bundle, at=long_after).tier is Tier.T1
    verdict = judge(bundle, at=long_after, min_tier=Tier.T2)
    assert codes(verdict) >= {"log.late", "policy.tier"}


@pytest.mark.parametrize("years", [1, 50])
def test_a_certificate_that_never_ends(years):
    world = WORLD.certified(WORLD.session, certificate={"exp": NOW + years * 365 * DAY})
    assert codes(judge(world.bundle(), at=NOW)) >= {"key.expired"}


def test_the_next_key_does_not_void_what_the_last_one_signed():
    """Two keys overlap while a gateway changes over; each signs in its own name."""
    before, after = signed(NOW), WORLD.certified(PrivateKey.generate()).bundle()
    certificates = (*after.key_certificates, *before.key_certificates)
    for bundle in (before, after):
        assert judge(replace(bundle, key_certificates=certificates)).proven


def test_a_witness_that_saw_it_before_it_was_signed():
    bundle = LOG.prove(signed(NOW), at=NOW - 61)
    assert codes(judge(bundle)) >= {"log.back_dated"}


def test_signed_in_the_future():
    assert codes(judge(signed(NOW + 61), at=NOW)) >= {"freshness.future"}
    assert judge(signed(NOW + 60), at=NOW).proven
