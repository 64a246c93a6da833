"""A true token of another time, of another exchange, or for another client."""

import itertools
from dataclasses import replace

import pytest
from fakes.clients import ask
from fakes.world import DAY, REQUEST, STREAM_REQUEST

from attest.errors import VerificationError
from attest.policy import Policy
from attest.verify import verify


@pytest.mark.parametrize("request_body", [REQUEST, STREAM_REQUEST])
def test_an_old_token_for_the_same_answer(flavour, attested, request_body):
    """Question and answer are equal byte for byte; only the nonce tells."""
    tokens = []

    def keep_first(*exchange, **facts):
        tokens.append(attested.world.token(*exchange, **facts))
        return tokens[0]

    attested.forge = keep_first
    assert ask(flavour, attested, request_body).error is None
    answer = ask(flavour, attested, request_body)
    assert isinstance(answer.error, VerificationError)
    assert "step 7 freshness: the nonce" in str(answer.error)


def test_a_token_without_a_nonce(flavour, attested):
    def forgetful(*exchange, nonce, **facts):
        return attested.world.token(*exchange, **facts)

    attested.forge = forgetful
    assert "the nonce" in str(ask(flavour, attested).error)


def test_every_request_has_a_nonce_of_its_own(flavour, attested):
    for _ in range(3):
        ask(flavour, attested, headers={"attestation-nonce": "chosen-by-the-caller"})
    posts = [r for r in attested.received if r.method == "POST"]
    nonces = [post.headers["attestation-nonce"] for post in posts]
    assert all(len(nonce) == 32 for nonce in nonces)
    assert all(a != b for a, b in itertools.combinations(nonces, 2))
    assert "chosen-by-the-caller" not in nonces


def test_an_old_token_is_told_from_a_fresh_one_by_its_age(world):
    policy = Policy(authorities=world.policy.authorities, max_age_seconds=600)
    bundle = world.bundle()
    assert verify(bundle, policy, at=world.now + 600).proven
    problem = verify(bundle, policy, at=world.now + 601).problem
    assert (problem.number, problem.code) == (10, "policy")


def test_a_token_for_another_audience(world):
    bundle = world.bundle(claims={"aud": "somebody else"})
    verdict = verify(bundle, world.policy, at=world.now, audience="me")
    assert (verdict.problem.number, verdict.problem.code) == (7, "transcript_mismatch")


def test_a_token_of_another_exchange(world):
    """Both answers are attested; their tokens are exchanged."""
    first, second = world.bundle(), world.bundle(STREAM_REQUEST, b"data: [DONE]\n\n")
    problem = verify(
        replace(first, token=second.token), world.policy, at=world.now
    ).problem
    assert problem.number == 6


def test_a_token_of_another_boot(world):
    """The same session key signed it, for weights that were loaded before."""
    earlier = world.certified(world.session, boot={"jti": "boot_earlier"})
    bundle = replace(world.bundle(), token=earlier.bundle().token)
    problem = verify(bundle, world.policy, at=world.now).problem
    assert (problem.number, problem.code) == (5, "false")


def test_after_the_key_ran_out(world):
    late = world.bundle(claims={"iat": world.now + 2 * DAY})
    problem = verify(late, world.policy, at=world.now + 2 * DAY).problem
    assert (problem.number, problem.code) == (2, "expired")
