"""The plug-in's own tensor root, held equal to the library's."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attest.weights import TensorDigest
from attest.weights import tensor_root as library_root
from gateway.engine.vllm_plugin.tree import Tensor, tensor_root

TENSORS = st.lists(
    st.builds(
        Tensor,
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
        st.sampled_from(["F32", "BF16", "F8_E4M3"]),
        st.lists(st.integers(0, 2**40), max_size=4).map(tuple),
        st.binary(max_size=8).map(lambda raw: hashlib.sha256(raw).hexdigest()),
    ),
    min_size=1,
    max_size=20,
    unique_by=lambda tensor: tensor.name,
)


@given(TENSORS)
def test_root_equals_the_librarys(tensors):
    listed = [
        TensorDigest(t.name, t.dtype, t.shape, "sha256:" + t.sha256) for t in tensors
    ]
    assert tensor_root(tensors) == library_root(listed)


@given(TENSORS, st.randoms())
def test_order_does_not_matter(tensors, random):
    shuffled = list(tensors)
    random.shuffle(shuffled)
    assert tensor_root(shuffled) == tensor_root(tensors)


def test_root_of_one_leaf():
    tensor = Tensor("w", "F32", (2, 3), "0" * 64)
    leaf = json.dumps(
        {"dtype": "F32", "name": "w", "sha256": "0" * 64, "shape": [2, 3]},
        separators=(",", ":"),
    )
    expected = hashlib.sha256(b"\0" + leaf.encode()).hexdigest()
    assert tensor_root([tensor]) == "sha256:" + expected


def test_no_tensors():
    with pytest.raises(ValueError, match="no tensors"):
        tensor_root([])


def test_lone_surrogate_in_a_name():
    with pytest.raises(UnicodeEncodeError):
        tensor_root([Tensor("\ud800", "F32", (), "0" * 64)])
