"""RFC 9162 trees, against its own definition, known vectors and pymerkle."""

import hashlib
from itertools import combinations

import pymerkle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.errors import FormatError, VerificationError
from attest.log.merkle import (
    EMPTY_ROOT,
    Frontier,
    MerkleTree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

# Origin: the reference tests of Certificate Transparency (merkletree/merkle_tree_test).
REFERENCE_LEAVES = [
    bytes.fromhex(data)
    for data in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
REFERENCE_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
A, B, C, D, E, F = (
    "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
    "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
    "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
)
REFERENCE_PATHS = [
    (0, 1, []),
    (0, 8, [A, B, C]),
    (5, 8, [D, E, REFERENCE_ROOTS[4]]),
    (2, 3, [REFERENCE_ROOTS[2]]),
    (1, 5, [REFERENCE_ROOTS[1], B, D]),
]
REFERENCE_EXTENSIONS = [
    (1, 1, []),
    (1, 8, [A, B, C]),
    (6, 8, [F, E, REFERENCE_ROOTS[4]]),
    (2, 5, [B, D]),
]


def tree_of(count, *, prefix=b""):
    tree = MerkleTree()
    for i in range(count):
        assert tree.append(prefix + b"%d" % i) == i
    return tree


@pytest.fixture(scope="module")
def tree():
    return tree_of(70)


@pytest.fixture(scope="module")
def reference():
    tree = MerkleTree()
    for leaf in REFERENCE_LEAVES:
        tree.append(leaf)
    return tree


def by_definition(leaves):
    """RFC 9162 §2.1.1, word for word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(by_definition(leaves[:split]), by_definition(leaves[split:]))


def flip(data):
    return bytes([data[0] ^ 1]) + data[1:]


def test_reference_roots(reference):
    assert [reference.root(n).hex() for n in range(9)] == REFERENCE_ROOTS


@pytest.mark.parametrize(("index", "size", "path"), REFERENCE_PATHS)
def test_reference_inclusion(reference, index, size, path):
    assert [h.hex() for h in reference.inclusion_proof(index, size)] == path


@pytest.mark.parametrize(("first", "second", "path"), REFERENCE_EXTENSIONS)
def test_reference_consistency(reference, first, second, path):
    assert [h.hex() for h in reference.consistency_proof(first, second)] == path


@given(st.lists(st.binary(max_size=40), max_size=40))
def test_root_is_the_definition(leaves):
    tree, frontier = MerkleTree(), Frontier()
    for leaf in leaves:
        tree.append(leaf)
        frontier.append(leaf)
    assert tree.root() == frontier.root() == by_definition(leaves)
    assert tree.size == frontier.size == len(leaves)


def test_pymerkle_agrees(tree):
    oracle = pymerkle.InmemoryTree(algorithm="sha256")
    for i in range(tree.size):
        oracle.append_entry(b"%d" % i)
    for size in range(1, tree.size + 1):
        assert tree.root(size) == oracle.get_root(size)
    for index, size in combinations(range(tree.size), 2):
        # pymerkle counts from one, and its path begins with the leaf.
        path = oracle.prove_inclusion(index + 1, size).path
        assert [leaf_hash(b"%d" % index), *tree.inclusion_proof(index, size)] == path


def test_every_inclusion_verifies(tree):
    for index, size in combinations(range(tree.size + 1), 2):
        verify_inclusion(
            leaf_hash(b"%d" % index),
            index=index,
            size=size,
            proof=tree.inclusion_proof(index, size),
            root=tree.root(size),
        )


def test_every_extension_verifies(tree):
    for first in range(tree.size + 1):
        for second in range(first, tree.size + 1):
            verify_consistency(
                tree.root(first),
                tree.root(second),
                first=first,
                second=second,
                proof=tree.consistency_proof(first, second),
            )


def test_changed_inclusion_is_false(tree):
    size, root = 53, tree.root(53)
    for index in range(size):
        leaf, proof = leaf_hash(b"%d" % index), tree.inclusion_proof(index, size)
        wrong = [
            (flip(leaf), index, proof),
            (leaf, (index + 1) % size, proof),
            (leaf, index, proof[:-1]),
            (leaf, index, [*proof, root]),
            (leaf, index, [*proof, *[root] * 64]),
            *(
                (leaf, index, [*proof[:i], flip(proof[i]), *proof[i + 1 :]])
                for i in range(len(proof))
            ),
        ]
        for leaf_, index_, proof_ in wrong:
            with pytest.raises(VerificationError, match="inclusion proof"):
                verify_inclusion(
                    leaf_, index=index_, size=size, proof=proof_, root=root
                )


def test_changed_extension_is_false(tree):
    second, root = 53, tree.root(53)
    for first in range(1, second):
        old, proof = tree.root(first), tree.consistency_proof(first, second)
        wrong = [
            (flip(old), root, proof),
            (old, flip(root), proof),
            (old, root, proof[:-1]),
            (old, root, [*proof, root]),
            *(
                (old, root, [*proof[:i], flip(proof[i]), *proof[i + 1 :]])
                for i in range(len(proof))
            ),
        ]
        for old_, root_, proof_ in wrong:
            with pytest.raises(VerificationError, match="consistency proof"):
                verify_consistency(
                    old_, root_, first=first, second=second, proof=proof_
                )


def test_fork_is_not_an_extension(tree):
    fork = tree_of(40, prefix=b"other ")
    with pytest.raises(VerificationError, match="first root"):
        verify_consistency(
            tree.root(30),
            fork.root(40),
            first=30,
            second=40,
            proof=fork.consistency_proof(30, 40),
        )


@pytest.mark.parametrize(
    ("first_root", "first", "proof"),
    [
        (leaf_hash(b""), 0, []),  # nothing but the empty root stands at size 0
        (EMPTY_ROOT, 0, [EMPTY_ROOT]),
        (EMPTY_ROOT, 3, []),
        (None, 3, [EMPTY_ROOT]),
    ],
)
def test_nothing_to_prove_needs_equal_roots(tree, first_root, first, proof):
    root = tree.root(3)
    with pytest.raises(VerificationError, match="first root"):
        verify_consistency(first_root or root, root, first=first, second=3, proof=proof)


@pytest.mark.parametrize(
    ("index", "size", "proof"),
    [(-1, 3, []), (3, 3, []), (0, 0, []), (0, 2**63, []), (0, 2, [b"short"])],
)
def test_malformed_inclusion(index, size, proof):
    with pytest.raises(FormatError, match="inclusion proof"):
        verify_inclusion(
            EMPTY_ROOT, index=index, size=size, proof=proof, root=EMPTY_ROOT
        )


@pytest.mark.parametrize(
    ("first", "second", "proof"),
    [(-1, 3, []), (4, 3, []), (1, 2**63, []), (1, 2, [EMPTY_ROOT + b"x"])],
)
def test_malformed_extension(first, second, proof):
    with pytest.raises(FormatError, match="consistency proof"):
        verify_consistency(
            EMPTY_ROOT, EMPTY_ROOT, first=first, second=second, proof=proof
        )


@given(st.data())
def test_random_proofs_prove_nothing(data):
    size = data.draw(st.integers(1, 2**63 - 1))
    index = data.draw(st.integers(0, size - 1))
    proof = data.draw(st.lists(st.binary(min_size=32, max_size=32), max_size=70))
    with pytest.raises(VerificationError):
        verify_inclusion(
            leaf_hash(b"x"), index=index, size=size, proof=proof, root=bytes(32)
        )
    with pytest.raises(VerificationError):
        verify_consistency(
            leaf_hash(b"x"), bytes(32), first=index, second=size, proof=proof
        )


def test_node_is_not_a_leaf():
    tree = tree_of(2)
    pair = leaf_hash(b"0") + leaf_hash(b"1")
    assert leaf_hash(pair) != tree.root()


@pytest.mark.parametrize(
    "ask",
    [
        lambda tree: tree.root(4),
        lambda tree: tree.root(-1),
        lambda tree: tree.inclusion_proof(0, 4),
        lambda tree: tree.inclusion_proof(3),
        lambda tree: tree.inclusion_proof(-1),
        lambda tree: tree.consistency_proof(1, 4),
        lambda tree: tree.consistency_proof(4),
        lambda tree: tree.consistency_proof(-1),
    ],
)
def test_what_the_tree_has_not(ask):
    with pytest.raises(FormatError):
        ask(tree_of(3))


@given(st.integers(0, 200), st.integers(0, 200))
def test_frontier_goes_on_after_restore(before, after):
    frontier = Frontier()
    for i in range(before):
        frontier.append(b"%d" % i)
    restored = Frontier.restore(frontier.serialise())
    for i in range(before, before + after):
        restored.append(b"%d" % i)
    assert restored.root() == tree_of(before + after).root()
    assert restored.size == before + after


def test_frontier_is_small():
    frontier = Frontier()
    for i in range(1000):
        frontier.append(b"%d" % i)
    assert len(frontier.serialise()) == 8 + 32 * (1000).bit_count()


@given(st.binary(max_size=100))
def test_frontier_state_is_strict(state):
    try:
        frontier = Frontier.restore(state)
    except FormatError:
        return
    assert frontier.serialise() == state


@pytest.mark.parametrize(
    "state", [b"", bytes(7), bytes(9), b"\xff" * 8 + bytes(64 * 32)]
)
def test_frontier_state_is_refused(state):
    with pytest.raises(FormatError, match="frontier"):
        Frontier.restore(state)


def test_hundred_thousand_leaves():
    tree, frontier = MerkleTree(), Frontier()
    for i in range(100_000):
        data = i.to_bytes(4, "big")
        tree.append(data)
        frontier.append(data)
    assert tree.root() == frontier.root()
    proof = tree.inclusion_proof(77_777)
    verify_inclusion(
        leaf_hash((77_777).to_bytes(4, "big")),
        index=77_777,
        size=tree.size,
        proof=proof,
        root=tree.root(),
    )
