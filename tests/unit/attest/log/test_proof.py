import json
from dataclasses import replace

import pytest
from fakes.log import SignedLog, leaf_of
from fakes.world import make_world

from attest.bundle import Bundle
from attest.errors import FormatError, SignatureError, VerificationError
from attest.log.note import KeyKind, NoteKey
from attest.log.proof import LogProof, majority

TOKEN = "a.b.c~"


@pytest.fixture
def log():
    return SignedLog()


@pytest.fixture
def proof(log):
    log.add("x.y.z")
    log.add(TOKEN)
    return LogProof(1, log.checkpoint(), tuple(log.tree.inclusion_proof(1)))


def verify(log, proof, leaf=None):
    return proof.verify(
        leaf or leaf_of(TOKEN),
        logs=[log.key.key],
        witnesses=[witness.key for witness in log.witnesses],
    )


def test_proof_holds(log, proof):
    found = verify(log, proof)
    assert (found.checkpoint.size, found.key) == (2, log.key.key)
    assert (len(found.cosignatures), found.witness_count) == (3, 3)


def test_other_leaf(log, proof):
    with pytest.raises(VerificationError, match="does not lead"):
        verify(log, proof, leaf_of("x.y.z"))


def test_other_index(log, proof):
    with pytest.raises(VerificationError):
        verify(log, replace(proof, index=0))


def test_index_outside_the_tree(log, proof):
    with pytest.raises(FormatError, match="no leaf 2"):
        verify(log, replace(proof, index=2))


def test_other_log(proof):
    with pytest.raises(SignatureError):
        verify(SignedLog(), proof)


def test_log_does_not_witness_itself(log, proof):
    own = NoteKey(log.key.name, KeyKind.WITNESS, log.key.key.key)
    found = proof.verify(leaf_of(TOKEN), logs=[log.key.key], witnesses=[own])
    assert found.witness_count == 0


@pytest.mark.parametrize(
    ("count", "needed"), [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3), (5, 3)]
)
def test_majority(count, needed):
    assert majority(count) == needed


def test_json_form(proof):
    assert LogProof.from_json(json.loads(json.dumps(proof.to_json()))) == proof


HASH = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="


@pytest.mark.parametrize(
    "change",
    [
        {"index": -1},
        {"index": True},
        {"index": 1.0},
        {"index": "1"},
        {"checkpoint": None},
        {"checkpoint": "x" * 200_000},
        {"proof": HASH},
        {"proof": [HASH[:-4]]},
        {"proof": [HASH.replace("A=", "B=")]},
        {"proof": [None]},
        {"proof": [HASH] * 64},
    ],
)
def test_broken_form(change):
    good = {"index": 1, "checkpoint": "x", "proof": [HASH]}
    LogProof.from_json(good)
    with pytest.raises(FormatError):
        LogProof.from_json({**good, **change})
    for name in change:
        with pytest.raises(FormatError):
            LogProof.from_json({k: v for k, v in good.items() if k != name})


def test_bundle_carries_it(log):
    bundle = log.prove(make_world().bundle())
    assert Bundle.loads(bundle.dumps()).log == bundle.log


@pytest.mark.parametrize("value", [None, [], {}])
def test_bundle_with_a_broken_one_is_refused(value):
    whole = make_world().bundle().to_json() | {"log": value}
    with pytest.raises(FormatError, match="log"):
        Bundle.loads(json.dumps(whole).encode())
