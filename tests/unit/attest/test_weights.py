"""The tensor tree's leaves and root."""

import json
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.canonical import canonical
from attest.digests import digest
from attest.errors import FormatError
from attest.log.merkle import MerkleTree
from attest.weights import TensorDigest, tensor_leaf, tensor_root

NORM = TensorDigest("model.norm.weight", "BF16", (576,), digest(b"norm"))
HEAD = TensorDigest("lm_head.weight", "F32", (4, 2), digest(b"head"))

tensors = st.builds(
    TensorDigest,
    name=st.text(max_size=8),
    dtype=st.sampled_from(["F32", "BF16"]),
    shape=st.lists(st.integers(0, 2**53 - 1), max_size=4).map(tuple),
    sha256=st.binary(max_size=4).map(digest),
)


def test_leaf():
    # Written by hand, so that nobody needs this library to make the same bytes.
    assert tensor_leaf(NORM) == (
        b'{"dtype":"BF16","name":"model.norm.weight",'
        b'"sha256":"' + sha256(b"norm").hexdigest().encode() + b'","shape":[576]}'
    )


def test_leaf_of_a_scalar():
    assert tensor_leaf(replace(NORM, shape=())).endswith(b'"shape":[]}')


def test_root_of_two():
    # lm_head sorts before model.norm.
    left, right = (sha256(b"\0" + tensor_leaf(t)).digest() for t in (HEAD, NORM))
    expected = "sha256:" + sha256(b"\1" + left + right).hexdigest()
    assert tensor_root([NORM, HEAD]) == tensor_root([HEAD, NORM]) == expected


def test_order_is_that_of_utf8_bytes():
    # UTF-16 would put the second name first: its code units start with D83D.
    names = ["\uff5e", "\U0001f600"]
    ordered = [replace(NORM, name=name) for name in names]
    tree = MerkleTree()
    for tensor in ordered:
        tree.append(tensor_leaf(tensor))
    assert tensor_root(reversed(ordered)) == "sha256:" + tree.root().hex()


@given(st.lists(tensors, min_size=1, unique_by=lambda t: t.name), st.randoms())
def test_root_has_no_order(some, random):
    shuffled = random.sample(some, len(some))
    assert tensor_root(some) == tensor_root(shuffled)


@pytest.mark.parametrize(
    "change",
    [{"name": "x"}, {"dtype": "F16"}, {"shape": (24, 24)}, {"sha256": digest(b"")}],
)
def test_root_covers_each_field(change):
    assert tensor_root([HEAD, replace(NORM, **change)]) != tensor_root([HEAD, NORM])


@given(tensors)
def test_leaf_is_json(tensor):
    assert json.loads(tensor_leaf(tensor)) == {
        "name": tensor.name,
        "dtype": tensor.dtype,
        "shape": list(tensor.shape),
        "sha256": tensor.sha256.removeprefix("sha256:"),
    }


@given(tensors)
def test_leaf_is_canonical(tensor):
    assert tensor_leaf(tensor) == canonical(json.loads(tensor_leaf(tensor)))


@given(st.text())
def test_a_name_is_escaped_as_rfc_8785_says(name):
    tensor = replace(NORM, name=name)
    assert canonical(name) in tensor_leaf(tensor)


def test_no_tensors():
    with pytest.raises(FormatError, match="no tensors"):
        tensor_root([])


def test_one_name_twice():
    with pytest.raises(FormatError, match=r"'model\.norm\.weight' appears twice"):
        tensor_root([NORM, HEAD, replace(NORM, sha256=digest(b"other"))])


@pytest.mark.parametrize(
    "change", [{"name": "\ud800"}, {"sha256": "f" * 64}, {"shape": (2**53,)}]
)
def test_no_leaf(change):
    with pytest.raises(FormatError):
        tensor_root([replace(NORM, **change)])
