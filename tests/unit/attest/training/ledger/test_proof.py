import base64
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import (
    AttestError,
    FormatError,
    UnsupportedVersionError,
    VerificationError,
)
from attest.log.merkle import MerkleTree
from attest.training.ledger import Ledger, LedgerCutError, LedgerSummary, read_ledger
from attest.training.ledger.proof import parse_proof, prove_record


def fill(path, sizes):
    """A ledger and its states at some sizes."""
    heads = []
    with Ledger.create(path) as ledger:
        for size in sizes:
            while ledger.size < size:
                ledger.append({"step": ledger.size})
            heads.append(ledger.summary())
    return heads


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.jsonl"


@pytest.fixture
def heads(path):
    return fill(path, [3, 8, 13])


@pytest.mark.parametrize("seq", range(13))
def test_every_record_can_be_proven(path, heads, seq):
    proof = parse_proof(prove_record(path, seq, *heads).dumps())
    assert proof.check(heads[::-1]) == list(read_ledger(path))[seq]


@given(st.lists(st.integers(1, 70), min_size=1, max_size=4), st.data())
def test_any_sizes(tmp_path_factory, sizes, data):
    path = tmp_path_factory.mktemp("proof") / "ledger"
    heads = fill(path, sorted(sizes))
    seq = data.draw(st.integers(0, max(sizes) - 1))
    record = parse_proof(prove_record(path, seq, *heads).dumps()).check(heads)
    assert record == {"seq": seq, "step": seq}


def test_without_heads_it_is_the_whole_ledger(path, heads):
    assert prove_record(path, 12).heads == (heads[-1],)


def test_independent_of_ours(path, heads):
    """Against RFC 9162's own words: hash leaf and siblings upwards."""
    tree = MerkleTree()
    for record in read_ledger(path):
        tree.append(canonical(record))
    proof = prove_record(path, 5, heads[-1])
    assert list(proof.path) == tree.inclusion_proof(5)
    assert heads[-1].root == "sha256:" + tree.root().hex()


@pytest.mark.parametrize("seq", [13, 99, -1])
def test_record_that_is_not_there(path, heads, seq):
    with pytest.raises(LedgerCutError, match="below 13, found 13"):
        prove_record(path, seq, *heads)


def test_ledger_that_never_was_so_large(path, heads):
    with pytest.raises(LedgerCutError):
        prove_record(path, 1, LedgerSummary(14, heads[-1].root))


def test_no_proof_from_an_edited_ledger(path, heads):
    path.write_bytes(path.read_bytes().replace(b'"step":4', b'"step":5', 1))
    with pytest.raises(VerificationError):
        prove_record(path, 9, *heads)


def test_proof_for_other_heads(path, heads, tmp_path):
    proof = prove_record(path, 1, *heads)
    for other in (heads[:2], heads[1:], [], fill(tmp_path / "other", [3, 8, 14])):
        with pytest.raises(VerificationError, match="expected heads"):
            proof.check(other)


def _flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


@pytest.mark.parametrize(
    "change",
    [
        lambda p: replace(p, line=p.line.replace(b'"step":4', b'"step":5')),
        lambda p: replace(p, seq=5),
        lambda p: replace(p, path=p.path[:-1]),
        lambda p: replace(p, path=(*p.path, p.path[0])),
        lambda p: replace(p, path=(_flip(p.path[0]), *p.path[1:])),
        lambda p: replace(p, path=()),
        lambda p: replace(p, steps=((), p.steps[1])),
        lambda p: replace(p, steps=((_flip(p.steps[0][0]), *p.steps[0][1:]), *p.steps)),
        lambda p: replace(p, steps=p.steps[::-1]),
        lambda p: replace(p, line=b"[]"),
        lambda p: replace(p, line=b'{"step":4}'),
    ],
)
def test_proof_that_was_changed(path, heads, change):
    proof = prove_record(path, 4, *heads)
    with pytest.raises(AttestError):
        change(proof).check(heads)


def test_second_stage_that_does_not_extend_the_first(path, tmp_path):
    """Two signed roots of which no ledger has both."""
    one = fill(path, [5])
    with Ledger.create(tmp_path / "other") as ledger:
        for _ in range(9):
            ledger.append({"other": ledger.size})
        other = ledger.summary()
    proof = prove_record(tmp_path / "other", 2, other)
    tree = MerkleTree()
    for record in read_ledger(tmp_path / "other"):
        tree.append(canonical(record))
    forged = replace(
        proof, heads=(one[0], other), steps=(tuple(tree.consistency_proof(5)),)
    )
    with pytest.raises(VerificationError, match="first root"):
        forged.check([one[0], other])


@pytest.mark.parametrize(
    "members",
    [
        {"heads": []},
        {"heads": [{"treeSize": -1, "root": digest(b"x")}] * 3},
        {"heads": [{"treeSize": 1, "root": "x"}] * 3},
        {"consistency": []},
        {"consistency": {}},
        {"consistency": [1, 2]},
        {"inclusion": "x"},
        {"inclusion": [""] * 65},
        {"inclusion": [1]},
        {"inclusion": ["é"]},
        {"record": "no base64"},
        {"record": None},
        {"seq": -1},
        {"seq": True},
    ],
)
def test_form_of_a_proof(path, heads, members):
    value = json.loads(prove_record(path, 4, *heads).dumps())
    with pytest.raises(FormatError):
        parse_proof(json.dumps({**value, **members}).encode())


def test_another_version_of_a_proof(path, heads):
    value = json.loads(prove_record(path, 4, *heads).dumps()) | {"schema": "x/2"}
    with pytest.raises(UnsupportedVersionError):
        parse_proof(json.dumps(value).encode())


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from(["", "eA==", digest(b"x")]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["treeSize", "root", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(["seq", "record", "heads", "inclusion", "consistency"]), JSON
    )
)
def test_any_proof_is_refused_or_checked(members):
    record = base64.b64encode(b'{"seq":0}').decode()
    value = {
        "schema": "ledger-proof/1",
        "seq": 0,
        "record": record,
        "heads": [{"treeSize": 2, "root": digest(b"x")}],
        "inclusion": [],
        "consistency": [],
        **members,
    }
    try:
        proof = parse_proof(json.dumps(value).encode())
    except AttestError:
        return
    with pytest.raises(AttestError):
        proof.check([LedgerSummary(2, digest(b"root"))])
