import pytest
import torch
from fakes.training import micro_model
from safetensors.torch import save_file
from torch import nn

from attest.errors import TrainingError
from attest.hashing import hash_tensors, scan_model
from attest.training.weights import load_model, weights_root
from attest.weights import tensor_root


def saved_root(directory):
    return tensor_root(hash_tensors(scan_model(directory)))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_root_in_memory_is_that_of_the_saved_model(tmp_path, tied, dtype):
    model = micro_model(tied=tied).to(dtype)
    model.save_pretrained(tmp_path)
    assert weights_root(model) == saved_root(tmp_path)
    assert weights_root(load_model(tmp_path).to(dtype)) == weights_root(model)


def test_one_bit_is_another_root():
    model = micro_model()
    before = weights_root(model)
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 1e-3
    assert weights_root(model) != before


class Counting(nn.Module):
    def __init__(self, dtype=torch.int64):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2, 3).t())  # not contiguous
        self.register_buffer("steps", torch.zeros((), dtype=dtype))
        self.register_buffer("cache", torch.zeros(2), persistent=False)


def test_buffers_count_where_they_are_saved(tmp_path):
    model = Counting()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    assert state.keys() == {"weight", "steps"}
    save_file(state, tmp_path / "model.safetensors")
    assert weights_root(model) == saved_root(tmp_path)


def test_dtype_that_no_file_can_hold():
    with pytest.raises(TrainingError, match="steps: safetensors has no dtype"):
        weights_root(Counting(torch.complex128))
