"""What the loader lets through, and how it says no."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.engine.vllm_plugin.check import (
    Reference,
    WeightCheck,
    WeightsRefusedError,
    record_refusal,
)
from gateway.engine.vllm_plugin.tree import Tensor, tensor_root

A = Tensor("a", "F32", (2,), "a" * 64)
B = Tensor("b", "BF16", (), "b" * 64)
ROOT = tensor_root([A, B])
ENTRIES = [
    {"name": t.name, "dtype": t.dtype, "shape": t.shape, "sha256": f"sha256:{t.sha256}"}
    for t in (A, B)
]
GOOD = {"root": ROOT, "tensors": ENTRIES}


def check(*, listed=True):
    tensors = {"a": A, "b": B} if listed else None
    return WeightCheck(Reference(ROOT, tensors, "0" * 64))


def read(folder, value, sha256=None):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    path = folder / "reference.json"
    path.write_bytes(data)
    return Reference.read(path, sha256 or hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("listed", [True, False])
def test_good_weights(listed):
    passing = check(listed=listed)
    passing.accept(B)
    passing.accept(A)
    assert passing.finish() == ROOT


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (A._replace(sha256="c" * 64), "another content"),
        (A._replace(shape=(1, 2)), "another type or shape"),
        (A._replace(dtype="I32"), "another type or shape"),
        (A._replace(name="c"), "does not list"),
    ],
)
def test_wrong_tensor(tensor, reason):
    with pytest.raises(WeightsRefusedError, match=reason) as caught:
        check().accept(tensor)
    assert caught.value.tensor == tensor.name
    assert tensor.sha256 in caught.value.found


def test_message_has_both_digests():
    with pytest.raises(WeightsRefusedError) as caught:
        check().accept(A._replace(sha256="c" * 64))
    assert caught.value.expected == "sha256:" + "a" * 64
    assert f"expected sha256:{'a' * 64}, found sha256:{'c' * 64}" in str(caught.value)


def test_tensor_twice():
    passing = check()
    passing.accept(A)
    with pytest.raises(WeightsRefusedError, match="twice"):
        passing.accept(A)


def test_missing_tensor():
    passing = check()
    passing.accept(B)
    with pytest.raises(WeightsRefusedError, match="not loaded") as caught:
        passing.finish()
    assert caught.value.tensor == "a"


@pytest.mark.parametrize(
    "tensors", [[], [A], [A, B._replace(sha256="c" * 64)], [A, B, A._replace(name="c")]]
)
def test_only_a_root(tensors):
    passing = check(listed=False)
    for tensor in tensors:
        passing.accept(tensor)
    with pytest.raises(WeightsRefusedError, match="another tensor root"):
        passing.finish()


def test_root_and_list_disagree():
    passing = WeightCheck(
        Reference("sha256:" + "0" * 64, {"a": A, "b": B}, "0" * 64), {"a": A, "b": B}
    )
    with pytest.raises(WeightsRefusedError, match="another tensor root"):
        passing.finish()


def test_read_reference(tmp_path):
    reference = read(tmp_path, GOOD)
    assert (reference.root, reference.tensors) == (ROOT, {"a": A, "b": B})


def test_read_reference_without_tensors(tmp_path):
    assert read(tmp_path, {"root": ROOT, "tensors": None}).tensors is None


def test_altered_reference(tmp_path):
    with pytest.raises(WeightsRefusedError, match="altered"):
        read(tmp_path, GOOD, sha256="0" * 64)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        {},
        {"root": ROOT},
        {"root": 1, "tensors": None},
        {"root": "0" * 64, "tensors": None},
        {"root": ROOT, "tensors": [{}]},
        {"root": ROOT, "tensors": [1]},
        {"root": ROOT, "tensors": [ENTRIES[0], ENTRIES[0]]},
        {"root": ROOT, "tensors": [ENTRIES[0] | {"sha256": "a" * 64}]},
        {"root": ROOT, "tensors": [ENTRIES[0] | {"shape": [2.0]}]},
        {"root": ROOT, "tensors": [ENTRIES[0] | {"shape": 2}]},
        {"root": ROOT, "tensors": [ENTRIES[0] | {"name": ["a"]}]},
    ],
)
def test_unusable_reference(tmp_path, value):
    with pytest.raises(WeightsRefusedError, match="not in its form"):
        read(tmp_path, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["root", "tensors", "name"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_read_or_refused(tmp_path_factory, value):
    with pytest.raises(WeightsRefusedError, match="not in its form"):
        read(tmp_path_factory.getbasetemp(), value)


def test_first_refusal_is_kept(tmp_path):
    path = tmp_path / "refusal.json"
    record_refusal(WeightsRefusedError("one", tensor="a", expected="x"), path)
    record_refusal(WeightsRefusedError("two"), path)
    assert json.loads(path.read_bytes()) == {
        "reason": "one",
        "tensor": "a",
        "expected": "x",
        "found": "",
    }
    assert list(tmp_path.iterdir()) == [path]


def test_refusal_without_a_place_to_write(tmp_path):
    record_refusal(WeightsRefusedError("one"), tmp_path / "absent" / "refusal.json")
