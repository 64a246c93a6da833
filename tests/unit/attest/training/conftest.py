import pytest
import torch
from fakes.tiny_model import make_tiny_llama


@pytest.fixture(scope="session")
def pristine_tiny(tmp_path_factory):
    return make_tiny_llama(tmp_path_factory.mktemp("pristine") / "model")


@pytest.fixture(scope="session", autouse=True)
def one_torch_thread():
    """Two threads on two busy cores wait for each other: measured six times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
