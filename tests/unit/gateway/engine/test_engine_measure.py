"""Private copies and their digests, on real tensors."""

import hashlib

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from gateway.engine.vllm_plugin import measure  # noqa: E402
from gateway.engine.vllm_plugin.check import WeightsRefusedError  # noqa: E402
from gateway.engine.vllm_plugin.measure import measured  # noqa: E402


def one(tensor):
    [item] = measured([("w", tensor)])
    return item


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        ("bool", "BOOL"),
        ("uint8", "U8"),
        ("int64", "I64"),
        ("float16", "F16"),
        ("bfloat16", "BF16"),
        ("float32", "F32"),
        ("complex64", "C64"),
        ("float8_e4m3fn", "F8_E4M3"),
        ("float8_e8m0fnu", "F8_E8M0"),
    ],
)
def test_equals_the_files_bytes(tmp_path, dtype, name):
    tensor = torch.arange(1, 7).reshape(2, 3).to(getattr(torch, dtype))
    save_file({"w": tensor}, tmp_path / "m.safetensors")
    data = (tmp_path / "m.safetensors").read_bytes()
    stored = data[8 + int.from_bytes(data[:8], "little") :]
    item = one(tensor)
    assert f'"dtype":"{name}"'.encode() in data
    assert item.tensor == ("w", name, (2, 3), hashlib.sha256(stored).hexdigest())


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1, 1)])
def test_odd_shapes(shape):
    item = one(torch.ones(shape))
    raw = torch.ones(shape).numpy().tobytes()
    assert item.tensor == ("w", "F32", shape, hashlib.sha256(raw).hexdigest())
    assert item.copy.shape == shape


def test_strided_tensor_is_read_in_order():
    tensor = torch.arange(6.0).reshape(2, 3).T
    item = one(tensor)
    raw = tensor.numpy().tobytes()
    assert item.tensor.sha256 == hashlib.sha256(raw).hexdigest()
    assert torch.equal(item.copy, tensor)


def test_order_is_kept():
    given = [(str(n), torch.full((n % 7,), n)) for n in range(50)]
    assert [item.tensor.name for item in measured(given)] == [n for n, _ in given]


@pytest.mark.parametrize(
    "tensor", [torch.empty(1, device="meta"), torch.empty(1, dtype=torch.complex128)]
)
def test_unmeasurable_tensor(tensor):
    with pytest.raises(WeightsRefusedError, match="cannot be measured"):
        one(tensor)


def test_stops_early():
    passing = measured((str(n), torch.ones(2)) for n in range(100))
    assert next(passing).tensor.name == "0"
    passing.close()


@pytest.mark.parametrize("shape", [(3,), (1024, 1025)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.bool])
def test_what_is_written_to_the_file_later_does_not_reach_the_copy(shape, dtype):
    mapped = torch.ones(shape).to(dtype)
    raw = mapped.clone().reshape(-1).view(torch.uint8).numpy().tobytes()
    item = one(mapped)
    mapped.zero_()
    assert item.tensor.sha256 == hashlib.sha256(raw).hexdigest()
    assert torch.equal(item.copy, torch.ones(shape).to(dtype))
    assert item.copy.dtype == dtype


def test_a_large_strided_tensor_is_read_in_order():
    tensor = torch.arange(float(1 << 20)).reshape(1024, 1024).T
    item = one(tensor)
    raw = tensor.contiguous().numpy().tobytes()
    assert item.tensor.sha256 == hashlib.sha256(raw).hexdigest()
    assert torch.equal(item.copy, tensor)


def test_memory_is_used_again_only_when_nothing_points_into_it():
    size = (1 << 20, 3)
    passing = measured(
        (str(n), torch.full(size, n, dtype=torch.uint8)) for n in range(90)
    )
    kept = []
    for number, item in enumerate(passing):
        if number % 10 == 0:
            kept.append(item.copy[5:7])  # a view is enough to hold all of it
    assert [view.unique().tolist() for view in kept] == [[n] for n in range(0, 90, 10)]


def test_a_tensor_of_many_pieces(monkeypatch):
    monkeypatch.setattr(measure, "_PIECE", 4096)
    tensor = torch.arange(1 << 20, dtype=torch.int32).reshape(1024, 1024)
    item = one(tensor)
    assert item.tensor.sha256 == hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
    assert torch.equal(item.copy, tensor)
