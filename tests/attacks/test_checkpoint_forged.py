"""A checkpoint that the log, or a witness, did not sign as it stands."""

from dataclasses import replace

import pytest
from fakes.log import SignedLog
from fakes.world import NOW, make_world

from attest.keys import PrivateKey
from attest.log.checkpoint import cosign
from attest.log.merkle import EMPTY_ROOT
from attest.log.note import KeyKind, Note, NoteSigner, parse_note
from attest.log.proof import LogProof
from attest.policy import Tier
from attest.verify import verify


@pytest.fixture(scope="module")
def log():
    return SignedLog()


@pytest.fixture(scope="module")
def world(log):
    return make_world(predicate={"trustAnchors": log.anchors})


@pytest.fixture
def honest(world, log):
    return log.prove(world.bundle())


def judge(world, bundle):
    return verify(bundle, world.policy, at=NOW + 5)


def refused(world, bundle, match):
    verdict = judge(world, bundle)
    assert (verdict.false, verdict.tier) == (True, Tier.T0)
    assert verdict.problem.number == 8
    assert match in verdict.problem.detail


def with_note(bundle, note):
    return replace(bundle, log=replace(bundle.log, checkpoint=str(note)))


def test_signed_by_another_key_under_the_logs_name(world):
    forger = SignedLog()
    refused(world, forger.prove(world.bundle()), "not signed by the log")


def test_signed_by_a_log_that_nobody_named(world):
    forger = SignedLog("other.test")
    refused(world, forger.prove(world.bundle()), "nobody vouches")


def test_root_exchanged_under_the_old_signature(world, honest):
    note = parse_note(honest.log.checkpoint)
    other = SignedLog()
    other.add(honest.token)
    lines = note.text.split("\n")
    lines[2] = str(parse_note(other.checkpoint())).split("\n")[2]
    refused(world, with_note(honest, replace(note, text="\n".join(lines))), "not by")


def test_cosignature_taken_from_another_checkpoint(world, log, honest):
    lines = parse_note(log.checkpoint(root=EMPTY_ROOT)).signatures[1:]
    note = parse_note(honest.log.checkpoint)
    mixed = replace(note, signatures=(note.signatures[0], *lines))
    refused(world, with_note(honest, mixed), "not by")


def test_unknown_witnesses_count_for_nothing(world, honest):
    note = parse_note(honest.log.checkpoint)
    strangers = [
        NoteSigner(f"stranger.test/{i}", KeyKind.WITNESS, PrivateKey.generate())
        for i in range(5)
    ]
    lines = tuple(cosign(note.text, item, at=NOW) for item in strangers)
    alone = Note(note.text, (note.signatures[0], *lines))
    verdict = judge(world, with_note(honest, alone))
    assert (verdict.proven, verdict.tier) == (True, Tier.T1)


def test_one_witness_cosigns_as_often_as_it_likes(world, log, honest):
    note = parse_note(honest.log.checkpoint)
    lines = tuple(cosign(note.text, log.witnesses[0], at=NOW + i) for i in range(5))
    alone = Note(note.text, (note.signatures[0], *lines))
    assert judge(world, with_note(honest, alone)).tier is Tier.T1


def test_log_key_poses_as_every_witness():
    log = SignedLog(witnesses=0)
    selves = [
        NoteSigner(f"witness.test/{i}", KeyKind.WITNESS, log.key.signer)
        for i in range(3)
    ]
    log.witnesses = selves
    world = make_world(predicate={"trustAnchors": log.anchors})
    verdict = judge(world, log.prove(world.bundle()))
    assert (verdict.proven, verdict.tier) == (True, Tier.T1)


def test_leaf_shown_where_a_node_stands(world, log):
    bundle = world.bundle()
    left = log.add(bundle.token)
    log.add(bundle.token)
    above = tuple(log.tree.inclusion_proof(left))[1:]
    refused(
        world,
        replace(bundle, log=LogProof(left >> 1, log.checkpoint(), above)),
        "inclusion proof",
    )
